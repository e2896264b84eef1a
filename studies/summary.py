"""Means of the GLUE table with intervals (`studies.results` writes them to docs/data/summary.json).

A share is a model's score divided by its dense teacher's, which is taken as exact. Intervals are 95%. What the examples
leave open and what the trainings leave open add in squares, the latter by Student's t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

TASKS = ("cola", "mrpc", "rte", "stsb", "sst2", "qnli")
KEY = ("recipe", "depth", "model", "experts_per_layer", "routed", "fine_tuned_after_pruning")
NAMES = {
    "shrp": "SHRP",
    "random": "random experts",
    "no_router": "no router",
    "width": "width pruning",
    "dropped": "layer dropping",
}
SIZES = {"6of12": 2, "11of12": 1}
"""Depth -> experts per layer of the pruned models in the main tables."""


@dataclass(frozen=True)
class Mean:
    """A mean over trainings or tasks."""

    value: float
    below: float
    """Half-width of the 95% interval over examples, to the lower side; nan if unknown."""
    above: float
    """The same to the upper side."""
    variance: float = 0.0
    """Variance of the mean over trainings; 0 for one training."""
    freedom: float = 0.0
    """Degrees of freedom of `variance`."""
    single: float = 0.0
    """Variance of one training."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval over examples and trainings."""
        trainings = float(stdtrit(self.freedom, 0.975)) * np.sqrt(self.variance) if self.freedom else 0.0
        below, above = np.hypot([self.below, self.above], trainings).tolist()
        return self.value - below, self.value + above


def over_trainings(values: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> Mean:
    """The mean over trainings scored on the same examples.

    What the examples leave open does not shrink with the number of trainings: it is the mean of the half-widths. A
    training without an interval, as one that predicts a single class, counts as exact.
    """
    found = np.asarray(values, dtype=float)
    ends = np.array([one or (value, value) for value, one in zip(found, intervals, strict=True)], dtype=float)
    below, above = np.abs(ends - found[:, None]).mean(0).tolist()
    n = len(found)
    single = float(found.var(ddof=1)) if n > 1 else 0.0
    return Mean(float(found.mean()), below, above, single / n, n - 1.0, single)


def over_tasks(means: Sequence[Mean]) -> Mean:
    """The mean of several tasks' means, whose errors are independent.

    A task with one training is taken to vary over trainings as the others do on average. The degrees of freedom are
    Welch's and Satterthwaite's.
    """
    n = len(means)
    below, above = (
        float(np.sqrt(sum(getattr(m, side) ** 2 for m in means)) / n) for side in ("below", "above")
    )
    several = [m for m in means if m.freedom]
    alone, known = n - len(several), sum(m.freedom for m in several)
    parts = [(m.variance + alone * m.single * m.freedom / known, m.freedom) for m in several]
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / df for variance, df in parts) if total else 0.0
    return Mean(sum(m.value for m in means) / n, below, above, total / n**2, freedom)


def difference(mine: Mean, other: Mean) -> Mean:
    """`mine` minus `other`, from trainings of their own; errors over examples are taken as independent.

    A mean of a single training, compared with one of several, is taken to vary over trainings as that does. The degrees
    of freedom are Welch's and Satterthwaite's.
    """
    below, above = np.hypot([mine.below, mine.above], [other.above, other.below]).tolist()
    value = mine.value - other.value
    several = [m for m in (mine, other) if m.freedom]
    if not several:
        return Mean(value, below, above)
    if len(several) == 1:
        (known,) = several
        return Mean(value, below, above, known.variance + known.single, known.freedom, 2 * known.single)
    variance = mine.variance + other.variance
    parts = sum(m.variance**2 / m.freedom for m in several)
    freedom = variance**2 / parts if parts else mine.freedom + other.freedom
    return Mean(value, below, above, variance, freedom, mine.single + other.single)


