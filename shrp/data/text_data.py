"""A data set in memory: texts in a fixed order, with labels, slices and minimal pairs where they are known."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from shrp.data.tabular import distinct
from shrp.data.tasks import Task
from shrp.errors import DataError
from shrp.phrases import counted

REGRESSION_STRATA = 10
FEWEST = 40
"""Examples below which `halves` are too small to select on."""


@dataclass(frozen=True, eq=False)
class TextData:
    """Texts of one task, in a fixed order.

    Attributes:
        task: The task that the labels belong to.
        name: Where the data are from, such as "glue/sst2 validation"; figures name it.
        texts: One tuple an input, of one text or two, exactly as in the source.
        labels: int64 class ids, float64 numbers for regression, or None; shape (inputs,).
        slices: The phenomenon of each input, such as "negation", or None.
        pairs: A name for each input, or None: two inputs of one name are a minimal pair (`pairs_of`); one without a
            name ("") belongs to no other.
        origin: Of data that were given slices, by words or by a column of a person's own table: the same without them,
            or as they were shipped.
        slice_words: What these slices are, a line each (`shrp.data.slices`).
        numbers: Of a part of other data, the number of each input in the whole, int64 `(inputs,)`; None of a whole.

    Raises:
        DataError: The parts differ in length, or a label is not one of the task's, such as a class id with a fraction
            or a number that is not finite.
    """

    task: Task
    name: str
    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray | None = None
    slices: tuple[str, ...] | None = None
    pairs: tuple[str, ...] | None = None
    origin: "TextData | None" = None
    slice_words: str = ""
    numbers: np.ndarray | None = None

    def __post_init__(self) -> None:
        for part, values in (
            ("labels", self.labels),
            ("slices", self.slices),
            ("names of pairs", self.pairs),
        ):
            if values is not None and len(values) != len(self.texts):
                raise DataError(f"'{self.name}' has {len(self.texts)} texts but {len(values)} {part}.")
        if any(len(text) != len(self.task.text_columns) for text in self.texts):
            raise DataError(f"An input of '{self.task.name}' has {len(self.task.text_columns)} text(s).")
        if self.labels is None:
            return
        labels = np.asarray(self.labels, dtype=np.float64)
        if not self.task.is_regression:
            if len(wrong := labels[labels != np.floor(labels)]):  # nan is unequal to itself
                raise DataError(f"The labels of '{self.task.name}' are class ids; {wrong[0]:g} is none.")
            labels = np.asarray(self.labels, dtype=np.int64)
        elif len(wrong := labels[~np.isfinite(labels)]):
            raise DataError(f"The labels of '{self.task.name}' are numbers; {wrong[0]:g} is none.")
        top = self.task.num_labels - 1
        if not self.task.is_regression and len(labels) and not 0 <= labels.min() <= labels.max() <= top:
            raise DataError(f"The class ids of '{self.task.name}' go from 0 to {top}.")
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:  # one line: the texts are long
        parts = [counted(len(self), "input"), "without labels" if self.labels is None else "labelled"]
        if self.slices is not None:
            parts.append(counted(len(set(self.slices)), "slice"))
        if self.pairs is not None:
            paired = sum(inputs == 2 for name, inputs in Counter(self.pairs).items() if name)
            parts.append(counted(paired, "minimal pair"))
        return f"<TextData {self.name!r}: task {self.task.name!r}, {', '.join(parts)}>"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over task, texts, labels and slices; equal content gives equal fingerprints.

        Pairs are not in it: no output or score of a model hangs on them.
        """
        labels = None if self.labels is None else self.labels.tolist()
        content = json.dumps([self.task.to_dict(), self.texts, labels, self.slices])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def source_fingerprint(self) -> str:
        """Of the data without slices that a person gave: by it is kept what hangs on none, such as scores."""
        return self.fingerprint if self.origin is None else self.origin.fingerprint

    def subset(self, indices: Sequence[int] | np.ndarray) -> "TextData":
        """The inputs of these indices, in this order; its name says how many of how many they are."""
        rows = np.asarray(indices, dtype=np.int64)
        return TextData(
            self.task,
            f"{self.name} ({len(rows)} of {len(self)})",
            tuple(self.texts[i] for i in rows),
            None if self.labels is None else self.labels[rows],
            None if self.slices is None else tuple(self.slices[i] for i in rows),
            None if self.pairs is None else tuple(self.pairs[i] for i in rows),
            None if self.origin is None else self.origin.subset(rows),
            self.slice_words,
            self.number_of(rows),
        )

    def number_of(self, rows: np.ndarray) -> np.ndarray:
        """The numbers, in the whole that these data are a part of, of the inputs at these places."""
        return rows if self.numbers is None else self.numbers[rows]

    def stratified_order(self, seed: int = 0) -> np.ndarray:
        """A random order in which every prefix has about the whole's share of each class.

        A prefix's count of a class differs from its due by about one input. Numeric labels are balanced over
        ten equally large bins; without labels the order is plainly random.

        Returns:
            int64 permutation of the inputs, a function of the labels and the seed alone.
        """
        generator = np.random.default_rng(seed)
        shuffled = generator.permutation(len(self))
        if self.labels is None:
            return shuffled
        strata = self.labels
        if self.task.is_regression:
            ranks = np.argsort(np.argsort(strata, kind="stable"))
            strata = ranks * REGRESSION_STRATA // max(len(ranks), 1)
        # The k-th of a class's n members goes to a random place in the k-th n-th of the whole.
        position = np.empty(len(self))
        for stratum in np.unique(strata):
            members = shuffled[strata[shuffled] == stratum]
            position[members] = (np.arange(len(members)) + generator.random(len(members))) / len(members)
        return np.argsort(position, kind="stable")

    def to_frame(self) -> pd.DataFrame:
        """One row an input: the text columns, then `label` (its name, or the number) and `slice` if known.

        A text column of the same name as one of these is called `label (text)`.
        """
        ours = [name for name, part in (("label", self.labels), ("slice", self.slices)) if part is not None]
        frame = pd.DataFrame(list(self.texts), columns=distinct(self.task.text_columns, ours))
        if self.labels is not None:
            names = self.task.label_names
            frame["label"] = [names[i] for i in self.labels] if names else self.labels
        if self.slices is not None:
            frame["slice"] = list(self.slices)
        return frame


