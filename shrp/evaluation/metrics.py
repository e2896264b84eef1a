"""Scores and their intervals.

Every classification metric is a function of the confusion matrix, so a bootstrap draws whole confusion matrices.

Degenerate cases never warn: F1 and Matthews are 0 where a denominator is 0, as in scikit-learn; a correlation of a
constant is nan; without examples every score is nan.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from shrp.data.tasks import REGRESSION_METRICS, Task
from shrp.errors import DataError
from shrp.evaluation.statistics import NO_INTERVAL, bootstrap, of_draws, wilson


def score(task: Task, labels: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """All of a task's metrics.

    Args:
        labels: class ids, or numbers for regression, `(n,)`.
        outputs: predictions `(n,)`, or logits `(n, num_labels)`.

    Raises:
        DataError: the shapes do not fit each other or the task.
    """
    labels, predictions = _checked(task, labels, outputs)
    if task.is_regression:
        return {name: float(CORRELATIONS[name](labels, predictions)) for name in task.metrics}
    matrix = confusion(task, labels, predictions)
    return {name: float(FROM_CONFUSION[name](matrix)) for name in task.metrics}


EQUAL = 1e-5
"""Outputs that differ by less are equal: batching changes them by about as much."""


def ranking(labels: np.ndarray, logits: np.ndarray) -> float:
    """Area under the ROC curve of logits `(N, 2)`, 0.5 by chance; nan if `labels` `(N,)` lack a class."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(labels)) < 2:
        return float("nan")
    margins = logits[:, 1].astype(np.float64) - logits[:, 0]
    return float(roc_auc_score(labels, merge_equal(margins)))


def merge_equal(values: np.ndarray) -> np.ndarray:
    """Each value `(N,)`, or the smallest value that it equals up to `EQUAL`."""
    found, first = values.copy(), -np.inf
    for place in np.argsort(values, kind="stable"):
        if found[place] - first > EQUAL:
            first = found[place]
        found[place] = first
    return found


