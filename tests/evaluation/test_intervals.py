import numpy as np
import pytest
from scipy.stats import t

from shrp.evaluation.intervals import NO_INTERVAL, Mean, difference, of_mean, over_tasks, over_trainings


def test_one_training_keeps_its_own_interval():
    mean = over_trainings([0.9], [(0.85, 0.97)])
    assert (mean.value, *mean.ends) == pytest.approx((0.9, 0.85, 0.97))


def test_trainings_that_agree_leave_what_the_inputs_leave_open():
    mean = over_trainings([0.9, 0.9, 0.9], [(0.8, 0.95)] * 3)
    assert (mean.value, *mean.ends) == pytest.approx((0.9, 0.8, 0.95))


def test_a_training_without_an_interval_beside_others_counts_as_exact():
    assert np.isnan(over_trainings([0.0, 0.0], [NO_INTERVAL] * 2).ends).all()
    mixed = over_trainings([0.0, 0.1, 0.12], [NO_INTERVAL, (0.02, 0.18), (0.04, 0.2)])
    assert (mixed.below, mixed.above) == pytest.approx((0.16 / 3, 0.16 / 3))
    spread = t.ppf(0.975, 2) * np.std([0.0, 0.1, 0.12], ddof=1) / np.sqrt(3)
    half = np.hypot(0.16 / 3, spread)
    assert mixed.ends == pytest.approx((mixed.value - half, mixed.value + half))


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_of_a_mean_of_few_is_as_wide_as_it_must_be(n):
    values = np.random.default_rng(n).normal(size=(4000, n))
    low, high = np.transpose([of_mean(one) for one in values])
    assert 0.94 < ((low <= 0) & (high >= 0)).mean() < 0.96


def covered(rng, tasks, trainings, of_inputs, of_trainings):
    """Whether the interval of the mean over tasks holds the truth, which is 0, and how wide it is."""
    means = []
    for _ in range(tasks):
        shared = rng.normal(scale=of_inputs)  # all trainings are scored on the same inputs
        values = shared + rng.normal(scale=of_trainings, size=trainings)
        half = 1.96 * of_inputs
        means.append(over_trainings(values, [(v - half, v + half) for v in values]))
    low, high = (means[0] if tasks == 1 else over_tasks(means)).ends
    return low <= 0 <= high, high - low


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize("tasks", [1, 4])
def test_the_interval_covers_the_truth_as_often_as_it_says(tasks, trainings):
    """Over inputs and trainings both, whichever of them weighs more."""
    rng = np.random.default_rng(0)
    for of_inputs, of_trainings in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0)):
        found = [covered(rng, tasks, trainings, of_inputs, of_trainings)[0] for _ in range(1500)]
        assert 0.935 <= np.mean(found) <= 0.995


def test_several_tasks_know_more_of_trainings_than_one():
    """Two trainings of each of four tasks have four degrees of freedom, where they vary alike."""
    one = over_trainings([0.0, 1.0], [(0.0, 0.0), (1.0, 1.0)])
    mean = over_tasks([one] * 4)
    assert mean.freedom == pytest.approx(4)
    assert mean.ends[1] - mean.value == pytest.approx(t.ppf(0.975, 4) * (one.variance / 4) ** 0.5)


def test_a_task_with_one_training_adds_what_its_inputs_leave_open():
    mean = over_tasks([Mean(1.0, 0.2, 0.4), Mean(3.0, 0.2, 0.4)])
    assert mean.value == 2
    assert mean.ends == pytest.approx((2 - 0.2 / 2**0.5, 2 + 0.4 / 2**0.5))
    assert np.isnan(over_tasks([Mean(1.0, *NO_INTERVAL), Mean(3.0, 0.2, 0.4)]).ends).all()


def test_a_single_training_is_taken_to_vary_as_those_beside_it():
    """One of 3 trainings, whose mean has a third of a training's variance, and one of 1."""
    three = over_trainings([0.0, 1.0, 2.0], [(-0.1, 0.1), (0.9, 1.1), (1.9, 2.1)])
    one = over_trainings([1.0], [(0.9, 1.1)])
    mean = over_tasks([three, one])
    assert three.variance == pytest.approx(1 / 3)
    assert mean.variance == pytest.approx((1 / 3 + 1) / 2**2)
    assert mean.freedom == pytest.approx(2)  # all that is known is from the three


def test_the_interval_covers_the_truth_where_some_tasks_have_one_training():
    rng = np.random.default_rng(0)
    for of_inputs, of_trainings in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0)):
        hits = []
        for _ in range(1500):
            means = []
            for trainings in (3, 3, 3, 3, 1, 1):
                values = rng.normal(scale=of_inputs) + rng.normal(scale=of_trainings, size=trainings)
                half = 1.96 * of_inputs
                means.append(over_trainings(values, [(v - half, v + half) for v in values]))
            low, high = over_tasks(means).ends
            hits.append(low <= 0 <= high)
        assert 0.935 <= np.mean(hits) <= 0.985


@pytest.mark.parametrize("trainings", [(3, 3), (3, 1), (1, 3), (2, 5)])
@pytest.mark.parametrize("tasks", [1, 6])
def test_the_interval_of_a_difference_covers_the_truth_where_both_vary_alike(tasks, trainings):
    """On inputs of their own; on several tasks two have one training of either."""
    rng = np.random.default_rng(0)

    def mean(n, of_inputs, of_trainings):
        values = rng.normal(scale=of_inputs) + rng.normal(scale=of_trainings, size=n)
        return over_trainings(values, [(v - 1.96 * of_inputs, v + 1.96 * of_inputs) for v in values])

    for scales in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0)):
        hits = []
        for _ in range(1000):
            sizes = [trainings if task < 4 else (1, 1) for task in range(tasks)]
            low, high = over_tasks([difference(*(mean(n, *scales) for n in pair)) for pair in sizes]).ends
            hits.append(low <= 0 <= high)
        assert 0.93 <= np.mean(hits) <= 0.99


def test_a_difference_of_single_trainings_is_open_as_their_inputs_are():
    found = difference(Mean(0.9, 0.03, 0.01), Mean(0.7, 0.04, 0.02))
    assert found.ends == pytest.approx((0.2 - np.hypot(0.03, 0.02), 0.2 + np.hypot(0.01, 0.04)))
    assert np.isnan(difference(Mean(0.9, *NO_INTERVAL), Mean(0.7, 0.04, 0.02)).ends).all()


def test_trainings_of_tasks_that_vary_unlike_have_degrees_between():
    """Welch's and Satterthwaite's: near those of the task that varies most."""
    means = [Mean(0.0, 0.1, 0.1, variance=0.09, freedom=2), Mean(0.0, 0.1, 0.1, variance=0.01, freedom=4)]
    assert over_tasks(means).freedom == pytest.approx(0.1**2 / (0.09**2 / 2 + 0.01**2 / 4))
