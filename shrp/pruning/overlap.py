"""How far several prunings keep the same experts, compared with chance.

The overlap is the Jaccard index; over several layers, of sets of (layer, expert) pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from shrp.pruning.plan import PruningPlan

Kept = Mapping[int, Collection[int]]
"""Layer -> experts."""


def jaccard(a: Collection[object], b: Collection[object]) -> float:
    """Jaccard index of two sets, 0 to 1; nan if both are empty."""
    first, second = set(a), set(b)
    together = len(first | second)
    return len(first & second) / together if together else float("nan")


def chance_jaccard(sizes: Sequence[tuple[int, int]], num_experts: int) -> float:
    """Exact mean Jaccard index of random sets.

    Args:
        sizes: of the two sets in each layer.
        num_experts: `H`, experts a layer.
    """
    shared = np.ones(1)  # distribution of how many pairs both keep, layer by layer
    for a, b in sizes:
        shared = np.convolve(shared, hypergeom.pmf(np.arange(min(a, b) + 1), num_experts, a, b))
    kept = sum(a + b for a, b in sizes)
    if not kept:
        return float("nan")
    both = np.arange(len(shared))
    return float((shared * both / (kept - both)).sum())


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Total variation distance of distributions `(..., H)`, 0 to 1; `(...)`."""
    return np.abs(p - q).sum(-1) / 2


def used_experts(plan: PruningPlan) -> dict[int, list[int]]:
    """Layer -> the kept experts of a weight above 0; others add nothing."""
    return {
        layer: [e for e, weight in zip(kept.experts, kept.weights, strict=True) if weight > 0]
        for layer, kept in plan.layers
    }


def kept_alike(a: PruningPlan, b: PruningPlan, num_experts: int) -> pd.DataFrame:
    """What two plans both keep, in the layers that both prune; experts of weight 0 don't count.

    Returns:
        Columns layer (text), a, b, both (numbers of experts), jaccard, chance (of random sets of these sizes), distance (total
        variation of the weights); one row a layer, and `all`.
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
    """How much of a routed model's usage falls on the experts that a plan keeps.

    Args:
        usage: layer -> Top-1 shares `(H,)`.

    Returns:
        Columns layer, kept (experts of a weight above 0), covered (their share of the choices), even (the same under even
        use), distance (total variation of weights and shares); one row a layer that both have.
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
