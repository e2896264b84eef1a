"""Two models' attributions of one input beside each other: which words move the one, and not the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.analysis.attribution.instance import Instance, against
from shrp.analysis.attribution.tokens import REPLACEMENTS, WordScores
from shrp.analysis.attribution.units import UNITS, fitting_unit, in_units
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


@dataclass(frozen=True)
class Question:
    """What two models are asked of one input, the same of both."""

    output: int
    """The class whose logit is explained; 0 of a regression."""
    rather_than: int | None
    """The class whose logit is taken from it, if one is."""
    unit: str
    """Of `UNITS`: the shortest that suits both, whose tokenizers may read more or less of the text."""
    replacement: str
    """Of `REPLACEMENTS`: the first of which both have a token, or nothing."""

    def what(self, labels: Sequence[str]) -> str:
        """What is explained, in words; `labels` are the task's."""
        if not labels:
            return "the output"
        less = "" if self.rather_than is None else f" less that of {labels[self.rather_than]}"
        return f"the logit of {labels[self.output]}{less}"

    def of(self, instance: Instance) -> tuple[Instance, int]:
        """One of the inputs, in words, as it is to be explained, and which of its outputs."""
        instance = in_units(instance, self.unit)
        if self.rather_than is None:
            return instance, self.output
        return against(instance, self.output, self.rather_than), 0


def question(
    instances: Sequence[Instance],
    logits: Sequence[np.ndarray],
    output: int | None = None,
    rather_than: int | None = None,
) -> Question:
    """What to ask of two models.

    Args:
        instances: the input in words, as each model reads it.
        logits: of each, `(C,)`.
        output, rather_than: classes to explain; by default those over which the models part (`parting`).
    """
    if output is None:
        found = parting(*logits)
        output, rather_than = (0, None) if found is None else found
    unit = max((fitting_unit(one) for one in instances), key=UNITS.index)
    have = (name for name in REPLACEMENTS if all(name in one.replacements for one in instances))
    return Question(output, rather_than, unit, next(have, REPLACEMENTS[-1]))


def beside(one: WordScores, other: WordScores) -> pd.DataFrame:
    """One row a word of the input, in its order, with both models' scores.

    Words are the same where they stand at the same place of the text; tokenizers may part it differently, or cut it.

    One model's logits may be on a larger scale than the other's, so that how far apart the scores are says little.

    Returns:
        Columns place (from 1), text (which of a pair), the unit (`word`, `phrase` or `sentence`), `one`, `other`, both
        as parts of that model's largest in size (`one part`, `other part`, from -1 to 1), and `apart`, the part of the
        other less that of the one; nan where a model reads no such word.

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
    for name in ("one", "other"):
        frame[f"{name} part"] = frame[name] / (frame[name].abs().max() or 1.0)
    return frame.assign(apart=frame["other part"] - frame["one part"])
