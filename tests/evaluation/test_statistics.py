import numpy as np
import pytest
from scipy import stats
from scipy.stats import false_discovery_control, hypergeom

from shrp.evaluation import statistics
from shrp.evaluation.statistics import (
    NEIGHBOURS,
    apart_from_others,
    bootstrap,
    differing,
    mix_frame,
    of_draws,
    paired_interval,
    permutations,
    share_interval,
    stored_interval,
    wilson,
)

N, TIMES = 60, 7
NO_PAIRS = np.empty((0, 2), dtype=np.int64)
CODES = np.random.default_rng(0).integers(3, size=N)
LENGTH = np.random.default_rng(1).integers(3, 30, size=N)
PAIRS = {
    "none": NO_PAIRS,
    "some": np.array([[2, 3], [10, 40], [7, 8], [20, 21], [30, 33], [50, 59]]),
    "all": np.arange(N).reshape(-1, 2),
}
GROUPS = {name: np.arange(60) // 20 == place for place, name in enumerate(("negation", "plain", "question"))}


def test_a_stored_interval_without_a_width_is_none():
    assert stored_interval({"interval": [0.1, 0.3]}) == (0.1, 0.3)
    draws = {"interval": [0.3, 0.3], "interval_is": "range of 3 draws"}
    assert stored_interval(draws) == (0.3, 0.3)
    none = [{"interval": [0.0, 0.0]}, {"interval": [1 - 2e-16, 1 + 2e-16], "interval_is": "95%"}]
    for row in (*none, {}, {"interval": None}, {"interval": [None, None]}):
        assert np.isnan(stored_interval(row)).all()


def test_wilson_against_hand_checked_values():
    # p = 0.9, n = 100, z = 1.959964: centre (0.9 + z2/200) / (1 + z2/100), worked out by hand.
    assert wilson(90, 100) == (pytest.approx(0.825634, abs=1e-6), pytest.approx(0.944771, abs=1e-6))
    exact = stats.binomtest(7, 13).proportion_ci(method="wilson")
    assert wilson(7, 13) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert np.isnan(wilson(0, 0)).all()


def test_a_share_of_dependent_examples_has_the_interval_of_the_effective_sample():
    rng = np.random.default_rng(0)
    hits, alone = rng.random(60) < 0.4, np.arange(60)
    assert share_interval(hits, alone) == wilson(hits.sum(), 60)
    twice, units = np.repeat(hits, 2), np.repeat(alone, 2)
    assert share_interval(twice, units) == pytest.approx(wilson(hits.sum(), 60), abs=0.005)  # no more than one each
    apart = np.tile([True, False], 60)  # each unit half: never surer than of as many inputs
    less = (1.96 / stats.t.ppf(0.975, 59)) ** 2  # what 60 units tell of how far they differ is not all
    assert share_interval(apart, units) == pytest.approx(wilson(60 * less, 120 * less), abs=1e-4)
    assert share_interval(np.zeros(120, bool), units) == pytest.approx((0.0, wilson(0, 60)[1]))
    assert share_interval(np.ones(120, bool), units) == pytest.approx((wilson(60, 60)[0], 1.0))
    assert np.isnan(share_interval(np.zeros(0, bool), np.zeros(0, int))).all()
    one = share_interval(np.array([40]), np.zeros(1, int), np.array([100]))  # tokens of one input
    assert one == pytest.approx(wilson(0.4, 1))
    held = {"units": 0, "inputs": 0}
    for _ in range(400):  # pairs of which three in four are alike
        drawn = rng.random((60, 2)) < 0.3
        alike = rng.random(60) < 0.75
        drawn[alike, 1] = drawn[alike, 0]
        for name, of in (("units", units), ("inputs", np.arange(120))):
            low, high = share_interval(drawn.ravel(), of)
            held[name] += low <= 0.3 <= high
    assert 0.92 < held["units"] / 400 < 0.985
    assert held["inputs"] / 400 < 0.9


def changes(only_a, only_b, n):
    return np.repeat([1.0, -1.0, 0.0], [only_a, only_b, n - only_a - only_b])


def test_paired_interval_against_hand_checked_values_and_its_limits():
    # (12.5 - 3.5) / 57 and sqrt(16 - 81 / 57) / 57, worked out by hand.
    centre, half = 9 / 57, 1.959964 * np.sqrt(16 - 81 / 57) / 57
    assert paired_interval(changes(12, 3, 55)) == pytest.approx((centre - half, centre + half), abs=1e-6)
    # Means over draws: (3 * 0.5 - 0.2) / 57 and sqrt(3 * 0.25 + 0.04 + 1 - 1.3^2 / 57) / 57.
    centre, half = 1.3 / 57, 1.959964 * np.sqrt(1.79 - 1.69 / 57) / 57
    found = paired_interval(np.repeat([0.5, -0.2, 0], [3, 1, 51]))
    assert found == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert np.isnan(paired_interval(np.empty(0))).all()
    for n in (1, 7, 20):
        for a in range(n + 1):
            for b in range(n + 1 - a):
                low, high = paired_interval(changes(a, b, n))
                assert -1 <= low <= (a - b) / n <= high <= 1
                assert paired_interval(changes(b, a, n)) == pytest.approx((-high, -low))
    low, high = paired_interval(changes(0, 0, 40))
    assert low < 0 < high  # no prediction changed, which does not prove that none would


def test_a_bootstrap_of_counts_and_one_of_rows_agree():
    hits = np.arange(200) < 60
    rows = bootstrap(lambda drawn: hits[drawn].mean(1), 200, resamples=4000)
    counts = bootstrap(lambda drawn: drawn[:, 0] / 200, np.array([60, 140]), resamples=4000)
    assert of_draws(rows) == pytest.approx(of_draws(counts), abs=0.01)
    assert of_draws(rows) == pytest.approx(wilson(60, 200), abs=0.01)
    assert np.isnan(of_draws(np.ones(5))).all()
    assert np.isnan(of_draws(np.full(5, np.nan))).all()


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("pairs", PAIRS)
def test_permutations_move_pairs_as_one_and_near_ones_little(pairs, near):
    pairs, length = PAIRS[pairs], LENGTH.astype(float)
    length[pairs] = length[pairs].mean(1, keepdims=True)
    (orders,) = permutations(CODES, pairs, TIMES, np.random.default_rng(2), length=length, near=near)
    assert orders.shape == (TIMES, N)
    assert (np.sort(orders) == np.arange(N)).all()
    assert not np.array_equal(orders[0], orders[1])
    mates = {frozenset(pair) for pair in pairs.tolist()}
    for a, b in pairs:
        assert all(frozenset(moved) in mates for moved in orders[:, [a, b]].tolist())
    if near and not len(pairs):
        places = np.argsort(np.argsort(length, kind="stable"))
        assert (places[orders] // NEIGHBOURS == places // NEIGHBOURS).all()


def test_a_planted_difference_is_found_in_both_directions():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 30)
    values = rng.normal(size=(90, 3))
    values[codes == 1, 0] += 2
    values[codes == 2, 1] -= 2
    done = []
    p = apart_from_others(values, codes, NO_PAIRS, progress=lambda *step: done.append(step))
    assert p.shape == (3, 3)
    assert p[1, 0] < 0.001
    assert p[2, 1] < 0.001
    assert p[:, 2].min() > 0.01
    assert done[-1] == (5000, 5000)
    assert (p == apart_from_others(values, codes, NO_PAIRS)).all()
    assert np.isnan(apart_from_others(values, np.zeros(90, dtype=np.int64), NO_PAIRS)).all()


@pytest.mark.parametrize("inside", [1.0, 0.5])
def test_a_group_that_has_all_of_the_spread_is_not_taken_for_one_that_differs(inside, monkeypatch):
    """Means are 0 everywhere; the group of 64 has values, the others hardly any: 5% may be found, not a third."""
    monkeypatch.setattr(statistics, "MOST_PERMUTATIONS", 2000)
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(8), 64)
    fires = rng.random((512, 200)) < np.where(codes == 0, inside, 0.06 * (inside < 1))[:, None]
    p = apart_from_others(rng.normal(size=(512, 200)) * fires, codes, NO_PAIRS)
    assert (p[0] <= 0.05).mean() <= 0.1  # 200 draws: more than 20 come once in 500 times


