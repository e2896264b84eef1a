"""A data set in memory: texts in a fixed order, with labels, slices and minimal pairs where they are known."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from shrp.data.squad import exact_match
from shrp.data.tabular import distinct
from shrp.data.tasks import UNLABELLED, Task
from shrp.errors import DataError
from shrp.phrases import counted

_STRATA = 10  # of a regression's labels
FEWEST = 40
"""Examples below which `halves` are too small to select on."""


@dataclass(frozen=True, eq=False)
class TextData:
    """Texts of one task, in a fixed order of `N` examples.

    Raises:
        DataError: the parts differ in length, or a label is not one of the task's.
    """

    task: Task
    name: str
    """Where the data are from, such as "glue/sst2 validation"."""
    texts: tuple[tuple[str, ...], ...]
    """One tuple an example, of one text or two, exactly as in the source."""
    labels: np.ndarray | None = None
    """int64 class ids, or float64 numbers for regression, `(N,)`; of a task on words ids `(N, W)`, `UNLABELLED` after the
    last word of an example; of one on spans the first character of each known answer and the one after its last, `(N, A, 2)`,
    `UNLABELLED` after the last answer."""
    slices: tuple[str, ...] | None = None
    """The phenomenon of each example, such as "negation"."""
    pairs: tuple[str, ...] | None = None
    """A name for each example: two of one name are a minimal pair (`pairs_of`); "" is in none."""
    origin: "TextData | None" = None
    """The same data without the slices that a person gave."""

    def __post_init__(self) -> None:
        parts = {"labels": self.labels, "slices": self.slices, "names of pairs": self.pairs}
        for part, values in parts.items():
            if values is not None and len(values) != len(self.texts):
                raise DataError(f"'{self.name}' has {len(self.texts)} texts but {len(values)} {part}.")
        if any(len(text) != len(self.task.text_columns) for text in self.texts):
            raise DataError(f"An example of '{self.task.name}' has {len(self.task.text_columns)} text(s).")
        if self.labels is None:
            return
        labels, top = np.asarray(self.labels, dtype=np.float64), self.task.num_labels - 1
        if self.task.is_regression:
            if len(wrong := labels[~np.isfinite(labels)]):
                raise DataError(f"The labels of '{self.task.name}' are numbers; {wrong[0]:g} is none.")
        elif self.task.on_spans:
            labels, sizes = labels.astype(np.int64), np.array([len(text) for _, text in self.texts])
            known = labels[..., 0] != UNLABELLED
            inside = (labels[..., 0] >= 0) & (labels[..., 0] < labels[..., 1]) & (labels[..., 1] <= sizes[:, None])
            if not (known[:, :1].all() and inside[known].all()):
                raise DataError(f"Each example of '{self.task.name}' needs an answer that is a part of its text.")
        else:
            if len(wrong := labels[labels != np.floor(labels)]):  # nan is unequal to itself
                raise DataError(f"The labels of '{self.task.name}' are class ids; {wrong[0]:g} is none.")
            labels = np.asarray(self.labels, dtype=np.int64)
            least = 0
            if self.task.on_words:
                least = UNLABELLED
                if labels.ndim != 2 or ((labels >= 0) != (np.arange(labels.shape[1]) < self.word_counts[:, None])).any():
                    raise DataError(f"Each word of '{self.task.name}' needs a label.")
            if labels.size and not least <= labels.min() <= labels.max() <= top:
                raise DataError(f"The class ids of '{self.task.name}' go from 0 to {top}.")
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:  # one line: the texts are long
        parts = [counted(len(self), "example"), "without labels" if self.labels is None else "labelled"]
        if self.slices is not None:
            parts.append(counted(len(set(self.slices)), "slice"))
        if self.pairs is not None:
            paired = sum(n == 2 for name, n in Counter(self.pairs).items() if name)
            parts.append(counted(paired, "minimal pair"))
        return f"<TextData {self.name!r}: task {self.task.name!r}, {', '.join(parts)}>"

    @cached_property
    def word_counts(self) -> np.ndarray:
        """Words of each example's first text, int64 `(N,)`."""
        return np.array([len(text[0].split()) for text in self.texts], dtype=np.int64)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of outputs for all examples: `(N, num_labels)`, or `(N, W, num_labels)` of a task on words."""
        if not self.task.on_words:
            return len(self), self.task.num_labels
        width = int(self.word_counts.max(initial=0)) if self.labels is None else self.labels.shape[1]
        return len(self), width, self.task.num_labels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of task, texts, labels and slices; not of pairs, on which no output or score depends."""
        labels = None if self.labels is None else self.labels.tolist()
        content = json.dumps([self.task.to_dict(), self.texts, labels, self.slices])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def source_fingerprint(self) -> str:
        """The fingerprint without the slices that a person gave: for outputs and scores, which do not depend on them."""
        return self.fingerprint if self.origin is None else self.origin.fingerprint

    def check_is_for(self, task: Task, model: str) -> None:
        """Raise `DataError` unless a model for this task reads as many texts and has the same classes."""
        if not task.reads_as(self.task):
            what = f"{self.name} is data of {self.task.name}, and {model} is for {task.name}"
            raise DataError(f"{what}: their texts or their classes are others.")

    def subset(self, indices: Sequence[int] | np.ndarray) -> "TextData":
        """The examples of these indices, in this order; its name says how many of how many."""
        rows = np.asarray(indices, dtype=np.int64)
        return TextData(
            self.task,
            f"{self.name} ({len(rows)} of {len(self)})",
            tuple(self.texts[i] for i in rows),
            None if self.labels is None else self.labels[rows],
            None if self.slices is None else tuple(self.slices[i] for i in rows),
            None if self.pairs is None else tuple(self.pairs[i] for i in rows),
            None if self.origin is None else self.origin.subset(rows),
        )

    def stratified_order(self, seed: int = 0) -> np.ndarray:
        """A random order in which every prefix has about the whole's share of each class.

        Numeric labels are balanced over ten equally large bins; without labels the order is plainly random.

        Returns:
            int64 permutation, a function of the labels and the seed alone.
        """
        generator = np.random.default_rng(seed)
        shuffled = generator.permutation(len(self))
        if self.labels is None or self.task.on_tokens:
            return shuffled
        strata = self.labels
        if self.task.is_regression:
            ranks = np.argsort(np.argsort(strata, kind="stable"))
            strata = ranks * _STRATA // max(len(ranks), 1)
        # The k-th of a class's n members goes to a random place in the k-th n-th of the whole.
        position = np.empty(len(self))
        for stratum in np.unique(strata):
            members = shuffled[strata[shuffled] == stratum]
            position[members] = (np.arange(len(members)) + generator.random(len(members))) / len(members)
        return np.argsort(position, kind="stable")

    def to_frame(self) -> pd.DataFrame:
        """One row an example: the text columns, then `label` (its name, or the number) and `slice` if known.

        A text column of one of these names is renamed like `label (text)`.
        """
        ours = [name for name, part in (("label", self.labels), ("slice", self.slices)) if part is not None]
        frame = pd.DataFrame(list(self.texts), columns=distinct(self.task.text_columns, ours))
        if self.labels is not None:
            frame["label"] = named(self.task, self.known)
        if self.slices is not None:
            frame["slice"] = list(self.slices)
        return frame

    @property
    def known(self) -> np.ndarray | None:
        """The labels; of a task on spans the texts of each example's answers, tuples `(N,)`."""
        return self.labels if self.labels is None or not self.task.on_spans else marked(self.texts, self.labels)


