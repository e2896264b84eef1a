"""Intervals: those that are missing, here and in what was saved, and those of a mean over trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NO_INTERVAL = (float("nan"), float("nan"))
NO_WIDTH = 1e-9
"""Ends that are no further apart differ by rounding alone."""


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


def over_trainings(
    values: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> tuple[float, float, float]:
    """The mean of a figure over several trainings, with a 95% interval over inputs and trainings.

    All trainings are scored on the same inputs, so what these leave open does not shrink with their number: it is the
    mean of the trainings' own half-widths, on each side. What the trainings leave open is Student's t of their
    standard deviation; both add in squares. Two trainings tell little of a third, and the interval says so.

    Args:
        values: of each training.
        intervals: of each, over inputs; (nan, nan) for none.

    Returns:
        The mean and its ends; those of the one interval where there is one training, nan where any has none.
    """
    from scipy.stats import t

    found, ends = np.asarray(values, dtype=float), np.asarray(intervals, dtype=float)
    mean, n = float(found.mean()), len(found)
    if n == 1:
        return mean, float(ends[0, 0]), float(ends[0, 1])
    inputs = np.abs(ends - found[:, None]).mean(0)
    trainings = float(t.ppf(0.975, n - 1)) * found.std(ddof=1) / np.sqrt(n)
    below, above = np.hypot(inputs, trainings).tolist()
    return mean, mean - below, mean + above
