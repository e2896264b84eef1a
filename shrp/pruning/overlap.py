"""How far prunings keep the same experts: the Jaccard index of sets of (layer, expert) pairs, compared with chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from shrp.pruning.plan import PruningPlan


def chance_jaccard(sizes: Sequence[tuple[int, int]], num_experts: int) -> float:
    """Exact mean Jaccard index of random sets of these two sizes in each layer of `num_experts` experts."""
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
    """Layer -> the kept experts of a weight above 0."""
    return {
        layer: [e for e, weight in zip(kept.experts, kept.weights, strict=True) if weight > 0]
        for layer, kept in plan.layers
    }


def kept_alike(a: PruningPlan, b: PruningPlan, num_experts: int) -> pd.DataFrame:
    """The experts that two plans both keep, in the layers that both prune; those of weight 0 don't count.

    Returns:
        Columns layer (text), a, b, both (numbers of experts), jaccard, chance (of random sets of these sizes), distance (total
        variation of the weights); one row a layer, and `all`.
    """
    ours, theirs = used_experts(a), used_experts(b)
    weights = [plan.gates(num_experts) for plan in (a, b)]
    rows = []
    for layer in sorted(ours.keys() & theirs.keys()):
        mine, other = len(ours[layer]), len(theirs[layer])
        apart = float(total_variation(*(np.asarray(one[layer]) for one in weights)))
        shared = len({*ours[layer]} & {*theirs[layer]})
        rows.append((str(layer), mine, other, shared, chance_jaccard([(mine, other)], num_experts), apart))
    frame = pd.DataFrame(rows, columns=["layer", "a", "b", "both", "chance", "distance"])
    sizes = list(zip(frame["a"], frame["b"], strict=True))
    total = frame[["a", "b", "both"]].sum()
    frame.loc[len(frame)] = ["all", *total, chance_jaccard(sizes, num_experts), np.nan]
    union = frame["a"] + frame["b"] - frame["both"]
    frame.insert(4, "jaccard", (frame["both"] / union.where(union > 0)).astype(float))
    return frame
