"""Speed-up of incremental re-evaluation over rebuilding the pruned model: `python -m studies.live --json`.

Both ways run in turn in one process, so that load affects both. The plain way builds the pruned model and runs all of it
on the data in their order, in padded batches of 32. No timed plan shares a prefix with an earlier one. A sweep starts
with only the hidden states that enter the first converted layer.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from shrp.checkpoints.checkpoint import Checkpoint, load
from shrp.checkpoints.info import discover, usage_in
from shrp.cli.output import print_json, print_table, stderr
from shrp.data.sources import load_data
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import LayerPlan, PruningPlan, make_plan
from shrp.pruning.prune import prune
from studies.rows import run

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
SWEEP = 72
"""Plans of a sweep, at most."""
PER_LAYER, REPEATS = 2, 5
"""Experts a layer of the plans that are timed, and runs of each way; the median counts."""

Usage = Mapping[int, Sequence[float]]


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = CHECKPOINTS,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Time a new plan's first estimate, its exact figure, and a sweep, against plain evaluations.

    Raises:
        DataError: no checkpoint there has a router, and data to run on.
        CheckpointError: one can't be read.
    """
    rows = []
    for name, info in discover(checkpoints).items():
        if isinstance(info, CheckpointError):
            raise info
        if not info.config.layers or info.plan is not None:
            continue
        try:
            data = load_data("glue" if os.environ.get("SHRP_DATA_DIR") else "probe", info.task)
        except DataError as error:
            stderr.print(f"left out {name}: {error}")
            continue
        stderr.print(f"measuring {name}")
        rows.append({"checkpoint": name, **_measure(load(checkpoints / name), data)})
    if not rows:
        raise DataError(
            f"{checkpoints} holds no checkpoint with routers that there are data for; name another with --checkpoints."
        )
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "checkpoints": rows}
    if json:
        print_json(result)
    else:
        print_table(f"live what-if, {result['threads']} threads, torch {torch.__version__}", rows)


def _measure(checkpoint: Checkpoint, data: TextData) -> dict[str, Any]:
    model, tokenizer, usage = checkpoint.model, checkpoint.tokenizer, usage_in(checkpoint.info)
    live = LiveEvaluator(model, tokenizer, data)
    prepare_ms = _timed(live.prepare)

    def plain(plan: PruningPlan) -> Evaluation:
        return evaluate(prune(model, plan), tokenizer, data, order=np.arange(len(data)))

    plans = new_plans(usage)
    live.evaluate(next(plans))  # a first pass of each, untimed
    plain(next(plans))
    times: dict[str, list[float]] = {"plain": [], "first": [], "exact": []}
    for _ in range(REPEATS):
        estimates = live.stream(next(plans))
        times["first"].append(_timed(lambda stream=estimates: next(stream)))
        plan = next(plans)
        times["exact"].append(_timed(lambda plan=plan: live.evaluate(plan)))
        times["plain"].append(_timed(lambda plan=plan: plain(plan)))
    live = LiveEvaluator(model, tokenizer, data)  # of which nothing is known yet
    live.prepare()
    swept = sweep_plans(usage)
    times["sweep"] = [_timed(lambda: deque(live.sweep(swept), maxlen=0))]
    medians = {name: float(np.median(values)) for name, values in times.items()}
    exact, rebuilt = live.evaluate(plan), plain(plan)
    found = {"data": data.name, "n": len(data), "experts_a_layer": PER_LAYER, "repeats": REPEATS, "prepare_ms": prepare_ms}
    found |= {"plain_ms": medians["plain"], "exact_ms": medians["exact"], "sweep_ms": medians["sweep"]}
    found |= {"first_estimate_ms": medians["first"], "first_estimate_n": len(live.batches[0].rows)}
    found |= {"exact_ratio": medians["plain"] / medians["exact"], "first_estimate_ratio": medians["plain"] / medians["first"]}
    found |= {"sweep_in_plain_evaluations": medians["sweep"] / medians["plain"], "sweep_budgets": len(swept)}
    found["same_predictions"] = bool((exact.predictions == rebuilt.predictions).all())
    return found | {"largest_logit_difference": float(np.abs(exact.logits - rebuilt.logits).max())}


def new_plans(usage: Usage) -> Iterator[PruningPlan]:
    """Plans of the `PER_LAYER` most used experts with their mean as weights, scaled in the first converted layer.

    Each scale is another, so that no two plans share a prefix, but all cost the same. (Weights by usage might be 0,
    and such experts cost nothing.)
    """
    plan = make_plan(usage, per_layer=PER_LAYER, combination="mean")
    (layer, kept), *rest = plan.layers
    for step in count(1):
        scaled = LayerPlan(kept.experts, tuple(weight * (1 + step / 1000) for weight in kept.weights))
        yield PruningPlan(((layer, scaled), *rest), plan.selection, plan.combination)


def sweep_plans(usage: Usage) -> list[PruningPlan]:
    """The lowest global budgets, each an expert more than the last, then budgets a layer; no plan is there twice."""
    layers, experts = len(usage), len(next(iter(usage.values())))
    plans = [make_plan(usage, budget=budget) for budget in range(layers, min(layers + SWEEP, layers * experts + 1))]
    plans += [make_plan(usage, per_layer=m) for m in range(1, experts + 1)]
    return list(dict.fromkeys(plans))[:SWEEP]


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    run(main)
