"""Whether what inputs have differs between their groups by more than chance: a permutation test of many values at once.

Shapes: `n` inputs, `E` values of each, `G` groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from shrp.evaluation.mixes import FALSE_DISCOVERIES
from shrp.evaluation.permutation import Dealer

DEALS, MANY = 5000, 5000
"""Random deals of the inputs to the groups; of more inputs than `MANY` fewer, down to a fifth. More where there is more
to test, so that one could be told of all, up to `MOST_DEALS`: beyond, several must be as sure."""
MOST_DEALS = 20_000
_ROUNDING = 1e-9
"""Means that differ by less, and spreads that are smaller, are none."""


def apart_from_others(
    values: np.ndarray,
    codes: np.ndarray,
    pairs: np.ndarray,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """How often chance makes the mean within a group as unlike the mean of all other inputs as it is found to be.

    The inputs are dealt to the groups anew, both of a minimal pair as one. What is compared is Welch's t, not the plain
    difference: where a group has most of what is not 0, and so most of the spread, dealing would spread it over all and
    take a difference by chance for a real one (Janssen 1997).

    Args:
        values: `(n, E)`.
        codes: each input's group, int64 `(n,)`; every one from 0 to G - 1 has an input.
        pairs: rows of minimal pairs `(P, 2)`.
        progress: called with deals done and in all.

    Returns:
        Two-sided p of each group and value, `(G, E)`; nan of a single group.
    """
    from scipy.sparse import csr_array

    n, count = len(values), int(codes.max()) + 1
    if count < 2:
        return np.full((count, values.shape[1]), np.nan)
    sizes = np.bincount(codes)[:, None]
    both = np.concatenate([values, values**2], axis=1)
    whole = both.sum(0)

    def apart(dealt: np.ndarray) -> np.ndarray:
        """Welch's t, its size, of each group against all other inputs: `(B, G, E)`."""
        sums = _sums(csr_array, dealt, both, count)
        sides = [np.split(part, 2, axis=-1) for part in (sums, whole - sums)]
        means = [total / m for (total, _), m in zip(sides, (sizes, n - sizes), strict=True)]
        spread = sum(
            np.maximum(squares - m * mean**2, 0.0) / (np.maximum(m - 1, 1) * m)
            for (_, squares), mean, m in zip(sides, means, (sizes, n - sizes), strict=True)
        )
        difference = np.abs(means[0] - means[1])
        difference[difference < _ROUNDING] = 0.0
        certain = np.where(difference > 0, np.inf, 0.0)
        return np.divide(difference, np.sqrt(spread), out=certain, where=spread > _ROUNDING**2)

    found = apart(codes[None])[0]
    reached = np.ones_like(found)  # the deal that was found is one of them
    least = max(DEALS // 5, math.ceil(2 * found.size / FALSE_DISCOVERIES))
    deals, done = min(MOST_DEALS, max(least, round(DEALS * min(1, MANY / n)))), 0
    dealer = Dealer(codes, pairs, np.zeros(n))
    for orders in dealer.dealt_values(np.arange(n), deals, np.random.default_rng(seed)):
        dealt = np.empty_like(orders)  # each input gets the group of the place that it comes to
        np.put_along_axis(dealt, orders, np.broadcast_to(codes, orders.shape), 1)
        reached += (apart(dealt) >= found * (1 - 1e-9)).sum(0)
        done += len(orders)
        if progress:
            progress(done, deals)
    return reached / (deals + 1)


def _sums(sparse: type, codes: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of the values over each group, for several ways `(B, n)` of dealing them: `(B, G, E)`."""
    times, n = codes.shape
    rows = (codes + count * np.arange(times)[:, None]).ravel()
    columns = np.tile(np.arange(n), times)
    members = sparse((np.ones(times * n), (rows, columns)), shape=(times * count, n))
    return (members @ values).reshape(times, count, -1)
