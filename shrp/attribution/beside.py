"""Two models' attributions of one input beside each other: which words move the one, and not the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from shrp.attribution.instance import Instance
from shrp.attribution.tokens import REPLACEMENTS, WordScores
from shrp.attribution.units import UNITS, fitting_unit
from shrp.errors import DataError


def parting(one: np.ndarray, other: np.ndarray) -> tuple[int, int] | None:
    """The classes whose difference of logits says most of how two models part: the answer of the one and that of the
    other, or where they agree the answer and the class that comes next by the mean of both.

    Args:
        one, other: logits `(C,)` of the models, in the same order.

    Returns:
        None of a regression.
    """
    if len(one) < 2:
        return None
    first, second = int(one.argmax()), int(other.argmax())
    if first != second:
        return first, second
    rest = np.delete(np.arange(len(one)), first)
    return first, int(rest[(one + other)[rest].argmax()])


def same_unit(instances: Sequence[Instance]) -> str:
    """The shortest unit that suits all of them, whose tokenizers may read more or less of the text."""
    return max((fitting_unit(one) for one in instances), key=UNITS.index)


def same_replacement(instances: Sequence[Instance]) -> str:
    """What may stand for a word in all of them: the first of `REPLACEMENTS` of which each has a token, or nothing."""
    have = (name for name in REPLACEMENTS if all(name in one.replacements for one in instances))
    return next(have, REPLACEMENTS[-1])


def beside(one: WordScores, other: WordScores) -> pd.DataFrame:
    """One row a word of the input, in its order, with both models' scores.

    Words are the same where they stand at the same place of the text; tokenizers may part it differently, or cut it.

    Returns:
        Columns place (from 1), text (which of a pair), the unit (`word`, `phrase` or `sentence`), `one`, `other` and
        `difference`, which is `other` less `one`; nan where a model reads no such word.

    Raises:
        DataError: the two are of different units or methods.
    """
    if (one.unit, one.method) != (other.unit, other.method):
        raise DataError(
            f"{one.method} by {one.unit} and {other.method} by {other.unit} are not of the same things."
        )
    found: dict[tuple[int, tuple[int, int]], dict[str, object]] = {}
    for name, scores in (("one", one), ("other", other)):
        for word, score in zip(scores.words, scores.scores, strict=True):
            row = found.setdefault((word.part, word.span), {"text": word.part + 1, one.unit: word.text})
            row[name] = float(score)
    frame = pd.DataFrame(
        [found[key] for key in sorted(found)], columns=["text", one.unit, "one", "other"]
    ).astype({"one": float, "other": float})
    frame.insert(0, "place", range(1, len(frame) + 1))
    return frame.assign(difference=frame["other"] - frame["one"])