def taken(negation, plain, question):
    """Of 20 inputs each, so many that the expert takes."""
    return np.concatenate([np.arange(20) < count for count in (negation, plain, question)]).astype(int)


def test_shares_have_intervals_and_an_exact_test():
    mine = taken(15, 5, 4)
    frame = mix_frame(mine, np.ones(60, int), GROUPS).set_index("group")
    row = frame.loc["negation"]
    assert (row["count"], row["n"], row["base"]) == (15, 20, pytest.approx(1 / 3))
    assert (row["low"], row["high"]) == pytest.approx(wilson(15, 24))
    assert row["lift"] == pytest.approx(15 / 24 * 3)
    # Of the 60 inputs 20 are of the group; how likely is a number of them among 24 as extreme as 15?
    law = hypergeom(60, 20, 24)
    likely = law.pmf(np.arange(21))
    assert row["p"] == pytest.approx(likely[likely <= law.pmf(15) * (1 + 1e-7)].sum())
    np.testing.assert_allclose(frame["q"], false_discovery_control(frame["p"]))


def test_minimal_pairs_count_as_one_example(monkeypatch):
    """Both of a pair in one group and with one expert: a test of inputs names far too many groups, one of pairs not."""
    monkeypatch.setattr(statistics, "MIX_PERMUTATIONS", 500)
    rng, pairs = np.random.default_rng(0), np.arange(60).reshape(30, 2)
    named = {"inputs": 0, "pairs": 0}
    for _ in range(100):
        mine = np.repeat(rng.random(30) < 0.4, 2).astype(int)
        for which, given in (("inputs", None), ("pairs", pairs)):
            named[which] += any(differing(mix_frame(mine, np.ones(60, int), GROUPS, pairs=given)))
    assert named["pairs"] <= 0.05 * 100
    assert named["inputs"] > 0.08 * 100
    # What differs is still found, and of pairs that the groups part as well.
    frame = mix_frame(taken(18, 8, 1), np.ones(60, int), GROUPS, pairs=pairs)
    alone = mix_frame(taken(18, 8, 1), np.ones(60, int), GROUPS)
    assert (frame["high"] - frame["low"] > alone["high"] - alone["low"]).all()  # fewer draws say less
    assert differing(frame) == (["negation"], ["question"])
    halves = {"even": np.arange(60) % 2 == 0, "odd": np.arange(60) % 2 == 1}
    frame = mix_frame((np.arange(60) % 2 == 0).astype(int), np.ones(60, int), halves, pairs=pairs)
    assert differing(frame) == (["even"], ["odd"])


@pytest.mark.parametrize("mine", [np.zeros(60, int), np.ones(60, int)])
def test_without_a_contrast_there_is_no_test(mine):
    frame = mix_frame(mine, np.ones(60, int), GROUPS)
    assert frame[["low", "high", "p", "q"]].isna().all(axis=None)
    assert differing(frame) == ([], [])
