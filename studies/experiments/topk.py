"""Top-1, Top-3 and Top-5 routing: the score before and after pruning, and which experts each seed would keep."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from shrp.analysis.usage import effective_experts
from shrp.checkpoints.info import usage_in
from shrp.checkpoints.score_rows import share_of
from shrp.cli.output import stderr
from shrp.cli.training import base_geometry
from shrp.evaluation.costs import TOKENS, cost, plan_cost
from shrp.evaluation.paired import paired_difference
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.overlap import used_experts
from shrp.pruning.plan import allocate, make_plan
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


def one_seed(
    study: Study, layers: tuple[int, ...], top_k: int, seed: int, budgets: list[int]
) -> list[dict[str, Any]]:
    """The routed model, and its prunings to each budget: scores, costs, kept experts."""
    made = study.convert(study.config(seed, layers, top_k=top_k))
    stages, usage = study.stages, usage_in(made.info)
    routed = stages.evaluate(made.model)
    teacher = study.teacher.score
    effective = {str(layer): effective_experts(share) for layer, share in usage.items()}
    price = cost(made.model, TOKENS).relative_to(study.dense)
    rows = [{"model": "routed", "budget": None, **scored(routed), "effective_by_layer": effective, **price}]
    live = LiveEvaluator(made.model, made.tokenizer, stages.validation, max_length=stages.max_length)
    for budget in budgets:
        plan = make_plan(usage, budget=budget)
        static = live.evaluate(plan)
        change, interval = paired_difference(static, routed)
        rows.append(
            {"model": "static", "budget": budget, **scored(static)}
            # There is none of a bootstrapped metric where the pruned model answers all as the routed one does.
            | {"change": change, "change_interval": list(interval) if math.isfinite(interval[0]) else None}
            | {"kept": {str(layer): list(kept.experts) for layer, kept in plan.layers}}
            | {"used": {str(layer): experts for layer, experts in used_experts(plan).items()}}
            | plan_cost(made.model, plan, TOKENS).relative_to(study.dense)
        )
    shared = {"teacher": teacher, "experts": study.num_experts}
    return [{**row, **shared, "retained": share_of(row["score"], teacher)} for row in rows]


@command
def main(
    options: Options,
    layers: Layers = "upper:6",
    top_k: Annotated[str, typer.Option(help="Experts that a gate lets through.")] = "1,3,5",
    budgets: Annotated[str, typer.Option(help="Experts kept in all converted layers together.")] = "12,24,48",
) -> None:
    """Top-k routing by k: scores before and after pruning, and the overlap of what seeds keep."""
    file = results_file(options, "topk")
    kept, gates = numbers(budgets), numbers(top_k)
    converted, experts = options.converted(layers, gates), base_geometry(options.base)[1]
    for budget in kept:  # an impossible one is better known before the trainings than after
        allocate({layer: [1.0] * experts for layer in converted}, budget=budget)
    for study in studies(options):
        study.describe(file, converted, budgets=kept)
        for seed in study.seeds:
            for k in gates:
                rows = one_seed(study, converted, k, seed, kept)
                file.put(rows, task=study.task, seed=seed, top_k=k)
                stderr.print(
                    f"{study.task}, seed {seed}, Top-{k}: {[round(row['score'], 4) for row in rows]}"
                )
