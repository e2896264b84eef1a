"""Longer pieces of an input to explain at once: a long text's sentences are read sooner than its hundreds of words.

A piece is a run of the instance's words, whose tokens are replaced together and whose gradients are summed; everything
else that explains words explains pieces as it does words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace

from shrp.attribution.instance import Instance, Word
from shrp.errors import DataError

UNITS = ("word", "phrase", "sentence")
"""A phrase ends at a comma, semicolon, colon, dash or bracket, after `LONGEST_PHRASE` words, and where a sentence does:
after a full stop, question or exclamation mark, ellipsis or end of line."""
LONGEST_PHRASE = 12
"""Words; of text without punctuation phrases would be no shorter than the text."""
MOST = 128
"""Of more pieces than this an explanation takes long, and is long to read."""

_SENTENCE_END = re.compile(r"[.!?…。！？｡]")
_PHRASE_END = re.compile(r"[,;:，、；：–—]|^--?$")
_ABBREVIATED = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "vs",
        "jr",
        "sr",
        "inc",
        "ltd",
        "co",
        "corp",
        "etc",
        "eg",
        "ie",
        "cf",
        "approx",
        "dept",
        "est",
        "fig",
        "no",
    ]
)
"""Words whose full stop does not end a sentence."""


def in_units(instance: Instance, unit: str) -> Instance:
    """The instance with its words put together.

    Args:
        instance: one in words, as `prepare` or `shrp.attribution.router.prefer` makes it.
        unit: of `UNITS`.

    Raises:
        DataError: there is no such unit, or the instance is in longer ones than words already.
    """
    if unit not in UNITS:
        raise DataError(f"An input can be explained by {', '.join(UNITS)}, not by '{unit}'.")
    if instance.unit != UNITS[0]:
        raise DataError(f"This input is in {instance.unit}s already; start from its words.")
    if unit == UNITS[0]:
        return instance
    pieces = tuple(_as_one(instance.text, run) for run in _runs(instance, unit))
    return replace(instance, words=pieces, unit=unit)


def fitting_unit(instance: Instance, most: int = MOST) -> str:
    """The shortest unit of which an instance in words has at most so many, and more than one; else words."""
    for unit in UNITS:
        if 1 < len(in_units(instance, unit).words) <= most:
            return unit
    return UNITS[0]


def _runs(instance: Instance, unit: str) -> Iterator[list[Word]]:
    """The words of each piece."""
    run = [instance.words[0]]
    for word in instance.words[1:]:
        if word.part != run[-1].part or _begins(instance.text[word.part], run, word, unit):
            yield run
            run = []
        run.append(word)
    yield run


def _begins(text: str, run: Sequence[Word], word: Word, unit: str) -> bool:
    """Whether a new piece begins with a word; `run` are the words of the piece so far."""
    if "\n" in text[run[-1].span[1] : word.span[0]]:
        return True
    if _is_punctuation(word) and not _opens(text, run[-1], word):
        return False  # it belongs to what is before it
    if unit == UNITS[1] and (_kind(word) == "Ps" or _words(run) >= LONGEST_PHRASE):
        return True
    return any(_ends(run[: i + 1], word, unit) for i in _marks_at_the_end(run))


def _marks_at_the_end(run: Sequence[Word]) -> Iterator[int]:
    """Places of the marks that a piece ends with so far, the last one first."""
    for place in range(len(run) - 1, -1, -1):
        if not _is_punctuation(run[place]):
            return
        yield place


def _ends(run: Sequence[Word], following: Word, unit: str) -> bool:
    """Whether the mark at the end of `run` ends a piece."""
    mark = run[-1]
    if mark.text.isascii() and mark.span[1] == following.span[0]:
        return False  # 3.5 and 1,000 are one; Chinese has no spaces
    if _SENTENCE_END.search(mark.text):
        return not _abbreviated(run)
    if unit == UNITS[2]:
        return False
    return bool(_PHRASE_END.search(mark.text)) or any(unicodedata.category(c) == "Pe" for c in mark.text)


def _abbreviated(run: Sequence[Word]) -> bool:
    """Whether the full stop at the end of these words is an abbreviation's, such as "Dr." or "J."."""
    if len(run) < 2 or run[-1].text != "." or run[-2].span[1] != run[-1].span[0]:
        return False
    word = run[-2].text.lower()
    return word in _ABBREVIATED or (len(word) == 1 and word.isalpha() and word != "i")


def _words(run: Sequence[Word]) -> int:
    return sum(not _is_punctuation(word) for word in run)


def _is_punctuation(word: Word) -> bool:
    """Whether it has nothing but punctuation; emoji and mathematical signs are none."""
    return all(unicodedata.category(character).startswith("P") for character in word.text)


def _opens(text: str, before: Word, mark: Word) -> bool:
    """Whether a mark belongs to what follows it: an opening bracket or quote."""
    if _kind(mark) in ("Ps", "Pi"):
        return True
    following = text[mark.span[1] : mark.span[1] + 1]
    return before.span[1] < mark.span[0] and bool(following.strip())  # the quotes that have but one form


def _kind(word: Word) -> str:
    return unicodedata.category(word.text[0])


def _as_one(text: Sequence[str], run: Sequence[Word]) -> Word:
    first, last = run[0], run[-1]
    start, end = first.span[0], max(word.span[1] for word in run)
    positions = tuple(position for word in run for position in word.positions)
    return Word(text[first.part][start:end] or last.text, first.part, positions, (start, end))
