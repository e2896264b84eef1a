"""Score against FLOPs at every budget that six converted layers allow, beside experts kept at random."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shrp.checkpoints.info import usage_in
from shrp.checkpoints.score_rows import measured, share_of
from shrp.cli.output import bar, stderr
from shrp.evaluation.costs import TOKENS, cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import PruningPlan, make_plan
from shrp.pruning.sweep import random_control, run
from studies.experiments.study import (
    Layers,
    Options,
    Study,
    command,
    results_file,
    studies,
)


def one_seed(study: Study, layers: tuple[int, ...], seed: int, step: int, draws: int) -> list[dict[str, Any]]:
    """The routed model, and at each budget the most used experts and the mean of `draws` random choices."""
    made = study.convert(study.config(seed, layers))
    stages, usage = study.stages, usage_in(made.info)
    largest = len(layers) * study.num_experts
    plans: dict[str, list[list[PruningPlan]]] = {"static": [], "random": []}
    for budget in sorted({*range(len(layers), largest + 1, step), largest}):
        plan = make_plan(usage, budget=budget)
        plans["static"].append([plan])
        if draws and budget < largest:  # all experts are all experts
            plans["random"].append([random_control(plan, usage, seed=draw) for draw in range(draws)])
    live = LiveEvaluator(made.model, made.tokenizer, stages.validation, max_length=stages.max_length)
    every = [plan for sizes in plans.values() for drawn in sizes for plan in drawn]
    with bar("sweep") as progress:
        task = progress.add_task("sweep", total=len(every))
        found = iter(run(live, every, lambda: progress.advance(task)))
    routed = stages.evaluate(made.model)
    rows = [_row(study, "routed", None, [routed], cost(made.model, TOKENS).relative_to(study.dense))]
    for model, sizes in plans.items():
        for drawn in sizes:
            price = plan_cost(made.model, drawn[0], TOKENS).relative_to(study.dense)
            rows.append(_row(study, model, drawn[0].budget, [next(found) for _ in drawn], price))
    return rows


def _row(
    study: Study, model: str, budget: int | None, found: list[Evaluation], price: dict[str, float]
) -> dict[str, Any]:
    row, teacher = measured(found) | {"model": model, "budget": budget}, study.teacher.score
    return row | {
        "teacher": teacher,
        "retained": share_of(row["score"], teacher),
        **price,
    }


@command
def main(
    options: Options,
    layers: Layers = "upper:6",
    step: Annotated[int, typer.Option(min=1, help="From one budget to the next.")] = 1,
    draws: Annotated[int, typer.Option(min=0, help="Random choices at each budget.")] = 3,
) -> None:
    """Score against FLOPs over all global budgets, beside random experts; without recovery."""
    file = results_file(options, "sweep")
    converted = options.converted(layers)
    for study in studies(options):
        study.describe(file, converted, step=step, draws=draws, tokens=TOKENS)
        for seed in study.seeds:
            file.put(one_seed(study, converted, seed, step, draws), task=study.task, seed=seed)
            stderr.print(f"{study.task}, seed {seed}: done")
