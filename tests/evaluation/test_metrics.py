import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from shrp.data.tasks import TASKS, Task, custom_task, get_task
from shrp.errors import DataError
from shrp.evaluation.intervals import stored_interval
from shrp.evaluation.metrics import (
    bootstrap_interval,
    confusion,
    interval,
    mcnemar,
    paired_interval,
    paired_mean_interval,
    ranking,
    score,
    share_interval,
    to_predictions,
    wilson,
)

THREE = custom_task("three", ["text"], ["a", "b", "c"])
MATTHEWS = replace(THREE, metric="matthews", metrics=("matthews",))


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(classes, n=300, seed=0, right=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    return labels, np.where(rng.random(n) < right, labels, rng.integers(classes, size=n))


def test_scores_equal_sklearns():
    labels, predictions = drawn(2)
    assert score(TASKS["cola"], labels, predictions) == {
        "matthews": pytest.approx(sk.matthews_corrcoef(labels, predictions)),
        "accuracy": pytest.approx(sk.accuracy_score(labels, predictions)),
    }
    assert score(TASKS["mrpc"], labels, predictions)["f1"] == pytest.approx(sk.f1_score(labels, predictions))


def test_multiclass_scores_equal_sklearns():
    task = Task("three", ("text",), ("a", "b", "c"), "matthews", ("matthews", "accuracy", "f1_macro"))
    labels, predictions = drawn(3)
    got = score(task, labels, predictions)
    assert got["matthews"] == pytest.approx(sk.matthews_corrcoef(labels, predictions))
    assert got["f1_macro"] == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    assert np.array_equal(confusion(task, labels, predictions), sk.confusion_matrix(labels, predictions))


def test_macro_f1_leaves_out_a_class_that_does_not_occur():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    expected = sk.f1_score(labels, predictions, average="macro")
    assert score(THREE, labels, predictions)["f1_macro"] == pytest.approx(expected)


def test_correlations_equal_scipys_ties_included():
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=200).astype(float)
    outputs = (labels + rng.normal(size=200)).round(1)
    got = score(TASKS["stsb"], labels, outputs[:, None].astype(np.float32))
    assert got["pearson"] == pytest.approx(stats.pearsonr(labels, outputs)[0], abs=1e-6)
    assert got["spearman"] == pytest.approx(stats.spearmanr(labels, outputs)[0], abs=1e-6)


def test_logits_and_predictions_score_alike():
    labels, predictions = drawn(3)
    assert score(THREE, labels, np.eye(3)[predictions]) == score(THREE, labels, predictions)


@pytest.mark.parametrize("task", ["cola", "mrpc"])
def test_constant_predictions_score_zero_without_warnings(task):
    labels, constant = np.array([0, 1, 1, 0]), np.zeros(4, dtype=int)
    assert score(TASKS[task], labels, constant)[TASKS[task].metric] == 0.0
    assert score(TASKS[task], np.zeros(4), constant)[TASKS[task].metric] == 0.0
    assert np.isnan(bootstrap_interval(TASKS[task], labels, constant)).all()


@pytest.mark.parametrize("task", ["cola", "mrpc", "stsb"])
def test_a_perfect_model_has_a_score_of_1_and_no_interval(task):
    labels = np.random.default_rng(0).integers(2, size=1043)
    name = TASKS[task].metric
    assert 1 - 1e-12 < score(TASKS[task], labels, labels)[name] <= 1
    assert np.isnan(interval(TASKS[task], labels, labels)).all()


def test_correlations_stay_within_1():
    for n in range(3, 200):
        x = np.random.default_rng(n).normal(size=n)
        assert (
            -1 <= score(TASKS["stsb"], x, -3 * x)["pearson"] < score(TASKS["stsb"], x, 3 * x)["pearson"] <= 1
        )
        labels = np.arange(n) % 3
        assert score(MATTHEWS, labels, labels)["matthews"] <= 1


def test_a_stored_interval_without_a_width_is_none():
    assert stored_interval({"interval": [0.1, 0.3]}) == (0.1, 0.3)
    draws = {"interval": [0.3, 0.3], "interval_is": "range of 3 draws"}
    assert stored_interval(draws) == (0.3, 0.3)
    none = [{"interval": [0.0, 0.0]}, {"interval": [1 - 2e-16, 1 + 2e-16], "interval_is": "95%"}]
    for row in (*none, {}, {"interval": None}, {"interval": [None, None]}):
        assert np.isnan(stored_interval(row)).all()