def pairs_of(data: TextData) -> np.ndarray:
    """Minimal pairs: two examples with one name in `TextData.pairs` and different labels.

    Returns:
        int64 `(P, 2)`, the example with the smaller label first; `(0, 2)` without pairs or labels.
    """
    groups = defaultdict(list)
    if data.pairs is not None and data.labels is not None:
        for i, name in enumerate(data.pairs):
            if name:
                groups[name].append(i)
    two = [pair for pair in groups.values() if len(pair) == 2 and len(set(data.labels[pair])) == 2]
    found = [sorted(pair, key=lambda i: data.labels[i]) for pair in two]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def pairs_among(data: TextData, rows: np.ndarray) -> np.ndarray:
    """Those of `pairs_of` with both examples among `rows`, as positions in `rows`, `(P, 2)`."""
    places = np.full(len(data), -1)
    places[rows] = np.arange(len(rows))
    found = places[pairs_of(data)]
    return found[(found >= 0).all(1)]


def units_of(n: int, pairs: np.ndarray | None) -> np.ndarray:
    """What is resampled as one: both examples of a minimal pair, every other example by itself.

    Args:
        n: examples.
        pairs: as `pairs_of`, or None.

    Returns:
        int64 `(n,)`: the unit of each example, from 0 without gaps.
    """
    units = np.arange(n)
    if pairs is not None and len(pairs):
        units[pairs[:, 1]] = units[pairs[:, 0]]
    return np.unique(units, return_inverse=True)[1]


def halves(data: TextData) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a half to select experts on and of a half to score on, ascending; pairs stay together."""
    order, pairs = data.stratified_order(), pairs_of(data)
    first = np.arange(len(data))
    first[pairs[:, 1]] = pairs[:, 0]
    together: dict[int, list[int]] = {}
    for i in order:
        together.setdefault(int(first[i]), []).append(int(i))
    chosen: list[int] = []
    for rows in together.values():
        if len(chosen) >= len(order) // 2:
            break
        chosen += rows
    return np.sort(chosen), np.setdiff1d(order, chosen)


def in_halves(data: TextData, ranked: np.ndarray, scored: np.ndarray) -> tuple[TextData, TextData]:
    """The half to select on and the half to score on, named as such."""
    chosen = replace(data.subset(ranked), name=f"{data.name}, half")
    return chosen, replace(data.subset(scored), name=f"{data.name}, other half")
