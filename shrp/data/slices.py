"""Slices by words, and groups of examples.

A line names a slice and its words, `negation: not, *n't, never`. An example is in the first slice of which it has a word.
Words are whole, in upper or lower case, and may be several in a row; `*` stands for letters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from shrp.data.text_data import TextData
from shrp.errors import DataError

REST = "none of these"
"""The slice of examples that have none of the words."""
TAKEN = (REST, "all pairs", "in two slices")
"""Names that no slice may have: tables use them otherwise."""
MOST, LONGEST = 24, 60
"""Most slices, and most characters of a name."""
_NAME = 150  # characters of slices in the name of their data; longer ones are cut and end in a digest
_STARS = 2
_LETTERS = r"\w{0,40}"  # without a limit, a text without spaces could take hours
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")  # would reverse the text that follows a name


@dataclass(frozen=True)
class WordSlice:
    """A slice by its words, each a word or several in a row, with up to two stars.

    Raises:
        DataError: a word is nothing but stars, or has more than two.
    """

    name: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.words:
            if not word.replace("*", "").strip():
                raise DataError(f"slice '{self.name}': '{word}' would be in every text; give it letters.")
            if word.count("*") > _STARS:
                raise DataError(f"slice '{self.name}': '{word}' has more than {_STARS} stars; take some out.")

    def of(self, data: TextData) -> np.ndarray:
        """Which examples have one of the words, bool `(N,)`."""
        pattern = re.compile("|".join(map(_pattern, self.words)), re.IGNORECASE)
        found = [any(pattern.search(plain(text)) for text in texts) for texts in data.texts]
        return np.array(found, dtype=bool)


def parse_slices(text: str) -> tuple[WordSlice, ...]:
    """Read one slice a line, `name: word, word`; a line without a name is named by its words.

    Raises:
        DataError: a line has no words, or a name that is used twice or too long; or there are more than `MOST`.
    """
    found: list[WordSlice] = []
    for line in filter(None, map(plain, _DIRECTIONS.sub("", text).splitlines())):
        before, colon, after = line.partition(":")
        words = tuple(dict.fromkeys(filter(None, map(plain, (after if colon else before).split(",")))))
        name = before.strip() if colon else ", ".join(words)
        if not words or not name:
            raise DataError(
                f"'{line[: 2 * LONGEST]}' is no slice; write a name, a colon and words: negation: not, never."
            )
        if len(name) > LONGEST:
            asked = "give it a shorter one" if colon else "write a name and a colon before the words"
            raise DataError(f"the name of '{name[:40]} …' is longer than {LONGEST} characters: {asked}.")
        if name in TAKEN:
            raise DataError(f"'{name}' stands for something else in tables; give that slice another name.")
        if name in (one.name for one in found):
            raise DataError(f"there are two slices named '{name}'; give each a name of its own.")
        found.append(WordSlice(name, words))
    if len(found) > MOST:
        raise DataError(f"these are {len(found)} slices; at most {MOST} are taken.")
    return tuple(found)


def sliced_by_words(data: TextData, slices: Sequence[WordSlice]) -> TextData:
    """The data with these slices instead of their own: each example in the first that matches, others in `REST`.

    Stored scores are still found (`TextData.source_fingerprint`).
    """
    names = np.full(len(data), REST, dtype=object)
    for one in reversed(slices):
        names[one.of(data)] = one.name
    words = "\n".join(f"{one.name}: {', '.join(one.words)}" for one in slices)
    return replace(data, slices=tuple(names.tolist()), origin=data.origin or data, slice_words=words)


def only(data: TextData, names: Sequence[str]) -> tuple[TextData, np.ndarray]:
    """The examples of some slices, as data whose name says so, and their numbers in the whole, int64 `(n,)`.

    Raises:
        DataError: the data have no slices, or none of a name.
    """
    known = sorted(set(data.slices or ()))
    if not known:
        raise DataError(f"{data.name} has no slices to select from.")
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{data.name} has no slice '{unknown[0]}'; it has {', '.join(known)}.")
    rows = np.flatnonzero(np.isin(np.array(data.slices, dtype=object), list(names)))
    shown = ", ".join(name for name in known if name in names)
    if len(shown) > _NAME:
        shown = f"{shown[:_NAME].rstrip()}… [{hashlib.sha256(shown.encode()).hexdigest()[:6]}]"
    return replace(data.subset(rows), name=f"{data.name}, only {shown} ({len(rows)} of {len(data)})"), rows


def plain(text: str) -> str:
    """With straight apostrophes, as people type them, and single spaces."""
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def _pattern(word: str) -> str:
    """Finds a word, whole where it begins or ends with a letter or a star."""
    inner = re.escape(word).replace(r"\*", _LETTERS)
    start = r"(?<!\w)" if re.match(r"[\w*]", word) else ""
    end = r"(?!\w)" if re.search(r"[\w*]$", word) else ""
    return start + inner + end


# Groups of examples

CLASS, ANSWER, OUTCOME, SLICE, LENGTH = GROUPINGS = ("class", "answer", "outcome", "slice", "length")
PARTS = 4
"""Numbers, lengths among them, are grouped by quarters."""


def input_groups(
    data: TextData,
    answers: Sequence[float] | None = None,
    lengths: Sequence[float] | None = None,
    by: Sequence[str] = GROUPINGS,
) -> dict[str, dict[str, np.ndarray]]:
    """The groupings in `by` that the data allow, in the order of `GROUPINGS`: each group's name and mask `(N,)`.

    Each example is in one group of each grouping, and no group is empty. Numbers, such as the labels of a regression,
    are grouped by quarters; the outcome of a regression is its absolute error.

    Args:
        answers: predictions, a class or a number each; None omits answer and outcome.
        lengths: of the examples, in tokens; None omits them.

    Raises:
        DataError: answers or lengths are of other examples.
    """
    for what, values in (("answers", answers), ("lengths", lengths)):
        if values is not None and len(values) != len(data):
            raise DataError(f"{len(values)} {what} are not of the {len(data)} examples of {data.name}.")
    found = {}
    for one in GROUPINGS:
        if one in by and not lacking(one, data, answers is not None, lengths is not None):
            masks = _masks(one, data, answers, lengths)
            found[one] = {name: mask for name, mask in masks.items() if mask.any()}
    return found


def groups_by(
    by: str, data: TextData, answers: Sequence[float] | None = None, lengths: Sequence[float] | None = None
) -> dict[str, np.ndarray]:
    """One of the groupings of `input_groups`; a `DataError` says why there is none."""
    if why := lacking(by, data, answers is not None, lengths is not None):
        raise DataError(why)
    return input_groups(data, answers, lengths, (by,))[by]


def lacking(by: str, data: TextData, answered: bool = True, measured: bool = True) -> str:
    """Why these data have no groups of this kind, in a sentence; empty where they have.

    `answered` and `measured`: whether predictions and lengths are known. No such grouping is a `DataError`.
    """
    if by not in GROUPINGS:
        known = f"{', '.join(GROUPINGS[:-1])} or {GROUPINGS[-1]}"
        raise DataError(f"examples can be grouped by {known}, not by {by!r}.")
    if by in (CLASS, OUTCOME) and data.labels is None:
        return f"{data.name} has no labels; groups by {by} need labelled data."
    if by == SLICE and data.slices is None:
        return f"{data.name} has no slices; groups by slice need a slice column or custom slices (--slice)."
    if by in (ANSWER, OUTCOME) and not answered:
        return f"no numeric predictions on {data.name} are known; groups by {by} need them."
    return f"the lengths of {data.name} are not known." if by == LENGTH and not measured else ""


def _masks(
    by: str, data: TextData, answers: Sequence[float] | None, lengths: Sequence[float] | None
) -> dict[str, np.ndarray]:
    if by == SLICE:
        slices = np.array(data.slices, dtype=object)
        return {name: slices == name for name in dict.fromkeys(data.slices)}
    if by == LENGTH:
        return _quarters(np.asarray(lengths), "{} tokens")
    if by == OUTCOME:
        if data.task.is_regression:
            return _quarters(np.abs(np.asarray(answers) - data.labels), "off by {}")
        return {"right": np.asarray(answers) == data.labels, "wrong": np.asarray(answers) != data.labels}
    values = data.labels if by == CLASS else np.asarray(answers)
    if data.task.is_regression:
        return _quarters(values)
    return {name: values == i for i, name in enumerate(data.task.label_names)}


def _quarters(values: np.ndarray, label: str = "{}") -> dict[str, np.ndarray]:
    """The examples in each quarter of some numbers, named by its range; fewer groups for few values."""
    if not len(values):
        return {}
    part = np.quantile(values, np.arange(1, PARTS) / PARTS).searchsorted(values)
    found: dict[str, np.ndarray] = {}
    for at in np.unique(part):
        low, high = (f"{end:.4g}" for end in (values[part == at].min(), values[part == at].max()))
        name = label.format(low if low == high else f"{low} to {high}")
        found[name] = found.get(name, False) | (part == at)  # neighbours may look alike, rounded
    return found
