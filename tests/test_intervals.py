import numpy as np
import pytest

from shrp.intervals import NO_INTERVAL, over_trainings


def test_one_training_keeps_its_own_interval():
    assert over_trainings([0.9], [(0.85, 0.97)]) == (0.9, 0.85, 0.97)


def test_trainings_that_agree_leave_what_the_inputs_leave_open():
    found = over_trainings([0.9, 0.9, 0.9], [(0.8, 0.95)] * 3)
    assert found == pytest.approx((0.9, 0.8, 0.95))


def test_an_interval_without_any_is_none():
    assert np.isnan(over_trainings([0.9, 0.8], [(0.8, 0.95), NO_INTERVAL])[1:]).all()


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(trainings):
    """Over inputs and trainings both, whichever of them weighs more."""
    rng = np.random.default_rng(0)
    for of_inputs, of_trainings in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0)):
        covered = 0
        for _ in range(2000):
            shared = rng.normal(scale=of_inputs)  # all trainings are scored on the same inputs
            values = shared + rng.normal(scale=of_trainings, size=trainings)
            half = 1.96 * of_inputs
            _, low, high = over_trainings(values, [(v - half, v + half) for v in values])
            covered += low <= 0 <= high
        assert 0.94 <= covered / 2000 <= 1.0
