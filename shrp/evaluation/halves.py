"""Half of the data to choose experts on, half to score them on, so that the choice flatters the score less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shrp.data.text_data import TextData
from shrp.evaluation.minimal_pairs import pairs_of

FEWEST = 40
"""Inputs below which there is no half to choose on."""


def halves(data: TextData) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the half to choose on and of the half to score on, ascending; the same in every session."""
    order = data.stratified_order()
    first = np.arange(len(data))
    pairs = pairs_of(data)
    first[pairs[:, 1]] = pairs[:, 0]  # of the pair that an input belongs to, itself where it is alone
    together: dict[int, list[int]] = {}
    for i in order:  # a pair stands where the first of it comes
        together.setdefault(int(first[i]), []).append(int(i))
    chosen: list[int] = []
    for inputs in together.values():
        if len(chosen) >= len(order) // 2:
            break
        chosen += inputs
    return np.sort(chosen), np.setdiff1d(order, chosen)


def in_halves(data: TextData, ranked: np.ndarray, scored: np.ndarray) -> tuple[TextData, TextData]:
    """The half to choose on and the half to score on, named as such."""
    chosen = replace(data.subset(ranked), name=f"{data.name}, half")
    return chosen, replace(data.subset(scored), name=f"{data.name}, other half")
