"""`train`: from a dense encoder to a routed checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.cli.options import (
    AsJson,
    Base,
    Config,
    GlueTask,
    HeadLabels,
    LabelColumn,
    LabelMeanings,
    Out,
    OwnFile,
    TextColumns,
    TrainFile,
    ValidationFile,
    base_geometry,
    labels_of,
    number_list,
    report_cut,
    report_data,
    training_data,
    upper_half,
)
from shrp.cli.output import print_json, print_table, score_line, stderr, training_progress
from shrp.errors import PlanError
from shrp.phrases import listed
from shrp.training.config import RECIPES, TrainConfig, read_config


@dataclass(frozen=True)
class TrainOptions:
    """What the `--config` file of `train` may set."""

    training: TrainConfig
    """The two stages: layers and routing (`shrp`), order, epochs, rates, distillation, seed."""
    teacher: TrainConfig | None = None
    """Fine-tuning of the dense teacher; by default 3 epochs at 5e-5, if the base has no trained head."""
    task_name: str | None = None
    """Name of your task; by default the training file's."""
    per_layer: tuple[int, ...] | None = None
    """Experts per layer at which static models are scored; by default 1, 2, 4, 8 and 12."""
    fine_tuning_epochs: int = 1
    """Epochs of fine-tuning after pruning."""
    random_draws: int = 3
    """Random selections that each static model is compared with; one is fine-tuned too."""
    base_name: str | None = None
    """What checkpoints call the base; by default the folder's name."""
    keep_stages: bool = False
    """Keep the teacher too, in <out>-stages."""
    full_precision: bool = False
    """Store float32 weights instead of float16."""


def train(
    base: Base,
    out: Out,
    task: GlueTask = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    head_labels: HeadLabels = None,
    layers: Annotated[
        str | None,
        typer.Option(help='Layers to convert: "6-11", "1,3,5" or "upper:6" [default: the upper half]'),
    ] = None,
    recipe: Annotated[str, typer.Option(help="retain (distilled) or paper (the plain method).")] = "retain",
    converted: Annotated[
        Path | None, typer.Option(help="Start from layers that `convert` made of the same base.")
    ] = None,
    fine_tune: Annotated[
        str, typer.Option(help='Also prune to so many experts per layer and fine-tune, such as "1,2".')
    ] = "",
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Convert a dense encoder to a routed SHRP checkpoint, with scores of its prunings and random selections.

    A base without a trained head is fine-tuned first. The same command continues a killed run.
    """
    import torch

    from shrp.checkpoints.base import base_config, load_base, refuse_unclear
    from shrp.checkpoints.checkpoint import read_config as read_checkpoint
    from shrp.checkpoints.info import evaluated_length
    from shrp.data.sources import probe_for
    from shrp.errors import TrainingError
    from shrp.training.recipe import Datasets, Recipe, RecipeRun, stages_folder
    from shrp.training.runs import holds_a_run, run_folder

    if recipe not in RECIPES:
        raise TrainingError(f"--recipe is {' or '.join(RECIPES)}, not {recipe!r}.")
    num_layers, experts = base_geometry(base)
    shrp: dict[str, Any] = {"layers": list(upper_half(layers, num_layers))}
    static = False
    if converted is not None:
        if layers is not None:
            raise PlanError(f"leave --layers out: {converted} has its layers already.")
        _, made = read_checkpoint(converted)
        static = made.plan is not None
        if static and fine_tune:
            raise PlanError(f"leave --fine-tune out: {converted} is pruned already.")
        shrp = {
            "layers": list(made.config.layers),
            "routing": made.config.routing,
            "top_k": made.config.top_k,
        }
    options = read_config(
        config, TrainOptions, defaults={"training": RECIPES[recipe]}, overrides={"training": {"shrp": shrp}}
    )
    data, validation = training_data(
        task, train_file, validation_file, OwnFile(text_column, label_column, label_means), options.task_name
    )
    how = options.training
    how.shrp.check_fits(num_layers, experts)  # refuse now, not after the teacher's epochs
    tuned = run_folder(out) / "teacher"
    if options.teacher is None and not head_labels and not (tuned.exists() or holds_a_run(run_folder(tuned))):
        refuse_unclear(base, data.task)
    run = RecipeRun(
        Recipe(
            how,
            teacher=options.teacher or TrainConfig(stage2_epochs=3, learning_rate=5e-5),
            per_layer=() if static else options.per_layer,
            recover=number_list(fine_tune, experts, "--fine-tune"),
            recovery_epochs=options.fine_tuning_epochs,
            converted=None if converted is None else str(converted),
            random_draws=options.random_draws,
        ),
        base,
        Datasets(data, validation, probe_for(data.task)),
        out,
        base_name=options.base_name,
        dtype=None if options.full_precision else torch.float16,
        head_labels=labels_of(head_labels),
        tune_by=() if options.teacher is None else ("teacher",),
        keep_stages=options.keep_stages,
        resume=True,
        progress=training_progress(),
        announce=lambda text: stderr.print(f"stage: {text}"),
    )
    if not out.exists() and not run_folder(out).exists():  # a continued run has said it
        report_data(data, validation)
        reads = base_config(base), load_base(base, data.task)[1]
        report_cut(*reads, (data,), how.max_length)
        report_cut(*reads, (validation,), evaluated_length(how.max_length))
    info = run()
    kept = [str(stages_folder(out) / name) for name in run.recovered]
    if json:
        made = {"out": str(out), "fine_tuned": kept, "task": info.task.name}
        print_json(made | {"scores": list(info.scores)})
        return
    print_table(str(out), [score_line(row) for row in info.scores])
    if kept:
        stderr.print(f"pruned and fine-tuned models: {listed(kept)}")
