"""How far a classifier's probabilities can be trusted: calibration, and what confidence is worth.

Confidence is the probability of the predicted class. A model is calibrated where, of the inputs that it is 80%
confident of, 80% are right (Guo et al. 2017, "On Calibration of Modern Neural Networks").

A measured calibration error is never below 0, so chance alone makes one, and the more so the fewer inputs there are:
`Ece` says how large it would be of a calibrated model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.intervals import NO_INTERVAL, NO_WIDTH, of_draws, of_mean
from shrp.evaluation.metrics import EQUAL, at_once, wilson

BINS = 10
LEAST = 10
"""Inputs a bin at least, as far as ties of confidence allow: where there are fewer than `BINS * LEAST`, so are bins."""
RESAMPLES = 1000
STEPS = 10
"""Parts of the inputs by which coverage grows."""
_SEED = 0
_ACCURACY = ["accuracy", "accuracy low", "accuracy high"]


@dataclass(frozen=True)
class Ece:
    """An expected calibration error, as a share: 0.05 is 5 points between confidence and accuracy on average.

    Attributes:
        value: as measured, biased upward by chance; nan without inputs.
        interval: 95%, by the bootstrap over inputs, the bias taken off; (nan, nan) where no draw differs. Its low end
            is 0 where the value is not beyond chance.
        by_chance: what a calibrated model with the same confidences has on average: the mean error of answers that are
            right with just the probability that the model gives them.
        chance_most: what 95% of such draws don't exceed; a value above it is beyond chance.
    """

    value: float
    interval: tuple[float, float]
    by_chance: float
    chance_most: float

    @property
    def beyond_chance(self) -> bool:
        """Whether a calibrated model would rarely, of 100 times 5 at most, have so large an error."""
        return self.value > self.chance_most


@dataclass(frozen=True)
class Difference:
    """How the calibration of two models differs on the inputs that both have seen.

    Attributes:
        first, second: the errors of both on these inputs.
        ece: the first's less the second's.
        ece_interval: its 95% interval, paired; (nan, nan) where there is none, as of equal outputs.
        brier: the same of Brier scores.
        brier_interval: its 95% interval, paired; as above.
    """

    first: Ece
    second: Ece
    ece: float
    ece_interval: tuple[float, float]
    brier: float
    brier_interval: tuple[float, float]


def reliability(evaluation: Evaluation, bins: int = BINS) -> pd.DataFrame:
    """Confidence and accuracy in bins of about as many inputs each (a reliability diagram's; Guo et al. 2017).

    Inputs of one confidence (up to `shrp.evaluation.metrics.EQUAL`) are in one bin.

    Args:
        bins: at most; fewer where there are few inputs (`LEAST`) or many ties.

    Returns:
        A row a bin, by rising confidence: low, high (the least and the greatest confidence in it), n, confidence (the
        mean), accuracy, accuracy low, accuracy high (95%, Wilson). Empty without inputs.

    Raises:
        DataError: there are no labels, or they are numbers.
        ValueError: fewer than one bin.
    """
    confidence, right = _answers(evaluation)
    placed = _bins(confidence, bins)
    rows = []
    for one in range(placed.max(initial=-1) + 1):
        here = placed == one
        held = confidence[here]
        ends = float(held.min()), float(held.max())
        rows.append((*ends, int(here.sum()), float(held.mean()), *_accuracy(right[here])))
    return pd.DataFrame(rows, columns=["low", "high", "n", "confidence", *_ACCURACY])


def ece(evaluation: Evaluation, bins: int = BINS) -> Ece:
    """The expected calibration error (Guo et al. 2017): the gap of accuracy and confidence, its mean over the bins of
    `reliability`, weighted by their inputs.

    The value is biased upward by chance, and so is each sample of the bootstrap, once more: its percentiles are
    therefore mirrored at the value (the basic bootstrap), which takes the bias off; the high end takes off none, since
    how large the bias is is not known well. All draws are seeded.

    Raises: as `reliability`.
    """
    return _with_draws(evaluation, bins)[0]


def brier(evaluation: Evaluation) -> float:
    """The Brier score (Brier 1950): the squared distance of the probabilities from 1 for the label's class and 0 for
    the others, summed over classes, its mean over inputs: 0 at best, 2 at worst. Of two classes it is twice what is
    often given, that of one class alone. nan without inputs.

    Raises:
        DataError: there are no labels, or they are numbers.
    """
    errors = _squared_errors(evaluation)
    return float(errors.mean()) if len(errors) else float("nan")


def risk_coverage(evaluation: Evaluation) -> pd.DataFrame:
    """Accuracy where only the most confident part of the inputs is answered (the risk-coverage curve of El-Yaniv and
    Wiener 2010, who plot 1 less the accuracy).

    Returns:
        A row for each 10% of coverage: coverage (a share of the inputs), n (answered), threshold (their least
        confidence), accuracy, accuracy low, accuracy high (95%, Wilson). Inputs of one confidence are answered
        together, so that coverage may be above 10%, 20% and so on, and rows fewer. Empty without inputs.

    Raises:
        DataError: there are no labels, or they are numbers.
    """
    confidence, right = _answers(evaluation)
    confidence = _tied(confidence)
    n, falling, rows = len(confidence), np.sort(confidence)[::-1], {}
    for step in range(1, STEPS + 1) if n else ():
        threshold = falling[-(-n * step // STEPS) - 1]
        here = confidence >= threshold
        rows[threshold] = int(here.sum()) / n, int(here.sum()), float(threshold), *_accuracy(right[here])
    return pd.DataFrame(rows.values(), columns=["coverage", "n", "threshold", *_ACCURACY])


def difference(a: Evaluation, b: Evaluation, bins: int = BINS) -> Difference:
    """How far the calibration error and the Brier score of `a` are above those of `b`, on the inputs of both.

    Both models are drawn on the same samples of inputs. The interval of the errors' difference is made of both errors'
    intervals and the correlation of their draws (Zou and Donner 2008), since chance adds the more to an error the
    smaller that is: percentiles of the difference would hold the truth far too rarely. That of the Brier scores, means
    over inputs without such a bias, is Student's, of the difference of each input.

    Raises:
        DataError: the evaluations are not on the same data, or have no labels, or these are numbers.
    """
    a, b = shared(a, b)
    (first, ours), (second, theirs) = (_with_draws(one, bins) for one in (a, b))
    errors = _squared_errors(a) - _squared_errors(b)
    return Difference(
        first,
        second,
        first.value - second.value,
        _paired_interval(first, second, ours, theirs),
        float(errors.mean()) if len(errors) else float("nan"),
        _within(of_mean(errors), 2.0),
    )


def shared(a: Evaluation, b: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Both evaluations on the inputs that both have seen, in the data's order; their scores are not computed anew.

    Raises:
        DataError: the evaluations are not on the same data.
    """
    if a.task != b.task or a.data != b.data or a.total != b.total:
        raise DataError(f"Evaluations on '{a.data}' and '{b.data}' are of different inputs.")
    _, *places = np.intersect1d(a.indices, b.indices, return_indices=True)
    return tuple(
        replace(
            one,
            n=len(rows),
            indices=one.indices[rows],
            logits=one.logits[rows],
            labels=None if one.labels is None else one.labels[rows],
            slices=None if one.slices is None else tuple(one.slices[i] for i in rows),
        )
        for one, rows in zip((a, b), places, strict=True)
    )


def _answers(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Each input's confidence, float64 `(n,)`, and whether its answer is right, bool `(n,)`."""
    right = evaluation.correct
    return evaluation.probabilities.astype(np.float64).max(1, initial=0.0), right


def _squared_errors(evaluation: Evaluation) -> np.ndarray:
    """Of the probabilities of each input, summed over classes, `(n,)`."""
    _answers(evaluation)  # raises where there are no labelled classes
    truth = np.eye(evaluation.task.num_labels)[evaluation.labels]
    return ((evaluation.probabilities - truth) ** 2).sum(1)


def _accuracy(right: np.ndarray) -> tuple[float, float, float]:
    """With the ends of its interval; of one input at least."""
    hits, n = int(right.sum()), len(right)
    return hits / n, *wilson(hits, n)


def _tied(confidence: np.ndarray) -> np.ndarray:
    """Each one, or the least that it equals: by which inputs share a batch equal ones differ in their last digits."""
    found, first = confidence.copy(), -np.inf
    for place in np.argsort(confidence, kind="stable"):
        if found[place] - first > EQUAL:
            first = found[place]
        found[place] = first
    return found


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each input, int64 `(n,)`, from 0 without gaps: ties go by the middle one of their ranks."""
    if bins < 1:
        raise ValueError(f"Confidence needs at least one bin, not {bins}.")
    if not (n := len(confidence)):
        return np.zeros(0, dtype=np.int64)
    _, value, counts = np.unique(_tied(confidence), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # from 0
    place = np.floor(max(1, min(bins, n // LEAST)) * middle / n)
    return np.unique(place, return_inverse=True)[1][value]


def _errors(gaps: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Calibration errors of samples, `(samples,)`.

    Args:
        gaps: of each answer, 1 or 0 for right or wrong, less its confidence, `(samples, n)`.
        bins: of each, of the same shape or `(n,)`.
    """
    samples, n = gaps.shape
    size = bins.max() + 1
    cells = bins + size * np.arange(samples)[:, None]
    sums = np.bincount(cells.ravel(), gaps.ravel(), samples * size).reshape(samples, size)
    return np.abs(sums).sum(1) / n


def _with_draws(evaluation: Evaluation, bins: int) -> tuple[Ece, np.ndarray]:
    """The error, and those of the bootstrap's samples `(RESAMPLES,)`, which are the same of all models on as many
    inputs; each input stays in its bin.
    """
    confidence, right = _answers(evaluation)
    placed, n = _bins(confidence, bins), len(confidence)
    if not n:
        return Ece(float("nan"), NO_INTERVAL, float("nan"), float("nan")), np.zeros(0)
    gaps = right - confidence
    samples, chance = np.random.default_rng(_SEED), np.random.default_rng(_SEED + 1)
    draws, calibrated = [], []
    for size in at_once(RESAMPLES, n):
        rows = samples.integers(n, size=(size, n))
        draws.append(_errors(gaps[rows], placed[rows]))
        # A label drawn by the model's own probabilities is the predicted one with just its confidence.
        calibrated.append(_errors((chance.random((size, n)) < confidence) - confidence, placed))
    draws, calibrated = np.concatenate(draws), np.concatenate(calibrated)
    value, most = float(_errors(gaps[None], placed)[0]), float(np.percentile(calibrated, 95))
    interval = _unbiased(value, draws, value > most)
    return Ece(value, interval, float(calibrated.mean()), most), draws


def _unbiased(value: float, draws: np.ndarray, beyond_chance: bool) -> tuple[float, float]:
    """An interval that holds the value, of which the bias is taken off below, but not above (`ece` says why)."""
    low, high = of_draws(draws)
    if low != low:
        return NO_INTERVAL
    upper = max(2 * value - low, value + (high - low) / 2)
    lower = float(np.clip(2 * value - high, 0, value)) if beyond_chance else 0.0
    return lower, min(1.0, upper)


def _paired_interval(a: Ece, b: Ece, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Of the difference of two errors: Zou and Donner's, of their intervals and the correlation of their draws."""
    if not np.isfinite([*a.interval, *b.interval]).all() or np.ptp(ours - theirs) <= NO_WIDTH:
        return NO_INTERVAL
    together = float(np.corrcoef(ours, theirs)[0, 1])
    value = a.value - b.value
    return _within((value - _reach(b, a, together), value + _reach(a, b, together)), 1.0)


def _within(interval: tuple[float, float], most: float) -> tuple[float, float]:
    """An interval without what a difference can't be; nan stays."""
    low, high = (float(np.clip(end, -most, most)) for end in interval)
    return low, high


def _reach(up: Ece, down: Ece, together: float) -> float:
    """How far the difference may go if one error is greater and the other less. An error that chance may have made
    alone is less by its bias, not by luck with inputs that both models share: its part is then added as it is.
    """
    rise, fall = up.interval[1] - up.value, down.value - down.interval[0]
    if not down.beyond_chance:
        return rise + fall
    return float(np.sqrt(max(0.0, rise**2 + fall**2 - 2 * together * rise * fall)))