def by_task(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per task and model, means over seeds.

    Returns:
        Columns task, those of `KEY`, seeds, n, metric, score (mean), share, low, high (of the teacher's score),
        above_majority (share of what lies above the majority-class baseline), encoder_params_share, and `mean` (`Mean`).
    """
    frame = pd.DataFrame([dict(row) for row in rows])
    found = []
    for key, group in frame.groupby(["task", *KEY], dropna=False, sort=False):
        score, teacher = group["score"], group["teacher_score"]
        ends = [one and [end / of for end in one] for one, of in zip(group["interval"], teacher, strict=True)]
        mean = over_trainings(list(score / teacher), ends)
        facts = dict(zip(("task", *KEY), key, strict=True))
        if facts["model"] == "random" and not facts["fine_tuned_after_pruning"]:
            mean = replace(mean, below=np.nan, above=np.nan)  # draws have a range, not an interval
        floor = group["majority_score"].astype(float).fillna(0.0)
        facts |= {"seeds": group["seed"].nunique(), "n": int(group["n"].iloc[0])}
        facts |= {"metric": group["metric"].iloc[0], "score": score.mean(), "share": mean.value}
        facts |= {"low": mean.interval[0], "high": mean.interval[1]}
        facts["above_majority"] = float(((score - floor) / (teacher - floor)).mean())
        found.append(facts | {"encoder_params_share": group["encoder_params_share"].mean(), "mean": mean})
    return pd.DataFrame(found)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean share over tasks of every model that was trained on all of them.

    Returns:
        Rows with the fields of `KEY`, name (of the model, in words), compared (whether it is in the main tables), share,
        interval, above_majority, encoder_params_share, tasks, seeds (fewest and most per task), and `by_task` (task ->
        share, interval, seeds, n).
    """
    if not rows:
        return []
    found = []
    for key, group in by_task(rows).groupby(list(KEY), dropna=False, sort=False):
        if not set(TASKS) <= set(group["task"]):
            continue
        group = group.set_index("task").loc[list(TASKS)]
        mean = over_tasks(group["mean"].tolist())
        row = dict(zip(KEY, key, strict=True))
        m = row["experts_per_layer"]
        row["experts_per_layer"] = None if m != m else int(m)
        row |= {"name": _name(row), "compared": _compared(row)}
        row |= {"share": mean.value, "interval": list(mean.interval) if mean.below == mean.below else None}
        row |= {name: float(group[name].mean()) for name in ("above_majority", "encoder_params_share")}
        row |= {"tasks": list(TASKS), "seeds": [int(group["seeds"].min()), int(group["seeds"].max())]}
        row["by_task"] = {
            one.Index: {
                "share": one.share,
                "interval": [one.low, one.high] if one.low == one.low else None,
                "score": one.score,
                "seeds": int(one.seeds),
                "n": int(one.n),
            }
            for one in group.itertuples()
        }
        found.append(row)
    order = list(NAMES)
    return sorted(
        found, key=lambda r: (r["recipe"], r["depth"], order.index(r["model"]), -r["encoder_params_share"])
    )


def leads(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By how much SHRP's fine-tuned model leads each fine-tuned control, in shares of the teacher's score.

    Returns:
        Rows recipe, depth, model, experts_per_layer, name, difference, interval (95%, not paired), over the same tasks.
    """
    frame = by_task([row for row in rows if row["fine_tuned_after_pruning"] and row["task"] in TASKS])
    found = []
    for (recipe, depth), group in frame.groupby(["recipe", "depth"], sort=True):
        mine = group[group["model"] == "shrp"].set_index("task")["mean"]
        controls = group[group["model"] != "shrp"]
        for (model, m), control in controls.groupby(["model", "experts_per_layer"], dropna=False, sort=False):
            theirs = control.set_index("task")["mean"]
            if not set(TASKS) <= set(mine.index) & set(theirs.index):
                continue
            lead = over_tasks([difference(mine[task], theirs[task]) for task in TASKS])
            row = {"recipe": recipe, "depth": depth, "model": model}
            row["experts_per_layer"] = None if m != m else int(m)
            row["name"] = _name(row)
            found.append(row | {"difference": lead.value, "interval": list(lead.interval)})
    return found


def _name(row: Mapping[str, Any]) -> str:
    """A model of the main tables in words."""
    whole = row["model"] == "no_router" and row["experts_per_layer"] == 12
    return NAMES[row["model"]] + ", routed" * row.get("routed", False) + ", all experts kept" * whole


def _compared(row: Mapping[str, Any]) -> bool:
    """Whether a model is in the main tables: SHRP routed and pruned, fine-tuned or not, and the controls of its size."""
    sizes = (SIZES.get(row["depth"]), *(12,) * (row["model"] == "no_router"))
    return row["routed"] or row["model"] in ("dropped", "width") or row["experts_per_layer"] in sizes


def describe(row: Mapping[str, Any]) -> str:
    """A model of the table in words, with its size."""
    m = row["experts_per_layer"]
    size = ", routed" if row["routed"] else f", {m} expert{'s' * (m > 1)} a layer" if m else ""
    if row["model"] == "no_router" and m == 12:
        size = ", all experts"
    return NAMES[row["model"]] + size
