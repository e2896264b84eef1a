"""`finetune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shrp.cli.data_options import (
    LabelColumn,
    LabelMeanings,
    OwnFile,
    SkipIncomplete,
    TextColumns,
    say_data,
    training_data,
    validation_data,
)
from shrp.cli.options import (
    AsJson,
    labels_of,
    say_cut,
    say_resume,
)
from shrp.cli.output import example, print_json, stderr, training_progress
from shrp.cli.training_options import (
    Base,
    BaseName,
    BatchSize,
    EpochSize,
    Freeze,
    GlueTask,
    HeadLabels,
    Out,
    Precision,
    Resume,
    Seed,
    TaskName,
    TrainFile,
    ValidationFile,
)

if TYPE_CHECKING:
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData


RATE, BATCH = 5e-5, 32
"""What `--learning-rate` and `--batch-size` are by default."""


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Fine-tune a dense encoder: the teacher",
        epilog=example(
            "finetune --base bert-base-uncased --task sst2 --out sst2-teacher",
            "Writes a dense checkpoint (weights, config, tokenizer, history) and prints its validation score.",
        ),
    )(finetune)


def finetune(
    base: Base,
    out: Out,
    task: GlueTask = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    task_name: TaskName = None,
    head_labels: HeadLabels = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Epochs; 0 takes a model that is of the task already as it is.")
    ] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = RATE,
    epoch_size: EpochSize = None,
    batch_size: BatchSize = BATCH,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=4,
            help="Longest input, in tokens; by default 128, with --epochs 0 as many as the model reads, or "
            "what a checkpoint of ours was made with. Scores and usage cut at 128 at the earliest.",
            show_default=False,
        ),
    ] = None,
    freeze_embeddings: Freeze = False,
    precision: Precision = "auto",
    seed: Seed = 0,
    base_name: BaseName = None,
    resume: Resume = False,
    json: AsJson = False,
) -> None:
    """Fine-tune a dense encoder on a task: the teacher that `train` starts from.

    With `--epochs 0` a model that is of the task already becomes a dense checkpoint as it is, to be scored, explained,
    exported and compared like any other; it takes no training file, but may to know all classes.
    """
    from shrp.checkpoints import checkpoint
    from shrp.checkpoints.base import load_base, name_of, of_another_task
    from shrp.checkpoints.checkpoint import Checkpoint, info_if_ours
    from shrp.checkpoints.info import CheckpointInfo, evaluated_length, history_text
    from shrp.checkpoints.saving import refuse_existing
    from shrp.data.batching import longest_input
    from shrp.errors import TrainingError
    from shrp.model.config import ShrpConfig
    from shrp.training.config import TrainConfig, check_seed
    from shrp.training.loop import train as run
    from shrp.training.runs import finish

    if epochs == 0:
        of_training = {
            "--learning-rate": learning_rate != RATE,
            "--epoch-size": epoch_size is not None,
            "--batch-size": batch_size != BATCH,
            "--freeze-embeddings": freeze_embeddings,
            "--precision": precision != "auto",
            "--seed": seed != 0,
            "--resume": resume,
        }
        if idle := [name for name, given in of_training.items() if given]:
            raise TrainingError(
                f"{idle[0]} does nothing with --epochs 0, which trains nothing; leave it out."
            )
        if max_length is not None and info_if_ours(base) is not None:
            raise TrainingError(f"{base} keeps the length that it was made with; leave --max-length out.")
    if Path(base).resolve() == out.resolve():
        raise TrainingError(f"--out {out} is the base itself; choose another folder for the result.")
    refuse_existing(out)  # now, not after the epochs
    say_resume(out, resume)
    own = OwnFile(text_column, label_column, label_means=label_means, skip_incomplete=skip_incomplete)
    if epochs == 0 and train_file is None:
        data = validation = validation_data(task, validation_file, own, task_name)
    else:
        data, validation = training_data(task, train_file, validation_file, own, task_name)
    check_seed(seed)
    model, tokenizer, trained = load_base(base, data.task, seed, labels_of(head_labels))
    info = CheckpointInfo(ShrpConfig(()), data.task, base_model=name_of(base, base_name))
    say_data(data, validation, trains=epochs > 0)
    if epochs == 0:
        if not trained:
            raise TrainingError(
                f"nothing says that {base} has a trained head of {data.task.name}, so it can't be taken as "
                "it is: give --epochs 1 or more or, if it has one, --head-labels."
            )
        about = {"adopted": True, "config": {"max_length": max_length or longest_input(model, tokenizer)}}
        if known := info_if_ours(base):
            about = dict(known.training)
        if head_labels:
            about["head_labels"] = list(labels_of(head_labels))
        made = Checkpoint(out, replace(info, training=about), model, tokenizer, "")
        _adopt(made, validation, as_json=json)
        return
    max_length = max_length or 128
    say_cut(model.config, tokenizer, (data,), max_length)
    say_cut(model.config, tokenizer, (validation,), evaluated_length(max_length))
    if not trained and (said := of_another_task(base, data.task)):
        stderr.print(said)
    config = TrainConfig(
        stage2_epochs=epochs,
        learning_rate=learning_rate,
        epoch_size=epoch_size,
        batch_size=batch_size,
        max_length=max_length,
        freeze_embeddings=freeze_embeddings,
        precision=precision,
        seed=seed,
    )
    model, info, history = run(
        config,
        model,
        info,
        tokenizer,
        data,
        validation,
        out,
        resume=resume,
        phase="fine-tuning the teacher",
        progress=training_progress(),
    )
    extra = {checkpoint.HISTORY: history_text(history)}
    checkpoint.save(model, tokenizer, info, out, extra_files=extra, new=True)
    finish(out)
    last = history[-1]
    if json:
        print_json({"out": str(out), "task": data.task.name, "validation": validation.name, **last})
    else:
        stderr.print(f"wrote {out}")


def _adopt(made: Checkpoint, validation: TextData, *, as_json: bool) -> None:
    """Write a dense model as it is, and say what it scores."""
    from shrp.checkpoints import checkpoint
    from shrp.evaluation.evaluate import evaluate

    info = made.info
    say_cut(made.model.config, made.tokenizer, (validation,), info.max_length)
    checkpoint.save(made.model, made.tokenizer, info, made.path, new=True)
    found = evaluate(made.model, made.tokenizer, validation, max_length=info.max_length)
    if as_json:
        print_json(
            {
                "out": str(made.path),
                "task": info.task.name,
                "validation": validation.name,
                "metric": found.metric,
                "validation_score": found.score,
                "validation_interval": found.ends(),
                "validation_n": found.n,
            }
        )
    else:
        stderr.print(
            f"wrote {made.path}, the model as it is: {found.metric} {found.score:.4f} on {found.data}, n = "
            f"{found.n:,}"
        )
