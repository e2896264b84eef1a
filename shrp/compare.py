"""How differently two models use their experts on the same data, or which they keep, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from shrp.errors import DataError
from shrp.metrics import at_once
from shrp.plan import PruningPlan
from shrp.stability import chance_jaccard, jaccard, used_experts
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


def kept_alike(a: PruningPlan, b: PruningPlan, num_experts: int) -> pd.DataFrame:
    """What two plans both keep, in the layers that both prune; experts of weight 0 don't count, as they add nothing.

    Returns:
        Columns layer (text), a, b, both (how many experts), jaccard, chance (the same of random sets of these sizes),
        distance (total variation of the weights; nan in the last row); one row a layer, ascending, and `all`.
    """
    ours, theirs = used_experts(a), used_experts(b)
    weights = [plan.gates(num_experts) for plan in (a, b)]
    rows = []
    for layer in sorted(ours.keys() & theirs.keys()):
        mine, other = set(ours[layer]), set(theirs[layer])
        chance = chance_jaccard([(len(mine), len(other))], num_experts)
        apart = float(total_variation(*(np.asarray(one[layer]) for one in weights)))
        rows.append(
            (str(layer), len(mine), len(other), len(mine & other), jaccard(mine, other), chance, apart)
        )
    frame = pd.DataFrame(rows, columns=["layer", "a", "b", "both", "jaccard", "chance", "distance"])
    sizes = list(zip(frame["a"], frame["b"], strict=True))
    total = frame[["a", "b", "both"]].sum()
    union = total["a"] + total["b"] - total["both"]
    row = [
        "all",
        *total,
        total["both"] / union if union else np.nan,
        chance_jaccard(sizes, num_experts),
        np.nan,
    ]
    frame.loc[len(frame)] = row
    return frame


def covered(usage: Mapping[int, np.ndarray], plan: PruningPlan) -> pd.DataFrame:
    """How much of a routed model's usage falls on the experts that a plan keeps, in the layers that both have.

    Args:
        usage: layer -> Top-1 shares `(H,)`.

    Returns:
        Columns layer, kept (experts of a weight above 0), covered (their share of the choices), even (the same if all
        experts were used alike), distance (total variation of weights and shares); one row a layer, ascending.
    """
    rows, kept = [], used_experts(plan)
    for layer in sorted(kept.keys() & usage.keys()):
        share = np.asarray(usage[layer], dtype=float)
        weights = np.asarray(plan.gates(len(share))[layer])
        rows.append(
            (
                layer,
                len(kept[layer]),
                share[kept[layer]].sum(),
                len(kept[layer]) / len(share),
                float(total_variation(weights, share)),
            )
        )
    return pd.DataFrame(rows, columns=["layer", "kept", "covered", "even", "distance"])


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