def test_constant_regression_is_undefined():
    got = score(TASKS["stsb"], [1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    assert np.isnan(got["pearson"])
    assert np.isnan(got["spearman"])
    assert np.isnan(bootstrap_interval(TASKS["stsb"], [1.0, 2.0, 3.0], [0.1, 0.1, 0.1])).all()


@pytest.mark.parametrize("name", TASKS)
def test_no_inputs_score_nan(name):
    assert np.isnan(list(score(TASKS[name], [], []).values())).all()
    assert np.isnan(interval(TASKS[name], [], [])).all()


def test_misfits_are_refused():
    with pytest.raises(DataError, match=r"'sst2' needs 2 output\(s\) an input, but the model gives 3"):
        score(TASKS["sst2"], [0, 1], np.zeros((2, 3)))
    with pytest.raises(DataError, match="2 labels for 3 predictions"):
        score(TASKS["sst2"], [0, 1], [0, 1, 1])
    with pytest.raises(DataError, match="go from 0 to 1"):
        score(TASKS["sst2"], [0, 1], [0, 2])
    with pytest.raises(DataError, match="not scored by 'bleu'"):
        bootstrap_interval(TASKS["sst2"], [0, 1], [0, 1], metric="bleu")


def test_wilson_against_hand_checked_values():
    # p = 0.9, n = 100, z = 1.959964: centre (0.9 + z2/200) / (1 + z2/100), worked out by hand.
    assert wilson(90, 100) == (pytest.approx(0.825634, abs=1e-6), pytest.approx(0.944771, abs=1e-6))
    exact = stats.binomtest(7, 13).proportion_ci(method="wilson")
    assert wilson(7, 13) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert np.isnan(wilson(0, 0)).all()


def test_a_share_of_units_has_the_interval_of_as_many_draws_as_say_as_much():
    rng = np.random.default_rng(0)
    hits, alone = rng.random(60) < 0.4, np.arange(60)
    assert share_interval(hits, alone) == wilson(hits.sum(), 60)
    twice, units = np.repeat(hits, 2), np.repeat(alone, 2)
    assert share_interval(twice, units) == pytest.approx(
        wilson(hits.sum(), 60), abs=0.005
    )  # no more than one each
    apart = np.tile([True, False], 60)  # each unit half: never surer than of as many inputs
    less = (1.96 / stats.t.ppf(0.975, 59)) ** 2  # what 60 units tell of how far they differ is not all
    assert share_interval(apart, units) == pytest.approx(wilson(60 * less, 120 * less), abs=1e-4)
    for all_alike, ends in (
        (np.zeros(120, bool), (0.0, wilson(0, 60)[1])),
        (np.ones(120, bool), (wilson(60, 60)[0], 1.0)),
    ):
        assert share_interval(all_alike, units) == pytest.approx(ends)
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


@pytest.mark.parametrize("inputs", [2, 3, 5, 10])
def test_few_inputs_of_many_tokens_are_not_too_sure_of_others(inputs):
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):  # inputs differ in how many of their tokens are hits
        hits = rng.binomial(20, rng.beta(2, 3, size=inputs))
        low, high = share_interval(hits, np.arange(inputs), np.full(inputs, 20))
        held += low <= 0.4 <= high
    assert held / 1000 > 0.93


def test_interval_of_accuracy_is_wilsons():
    labels = np.ones(100, dtype=int)
    predictions = np.r_[np.ones(90, dtype=int), np.zeros(10, dtype=int)]
    assert interval(TASKS["sst2"], labels, predictions) == wilson(90, 100)


def test_bootstrap_of_confusions_equals_one_of_rows():
    labels, predictions = drawn(2, n=400)
    low, high = bootstrap_interval(TASKS["cola"], labels, predictions, resamples=4000)
    rng = np.random.default_rng(1)
    rows = rng.integers(400, size=(1000, 400))
    scores = [sk.matthews_corrcoef(labels[r], predictions[r]) for r in rows]
    assert (low, high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.02)


def test_bootstrap_of_a_correlation_is_near_fishers_interval():
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    y = x + rng.normal(size=500)
    exact = stats.pearsonr(x, y).confidence_interval(0.95)
    assert bootstrap_interval(TASKS["stsb"], x, y) == pytest.approx((exact.low, exact.high), abs=0.02)


@pytest.mark.parametrize("name", ["cola", "mrpc", "stsb"])
def test_bootstrap_is_reproducible(name):
    labels, predictions = drawn(2, n=1000)
    first = bootstrap_interval(TASKS[name], labels, predictions)
    assert first == bootstrap_interval(TASKS[name], labels, predictions)
    assert first != bootstrap_interval(TASKS[name], labels, predictions, seed=1)
    low, high = first
    assert low < score(TASKS[name], labels, predictions)[TASKS[name].metric] < high


def test_mcnemar_is_the_exact_binomial_test():
    a = np.array([1] * 12 + [0] * 3 + [1] * 40, dtype=bool)
    b = np.array([0] * 12 + [1] * 3 + [1] * 40, dtype=bool)
    # 2 * P(X <= 3), X ~ Binomial(15, 1/2): 2 * (1 + 15 + 105 + 455) / 2**15.
    assert mcnemar(a, b) == pytest.approx(2 * 576 / 2**15)
    assert mcnemar(b, a) == pytest.approx(mcnemar(a, b))
    assert mcnemar(a, a) == 1.0
    with pytest.raises(DataError, match="not 3 and 2"):
        mcnemar([1, 1, 0], [1, 0])


def test_tasks_survive_a_round_trip_and_name_each_other():
    assert len(TASKS) == 9
    for task in (*TASKS.values(), THREE, custom_task("r", ["x", "y"], regression=True)):
        assert Task.from_dict(task.to_dict()) == task
    assert TASKS["stsb"].is_regression
    assert (TASKS["stsb"].num_labels, TASKS["mnli"].num_labels) == (1, 3)
    with pytest.raises(DataError, match="no task 'sst'; the known ones are sst2, cola"):
        get_task("sst")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x"}, "text_columns"),
        ({**THREE.to_dict(), "text_columns": "text"}, "list of strings"),
        ({**THREE.to_dict(), "label_names": ["a"]}, "at least two classes"),
        ({**THREE.to_dict(), "label_names": ["a", "a"]}, "must differ"),
        ({**THREE.to_dict(), "metric": "pearson", "metrics": ["pearson"]}, "headline metric 'pearson'"),
        ({**THREE.to_dict(), "metric": "f1", "metrics": ["f1"]}, "exactly two classes"),
        ({**THREE.to_dict(), "text_columns": ["a", "b", "c"]}, "one or two text columns, not 3"),
    ],
)
def test_broken_task_descriptions_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Task.from_dict(values)