def named(task: Task, values: np.ndarray) -> list[str] | np.ndarray:
    """Classes by their names, those of words as one string; numbers and the texts of spans as they are.

    A word without a class is `-`, and of several known answers there is one string.
    """
    if task.on_spans:
        return [one if isinstance(one, str) else " | ".join(dict.fromkeys(one)) for one in values]
    if task.on_words:
        ends = [int(np.flatnonzero(row >= 0).max(initial=-1)) + 1 for row in values]
        rows = zip(values, ends, strict=True)
        return [" ".join(task.label_names[i] if i >= 0 else "-" for i in row[:end]) for row, end in rows]
    return values if task.is_regression else [task.label_names[i] for i in values]


def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which examples have equal labels or predictions, of all their words, bool `(N,)`."""
    return (one == other).reshape(len(one), -1).all(1)


def right(task: Task, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Which predictions are right, of all their words, bool `(N,)`; of spans by SQuAD's exact match.

    Args:
        labels: of classes, or `TextData.known`.
    """
    if task.on_spans:
        return np.array([exact_match(*both) for both in zip(predictions, labels, strict=True)], dtype=bool)
    return same(predictions, labels)


def marked(texts: Sequence[tuple[str, ...]], spans: np.ndarray) -> np.ndarray:
    """What spans of characters `(N, 2)` mark in the second texts, strings `(N,)`; of several `(N, A, 2)` tuples of strings."""
    found = np.empty(len(spans), dtype=object)
    for i, ((_, text), of) in enumerate(zip(texts, spans.tolist(), strict=True)):
        found[i] = tuple(text[a:b] for a, b in of if a >= 0) if spans.ndim == 3 else text[of[0] : of[1]]
    return found


def pairs_of(data: TextData) -> np.ndarray:
    """Minimal pairs: two examples with one name in `TextData.pairs` and different labels.

    Returns:
        int64 `(P, 2)`, the example with the smaller label first.
    """
    groups = defaultdict(list)
    if data.pairs is not None and data.labels is not None and not data.task.on_tokens:
        for i, name in enumerate(data.pairs):
            groups[name].append(i)
    groups.pop("", None)
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
    """The unit of each of `n` examples, int64 `(n,)` from 0 without gaps: a minimal pair, or an example by itself."""
    units = np.arange(n)
    if pairs is not None and len(pairs):
        units[pairs[:, 1]] = units[pairs[:, 0]]
    return np.unique(units, return_inverse=True)[1]


def halves(data: TextData) -> tuple[TextData, TextData]:
    """A half to select experts on and a half to score on, in the data's order; pairs stay together."""
    units = units_of(len(data), pairs_of(data))
    drawn = pd.unique(units[data.stratified_order()])
    before = np.cumsum(np.bincount(units)[drawn]) - np.bincount(units)[drawn]  # examples in the units drawn before
    chosen = np.isin(units, drawn[before < len(data) // 2])
    parts = {"half": chosen, "other half": ~chosen}
    first, second = (
        replace(data.subset(np.flatnonzero(rows)), name=f"{data.name}, {part}") for part, rows in parts.items()
    )
    return first, second
