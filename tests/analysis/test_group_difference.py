"""Differences in usage between groups of inputs, and how sure they are."""

import numpy as np
import pytest

from shrp.analysis.routes import FEWEST, SMALLEST, usage_difference
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


@pytest.mark.parametrize("measure", ["share", "mean_probs"])
@pytest.mark.parametrize("against", ["all", "rest"])
@pytest.mark.parametrize("size", [1, 5, 24, 40, 100])
def test_of_groups_that_do_not_differ_about_one_interval_in_20_leaves_0_out(size, against, measure):
    rng = np.random.default_rng(size)
    share = np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.05])
    group = np.arange(N) < size
    other = ~group if against == "rest" else np.ones(N, dtype=bool)
    known, out, few = 0, 0, size < (24 if measure == "share" else SMALLEST)
    for _ in range(1 if few else 60):
        top1 = choices(share, N, rng)
        probs = rng.dirichlet(2 * share, N) if measure == "mean_probs" else None
        _, ends, _ = usage_difference(stats_of(top1, probs), group, other, measure, resamples=300)
        known += int(np.isfinite(ends[..., 0]).sum())
        out += int(((ends[..., 0] > 0) | (ends[..., 1] < 0)).sum())
    if few:
        assert not known
    else:
        assert known >= 60
        assert out / known < 0.12


def test_a_group_against_all_inputs_is_the_difference_to_the_rest_scaled():
    rng, (first, rest) = np.random.default_rng(1), halves()
    stats = stats_of(np.concatenate([choices(p, N // 2, rng) for p in ((0.5, 0.5), (0.2, 0.8))]))
    apart, ends, _ = usage_difference(stats, first, rest)
    whole, scaled, _ = usage_difference(stats, first, np.ones(N, dtype=bool))
    assert whole == pytest.approx(apart / 2)
    assert scaled == pytest.approx(ends / 2, abs=0.02)
    assert (ends[0, 0] > 0).all()


def test_pairs_that_route_alike_are_drawn_as_one():
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
    # A pair's inputs on both sides are more alike than others: the difference is surer than of as many inputs alone.
    sides = np.arange(N) % 2 == 0
    wide, narrow = (usage_difference(stats, sides, ~sides, pairs=given)[1] for given in (None, pairs))
    assert np.isnan(narrow).all()  # both of each pair alike: no draw differs
    assert np.isfinite(wide).all()


def test_of_pairs_a_group_counts_half_its_inputs():
    top1 = np.zeros((N, 2), dtype=np.int64)
    top1[:, 0] = 1
    top1[: 2 * FEWEST] = [0, 1]
    pairs = np.arange(N).reshape(-1, 2)
    first = halves()
    assert np.isfinite(usage_difference(stats_of(top1), *first)[1]).all()
    assert np.isnan(usage_difference(stats_of(top1), *first, pairs=pairs)[1]).all()


def test_tokens_of_one_input_count_as_one_draw():
    rng, both = np.random.default_rng(2), halves()
    top1 = choices((0.5, 0.3, 0.2), N, rng)
    once, many = (usage_difference(stats_of(times * top1), *both) for times in (1, 40))
    for a, b in zip(once, many, strict=True):
        assert a == pytest.approx(b)


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
    assert np.isnan(usage_difference(stats_of(top1), first, rest, resamples=0)[1]).all()


@pytest.mark.parametrize("paired", [False, True, "apart", "some"])
def test_cells_that_move_together_leave_0_out_together(paired):
    """Of six layers that route alike none does, or many do at once; of independent ones a few do each time."""
    rng, share = np.random.default_rng(0), (0.3, 0.3, 0.2, 0.2)
    pairs = np.arange(N if paired != "some" else N // 2).reshape(-1, 2) if paired else None
    whole = paired in (True, "some")  # else each pair has one of its inputs in the group
    group = np.repeat(np.arange(N // 2) % 2 == 0, 2) if whole else np.arange(N) % 2 == 0
    one = choices(share, N, rng)
    apart = {layer: choices(share, N, rng) for layer in range(6)}
    most = []
    for top1 in (dict.fromkeys(range(6), one), apart):
        probs = {layer: rows.astype(float) for layer, rows in top1.items()}
        stats = UsageStats("made", "inputs", top1, probs, {layer: np.ones(N) for layer in top1}, {})
        _, ends, counts = usage_difference(stats, group, ~group, pairs=pairs, resamples=300)
        known = np.isfinite(ends[..., 0]).sum()
        assert counts.mean() == pytest.approx(0.05 * known, rel=0.5)
        most.append(np.quantile(counts, 0.95))
    alike, independent = most
    assert alike >= 6
    assert alike > independent > 0.05 * known


def test_where_the_groups_are_dealt_by_chance_the_count_is_among_those_by_chance():
    rng, beyond = np.random.default_rng(1), 0
    top1 = {layer: choices((0.4, 0.3, 0.2, 0.1), N, rng) for layer in range(3)}
    top1[3] = top1[2]
    probs = {layer: rng.dirichlet(np.ones(4), N) for layer in top1}
    stats = UsageStats("made", "inputs", top1, probs, {layer: np.ones(N) for layer in top1}, {})
    for _ in range(60):
        group = rng.permutation(np.arange(N) < 80)
        _, ends, counts = usage_difference(stats, group, np.ones(N, dtype=bool), resamples=300)
        found = ((ends[..., 0] > 0) | (ends[..., 1] < 0)).sum()
        beyond += found > np.quantile(counts, 0.95)
    assert beyond <= 8
