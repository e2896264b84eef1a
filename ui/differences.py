"""Two models on the same examples, in numbers and sentences: paired differences, and the threshold calibrated."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.data.text_data import TextData, same
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import majority_score
from shrp.evaluation.paired import Agreement, agreement, by_group, paired_difference
from shrp.phrases import listed
from ui.store import kept
from ui.text import (
    capital,
    escape,
    is_percentage,
    metric_name,
    points,
    points_interval,
    score_text,
    share_text,
)

FEW = 30
"""Groups of fewer examples are marked."""


def difference(a: Evaluation, b: Evaluation, *, resamples: int = 2000) -> tuple[float, tuple[float, float]]:
    """`shrp.evaluation.paired.paired_difference`, kept: bootstraps take seconds."""
    if not resamples:
        return paired_difference(a, b, resamples=0)
    key = (content(a), content(b), resamples)
    return kept("paired differences", 1024, key, lambda: paired_difference(a, b, resamples=resamples))


def groups(reference: Evaluation, other: Evaluation, by: str) -> pd.DataFrame:
    """`shrp.evaluation.paired.by_group`, kept; a copy."""
    key = (content(reference), content(other), by)
    return kept("paired groups", 64, key, lambda: by_group(reference, other, by)).copy()


def content(one: Evaluation) -> tuple[Hashable, ...]:
    """All that a comparison takes from an evaluation."""
    digest = hashlib.sha1(one.logits.tobytes(), usedforsecurity=False)
    digest.update(one.indices.tobytes())
    if one.labels is not None:
        labels = one.labels
        # Answers of questions are objects, whose bytes are addresses.
        digest.update(repr(labels.tolist()).encode() if labels.dtype == object else labels.tobytes())
    if one.slices is not None:
        digest.update("\0".join(("", *one.slices)).encode())
    return one.task, one.data, one.total, one.metric, digest.hexdigest()


def below_or_above(change: float, metric: str, what: str, *, named: bool = True) -> str:
    """`0.8 points below the routed model`, `Matthews correlation 0.110 below ...`, or `the same accuracy as ...`.

    `named`: with the unit, or the metric where it has none.
    """
    size = points(abs(change), metric).removeprefix("+")
    if not named:
        size = size.removesuffix(" points")
    elif not is_percentage(metric):
        size = f"{metric_name(metric)} {size}"
    if not any(digit in points(change, metric) for digit in "123456789"):
        return f"the same {metric_name(metric)} as {what}"
    return f"{size} {'below' if change < 0 else 'above'} {what}"


def is_clear(bounds: tuple[float, float]) -> bool:
    """Whether an interval excludes 0."""
    return bounds[0] > 0 or bounds[1] < 0


def no_difference(bounds: tuple[float, float]) -> str:
    """A sentence for an interval of a difference that includes 0; empty for another one."""
    known = all(map(math.isfinite, bounds)) and not is_clear(bounds)
    return " No significant difference." * known


def significance(found: Mapping[str, tuple[float, float]]) -> str:
    """A sentence for each way in which a score differs from others; `found`: name -> interval of the difference."""
    ways: dict[str, list[str]] = {}
    for name, bounds in found.items():
        if is_clear(bounds):
            ways.setdefault(f"Significantly {'below' if bounds[1] < 0 else 'above'}", []).append(name)
        elif math.isfinite(bounds[0]):
            ways.setdefault("No significant difference from", []).append(name)
    return "".join(f" {way} {listed(names)}." for way, names in ways.items())


@dataclass(frozen=True)
class Test:
    """The paired comparison of B with A: score of B minus that of A."""

    difference: float
    bounds: tuple[float, float]
    counts: Agreement | None
    """None for regression, and for labels of words."""
    n: int
    metric: str

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test; nan where the metric is not accuracy, of which the test is."""
        return self.counts.p_value if self.counts and self.metric == "accuracy" else math.nan


def test(a: Evaluation, b: Evaluation) -> Test:
    """Compare two evaluations on the same labelled examples; a `DataError` if they are not of the same data."""
    counts = agreement(a, b) if a.task.classifies_texts else None
    return Test(*difference(b, a), counts, a.n, a.metric)


def verdict_of(found: Test, a: str, b: str) -> str:
    """What a test shows, as Markdown. `a`, `b`: names, as Markdown."""
    text = f"**{b}: {below_or_above(found.difference, found.metric, a)}**"
    if not math.isfinite(found.bounds[0]):
        return f"{text}; without an interval, nothing can be concluded."
    text += f" (95% CI {points_interval(found.bounds, found.metric)}, n = {found.n:,})."
    return f"{text}{no_difference(found.bounds)}"


def agreement_text(other: Evaluation, reference: Evaluation, names: Sequence[str]) -> str:
    """Without labels: how often two models predict the same, as Markdown; empty for regression."""
    if other.task.is_regression:
        return ""
    _, mine, theirs = np.intersect1d(other.indices, reference.indices, return_indices=True)
    alike = int(same(other.predictions[mine], reference.predictions[theirs]).sum())
    return (
        f"**{capital(names[1])} predicts the same as {names[0]} for {alike:,} of {len(mine):,} examples**, "
        f"{share_text(alike, len(mine))}."
    )


# The threshold


def matched(other: Evaluation, reference: Evaluation, data: TextData) -> Evaluation | None:
    """`other` with its threshold calibrated to the predicted class frequencies of `reference`; needs no labels.

    Its output bias is shifted until it predicts each class as often as the reference does.

    Returns:
        None for regression, for labels of words, and while not all examples are evaluated.
    """
    if not data.task.classifies_texts or not (other.complete and reference.complete):
        return None

    key = content(other), content(reference), data.fingerprint, data.name
    work = lambda: shifted(other, data, matching_shift(other.logits, reference.logits))  # noqa: E731
    return kept("matched shares", 512, key, work)


def most_is_the_threshold(found: Evaluation | None, other: Evaluation, reference: Evaluation) -> bool:
    """Whether calibrating the threshold significantly brings back at least half of a significant loss, and over a point."""
    if found is None or other.labels is None:
        return False
    lost, back = reference.score - other.score, found.score - other.score
    if not back > 0.01 or not back >= lost / 2 > 0:
        return False
    return difference(other, reference)[1][1] < 0 < difference(found, other)[1][0]


# The majority-class baseline

_MOST_NAMED = 4


def floor_of(data: TextData) -> float:
    """The majority-class baseline's headline score on all of the data; nan without labels, and of numbers."""
    if data.labels is None:
        return math.nan
    return kept("floors", 64, (data.fingerprint, data.task.name), lambda: majority_score(data.task, data.labels))


def exact(evaluation: Evaluation | None) -> float:
    """A finished evaluation's score, else nan."""
    return evaluation.score if evaluation is not None and evaluation.complete else math.nan


def not_above(floor: float, metric: str, data: str, n: int, models: Sequence[tuple[str, float]]) -> str:
    """Which models are not above the majority-class baseline, as Markdown; empty for none.

    Args:
        floor: the baseline's score, a share of 1; nan where there is none.
        models: name of each, as Markdown, and its score on the `n` examples; nan where that is not known.
    """
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