def test_paired_interval_against_a_hand_checked_value_and_its_limits():
    # (12.5 - 3.5) / 57 and sqrt(16 - 81 / 57) / 57, worked out by hand.
    centre, half = 9 / 57, 1.959964 * np.sqrt(16 - 81 / 57) / 57
    assert paired_interval(12, 3, 55) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert np.isnan(paired_interval(0, 0, 0)).all()
    for n in (1, 7, 40):
        for a in range(n + 1):
            for b in range(n + 1 - a):
                low, high = paired_interval(a, b, n)
                assert -1 <= low <= (a - b) / n <= high <= 1
                assert paired_interval(b, a, n) == pytest.approx((-high, -low))
    low, high = paired_interval(0, 0, 40)
    assert low < 0 < high  # no input changed sides, which does not prove that none would


def test_paired_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    n, truth = 40, (0.1, 0.04)  # shares of only-first and only-second
    drawn = rng.multinomial(n, [*truth, 1 - sum(truth)], size=3000)
    bounds = np.array([paired_interval(a, b, n) for a, b, _ in drawn])
    held = (bounds[:, 0] <= truth[0] - truth[1]) & (truth[0] - truth[1] <= bounds[:, 1])
    assert 0.93 <= held.mean() <= 0.99


def test_the_interval_of_mean_differences_is_the_paired_one_of_single_differences():
    assert paired_mean_interval(np.repeat([1, -1, 0], [12, 3, 40])) == pytest.approx(
        paired_interval(12, 3, 55)
    )
    # (3 * 0.5 - 0.2) / 57 and sqrt(3 * 0.25 + 0.04 + 1 - 1.3^2 / 57) / 57, worked out by hand.
    centre, half = 1.3 / 57, 1.959964 * np.sqrt(1.79 - 1.69 / 57) / 57
    found = paired_mean_interval(np.repeat([0.5, -0.2, 0], [3, 1, 51]))
    assert found == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert np.isnan(paired_mean_interval(np.empty(0))).all()


def test_the_interval_of_mean_differences_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    n, draws = 200, 5
    lost, won = (
        rng.beta(0.2, 2, size=(2, 2000, n)) / 2
    )  # inputs differ in how likely they change; means 1 / 22
    chance = rng.random((draws, 2000, n))
    differences = ((chance < lost).astype(float) - (chance > 1 - won)).mean(0)
    bounds = np.array([paired_mean_interval(one) for one in differences])
    assert 0.93 <= ((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean() <= 0.97
    # One input that changes in one draw of five is no proof that the mean is below 0.
    rare = np.zeros(n)
    rare[0] = -1 / draws
    low, high = paired_mean_interval(rare)
    assert low < -1 / n < 0 < high


@pytest.mark.parametrize("name", ["sst2", "stsb"])
def test_outputs_that_are_no_numbers_are_refused(name):
    task = TASKS[name]
    outputs = np.full((3, task.num_labels), np.nan)
    with pytest.raises(DataError, match="not all finite numbers"):
        to_predictions(task, outputs)


def test_what_equal_texts_have_in_other_batches_is_a_tie():
    labels, noise = [0, 1, 0, 1], np.array([0, 1e-7, -1e-7, -2e-7])
    for margin in (0.3, 0.300005):
        logits = np.stack([np.zeros(4), margin + noise], axis=1)
        assert ranking(labels, logits) == 0.5
    near = np.stack(
        [np.zeros(900), np.arange(900) * 4e-6], axis=1
    )  # a chain of equals is not equal from end to end
    assert ranking(np.arange(900) >= 450, near) > 0.99
