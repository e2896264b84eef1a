"""The GLUE section of docs/results.md, from the rows that `benchmarks.glue` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shrp import studies

INTRODUCTION = (
    "Cells: share of the dense teacher's score that is left, in percent, and in brackets the lowest and highest seed "
    "where there are several, else what the 95% interval of the score itself allows (for random experts without "
    "recovery, the range of draws). Parameters and FLOPs are shares of the dense encoder's layers, without embeddings; "
    "FLOPs at 128 tokens. All seeds of a task start from one teacher. The mean stands only where every task of the "
    "table is measured."
)


def glue_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is found in a sentence each, then a table for each recipe and depth; nothing where there are no rows."""
    frame = studies.glue_frame(list(rows))
    if frame.empty:
        return ""
    lines = ["## GLUE, with controls", "", f"Written by `python -m benchmarks.glue`. {INTRODUCTION}", ""]
    lines += [f"- {sentence}" for sentence in studies.findings(frame)]
    teachers = frame.drop_duplicates("task")
    lines += [
        "",
        "Teachers: "
        + "; ".join(f"{r.task} {r.metric} {r.teacher:.3f} (n = {r.n:,})" for r in teachers.itertuples())
        + ".",
        "",
    ]
    for (recipe, depth), part in frame.groupby(["recipe", "depth"], sort=True):
        lines += [f"### {recipe}, {depth.replace('of', ' of ')} layers", "", *_table(part), ""]
    return "\n".join(lines)


def _table(frame: pd.DataFrame) -> list[str]:
    tasks = list(dict.fromkeys(frame["task"]))
    head = ["model", "encoder parameters", "encoder FLOPs", *tasks, "mean"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, group in frame.groupby("name", sort=False):
        found = {row.task: row for row in group.itertuples()}
        first = group.iloc[0]
        cells = [name, f"{first['encoder_params']:.1%}", f"{first['encoder_flops']:.1%}"]
        cells += [_cell(found[task]) if task in found else "" for task in tasks]
        whole = len(found) == len(tasks)
        cells.append(f"{100 * group['retained'].mean():.1f}" if whole else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(row: Any) -> str:
    seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
    return f"{100 * row.retained:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f}{seeds})"
