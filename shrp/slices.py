"""Slices of one's own: groups of inputs by words that their texts contain.

A line names a slice and the words that make it, `negation: not, *n't, never`; an input is in the first slice of which
it has a word. Words are whole, in either case, and may be several in a row; a `*` stands for letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from shrp.data import TextData
from shrp.errors import DataError

REST = "none of these"
"""The slice of inputs that have none of the words."""
TAKEN = (REST, "all pairs", "in two slices")
"""Names that no slice may have: this one, and those that tables of minimal pairs have (`shrp.minimal_pairs`)."""
MOST, LONGEST = 24, 60
"""Slices at most, and characters of a name."""
_STARS = 2
_LETTERS = r"\w{0,40}"
"""What a star stands for; were there no limit, a text without spaces could take hours."""
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Signs that would turn around what stands after a name."""


@dataclass(frozen=True)
class WordSlice:
    """A slice by its words, each a word, several in a row, or with stars for letters.

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

    @property
    def pattern(self) -> re.Pattern:
        """Finds any of the words in a text (`plain`)."""
        return re.compile("|".join(map(_pattern, self.words)), re.IGNORECASE)


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
    """The data with these slices in place of their own: each input in the first one of which a text has a word, others
    in `REST`. Scores that are stored of the data are still theirs.
    """
    names = np.full(len(data), REST, dtype=object)
    texts = ["\n".join(map(plain, parts)) for parts in data.texts]  # no words go over from one to the other
    for one in reversed(slices):
        search = one.pattern.search
        names[[search(text) is not None for text in texts]] = one.name
    words = "\n".join(f"{one.name}: {', '.join(one.words)}" for one in slices)
    origin = data if data.origin is None else data.origin
    return replace(data, slices=tuple(names.tolist()), origin=origin, slice_words=words)


def plain(text: str) -> str:
    """With straight apostrophes, as people type them, and single spaces."""
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def _pattern(word: str) -> str:
    """Finds a word, whole where it begins or ends with a letter or a star."""
    inner = re.escape(word).replace(r"\*", _LETTERS)
    start = r"(?<!\w)" if re.match(r"[\w*]", word) else ""
    end = r"(?!\w)" if re.search(r"[\w*]$", word) else ""
    return start + inner + end
