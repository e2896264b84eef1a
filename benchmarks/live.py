"""How much faster a live what-if is than rebuilding and running the pruned model: `python -m benchmarks.live --json`.

Both ways run in turn in one process, so the ratios do not depend on the machine's load or speed. The plain way
builds the pruned model and runs all of it on the data in their order, in padded batches of 32.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from shrp.checkpoint import Checkpoint, discover, load
from shrp.cli.output import print_json, print_table, stderr
from shrp.data import TextData, load_data
from shrp.errors import CheckpointError
from shrp.evaluate import evaluate
from shrp.live import LiveEvaluator
from shrp.plan import PruningPlan, make_plan
from shrp.prune import prune
from shrp.recipe import usage_in

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
SWEEP = 72


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = CHECKPOINTS,
    per_layer: Annotated[int, typer.Option(help="Experts a layer of the plan that is timed.")] = 2,
    repeats: Annotated[int, typer.Option(help="Runs of each way; the median counts.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Time a new plan's first estimate, its exact figure, and a sweep, against plain evaluations."""
    found = {
        name: info
        for name, info in discover(checkpoints).items()
        if not isinstance(info, CheckpointError) and info.config.layers and info.plan is None
    }
    rows = []
    for name in found:
        stderr.print(f"measuring {name}", highlight=False)
        rows.append({"checkpoint": name, **_measure(load(checkpoints / name), per_layer, repeats)})
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "checkpoints": rows}
    if json:
        print_json(result)
    else:
        print_table(f"live what-if, {result['threads']} threads, torch {torch.__version__}", rows)


def _data(checkpoint: Checkpoint) -> TextData:
    source = "glue" if os.environ.get("SHRP_DATA_DIR") else "probe"
    return load_data(source, checkpoint.info.task)


def _measure(checkpoint: Checkpoint, per_layer: int, repeats: int) -> dict[str, Any]:
    data, usage = _data(checkpoint), usage_in(checkpoint.info)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    plan = make_plan(usage, per_layer=per_layer)
    started = time.perf_counter()
    live = LiveEvaluator(model, tokenizer, data)
    live.prepare()
    prepare_ms = (time.perf_counter() - started) * 1e3

    def plain() -> Any:
        return evaluate(prune(model, plan), tokenizer, data, order=np.arange(len(data)))

    times: dict[str, list[float]] = {"plain": [], "first": [], "exact": []}
    for _ in range(repeats):
        live.forget()  # the plan is new each time; what enters the first converted layer is kept
        first = live.stream(plan)
        times["first"].append(_timed(lambda stream=first: next(stream)))
        live.forget()
        times["exact"].append(_timed(lambda: live.evaluate(plan)))
        times["plain"].append(_timed(plain))
    live.forget()
    plans = sweep_plans(usage)
    sweep = _timed(lambda: [live.evaluate(p) for p in plans])
    medians = {name: float(np.median(values)) for name, values in times.items()}
    exact, rebuilt = live.evaluate(plan), plain()
    same = bool((exact.predictions[np.argsort(exact.indices)] == rebuilt.predictions).all())
    return {
        "data": data.name,
        "n": len(data),
        "experts_a_layer": per_layer,
        "first_estimate_ratio": medians["plain"] / medians["first"],
        "first_estimate_n": len(live.batches[0].rows),
        "exact_ratio": medians["plain"] / medians["exact"],
        "sweep_budgets": len(plans),
        "sweep_in_plain_evaluations": sweep / medians["plain"],
        "plain_ms": medians["plain"],
        "first_estimate_ms": medians["first"],
        "exact_ms": medians["exact"],
        "sweep_ms": sweep,
        "prepare_ms": prepare_ms,
        "same_predictions": same,
        "repeats": repeats,
    }


def sweep_plans(usage: dict[int, Any], count: int = SWEEP) -> list[PruningPlan]:
    """`count` plans: every expert more of the global budget where they suffice, evenly spaced where not."""
    layers, experts = len(usage), len(next(iter(usage.values())))
    budgets = np.unique(np.linspace(layers, layers * experts, count).round().astype(int))
    plans = [make_plan(usage, budget=int(budget)) for budget in budgets]
    plans += [make_plan(usage, per_layer=m) for m in range(1, experts + 1)]
    return plans[:count]


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    typer.run(main)
