"""Intervals, the bootstrap and permutation tests.

All intervals are 95% intervals; `(nan, nan)` stands for none. Shapes: `N` examples, `P` minimal pairs. Both examples of
a minimal pair are one unit: they are resampled and permuted together (`shrp.data.text_data.units_of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from shrp.data.text_data import units_of
from shrp.progress import Progress, silent

NO_INTERVAL = (float("nan"), float("nan"))
NO_WIDTH = 1e-9
"""Ends of an interval closer than this differ by rounding alone."""
FALSE_DISCOVERIES = 0.05
"""Expected share of false positives among the groups reported as different."""
PERMUTATIONS, MANY = 5000, 5000
"""Permutations of a group test: fewer above `MANY` examples (down to a fifth), more where many values are tested."""
MOST_PERMUTATIONS = 20_000
MIX_PERMUTATIONS = 2000
"""Permutations of `mix_frame`."""
NEIGHBOURS = 8
"""Examples of similar length among which groups are permuted while length is held fixed."""
_Z = NormalDist().inv_cdf(0.975)
_CELLS = 2_000_000  # numbers that a block of resamples holds at once: 16 MB
_ROUNDING = 1e-9


# Intervals


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, or of a mean in [0, 1]; `n` and `successes` may be fractions.

    As `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, which takes whole numbers only.
    """
    if n == 0:
        return NO_INTERVAL
    z = _Z
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else float(centre - half)  # Exactly so in theory; rounding would miss it.
    high = 1.0 if successes == n else float(centre + half)
    return low, high


def share_interval(hits: np.ndarray, units: np.ndarray, of: np.ndarray | None = None) -> tuple[float, float]:
    """Wilson's interval of the share of examples, or of their tokens, that are hits, for dependent examples.

    The sample size is the effective one (Kish 1965), estimated from the variance of the units' totals, at most `N`, and
    corrected by Student's t for few units. If all or none are hits, it is the number of units.

    Args:
        hits: bool `(N,)`; with `of`, the hits among each example's tokens.
        units: unit of each example, `(N,)`.
        of: tokens of each example, `(N,)`, one unit each.
    """
    of = np.ones(len(hits), dtype=int) if of is None else of
    n = int(of.sum())
    if n == 0:
        return NO_INTERVAL
    _, unit = np.unique(units[of > 0], return_inverse=True)
    hits, of = hits[of > 0], of[of > 0]
    size = np.bincount(unit, of)
    if len(size) == n:
        return wilson(int(hits.sum()), n)
    share, effective = hits.sum() / n, float(len(size))
    if 0 < share < 1 and len(size) > 1:
        residual = np.bincount(unit, hits) - share * size
        variance = len(size) / (len(size) - 1) * (residual**2).sum() / n
        effective = min(n, n * share * (1 - share) / max(variance, 1e-12))
        effective = max(1.0, effective * (_Z / stdtrit(len(size) - 1, 0.975)) ** 2)
    return wilson(share * effective, effective)


def of_mean(values: np.ndarray, units: np.ndarray | None = None) -> tuple[float, float]:
    """Student's t interval of the mean of `(N,)` values; none for fewer than two units or where all values are equal.

    `units`, `(N,)`, says which values are one unit; None makes each its own.
    """
    if not len(values):
        return NO_INTERVAL
    apart = values - (mean := values.mean())
    if units is not None:
        apart = np.bincount(np.unique(units, return_inverse=True)[1], apart)
    n = len(apart)
    if n < 2:
        return NO_INTERVAL
    half = stdtrit(n - 1, 0.975) * np.sqrt(n / (n - 1) * (apart**2).sum()) / len(values)
    return (float(mean - half), float(mean + half)) if half > NO_WIDTH else NO_INTERVAL


def paired_interval(differences: np.ndarray) -> tuple[float, float]:
    """Interval of the mean of differences `(N,)` in [-1, 1], such as of correctness (Agresti and Min 2005).

    Unlike the bootstrap it holds for few examples, and where no prediction changes. Half an example is added to each of
    the four cells.
    """
    n = len(differences)
    if n == 0:
        return NO_INTERVAL
    total, squares = float(np.sum(differences)), float(np.sum(np.square(differences)))
    centre = total / (n + 2)
    half = _Z * np.sqrt(squares + 1 - total**2 / (n + 2)) / (n + 2)
    return max(-1.0, float(centre - half)), min(1.0, float(centre + half))


