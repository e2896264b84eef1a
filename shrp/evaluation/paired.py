"""Two models on the same examples: how their scores differ, where, and on which examples they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.data.tabular import distinct
from shrp.data.tasks import TASKS, Task
from shrp.data.text_data import TextData, named, same
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation, text_columns
from shrp.evaluation.metrics import FROM_CONFUSION, of_samples, score
from shrp.evaluation.statistics import NO_INTERVAL, bootstrap, of_draws, paired_interval

LOST, WON, STILL_WRONG = "right → wrong", "wrong → right", "wrong → other wrong"
BOTH_RIGHT = "right → other right"  # of spans, whose case or articles may differ
FURTHER, NEARER, AS_FAR = "further from the label", "nearer to the label", "as far from the label"
UNLABELLED = "no label"
_FLIP_COLUMNS = ["index", "label", "slice", "direction", "class", "reference", "other", "p_reference", "p_other"]
_MEANS_RESAMPLES = 1000
_FURTHER = 0.1
"""Predicted numbers differ if they are further apart than this share of the labels' range."""


def paired_difference(
    a: Evaluation, b: Evaluation, *, resamples: int = 2000
) -> tuple[float, tuple[float, float]]:
    """Headline score of `a` minus that of `b` on the examples that both have seen, and its 95% interval.

    Accuracy has Agresti and Min's interval, which stays honest where no prediction changes; other metrics the
    bootstrap's. Both are nan without labels or shared examples; the interval also if all draws are equal.

    Args:
        resamples: draws of the bootstrap; 0 leaves the interval out.

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
    if task.counts_examples:
        return value, paired_interval((ours == labels).astype(float) - (theirs == labels))
    return value, of_draws(_differences(task, labels, ours, theirs, resamples))


def mean_difference(draws: Sequence[Evaluation], b: Evaluation) -> tuple[float, tuple[float, float]]:
    """Mean headline score of several random draws, minus that of `b` on the same examples, and its 95% interval.

    Accuracy has Agresti and Min's interval of each example's mean difference. For other metrics the bootstrap draws
    examples, the same for all draws, and averages over these. One draw is left to `paired_difference`.

    Raises:
        DataError: the evaluations are not of the same examples.
    """
    if len(draws) == 1:
        return paired_difference(draws[0], b, resamples=_MEANS_RESAMPLES)
    if any(one.data != b.data or not np.array_equal(one.indices, b.indices) for one in draws):
        raise DataError(f"Evaluations on '{b.data}' are not of the same examples.")
    value = float(np.mean([one.score for one in draws])) - b.score
    if b.labels is None:
        return value, NO_INTERVAL
    if b.task.counts_examples:
        return value, paired_interval(np.mean([one.correct for one in draws], axis=0) - b.correct)
    theirs, *ours = (of_samples(one.task, one.labels, one.predictions) for one in (b, *draws))

    def statistic(rows: np.ndarray) -> np.ndarray:
        return np.mean([one(rows) for one in ours], axis=0) - theirs(rows)

    return value, of_draws(bootstrap(statistic, len(b.labels), resamples=_MEANS_RESAMPLES))


@dataclass(frozen=True)
class Agreement:
    """How many examples both models, one of them or neither gets right."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float
    """Of McNemar's exact two-sided test that both are right equally often."""

    @property
    def n(self) -> int:
        """Examples that both models have seen."""
        return self.both + self.only_a + self.only_b + self.neither


def agreement(a: Evaluation, b: Evaluation) -> Agreement:
    """Count who is right where, on the examples that both have seen, and test the difference.

    Raises:
        DataError: the evaluations are not on the same data, or have no labelled classes.
    """
    from scipy.stats import binomtest

    rows_a, rows_b = shared_rows(a, b)
    ours, theirs = a.correct[rows_a], b.correct[rows_b]
    both, only_a, only_b, neither = (int((x & y).sum()) for x in (ours, ~ours) for y in (theirs, ~theirs))
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return Agreement(both, only_a, only_b, neither, p_value)


def by_group(reference: Evaluation, other: Evaluation, by: str) -> pd.DataFrame:
    """Scores of two models within slices or classes, largest loss first.

    Args:
        by: `slice` (the headline metric within each) or `class` (recall of each).

    Returns:
        Columns group, n, reference, reference low, reference high, other, other low, other high, change, change low,
        change high, with 95% intervals; that of the change is paired. Empty where the data have no such groups.

    Raises:
        DataError: the evaluations are not of the same examples.
    """
    if len(shared_rows(reference, other)[0]) != max(reference.n, other.n):
        raise DataError("Groups are compared only once both models have seen the same examples.")
    value = "score" if by == "slice" else "recall"
    first, second = (e.by_slice() if by == "slice" else e.by_class() for e in (reference, other))
    if by == "class" and reference.task.on_words:  # words of one example depend on each other
        first, second = first.head(0), second.head(0)
    frame = pd.DataFrame({"group": first[by], "n": first["n"]})
    for who, part in (("reference", first), ("other", second)):
        for name, column in ((who, value), (f"{who} low", "low"), (f"{who} high", "high")):
            frame[name] = part[column].to_numpy(dtype=float)
    frame["change"] = frame["other"] - frame["reference"]
    bounds = [_group_interval(reference, other, by, name) for name in frame["group"]]
    frame["change low"], frame["change high"] = zip(*bounds, strict=True) if bounds else ((), ())
    return frame.sort_values("change", kind="stable").reset_index(drop=True)


