import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from shrp.data.tasks import TASKS, Task, custom_task, get_task
from shrp.errors import DataError
from shrp.evaluation.metrics import confusion, interval, merge_equal, score

THREE = custom_task("three", ["text"], ["a", "b", "c"])


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(classes, n=300, seed=0, right=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    return labels, np.where(rng.random(n) < right, labels, rng.integers(classes, size=n))


def test_correlations_equal_scipys_ties_included():
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=200).astype(float)
    outputs = (labels + rng.normal(size=200)).round(1)
    got = score(TASKS["stsb"], labels, outputs[:, None].astype(np.float32))
    assert got["pearson"] == pytest.approx(stats.pearsonr(labels, outputs)[0], abs=1e-6)
    assert got["spearman"] == pytest.approx(stats.spearmanr(labels, outputs)[0], abs=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_no_inputs_score_nan(name):
    assert np.isnan(list(score(TASKS[name], [], []).values())).all()
    assert np.isnan(interval(TASKS[name], [], [])).all()


def test_tasks_survive_a_round_trip_and_name_each_other():
    assert len(TASKS) == 9
    for task in (*TASKS.values(), THREE, custom_task("r", ["x", "y"], regression=True)):
        assert Task.from_dict(task.to_dict()) == task
    assert TASKS["stsb"].is_regression
    assert (TASKS["stsb"].num_labels, TASKS["mnli"].num_labels) == (1, 3)
    with pytest.raises(DataError):
        get_task("sst")


def test_what_equal_texts_have_in_other_batches_is_a_tie():
    for margin in (0.3, 0.300005):
        assert len(set(merge_equal(margin + np.array([0, 1e-7, -1e-7, -2e-7])))) == 1
    assert len(set(merge_equal(np.arange(900) * 4e-6))) > 1  # a chain of equals isn't equal from end to end


def test_classification_scores_equal_sklearns():
    three = Task("three", ("text",), ("a", "b", "c"), "matthews", ("matthews", "accuracy", "f1_macro"))
    labels, predictions = drawn(3)
    given = labels, predictions
    expected = [sk.matthews_corrcoef(*given), sk.accuracy_score(*given), sk.f1_score(*given, average="macro")]
    assert [*score(three, *given).values()] == pytest.approx(expected)
    assert np.array_equal(confusion(three, labels, predictions), sk.confusion_matrix(labels, predictions))
    labels, predictions = drawn(2)
    assert score(TASKS["mrpc"], labels, predictions)["f1"] == pytest.approx(sk.f1_score(labels, predictions))


@pytest.mark.parametrize("name", ["cola", "mrpc", "stsb"])
def test_degenerate_answers_have_no_interval(name):
    task, labels = TASKS[name], np.random.default_rng(0).integers(2, size=1043)
    constant = np.zeros(1043)
    assert 1 - 1e-12 < score(task, labels, labels)[task.metric] <= 1
    expected = np.nan if task.is_regression else 0.0
    assert score(task, labels, constant)[task.metric] == pytest.approx(expected, nan_ok=True)
    for predictions in (labels, constant):
        assert np.isnan(interval(task, labels, predictions)).all()


@pytest.mark.parametrize(
    ("name", "labels", "outputs"),
    [
        ("sst2", [0, 1], np.zeros((2, 3))),
        ("sst2", [0, 1], [0, 1, 1]),
        ("sst2", [0, 1], [0, 2]),
        ("sst2", [0, 1], np.full((2, 2), np.nan)),
        ("stsb", [0, 1], np.full((2, 1), np.inf)),
    ],
)
def test_outputs_that_do_not_fit_are_refused(name, labels, outputs):
    with pytest.raises(DataError):
        score(TASKS[name], labels, outputs)


@pytest.mark.parametrize(
    "other",
    [
        {"text_columns": "text"},
        {"label_names": ["a"]},
        {"label_names": ["a", "a"]},
        {"metric": "pearson", "metrics": ["pearson"]},
        {"metric": "f1", "metrics": ["f1"]},
        {"text_columns": ["a", "b", "c"]},
        {"metrics": None},
    ],
)
def test_broken_task_descriptions_are_refused(other):
    with pytest.raises(DataError):
        Task.from_dict(THREE.to_dict() | other)
