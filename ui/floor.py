"""What needs no model: the best constant answer on the picked data, which a score is to be held against."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shrp.data import TextData
from shrp.evaluation import Evaluation
from shrp.metrics import constant_score
from ui.text import escape, metric_name, score_text


def floor_of(data: TextData) -> float:
    """The headline score of the best constant answer on all of the data; nan without labels, and of numbers."""
    return float("nan") if data.labels is None else constant_score(data.task, data.labels)


def floor_text(data: TextData) -> str:
    """`a constant answer has 66.7%`; empty where that is not defined."""
    floor = floor_of(data)
    return "" if math.isnan(floor) else f"a constant answer has {score_text(floor, data.task.metric)}"


def floor_warning(data: TextData, models: Sequence[tuple[str, Evaluation | None]]) -> str:
    """Which of some models are not above the best constant answer, as Markdown; empty for none.

    Args:
        models: what each is called, and its evaluation; unfinished ones, and None, are passed over.
    """
    floor, metric = floor_of(data), data.task.metric
    below = [
        f"{name} ({score_text(one.score, metric)})"
        for name, one in models
        if one is not None and one.complete and one.score <= floor
    ]
    if not below:
        return ""
    who = below[0] if len(below) == 1 else f"{', '.join(below[:-1])} and {below[-1]}"
    return (
        f"{who[0].upper()}{who[1:]} {'is' if len(below) == 1 else 'are'} not above a constant answer, whose "
        f"{metric_name(metric)} on {escape(data.name)} is {score_text(floor, metric)} (n = {len(data):,}). Up to "
        "there, a gain or a loss need not mean that more or less is understood."
    )
