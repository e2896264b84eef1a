"""Intervals that are missing: how they are told from others, here and in what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
