"""Groups of inputs by what is known of them: class, the model's answer, whether that is right, slice, and length.

Shapes: `N` inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shrp.data.text_data import TextData
from shrp.errors import DataError

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
