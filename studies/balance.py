"""What does the balance loss do? `python -m studies.balance --base BAAI/bge-small-en-v1.5`.

Converts the upper half of the layers on the task with several weights of the balance loss. Rows record how evenly experts
are used after each stage, and the scores routed and pruned without fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import typer

from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.data.tasks import TASKS
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import allocate, make_plan
from studies.rows import DATA, Rows, names, numbers, run
from studies.trainings import SMALL_STUDY, Base, Trainings

KEY = ("task", "seed", "balance")


def distance_from_uniform(share: Sequence[float]) -> float:
    """Total variation between shares `(H,)` and equal ones: 0 if all are equal, `1 - 1/H` if one has everything."""
    found = np.asarray(share, dtype=np.float64)
    return float(0.5 * np.abs(found - 1 / len(found)).sum())


def measure(made: Trainings, weight: float, per_layer: int) -> dict[str, Any]:
    """The row of one conversion."""
    layers = tuple(range(made.base.layers // 2, made.base.layers))
    config = made.config("retain", part=0, shrp=ShrpConfig(layers), balance=weight, **SMALL_STUDY)
    name = f"balance-{weight:g}"
    routed = made.train(name, config, made.teacher)
    plan = make_plan(usage_in(routed.info), per_layer=per_layer)
    found = made.evaluate(routed.model)
    history = made.histories[name]
    first, second = ([[*row["usage"].values()] for row in history if row["stage"] == s] for s in (1, 2))
    about = {"task": made.task, "seed": made.seed, "balance": weight, "metric": found.metric, "n": found.n}
    return about | {
        "teacher_score": made.best.score,
        "routed_score": found.score,
        "static_score": made.evaluate(made.pruned(routed, plan).model).score,
        "experts_per_layer": per_layer,
        "largest_share_stage1": max(max(share) for epoch in first for share in epoch),
        "distance_stage1": mean(map(distance_from_uniform, first[-1])),
        "distance_stage2": mean(map(distance_from_uniform, second[-1])),
    }


def main(
    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = "cola,mrpc",
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0,1,2",
    weights: Annotated[str, typer.Option(help="Weights of the balance loss.")] = "0,0.01,0.1,1",
    per_layer: Annotated[int, typer.Option(min=1, help="Experts per layer of the pruned model.")] = 2,
    out: Annotated[Path, typer.Option(help="File of rows.")] = DATA / "balance.json",
) -> None:
    """Train the conversions that the file lacks, and add their rows."""
    wanted, chosen = names(tasks, tuple(TASKS), "--tasks"), numbers(seeds, "--seeds")
    encoder, rows = Base(base, work, base_name), Rows(out, KEY)
    allocate({0: [1.0] * encoder.experts}, per_layer=per_layer)  # refused now, not after the trainings
    for task, seed, weight in product(wanted, chosen, numbers(weights, "--weights", float)):
        if {"task": task, "seed": seed, "balance": weight} in rows:
            continue
        row = measure(Trainings(encoder, task, seed), weight, per_layer)
        rows.add(row)
        scores = f"routed {row['routed_score']:.4f}, pruned {row['static_score']:.4f}"
        stderr.print(f"{task}, seed {seed}, balance {weight:g}: {scores}")


if __name__ == "__main__":
    run(main)
