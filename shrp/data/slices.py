"""Slices of one's own: groups of inputs by words that their texts contain, or by their numbers.

A line names a slice and the words that make it, `negation: not, *n't, never`; an input is in the first slice of which
it has a word. Words are whole, in either case, and may be several in a row; a `*` stands for letters. `#12` is the
input of that number, from 0, and `#12-20` are nine in a row.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shrp.data.text_data import TextData
from shrp.errors import DataError

REST = "none of these"
"""The slice of inputs that have none of the words."""
TAKEN = (REST, "all pairs", "in two slices")
"""Names that no slice may have: this one, and those that tables of minimal pairs have (`shrp.evaluation.minimal_pairs`)."""
MOST, LONGEST = 24, 60
"""Slices at most, and characters of a name."""
_NAME = 150
"""Characters that names of slices take in that of their data; longer ones are cut, and told apart by a digest."""
_STARS = 2
_LETTERS = r"\w{0,40}"
"""What a star stands for; were there no limit, a text without spaces could take hours."""
_NUMBERS = re.compile(r"#(\d{1,9})(?: ?[-\N{EN DASH}] ?#?(\d{1,9}))?")
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Signs that would turn around what stands after a name."""


@dataclass(frozen=True)
class WordSlice:
    """A slice by its words, each a word, several in a row, or with stars for letters; or inputs' numbers.

    Raises:
        DataError: a word is nothing but stars, or has more than two; or numbers run backwards.
    """

    name: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.words:
            if not word.replace("*", "").strip():
                raise DataError(f"slice '{self.name}': '{word}' would be in every text; give it letters.")
            if word.count("*") > _STARS:
                raise DataError(f"slice '{self.name}': '{word}' has more than {_STARS} stars; take some out.")
        for numbers in self.numbers:
            if not numbers:
                said = f"#{numbers.stop - 1}-{numbers.start}"
                raise DataError(f"slice '{self.name}': its numbers run backwards; write {said}.")

    @property
    def numbers(self) -> tuple[range, ...]:
        """Of inputs that are in it whatever they say."""
        found = filter(None, map(_NUMBERS.fullmatch, self.words))
        return tuple(range(int(one[1]), int(one[2] or one[1]) + 1) for one in found)

    @property
    def pattern(self) -> re.Pattern | None:
        """Finds any of the words in a text (`plain`); None if there are only numbers."""
        words = [word for word in self.words if not _NUMBERS.fullmatch(word)]
        return re.compile("|".join(map(_pattern, words)), re.IGNORECASE) if words else None

    def of(self, data: TextData) -> np.ndarray:
        """Which inputs are in it, `(N,)`, be they in an earlier one as well or not.

        Raises:
            DataError: the data have no input of a number.
        """
        mask = np.zeros(len(data), dtype=bool)
        if pattern := self.pattern:
            texts = (
                "\n".join(map(plain, parts)) for parts in data.texts
            )  # no words go over from one to the other
            mask[[i for i, text in enumerate(texts) if pattern.search(text)]] = True
        for numbers in self.numbers:
            if numbers.stop > len(data):
                said = f"it has {len(data):,}, and they count from 0"
                raise DataError(f"slice '{self.name}': {data.name} has no input #{numbers.stop - 1}: {said}.")
            mask[numbers.start : numbers.stop] = True
        return mask


def parse_slices(text: str) -> tuple[WordSlice, ...]:
    """Slices of a text with one a line, `name: word, word`; a line without a name is named by its words.

    Raises:
        DataError: a line has no words, or a name that is another's or too long; or there are more than `MOST`.
    """
    found: list[WordSlice] = []
    for line in filter(None, map(plain, _DIRECTIONS.sub("", text).splitlines())):
        before, colon, after = line.partition(":")
        words = tuple(dict.fromkeys(filter(None, map(plain, (after if colon else before).split(",")))))
        name = before.strip() if colon else ", ".join(words)
        if not words or not name:
            said = "write a name, a colon and words: negation: not, never"
            raise DataError(f"'{line[: 2 * LONGEST]}' is no slice; {said}.")
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
    """The data with these slices in place of their own: each input in the first one that it is in, others in `REST`.
    Scores that are stored of the data are still theirs.

    Raises:
        DataError: the data have no input of a number.
    """
    names = np.full(len(data), REST, dtype=object)
    for one in reversed(slices):
        names[one.of(data)] = one.name
    words = "\n".join(f"{one.name}: {', '.join(one.words)}" for one in slices)
    origin = data if data.origin is None else data.origin
    return replace(data, slices=tuple(names.tolist()), origin=origin, slice_words=words)


def only(data: TextData, names: Sequence[str]) -> tuple[TextData, np.ndarray]:
    """The inputs of some slices, as data whose name says so, and their numbers in the whole, int64 `(n,)`.

    Raises:
        DataError: the data have no slices, or none of a name.
    """
    known = sorted(set(data.slices or ()))
    if not known:
        raise DataError(f"{data.name} has no slices of which some could be looked at alone.")
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{data.name} has no slice '{unknown[0]}'; it has {', '.join(known)}.")
    rows = np.flatnonzero(np.isin(np.array(data.slices, dtype=object), list(names)))
    said = ", ".join(name for name in known if name in names)
    if len(said) > _NAME:
        said = f"{said[:_NAME].rstrip()}… [{hashlib.sha256(said.encode()).hexdigest()[:6]}]"
    return replace(data.subset(rows), name=f"{data.name}, only {said} ({len(rows)} of {len(data)})"), rows


