"""At which size of a pruned model its answers change: input by input, and by group of inputs.

Shapes: `N` inputs, `S` sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation, named, text_columns
from shrp.evaluation.paired import far_apart
from shrp.evaluation.statistics import wilson

ALL = "all"
"""The group of all inputs."""
COLUMNS = ("index", "label", "slice", "answer", "holds from", "changes", "becomes")
"""Those of `Breaking.to_frame` beside the texts'."""


@dataclass(frozen=True, eq=False)
class Breaking:
    """Which answers of a reference each of several prunings changes."""

    reference: Evaluation
    indices: np.ndarray
    """Which inputs of the data the rows are, ascending, `(N,)`."""
    answers: np.ndarray
    """What the reference answers, `(N,)`."""
    sizes: np.ndarray
    """How many experts each pruning keeps in all, ascending, `(S,)`."""
    changed: np.ndarray
    """Whether a pruning answers an input otherwise, `(N, S)`; of numbers, by more than
    `shrp.evaluation.paired.far_apart`.
    """
    predictions: np.ndarray
    """What the prunings answer, `(N, S)`."""

    @property
    def holds_from(self) -> np.ndarray:
        """The fewest experts from which on, at every larger size that was tried, the answer is the reference's: `(N,)`;
        nan where even the largest one changes it.
        """
        after = np.flip(
            np.logical_or.accumulate(np.flip(self.changed, 1), 1), 1
        )  # here, or at any larger size
        first = (~after).argmax(1)
        return np.where(after[:, -1], np.nan, self.sizes[first].astype(float))

    @property
    def changes(self) -> np.ndarray:
        """At how many of the sizes the answer is another one, `(N,)`."""
        return self.changed.sum(1)

    def by_group(self, groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """The share of answers that change, for each group and size.

        Args:
            groups: name -> mask over all of the data. All inputs come first, and groups without any are left out; a
                group may be called like them, so rows are told apart by their place.

        Returns:
            Columns group, n, kept (experts in all), changed (how many answers), share, low, high (95%, Wilson's).
        """
        rows = []
        parts = {name: mask[self.indices] for name, mask in groups.items()}
        for name, mask in [(ALL, np.ones(len(self.changed), dtype=bool)), *parts.items()]:
            if n := int(mask.sum()):
                counts = self.changed[mask].sum(0).tolist()
                rows += [
                    (name, n, size, c, c / n, *wilson(c, n)) for size, c in zip(self.sizes.tolist(), counts)
                ]
        return pd.DataFrame(rows, columns=["group", "n", "kept", "changed", "share", "low", "high"])

    def to_frame(self, data: TextData) -> pd.DataFrame:
        """One row an input, what breaks first on top.

        Returns:
            Columns index, the texts' (named like ours as `label (text)`), (label), (slice), answer (the reference's),
            becomes (the answer at the largest size that changes it; None where none does), holds from (`holds_from`),
            changes (`changes`).

        Raises:
            DataError: these are not the data of the evaluations.
        """
        task, rows, ever = self.reference.task, self.indices, self.changed.any(1)
        texts = text_columns(self.reference, data.texts, rows, distinct(task.text_columns, COLUMNS))
        frame = pd.DataFrame({"index": rows, **texts})
        if data.labels is not None:
            frame["label"] = named(task, data.labels[rows])
        if data.slices is not None:
            frame["slice"] = [data.slices[row] for row in rows]
        frame["answer"] = named(task, self.answers)
        largest = self.changed.shape[1] - 1 - np.flip(self.changed, 1).argmax(1)
        other = named(task, self.predictions[np.arange(len(rows)), largest])
        frame["becomes"] = pd.Series(list(other), dtype=object).where(ever, None)
        frame["holds from"], frame["changes"] = self.holds_from, self.changes
        order = np.lexsort((rows, -self.changes, -np.nan_to_num(self.holds_from, nan=np.inf)))
        return frame.iloc[order].reset_index(drop=True)


def breaking(reference: Evaluation, prunings: Sequence[tuple[int, Evaluation]]) -> Breaking:
    """Compare prunings of several sizes with a reference, such as the routed model.

    Args:
        prunings: how many experts each keeps in all, and its evaluation; of one size the last one counts.

    Raises:
        DataError: there is none, or they are not of the same inputs as the reference.
    """
    by_size = dict(sorted(dict(prunings).items()))
    if not by_size:
        raise DataError("No pruning was evaluated, so nothing can be told of where answers change.")
    rows, predictions = reference.indices, []
    for one in by_size.values():
        if one.data != reference.data or not np.array_equal(one.indices, rows):
            raise DataError(f"Evaluations on '{reference.data}' are not of the same inputs.")
        predictions.append(one.predictions)
    answers, apart = reference.predictions, far_apart(reference)
    found = np.stack(predictions, 1)
    return Breaking(
        reference, rows, answers, np.array(list(by_size)), np.abs(found - answers[:, None]) > apart, found
    )