def worth(task: Task, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The margin of each prediction: the true class's logit minus the largest other one; minus the absolute error of a
    regression.

    Args:
        outputs: `(N, ..., C)`, in the task's order of classes.
        labels: class ids or numbers, `(N,)`.

    Returns:
        float64 `(N, ...)`.
    """
    outputs = outputs.astype(np.float64)
    places = (..., *(None,) * (outputs.ndim - 1))
    labels = np.broadcast_to(np.asarray(labels)[places], (*outputs.shape[:-1], 1))
    if task.is_regression:
        return -np.abs(outputs - labels)[..., 0]
    true = np.take_along_axis(outputs, labels, -1)[..., 0]
    np.put_along_axis(outputs, labels, -np.inf, -1)
    return true - outputs.max(-1)


def majority_score(task: Task, labels: np.ndarray) -> float:
    """The headline score of the majority-class baseline, or the best other constant prediction; nan for regression."""
    if task.is_regression:
        return float("nan")
    labels = np.asarray(labels)
    return max(score(task, labels, np.full(len(labels), c))[task.metric] for c in range(task.num_labels))


def to_predictions(task: Task, outputs: np.ndarray) -> np.ndarray:
    """Class ids (int64) or numbers (float64), `(n,)`, from logits `(n, num_labels)` or predictions `(n,)`.

    Raises:
        DataError: the logits are of another width than the task, or not all finite.
    """
    outputs = np.asarray(outputs)
    if outputs.ndim == 2:
        if outputs.shape[1] != task.num_labels:
            raise DataError(
                f"'{task.name}' needs {task.num_labels} output(s), but the model gives {outputs.shape[1]}."
            )
        if not np.isfinite(outputs).all():
            raise DataError(
                f"The model's outputs for '{task.name}' are not all finite: its weights are broken."
            )
        outputs = outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)
    return outputs.astype(np.float64 if task.is_regression else np.int64)


def confusion(task: Task, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Counts, int64 `(num_labels, num_labels)`: a row a true class, a column a predicted one."""
    size = task.num_labels
    cells = np.bincount(np.asarray(labels) * size + np.asarray(predictions), minlength=size * size)
    return cells.reshape(size, size)


def interval(task: Task, labels: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """The headline metric's 95% interval: Wilson's for accuracy, else the percentile bootstrap's over the examples.

    Resamples without a defined score are left out. None if all agree, as those of a constant or a perfect model: a few
    equal predictions are no evidence of certainty. Args and errors as for `score`.
    """
    labels, predictions = _checked(task, labels, outputs)
    if task.metric == "accuracy":
        return wilson(int((labels == predictions).sum()), len(labels))
    if not len(labels):
        return NO_INTERVAL
    metric = (CORRELATIONS if task.is_regression else FROM_CONFUSION)[task.metric]
    if task.is_regression:
        return of_draws(bootstrap(lambda rows: metric(labels[rows], predictions[rows]), len(labels)))
    matrix = confusion(task, labels, predictions)
    return of_draws(bootstrap(lambda counts: metric(counts.reshape(-1, *matrix.shape)), matrix.ravel()))


def _checked(task: Task, labels: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions = to_predictions(task, outputs)
    labels = np.asarray(labels, dtype=predictions.dtype)
    if labels.shape != predictions.shape:
        raise DataError(
            f"Each example needs a label: {labels.size} labels for {predictions.size} predictions."
        )
    for ids in (labels, predictions):
        if not task.is_regression and len(ids) and not 0 <= ids.min() <= ids.max() < task.num_labels:
            raise DataError(f"The class ids of '{task.name}' go from 0 to {task.num_labels - 1}.")
    return labels, predictions


def _ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    fits = denominator != 0
    return np.where(fits, numerator / np.where(fits, denominator, 1), otherwise)


# Classification metrics of a confusion matrix or a stack of them, (..., classes, classes).


def _accuracy(matrix: np.ndarray) -> np.ndarray:
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)), np.nan)


def _class_f1(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    seen = matrix.sum(-1) + matrix.sum(-2)
    return _ratio(2 * hits, seen), seen > 0


def _f1(matrix: np.ndarray) -> np.ndarray:
    return np.where(matrix.sum((-2, -1)) > 0, _class_f1(matrix)[0][..., 1], np.nan)


def _f1_macro(matrix: np.ndarray) -> np.ndarray:
    f1, present = _class_f1(matrix)  # A class that is neither meant nor predicted does not count.
    return _ratio(f1.sum(-1), present.sum(-1), np.nan)


def _matthews(matrix: np.ndarray) -> np.ndarray:
    true, predicted = matrix.sum(-1, dtype=float), matrix.sum(-2, dtype=float)
    n = true.sum(-1)
    covariance = np.trace(matrix, axis1=-2, axis2=-1) * n - (true * predicted).sum(-1)
    spread = np.sqrt(n**2 - (true**2).sum(-1)) * np.sqrt(n**2 - (predicted**2).sum(-1))
    # A perfect model's would be off 1 by rounding.
    return np.where(n > 0, np.clip(_ratio(covariance, spread), -1, 1), np.nan)


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation along the last axis; nan where one side is constant."""
    if x.shape[-1] == 0:
        return np.full(x.shape[:-1], np.nan)
    constant = (np.ptp(x, axis=-1) == 0) | (np.ptp(y, axis=-1) == 0)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    spread = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.where(constant, np.nan, np.clip(_ratio((x * y).sum(-1), spread, np.nan), -1, 1))


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


FROM_CONFUSION: dict[str, Callable] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
}
"""Metric -> function of confusion matrices `(..., classes, classes)`, which returns `(...)`."""
CORRELATIONS: dict[str, Callable] = dict(zip(REGRESSION_METRICS, (_pearson, _spearman)))
"""Metric -> function of two arrays `(..., n)`, which returns `(...)`; nan where one side is constant."""
