"""Slices of a person's own, by words or numbers: in the sidebar, and in place of the data's own on every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import streamlit as st

from shrp.data import TextData
from shrp.errors import DataError
from shrp.slices import MOST, REST, WordSlice, by_numbers, parse_slices, sliced_by_words
from ui.store import once
from ui.text import escape

SLICES = "word_slices"
"""Key of the box, in the session's state and in the URL alike."""
MAX_CHARACTERS = 1_500
"""Of the box: the address has to hold it."""
_OF = "word_slices-of"
"""Key of the session's state: what was typed last, and the data that were looked at then."""
_HELP = (
    f"One a line, at most {MOST}: a name, a colon and words. An input is in the first slice of which it has a word; "
    "the others are in *none of these*. Words are whole, in either case, may be several in a row, and a star stands "
    "for letters. `#12` is the input of that number, from 0, and `#12-20` are nine in a row, of the data that you see "
    "as you type it. They take the place of "
    "the data's own slices on every page; empty the box to have those back."
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
    if typed := problem():  # also what a link has: the box takes it from the address when it is drawn
        st.error(escape(f"Slices of your own are not in use: {typed}"), icon=":material/error:")


def problem() -> str:
    """Why what is typed is in no use on any data; empty where it is, or nothing is typed."""
    return _read()[1]


def applied(data: TextData) -> TextData:
    """The data with the slices that are typed; as they are where there are none, or none that these data have."""
    slices, _ = _read()
    if not slices or _of_others(data, slices):
        return data
    key = data.fingerprint, data.name, data.pairs, slices
    try:
        return once("own slices", 8, key, "Making the slices", lambda progress: sliced_by_words(data, slices))
    except DataError:
        return data  # `say` says why


def say(data: TextData) -> None:
    """In the sidebar, how many inputs are in each of the slices that are typed, or why they are not in use."""
    slices, _ = _read()
    if not slices:
        return
    if not data.slice_words:  # they are not these data's, so there is a reason
        if others := _of_others(data, slices):
            st.sidebar.error(
                f"Slices of your own are not in use: some name inputs by number, of {escape(others)}, and these are "
                "other data. Change what is typed to name theirs.",
                icon=":material/error:",
            )
            return
        try:
            sliced_by_words(data, slices)
        except DataError as error:
            st.sidebar.error(
                f"Slices of your own are not in use: {escape(str(error))}", icon=":material/error:"
            )
            return
    counts = Counter(data.slices)
    said = ", ".join(f"{escape(name)} {counts[name]:,}" for name in (*(one.name for one in slices), REST))
    st.sidebar.caption(f":material/label: Slices of your own (n = {len(data):,}): {said}.")


def with_numbers(name: str, numbers: Iterable[int]) -> str:
    """What the box would have with a slice of these inputs, in place of any of that name; before all others, since an
    input is in the first one that it is in.

    Raises:
        DataError: these are no slices, or more than the page's address can hold; or the name has a colon.
    """
    if ":" in name:
        raise DataError("a name ends at its colon; give it one without.")
    lines = (st.session_state.get(SLICES) or "").splitlines()
    others = [line for line in lines if line.strip() and line.partition(":")[0].strip() != name.strip()]
    text = "\n".join([f"{name.strip()}: {by_numbers(numbers)}", *others])
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"these inputs are too many, and too far apart, for the page's address, which has to name them: "
            f"{len(text):,} characters of at most {MAX_CHARACTERS:,}."
        )
    parse_slices(text)
    return text


def _of_others(data: TextData, slices: tuple[WordSlice, ...]) -> str:
    """The data of which slices name inputs by number, where these are others; those that are seen first after a change
    of the box are meant.
    """
    if not any(one.numbers for one in slices):
        return ""
    typed = st.session_state.get(SLICES)
    if (st.session_state.get(_OF) or ("",))[0] != typed:
        st.session_state[_OF] = typed, data.source_fingerprint, data.name
    _, fingerprint, name = st.session_state[_OF]
    return "" if fingerprint == data.source_fingerprint else name


def _read() -> tuple[tuple[WordSlice, ...], str]:
    """The slices that are typed, and what is wrong with them."""
    try:
        return parse_slices((st.session_state.get(SLICES) or "")[:MAX_CHARACTERS]), ""
    except DataError as error:
        return (), str(error)
