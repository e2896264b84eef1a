"""Sentences and phrases of an input, to be explained as units in place of words."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from shrp.analysis.attribution.instance import Instance, Word
from shrp.errors import DataError

UNITS = ("word", "phrase", "sentence")
"""A phrase ends at a comma, semicolon, colon, dash or bracket, after `LONGEST_PHRASE` words, and where a sentence does."""
LONGEST_PHRASE = 12
"""Words; text without punctuation has phrases of this length."""
MOST = 128
"""More units than this take long to explain and to read."""

# What touches a mark goes with it, such as a closing quote or an emoji, and so do closing quotes that stand alone.
_WITH_IT = r"[^\w\s<(\[{“‘«「『`]*(?:\s+(?:''|[\"”’»)\]}])(?=\s|$))*"
_SENTENCE_END = re.compile(rf"(?P<mark>[.!?…。！？｡؟।]+){_WITH_IT}")
_PHRASE_END = re.compile(rf"(?P<mark>[,;:，、；：،]+|--+|[–—]|(?<=\s)-(?=\s)|[)\]}}）」』]){_WITH_IT}")
_PHRASE_START = re.compile(r"(?:(?<=\s)|^)[(\[{]|[（「『]")
_ABBREVIATIONS = re.compile(r"(mr|mrs|ms|dr|prof|st|jr|sr|inc|ltd|co|corp|etc|vs|eg|ie|cf|approx|[^\W\d_])")
"""Words whose full stop ends no sentence, such as an initial."""
_NEAR = 16
"""Characters before a full stop that are looked at."""


def in_units(instance: Instance, unit: str) -> Instance:
    """Join the words of an instance into one of `UNITS`.

    Raises:
        DataError: there is no such unit, or the instance is not in words.
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
    """The shortest unit of which the instance has 2 to `most`; else the one of which it has the fewest above 1, or words."""
    counts = {unit: len(in_units(instance, unit).words) for unit in UNITS}
    several = [unit for unit, count in counts.items() if count > 1]
    short = [unit for unit in several if counts[unit] <= most]
    return next(iter(short), min(several, key=counts.__getitem__, default=UNITS[0]))


def _runs(instance: Instance, unit: str) -> list[list[Word]]:
    """The words of each unit; punctuation alone joins the unit before."""
    begin = [_beginnings(text, unit) for text in instance.text]
    runs: list[list[Word]] = []
    place = None
    for word in instance.words:
        before, place = place, (word.part, bisect_right(begin[word.part], word.span[0]))
        too_long = unit == UNITS[1] and not _is_punctuation(word) and _length(runs[-1:]) >= LONGEST_PHRASE
        if place == before and not too_long:
            runs[-1].append(word)
        else:
            runs.append([word])
    merged: list[list[Word]] = []
    for run in runs:
        if merged and not _length([run]) and merged[-1][0].part == run[0].part:
            merged[-1] += run
        else:
            merged.append(run)
    return merged


def _length(runs: Sequence[Sequence[Word]]) -> int:
    """Words in all, without punctuation."""
    return sum(not _is_punctuation(word) for run in runs for word in run)


def _beginnings(text: str, unit: str) -> list[int]:
    """Places of a text at which a piece begins, the first one left out."""
    found = {match.end() for match in re.finditer(r"\n", text)}
    found |= {m.end() for m in _SENTENCE_END.finditer(text) if _ends_sentence(text, m)}
    if unit == UNITS[1]:
        found |= {m.end() for m in _PHRASE_END.finditer(text) if _ends_phrase(text, m)}
        found |= {m.start() for m in _PHRASE_START.finditer(text)}
    return sorted(found)


def _ends_sentence(text: str, match: re.Match) -> bool:
    if match["mark"][-1].isascii() and text[match.end() : match.end() + 1].isalnum():
        return False  # 3.5 is one; Chinese has no spaces
    before = re.search(r"\w+$", text[max(0, match.start() - _NEAR) : match.start()])
    if match[0] != "." or before is None:
        return True
    word = before[0].lower()
    return word == "i" or not _ABBREVIATIONS.fullmatch(word)


def _ends_phrase(text: str, match: re.Match) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    mark = match["mark"]
    if mark[0] in "-–—":
        return not (before.isdigit() and after.isdigit())  # 1990–2000
    if mark in ")]}":  # a plural's, as of film(s), ends nothing
        opened = text.rfind("([{"[")]}".index(mark)], 0, match.start())
        return opened <= 0 or text[opened - 1].isspace()
    return not (mark[-1].isascii() and after.isalnum())  # 1,000 and 12:30 are one


def _is_punctuation(word: Word) -> bool:
    """Whether it is punctuation only; emoji and mathematical signs are not."""
    return all(unicodedata.category(character).startswith("P") for character in word.text)


def _as_one(text: Sequence[str], run: Sequence[Word]) -> Word:
    first, last = run[0], run[-1]
    start, end = first.span[0], max(word.span[1] for word in run)
    positions = tuple(position for word in run for position in word.positions)
    return Word(text[first.part][start:end] or last.text, first.part, positions, (start, end))
