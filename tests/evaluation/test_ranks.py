import math
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from shrp.evaluation.ranks import ORDERS, spearman


@pytest.mark.parametrize("n", [3, 4, 5, 7])
def test_of_few_values_p_counts_all_orders(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.normal(size=n)
    rho, p = spearman(x, y)
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    others = np.array([spearmanr(x[list(order)], y).statistic for order in permutations(range(n))])
    sides = (others >= rho - 1e-12).mean(), (others <= rho + 1e-12).mean()
    assert p == pytest.approx(min(1, 2 * min(sides)))
    same = spearman(np.arange(n), np.arange(n) ** 3)
    assert same == pytest.approx((1, 2 / math.factorial(n)))


def test_of_many_values_it_is_near_students():
    rng = np.random.default_rng(0)
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    assert spearman(x, y)[1] == pytest.approx(spearmanr(x, y).pvalue, abs=0.01)
    assert spearman(x, y) == spearman(x, y)
    assert spearman(x, x) == pytest.approx((1, 2 / (ORDERS + 1)))
    x = rng.normal(size=40)
    y = x + 3 * rng.normal(size=40)
    assert spearman(x, y) == pytest.approx(tuple(spearmanr(x, y)))


def test_ties_share_their_ranks_and_what_cannot_be_ordered_has_none():
    assert spearman([1, 1, 2, 3], [2, 2, 5, 9])[0] == pytest.approx(1)
    for x, y in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([], [])):
        assert np.isnan(spearman(x, y)).all()