def flip_text_columns(task: Task) -> list[str]:
    """The texts' columns in `flip_table`: the task's, renamed like `label (text)` where a name is taken."""
    return distinct(task.text_columns, _FLIP_COLUMNS)


def far_apart(reference: Evaluation) -> float:
    """The distance from which two predicted numbers count as different; 0 for classes.

    A tenth of the labels' range, to two digits (0.5 for STS-B); of the reference's predictions where that is 0 or unknown.
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
    """The examples that two models predict differently.

    Returns:
        Columns index, the texts' (`flip_text_columns`), (label), reference, other (predictions), (class, p_reference,
        p_other), (slice), direction; one row an example, in the data set's order. Both probabilities are of `class`: the
        label, or the reference's prediction without labels. Numbers differ by more than `far_apart`.

    Raises:
        DataError: the evaluations are not on the same data, or those are not `data`.
    """
    task, (before, after) = reference.task, shared_rows(reference, other)
    ours, theirs = reference.predictions[before], other.predictions[after]
    differ = ~same(ours, theirs) if task.on_tokens else np.abs(ours - theirs) > far_apart(reference)
    before, after = before[differ], after[differ]
    rows = reference.indices[before]
    texts = text_columns(reference, data.texts, rows, flip_text_columns(task))
    frame = pd.DataFrame({"index": rows, **texts})
    if reference.labels is not None:
        frame["label"] = named(task, reference.labels[before])
    frame["reference"] = named(task, reference.predictions[before])
    frame["other"] = named(task, other.predictions[after])
    if task.classifies_texts:
        frame["class"] = frame["label"] if "label" in frame else frame["reference"]
        classes = [task.label_names.index(name) for name in frame["class"]]
        frame["p_reference"] = reference.probabilities[before, classes]
        frame["p_other"] = other.probabilities[after, classes]
    if data.slices is not None:
        frame["slice"] = [data.slices[i] for i in rows]
    if reference.labels is None:
        frame["direction"] = UNLABELLED
    elif task.is_regression:
        gap = np.abs(frame["other"] - frame["label"]) - np.abs(frame["reference"] - frame["label"])
        frame["direction"] = np.select([gap > 0, gap < 0], [FURTHER, NEARER], AS_FAR)
    else:
        held, got = reference.correct[before], other.correct[after]
        frame["direction"] = np.select([held & got, held, got], [BOTH_RIGHT, LOST, WON], STILL_WRONG)
    return frame


def shared_rows(a: Evaluation, b: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each evaluation that hold the examples which both have seen, in the same order.

    Raises:
        DataError: the evaluations are not on the same data.
    """
    if a.task != b.task or a.data != b.data or a.total != b.total:
        raise DataError(f"Evaluations on '{a.data}' and '{b.data}' are of different examples.")
    _, rows_a, rows_b = np.intersect1d(a.indices, b.indices, return_indices=True)
    return rows_a, rows_b


def _group_interval(a: Evaluation, b: Evaluation, by: str, name: str) -> tuple[float, float]:
    """Interval of (b - a) within one group; both are of the same examples."""
    groups = [a.task.label_names[i] for i in a.labels] if by == "class" else a.slices
    here = np.array(groups, dtype=object) == name
    if by == "class" or a.task.counts_examples:
        return paired_interval(b.correct[here].astype(float) - a.correct[here])
    return paired_difference(b.only(here), a.only(here))[1]


def _differences(
    task: Task, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, resamples: int
) -> np.ndarray:
    """Differences of the headline metric in bootstrap samples, `(resamples,)`."""
    if not task.classifies_texts:
        first, second = (of_samples(task, labels, one) for one in (ours, theirs))
        return bootstrap(lambda rows: first(rows) - second(rows), len(labels), resamples=resamples)
    # A classification metric depends on the counts of (label, ours, theirs) alone.
    size = task.num_labels
    cells, counts = np.unique((labels * size + ours) * size + theirs, return_counts=True)
    label, ours, theirs = cells // size**2, cells // size % size, cells % size

    def scores(drawn: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        into = np.zeros((len(cells), size * size))
        into[np.arange(len(cells)), label * size + predicted] = 1
        return FROM_CONFUSION[task.metric]((drawn @ into).reshape(-1, size, size))

    return bootstrap(lambda drawn: scores(drawn, ours) - scores(drawn, theirs), counts, resamples=resamples)
