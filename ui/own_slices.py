"""Slices of a person's own, by words: typed in the sidebar, and in place of the data's own on every page."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from shrp.data import TextData
from shrp.errors import DataError
from shrp.slices import MOST, REST, WordSlice, parse_slices, sliced_by_words
from ui.store import once
from ui.text import escape

SLICES = "word_slices"
"""Key of the box, in the session's state and in the URL alike."""
MAX_CHARACTERS = 1_500
"""Of the box: the address has to hold it."""
_HELP = (
    f"One a line, at most {MOST}: a name, a colon and words. An input is in the first slice of which it has a word; "
    "the others are in *none of these*. Words are whole, in either case, may be several in a row, and a star stands "
    "for letters. They take the place of the data's own slices on every page; empty the box to have those back."
)


def draw() -> None:
    """Draw the section in the sidebar."""
    with st.expander("Slices of your own", icon=":material/label:"):
        st.text_area(
            "Slices by words",
            key=SLICES,
            bind="query-params",
            height=110,
            max_chars=MAX_CHARACTERS,
            placeholder="negation: not, never, *n't\ncontrast: but, although",
            help=_HELP,
        )
    if problem := _read()[1]:  # also what a link has: the box takes it from the address when it is drawn
        st.error(escape(f"Slices of your own are not in use: {problem}"), icon=":material/error:")


def applied(data: TextData) -> TextData:
    """The data with the slices that are typed; as they are where there are none, or none that can be read."""
    slices, _ = _read()
    if not slices:
        return data
    key = data.fingerprint, data.name, data.pairs, slices
    return once("own slices", 8, key, "Making the slices", lambda progress: sliced_by_words(data, slices))


def say(data: TextData) -> None:
    """In the sidebar, how many inputs are in each of the slices that are typed."""
    slices, _ = _read()
    if not slices:
        return
    counts = Counter(data.slices)
    said = ", ".join(f"{escape(name)} {counts[name]:,}" for name in (*(one.name for one in slices), REST))
    st.sidebar.caption(f":material/label: Slices of your own (n = {len(data):,}): {said}.")


def _read() -> tuple[tuple[WordSlice, ...], str]:
    """The slices that are typed, and what is wrong with them."""
    try:
        return parse_slices((st.session_state.get(SLICES) or "")[:MAX_CHARACTERS]), ""
    except DataError as error:
        return (), str(error)
