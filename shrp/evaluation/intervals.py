"""Intervals: those that are missing, here and in what was saved, and those of a mean over trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

NO_INTERVAL = (float("nan"), float("nan"))
NO_WIDTH = 1e-9
"""Ends that are no further apart differ by rounding alone."""


def of_draws(draws: np.ndarray) -> tuple[float, float]:
    """The 95% percentile interval of a bootstrap's draws, `(n,)`, of which those that are no numbers don't count.

    Where no draw differs the bootstrap is certain, which a few equal answers are no ground for: then it is (nan, nan).
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return NO_INTERVAL
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return (low, high) if high - low > NO_WIDTH else NO_INTERVAL


def of_mean(values: np.ndarray, units: np.ndarray | None = None) -> tuple[float, float]:
    """The 95% interval of a mean, by Student's t; of few values that are not 0 the percentile bootstrap is too sure.
    (nan, nan) for fewer than two units, and where none differs: that is no certainty of others.

    Args:
        values: `(n,)`.
        units: of each value what it belongs together with, `(n,)`, such as the other input of its minimal pair; None
            takes each by itself.
    """
    if not len(values):
        return NO_INTERVAL
    mean = values.mean()
    apart = values - mean
    if units is not None:
        apart = np.bincount(np.unique(units, return_inverse=True)[1], apart)
    n = len(apart)
    if n < 2:
        return NO_INTERVAL
    half = stdtrit(n - 1, 0.975) * np.sqrt(n / (n - 1) * (apart**2).sum()) / len(values)
    return (float(mean - half), float(mean + half)) if half > NO_WIDTH else NO_INTERVAL


def stored_interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """The two ends of the `interval` of a row that was saved; (nan, nan) where it has none.

    Older rows have the bootstrap's even where all of its resamples agree: a 95% interval without a width is none. A
    range of draws (`interval_is` says so) may well have none.
    """
    low, high = row.get("interval") or NO_INTERVAL
    if low is None or high is None:
        return NO_INTERVAL
    flat = abs(high - low) <= NO_WIDTH and (row.get("interval_is") or "95%").startswith("95%")
    return NO_INTERVAL if flat else (float(low), float(high))


@dataclass(frozen=True)
class Mean:
    """A mean over trainings, or over tasks, with what leaves it open: the inputs, and the trainings."""

    value: float
    below: float
    """Half-width of its 95% interval over inputs, to the lower side; nan where that is not known."""
    above: float
    """The same to the upper side."""
    variance: float = 0.0
    """Of the mean, over trainings; 0 where each task has one."""
    freedom: float = 0.0
    """Degrees of freedom of that variance."""
    single: float = 0.0
    """Variance of one training's figure, of which `variance` is the mean's; 0 where it is not known."""

    @classmethod
    def of_ends(cls, value: float, low: float, high: float) -> Mean:
        """A figure with the ends of its interval over inputs."""
        return cls(value, value - low, high - value)

    @property
    def ends(self) -> tuple[float, float]:
        """Of the 95% interval over inputs and trainings: what both leave open adds in squares, trainings by Student's
        t. Few trainings tell little of a further one, and the interval says so.
        """
        trainings = float(stdtrit(self.freedom, 0.975)) * np.sqrt(self.variance) if self.freedom else 0.0
        below, above = np.hypot([self.below, self.above], trainings).tolist()
        return self.value - below, self.value + above


UNKNOWN = Mean(float("nan"), *NO_INTERVAL)


def over_trainings(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> Mean:
    """The mean of a figure over several trainings that are scored on the same inputs.

    What the inputs leave open does not shrink with the number of trainings: it is the mean of their own half-widths.

    Args:
        values: of each training, at least one.
        intervals: the 95% interval over inputs of each; (nan, nan) for none. The mean has none where none has; beside
            others a training without one, as where all inputs get one answer, counts as exact as to inputs.
    """
    found, ends = np.asarray(values, dtype=float), np.array(intervals, dtype=float)
    known = np.isfinite(ends).all(1)
    if known.any():
        ends[~known] = found[~known, None]
    below, above = np.abs(ends - found[:, None]).mean(0).tolist()
    n = len(found)
    single = float(found.var(ddof=1)) if n > 1 else 0.0
    return Mean(float(found.mean()), below, above, single / n, n - 1.0, single)


def difference(mine: Mean, other: Mean) -> Mean:
    """How far one mean is above another, of trainings of its own; what inputs leave open is taken to be independent
    too, which on the same inputs counts as open what both share.

    One that is of a single training, beside one that is of several, is taken to vary over trainings as that does, which
    is too sure where it varies more. The degrees of freedom are Welch's and Satterthwaite's.
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


def over_tasks(means: Sequence[Mean]) -> Mean:
    """The mean of several tasks' means, each of inputs and trainings of its own, so that their errors are independent.

    A task with one training, beside others with several, is taken to vary over trainings as these do on average (their
    variances pooled): its one value has all of what a training leaves open. Where all tasks have one, nothing is known
    of that, and the interval is over inputs alone. The degrees of freedom are Welch's and Satterthwaite's.
    """
    n = len(means)
    below, above = (
        float(np.sqrt(sum(getattr(m, side) ** 2 for m in means)) / n) for side in ("below", "above")
    )
    several = [m for m in means if m.freedom]
    alone, known = n - len(several), sum(m.freedom for m in several)
    # What each adds to the sum's variance: that of its own mean, and its share in the pooled one of the others.
    parts = [(m.variance + alone * m.single * m.freedom / known, m.freedom) for m in several]
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / df for variance, df in parts) if total else 0.0
    return Mean(sum(m.value for m in means) / n, below, above, total / n**2, freedom)
