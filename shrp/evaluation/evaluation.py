"""What an evaluation found: outputs, scores, and the tables made of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from shrp.data.tabular import distinct
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.metrics import constant_score, interval, score, to_predictions
from shrp.evaluation.statistics import NO_INTERVAL, wilson
from shrp.phrases import counted


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's outputs on some or all inputs of a data set, and their score.

    Attributes:
        task: The task.
        data: The data set's name.
        metric: The headline metric's name.
        score: Its value on the inputs so far; nan without labels.
        interval: Its 95% interval (low, high); (nan, nan) where it was not computed or there is none.
        n: Inputs evaluated so far.
        total: Inputs of the data set.
        metrics: All of the task's metrics on the inputs so far.
        indices: Which inputs of the data set the rows below are, ascending; int64 (n,).
        logits: The model's outputs in the order of the task's labels; float32 (n, num_labels).
        labels: int64 ids or float64 numbers, (n,), or None.
        slices: The phenomenon of each row, or None.
    """

    task: Task
    data: str
    metric: str
    score: float
    interval: tuple[float, float]
    n: int
    total: int
    metrics: dict[str, float]
    indices: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None
    slices: tuple[str, ...] | None

    def __repr__(self) -> str:  # one line: the arrays are long
        ends = " ({:.3f} to {:.3f})".format(*self.interval) if self.ends() else ""
        found = "no labels" if self.labels is None else f"{self.metric} {self.score:.3f}{ends}"
        of = "" if self.complete else f"{self.n:,} of "
        return f"<Evaluation on {self.data!r}: task {self.task.name!r}, {found}, {of}{counted(self.total, 'input')}>"

    @property
    def predictions(self) -> np.ndarray:
        """Class ids (int64), or numbers (float64) for regression; shape (n,)."""
        return to_predictions(self.task, self.logits)

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, or the raw outputs for regression; shape (n, num_labels)."""
        return self.logits if self.task.is_regression else softmax(self.logits, axis=1)

    @property
    def complete(self) -> bool:
        """Whether every input of the data set has been evaluated."""
        return self.n == self.total

    @property
    def constant(self) -> float:
        """The headline score of the best constant answer on the inputs so far; nan without labels, and of numbers."""
        return math.nan if self.labels is None else constant_score(self.task, self.labels)

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is right; bool (n,).

        Raises:
            DataError: There are no labels, or they are numbers.
        """
        if self.labels is None or self.task.is_regression:
            raise DataError("Right and wrong need labelled classes; these data have none.")
        return self.predictions == self.labels

    def by_slice(self) -> pd.DataFrame:
        """The headline metric within each slice: columns slice, n, metric, score, low, high (95%).

        Note that Matthews is 0 in a slice of one class only, whatever was predicted. Empty without slices or labels.
        """
        rows = []
        if self.slices is not None and self.labels is not None:
            slices, predictions = np.array(self.slices, dtype=object), self.predictions
            for name in sorted(set(self.slices)):
                here = np.flatnonzero(slices == name)
                args = (self.task, self.labels[here], predictions[here])
                rows.append((name, len(here), self.metric, score(*args)[self.metric], *interval(*args)))
        return pd.DataFrame(rows, columns=["slice", "n", "metric", "score", "low", "high"])

    def by_class(self) -> pd.DataFrame:
        """Recall and precision of each class: columns class, n, predicted, recall, low, high, precision.

        `n` counts the inputs of the class, `predicted` those taken for it, low and high are the recall's 95%
        interval. Where a count is 0 its ratio is nan. Empty for regression or without labels.
        """
        rows = []
        if self.labels is not None and not self.task.is_regression:
            predictions = self.predictions
            for index, name in enumerate(self.task.label_names):
                truly, taken = self.labels == index, predictions == index
                n, predicted, hits = int(truly.sum()), int(taken.sum()), int((truly & taken).sum())
                recall, precision = (hits / count if count else math.nan for count in (n, predicted))
                rows.append((name, n, predicted, recall, *wilson(hits, n), precision))
        names = ["class", "n", "predicted", "recall", "low", "high", "precision"]
        return pd.DataFrame(rows, columns=names)

    def to_frame(self, texts: Sequence[tuple[str, ...]] | None = None) -> pd.DataFrame:
        """One row an input, in the data set's order.

        Args:
            texts: The data set's texts; adds the task's text columns, one named like ours as `label (text)`.

        Returns:
            Columns index, (texts), (label), prediction, (correct), a `p(<label>)` for each class, (slice).
            Classes are given by name. Columns in brackets only where they are known; regression has no
            `correct` and no probabilities.
        """
        columns: dict[str, Any] = {}
        if self.labels is not None:
            columns["label"] = named(self.task, self.labels)
        columns["prediction"] = named(self.task, self.predictions)
        if not self.task.is_regression:
            if self.labels is not None:
                columns["correct"] = self.correct
            probabilities = self.probabilities
            columns |= {f"p({name})": probabilities[:, i] for i, name in enumerate(self.task.label_names)}
        if self.slices is not None:
            columns["slice"] = list(self.slices)
        inputs: dict[str, Any] = {"index": self.indices}
        if texts is not None:
            names = distinct(self.task.text_columns, (*inputs, *columns))
            inputs |= text_columns(self, texts, self.indices, names)
        return pd.DataFrame(inputs | columns)

    def only(self, rows: np.ndarray) -> "Evaluation":
        """Some rows, given ascending or as a mask; scores are not recomputed."""
        rows = np.arange(self.n)[rows]
        return replace(
            self,
            n=len(rows),
            indices=self.indices[rows],
            logits=self.logits[rows],
            labels=None if self.labels is None else self.labels[rows],
            slices=None if self.slices is None else tuple(self.slices[i] for i in rows),
        )

    def ends(self) -> list[float] | None:
        """The interval as rows hold it, which are saved as JSON; None where there is none."""
        return list(self.interval) if all(map(math.isfinite, self.interval)) else None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able summary without the arrays; what is not a number is None."""
        return {
            "task": self.task.name,
            "data": self.data,
            "metric": self.metric,
            "score": _finite(self.score),
            "interval": [_finite(end) for end in self.interval],
            "n": self.n,
            "total": self.total,
            "metrics": {name: _finite(value) for name, value in self.metrics.items()},
        }


def summarise(data: TextData, indices: np.ndarray, logits: np.ndarray, with_interval: bool) -> Evaluation:
    """The evaluation of outputs that are there already, with its rows in the data set's order.

    Args:
        indices: int64 `(n,)`, which inputs of the data the rows are.
        logits: float32 `(n, num_labels)`, in the order of the task's labels.
        with_interval: compute the interval, which takes a bootstrap unless the metric is accuracy.
    """
    task, labels, slices = data.task, data.labels, data.slices
    order = np.argsort(indices, kind="stable")
    indices, logits = indices[order], logits[order]
    metrics = dict.fromkeys(task.metrics, float("nan"))
    bounds = NO_INTERVAL
    if labels is not None:
        labels = labels[indices]
        metrics = score(task, labels, logits)
        if with_interval:
            bounds = interval(task, labels, logits)
    return Evaluation(
        task=task,
        data=data.name,
        metric=task.metric,
        score=metrics[task.metric],
        interval=bounds,
        n=len(indices),
        total=len(data),
        metrics=metrics,
        indices=indices,
        logits=logits,
        labels=labels,
        slices=None if slices is None else tuple(slices[i] for i in indices),
    )


def text_columns(
    evaluation: Evaluation, texts: Sequence[tuple[str, ...]], rows: np.ndarray, names: Sequence[str]
) -> dict[str, list[str]]:
    """The texts of some inputs, as columns with these names.

    Raises:
        DataError: the texts are not all those of the evaluation's data.
    """
    if len(texts) != evaluation.total:
        raise DataError(
            f"The evaluation is of {evaluation.total} inputs but {len(texts)} texts were given; give all "
            f"those of '{evaluation.data}'."
        )
    return {name: [texts[i][k] for i in rows] for k, name in enumerate(names)}


def named(task: Task, values: np.ndarray) -> list[str] | np.ndarray:
    """Classes by their names; numbers as they are."""
    return values if task.is_regression else [task.label_names[i] for i in values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
