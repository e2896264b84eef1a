"""Rank correlation of a few values, with a p-value that holds for few: of the values' orders, not of a curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import permutation_test, rankdata, spearmanr

ORDERS = 9999
"""Orders that are tried: all of them up to seven values, else so many drawn ones, so no p is below 2 in 10,000."""
MANY = 30
"""Of more values than this Student's t says the same."""


def spearman(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Spearman's correlation and its two-sided p-value, by permutation.

    Student's t, by which it usually is, and of more than `MANY` values is here too, says p = 0 of any three values in
    the same order, where one order of six is as they are.

    Args:
        x: `(n,)`.
        y: `(n,)`.

    Returns:
        nan and nan for fewer than three values, or where one side is constant.
    """
    a, b = (rankdata(values) - (np.size(values) + 1) / 2 for values in (x, y))
    size = np.sqrt((a @ a) * (b @ b))
    if len(a) < 3 or size == 0:
        return np.nan, np.nan
    if len(a) > MANY:
        known = spearmanr(x, y)
        return float(known.statistic), float(known.pvalue)
    found = permutation_test(
        (a,),
        lambda ranks, axis: (ranks * b).sum(axis) / size,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=ORDERS,
        rng=np.random.default_rng(0),
    )
    return float(found.statistic), float(found.pvalue)
