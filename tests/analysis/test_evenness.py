"""Distance from even usage: its ends, its floor for so many inputs, and effective experts."""

import numpy as np
import pytest

from shrp.analysis.usage import (
    distance_from_uniform,
    effective_experts,
    entropy,
    even_distance,
    even_experts,
)
from shrp.errors import DataError


def test_distance_is_0_when_even_and_largest_when_one_takes_everything():
    assert distance_from_uniform([0.25] * 4) == 0
    assert distance_from_uniform([1, 0, 0, 0]) == pytest.approx(0.75)
    assert distance_from_uniform([0.5, 0.5, 0, 0]) == pytest.approx(0.5)


@pytest.mark.parametrize("share", [[], [0.5, 0.4], [np.nan, 1]])
def test_what_is_no_distribution_is_refused(share):
    with pytest.raises(DataError, match="sum to 1"):
        distance_from_uniform(share)


@pytest.mark.parametrize(("n", "experts"), [(1, 4), (10, 12), (1043, 12)])
def test_the_floor_is_what_even_draws_give(n, experts):
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [1 / experts] * experts, size=3000) / n
    found = np.mean([distance_from_uniform(share) for share in drawn])
    assert even_distance(n, experts) == pytest.approx(found, rel=0.03)


@pytest.mark.parametrize(("n", "experts"), [(1, 4), (12, 12), (480, 12)])
def test_even_draws_show_fewer_effective_experts_than_there_are(n, experts):
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [1 / experts] * experts, size=3000) / n
    assert np.log(even_experts(n, experts)) == pytest.approx(
        np.mean([entropy(one) for one in drawn]), abs=0.01
    )
    with pytest.raises(DataError, match="at least one"):
        even_experts(0, experts)


def test_of_no_inputs_nothing_is_even_or_not():
    assert np.isnan(entropy([np.nan] * 3))
    assert np.isnan(effective_experts([np.nan] * 3))


def test_the_floor_needs_inputs():
    with pytest.raises(DataError, match="at least one"):
        even_distance(0, 12)


def test_effective_experts():
    assert effective_experts([0.25] * 4) == pytest.approx(4)
    assert effective_experts([0, 1, 0, 0]) == 1
