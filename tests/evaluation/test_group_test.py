"""The permutation test of groups: real differences are found, others as often as by chance, whatever the spreads."""

import numpy as np
import pytest

from shrp.evaluation.group_test import apart_from_others

NO_PAIRS = np.empty((0, 2), dtype=np.int64)


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
def test_a_group_that_has_all_of_the_spread_is_not_taken_for_one_that_differs(inside):
    """Means are 0 everywhere; the group of 64 has values, the others hardly any: 5% may be found, not a third."""
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(8), 64)
    fires = rng.random((512, 200)) < np.where(codes == 0, inside, 0.06 * (inside < 1))[:, None]
    p = apart_from_others(rng.normal(size=(512, 200)) * fires, codes, NO_PAIRS)
    assert (p[0] <= 0.05).mean() <= 0.1  # 200 draws: more than 20 come once in 500 times


def test_values_that_are_alike_differ_nowhere_and_fixed_ones_where_they_do():
    codes = np.repeat([0, 1], 20)
    values = np.stack([np.zeros(40), np.full(40, 0.1), np.where(codes == 1, 1.0, 0.0)], axis=1)
    p = apart_from_others(values, codes, NO_PAIRS)
    assert (p[:, :2] == 1).all()
    assert (p[:, 2] < 0.001).all()
    assert p[0] == pytest.approx(p[1])  # each is the other's rest


def test_a_group_of_one_can_be_told_and_none_crashes():
    rng = np.random.default_rng(2)
    codes = np.array([0, *[1] * 39])
    p = apart_from_others(rng.normal(size=(40, 50)), codes, NO_PAIRS)
    assert np.isfinite(p).all()
    assert (p[0] <= 0.05).mean() <= 0.15
