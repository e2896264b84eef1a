"""The sections of docs/results.md on the method itself, from the files that `studies.experiments` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.phrases import in_points, in_words, kept_share
from shrp.studies import experiments
from shrp.studies.balance import balance_findings, balance_frame
from shrp.studies.experiments import QUESTIONS, TITLES, Experiment
from shrp.studies.matching import EXCHANGES, matching_findings, matching_frame
from shrp.studies.rates import rates_findings, rates_frame
from studies.markdown import table

INTRODUCTION = (
    "All models of a task start from one dense teacher. Values are means over seeds, in brackets the lowest and "
    "highest; what they hold where there is one seed, and how models were converted, stands with each table."
)
ONE_SEED = "brackets of one seed: the 95% interval of its score"
SWEEP_LINES = 12
"""At most so many budgets of the sweep are printed; its file has all."""


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
        "matching": _matching,
        "rates": _rates,
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
    found: Experiment, frame: pd.DataFrame, note: str, head: list[str], cells: Callable[[Any], list[str]]
) -> list[str]:
    """A table for each task, under what it is of and how to read it."""
    lines = []
    for task, rows in frame.groupby("task", sort=False):
        drawn = table(head, (cells(row) for _, row in rows.iterrows()))
        lines += [f"{found.about(task)}; {note}:", "", *drawn, ""]
    return lines


def _layer(found: Experiment) -> list[str]:
    frame = experiments.layer_frame(found)

    def cells(row: Any) -> list[str]:
        distance = _spread(row) if row["seeds"] > 1 else f"{row['distance']:.3f}"
        mean = "" if pd.isna(row["mean_distance"]) else f"{row['mean_distance']:.3f}"
        shown = [str(row["layer"]), str(row["stage"]), f"{row['examples']:,}", distance, mean]
        return [*shown, f"{row['effective']:.1f}", f"{row['top_share']:.1%}"]

    head = [
        "layer",
        "stage",
        "examples seen",
        "distance from uniform",
        "of mean probabilities",
        "effective experts",
        "largest share",
    ]
    return _said(experiments.layer_findings(frame)) + _tables(
        found, frame, "distances: 0 is even", head, cells
    )


def _topk(found: Experiment) -> list[str]:
    scores, stability = experiments.topk_scores(found), experiments.topk_stability(found)
    alike = {}
    if len(stability):
        whole = stability[stability["layer"] == "all"]
        alike = {(row.task, row.top_k, row.budget): row for row in whole.itertuples()}

    def cells(row: Any) -> list[str]:
        same = alike.get((row["task"], row["top_k"], row["budget"]))
        overlap = "" if same is None else f"{same.overlap:.2f} (chance {same.chance:.2f})"
        return [
            f"Top-{row['top_k']}",
            row["model"],
            _budget(row),
            f"{row['encoder_flops']:.1%}",
            _spread(row),
            f"{row['retained']:.1%}",
            overlap,
        ]

    head = [
        "routing",
        "model",
        "experts kept",
        "encoder FLOPs",
        "score",
        "of teacher",
        "overlap of what seeds keep",
    ]
    note = f"pruned by usage on the validation data, no recovery; routed, k above 1 computes all; {ONE_SEED}"
    return _said(experiments.topk_findings(scores, stability)) + _tables(found, scores, note, head, cells)


def _sweep(found: Experiment) -> list[str]:
    frame = experiments.sweep_frame(found)
    budgets = np.array(sorted(frame["budget"].dropna().unique()))
    shown = budgets[np.unique(np.linspace(0, len(budgets) - 1, SWEEP_LINES).round().astype(int))]
    rows = frame[frame["budget"].isna() | frame["budget"].isin(shown)]

    def cells(row: Any) -> list[str]:
        costs = [f"{row[name]:.1%}" for name in ("encoder_flops", "encoder_params")]
        return [row["model"], _budget(row), *costs, _spread(row), f"{row['retained']:.1%}"]

    head = ["model", "experts kept", "encoder FLOPs", "encoder parameters", "score", "of teacher"]
    note = f"static: the most used on the validation data; no recovery; {ONE_SEED}, for random experts "
    note += "the range of draws"
    return _said(experiments.sweep_findings(frame, found.rows)) + _tables(found, rows, note, head, cells)


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
    frame = balance_frame(found)

    def cells(row: Any) -> list[str]:
        evenness = [
            f"{row['effective 1']:.1f}",
            f"{row['effective 2']:.1f}",
            f"{row['collapsed']} of {row['seeds']}",
        ]
        scores = [
            _in_brackets(row[model], row[f"{model} low"], row[f"{model} high"])
            for model in ("routed", "static")
        ]
        return [f"{row['balance']:g}", *evenness, *scores, str(row["per_layer"])]

    head = [
        "lambda",
        "effective experts, stage 1",
        "after stage 2",
        "runs with a collapse",
        "routed",
        "static",
        "experts a layer in it",
    ]
    note = f"static: pruned by usage on the validation data, no recovery; {ONE_SEED}"
    return _said(balance_findings(frame)) + _tables(found, frame, note, head, cells)


def _matching(found: Experiment) -> list[str]:
    frame = matching_frame(found)

    def cells(row: Any) -> list[str]:
        shown = [str(row["seed"]), row["pruning"], EXCHANGES[row["exchange"]], row["what"]]
        shown += [f"{row['matching']:.0%}", kept_share(row)]
        drawn = row["change"] != row["change"]
        return [*shown, "" if drawn else in_points(row["change"], row["change low"], row["change high"])]

    head = [
        "seed",
        "pruning",
        "training",
        "exchanged",
        "most matching kept expert, after",
        "of teacher",
        "change",
    ]
    note = (
        "matching: the share of an expert's attention that goes to the same token of the other text, a mean over own "
        "tokens, in brackets before any pruning; change: paired, in points of the teacher's score"
    )
    return _said(matching_findings(frame)) + _tables(found, frame, note, head, cells)


def _rates(found: Experiment) -> list[str]:
    frame = rates_frame(found)

    def cells(row: Any) -> list[str]:
        rates = [f"{row[name]:g}" for name in ("times", "learning_rate", "new_learning_rate")]
        depth, teacher = in_words(row["depth"]), f"{row['teacher']:.3f}"
        return [depth, row["name"], *rates, str(row["seeds"]), teacher, kept_share(row)]

    head = [
        "depth",
        "model",
        "times the table's",
        "learning rate",
        "of new weights",
        "seeds",
        "teacher",
        "of teacher",
    ]
    note = "but for the last training's rates and, if named, the start; brackets: 95% over inputs, of seeds their range"
    return _said(rates_findings(frame)) + _tables(found, frame, note, head, cells)


def _budget(row: Any) -> str:
    return "" if pd.isna(row["budget"]) else f"{row['budget']:.0f}"


def _spread(row: Any) -> str:
    value = row["score"] if "retained" in row else row["distance"]
    return _in_brackets(value, row["low"], row["high"])


def _in_brackets(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low == low else f"{value:.3f} (no interval)"