def by_numbers(numbers: Iterable[int]) -> str:
    """What makes a slice of these inputs: `#3, #17-25`."""
    ordered, runs = sorted(set(numbers)), []
    for number in ordered:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"#{first}" if first == last else f"#{first}-{last}" for first, last in runs)


def plain(text: str) -> str:
    """With straight apostrophes, as people type them, and single spaces."""
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def _pattern(word: str) -> str:
    """Finds a word, whole where it begins or ends with a letter or a star."""
    inner = re.escape(word).replace(r"\*", _LETTERS)
    start = r"(?<!\w)" if re.match(r"[\w*]", word) else ""
    end = r"(?!\w)" if re.search(r"[\w*]$", word) else ""
    return start + inner + end


CLASS, ANSWER, OUTCOME, SLICE, LENGTH = "class", "answer", "outcome", "slice", "length"
GROUPINGS = (CLASS, ANSWER, OUTCOME, SLICE, LENGTH)
PARTS = 4
"""Numbers, lengths among them, are grouped by fourths."""


def input_groups(
    data: TextData,
    answers: Sequence[float] | None = None,
    lengths: Sequence[float] | None = None,
    by: Sequence[str] = GROUPINGS,
) -> dict[str, dict[str, np.ndarray]]:
    """Every grouping that can be made of the data, in the order of `GROUPINGS`: its groups' names and masks `(N,)`.

    Each input is in one group of each grouping, and no group is empty. Numbers, such as the classes and answers of a
    regression, are grouped by fourths; its outcome is how far an answer is off.

    Args:
        answers: what a model predicts of each input, a class or a number; None leaves answer and outcome out.
        lengths: of the inputs, in tokens; None leaves them out.
        by: those of `GROUPINGS` that are asked for.

    Raises:
        DataError: answers or lengths are of other inputs.
    """
    for what, values in (("answers", answers), ("lengths", lengths)):
        if values is not None and len(values) != len(data):
            raise DataError(f"{len(values)} {what} are not of the {len(data)} inputs of {data.name}.")
    makers = {
        CLASS: lambda: _values(data.labels, data),
        ANSWER: lambda: _values(np.asarray(answers), data),
        OUTCOME: lambda: _outcomes(np.asarray(answers), data),
        SLICE: lambda: _names(data.slices),
        LENGTH: lambda: _fourths(np.asarray(lengths), "{} tokens"),
    }
    found = {}
    for one in GROUPINGS:
        if one in by and not lacking(one, data, answers is not None, lengths is not None):
            found[one] = {name: mask for name, mask in makers[one]().items() if mask.any()}
    return found


def groups_by(
    by: str,
    data: TextData,
    answers: Sequence[float] | None = None,
    lengths: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """One of the groupings of `input_groups`.

    Raises:
        DataError: there is no such grouping, or none of these data.
    """
    if why := lacking(by, data, answers is not None, lengths is not None):
        raise DataError(why)
    return input_groups(data, answers, lengths, (by,))[by]


def lacking(by: str, data: TextData, answered: bool = True, measured: bool = True) -> str:
    """Why these data have no groups of this kind, in a sentence; empty where they have.

    Args:
        answered: whether a model's answers are known.
        measured: whether lengths are.

    Raises:
        DataError: there is no such grouping.
    """
    if by not in GROUPINGS:
        known = f"{', '.join(GROUPINGS[:-1])} or {GROUPINGS[-1]}"
        raise DataError(f"inputs can be grouped by {known}, not by {by!r}.")
    if by in (CLASS, OUTCOME) and data.labels is None:
        return f"{data.name} has no labels; groups by {by} need labelled data."
    if by == SLICE and data.slices is None:
        return (
            f"{data.name} has no slices; groups by slice need a slice column, or slices by words (--slice)."
        )
    if by in (ANSWER, OUTCOME) and not answered:
        return f"no answers to {data.name} are known that are numbers; groups by {by} need them."
    return f"the lengths of {data.name} are not known." if by == LENGTH and not measured else ""


def _values(values: np.ndarray, data: TextData) -> dict[str, np.ndarray]:
    """The inputs of each class, or of each fourth of the numbers of a regression."""
    if data.task.is_regression:
        return _fourths(values)
    return {name: values == i for i, name in enumerate(data.task.label_names)}


def _outcomes(answers: np.ndarray, data: TextData) -> dict[str, np.ndarray]:
    if data.task.is_regression:
        return _fourths(np.abs(answers - data.labels), "off by {}")
    return {"right": answers == data.labels, "wrong": answers != data.labels}


def _names(slices: Sequence[str]) -> dict[str, np.ndarray]:
    places = {name: at for at, name in enumerate(dict.fromkeys(slices))}
    codes = np.array([places[name] for name in slices])
    return {name: codes == at for name, at in places.items()}


def _fourths(values: np.ndarray, said: str = "{}") -> dict[str, np.ndarray]:
    """The inputs in each fourth of some numbers, by what these are from and to; of few values in fewer groups.

    Args:
        said: the name of a group, with a place for its numbers.
    """
    if not len(values):
        return {}
    part = np.quantile(values, np.arange(1, PARTS) / PARTS).searchsorted(values)
    found: dict[str, np.ndarray] = {}
    for at in np.unique(part):
        low, high = (f"{end:.4g}" for end in (values[part == at].min(), values[part == at].max()))
        name = said.format(low if low == high else f"{low} to {high}")
        found[name] = found.get(name, False) | (part == at)  # neighbours may look alike, rounded
    return found
