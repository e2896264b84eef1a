"""Labels of typed sentences that are examples of the picked data, as when a link from Overview brings one."""

from __future__ import annotations

from collections.abc import Sequence

from shrp.data.text_data import TextData
from ui.store import results

SEVERAL = "several"
"""Stands for the label of a text that the data have more than once, with different labels."""


def labels_of(data: TextData | None, inputs: Sequence[tuple[str, ...]]) -> list[str | None]:
    """Each example's label in the data, a class's name, a number or `SEVERAL`; None where it is not there or unlabelled."""
    if data is None or data.labels is None:
        return [None] * len(inputs)
    known = results("typed-labels", 4).get_or_make(data.fingerprint, lambda: _labels(data))
    return [known.get(_typed(texts)) for texts in inputs]


def _labels(data: TextData) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for texts, label in zip(data.texts, data.labels.tolist(), strict=True):
        name = f"{label:g}" if data.task.is_regression else data.task.label_names[label]
        if found.setdefault(_typed(texts), name) != name:
            found[_typed(texts)] = SEVERAL
    return found


def _typed(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Texts as the form of sentences gives them: without line breaks and double spaces."""
    return tuple(" ".join(text.split()) for text in texts)
