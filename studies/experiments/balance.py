"""The balance loss by its weight: whether experts collapse without it, and what it does to the final score."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shrp.analysis.usage import distance_from_uniform, effective_experts
from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.cli.training import base_geometry
from shrp.errors import TrainingError
from shrp.pruning.plan import allocate, make_plan
from shrp.pruning.prune import prune
from studies.command import numbers
from studies.experiments.study import (
    Layers,
    Options,
    Study,
    command,
    results_file,
    scored,
    studies,
)


def one_run(
    study: Study, layers: tuple[int, ...], weight: float, seed: int, per_layer: int
) -> dict[str, Any]:
    """Usage after every epoch, and the scores routed and pruned, of one conversion."""
    made = study.convert(study.config(seed, layers, balance=weight))
    usage = [
        {
            "epoch": row["epoch"],
            "stage": row["stage"],
            "layer": int(layer),
            "effective": effective_experts(share),
            "top_share": max(share),
            "distance": distance_from_uniform(share),
        }
        for row in checkpoint.read_history(made.path)
        for layer, share in row["usage"].items()
    ]
    plan = make_plan(usage_in(made.info), per_layer=per_layer)
    routed = study.stages.evaluate(made.model)
    static = study.stages.evaluate(prune(made.model, plan, share_weights=True))
    return {
        "metric": routed.metric,
        "n": routed.n,
        "teacher": study.teacher.score,
        "experts": study.num_experts,
        "per_layer": per_layer,
        "routed": scored(routed),
        "static": scored(static),
        "usage": usage,
    }


@command
def main(
    options: Options,
    layers: Layers = "upper:6",
    weights: Annotated[str, typer.Option(help="Weights of the balance loss in stage 1.")] = "0,0.01,0.1,1",
    per_layer: Annotated[int, typer.Option(min=1, help="Experts a layer of the static model.")] = 2,
) -> None:
    """Collapse and score by the weight of the balance loss."""
    file = results_file(options, "balance")
    converted, chosen = options.converted(layers), numbers(weights, float)
    if not all(0 <= weight < float("inf") for weight in chosen):
        raise TrainingError(f"--weights takes numbers from 0 on, not {weights}.")
    allocate(dict.fromkeys(converted, [1.0] * base_geometry(options.base)[1]), per_layer=per_layer)
    for study in studies(options):
        study.describe(file, converted, per_layer=per_layer)
        for seed in study.seeds:
            for weight in chosen:
                row = one_run(study, converted, weight, seed, per_layer)
                file.put([row], task=study.task, seed=seed, balance=weight)
                stderr.print(
                    f"{study.task}, seed {seed}, {weight:g}: routed {row['routed']['score']:.4f}, "
                    f"static {row['static']['score']:.4f}"
                )
