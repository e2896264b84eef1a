"""Scores and their intervals.

Every classification metric is a function of the confusion matrix, so a bootstrap draws whole confusion matrices. A
metric of words or spans is a quotient of two sums over examples, so a bootstrap draws examples, whose words depend on each
other.

Degenerate cases never warn: F1 and Matthews are 0 where a denominator is 0, as in scikit-learn; a correlation of a
constant is nan; without examples every score is nan.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from shrp.data import squad
from shrp.data.tasks import REGRESSION_METRICS, UNLABELLED, Task
from shrp.errors import DataError
from shrp.evaluation.statistics import NO_INTERVAL, bootstrap, of_draws, wilson


def score(task: Task, labels: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """All of a task's metrics.

    Args:
        labels: class ids, or numbers for regression, `(n,)`; class ids of words `(n, W)`; of spans the texts of known answers,
            tuples `(n,)`.
        outputs: predictions of the same shape, or logits `(..., num_labels)`; of spans their texts, strings `(n,)`.

    Raises:
        DataError: the shapes do not fit each other or the task.
    """
    labels, predictions = _checked(task, labels, outputs)
    if task.is_regression:
        return {name: float(CORRELATIONS[name](labels, predictions)) for name in task.metrics}
    if task.on_tokens:
        sums = {name: parts(task, name, labels, predictions).sum(0) for name in task.metrics}
        return {name: float(quotient(name, both)) if len(labels) else np.nan for name, both in sums.items()}
    matrix = confusion(task, labels, predictions)
    return {name: float(FROM_CONFUSION[name](matrix)) for name in task.metrics}


def parts(task: Task, metric: str, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Each example's part of a metric of words or spans, `(n, 2)`: of the sum above the line and the one below (`quotient`).

    A word that the model did not read, as its text was cut, is wrong; for entities it counts as `O`.

    Args:
        labels, predictions: `(n, W)`, `UNLABELLED` where there is no word (or no prediction); of spans as for `score`.
    """
    if task.on_spans:
        of = squad.f1 if metric == "answer_f1" else squad.exact_match
        return np.array([(of(*both), 1) for both in zip(predictions, labels, strict=True)], dtype=float).reshape(-1, 2)
    words = labels >= 0
    if metric == "accuracy":
        return np.stack([(words & (labels == predictions)).sum(1), words.sum(1)], 1)
    sizes, found = words.sum(1), np.zeros((len(labels), 2), dtype=np.int64)
    for i, size in enumerate(sizes):
        true, ours = (_entities(task.label_names, row[i, :size].tobytes()) for row in (labels, predictions))
        found[i] = 2 * len(true & ours), len(true) + len(ours)
    return found


@lru_cache(maxsize=50_000)  # running estimates and prunings ask for the same ones again
def _entities(names: tuple[str, ...], ids: bytes) -> frozenset[tuple[str, int, int]]:
    """Entities by seqeval: type, first and last word of each."""
    from seqeval.metrics.sequence_labeling import get_entities

    tags = [names[i] if i >= 0 else "O" for i in np.frombuffer(ids, np.int64)]
    return frozenset(get_entities(tags))


def quotient(metric: str, sums: np.ndarray) -> np.ndarray:
    """A metric of words or spans from sums `(..., 2)` of `parts`; the F1 of no entities is 0, as seqeval's."""
    return _ratio(sums[..., 0], sums[..., 1], 0.0 if metric == "entity_f1" else np.nan)


EQUAL = 1e-5
"""Outputs that differ by less are equal: batching changes them by about as much."""


def merge_equal(values: np.ndarray) -> np.ndarray:
    """Each value `(N,)`, or the smallest value that it equals up to `EQUAL`."""
    found, first = values.copy(), -np.inf
    for place in np.argsort(values, kind="stable"):
        if found[place] - first > EQUAL:
            first = found[place]
        found[place] = first
    return found


