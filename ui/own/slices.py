"""Slices of a person's own, by words: in the sidebar, and in place of the data's own on every page."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from shrp.data.slices import MOST, REST, WordSlice, parse_slices, sliced_by_words
from shrp.data.text_data import TextData
from shrp.errors import DataError
from ui.store import once
from ui.text import escape, slice_name

SLICES = "word_slices"
"""Key of the box, in the session's state and in the URL alike."""
MAX_CHARACTERS = 1_500
"""Of the box: the address has to hold it."""
_HELP = (
    f"One a line, at most {MOST}: a name, a colon and words. An example is in the first slice of which it has a word; "
    f"the others are in *{REST}*. Words are whole, in either case, may be several in a row, and a star stands for "
    "letters. They replace the data's own slices on every page."
)


def draw() -> None:
    """Draw the section in the sidebar."""
    with st.expander("Custom slices", icon=":material/label:"):
        st.text_area(
            "Slices by words",
            key=SLICES,
            bind="query-params",
            height=110,
            max_chars=MAX_CHARACTERS,
            placeholder="negation: not, never, *n't\ncontrast: but, although",
            help=_HELP,
        )
    if typed := problem():  # also what a link has: the box takes it from the address when it is drawn
        st.error(escape(f"Custom slices are not in use: {typed}"), icon=":material/error:")


def problem() -> str:
    """Why what is typed is in no use on any data; empty where it is, or nothing is typed."""
    return _read()[1]


def applied(data: TextData) -> TextData:
    """The data with the slices that are typed; as they are where there are none."""
    slices, _ = _read()
    if not slices:
        return data
    key = data.fingerprint, data.name, data.pairs, slices
    return once("own slices", 8, key, "Making the slices", lambda progress: sliced_by_words(data, slices))


def say(data: TextData) -> None:
    """In the sidebar, how many examples are in each of the slices that are typed."""
    slices, _ = _read()
    if slices:
        counts, names = Counter(data.slices), [*(one.name for one in slices), REST]
        said = ", ".join(f"{escape(slice_name(name))} {counts[name]:,}" for name in names)
        st.sidebar.caption(f":material/label: Custom slices (n = {len(data):,}): {said}.")


def _read() -> tuple[tuple[WordSlice, ...], str]:
    """The slices that are typed, and what is wrong with them."""
    try:
        return parse_slices((st.session_state.get(SLICES) or "")[:MAX_CHARACTERS]), ""
    except DataError as error:
        return (), str(error)
