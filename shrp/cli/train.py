"""`train`: from a dense encoder to a routed checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from shrp.cli import options as opt
from shrp.cli.output import print_json, print_scores, stderr, training_progress
from shrp.errors import PlanError
from shrp.training.config import RECIPES, Recipe, read_config


@dataclass(frozen=True)
class TrainOptions(Recipe):
    """What the `--config` file of `train` may set."""

    task_name: str | None = None
    """Name of your task; by default the training file's."""


def train(
    base: opt.Base,
    out: opt.Out,
    *,
    files: opt.TrainingData,
    head_labels: opt.HeadLabels = None,
    layers: opt.Layers = None,
    recipe: Annotated[Literal["retain", "paper"], Option(help="Distilled, or the plain method.")] = "retain",
    converted: Annotated[Path | None, Option(help="Start from what `convert` made of this base.")] = None,
    config: opt.Config = None,
    json: opt.AsJson = False,
) -> None:
    """Convert a dense encoder to a routed SHRP checkpoint, with scores of its prunings and random selections.

    A base without a trained head is fine-tuned first. The same command continues a killed run.
    """
    from shrp.checkpoints.base import base_config, load_base, refuse_unclear
    from shrp.checkpoints.checkpoint import read_config as read_checkpoint
    from shrp.checkpoints.info import evaluated_length
    from shrp.data.sources import probe_for
    from shrp.training.recipe import Datasets, RecipeRun
    from shrp.training.runs import holds_a_run, run_folder

    num_layers, experts = opt.base_geometry(base)
    shrp: dict[str, Any] = {"layers": list(opt.layer_list(layers, num_layers))}
    given: dict[str, Any] = {}
    if converted is not None:
        if layers is not None:
            raise PlanError(f"leave --layers out: {converted} has its layers already.")
        made, given["converted"] = read_checkpoint(converted)[1].config, str(converted)
        if not made.layers:
            raise PlanError(f"{converted} has no converted layers: give what `convert` made of this base.")
        shrp = {"layers": list(made.layers), "routing": made.routing, "top_k": made.top_k}
    given["training"] = {"shrp": shrp}
    options = read_config(config, TrainOptions, defaults={"training": RECIPES[recipe]}, overrides=given)
    data, validation = files.load(options.task_name)
    how = options.training
    how.shrp.check_fits(num_layers, experts)  # refuse now, not after the teacher's epochs
    options.sizes(experts)
    begun = holds_a_run(run_folder(run_folder(out) / "teacher"))
    if options.teacher is None and not head_labels and not begun:
        refuse_unclear(base, data.task)
    run = RecipeRun(
        options,
        base,
        Datasets(data, validation, probe_for(data.task)),
        out,
        head_labels=opt.labels_of(head_labels),
        progress=training_progress(),
        announce=lambda text: stderr.print(f"stage: {text}"),
    )
    if not out.exists() and not run_folder(out).exists():  # a continued run has said it
        opt.report_data(data, validation)
        reads = base_config(base), load_base(base, data.task)[1]
        opt.report_cut(*reads, data, how.max_length)
        opt.report_cut(*reads, validation, evaluated_length(how.max_length))
    info = run()
    if json:
        print_json({"out": str(out), "task": info.task.name, "scores": list(info.scores)})
    else:
        print_scores(str(out), info.scores)
