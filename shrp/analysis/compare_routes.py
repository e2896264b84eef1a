"""How differently two models use their experts on the same data, or which they keep, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from shrp.analysis.usage import UsageStats
from shrp.errors import DataError
from shrp.evaluation.metrics import at_once
from shrp.evaluation.minimal_pairs import units_of
from shrp.pruning.plan import PruningPlan
from shrp.pruning.stability import chance_jaccard, jaccard, used_experts


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Total-variation distance of distributions `(..., H)`: the share that would have to move, 0 to 1; `(...)`."""
    return np.abs(p - q).sum(-1) / 2


def usage_distances(
    a: UsageStats,
    b: UsageStats,
    *,
    pairs: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Distances of the Top-1 shares of two models in every layer that both route.

    Expert `h` starts out as head `h` of the dense layer, so a number names the same thing in both models only where
    they were converted from the same base. `renumbered` holds whatever the numbers mean: it is the least distance
    that any renumbering of one model's experts leaves, which sorting both models' shares gives.

    A distance can't be negative, so that of two models of the same usage is above 0 too. What chance makes of it is
    measured by exchanging the models: each input's two choices change sides, or not, at random.

    Args:
        pairs: rows of minimal pairs `(P, 2)`, of which both inputs change sides together.
        draws: how often sides are exchanged; 0 leaves chance out.
        seed: makes the draws reproducible.
        progress: called with the draws done and all of them.

    Returns:
        Columns layer, distance, chance (its mean over the draws), p (how often a draw's is as large) and q (p for all
        layers, after Benjamini and Hochberg 1995), renumbered; one row a layer, ascending, none where no layer is
        routed in both. chance, p and q are nan where one counts inputs and the other tokens, which can't change sides.

    Raises:
        DataError: the models have different numbers of experts, or were not measured on the same data.
    """
    from scipy.stats import false_discovery_control

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
    shares = [(a.share(layer), b.share(layer)) for layer in layers]
    found = np.array([total_variation(p, q) for p, q in shares])
    chance = p_values = q_values = np.full(len(layers), np.nan)
    if layers and draws and a.unit == b.unit:
        drawn = _exchanged(a, b, layers, units_of(a.n, pairs), draws, np.random.default_rng(seed), progress)
        chance = drawn.mean(0)
        p_values = (1 + (drawn >= found - 1e-12).sum(0)) / (1 + draws)
        q_values = false_discovery_control(p_values)
    least = [total_variation(np.sort(p), np.sort(q)) for p, q in shares]
    columns = {"layer": layers, "distance": found, "chance": chance, "p": p_values, "q": q_values}
    return pd.DataFrame(columns | {"renumbered": least})


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


def _exchanged(
    a: UsageStats,
    b: UsageStats,
    layers: list[int],
    units: np.ndarray,
    draws: int,
    generator: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Distances where the choices of each unit change sides at random, `(draws, L)`."""
    ours, theirs = (
        np.concatenate([one.top1[layer] for layer in layers], axis=1).astype(np.float64) for one in (a, b)
    )
    found, done = [], 0
    for size in at_once(draws, a.n):
        change = (generator.random((size, int(units.max()) + 1)) < 0.5)[:, units].astype(np.float64)
        moved = (change @ (theirs - ours)).reshape(size, len(layers), -1)
        sides = [
            side.sum(0).reshape(len(layers), -1) + way * moved for side, way in ((ours, 1), (theirs, -1))
        ]
        p, q = (side / side.sum(-1, keepdims=True) for side in sides)
        found.append(total_variation(p, q))
        done += size
        if progress is not None:
            progress(done, draws)
    return np.concatenate(found)
