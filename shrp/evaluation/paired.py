"""Two models on the same inputs: how their scores differ, where, and on which inputs they disagree.

Paired comparisons are far less noisy than two scores side by side: what is hard for both models cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.data.tabular import distinct
from shrp.data.tasks import TASKS, Task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation, named, text_columns
from shrp.evaluation.metrics import correlation, score, score_confusions
from shrp.evaluation.statistics import (
    NO_INTERVAL,
    bootstrap,
    mcnemar,
    of_draws,
    paired_interval,
    paired_mean_interval,
)

LOST, WON, STILL_WRONG = "right → wrong", "wrong → right", "wrong → other wrong"
FURTHER, NEARER, AS_FAR = "further from the label", "nearer to the label", "as far from the label"
UNLABELLED = "no label"
FLIP_COLUMNS = (
    *("index", "label", "slice", "direction", "class"),
    *("reference", "other", "p_reference", "p_other"),
)
"""The columns of `flip_table` beside the texts'."""

_MEANS_RESAMPLES = 1000
"""Of the bootstrap of a mean over draws."""
_FURTHER = 0.1
"""Predictions of numbers that are further apart than this part of what the labels span differ."""


def paired_difference(
    a: Evaluation, b: Evaluation, *, resamples: int = 2000
) -> tuple[float, tuple[float, float]]:
    """Headline score of `a` minus that of `b` on the inputs that both have seen.

    Args:
        resamples: draws of the bootstrap over inputs; 0 leaves the interval out. Accuracy takes Agresti and Min's
            interval instead, which stays honest where no input changes sides (the bootstrap then gives 0 to 0).

    Returns:
        The difference and its 95% interval; nan without labels or shared inputs, the interval also where no draw of
        the bootstrap differs from the others, as of equal answers.

    Raises:
        DataError: the evaluations are not on the same data.
    """
    rows_a, rows_b = shared_rows(a, b)
    if a.labels is None or not len(rows_a):
        return float("nan"), NO_INTERVAL
    task, labels = a.task, a.labels[rows_a]
    ours, theirs = a.predictions[rows_a], b.predictions[rows_b]
    value = score(task, labels, ours)[a.metric] - score(task, labels, theirs)[a.metric]
    if not resamples:
        return value, NO_INTERVAL
    if a.metric == "accuracy":
        ours, theirs = ours == labels, theirs == labels
        return value, paired_interval(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(labels))
    return value, of_draws(_differences(task, a.metric, labels, ours, theirs, resamples))


def mean_difference(draws: Sequence[Evaluation], b: Evaluation) -> tuple[float, tuple[float, float]]:
    """Mean headline score of several random draws of one change, minus that of `b` on the same inputs.

    What a single draw owes to its luck with each input is averaged too, so that nothing need be added for it: accuracy
    takes Agresti and Min's interval of each input's mean difference; of other metrics the bootstrap draws inputs, the
    same for all of the draws, and takes the mean over these each time.

    Returns:
        The difference and its 95% interval; nan as of `paired_difference`, which one draw alone is left to.

    Raises:
        DataError: the evaluations are not of the same inputs in the same order.
    """
    if len(draws) == 1:
        return paired_difference(draws[0], b, resamples=_MEANS_RESAMPLES)
    if any(one.data != b.data or not np.array_equal(one.indices, b.indices) for one in draws):
        raise DataError(f"Evaluations on '{b.data}' are not of the same inputs in the same order.")
    value = float(np.mean([one.score for one in draws])) - b.score
    if b.labels is None:
        return value, NO_INTERVAL
    if b.metric == "accuracy":
        return value, paired_mean_interval(np.mean([one.correct for one in draws], axis=0) - b.correct)
    return value, of_draws(
        bootstrap(
            lambda rows: np.mean([_resampled(one, rows) for one in draws], axis=0) - _resampled(b, rows),
            len(b.labels),
            resamples=_MEANS_RESAMPLES,
        )
    )