def stored_interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """The `interval` of a stored row. Older rows have bootstrap intervals without a width, which count as none."""
    low, high = row.get("interval") or NO_INTERVAL
    if low is None or high is None:
        return NO_INTERVAL
    flat = abs(high - low) <= NO_WIDTH and (row.get("interval_is") or "95%").startswith("95%")
    return NO_INTERVAL if flat else (float(low), float(high))


# The bootstrap


def at_once(resamples: int, n: int) -> Iterator[int]:
    """Sizes of the blocks in which to draw `resamples` samples of `n` numbers, bounded in memory."""
    most = max(1, _CELLS // max(n, 1))
    yield from (min(most, resamples - start) for start in range(0, resamples, most))


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    of: int | np.ndarray,
    *,
    resamples: int = 1000,
) -> np.ndarray:
    """A statistic of bootstrap samples, `(resamples, ...)`.

    Args:
        statistic: maps samples `(b, ...)` to a value or an array of values for each: `(b, ...)`.
        of: the number of examples `N`: a sample is `N` row numbers, `(b, N)`. Or the counts of interchangeable examples
            `(cells,)`, such as a flat confusion matrix: a sample is new counts, `(b, cells)`.
    """
    generator, found = np.random.default_rng(0), []
    by_row, n = np.ndim(of) == 0, int(np.sum(of))
    for size in at_once(resamples, n if by_row else len(of)):
        rows = generator.integers(n, size=(size, n)) if by_row else None
        found.append(statistic(generator.multinomial(n, of / n, size=size) if rows is None else rows))
    return np.concatenate(found)


