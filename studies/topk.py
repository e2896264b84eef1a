"""Does routing with more experts survive pruning? `python -m studies.topk --base BAAI/bge-small-en-v1.5`.

Converts the upper half of the layers on the task with Top-1, Top-3 and Top-5 routing, with several seeds, and scores each
routed and pruned to several budgets, without fine-tuning. Rows record which experts are kept, so that seeds compare.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoints.info import usage_in
from shrp.checkpoints.score_rows import share_of
from shrp.cli.output import stderr
from shrp.data.tasks import TASKS
from shrp.evaluation.costs import cost, plan_cost
from shrp.evaluation.paired import paired_difference
from shrp.model.config import ShrpConfig
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.overlap import used_experts
from shrp.pruning.plan import allocate, make_plan
from studies.rows import DATA, Rows, names, numbers, run
from studies.trainings import MAX_LENGTH, SMALL_STUDY, Base, Trainings

KEY = ("task", "seed", "top_k", "budget")


def measure(made: Trainings, top_k: int, budgets: list[int]) -> list[dict[str, Any]]:
    """The rows of one conversion: routed, then pruned to each budget."""
    layers = tuple(range(made.base.layers // 2, made.base.layers))
    config = made.config("retain", part=0, shrp=ShrpConfig(layers, top_k=top_k), **SMALL_STUDY)
    routed = made.train(f"topk-{top_k}", config, made.teacher)
    live = LiveEvaluator(routed.model, routed.tokenizer, made.validation, max_length=MAX_LENGTH)
    whole, usage, rows = live.evaluate(None), usage_in(routed.info), []
    for budget in (None, *budgets):
        plan = None if budget is None else make_plan(usage, budget=budget)
        found = whole if plan is None else live.evaluate(plan)
        row = {"task": made.task, "seed": made.seed, "top_k": top_k, "budget": budget}
        row |= {"model": "routed" if plan is None else "static", "metric": found.metric, "n": found.n}
        row |= {"score": found.score, "interval": found.ends()}
        price = cost(routed.model)
        if plan is not None:
            change, (low, high) = paired_difference(found, whole)
            kept = {str(layer): list(one.experts) for layer, one in plan.layers}
            used = {str(layer): list(experts) for layer, experts in used_experts(plan).items()}
            # Two models with equal predictions have no interval.
            ends = [low, high] if low == low else None
            row |= {"change": change, "change_interval": ends, "kept": kept, "used": used}
            price = plan_cost(routed.model, plan)
        row |= price.relative_to(made.dense)
        shared = {"teacher": made.best.score, "experts": made.base.experts}
        rows.append(row | shared | {"retained": share_of(found.score, made.best.score)})
    return rows


def main(
    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = "mrpc",
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0,1,2",
    top_k: Annotated[str, typer.Option(help="Experts that a gate selects.")] = "1,3,5",
    budgets: Annotated[str, typer.Option(help="Experts kept in all converted layers.")] = "12,24,48",
    out: Annotated[Path, typer.Option(help="File of rows.")] = DATA / "topk.json",
) -> None:
    """Train the conversions that the file lacks, and add their rows."""
    wanted, chosen = names(tasks, tuple(TASKS), "--tasks"), numbers(seeds, "--seeds")
    gates, kept = numbers(top_k, "--top-k"), numbers(budgets, "--budgets")
    encoder, rows = Base(base, work, base_name), Rows(out, KEY)
    layers = range(encoder.layers // 2, encoder.layers)
    for budget in kept:  # refused now, not after the trainings
        allocate({layer: [1.0] * encoder.experts for layer in layers}, budget=budget)
    for k in gates:
        ShrpConfig(tuple(layers), top_k=k).check_fits(encoder.layers, encoder.experts)
    for task, seed, k in product(wanted, chosen, gates):
        key = {"task": task, "seed": seed, "top_k": k}
        if all(key | {"budget": budget} in rows for budget in (None, *kept)):
            continue
        found = measure(Trainings(encoder, task, seed), k, kept)
        rows.add(*found)
        stderr.print(f"{task}, seed {seed}, Top-{k}: {[round(row['score'], 4) for row in found]}")


if __name__ == "__main__":
    run(main)
