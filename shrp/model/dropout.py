"""Dropout, switched off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch a model's dropout off inside, training mode or not.

    What is to be learnt here is one function of the text, which dropout would only blur; and on a processor its
    random numbers cost more than a tenth of a step.
    """
    kept: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = ("p",) if isinstance(module, nn.Dropout) else ("dropout", "attention_dropout")
        kept += [
            (module, name, rate) for name in names if isinstance(rate := getattr(module, name, None), float)
        ]
    try:
        for module, name, _ in kept:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, rate in kept:
            setattr(module, name, rate)