def worth(task: Task, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The margin of each prediction: the true class's logit minus the largest other one.

    Of a regression it is minus the absolute error, of a span its F1.

    Args:
        outputs: `(N, ..., C)`, in the task's order of classes; of a task on words `(N, W, C)`; of spans their texts `(N,)`.
        labels: class ids or numbers, `(N,)`; of words `(N, W)`; of spans as for `score`.

    Returns:
        float64 `(N, ...)`; of a task on words the mean over those that were read, `(N,)`.
    """
    if task.on_spans:
        return parts(task, "answer_f1", labels, outputs)[:, 0]
    outputs = outputs.astype(np.float64)
    if task.on_words:
        known = (labels >= 0) & np.isfinite(outputs[..., 0])
        found = np.zeros(known.shape)
        found[known] = _margins(outputs[known], labels[known][:, None])
        return found.sum(1) / np.maximum(known.sum(1), 1)
    places = (..., *(None,) * (outputs.ndim - 1))
    labels = np.broadcast_to(np.asarray(labels)[places], (*outputs.shape[:-1], 1))
    if task.is_regression:
        return -np.abs(outputs - labels)[..., 0]
    return _margins(outputs, labels)


def _margins(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logit of the true class minus the largest other one; `outputs` `(..., C)` is changed, `labels` `(..., 1)`."""
    true = np.take_along_axis(outputs, labels, -1)[..., 0]
    np.put_along_axis(outputs, labels, -np.inf, -1)
    return true - outputs.max(-1)


def majority_score(task: Task, labels: np.ndarray) -> float:
    """The headline score of the majority-class baseline, or the best other constant prediction; nan without classes."""
    if task.is_regression or task.on_spans:
        return float("nan")
    labels = np.asarray(labels)
    constants = [np.where(labels == UNLABELLED, labels, c) for c in range(task.num_labels)]
    return max(score(task, labels, constant)[task.metric] for constant in constants)


def to_predictions(task: Task, outputs: np.ndarray) -> np.ndarray:
    """Class ids (int64) or numbers (float64), `(n,)`, from logits `(n, num_labels)` or predictions `(n,)`.

    Of a task on words `(n, W)` from `(n, W, num_labels)`: `UNLABELLED` where the logits are nan, as no word was read there. Of a
    task on spans their characters, `(n, 2)`; texts of spans are returned as they are.

    Raises:
        DataError: the logits are of another width than the task, or not all finite.
    """
    outputs = np.asarray(outputs)
    if outputs.dtype == object:
        return outputs
    if task.on_spans or outputs.ndim == 2 + task.on_words:
        if outputs.shape[-1] != task.num_labels:
            raise DataError(
                f"'{task.name}' needs {task.num_labels} output(s), but the model gives {outputs.shape[-1]}."
            )
        unread = np.isnan(outputs).all(-1) & task.on_words
        if not np.isfinite(outputs[~unread]).all() or (outputs.size and unread.all()):
            raise DataError(
                f"The model's outputs for '{task.name}' are not all finite: its weights are broken."
            )
        if not task.on_spans:
            outputs = outputs[:, 0] if task.is_regression else np.where(unread, UNLABELLED, outputs.argmax(axis=-1))
    return outputs.astype(np.float64 if task.is_regression else np.int64)


def confusion(task: Task, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Counts, int64 `(num_labels, num_labels)`: a row a true class, a column a predicted one; of words, those read."""
    size = task.num_labels
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if task.on_words:
        read = (labels >= 0) & (predictions >= 0)
        labels, predictions = labels[read], predictions[read]
    cells = np.bincount(labels * size + predictions, minlength=size * size)
    return cells.reshape(size, size)


def interval(task: Task, labels: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """The headline metric's 95% interval: Wilson's for accuracy, else the percentile bootstrap's over the examples.

    Resamples without a defined score are left out. None if all agree, as those of a constant or a perfect model: a few
    equal predictions are no evidence of certainty. Args and errors as for `score`.
    """
    labels, predictions = _checked(task, labels, outputs)
    if task.counts_examples:
        return wilson(int((labels == predictions).sum()), len(labels))
    if not len(labels):
        return NO_INTERVAL
    if not task.classifies_texts:
        return of_draws(bootstrap(of_samples(task, labels, predictions), len(labels)))
    metric, matrix = FROM_CONFUSION[task.metric], confusion(task, labels, predictions)
    return of_draws(bootstrap(lambda counts: metric(counts.reshape(-1, *matrix.shape)), matrix.ravel()))


def of_samples(task: Task, labels: np.ndarray, predictions: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The headline metric as a function of samples: row numbers of examples, `(b, N)`, to scores, `(b,)`."""
    if task.is_regression:
        return lambda rows: CORRELATIONS[task.metric](labels[rows], predictions[rows])
    if task.on_tokens:
        each = parts(task, task.metric, labels, predictions)
        return lambda rows: quotient(task.metric, each[rows].sum(1))
    size = task.num_labels

    def from_confusion(rows: np.ndarray) -> np.ndarray:
        cells = (labels * size + predictions)[rows] + size**2 * np.arange(len(rows))[:, None]
        counts = np.bincount(cells.ravel(), minlength=len(rows) * size**2)
        return FROM_CONFUSION[task.metric](counts.reshape(len(rows), size, size).astype(float))

    return from_confusion


def _checked(task: Task, labels: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions = to_predictions(task, outputs)
    labels = np.asarray(labels, dtype=predictions.dtype)
    if labels.shape != predictions.shape:
        raise DataError(
            f"Each example needs a label: {labels.size} labels for {predictions.size} predictions."
        )
    for ids in (labels, predictions):
        least = UNLABELLED if task.on_words else 0
        if not task.is_regression and not task.on_spans and ids.size and not least <= ids.min() <= ids.max() < task.num_labels:
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
    from scipy.stats import rankdata  # slow to import, and most metrics need none

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
