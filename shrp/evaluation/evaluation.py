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
from shrp.data.text_data import TextData, marked, named, right
from shrp.errors import DataError
from shrp.evaluation.metrics import interval, majority_score, score, to_predictions, worth
from shrp.evaluation.statistics import NO_INTERVAL, wilson
from shrp.phrases import counted


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's outputs on some or all examples of a data set, and their score."""

    task: Task
    data: str
    """The data set's name."""
    total: int
    """Examples of the data set."""
    metrics: dict[str, float]
    """All of the task's metrics on the examples so far; nan without labels."""
    interval: tuple[float, float]
    """95% interval of the headline metric; (nan, nan) if it was not computed or there is none."""
    indices: np.ndarray
    """Which examples of the data set the rows below are, ascending; int64 (n,)."""
    logits: np.ndarray
    """The model's outputs in the order of the task's labels; float32 (n, num_labels). Of a task on words (n, W, num_labels),
    nan where there is no word or the model does not read so far; of one on spans the characters of the best one, (n, 2)."""
    labels: np.ndarray | None
    """int64 ids or float64 numbers, (n,); ids of words (n, W); of spans as `TextData.known`."""
    slices: tuple[str, ...] | None
    marked: np.ndarray | None = None
    """The texts of predicted spans, strings (n,)."""

    def __repr__(self) -> str:  # one line: the arrays are long
        ends = " ({:.3f} to {:.3f})".format(*self.interval) if self.ends() else ""
        found = "no labels" if self.labels is None else f"{self.metric} {self.score:.3f}{ends}"
        of = "" if self.complete else f"{self.n:,} of "
        return f"<Evaluation on {self.data!r}: task {self.task.name!r}, {found}, {of}{counted(self.total, 'example')}>"

    @property
    def metric(self) -> str:
        """The headline metric's name."""
        return self.task.metric

    @property
    def score(self) -> float:
        """The headline metric on the examples so far; nan without labels."""
        return self.metrics[self.metric]

    @property
    def n(self) -> int:
        """Examples evaluated so far."""
        return len(self.indices)

    @property
    def predictions(self) -> np.ndarray:
        """Class ids (int64), numbers (float64) for regression, or texts of spans; shape (n,), or (n, W) of a task on words."""
        return to_predictions(self.task, self.logits) if self.marked is None else self.marked

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, or the raw outputs for regression; shape (..., num_labels)."""
        return self.logits if self.task.is_regression else softmax(self.logits, axis=-1)

    @property
    def complete(self) -> bool:
        """Whether every example of the data set has been evaluated."""
        return self.n == self.total

    @property
    def majority_score(self) -> float:
        """The majority-class baseline's headline score on the examples so far; nan without labels or classes."""
        return math.nan if self.labels is None else majority_score(self.task, self.labels)

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is right, of all its words, or an exact match; bool (n,).

        Raises:
            DataError: there are no labels, or they are numbers.
        """
        if self.labels is None or self.task.is_regression:
            raise DataError("Right and wrong need labelled classes; these data have none.")
        return right(self.task, self.labels, self.predictions)

    @property
    def worth(self) -> np.ndarray:
        """The worth of each prediction, by `shrp.evaluation.metrics.worth`; float64 (n,)."""
        return worth(self.task, self.logits if self.marked is None else self.marked, self.labels)

    def by_slice(self) -> pd.DataFrame:
        """The headline metric within each slice: columns slice, n, metric, score, low, high (95%).

        Matthews is 0 in a slice of one class. Empty without slices or labels.
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
        """Recall (with its 95% interval) and precision of each class; nan where a count is 0.

        Columns class, n, predicted (counts, of words if these are labelled), recall, low, high, precision. Empty for
        regression, spans or without labels.
        """
        rows = []
        if self.labels is not None and not self.task.is_regression and not self.task.on_spans:
            predictions = self.predictions
            for index, name in enumerate(self.task.label_names):
                truly, taken = self.labels == index, (predictions == index) & (self.labels >= 0)
                n, predicted, hits = int(truly.sum()), int(taken.sum()), int((truly & taken).sum())
                recall, precision = (hits / count if count else math.nan for count in (n, predicted))
                rows.append((name, n, predicted, recall, *wilson(hits, n), precision))
        names = ["class", "n", "predicted", "recall", "low", "high", "precision"]
        return pd.DataFrame(rows, columns=names)

    def to_frame(self, texts: Sequence[tuple[str, ...]] | None = None) -> pd.DataFrame:
        """One row an example, in the data set's order.

        Args:
            texts: the data set's texts; adds the task's text columns, renamed like `label (text)` where a name is taken.

        Returns:
            Columns index, (texts), (label), prediction, (correct), a `p(<label>)` for each class, (slice). Classes are
            given by name. Columns in brackets only where known; regression has no `correct`, and neither it nor a task on
            words or spans has probabilities.
        """
        columns: dict[str, Any] = {}
        if self.labels is not None:
            columns["label"] = named(self.task, self.labels)
        columns["prediction"] = named(self.task, self.predictions)
        if not self.task.is_regression:
            if self.labels is not None:
                columns["correct"] = self.correct
            probabilities = self.probabilities
            names = () if self.task.on_tokens else self.task.label_names
            columns |= {f"p({name})": probabilities[:, i] for i, name in enumerate(names)}
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
            indices=self.indices[rows],
            logits=self.logits[rows],
            labels=None if self.labels is None else self.labels[rows],
            slices=None if self.slices is None else tuple(self.slices[i] for i in rows),
            marked=None if self.marked is None else self.marked[rows],
        )

    def ends(self) -> list[float] | None:
        """The interval for JSON; None where there is none."""
        return list(self.interval) if all(map(math.isfinite, self.interval)) else None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able summary without the arrays; None for nan."""
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
    """The evaluation of known outputs, with its rows in the data set's order.

    Args:
        indices: int64 `(n,)`, which examples of the data the rows are.
        logits: float32 `(n, num_labels)`, or of words `(n, W, num_labels)`, in the order of the task's labels; of spans their
            characters.
        with_interval: compute the interval, which takes a bootstrap unless the metric is accuracy.
    """
    task, labels, slices, found = data.task, data.known, data.slices, None
    order = np.argsort(indices, kind="stable")
    indices, logits = indices[order], logits[order]
    metrics, bounds = dict.fromkeys(task.metrics, math.nan), NO_INTERVAL
    if task.on_spans:
        found = marked([data.texts[i] for i in indices], to_predictions(task, logits))
    if labels is not None:
        labels, outputs = labels[indices], logits if found is None else found
        metrics = score(task, labels, outputs)
        if with_interval:
            bounds = interval(task, labels, outputs)
    if slices is not None:
        slices = tuple(slices[i] for i in indices)
    return Evaluation(task, data.name, len(data), metrics, bounds, indices, logits, labels, slices, found)


def text_columns(
    evaluation: Evaluation, texts: Sequence[tuple[str, ...]], rows: np.ndarray, names: Sequence[str]
) -> dict[str, list[str]]:
    """The texts of some examples, as columns with these names.

    Raises:
        DataError: the texts are not all those of the evaluation's data.
    """
    if len(texts) != evaluation.total:
        raise DataError(
            f"'{evaluation.data}' has {evaluation.total} examples, but {len(texts)} texts were given."
        )
    return {name: [texts[i][k] for i in rows] for k, name in enumerate(names)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
