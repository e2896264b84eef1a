"""Half of the data to choose experts on, half to score them on, so that the choice flatters the score less."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from shrp.data.text_data import FEWEST, halves, in_halves
from shrp.phrases import listed
from ui.lab.reference import with_part
from ui.lab.work import COMBINATIONS, GLOBAL, RECORDED, Setting
from ui.state import Selection
from ui.store import results
from ui.text import escape

HOLD_OUT = "hold_out"
"""Key of the switch, in the session's state and in the URL alike."""


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
        found = (*in_halves(data, ranked, scored), scored)
        store.put(key, found)
    chosen, held, scored = found
    checkpoint = with_part(checkpoint, data, held, scored)
    rows = None if selection.rows is None else selection.rows[scored]
    return replace(selection, checkpoint=checkpoint, data=held, rows=rows, ranked_on=chosen)


def _counted_on(selection: Selection, setting: Setting) -> str:
    """What usage is of, as Markdown."""
    if setting.selection == RECORDED:
        of = selection.checkpoint.info.training.get("validation_data", "the validation data of its training")
        return f"the checkpoint's own, of **{escape(of)}**"
    on = selection.data if selection.ranked_on is None else selection.ranked_on
    return f"counted on **{escape(on.name)}** (n = {len(on):,})"


def _not_by_rank(selection: Selection, setting: Setting) -> str:
    """What experts are that no ranking chose, or not alone, as Markdown."""
    if setting.whole:
        return (
            "drawn at random, by a plan from a file" if setting.is_control else "those of a plan from a file"
        )
    if setting.edits.origin:
        drawn = ", some of them drawn at random" * setting.is_control
        return f"those of a plan from a file, but for what is changed here{drawn}"
    follows = ["their weights"] * (setting.combination == next(iter(COMBINATIONS)))
    follows += ["the layers' parts of the budget"] * (setting.allocation == GLOBAL)
    if not follows:
        return "drawn at random"
    return f"drawn at random; {listed(follows)} follow usage, {_counted_on(selection, setting)}"


def introduction(selection: Selection, setting: Setting) -> str:
    """What the experts are ranked on and the score is of, as Markdown."""
    name, n = escape(selection.data.name), len(selection.data)
    if setting.is_control or setting.edits.origin or setting.whole:
        return f"evaluated on **{name}** (n = {n:,}); the experts are {_not_by_rank(selection, setting)}."
    if setting.selection == RECORDED:
        return (
            f"evaluated on **{name}** (n = {n:,}); the usage that experts are chosen by is "
            f"{_counted_on(selection, setting)}{', of which nothing is held out' * (selection.ranked_on is not None)}."
        )
    if selection.ranked_on is None:
        return f"evaluated on **{name}** (n = {n:,}), on which the experts are chosen too."
    other = selection.ranked_on
    return (
        f"evaluated on **{name}** (n = {n:,}); the experts are chosen on **{escape(other.name)}** "
        f"(n = {len(other):,})."
    )
