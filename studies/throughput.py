"""Latency of dense, routed and static models side by side: `python -m studies.throughput --json`.

All models, number formats and runtimes of a geometry, batch size and length are timed in one interleaved run, so
that drift and other load hit all alike. Inputs have no padding. The ratios are of medians.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints.checkpoint import Checkpoint, load
from shrp.checkpoints.folders import discover
from shrp.cli.output import print_json, print_table, stderr
from shrp.errors import CheckpointError
from shrp.evaluation.timing import latency, model_inputs
from shrp.families.families import positions
from studies.command import run
from studies.contenders import (
    BERT_BASE,
    DENSE,
    Contender,
    bert_base,
    compiled,
    first_line,
    flop_limits,
    in_bfloat16,
    of_checkpoint,
    onnx_calls,
    torch_call,
)
from studies.machine import machine, versions

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
EAGER, COMPILE, ONNX = "pytorch", "torch.compile", "onnxruntime"
RUNTIMES = (EAGER, COMPILE, ONNX)
SECONDS = 12.0
"""Aim for the timed rounds of one geometry, batch and length; small ones get more rounds, up to `MOST`."""
MOST = 30


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = CHECKPOINTS,
    geometry: Annotated[
        list[str] | None, typer.Option(help=f"{BERT_BASE} or a checkpoint's name; all by default.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="1, 8 and 32 by default.")] = None,
    tokens: Annotated[list[int] | None, typer.Option(min=1, help="32 and 128 by default.")] = None,
    models: Annotated[
        list[str] | None, typer.Option(help="Beginnings of models' names, beside dense; all by default.")
    ] = None,
    runtimes: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(RUNTIMES)}; all by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds at least; small models get more.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Batch 8, 32 tokens, two rounds, no compiler.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Time models side by side on this machine, each with its FLOP ratio as the limit of its speed-up."""
    if unknown := set(runtimes or ()) - set(RUNTIMES):
        raise typer.BadParameter(
            f"there is no runtime {', '.join(sorted(unknown))}; choose from {', '.join(RUNTIMES)}."
        )
    found = {
        name: info for name, info in discover(checkpoints).items() if not isinstance(info, CheckpointError)
    }
    known = [BERT_BASE, *found]
    if unknown := set(geometry or ()) - set(known):
        raise typer.BadParameter(
            f"there is no geometry {', '.join(sorted(unknown))}; choose from {', '.join(known)}."
        )
    chosen = tuple(runtimes or RUNTIMES)
    if quick:
        batch, tokens, repeats = batch or [8], tokens or [32], min(repeats, 2)
        chosen = tuple(runtimes or (EAGER, ONNX))
    shapes = [(b, t) for t in (tokens or [32, 128]) for b in (batch or [1, 8, 32])]
    started, load_before = time.perf_counter(), _load()
    rows, skipped = [], []
    tokenizer = load(checkpoints / next(iter(found))).tokenizer if found else None
    for name in geometry or known:
        built = _build(name, checkpoints, models)
        if models and len(built) == 1 and DENSE not in models:
            stderr.print(f"{name} has no model that begins with {' or '.join(models)}")
            continue
        stderr.print(f"{name}: {', '.join(built)}")
        seconds = 0.0 if quick else SECONDS
        measured, left_out = measure(built, tokenizer, shapes, chosen, repeats=repeats, seconds=seconds)
        rows += [{"geometry": name, **row} for row in measured]
        skipped += [{"geometry": name, **row} for row in left_out]
    if not rows and not skipped:
        raise typer.BadParameter(f"no geometry has a model that begins with {' or '.join(models or ())}.")
    result = {
        "command": " ".join(["python -m studies.throughput", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine() | {"load_before": load_before},
        "versions": versions(),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "rows": rows,
        "skipped": skipped,
    }
    if json:
        print_json(result)
        return
    print_table(f"latency, {result['machine']['cpu']}, {torch.get_num_threads()} threads", rows)
    print_table("left out", skipped)


def measure(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase | None,
    shapes: list[tuple[int, int]],
    runtimes: tuple[str, ...] = RUNTIMES,
    *,
    repeats: int = 3,
    seconds: float = SECONDS,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Time models of one geometry, the dense one among them, at each `(batch, tokens)`.

    Returns:
        Rows of model, batch, tokens, dtype, runtime, median_ms, low_ms and high_ms (quartiles), repeats,
        speedup_vs_dense (against dense float32 in PyTorch), speedup_vs_dense_alike (against dense in the same
        dtype and runtime; None where it was not timed) and flop_limit; and rows of what was left out, with reason.
    """
    skipped: list[dict[str, Any]] = []
    rows = []
    with ExitStack() as stack:
        runs = list(_runs(models, tokenizer, runtimes, stack, skipped))
        dense = models[DENSE]
        longest = positions(dense.config)
        for batch, tokens in shapes:
            if tokens > longest:
                skipped.append(_left_out(f"{tokens} tokens", "all", f"it reads at most {longest} tokens"))
                continue
            stderr.print(f"  batch {batch}, {tokens} tokens, {len(runs)} models")
            limits = flop_limits(models, tokens)
            contenders = [
                Contender(name, dtype, runtime, limits[name], call) for name, dtype, runtime, call in runs
            ]
            rows += _rows(contenders, dense, batch, tokens, repeats, seconds, skipped)
    return rows, skipped


def _build(name: str, checkpoints: Path, wanted: list[str] | None) -> dict[str, PreTrainedModel]:
    if name == BERT_BASE:
        built = bert_base()
    else:
        checkpoint: Checkpoint = load(checkpoints / name)
        built = of_checkpoint(checkpoint)
    if not wanted:
        return built
    return {key: model for key, model in built.items() if key == DENSE or key.startswith(tuple(wanted))}


def _runs(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase | None,
    runtimes: tuple[str, ...],
    stack: ExitStack,
    skipped: list[dict[str, Any]],
) -> Iterator[tuple[str, str, str, Any]]:
    """Every model in every format and runtime that there is; dense float32 in PyTorch always."""
    if EAGER not in runtimes:
        yield DENSE, "float32", EAGER, torch_call(models[DENSE])
    else:
        for dtype, cast in (("float32", models), ("bfloat16", in_bfloat16(models))):
            for name, model in cast.items():
                yield name, dtype, EAGER, torch_call(model)
    # Routing takes decisions that neither a compiler nor an exported graph follows well: timed without them.
    fixed = {name: model for name, model in models.items() if "routed" not in name}
    if COMPILE in runtimes:
        for name, model in fixed.items():
            yield name, "float32", COMPILE, torch_call(compiled(model))
    if ONNX not in runtimes:
        return
    for dtype in ("float32", "int8"):
        try:
            if tokenizer is None:
                raise ImportError("exporting needs a tokenizer, and there is no checkpoint to take one from")
            calls, reasons = stack.enter_context(onnx_calls(fixed, tokenizer, int8=dtype == "int8"))
        except ImportError as error:
            skipped.append(_left_out("all", ONNX, first_line(error), dtype))
            continue
        skipped += [_left_out(name, ONNX, reason, dtype) for name, reason in reasons.items()]
        for name, call in calls.items():
            yield name, dtype, ONNX, call


def _rows(
    contenders: list[Contender],
    dense: PreTrainedModel,
    batch: int,
    tokens: int,
    repeats: int,
    seconds: float,
    skipped: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    inputs = model_inputs(dense, batch, tokens)
    working, round_seconds = {}, 0.0
    for one in contenders:
        try:
            with torch.inference_mode():
                if one.runtime == COMPILE:
                    one.call(inputs)  # compiles, which says nothing of the time of a call
                start = time.perf_counter()
                one.call(inputs)  # the warm-up of all others
                round_seconds += time.perf_counter() - start
        except Exception as error:  # compilers and runtimes raise whatever they like
            if one.runtime == EAGER:
                raise
            reason = f"batch {batch}, {tokens} tokens: {first_line(error)}"
            skipped.append(_left_out(one.model, one.runtime, reason, one.dtype))
            continue
        working[one.model, one.dtype, one.runtime] = one
    fns = {key: partial(one.call, inputs) for key, one in working.items()}
    rounds = max(repeats, min(MOST, int(seconds / round_seconds)))
    times = latency(fns, repeats=rounds, warmup=0).set_index("name")
    return [_row(one, times, batch, tokens) for one in working.values()]


def _row(one: Contender, times: pd.DataFrame, batch: int, tokens: int) -> dict[str, Any]:
    medians = times["median_ms"].to_dict()
    own = times.loc[[(one.model, one.dtype, one.runtime)]].iloc[0]
    alike = medians.get((DENSE, one.dtype, one.runtime))
    return {
        "model": one.model,
        "batch": batch,
        "tokens": tokens,
        "dtype": one.dtype,
        "runtime": one.runtime,
        "median_ms": round(float(own["median_ms"]), 3),
        "low_ms": round(float(own["low_ms"]), 3),
        "high_ms": round(float(own["high_ms"]), 3),
        "repeats": int(own["repeats"]),
        "speedup_vs_dense": round(float(medians[DENSE, "float32", EAGER] / own["median_ms"]), 3),
        "speedup_vs_dense_alike": None if alike is None else round(float(alike / own["median_ms"]), 3),
        "flop_limit": round(one.flop_limit, 3),
    }


def _left_out(model: str, runtime: str, reason: str, dtype: str = "float32") -> dict[str, Any]:
    return {"model": model, "runtime": runtime, "dtype": dtype, "reason": reason}


def _load() -> float | None:
    """Mean number of running processes over the last minute: well above 0 means that others were at work."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    run(main)