def of_draws(draws: np.ndarray) -> tuple[float, float]:
    """The percentile interval of bootstrap draws `(b,)`, without those that are nan.

    None if all draws are equal: a few equal predictions are no evidence of certainty.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return NO_INTERVAL
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return (low, high) if high - low > NO_WIDTH else NO_INTERVAL


# Tests


def permutations(
    codes: np.ndarray,
    pairs: np.ndarray,
    times: int,
    generator: np.random.Generator,
    *,
    length: np.ndarray | None = None,
    near: bool = False,
    block: int = 100,
) -> Iterator[np.ndarray]:
    """Random orders of examples for a permutation test: example `i` receives what example `order[i]` had.

    A minimal pair moves as one, in exchange for another pair; if its two examples are in different groups, they may swap.

    Args:
        codes: group of each example, `(N,)`.
        pairs: minimal pairs `(P, 2)`.
        length: of each example, equal within a pair, `(N,)`.
        near: permute only among `NEIGHBOURS` examples of similar length.

    Yields:
        int64 `(B, N)`, `times` rows in all.
    """
    apart = codes[pairs[:, 0]] != codes[pairs[:, 1]]
    swapping = pairs[apart]
    parts = [pairs[~apart], np.setdiff1d(np.arange(len(codes)), pairs)[:, None]]
    if length is not None:
        parts = [part[np.argsort(length[part[:, 0]], kind="stable")] for part in parts]
    ends = np.cumsum([0, *map(len, parts), len(swapping)])
    for start in range(0, times, block):
        size = min(block, times - start)
        orders = np.tile(np.arange(len(codes)), (size, 1))
        drawn = generator.random((size, ends[-1]))
        for part, first, last in zip(parts, ends, ends[1:], strict=False):
            stratum = np.arange(len(part)) // NEIGHBOURS if near else 0
            orders[:, part] = part[np.argsort(drawn[:, first:last] + stratum, axis=1)]  # drawn is below 1
        swap = drawn[:, ends[-2] :, None] < 0.5
        orders[:, swapping] = np.where(swap, swapping[:, ::-1], swapping)
        yield orders


def apart_from_others(
    values: np.ndarray,
    codes: np.ndarray,
    pairs: np.ndarray,
    *,
    progress: Progress = silent,
) -> np.ndarray:
    """Permutation test of whether the mean within each group differs from the mean of all other examples.

    The statistic is Welch's t, not the plain difference, as groups may differ in variance (Janssen 1997).

    Args:
        values: `(N, E)`.
        codes: group of each example, int64 `(N,)`; every group from 0 to G - 1 has an example.
        pairs: minimal pairs `(P, 2)`.

    Returns:
        Two-sided p-values `(G, E)`; nan for a single group.
    """
    from scipy.sparse import csr_array

    n, count = len(values), int(codes.max()) + 1
    if count < 2:
        return np.full((count, values.shape[1]), np.nan)
    sizes = np.bincount(codes)[:, None]
    both = np.concatenate([values, values**2], axis=1)
    whole = both.sum(0)

    def welch(permuted: np.ndarray) -> np.ndarray:
        """Absolute t of each group against all other examples, `(B, G, E)`, for codes `(B, N)`."""
        rows = (permuted + count * np.arange(len(permuted))[:, None]).ravel()
        members = csr_array(
            (np.ones(rows.size), (rows, np.tile(np.arange(n), len(permuted)))),
            shape=(len(permuted) * count, n),
        )
        sums = (members @ both).reshape(len(permuted), count, -1)
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

    found = welch(codes[None])[0]
    reached = np.ones_like(found)  # the observed order is one of them
    least = max(PERMUTATIONS // 5, math.ceil(2 * found.size / FALSE_DISCOVERIES))
    times, done = min(MOST_PERMUTATIONS, max(least, round(PERMUTATIONS * min(1, MANY / n)))), 0
    for orders in permutations(codes, pairs, times, np.random.default_rng(0)):
        reached += (welch(codes[orders]) >= found * (1 - 1e-9)).sum(0)
        done += len(orders)
        progress(done, times)
    return reached / (times + 1)


def mix_frame(
    mine: np.ndarray,
    everything: np.ndarray,
    groups: Mapping[str, np.ndarray],
    *,
    pairs: np.ndarray | None = None,
) -> pd.DataFrame:
    """How an expert's examples (or tokens) split over groups, compared with all of them.

    Fisher's exact test where examples are independent; else (tokens, minimal pairs) a permutation test of examples.

    Args:
        mine: `(N,)`: how much of each example was routed to the expert.
        everything: `(N,)`: how much of it was routed at all.
        groups: name -> mask `(N,)`; each example is in one group.
        pairs: minimal pairs `(P, 2)`.

    Returns:
        Columns group, count (of the expert's), here (its share of the expert's), low, high (interval of the share), n
        (of all), base, lift, p (two-sided, against all other experts) and q (Benjamini and Hochberg 1995).
    """
    from scipy.stats import false_discovery_control, fisher_exact

    total, whole = int(mine.sum()), int(everything.sum())
    tested, by_token = 0 < total < whole, len(everything) > 0 and everything.max() > 1
    pairs = np.empty((0, 2), dtype=int) if pairs is None else pairs
    permuted, units = by_token or len(pairs) > 0, units_of(len(mine), pairs)
    rows = []
    for name, mask in groups.items():
        count, n = int(mine[mask].sum()), int(everything[mask].sum())
        low, high = share_interval(mine * mask, units, mine) if tested else NO_INTERVAL
        table = [[count, total - count], [n - count, whole - total - (n - count)]]
        p = float(fisher_exact(table).pvalue) if tested and not permuted else np.nan
        rows.append((name, count, count / max(total, 1), low, high, n, n / max(whole, 1), p))
    frame = pd.DataFrame(rows, columns=["group", "count", "here", "low", "high", "n", "base", "p"])
    if tested and permuted:
        codes = np.argmax(np.stack(list(groups.values())), axis=0)
        members, beyond = np.eye(len(groups))[codes], mine - everything * (total / whole)
        orders = permutations(codes, pairs, MIX_PERMUTATIONS, np.random.default_rng(0))
        drawn = np.concatenate([beyond[order] @ members for order in orders])  # (permutations, G)
        far = np.abs(drawn - drawn.mean(0)) >= np.abs(beyond @ members - drawn.mean(0)) - _ROUNDING
        frame["p"] = (1 + far.sum(0)) / (1 + MIX_PERMUTATIONS)
    lift = frame["here"] / frame["base"].where(frame["base"] > 0)
    q = false_discovery_control(frame["p"]) if tested and len(frame) else np.nan
    columns = ["group", "count", "here", "low", "high", "n", "base", "lift", "p", "q"]
    return frame.assign(lift=lift, q=q)[columns]


def differing(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Groups of a `mix_frame` that an expert receives significantly more, and less, often; largest difference first."""
    sure = frame[frame["q"] <= FALSE_DISCOVERIES]
    difference = sure["here"] - sure["base"]
    ordered = sure.iloc[np.argsort(-difference.abs().to_numpy(), kind="stable")]
    more = ordered["here"] > ordered["base"]
    return ordered.loc[more, "group"].tolist(), ordered.loc[~more, "group"].tolist()
