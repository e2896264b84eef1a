"""Scores and their intervals.

Every classification metric here is a function of the confusion matrix alone. So a bootstrap need not draw
rows: it draws whole confusion matrices, which is the same in distribution and takes milliseconds.

Degenerate cases never warn: F1 and Matthews are 0.0 where a denominator is 0 (one class only, constant
predictions), as in scikit-learn; a correlation of a constant is nan; without inputs every score is nan.
"""

from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest, rankdata

from shrp.data.tasks import REGRESSION_METRICS, Task
from shrp.errors import DataError
from shrp.evaluation.intervals import NO_INTERVAL, of_draws

_Z = NormalDist().inv_cdf(0.975)  # of a 95% interval
RESAMPLE_CELLS = 2_000_000  # numbers that a bootstrap over inputs holds at once: 16 MB


def at_once(resamples: int, n: int) -> Iterator[int]:
    """How many of `resamples` bootstrap samples of `n` inputs to draw at once, until all are drawn."""
    most = max(1, RESAMPLE_CELLS // n)
    yield from (min(most, resamples - start) for start in range(0, resamples, most))


def score(task: Task, labels: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """All of a task's metrics.

    Args:
        task: Says which metrics; its headline metric comes first in `task.metrics`.
        labels: Class ids, or numbers for regression; shape (n,).
        outputs: Predictions of shape (n,), or a model's logits of shape (n, num_labels).

    Raises:
        DataError: The shapes do not fit each other or the task.
    """
    labels, predictions = _checked(task, labels, outputs)
    if task.is_regression:
        return {name: float(_CORRELATIONS[name](labels, predictions)) for name in task.metrics}
    matrix = confusion(task, labels, predictions)
    return {name: float(_FROM_CONFUSION[name](matrix)) for name in task.metrics}


EQUAL = 1e-5
"""Outputs, margins and worths that differ by less are equal: so much depends on which inputs share a batch."""


def ranking(labels: np.ndarray, logits: np.ndarray) -> float:
    """Area under the ROC curve of a classifier of two classes, 0.5 by chance: the share of all couples of an input of
    each class that its logits have in order, whatever its threshold. nan where one class is missing.

    Args:
        labels: ids, `(N,)`.
        logits: `(N, 2)`.
    """
    one = np.asarray(labels, dtype=bool)
    ones, zeros = int(one.sum()), int((~one).sum())
    if not ones or not zeros:
        return float("nan")
    margins = logits[:, 1].astype(np.float64) - logits[:, 0]
    ranks = rankdata(_one_of_equals(margins))  # equal ones share theirs, so count half
    return float((ranks[one].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _one_of_equals(values: np.ndarray) -> np.ndarray:
    """Each value, or the least one that it equals: groups are cut from below, each within `EQUAL` of its first."""
    order = np.argsort(values, kind="stable")
    found, first = values.copy(), -np.inf
    for at, value in zip(order, values[order].tolist()):
        if value - first > EQUAL:
            first = value
        found[at] = first
    return found


def constant_score(task: Task, labels: np.ndarray) -> float:
    """The headline score of the best constant answer, which needs no model; nan of numbers, whose correlation with a
    constant is not defined.
    """
    if task.is_regression:
        return float("nan")
    labels = np.asarray(labels)
    return max(score(task, labels, np.full(len(labels), c))[task.metric] for c in range(task.num_labels))


def to_predictions(task: Task, outputs: np.ndarray) -> np.ndarray:
    """Class ids (int64) or numbers (float64), shape (n,), from logits (n, num_labels) or predictions (n,).

    Raises:
        DataError: The logits are of another width than the task, or not all numbers.
    """
    outputs = np.asarray(outputs)
    if outputs.ndim == 2:
        if outputs.shape[1] != task.num_labels:
            raise DataError(
                f"'{task.name}' needs {task.num_labels} output(s) an input, "
                f"but the model gives {outputs.shape[1]}."
            )
        if not np.isfinite(outputs).all():
            raise DataError(
                f"The model's outputs for '{task.name}' are not all finite numbers: its weights are spoilt."
            )
        outputs = outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)
    return outputs.astype(np.float64 if task.is_regression else np.int64)


def confusion(task: Task, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Counts of shape (num_labels, num_labels), int64: a row a true class, a column a predicted one."""
    size = task.num_labels
    cells = np.bincount(np.asarray(labels) * size + np.asarray(predictions), minlength=size * size)
    return cells.reshape(size, size)


def score_confusions(metric: str, matrices: np.ndarray) -> np.ndarray:
    """A classification metric of each confusion matrix of a stack `(..., classes, classes)`."""
    return _FROM_CONFUSION[metric](matrices)


def correlation(metric: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A regression metric along the last axis; nan where one side is constant."""
    return _CORRELATIONS[metric](x, y)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion, or of a mean of several of the same n; (nan, nan) for n = 0."""
    if n == 0:
        return NO_INTERVAL
    z = _Z
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else float(centre - half)  # Exactly so in theory; rounding would miss it.
    high = 1.0 if successes == n else float(centre + half)
    return low, high


def share_interval(hits: np.ndarray, units: np.ndarray, of: np.ndarray | None = None) -> tuple[float, float]:
    """Wilson's 95% interval of the share of inputs, or of their tokens, that are hits, where those of one unit may be
    alike.

    It is Wilson's for as many independent ones as say as much (the effective sample size of Kish 1965): the variance
    of the share from the units' totals tells how many, and few units tell it badly, which Student's t makes up for.
    Never more than there are, so that units which happen to differ within claim nothing; where all or none are hits, as
    many as units; of a single unit one.

    Args:
        hits: bool `(N,)`; with `of`, how many of each input's tokens are hits.
        units: which unit each input belongs to, `(N,)`, such as `shrp.evaluation.minimal_pairs.units_of`.
        of: the tokens of each input `(N,)`; those of one input are one unit.
    """
    of = np.ones(len(hits), dtype=int) if of is None else of
    n = int(of.sum())
    if n == 0:
        return NO_INTERVAL
    _, unit = np.unique(units[of > 0], return_inverse=True)
    hits, of = hits[of > 0], of[of > 0]
    size = np.bincount(unit, of)
    if len(size) == n:
        return wilson(int(hits.sum()), n)
    share, effective = hits.sum() / n, float(len(size))
    if 0 < share < 1 and len(size) > 1:
        residual = np.bincount(unit, hits) - share * size
        variance = len(size) / (len(size) - 1) * (residual**2).sum() / n
        effective = min(n, n * share * (1 - share) / max(variance, 1e-12))
        effective = max(1.0, effective * (_Z / stdtrit(len(size) - 1, 0.975)) ** 2)
    return wilson(share * effective, effective)


def bootstrap_interval(
    task: Task,
    labels: np.ndarray,
    predictions: np.ndarray,
    metric: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% interval by the percentile bootstrap over the inputs.

    Args:
        task: Names the metrics.
        labels: Shape (n,).
        predictions: Predictions (n,) or logits (n, num_labels).
        metric: One of the task's metrics; None takes its headline metric.
        resamples: How many samples of n inputs, drawn with replacement.
        seed: Makes the interval reproducible.

    Returns:
        (low, high); resamples without a defined score are left out. (nan, nan) if there is no other, or if all agree,
        as of a constant or a perfect model: a bootstrap would be certain then, which a few equal answers are no
        ground for.

    Raises:
        DataError: The task has no such metric, or the shapes do not fit.
    """
    metric = metric or task.metric
    if metric not in task.metrics:
        raise DataError(
            f"'{task.name}' is not scored by '{metric}'; its metrics are {', '.join(task.metrics)}."
        )
    labels, predictions = _checked(task, labels, predictions)
    if not (n := len(labels)):
        return NO_INTERVAL
    generator = np.random.default_rng(seed)
    if task.is_regression:
        scores = []
        for size in at_once(resamples, n):
            rows = generator.integers(n, size=(size, n))
            scores.append(_CORRELATIONS[metric](labels[rows], predictions[rows]))
        scores = np.concatenate(scores)
    else:
        matrix = confusion(task, labels, predictions)
        drawn = generator.multinomial(n, matrix.ravel() / n, size=resamples)
        scores = _FROM_CONFUSION[metric](drawn.reshape(resamples, *matrix.shape))
    return of_draws(scores)


def interval(task: Task, labels: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """The headline metric's 95% interval: Wilson's for accuracy, else the bootstrap's; (nan, nan) for none."""
    if task.metric != "accuracy":
        return bootstrap_interval(task, labels, predictions)
    labels, predictions = _checked(task, labels, predictions)
    return wilson(int((labels == predictions).sum()), len(labels))


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided p-value that two models are right equally often, from the same inputs.

    Args:
        correct_a: Whether the first model is right on each input; shape (n,).
        correct_b: The same of the second model, in the same order.

    Raises:
        DataError: The two are of different length.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise DataError(f"Both models must be judged on the same inputs, not {a.size} and {b.size}.")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return 1.0 if only_a + only_b == 0 else float(binomtest(only_a, only_a + only_b).pvalue)


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """95% interval of the difference of two accuracies on the same n inputs: Wald's, each cell half an input larger.

    Unlike the bootstrap it stays honest for a few dozen inputs, and where no input changes sides.
    Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24 (2005).

    Args:
        only_a: inputs that only the first model gets right.
        only_b: inputs that only the second gets right.

    Returns:
        Ends of the interval of (first - second); (nan, nan) for n = 0.
    """
    return _interval_of_mean(only_a - only_b, only_a + only_b, n)


def paired_mean_interval(differences: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean of paired differences from -1 to 1: as `paired_interval`, whose differences are -1, 0 or
    1, but for inputs that are judged several times, each with the mean of its differences.

    Args:
        differences: `(n,)`, one an input.

    Returns:
        Its ends; (nan, nan) for n = 0.
    """
    return _interval_of_mean(
        float(np.sum(differences)), float(np.sum(np.square(differences))), len(differences)
    )


def _interval_of_mean(total: float, squares: float, n: int) -> tuple[float, float]:
    """Agresti and Min's interval from the sum of the differences and that of their squares. Half an input more in each
    cell is two inputs: half of one at 1, half of one at -1, and one at 0.
    """
    if n == 0:
        return NO_INTERVAL
    centre = total / (n + 2)
    half = _Z * np.sqrt(squares + 1 - total**2 / (n + 2)) / (n + 2)
    return max(-1.0, float(centre - half)), min(1.0, float(centre + half))


def _checked(task: Task, labels: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions = to_predictions(task, outputs)
    labels = np.asarray(labels, dtype=predictions.dtype)
    if labels.shape != predictions.shape:
        raise DataError(
            f"Each input needs one label: {labels.size} labels for {predictions.size} predictions."
        )
    for ids in (labels, predictions):
        if not task.is_regression and len(ids) and not 0 <= ids.min() <= ids.max() < task.num_labels:
            raise DataError(f"The class ids of '{task.name}' go from 0 to {task.num_labels - 1}.")
    return labels, predictions


def _ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    fits = denominator != 0
    return np.where(fits, numerator / np.where(fits, denominator, 1), otherwise)


# The functions below take one confusion matrix or a stack of them, (..., classes, classes), and score each.


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


_FROM_CONFUSION: dict[str, Callable] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
}
_CORRELATIONS: dict[str, Callable] = dict(zip(REGRESSION_METRICS, (_pearson, _spearman)))
