"""Labels of a person's own table that are not the task's: a box for each to say what it means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from shrp.data.sources import class_ids, foreign_labels
from shrp.data.tasks import Task
from shrp.errors import DataError
from ui.text import escape

MAX_LABELS = 12
"""Different labels in a column: a column with more is hardly one of classes, and would make as many boxes."""
LEFT_OUT = "rows left out"
_SHORT = 3
"""Letters of the shortest beginning of a class's name that is taken for it."""

_SYNONYMS = {
    "positive": ("good", "great", "favourable", "favorable", "+"),
    "negative": ("bad", "poor", "unfavourable", "unfavorable"),
    "acceptable": ("grammatical", "ok", "yes"),
    "unacceptable": ("ungrammatical", "no"),
}
"""Names of classes of known tasks -> what files call them too."""

Meanings = tuple[tuple[str, str | None], ...]
"""Pairs of a label and the name of the class that it means; None: rows with it are left out."""


def guess(label: str, task: Task) -> str | None:
    """The class that a label is probably another spelling of: Positive, or pos, is positive. None: can't tell."""
    if label in task.label_names:
        return label
    theirs = _folded(label)
    theirs = next((name for name, others in _SYNONYMS.items() if theirs in others), theirs)
    same = [name for name in task.label_names if theirs and _folded(name) == theirs]
    begun = [name for name in task.label_names if len(theirs) >= _SHORT and _folded(name).startswith(theirs)]
    found = same or begun
    return found[0] if len(found) == 1 else None


def _folded(name: str) -> str:
    """Without case and spaces; signs stay, as they may be all that tells two classes apart."""
    return re.sub(r"[\s_]+|(?<=\w)-(?=\w)", "", name.casefold())


def unknown(cells: Sequence[object], task: Task, source: str) -> list[str]:
    """The labels of a column that a person can be asked about; none where it is the task's, or no column of labels."""
    if task.on_tokens:  # fitting the table says what is wrong
        return []
    try:
        found = foreign_labels(cells, task, source)
    except DataError:  # fitting the table says what is wrong
        return []
    if all(re.fullmatch(r"-?\d{1,9}", label) for label in found):
        found.sort(key=int)  # stars, say
    return found if len(found) <= MAX_LABELS else []


def read_as(cells: Sequence[object], task: Task, source: str) -> str:
    """What labels that are the task's ids are taken for, since they don't say it; empty where they are not."""
    ids = [] if task.on_tokens else class_ids(cells, task, source)
    if not ids:
        return ""
    named = ", ".join(f"{index} is {task.label_names[index]}" for index in ids[:MAX_LABELS])
    return f"{named}{', …' * (len(ids) > MAX_LABELS)}"


def choose(labels: Sequence[str], task: Task, key: str, ask: Callable[..., str | None]) -> Meanings | None:
    """Ask what each label means, starting at its guess; returns the answers, or None while one is missing.

    Args:
        ask: draws a box (`ui.own.data.drawn`), or returns what it was left at.
    """
    left_out = LEFT_OUT if LEFT_OUT not in task.label_names else f"({LEFT_OUT})"
    options, found = [*task.label_names, left_out], {}
    for label in labels:
        start = guess(label, task)
        index = None if start is None else options.index(start)
        found[label] = ask(f"'{escape(label[:40])}' means", options, index, f"{key}-means-{label}")
    if None in found.values():
        return None
    return tuple((label, None if meaning == left_out else meaning) for label, meaning in found.items())
