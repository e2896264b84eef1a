"""The majority-class baseline on some data, with which scores there are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shrp.data.text_data import TextData
from shrp.phrases import listed
from ui.text import capital, escape, metric_name, score_text

if TYPE_CHECKING:
    from shrp.evaluation.evaluation import Evaluation

_MOST_NAMED = 4


def floor_of(data: TextData) -> float:
    """The majority-class baseline's headline score on all of the data; nan without labels, and of numbers."""
    from shrp.evaluation.metrics import majority_score

    return float("nan") if data.labels is None else majority_score(data.task, data.labels)


def exact(evaluation: Evaluation | None) -> float:
    """A finished evaluation's score, else nan."""
    return evaluation.score if evaluation is not None and evaluation.complete else math.nan


def not_above(floor: float, metric: str, data: str, n: int, models: Sequence[tuple[str, float]]) -> str:
    """Which models are not above the majority-class baseline, as Markdown; empty for none."""
    below = [(name, score) for name, score in models if score <= floor]
    if not below:
        return ""
    who = listed([f"{name} ({score_text(score, metric)})" for name, score in below])
    if len(below) > _MOST_NAMED:
        best = score_text(max(score for _, score in below), metric)
        who = f"{len(below)} of {len(models)} models (the best of these has {best})"
    return (
        f"{capital(who)} {'is' if len(below) == 1 else 'are'} not above the majority-class baseline, whose "
        f"{metric_name(metric)} on {escape(data)} is {score_text(floor, metric)} (n = {n:,}). Up to "
        "that score, gains and losses say little about what a model understands."
    )


def floor_warning(data: TextData, models: Sequence[tuple[str, float]]) -> str:
    """`not_above` on the picked data."""
    return not_above(floor_of(data), data.task.metric, data.name, len(data), models)
