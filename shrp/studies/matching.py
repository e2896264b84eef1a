"""What a matching expert decides: the rows of `studies.experiments matching` as a table, and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from shrp.errors import DataError
from shrp.evaluation.intervals import NO_INTERVAL, stored_interval
from shrp.phrases import counted, in_points, kept_share, listed, signed
from shrp.studies.experiments import Experiment
from shrp.studies.studies import command_of

AS_DRAWN = "as drawn"
EXCHANGES = {
    AS_DRAWN: "as in the GLUE table",
    "put in": "a matching expert put in",
    "taken out": "matching experts taken out",
    "another": "another expert put in",
}
"""Kinds of rows, in the order in which they are told of."""
_ORIGINS = {"static": "SHRP", "random": "random experts"}


def matching_frame(found: Experiment) -> pd.DataFrame:
    """One row a training.

    Columns: task, seed, `pruning` (SHRP or random experts), `exchange` (a key of `EXCHANGES`), `what` (which experts
    were exchanged, in words; empty as drawn), `matching` (the most that a kept expert gives of its attention to the
    same token of the other text, after training), metric, n, teacher, score, `retained` with `low` and `high` (95% over
    inputs; nan where there is none), `change` against the pruning as drawn, in shares of the teacher's score, with
    `change low` and `change high` (paired).

    Raises:
        DataError: a row can't be read, or none is of the pruning as drawn.
    """
    try:
        drawn = {_pruning(row): row for row in found.rows if row["exchange"] == AS_DRAWN}
        rows = [_row(row, drawn[_pruning(row)]) for row in found.rows]
        places = [list(EXCHANGES).index(row["exchange"]) for row in found.rows]
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise DataError(
            f"matching.json has rows that can't be read; write it anew with {command_of('matching')}."
        ) from error
    frame = pd.DataFrame(rows).assign(place=places)
    keys = ["task", "seed", "pruning", "place"]
    return frame.sort_values(keys, kind="stable", ignore_index=True).drop(columns="place")


def matching_findings(frame: pd.DataFrame) -> list[str]:
    """A sentence a task on all exchanges, then one a pruning."""
    sentences = []
    for task, rows in frame.groupby("task", sort=False):
        if len(exchanged := rows[rows["exchange"] != AS_DRAWN]):
            means = "; ".join(
                f"{EXCHANGES[kind]} {signed(100 * part['change'].mean())} ({counted(len(part), 'training')})"
                for kind, part in exchanged.groupby("exchange", sort=False)
            )
            sentences.append(f"On {task}, points of the teacher's score, mean change: {means}.")
        for (seed, pruning), part in rows.groupby(["seed", "pruning"], sort=False):
            first, *others = part.to_dict("records")
            text = f"On {task}, seed {seed}, {pruning} "
            text += f"{'keeps' if pruning == 'SHRP' else 'keep'} {kept_share(first)} of the teacher's score"
            text += "".join(
                f"; with {row['what']}, {kept_share(row)}, a change of "
                f"{in_points(row['change'], row['change low'], row['change high'])} points"
                for row in others
            )
            sentences.append(f"{text}.")
    return sentences


def _pruning(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["seed"], row["origin"]


def _row(row: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    low, high = (end / row["teacher"] for end in stored_interval(row))
    change_low, change_high = row.get("change_interval") or NO_INTERVAL
    return {
        **{name: row[name] for name in ("task", "seed", "exchange", "metric", "n", "teacher", "score")},
        "pruning": _ORIGINS[row["origin"]],
        "what": _exchanged(row, drawn),
        "matching": max(map(float, row["matching_after"].values())),
        **{"retained": row["retained"], "low": low, "high": high},
        **{"change": float(row.get("change", np.nan)), "change low": change_low, "change high": change_high},
    }


def _exchanged(row: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    """Which experts stand in place of which, and how much each gave to the same token before any pruning."""
    before, after = drawn["kept"], row["kept"]
    parts = [
        f"layer {layer}'s expert {after[layer]} (matching: {row['matching'][layer]:.0%}) in place of {before[layer]} "
        f"({drawn['matching'][layer]:.0%})"
        for layer in sorted(before, key=int)
        if after[layer] != before[layer]
    ]
    return listed(parts)
