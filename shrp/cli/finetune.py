"""`finetune`: the dense teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from typer import Option

from shrp.cli import options as opt
from shrp.cli.output import print_json, stderr, training_progress
from shrp.errors import TrainingError
from shrp.training.config import TrainConfig, read_config


@dataclass(frozen=True)
class FinetuneOptions:
    """What the `--config` file of `finetune` may set."""

    training: TrainConfig
    """How it is trained."""
    base_name: str | None = None
    """What checkpoints call the base; by default the folder's name."""


def finetune(
    base: opt.Base,
    out: opt.Out,
    *,
    files: opt.TrainingData,
    task_name: Annotated[str | None, Option(help="Name of your task [default: the file's]")] = None,
    head_labels: opt.HeadLabels = None,
    epochs: Annotated[
        int | None, Option(min=0, help="Epochs; 0 takes a trained model as it is. [default: 3]")
    ] = None,
    seed: Annotated[int | None, Option(help="Seed of everything random. [default: 0]")] = None,
    config: opt.Config = None,
    json: opt.AsJson = False,
) -> None:
    """Fine-tune a dense encoder on a task: the teacher that `train` starts from.

    The same command continues a killed run.
    """
    from shrp.checkpoints import checkpoint
    from shrp.checkpoints.base import load_base, name_of
    from shrp.checkpoints.info import CheckpointInfo, evaluated_length
    from shrp.checkpoints.saving import refuse_existing
    from shrp.model.config import ShrpConfig
    from shrp.training.loop import train
    from shrp.training.processes import from_main
    from shrp.training.runs import finish

    given = {"stage2_epochs": epochs or None, "seed": seed}
    options = read_config(
        config,
        FinetuneOptions,
        defaults={"training": {"learning_rate": 5e-5, "stage2_epochs": 3}},
        overrides={"training": {"shrp": {"layers": []}} | {n: v for n, v in given.items() if v is not None}},
    )
    how = options.training
    refuse_existing(out)  # refuse now, not after the epochs
    if epochs == 0 and files.train_file is None:
        files = replace(files, train_file=files.validation_file)
    data, validation = files.load(task_name)
    model, tokenizer, trained = load_base(base, data.task, how.seed, opt.labels_of(head_labels))
    if epochs == 0 and not trained:
        raise TrainingError(
            f"{base} has no trained head of {data.task.name}: give --epochs 1 or more, or name its classes with "
            "--head-labels."
        )
    info = CheckpointInfo(ShrpConfig(()), data.task, base_model=name_of(base, options.base_name))
    if epochs != 0:
        opt.report_data(data, validation)
        opt.report_cut(model.config, tokenizer, data, how.max_length)
    opt.report_cut(model.config, tokenizer, validation, evaluated_length(how.max_length))
    if epochs == 0:
        about = {"adopted": True, "config": {"max_length": how.max_length}}
        if head_labels:
            about["head_labels"] = list(opt.labels_of(head_labels))
        info = replace(info, training=about)
        from_main(lambda: checkpoint.save(model, tokenizer, info, out, new=True))
        found = checkpoint.load(out).evaluate(validation)
        last = {"metric": found.metric, "validation_score": found.score, "validation_interval": found.ends()}
        last |= {"validation_n": found.n}
    else:
        about = {"phase": "fine-tuning the teacher", "progress": training_progress()}
        model, info, history = train(how, model, info, tokenizer, data, validation, out, **about)
        from_main(lambda: checkpoint.save(model, tokenizer, info, out, history=history, new=True))
        finish(out)
        last = history[-1]
    if json:
        print_json({"out": str(out), "task": data.task.name, "validation": validation.name, **last})
    else:
        stderr.print(
            f"wrote {out}: {last['metric']} {last['validation_score']:.4f} (n = {last['validation_n']:,})"
        )
