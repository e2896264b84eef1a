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

Usage = Mapping[int, Sequence[float]]


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = CHECKPOINTS,
    per_layer: Annotated[int, typer.Option(min=1, help="Experts a layer of the plan that is timed.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each way; the median counts.")] = 5,
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
        rows.append({"checkpoint": name, **_measure(load(checkpoints / name), data, per_layer, repeats)})
    if not rows:
        raise DataError(
            f"{checkpoints} holds no checkpoint with routers that there are data for; name another with --checkpoints."
        )
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "checkpoints": rows}
    if json:
        print_json(result)
    else:
        print_table(f"live what-if, {result['threads']} threads, torch {torch.__version__}", rows)


def _measure(checkpoint: Checkpoint, data: TextData, per_layer: int, repeats: int) -> dict[str, Any]:
    model, tokenizer, usage = checkpoint.model, checkpoint.tokenizer, usage_in(checkpoint.info)
    live = LiveEvaluator(model, tokenizer, data)
    prepare_ms = _timed(live.prepare)

    def plain(plan: PruningPlan) -> Evaluation:
        return evaluate(prune(model, plan), tokenizer, data, order=np.arange(len(data)))

    plans = new_plans(usage, per_layer)
    live.evaluate(next(plans))  # a first pass of each, untimed
    plain(next(plans))
    times: dict[str, list[float]] = {"plain": [], "first": [], "exact": []}
    for _ in range(repeats):
        estimates = live.stream(next(plans))
        times["first"].append(_timed(lambda stream=estimates: next(stream)))
        plan = next(plans)
        times["exact"].append(_timed(lambda plan=plan: live.evaluate(plan)))
        times["plain"].append(_timed(lambda plan=plan: plain(plan)))
    sweeps = {"sweep": sweep_plans(usage), "wide_sweep": sweep_plans(usage, wide=True)}
    for name, budgets in sweeps.items():
        live.forget()
        times[name] = [_timed(lambda budgets=budgets: deque(live.sweep(budgets), maxlen=0))]
        plan = next(plans)
        times["plain"].append(_timed(lambda plan=plan: plain(plan)))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    exact, rebuilt = live.evaluate(plan), plain(plan)
    swept = {}
    for name, budgets in sweeps.items():
        swept |= {f"{name}_in_plain_evaluations": medians[name] / medians["plain"]}
        swept |= {f"{name}_budgets": len(budgets), f"{name}_experts": _range(budgets)}
    return {
        "data": data.name,
        "n": len(data),
        "experts_a_layer": per_layer,
        "first_estimate_ratio": medians["plain"] / medians["first"],
        "first_estimate_n": len(live.batches[0].rows),
        "exact_ratio": medians["plain"] / medians["exact"],
        **swept,
        "plain_ms": medians["plain"],
        "first_estimate_ms": medians["first"],
        "exact_ms": medians["exact"],
        "sweep_ms": medians["sweep"],
        "prepare_ms": prepare_ms,
        "same_predictions": bool((exact.predictions == rebuilt.predictions).all()),
        "largest_logit_difference": float(np.abs(exact.logits - rebuilt.logits).max()),
        "repeats": repeats,
    }


def new_plans(usage: Usage, per_layer: int) -> Iterator[PruningPlan]:
    """Plans of the `per_layer` most used experts with their mean as weights, scaled in the first converted layer.

    Each scale is another, so that no two plans share a prefix, but all cost the same. (Weights by usage might be 0,
    and such experts cost nothing.)
    """
    plan = make_plan(usage, per_layer=per_layer, combination="mean")
    (layer, kept), *rest = plan.layers
    for step in count(1):
        scaled = LayerPlan(kept.experts, tuple(weight * (1 + step / 1000) for weight in kept.weights))
        yield PruningPlan(((layer, scaled), *rest), plan.selection, plan.combination)


def sweep_plans(usage: Usage, *, wide: bool = False) -> list[PruningPlan]:
    """72 budgets: the lowest global ones, each an expert more than the last; `wide` spreads them over the range.

    Where there are fewer global budgets than that, budgets a layer fill up the number; no plan is there twice.
    """
    layers, experts = len(usage), len(next(iter(usage.values())))
    highest = layers * experts if wide else min(layers + SWEEP - 1, layers * experts)
    budgets = np.unique(np.linspace(layers, highest, SWEEP).round().astype(int))
    plans = [make_plan(usage, budget=int(budget)) for budget in budgets]
    plans += [make_plan(usage, per_layer=m) for m in range(1, experts + 1)]
    return list(dict.fromkeys(plans))[:SWEEP]


def _range(plans: list[PruningPlan]) -> str:
    """From how many experts in all to how many the budgets of a sweep go."""
    budgets = [plan.budget for plan in plans]
    return f"{min(budgets)} to {max(budgets)}"


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    run(main)