def _resampled(one: Evaluation, rows: np.ndarray) -> np.ndarray:
    """Headline scores of bootstrap samples, rows of inputs `(samples, n)`; `(samples,)`."""
    if one.task.is_regression:
        return correlation(one.metric, one.labels[rows], one.predictions[rows])
    size = one.task.num_labels
    cells = (one.labels * size + one.predictions)[rows] + size**2 * np.arange(len(rows))[:, None]
    counts = np.bincount(cells.ravel(), minlength=len(rows) * size**2)
    return score_confusions(one.metric, counts.reshape(len(rows), size, size).astype(float))


@dataclass(frozen=True)
class Agreement:
    """On how many inputs which of two models is right, and whether chance explains the difference.

    Attributes:
        both: Inputs that both get right.
        only_a: Inputs that only the first gets right.
        only_b: Inputs that only the second gets right.
        neither: Inputs that both get wrong.
        p_value: Of McNemar's exact two-sided test that both are right equally often.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float

    @property
    def n(self) -> int:
        """Inputs that both models have seen."""
        return self.both + self.only_a + self.only_b + self.neither


def agreement(a: Evaluation, b: Evaluation) -> Agreement:
    """Count who is right where, on the inputs that both have seen, and test the difference.

    Raises:
        DataError: the evaluations are not on the same data, or have no labelled classes.
    """
    rows_a, rows_b = shared_rows(a, b)
    ours, theirs = a.correct[rows_a], b.correct[rows_b]
    counts = (int((x & y).sum()) for x in (ours, ~ours) for y in (theirs, ~theirs))
    both, only_a, only_b, neither = counts
    return Agreement(both, only_a, only_b, neither, mcnemar(ours, theirs))


def by_group(reference: Evaluation, other: Evaluation, by: str) -> pd.DataFrame:
    """Scores of two models within slices or classes, largest loss first.

    Args:
        by: `slice` (the headline metric within each) or `class` (recall of each).

    Returns:
        Columns group, n, reference, reference low, reference high, other, other low, other high, change, change low,
        change high: shares or correlations, with 95% intervals. The interval of the change is paired: Agresti and
        Min's for accuracy and recall, the bootstrap's for other metrics. Empty where the data have no such groups.

    Raises:
        DataError: the evaluations are not of the same inputs.
    """
    if by not in ("slice", "class"):
        raise ValueError(f"Groups are slices or classes, not '{by}'.")
    rows_a, rows_b = shared_rows(reference, other)
    if len(rows_a) != reference.n or len(rows_b) != other.n:
        raise DataError("Groups are compared only once both models have seen the same inputs.")
    value = "score" if by == "slice" else "recall"
    first, second = (e.by_slice() if by == "slice" else e.by_class() for e in (reference, other))
    frame = pd.DataFrame({"group": first[by], "n": first["n"]})
    for who, part in (("reference", first), ("other", second)):
        for name, column in ((who, value), (f"{who} low", "low"), (f"{who} high", "high")):
            frame[name] = part[column].to_numpy(dtype=float)
    frame["change"] = frame["other"] - frame["reference"]
    bounds = [_group_interval(reference, other, by, name, rows_a, rows_b) for name in frame["group"]]
    frame["change low"], frame["change high"] = zip(*bounds, strict=True) if bounds else ((), ())
    return frame.sort_values("change", kind="stable").reset_index(drop=True)


def flip_text_columns(task: Task) -> list[str]:
    """The names of the texts' columns in `flip_table`: the task's, one named like ours as `label (text)`."""
    return distinct(task.text_columns, FLIP_COLUMNS)


def far_apart(reference: Evaluation) -> float:
    """How far two predictions of a number must be apart to be told as different: a tenth of what the labels span, to
    two digits; where there are none, or all are equal, of what the reference's predictions span. Of STS-B's 0 to 5 that
    is 0.5. 0 for classes.
    """
    if not reference.task.is_regression:
        return 0.0
    if reference.task == TASKS["stsb"]:
        return 0.5
    if not reference.n:
        return 0.0
    span = 0.0 if reference.labels is None else np.ptp(reference.labels)
    return float(f"{_FURTHER * (span or np.ptp(reference.predictions)):.2g}")


def flip_table(reference: Evaluation, other: Evaluation, data: TextData) -> pd.DataFrame:
    """The inputs that two models judge differently, with all that is known of each.

    Returns:
        Columns index, the texts' (`flip_text_columns`), (label), reference, other (predictions), (class, p_reference,
        p_other), (slice), direction; one row an input, in the data set's order. Both probabilities are of `class`: the
        label, or the reference's prediction where there are no labels. Regression has no classes; there predictions
        more than `far_apart` from each other count as different.

    Raises:
        DataError: the evaluations are not on the same data, or those are not `data`.
    """
    task, (before, after) = reference.task, shared_rows(reference, other)
    gaps = np.abs(reference.predictions[before] - other.predictions[after])
    differ = gaps > far_apart(reference)
    before, after = before[differ], after[differ]
    rows = reference.indices[before]
    frame = pd.DataFrame(
        {"index": rows, **text_columns(reference, data.texts, rows, flip_text_columns(task))}
    )
    if reference.labels is not None:
        frame["label"] = named(task, reference.labels[before])
    frame["reference"] = named(task, reference.predictions[before])
    frame["other"] = named(task, other.predictions[after])
    if not task.is_regression:
        frame["class"] = frame["label"] if "label" in frame else frame["reference"]
        classes = [task.label_names.index(name) for name in frame["class"]]
        frame["p_reference"] = reference.probabilities[before, classes]
        frame["p_other"] = other.probabilities[after, classes]
    if data.slices is not None:
        frame["slice"] = [data.slices[i] for i in rows]
    frame["direction"] = _directions(frame, task)
    return frame


def _directions(frame: pd.DataFrame, task: Task) -> np.ndarray | str:
    if "label" not in frame:
        return UNLABELLED
    label, before, after = (frame[name].to_numpy() for name in ("label", "reference", "other"))
    if task.is_regression:
        gap = np.abs(after - label) - np.abs(before - label)
        return np.select([gap > 0, gap < 0], [FURTHER, NEARER], AS_FAR)
    return np.select([before == label, after == label], [LOST, WON], STILL_WRONG)


def shared_rows(a: Evaluation, b: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each evaluation that hold the inputs which both have seen, in the same order."""
    if a.task != b.task or a.data != b.data or a.total != b.total:
        raise DataError(f"Evaluations on '{a.data}' and '{b.data}' are of different inputs.")
    _, rows_a, rows_b = np.intersect1d(a.indices, b.indices, return_indices=True)
    return rows_a, rows_b


