"""Differences in usage between groups of inputs, and how sure they are."""

import numpy as np
import pytest

from shrp.analysis.routes import FEWEST, usage_difference
from shrp.analysis.usage import UsageStats

N = 240


def stats_of(top1, probs=None):
    """Statistics of one layer: choices `(N, H)`, and router probabilities like them unless given."""
    probs = top1 / top1.sum(1, keepdims=True) if probs is None else probs
    return UsageStats("made", "inputs", {3: top1}, {3: probs}, {3: np.ones(len(top1))}, {})


def choices(share, n, rng):
    """Choices `(n, H)` of inputs that each pick one expert."""
    return np.eye(len(share), dtype=np.int64)[rng.choice(len(share), size=n, p=share)]


def halves(n=N):
    first = np.arange(n) < n // 2
    return first, ~first


@pytest.mark.parametrize("measure", ["share", "mean_probs"])
def test_about_95_of_100_intervals_hold_the_true_difference(measure):
    rng, held, first = np.random.default_rng(0), [], halves()
    for _ in range(200):
        top1 = np.concatenate([choices(p, N // 2, rng) for p in ((0.5, 0.3, 0.2), (0.3, 0.5, 0.2))])
        values, ends, _ = usage_difference(stats_of(top1), *first, measure, resamples=300)
        truth = np.array([0.2, -0.2, 0.0])
        held.append((ends[0, :, 0] <= truth) & (truth <= ends[0, :, 1]))
        assert values.shape == (1, 3)
        assert values.sum() == pytest.approx(0)
    assert 0.91 < np.mean(held) < 0.98


def test_minimal_pairs_are_resampled_as_one_unit():
    """Taken for independent, inputs of one route each leave 0 out far too often."""
    rng, pairs, out = np.random.default_rng(3), np.arange(N).reshape(-1, 2), {True: 0, False: 0}
    known = dict(out)
    for _ in range(60):
        stats = stats_of(np.repeat(choices((0.5, 0.3, 0.2), N // 2, rng), 2, axis=0))
        for paired in out:
            _, ends, _ = usage_difference(stats, *halves(), pairs=pairs if paired else None, resamples=300)
            known[paired] += int(np.isfinite(ends[..., 0]).sum())
            out[paired] += int(((ends[..., 0] > 0) | (ends[..., 1] < 0)).sum())
    assert min(known.values()) == 180
    assert out[True] < 0.1 * 180
    assert out[False] > 0.12 * 180
    # Pairs that are split over both sides give a narrower interval.
    sides = np.arange(N) % 2 == 0
    wide, narrow = (usage_difference(stats, sides, ~sides, pairs=given)[1] for given in (None, pairs))
    assert np.isnan(narrow).all()  # both of each pair are equal: no draw differs
    assert np.isfinite(wide).all()


def test_where_there_is_no_interval():
    first, rest = halves()
    top1 = np.zeros((N, 3), dtype=np.int64)
    top1[:, 0] = 1
    chosen = 2 * FEWEST
    top1[:chosen] = [0, 1, 0]
    values, ends, _ = usage_difference(stats_of(top1), first, rest)
    assert values[0, 1] == pytest.approx(chosen / (N // 2))
    assert np.isfinite(ends[0, :2]).all()
    assert np.isnan(ends[0, 2]).all()  # nobody chose it
    top1[chosen - 1] = [1, 0, 0]  # one too few, though all are in one group
    assert np.isnan(usage_difference(stats_of(top1), first, rest)[1]).all()
    top1[chosen - 1] = [0, 1, 0]
    assert np.isnan(usage_difference(stats_of(top1), first, first)[1]).all()  # 0 in every draw
    nobody = np.zeros(N, dtype=bool)
    for groups in ((first, nobody), (nobody, rest)):
        assert all(np.isnan(found).all() for found in usage_difference(stats_of(top1), *groups))
