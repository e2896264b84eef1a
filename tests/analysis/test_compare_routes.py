"""Distances between two models' usage, by hand and on measured models."""

from itertools import permutations

import numpy as np
import pytest

from shrp.analysis.routes import usage_distances
from shrp.analysis.usage import UsageStats
from shrp.pruning.overlap import kept_alike, total_variation
from shrp.pruning.plan import LayerPlan, PruningPlan


def stats_of(data="made", unit="inputs", **top1):
    """Stats of layers given as `layer5=[[counts of each expert] for each input]`."""
    counts = {int(name.removeprefix("layer")): np.asarray(rows) for name, rows in top1.items()}
    probs = {layer: rows / rows.sum(1, keepdims=True) for layer, rows in counts.items()}
    margins = {layer: np.zeros(len(rows)) for layer, rows in counts.items()}
    return UsageStats(data, unit, counts, probs, margins, {})


def chosen(*experts, size=3):
    """One-hot rows: the expert of each input."""
    return np.eye(size, dtype=np.int64)[list(experts)]


def test_what_two_plans_both_keep_by_hand():
    a = PruningPlan(((1, LayerPlan((0, 1), (0.5, 0.5))), (2, LayerPlan((0, 3), (1.0, 0.0)))))
    b = PruningPlan(
        ((1, LayerPlan((1, 2), (0.5, 0.5))), (2, LayerPlan((0,), (1.0,))), (3, LayerPlan((1,), (1.0,))))
    )
    frame = kept_alike(a, b, 4)
    assert frame["layer"].tolist() == ["1", "2", "all"]  # of layer 3 there is one side only
    assert frame[["a", "b", "both"]].to_numpy().tolist() == [
        [2, 2, 1],
        [1, 1, 1],
        [3, 3, 2],
    ]  # weight 0 is none
    assert frame["jaccard"].tolist() == pytest.approx([1 / 3, 1, 0.5])
    # Two of four each: both, one or none in common in 1, 4 and 1 of 6 cases.
    assert frame.loc[0, "chance"] == pytest.approx(1 / 6 * 1 + 4 / 6 / 3)
    assert frame.loc[1, "chance"] == pytest.approx(1 / 4)
    assert frame["distance"].tolist() == pytest.approx([0.5, 0, float("nan")], nan_ok=True)


def test_the_sorted_distance_is_the_least_over_all_renumberings():
    rng = np.random.default_rng(0)
    a, b = (
        stats_of(layer1=chosen(*rng.choice(4, 60, p=p), size=4))
        for p in ([0.6, 0.2, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4])
    )
    least = min(total_variation(a.share(1), b.share(1)[list(order)]) for order in permutations(range(4)))
    found = usage_distances(a, b, draws=9).iloc[0]
    assert found["renumbered"] == pytest.approx(least)
    assert found["distance"] > least


def test_chance_is_what_exchanging_the_sides_makes():
    """Against a plain loop; the same choices on both sides are as far apart by chance as they are."""
    rng = np.random.default_rng(1)
    first, second = rng.choice(3, 80, p=[0.6, 0.3, 0.1]), rng.choice(3, 80)
    a, b = stats_of(layer1=chosen(*first)), stats_of(layer1=chosen(*second))
    found = usage_distances(a, b, draws=4000).iloc[0]
    loop = []
    for _ in range(4000):
        change = rng.random(80) < 0.5
        sides = np.where(change, second, first), np.where(change, first, second)
        p, q = (np.bincount(side, minlength=3) / 80 for side in sides)
        loop.append(total_variation(p, q))
    assert found["chance"] == pytest.approx(np.mean(loop), abs=0.003)
    assert found["p"] == found["q"] == pytest.approx(np.mean(loop >= found["distance"] - 1e-9), abs=0.01)
    same = usage_distances(a, a).iloc[0]
    assert same[["distance", "chance", "p", "q"]].tolist() == [0, 0, 1, 1]
