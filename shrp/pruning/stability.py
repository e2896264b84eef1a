"""How far several prunings keep the same experts, beside what chance alone would make them share.

The overlap of two sets is their Jaccard index: what both keep, over what either keeps. Over several layers together
the sets are of (layer, expert) pairs, so that a layer counts by what it keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from shrp.errors import PlanError
from shrp.pruning.plan import PruningPlan

Kept = Mapping[int, Collection[int]]
"""Layer -> experts."""


def jaccard(a: Collection[object], b: Collection[object]) -> float:
    """What two sets share over what they hold together, 0 to 1; nan where both are empty."""
    first, second = set(a), set(b)
    together = len(first | second)
    return len(first & second) / together if together else float("nan")


def chance_jaccard(sizes: Sequence[tuple[int, int]], num_experts: int) -> float:
    """Exact mean Jaccard index of random sets.

    Args:
        sizes: for each layer how many experts the one and the other set keep, each drawn evenly from all.
        num_experts: `H`, experts a layer.

    Raises:
        PlanError: a size is below 0 or above `H`.
    """
    if any(not 0 <= size <= num_experts for pair in sizes for size in pair):
        raise PlanError(f"a layer of {num_experts} experts keeps 0 to {num_experts}, not {list(sizes)}.")
    shared = np.ones(1)  # distribution of how many pairs both keep, layer by layer
    for a, b in sizes:
        shared = np.convolve(shared, hypergeom.pmf(np.arange(min(a, b) + 1), num_experts, a, b))
    kept = sum(a + b for a, b in sizes)
    if not kept:
        return float("nan")
    both = np.arange(len(shared))
    return float((shared * both / (kept - both)).sum())


def used_experts(plan: PruningPlan) -> dict[int, list[int]]:
    """Layer -> the kept experts of a weight above 0.

    Experts that nothing was routed to add nothing, and which of them a plan names is only their order: counted as
    kept, they would make any two plans alike.
    """
    return {
        layer: [e for e, weight in zip(kept.experts, kept.weights, strict=True) if weight > 0]
        for layer, kept in plan.layers
    }


def overlaps(sets: Sequence[Kept], num_experts: int) -> pd.DataFrame:
    """Pairwise overlap of kept sets, for each layer and for all together.

    Args:
        sets: of the same layers, two or more (one a seed).
        num_experts: `H`, experts a layer.

    Returns:
        One row a layer and a last one, `all`: `layer` (text), `pairs`, `overlap` (mean over pairs), `low` and `high`
        (their range), `chance` (mean over pairs of what random sets of these sizes share). Empty for fewer than two.

    Raises:
        PlanError: the sets are of different layers.
    """
    if len(sets) < 2:
        return pd.DataFrame(columns=["layer", "pairs", "overlap", "low", "high", "chance"])
    layers = sorted(sets[0])
    if any(sorted(each) != layers for each in sets):
        raise PlanError("kept sets compare only where they are of the same layers.")
    pairs = list(combinations(sets, 2))
    rows = []
    for name, part in [*((str(layer), [layer]) for layer in layers), ("all", layers)]:
        found = [
            jaccard([(x, e) for x in part for e in a[x]], [(x, e) for x in part for e in b[x]])
            for a, b in pairs
        ]
        chance = [chance_jaccard([(len(a[x]), len(b[x])) for x in part], num_experts) for a, b in pairs]
        rows.append((name, len(pairs), np.mean(found), min(found), max(found), np.mean(chance)))
    return pd.DataFrame(rows, columns=["layer", "pairs", "overlap", "low", "high", "chance"])
