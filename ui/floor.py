"""What needs no model: the best constant answer on some data, which a score there is to be held against."""

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
    """The headline score of the best constant answer on all of the data; nan without labels, and of numbers."""
    from shrp.evaluation.metrics import constant_score

    return float("nan") if data.labels is None else constant_score(data.task, data.labels)


def floor_words(floor: float, metric: str) -> str:
    """`a constant answer has 66.7%`; empty for nan, where that is not defined."""
    return "" if math.isnan(floor) else f"a constant answer has {score_text(floor, metric)}"


def exact(evaluation: Evaluation | None) -> float:
    """A finished evaluation's score, else nan."""
    return evaluation.score if evaluation is not None and evaluation.complete else math.nan


def floor_warning(data: TextData, models: Sequence[tuple[str, float]]) -> str:
    """Which of some models are not above the best constant answer on the picked data; see `not_above`."""
    return not_above(floor_of(data), data.task.metric, data.name, len(data), models)


def not_above(floor: float, metric: str, data: str, n: int, models: Sequence[tuple[str, float]]) -> str:
    """Which of some models are not above the best constant answer, as Markdown; empty for none.

    Args:
        floor: its score; nan where there is none.
        data: the data's name.
        n: of its inputs.
        models: what each is called, as Markdown, and its score on these data; nan where that is not known.
    """
    below = [(name, score) for name, score in models if score <= floor]
    if not below:
        return ""
    said = [f"{name} ({score_text(score, metric)})" for name, score in below]
    who = listed(said)
    if len(said) > _MOST_NAMED:
        best = score_text(max(score for _, score in below), metric)
        who = f"{len(said)} of {len(models)} models (the best of these has {best})"
    return (
        f"{capital(who)} {'is' if len(below) == 1 else 'are'} not above a constant answer, whose "
        f"{metric_name(metric)} on {escape(data)} is {score_text(floor, metric)} (n = {n:,}). Up to "
        "that score, gains and losses say little about what a model understands."
    )
