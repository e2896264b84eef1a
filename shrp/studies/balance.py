"""The experiment on the balance loss: whether experts collapse without it, and what it does to the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from shrp.analysis.usage import COLLAPSE_SHARE
from shrp.errors import DataError
from shrp.evaluation.intervals import stored_interval
from shrp.phrases import counted, listed
from shrp.studies.experiments import Experiment
from shrp.studies.studies import bounds, command_of


def balance_frame(found: Experiment) -> pd.DataFrame:
    """One row a task and weight of the balance loss, over seeds.

    Columns: task, balance, seeds, collapsed (runs in which one expert took more than 90% of a layer in stage 1),
    largest (the largest share that one took there),
    effective 1 and share 1 (mean over layers and epochs of stage 1: effective experts, largest share), effective 2 and
    share 2 (mean over layers after the last epoch), experts, and routed, static with `low` and `high` ends.

    Raises:
        DataError: a row's usage or scores are not to be read.
    """
    try:
        rows = [_balance_row(row) for row in found.rows]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"balance.json has rows that can't be read; write it anew with {command_of('balance')}."
        ) from error
    frame = pd.DataFrame(rows)
    result = []
    for (task, weight), group in frame.groupby(["task", "balance"]):
        row: dict[str, Any] = {"task": task, "balance": weight, "seeds": group["seed"].nunique()}
        row |= {"collapsed": int(group["collapsed"].sum()), "largest": group["largest"].max()}
        for name in ("metric", "n", "teacher", "experts", "per_layer"):
            row[name] = group[name].iloc[0]
        for name in ("effective 1", "share 1", "effective 2", "share 2"):
            row |= {
                name: group[name].mean(),
                f"{name} low": group[name].min(),
                f"{name} high": group[name].max(),
            }
        for name in ("routed", "static"):
            low, high = bounds(group[name], list(group[f"{name} interval"]))
            row |= {name: group[name].mean(), f"{name} low": low, f"{name} high": high}
        result.append(row)
    return pd.DataFrame(result)


def _balance_row(row: Mapping[str, Any]) -> dict[str, Any]:
    usage = pd.DataFrame(row["usage"])
    first, last = usage[usage["stage"] == 1], usage[usage["epoch"] == usage["epoch"].max()]
    flat = {
        key: row[key] for key in ("task", "seed", "balance", "metric", "n", "teacher", "experts", "per_layer")
    }
    for number, part in ((1, first), (2, last)):
        flat |= {f"effective {number}": part["effective"].mean(), f"share {number}": part["top_share"].mean()}
    for name in ("routed", "static"):
        flat |= {name: float(row[name]["score"]), f"{name} interval": stored_interval(row[name])}
    return flat | {
        "collapsed": bool((first["top_share"] > COLLAPSE_SHARE).any()),
        "largest": first["top_share"].max(),
    }


def balance_findings(frame: pd.DataFrame) -> list[str]:
    """A sentence a task: collapse by weight, then the scores."""
    sentences = []
    for task, rows in frame.groupby("task", sort=False):
        collapse = [
            f"{row['collapsed']} of {counted(row['seeds'], 'seed')} at {row['balance']:g} "
            f"({row['largest']:.1%} at most)"
            for _, row in rows.iterrows()
        ]
        through, after = (
            listed([f"{value:.1f}" for value in rows[f"effective {stage}"]]) for stage in (1, 2)
        )
        best = rows.loc[rows["static"].idxmax()]
        worst = rows.loc[rows["static"].idxmin()]
        of = "one training each"
        if min(best["seeds"], worst["seeds"]) > 1:
            ends = (f"{row['static low']:.3f} to {row['static high']:.3f}" for row in (best, worst))
            several = " and ".join(map(str, sorted({int(best["seeds"]), int(worst["seeds"])})))
            of = f"means of {several} trainings, which have {' and '.join(ends)}"
        high, low = (f"{row['balance']:g} ({row['static']:.3f})" for row in (best, worst))
        sentences.append(
            f"On {task}, by the weight of the balance loss, one expert took more than {COLLAPSE_SHARE:.0%} of a layer "
            f"in stage 1, a collapse, in {listed(collapse)}. Effective experts through stage 1: {through}; after stage "
            f"2: {after}. The static score is highest at {high} and lowest at {low}: {of}, so the order may be chance."
        )
    return sentences
