"""The sections of docs/results.md on the method itself, from the files that `benchmarks.experiments` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.markdown import table
from shrp import experiments
from shrp.experiments import QUESTIONS, TITLES, Experiment

INTRODUCTION = (
    "Each starts from one dense teacher a task and converts on the task itself. Where there are several seeds a value "
    "is their mean, in brackets the lowest and highest; of one seed the brackets hold the 95% interval of its score. "
    "Static models are pruned by usage on the validation data and not trained on."
)
SWEEP_LINES = 12
"""So many budgets of the sweep are printed; its file has all."""


def experiments_section(folder: Path) -> str:
    """Every experiment that was run: what it asks, what it shows in sentences, its figures; nothing where none was.

    Raises:
        DataError: a file is broken.
    """
    write: dict[str, Callable[[Experiment], list[str]]] = {
        "layer": _layer,
        "topk": _topk,
        "sweep": _sweep,
        "overhead": _overhead,
        "balance": _balance,
    }
    parts: list[str] = []
    for name, lines in write.items():
        if (found := experiments.read(name, folder)) is not None:
            parts += [f"### {TITLES[name]}", "", f"{QUESTIONS[name]} (`docs/data/{name}.json`)", ""]
            parts += lines(found)
    return "\n".join(["## The method itself", "", INTRODUCTION, "", *parts]) if parts else ""


def _said(sentences: list[str]) -> list[str]:
    return [*(f"- {sentence}" for sentence in sentences), ""]


def _tables(
    found: Experiment, frame: pd.DataFrame, head: list[str], cells: Callable[[Any], list[str]]
) -> list[str]:
    """A table for each task, under what it is of."""
    lines = []
    for task, rows in frame.groupby("task", sort=False):
        lines += [f"{found.about(task)}:", "", *table(head, map(cells, rows.itertuples(index=False))), ""]
    return lines


def _layer(found: Experiment) -> list[str]:
    frame = experiments.layer_frame(found)
    head = [
        "layer",
        "stage",
        "examples seen",
        "distance from uniform",
        "of mean probabilities",
        "effective experts",
    ]
    head += ["largest share"]

    def cells(row: Any) -> list[str]:
        mean = "" if pd.isna(row.mean_distance) else f"{row.mean_distance:.3f}"
        shown = [str(row.layer), str(row.stage), f"{row.examples:,}", _spread(row, row.distance), mean]
        return [*shown, f"{row.effective:.1f}", f"{row.top_share:.1%}"]

    return _said(experiments.layer_findings(frame)) + _tables(found, frame, head, cells)


def _topk(found: Experiment) -> list[str]:
    scores, stability = experiments.topk_scores(found), experiments.topk_stability(found)
    alike = {}
    if len(stability):
        whole = stability[stability["layer"] == "all"]
        alike = {(row.task, row.top_k, row.budget): row for row in whole.itertuples()}

    def cells(row: Any) -> list[str]:
        same = alike.get((row.task, row.top_k, row.budget))
        overlap = "" if same is None else f"{same.overlap:.2f} (chance {same.chance:.2f})"
        kept = "" if pd.isna(row.budget) else f"{row.budget:.0f}"
        return [f"Top-{row.top_k}", row.model, kept, _spread(row, row.score), f"{row.retained:.1%}", overlap]

    head = ["routing", "model", "experts kept", "score", "of teacher", "overlap of what seeds keep"]
    return _said(experiments.topk_findings(scores, stability)) + _tables(found, scores, head, cells)


def _sweep(found: Experiment) -> list[str]:
    frame = experiments.sweep_frame(found)
    budgets = sorted(frame["budget"].dropna().unique())
    shown = set(budgets[:: max(1, len(budgets) // SWEEP_LINES)]) | {budgets[-1]}
    rows = frame[frame["budget"].isna() | frame["budget"].isin(shown)]

    def cells(row: Any) -> list[str]:
        kept = "" if pd.isna(row.budget) else f"{row.budget:.0f}"
        score = _spread(row, row.score)
        return [
            row.model,
            kept,
            f"{row.encoder_flops:.1%}",
            f"{row.encoder_params:.1%}",
            score,
            f"{row.retained:.1%}",
        ]

    head = ["model", "experts kept", "encoder FLOPs", "encoder parameters", "score", "of teacher"]
    return _said(experiments.sweep_findings(frame)) + _tables(found, rows, head, cells)


def _overhead(found: Experiment) -> list[str]:
    frame = experiments.overhead_frame(found)
    machine = found.machine
    rounds = "/".join(map(str, sorted(set(frame["rounds"]))))
    about = f"{machine.get('cpu', 'unknown processor')}, {machine.get('threads', '?')} threads; both in turn, {rounds} "
    about += "rounds, no padding; the ratio is the median over rounds, with its quartiles:"
    head = ["model", "tokens", "batch", "routed / static", "routed", "static", "experts chosen a layer"]
    lines = [
        [
            *(row.model, str(row.tokens), str(row.batch)),
            f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})",
            *(f"{row.routed_ms:.1f} ms", f"{row.static_ms:.1f} ms", f"{row.experts_chosen:.1f}"),
        ]
        for row in frame.itertuples()
    ]
    return [*_said(experiments.overhead_findings(frame)), about, "", *table(head, lines), ""]


def _balance(found: Experiment) -> list[str]:
    frame = experiments.balance_frame(found)
    # Names with spaces are no attributes.
    frame = frame.rename(columns=lambda name: name.replace(" ", "_"))

    def cells(row: Any) -> list[str]:
        scores = [f"{getattr(row, m):.3f} ({getattr(row, f'{m}_low'):.3f} to {getattr(row, f'{m}_high'):.3f})" for m in
                  ("routed", "static")]  # fmt: skip
        collapsed = f"{row.collapsed} of {row.seeds}"
        return [f"{row.balance:g}", f"{row.effective_1:.1f}", f"{row.effective_2:.1f}", collapsed, *scores]

    head = ["lambda", "effective experts, stage 1", "after stage 2", "runs with a collapse", "routed"]
    head.append(f"static, {frame['per_layer'].iloc[0]} a layer")
    return _said(experiments.balance_findings(experiments.balance_frame(found))) + _tables(
        found, frame, head, cells
    )


def _spread(row: Any, value: float) -> str:
    return f"{value:.3f} ({row.low:.3f} to {row.high:.3f})"