def _group_interval(
    a: Evaluation, b: Evaluation, by: str, name: str, rows_a: np.ndarray, rows_b: np.ndarray
) -> tuple[float, float]:
    """Interval of (b - a) within one group."""
    if by == "class":
        here = a.labels[rows_a] == a.task.label_names.index(name)
    else:
        here = np.array(a.slices, dtype=object)[rows_a] == name
    rows_a, rows_b = rows_a[here], rows_b[here]
    if by == "class" or a.metric == "accuracy":
        before, after = a.correct[rows_a], b.correct[rows_b]
        return paired_interval(int((after & ~before).sum()), int((before & ~after).sum()), len(rows_a))
    return paired_difference(b.only(rows_b), a.only(rows_a))[1]


def _differences(
    task: Task, metric: str, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, resamples: int
) -> np.ndarray:
    """Differences of the metric in bootstrap samples, `(resamples,)`."""
    if task.is_regression:
        return bootstrap(
            lambda rows: (
                correlation(metric, labels[rows], ours[rows])
                - correlation(metric, labels[rows], theirs[rows])
            ),
            len(labels),
            resamples=resamples,
        )
    # A classification metric depends on the counts of (label, ours, theirs) alone.
    size = task.num_labels
    cells, counts = np.unique((labels * size + ours) * size + theirs, return_counts=True)
    label, ours, theirs = cells // size**2, cells // size % size, cells % size

    def scores(drawn: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        into = np.zeros((len(cells), size * size))
        into[np.arange(len(cells)), label * size + predicted] = 1
        return score_confusions(metric, (drawn @ into).reshape(-1, size, size))

    return bootstrap(lambda drawn: scores(drawn, ours) - scores(drawn, theirs), counts, resamples=resamples)
