"""Groups of examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shrp.data.text_data import TextData, right
from shrp.errors import DataError

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
    if by in (CLASS, ANSWER) and data.task.on_tokens:
        return f"{data.name} has no class for each text; groups by {by} need one."
    if by in (CLASS, OUTCOME) and data.labels is None:
        return f"{data.name} has no labels; groups by {by} need labelled data."
    if by == SLICE and data.slices is None:
        return f"{data.name} has no slices; groups by slice need a slice column."
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
        found = right(data.task, data.known, np.asarray(answers))
        return {"right": found, "wrong": ~found}
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
