"""The speed section of docs/results.md, from what `studies.throughput` and `studies.live` printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies.markdown import table

INTRODUCTION = (
    "Cells: how many times as fast as the dense model in float32 in PyTorch (eager, SDPA) at the same batch and "
    "length, and the median time a batch with its quartiles. “Alike” is the speed-up against the dense model in the "
    "same number format and runtime, at the largest batch. “FLOP limit” is the dense model's counted FLOPs over the "
    "model's own, pooler and head included: how much faster it could be at most by doing less in the same format. "
    "Inputs have no padding; weights of BERT-base and of the dense models are random (speed does not depend on them)."
)


def throughput_section(result: Mapping[str, Any]) -> str:
    """Tables of every geometry and length in `studies.throughput`'s object, with machine, versions and date."""
    machine, rows = result["machine"], result["rows"]
    rounds = sorted({row["repeats"] for row in rows})
    lines = [
        "## Speed",
        "",
        f"Measured by `{result['command']}` on {result['date'][:10]}: {machine['cpu']}, {_threads(machine)} "
        f"on {machine['cores']} cores, {machine['vector_instructions']}, {machine['system']}; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + f". All models of a table ran in turn, {_range(rounds)} timed rounds a model. Load before the run: "
        f"{_number(machine.get('load_before'))} (0 is an idle machine).",
        "",
        INTRODUCTION,
        "",
    ]
    for geometry in dict.fromkeys(row["geometry"] for row in rows):
        of_geometry = [row for row in rows if row["geometry"] == geometry]
        for tokens in sorted({row["tokens"] for row in of_geometry}):
            lines += [f"### {geometry}, {tokens} tokens", ""]
            lines += [*_table([row for row in of_geometry if row["tokens"] == tokens]), ""]
    if result["skipped"]:
        lines += ["Left out:", ""]
        lines += [
            f"- {row['geometry']}, {row['model']}, {row['dtype']}, {row['runtime']}: {row['reason']}"
            for row in result["skipped"]
        ]
        lines.append("")
    return "\n".join(lines)


def live_section(result: Mapping[str, Any]) -> str:
    """The table of `studies.live`'s object."""
    lines = [
        "## Live what-if",
        "",
        f"Measured by `python -m studies.live --json`, {result.get('threads', '?')} threads, torch "
        f"{result.get('torch', '?')}. Ratios against the plain way: build the pruned model and run all of it in padded "
        "batches of 32 in the data's order. The first estimate is on the first n inputs of a random order; the sweep "
        "is an exact score at each of its budgets, in units of one plain evaluation. What a checkpoint is prepared "
        "with once, before the first question, is in the last column and in no ratio.",
        "",
    ]
    head = ["checkpoint", "data", "n", "first estimate", "exact", "sweep, in plain evaluations"]
    rows = []
    for row in result["checkpoints"]:
        times = [
            _milliseconds(row.get(key)) for key in ("plain_ms", "first_estimate_ms", "exact_ms", "prepare_ms")
        ]
        cells = [
            row["checkpoint"],
            str(row.get("data", "")),
            str(row["n"]),
            f"{row['first_estimate_ratio']:.1f}× (n = {row['first_estimate_n']})",
            f"{row['exact_ratio']:.1f}×",
            f"{row['sweep_in_plain_evaluations']:.2f} ({row['sweep_budgets']} budgets)",
            *times,
        ]
        rows.append(cells)
    return "\n".join([*lines, *table([*head, "plain", "first", "exact", "once"], rows), ""])


def _table(rows: list[Mapping[str, Any]]) -> list[str]:
    """One line a model, dtype and runtime; one column a batch size."""
    batches = sorted({row["batch"] for row in rows})
    cells: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["dtype"], row["runtime"]), {})[row["batch"]] = row
    heads = ["model", "format", "runtime", "FLOP limit", *(f"batch {batch}" for batch in batches), "alike"]
    lines = []
    for (model, dtype, runtime), by_batch in cells.items():
        largest = by_batch[max(by_batch)]
        line = [model, dtype, runtime, f"{largest['flop_limit']:.2f}×"]
        line += [_cell(by_batch.get(batch)) for batch in batches]
        alike = largest["speedup_vs_dense_alike"]
        lines.append([*line, "" if alike is None else f"{alike:.2f}×"])
    return table(heads, lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = _number(row["low_ms"]), _number(row["high_ms"])
    return f"**{row['speedup_vs_dense']:.2f}×** {_number(row['median_ms'])} ms ({low} to {high})"


def _threads(machine: Mapping[str, Any]) -> str:
    return "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"


def _number(value: float | None) -> str:
    """Three figures: `2.31`, `48.2`, `1,240`."""
    if value is None:
        return "not known"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{_number(value)} ms"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
