"""How differently two routed models use their experts on the same data, layer by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from shrp.errors import DataError
from shrp.metrics import at_once
from shrp.usage import UsageStats


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Total-variation distance of distributions `(..., H)`: the share that would have to move, 0 to 1; `(...)`."""
    return np.abs(p - q).sum(-1) / 2


def usage_distances(a: UsageStats, b: UsageStats, *, resamples: int = 500, seed: int = 0) -> pd.DataFrame:
    """Distances of the Top-1 shares of two models in every layer that both route.

    Expert `h` starts out as head `h` of the dense layer, so a number names the same thing in both models only where
    they were converted from the same base. `renumbered` holds whatever the numbers mean: it is the least distance
    that any renumbering of one model's experts leaves, which sorting both models' shares gives.

    Args:
        resamples: draws of the bootstrap over inputs, the same inputs for both models; 0 leaves intervals out.
        seed: makes the intervals reproducible.

    Returns:
        Columns layer, distance, low, high (95% percentile interval), renumbered; one row a layer, ascending, none
        where no layer is routed in both. A distance cannot be negative, so `low` above 0 alone shows no difference.

    Raises:
        DataError: the models have different numbers of experts, or were not measured on the same data.
    """
    if a.data != b.data or a.n != b.n:
        raise DataError(
            f"Usage on '{a.data}' (n = {a.n:,}) and on '{b.data}' (n = {b.n:,}) can't be compared; measure both models "
            "on the same data."
        )
    if a.num_experts != b.num_experts:
        raise DataError(
            f"{a.num_experts} and {b.num_experts} experts a layer have no distance; only layers with equally many do."
        )
    layers = sorted(set(a.layers) & set(b.layers))
    drawn = _resampled(a, b, layers, resamples, np.random.default_rng(seed))
    rows = []
    for i, layer in enumerate(layers):
        p, q = a.share(layer), b.share(layer)
        low, high = np.percentile(drawn[:, i], [2.5, 97.5]) if resamples else (np.nan, np.nan)
        rows.append((layer, total_variation(p, q), low, high, total_variation(np.sort(p), np.sort(q))))
    return pd.DataFrame(rows, columns=["layer", "distance", "low", "high", "renumbered"])


def _resampled(
    a: UsageStats, b: UsageStats, layers: list[int], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Distances in bootstrap samples of the inputs, `(resamples, L)`."""
    if not layers:
        return np.empty((resamples, 0))
    n, experts = a.n, a.num_experts
    counts = np.concatenate([s.top1[layer] for layer in layers for s in (a, b)], axis=1).astype(np.float64)
    found = []
    for size in at_once(resamples, n):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=size)
        sums = (weights @ counts).reshape(len(weights), len(layers), 2, experts)
        shares = sums / sums.sum(-1, keepdims=True)
        found.append(total_variation(shares[:, :, 0], shares[:, :, 1]))
    return np.concatenate(found) if found else np.empty((0, len(layers)))
