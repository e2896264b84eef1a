"""`train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.data_options import (
    LabelColumn,
    LabelMeanings,
    OwnFile,
    SkipIncomplete,
    TextColumns,
    say_data,
    training_data,
)
from shrp.cli.options import (
    AsJson,
    FullPrecision,
    labels_of,
    layer_list,
    say_cut,
    say_resume,
)
from shrp.cli.output import example, print_json, print_table, score_line, stderr, training_progress
from shrp.cli.training_options import (
    Base,
    BaseName,
    BatchSize,
    EpochSize,
    Freeze,
    GlueTask,
    HeadLabels,
    MaxLength,
    Out,
    Precision,
    Resume,
    Seed,
    TaskName,
    TrainFile,
    ValidationFile,
)
from shrp.phrases import listed


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="A routed checkpoint of a dense encoder, by both stages",
        epilog=example(
            "train --base bert-base-uncased --task sst2 --layers upper:6 --recover 2 --out sst2-bert",
            "Writes a routed checkpoint with its scores, those of random experts and its history, weights in "
            "float16; what a killed run left is in OUT.run.",
        ),
    )(train)


def train(
    base: Base,
    out: Out,
    layers: Annotated[
        str | None,
        typer.Option(
            help='Layers to convert: "6-11", "1,3,5" or "upper:6" (counted from 0 at the input); the upper half by '
            "default."
        ),
    ] = None,
    task: GlueTask = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    task_name: TaskName = None,
    head_labels: HeadLabels = None,
    routing: Annotated[str | None, typer.Option(help="sequence (the default) or token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Experts that a gate lets through; 1 by default.")] = None,
    converted: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint of `convert`: its layers take the place of stage 1, and of --layers. "
            "Pruned there already, it gives a static checkpoint, of which nothing else can be pruned: no "
            "--per-layer, --recover or --random-draws."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Conversion order: top-down (the default), bottom-up, or a list of layers."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (the method alone) or retain (distilled): gives the values below that are not given."
        ),
    ] = "retain",
    stage2_epochs: Annotated[int, typer.Option(help="Epochs after the last conversion.")] = 2,
    balance: Annotated[
        float | None, typer.Option(help="Weight of the balance loss in stage 1 (lambda).")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="For pretrained weights.")] = None,
    new_learning_rate: Annotated[
        float | None, typer.Option(help="For Router and Expander, or what has the Expander's place.")
    ] = None,
    distill_logits: Annotated[
        float | None, typer.Option(help="Share of the loss from the teacher's logits, 0 to 1.")
    ] = None,
    distill_hidden: Annotated[
        float | None, typer.Option(help="Weight of the teacher's hidden states.")
    ] = None,
    expander_init: Annotated[
        str | None,
        typer.Option(help="random (near the identity) or least_squares (fitted to the dense layer)."),
    ] = None,
    swap: Annotated[
        float | None,
        typer.Option(help="Probability that a stage 1 step still runs the dense layer, at first."),
    ] = None,
    exploration: Annotated[
        float | None, typer.Option(help="Gumbel noise on the routers in stage 1, at first.")
    ] = None,
    dropout: Annotated[
        bool | None, typer.Option("--dropout/--no-dropout", help="Whether the model's own dropout is on.")
    ] = None,
    freeze_dense: Annotated[
        bool | None,
        typer.Option(
            "--freeze-dense/--train-dense",
            help="Whether layers that are still dense stay as the teacher has them; a step is then much cheaper.",
        ),
    ] = None,
    conversion_size: Annotated[
        int | None, typer.Option(help="At most so many examples in an epoch of stage 1.")
    ] = None,
    teacher_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of dense fine-tuning first, where the base has no trained head; 3 by default, and to be given "
            "where nothing says what the base's head is of.",
            show_default=False,
        ),
    ] = None,
    teacher_learning_rate: Annotated[
        float | None, typer.Option(help="For that fine-tuning; 5e-5 by default.")
    ] = None,
    per_layer: Annotated[
        str | None,
        typer.Option(help="Experts a layer at which static models are scored; 1,2,4,8,12 by default."),
    ] = None,
    recover: Annotated[
        str,
        typer.Option(help='Experts a layer at which a static model is trained on and scored, such as "1,2".'),
    ] = "",
    recovery_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of that; 1 by default.")] = None,
    random_draws: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Random selections of experts to compare each pruning with, one of them fine-tuned too; 3 by default.",
        ),
    ] = None,
    epoch_size: EpochSize = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = 128,
    freeze_embeddings: Freeze = False,
    precision: Precision = "auto",
    seed: Seed = 0,
    base_name: BaseName = None,
    full_precision: FullPrecision = False,
    keep_stages: Annotated[
        bool,
        typer.Option(
            "--keep-stages",
            help="Keep the teacher and the fine-tuned random experts too, as checkpoints in <out>-stages, where what --recover "
            "made is kept in any case.",
        ),
    ] = False,
    resume: Resume = False,
    json: AsJson = False,
) -> None:
    """Turn a dense encoder into a routed SHRP checkpoint, with scores of its prunings and controls.

    A base without a trained head is fine-tuned first. A killed run goes on with `--resume` and the same options.
    """
    import torch

    from shrp.checkpoints.base import base_config, load_base, refuse_unclear
    from shrp.checkpoints.checkpoint import read_config
    from shrp.checkpoints.info import evaluated_length
    from shrp.data.sources import probe_for
    from shrp.errors import PlanError, TrainingError
    from shrp.model.config import ShrpConfig
    from shrp.training.config import TrainConfig
    from shrp.training.recipe import Datasets, Recipe, RecipeRun, stages_folder
    from shrp.training.runs import holds_a_run, run_folder

    own = OwnFile(text_column, label_column, label_means=label_means, skip_incomplete=skip_incomplete)
    data, validation = training_data(task, train_file, validation_file, own, task_name)
    say_resume(out, resume)
    geometry = base_geometry(base)
    if converted is None:
        indices = layer_list(layers or f"upper:{max(geometry[0] // 2, 1)}", geometry[0])
        layered = ShrpConfig(indices, routing or "sequence", 1 if top_k is None else top_k)
    else:
        refuse_what_is_decided(
            converted,
            {"--layers": layers, "--routing": routing, "--top-k": top_k},
            {
                **{"--order": order, "--balance": balance, "--expander-init": expander_init, "--swap": swap},
                **{"--exploration": exploration, "--conversion-size": conversion_size},
            },
        )
        _, made = read_config(converted)
        if made.plan is not None:
            if per_layer is not None or recover or random_draws:
                raise PlanError(
                    f"{converted} is pruned already: leave out --per-layer, --recover and --random-draws."
                )
            per_layer = ""
        layered = ShrpConfig(made.config.layers, made.config.routing, made.config.top_k)
    shared = {
        "epoch_size": epoch_size,
        "batch_size": batch_size,
        "max_length": max_length,
        "freeze_embeddings": freeze_embeddings,
        "precision": precision,
        "seed": seed,
    }
    chosen = {
        "balance": balance,
        "learning_rate": learning_rate,
        "new_learning_rate": new_learning_rate,
        "distill_logits": distill_logits,
        "distill_hidden": distill_hidden,
        "expander_init": expander_init,
        "swap": swap,
        "exploration": exploration,
        "dropout": dropout,
        "freeze_dense": freeze_dense,
        "conversion_size": conversion_size,
    }
    config = TrainConfig.named(
        recipe,
        shrp=layered,
        order=conversion_order(order or "top-down", layered.layers, geometry[0]),
        stage2_epochs=stage2_epochs,
        **{name: value for name, value in chosen.items() if value is not None},
        **shared,
    )
    config.shrp.check_fits(*geometry)  # now, not after the teacher's epochs
    tuned = run_folder(out) / "teacher"
    goes_on = resume and (tuned.exists() or holds_a_run(run_folder(tuned)))  # begun before this was asked
    if teacher_epochs is None and not head_labels and not goes_on:
        refuse_unclear(base, data.task)
    if teacher_epochs is not None and head_labels:
        raise TrainingError(
            "--teacher-epochs does nothing beside --head-labels, by which the base is the teacher as it is; give one."
        )
    of_tuning = {"--teacher-epochs": teacher_epochs, "--teacher-learning-rate": teacher_learning_rate}
    asked = tuple(name for name, value in of_tuning.items() if value is not None)
    teacher_epochs = 3 if teacher_epochs is None else teacher_epochs
    if teacher_epochs < 1:
        raise TrainingError(
            "--teacher-epochs is 1 or more; a base with a trained head is the teacher as it is, without any "
            "(--head-labels, where its config does not name the classes)."
        )
    rate = 5e-5 if teacher_learning_rate is None else teacher_learning_rate
    teacher = TrainConfig(stage2_epochs=teacher_epochs, learning_rate=rate, **shared)
    recovered = experts_a_layer("--recover", recover, geometry[1])
    if recovery_epochs is not None and not recovered:
        raise PlanError("--recovery-epochs is for models that --recover names: give it too.")
    steps = Recipe(
        config,
        teacher=teacher,
        per_layer=None if per_layer is None else experts_a_layer("--per-layer", per_layer, geometry[1]),
        recover=recovered,
        recovery_epochs=recovery_epochs or 1,
        converted=None if converted is None else str(converted),
        random_draws=3 if random_draws is None else random_draws,
    )
    run = RecipeRun(
        steps,
        base,
        Datasets(data, validation, probe_for(data.task)),
        out,
        base_name=base_name,
        dtype=None if full_precision else torch.float16,
        head_labels=labels_of(head_labels),
        tune_by=asked,
        keep_stages=keep_stages,
        resume=resume,
        progress=training_progress(),
        announce=lambda text: stderr.print(f"stage: {text}"),
    )
    if not out.exists():  # else it will say that
        say_data(data, validation)
    if not out.exists() and not run_folder(out).exists():  # a run that goes on has said it
        reads = base_config(base), load_base(base, data.task)[1]
        say_cut(*reads, (data,), max_length)
        say_cut(*reads, (validation,), evaluated_length(max_length))
    info = run()
    kept = [stages_folder(out) / name for name in run.recovered]
    if json:
        made = {"out": str(out), "recovered": list(map(str, kept)), "task": info.task.name}
        print_json(made | {"scores": list(info.scores)})
    else:
        print_table(f"{out}", [score_line(row) for row in info.scores])
        if kept:
            stderr.print(f"the recovered models, static and ready to serve: {listed(list(map(str, kept)))}")


def refuse_what_is_decided(
    converted: Path, own: Mapping[str, object], of_stage1: Mapping[str, object]
) -> None:
    """Raise `PlanError` for options that a checkpoint of `convert` leaves nothing to decide for.

    Args:
        own: options for what the checkpoint has its own of -> what was given, or None.
        of_stage1: the same of stage 1, which the checkpoint has behind it.
    """
    from shrp.errors import PlanError

    for name, given in own.items():
        if given is not None:
            raise PlanError(f"{name}: {converted} has its own already, so leave the option out.")
    for name, given in of_stage1.items():
        if given is not None:
            raise PlanError(f"{name} is for stage 1, which {converted} has behind it; leave the option out.")


def experts_a_layer(option: str, text: str, experts: int) -> tuple[int, ...]:
    """Numbers of experts a layer from `1,2,4`, none of them above what a layer has."""
    from shrp.errors import PlanError

    numbers = number_list(text)
    if numbers and max(numbers) > experts:
        raise PlanError(f"{option} is for 1 to {experts} experts a layer, not {max(numbers)}.")
    return numbers


def base_geometry(base: str) -> tuple[int, int]:
    """Layers and heads of a base, from its config alone."""
    from shrp.checkpoints.base import base_config

    config = base_config(base)
    return config.num_hidden_layers, config.num_attention_heads


def conversion_order(text: str, layers: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """The order that `--order` names."""
    if text == "top-down":
        return tuple(sorted(layers, reverse=True))
    return tuple(sorted(layers)) if text == "bottom-up" else layer_list(text, num_layers)


def number_list(text: str) -> tuple[int, ...]:
    """Positive numbers from `1,2,4`, each once."""
    from shrp.errors import TrainingError

    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError as error:
        raise TrainingError(f'expected numbers such as "1,2,4", not {text!r}.') from error
    if any(number < 1 for number in numbers):
        raise TrainingError(f"numbers of experts must be 1 or more, not {text!r}.")
    return numbers
