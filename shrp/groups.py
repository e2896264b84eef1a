"""Groups of inputs by what is known of them: class, the model's answer, whether that is right, slice, and length.

Shapes: `N` inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shrp.data import TextData
from shrp.errors import DataError

CLASS, ANSWER, OUTCOME, SLICE, LENGTH = "class", "answer", "outcome", "slice", "length"
GROUPINGS = (CLASS, ANSWER, OUTCOME, SLICE, LENGTH)
PARTS = 4
"""Numbers, lengths among them, are grouped by fourths."""


def input_groups(
    data: TextData, answers: Sequence[float] | None = None, lengths: Sequence[float] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Every grouping that can be made of the data, in the order of `GROUPINGS`: its groups' names and masks `(N,)`.

    Each input is in one group of each grouping, and no group is empty. Numbers, such as the classes and answers of a
    regression, are grouped by fourths; its outcome is how far an answer is off.

    Args:
        answers: what a model predicts of each input, a class or a number; None leaves answer and outcome out.
        lengths: of the inputs, in tokens; None leaves them out.

    Raises:
        DataError: answers or lengths are of other inputs.
    """
    for what, values in (("answers", answers), ("lengths", lengths)):
        if values is not None and len(values) != len(data):
            raise DataError(f"{len(values)} {what} are not of the {len(data)} inputs of {data.name}.")
    answered = None if answers is None else np.asarray(answers)
    known = {
        CLASS: None if data.labels is None else _values(data.labels, data),
        ANSWER: None if answered is None else _values(answered, data),
        OUTCOME: None if answered is None or data.labels is None else _outcomes(answered, data),
        SLICE: None if data.slices is None else _names(data.slices),
        LENGTH: None if lengths is None else _fourths(np.asarray(lengths), "{} tokens"),
    }
    found = {}
    for by, groups in known.items():
        if there := {name: mask for name, mask in (groups or {}).items() if mask.any()}:
            found[by] = there
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
    check_grouping(by)
    found = input_groups(data, answers, lengths)
    if by in found:
        return found[by]
    lack = {
        CLASS: "no labels; groups by class need labelled data",
        OUTCOME: "no labels; right and wrong need labelled data",
        SLICE: "no slices; groups by slice need data with a slice column",
    }
    raise DataError(f"{data.name} has {lack.get(by, f'no {by} that is known')}.")


def check_grouping(by: str) -> None:
    """Raise `DataError` where there is no grouping of this name."""
    if by not in GROUPINGS:
        known = f"{', '.join(GROUPINGS[:-1])} or {GROUPINGS[-1]}"
        raise DataError(f"inputs can be grouped by {known}, not by {by!r}.")


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
    values = np.array(slices, dtype=object)  # fixed widths would be the longest name's
    return {name: values == name for name in dict.fromkeys(slices)}


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
        low, high = values[part == at].min(), values[part == at].max()
        numbers = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        name = said.format(numbers)
        found[name] = found.get(name, False) | (part == at)  # neighbours may look alike, rounded
    return found
