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
