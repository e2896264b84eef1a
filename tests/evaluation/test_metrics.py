import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from shrp.data.tasks import TASKS, Task, custom_task, get_task
from shrp.errors import DataError
from shrp.evaluation.metrics import bootstrap_interval, confusion, interval, ranking, score, to_predictions
from shrp.evaluation.statistics import (
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


def test_correlations_equal_scipys_ties_included():
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=200).astype(float)
    outputs = (labels + rng.normal(size=200)).round(1)
    got = score(TASKS["stsb"], labels, outputs[:, None].astype(np.float32))
    assert got["pearson"] == pytest.approx(stats.pearsonr(labels, outputs)[0], abs=1e-6)
    assert got["spearman"] == pytest.approx(stats.spearmanr(labels, outputs)[0], abs=1e-6)


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
