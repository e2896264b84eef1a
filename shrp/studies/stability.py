"""How far the prunings of several seeds keep the same experts, and what chance alone would make them share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from shrp.errors import PlanError
from shrp.pruning.overlap import chance_jaccard, jaccard

Kept = Mapping[int, Collection[int]]
"""Layer -> experts."""


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
