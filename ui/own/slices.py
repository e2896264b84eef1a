"""Slices of a person's own, by words or numbers: in the sidebar, and in place of the data's own on every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import streamlit as st

from shrp.data.slices import MOST, REST, WordSlice, by_numbers, parse_slices, sliced_by_words
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.phrases import listed
from ui.store import once
from ui.text import escape

SLICES = "word_slices"
"""Key of the box, in the session's state and in the URL alike."""
MAX_CHARACTERS = 1_500
"""Of the box: the address has to hold it."""
_OF = "word_slices-of"
"""Key of the session's state: a slice by number -> the data that were looked at when it was typed."""
_HELP = (
    f"One a line, at most {MOST}: a name, a colon and words. An input is in the first slice of which it has a word; "
    "the others are in *none of these*. Words are whole, in either case, may be several in a row, and a star stands "
    "for letters. `#12` is the input of that number, from 0, and `#12-20` are nine in a row, of the data that you see "
    "as you type it (a link does not say which these were). They take the place of "
    "the data's own slices on every page; empty the box to have those back."
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
    """The data with the slices that are typed; as they are where there are none, or none that these data have."""
    slices, _ = _read()
    if not slices or _elsewhere(data, slices):
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
        if others := _elsewhere(data, slices):
            st.sidebar.error(
                f"Custom slices are not in use: {escape(listed(others))} by number, and these are other data. "
                "Change such a line to name inputs of these, or take it out.",
                icon=":material/error:",
            )
            return
        try:
            sliced_by_words(data, slices)
        except DataError as error:
            st.sidebar.error(f"Custom slices are not in use: {escape(str(error))}", icon=":material/error:")
            return
    counts = Counter(data.slices)
    said = ", ".join(f"{escape(name)} {counts[name]:,}" for name in (*(one.name for one in slices), REST))
    st.sidebar.caption(f":material/label: Custom slices (n = {len(data):,}): {said}.")


def with_numbers(name: str, numbers: Iterable[int], data: TextData) -> str:
    """What the box would have with a slice of these inputs, in place of any of that name and of those that name inputs
    of other data; before all others, since an input is in the first one that it is in.

    Raises:
        DataError: these are no slices, or more than the page's address can hold; or the name has a colon.
    """
    if ":" in name:
        raise DataError("a name ends at its colon; give it one without.")
    slices, _ = _read()
    bound = _bound(data, slices)
    gone = {name.strip(), *(one.name for one in bound if bound[one][0] != data.texts_fingerprint)}
    lines = (st.session_state.get(SLICES) or "").splitlines()
    others = [line for line in lines if line.strip() and line.partition(":")[0].strip() not in gone]
    text = "\n".join([f"{name.strip()}: {by_numbers(numbers)}", *others])
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"these inputs are too many, and too far apart, for the page's address, which has to name them: "
            f"{len(text):,} characters of at most {MAX_CHARACTERS:,}."
        )
    parse_slices(text)
    return text


def _elsewhere(data: TextData, slices: Sequence[WordSlice]) -> list[str]:
    """The slices that name inputs of other data by number, each with where it was typed."""
    own = data.texts_fingerprint
    bound = _bound(data, slices)
    return [
        f"“{one.name}” names inputs of {bound[one][1]}"
        for one in slices
        if one.numbers and bound[one][0] != own
    ]


def _bound(data: TextData, slices: Sequence[WordSlice]) -> dict[WordSlice, tuple[str, str]]:
    """Each slice by number -> the data that it is of, their texts' fingerprint and their name: those that are seen when
    it is new.
    """
    before, now = st.session_state.get(_OF) or {}, (data.texts_fingerprint, data.name)
    st.session_state[_OF] = {one: before.get(one, now) for one in slices if one.numbers}
    return st.session_state[_OF]


def _read() -> tuple[tuple[WordSlice, ...], str]:
    """The slices that are typed, and what is wrong with them."""
    try:
        return parse_slices((st.session_state.get(SLICES) or "")[:MAX_CHARACTERS]), ""
    except DataError as error:
        return (), str(error)
