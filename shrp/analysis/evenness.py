"""How far from even a layer's usage is, beside what counting a finite number of inputs alone would make of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from shrp.errors import DataError


def distance_from_uniform(share: Sequence[float] | np.ndarray) -> float:
    """Total variation between shares `(H,)` and even ones: the part of all inputs that would have to move.

    0 where all experts are used alike, `1 - 1/H` where one takes everything.

    Raises:
        DataError: there are no shares, or they do not sum to 1.
    """
    share = np.asarray(share, dtype=np.float64)
    if not len(share) or not np.isclose(share.sum(), 1, atol=1e-3):
        raise DataError(f"shares of experts sum to 1; these {len(share)} sum to {share.sum():.4f}.")
    return float(0.5 * np.abs(share - 1 / len(share)).sum())


def even_distance(n: int, num_experts: int) -> float:
    """Mean of `distance_from_uniform` over `n` inputs that pick their experts evenly, independently, at random.

    Usage counted on `n` inputs is not even to the last digit though the router may be: this is the floor.

    Raises:
        DataError: a number is below 1.
    """
    if n < 1 or num_experts < 1:
        raise DataError(f"there must be at least one input and one expert, not {n} and {num_experts}.")
    counts = np.arange(n + 1)
    deviation = (binom.pmf(counts, n, 1 / num_experts) * np.abs(counts - n / num_experts)).sum()
    return float(0.5 * num_experts * deviation / n)


def even_experts(n: int, num_experts: int) -> float:
    """`effective_experts` that is measured, by its mean entropy, on `n` inputs that pick their experts evenly,
    independently, at random: counting few of them makes usage look more specialised than it is.

    Raises:
        DataError: a number is below 1.
    """
    if n < 1 or num_experts < 1:
        raise DataError(f"there must be at least one input and one expert, not {n} and {num_experts}.")
    counts = np.arange(1, n + 1)
    each = binom.pmf(counts, n, 1 / num_experts) * counts / n * np.log(counts / n)
    return float(np.exp(-num_experts * each.sum()))


def entropy(share: Sequence[float] | np.ndarray) -> float:
    """Entropy of shares `(H,)` in nats, 0 to `log H`; nan where they are, as of no inputs."""
    share = np.asarray(share, dtype=np.float64)
    if np.isnan(share).any():
        return float("nan")
    share = share[share > 0]
    return float(max(0.0, -(share * np.log(share)).sum()))


def effective_experts(share: Sequence[float] | np.ndarray) -> float:
    """`exp(entropy)` of shares `(H,)`: evenly used experts of the same entropy, 1 to `H`; nan likewise."""
    return float(np.exp(entropy(share)))
