"""Half of the data to choose experts on, half to score them on, so that the choice can't flatter the score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from shrp.data import TextData
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
        "Hold half of the data out",
        key=HOLD_OUT,
        bind="query-params",
        disabled=not enough,
        help="Off: experts are chosen on the inputs that score them, as in the paper, which flatters the score a "
        "little. On: they are chosen on one half, drawn at random with as many inputs of each class, and scored on the "
        "other." + ("" if enough else f" These data have {len(selection.data):,} inputs; it takes {FEWEST}."),
    )
    return _split(selection) if on and enough else selection


def _split(selection: Selection) -> Selection:
    checkpoint, data = selection.checkpoint, selection.data
    # Kept, since what is measured on a half is kept by the half's content, and the teacher's part by its identity.
    store, key = results("halves", 8), (checkpoint.fingerprint, data.fingerprint, data.name)
    if (found := store.get(key)) is None:
        ranked, scored = halves(data)
        chosen, held = data.subset(ranked), data.subset(scored)
        chosen, held = (
            replace(chosen, name=f"{data.name}, half"),
            replace(held, name=f"{data.name}, other half"),
        )
        teacher = checkpoint.teacher.get(data.fingerprint)
        part = {} if teacher is None else {held.fingerprint: replace(teacher, logits=teacher.logits[scored])}
        found = replace(checkpoint, teacher={**checkpoint.teacher, **part}), chosen, held
        store.put(key, found)
    checkpoint, chosen, held = found
    return replace(selection, checkpoint=checkpoint, data=held, ranked_on=chosen)


def halves(data: TextData) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the half to choose on and of the half to score on, ascending; the same in every session."""
    order = data.stratified_order()
    middle = len(order) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def introduction(selection: Selection) -> str:
    """What the experts are ranked on and the score is of, as Markdown."""
    name, n = escape(selection.data.name), len(selection.data)
    if selection.ranked_on is None:
        return f"evaluated on **{name}** (n = {n:,}), which also gives the usage that experts are ranked by."
    other = selection.ranked_on
    return (
        f"evaluated on **{name}** (n = {n:,}); the usage that experts are ranked by is of **{escape(other.name)}** "
        f"(n = {len(other):,})."
    )
