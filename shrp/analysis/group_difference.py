"""By how much one group of inputs uses each expert more than another, with intervals.

Shapes: `L` routed layers, `H` experts, `N` inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from shrp.analysis.usage import UsageStats
from shrp.evaluation.intervals import NO_WIDTH
from shrp.evaluation.metrics import at_once
from shrp.evaluation.minimal_pairs import units_of

FEWEST = 5
"""A difference of Top-1 shares has an interval where, by the share in both groups together, at least so many inputs of
the smaller group are to be expected to choose the expert, and as many not to: of fewer the bootstrap is too sure. Both
inputs of a minimal pair count as one."""
SMALLEST = 40
"""A difference of mean probabilities has an interval where both groups have at least so many inputs, likewise."""


def usage_difference(
    stats: UsageStats,
    group: np.ndarray,
    other: np.ndarray,
    measure: Literal["share", "mean_probs"] = "share",
    *,
    pairs: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The group's usage less the other's, expert by expert.

    An interval leaves 0 out by chance about once in 20 times, for groups of any size that has one (a test draws them).
    But they are not independent: a share that one expert has more another has less, and layers route alike. So by
    chance there may be none that does, or many at once.

    Args:
        group, other: masks `(N,)`; they may overlap, as a class does with all inputs.
        measure: Top-1 shares, or mean router probabilities.
        pairs: rows of minimal pairs `(P, 2)`, which are drawn as one: they route much alike.
        resamples: draws of the bootstrap over all inputs, the same ones for all experts. Tokens of one input are not
            independent, so under token routing too it is inputs that are drawn.
        seed: makes the intervals reproducible.
        progress: called with the draws done and all of them.

    Returns:
        Differences `(L, H)`, nan where a group is empty, and their 95% percentile intervals `(L, H, 2)`, nan where
        there is none: by `FEWEST` and `SMALLEST`, and where all draws are alike. Then how many of these would leave 0
        out by chance, were there no differences at all: a count a draw that misses neither group, of differences more
        than 1.96 standard deviations from their mean over the draws.
    """
    of = stats.share if measure == "share" else stats.mean_probs
    values = np.stack([of(layer, group) - of(layer, other) for layer in stats.layers])
    shape = values.shape
    ends = np.full((*shape, 2), np.nan)
    if not (group.any() and other.any()):
        return values, ends, np.empty(0)
    each = stats.top1 if measure == "share" else stats.probs
    table = np.concatenate([each[layer] for layer in stats.layers], axis=1).astype(np.float64)  # (N, L * H)
    weight = stats.top1[stats.layers[0]].sum(1) if measure == "share" else np.ones(stats.n)  # (N,)
    weight = weight.astype(np.float64)
    units = units_of(stats.n, pairs)
    drawn = _draws(table, weight, group, other, units, resamples, np.random.default_rng(seed), progress)
    smaller = min(len(np.unique(units[mask])) for mask in (group, other))
    known = np.full(shape, smaller >= SMALLEST)
    if measure == "share":
        share = np.stack([stats.share(layer, group | other) for layer in stats.layers])
        known = np.minimum(share, 1 - share) * smaller >= FEWEST - NO_WIDTH
    if not len(drawn):
        return values, ends, np.empty(0)
    found = np.moveaxis(np.percentile(drawn, [2.5, 97.5], axis=0), 0, -1).reshape(*shape, 2)
    known &= found[..., 1] - found[..., 0] > NO_WIDTH
    ends[known] = found[known]
    drawn = drawn[:, known.ravel()]
    return values, ends, (np.abs(drawn - drawn.mean(0)) > 1.96 * drawn.std(0)).sum(1)


def _draws(
    table: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    other: np.ndarray,
    units: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Differences in bootstrap samples of the units, but for those that miss a group; `(resamples, L * H)`."""
    n, found, done = int(units.max()) + 1, [], 0
    for size in at_once(resamples, len(table)):
        times = generator.multinomial(n, np.full(n, 1 / n), size=size)[:, units]
        totals = [times[:, mask] @ weight[mask] for mask in (group, other)]
        both = (totals[0] > 0) & (totals[1] > 0)
        means = [
            (times[:, mask] @ table[mask])[both] / total[both, None]
            for mask, total in zip((group, other), totals, strict=True)
        ]
        found.append(means[0] - means[1])
        done += size
        if progress is not None:
            progress(done, resamples)
    return np.concatenate(found) if found else np.empty((0, table.shape[1]))
