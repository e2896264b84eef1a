"""Only some slices of the data: picked in the sidebar, they take the place of all examples on every page."""

from __future__ import annotations

import numpy as np
import streamlit as st

from shrp.data.slices import only
from shrp.data.text_data import TextData
from shrp.errors import DataError
from ui.bound import leave_known
from ui.own import slices as own_slices
from ui.store import once
from ui.text import escape, shorten

ONLY = "only"
"""Key of the picker, in the session's state and in the URL alike."""
_MISSED = "only-missed"
"""Key of the slices that an address asks for in vain, and the fingerprint of the data that don't have them."""


def draw(data: TextData | None) -> None:
    """Draw the picker, where the data have slices to tell apart.

    Args:
        data: all of the picked data; None where there are none.
    """
    if data is None:
        keep()
        return
    options = sorted(set(data.slices or ()))
    if own_slices.problem() and any(name not in options for name in st.session_state.get(ONLY) or ()):
        keep()  # until the box is mended, whose slices these may be
        return
    if ONLY not in st.session_state:  # as in `ui.not_here`: what a session starts with
        missed = [name for name in st.query_params.get_all(ONLY) if name not in options]
        st.session_state[_MISSED] = missed, data.fingerprint
    leave_known(ONLY, options)
    if len(options) < 2:
        st.session_state.pop(ONLY, None)
        return
    about = (
        "All pages then show these examples alone: usage, prunings, scores, comparisons and what is saved."
    )
    box = {"key": ONLY, "bind": "query-params", "placeholder": "all examples", "help": about}
    st.multiselect("Filter by slice", options, on_change=lambda: st.session_state.pop(_MISSED, None), **box)


def keep() -> None:
    """Hold on to what is picked where the picker is not drawn: by itself Streamlit forgets a widget's value then."""
    if ONLY in st.session_state:
        st.session_state[ONLY] = st.session_state[ONLY]


def applied(data: TextData) -> tuple[TextData, np.ndarray | None]:
    """The examples of the picked slices, and their numbers in the whole; None for all of them."""
    picked = tuple(name for name in st.session_state.get(ONLY) or () if name in (data.slices or ()))
    if not picked:
        return data, None
    key = data.fingerprint, data.name, data.pairs, data.slice_words, picked
    try:
        return once("only", 8, key, "Taking the slices", lambda progress: only(data, picked))
    except DataError:  # they went with the data that had them
        return data, None


def say(data: TextData, whole: TextData) -> None:
    """Say in the sidebar that not all examples are looked at, and on the page that an address asks for slices in vain."""
    if len(data) < len(whole):
        part = f"{len(data):,} of {len(whole):,} examples of {escape(whole.name)}"
        st.sidebar.caption(f":material/filter_alt: {part}.")
    missed, of = st.session_state.get(_MISSED) or ((), "")
    if missed and of == whole.fingerprint:
        instead = "All examples are" if len(data) == len(whole) else "The others are"
        names = f"the slice{'s' * (len(missed) > 1)} **{escape(shorten(', '.join(missed)))}**"
        text = f"The address asks for only {names}, which these data don't have. {instead} looked at instead."
        st.warning(text, icon=":material/link_off:")
