"""Half of the data to choose experts on, half to score them on, so that the choice flatters the score less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from shrp.data import TextData
from shrp.minimal_pairs import pairs_of
from shrp.reference import Reference
from ui.lab import RECORDED, Setting
from ui.state import Selection
from ui.store import results
from ui.text import escape

HOLD_OUT = "hold_out"
"""Key of the switch, in the session's state and in the URL alike."""
FEWEST = 40
"""Inputs below which there is no half to choose on."""


def held_out(selection: Selection) -> Selection:
    """Draw the switch. Where it is on, the returned selection's data are the half to score on, and `ranked_on` is the
    other one; else it is `selection`.
    """
    enough = len(selection.data) >= FEWEST
    on = st.toggle(
        "Score on a held-out half",
        key=HOLD_OUT,
        bind="query-params",
        disabled=not enough,
        help="Off: experts are chosen and scored on the same inputs, as in the paper, so the score is slightly too "
        "high. On: they are chosen on one half, drawn at random with as many inputs of each class, and scored on the "
        "other. Minimal pairs stay together; otherwise related texts may be separated. Recorded usage comes from the "
        "training's validation data; nothing of that is held out."
        + ("" if enough else f" These data have {len(selection.data):,} inputs; it takes {FEWEST}."),
    )
    return _split(selection) if on and enough else selection


def _split(selection: Selection) -> Selection:
    checkpoint, data = selection.checkpoint, selection.data
    store, key = results("halves", 8), (data.fingerprint, data.name, data.pairs)
    if (found := store.get(key)) is None:
        ranked, scored = halves(data)
        chosen = replace(data.subset(ranked), name=f"{data.name}, half")
        held = replace(data.subset(scored), name=f"{data.name}, other half")
        found = chosen, held, scored
        store.put(key, found)
    chosen, held, scored = found
    if (teacher := checkpoint.teacher.get(data.fingerprint)) is not None:
        part = _part(checkpoint.fingerprint, data, teacher, scored)
        checkpoint = replace(checkpoint, teacher={**checkpoint.teacher, held.fingerprint: part})
    return replace(selection, checkpoint=checkpoint, data=held, ranked_on=chosen)


def _part(fingerprint: str, data: TextData, teacher: Reference, rows: np.ndarray) -> Reference:
    """The teacher's outputs for some rows of the data: the same object each time, by which its evaluation is kept."""
    store, key = results("halves of teachers", 8), (fingerprint, data.fingerprint, data.name, data.pairs)
    found = store.get(key)
    if found is None or found[0] is not teacher:  # made anew beside the same weights
        found = teacher, replace(teacher, logits=teacher.logits[rows])
        store.put(key, found)
    return found[1]


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


def introduction(selection: Selection, setting: Setting) -> str:
    """What the experts are ranked on and the score is of, as Markdown."""
    name, n = escape(selection.data.name), len(selection.data)
    if setting.selection == RECORDED:
        of = selection.checkpoint.info.training.get("validation_data", "the validation data of its training")
        return (
            f"evaluated on **{name}** (n = {n:,}); the usage that experts are chosen by is the checkpoint's own, of "
            f"**{escape(of)}**{', of which nothing is held out' * (selection.ranked_on is not None)}."
        )
    if selection.ranked_on is None:
        return f"evaluated on **{name}** (n = {n:,}), on which the experts are chosen too."
    other = selection.ranked_on
    return (
        f"evaluated on **{name}** (n = {n:,}); the experts are chosen on **{escape(other.name)}** "
        f"(n = {len(other):,})."
    )
