"""What an address asks a picker for and this session does not have: a page says so, and what is there instead."""

from __future__ import annotations

from collections.abc import Container

import streamlit as st

from ui.text import escape, shorten

_NOTED, _OUTSIDE = "not-here", "not-offered"
"""Keys of what was asked for in vain: picker -> what it picks, what was asked for, what was shown then."""


def asked_for(key: str, offered: Container[str]) -> str | None:
    """What the address asks for in vain; call before the picker is drawn, since that mends the address.

    Only what a session starts with counts: what is gone later the person has removed.
    """
    asked = st.query_params.get(key)
    return asked if asked and key not in st.session_state and asked not in offered else None


def note(what: str, key: str, asked: str | None, shown: str | None) -> None:
    """Keep what was asked for and what is there instead, until something else is picked; `show` says it."""
    noted = st.session_state.setdefault(_NOTED, {})
    if asked is not None:
        noted[key] = what, asked, shown
    elif key in noted and noted[key][2] != shown:
        del noted[key]


def was_asked_for(key: str) -> bool:
    """Whether what the address asks this picker for is not here, so that the rest of it is about something else."""
    return key in st.session_state.get(_NOTED, {})


def show(*keys: str) -> None:
    """Say what the address asks these pickers for in vain: a page of something else is easily taken for it."""
    noted = st.session_state.get(_NOTED, {})
    for what, asked, shown in (noted[key] for key in keys if key in noted):
        instead = "Nothing is picked instead" if shown is None else f"**{escape(shown)}** is shown instead"
        st.warning(
            f"The address asks for the {what} **{escape(shorten(asked))}**, which is not here; what is "
            f"uploaded belongs to one session alone. {instead}.",
            icon=":material/link_off:",
        )


def tell(key: str, what: str, fits: bool, offered: str) -> None:
    """Say that the address asks a page's widget for a value that it does not offer, until another one is picked.

    Call before the widget is drawn, in each run.
    """
    session, noted = st.session_state, st.session_state.setdefault(_OUTSIDE, {})
    asked = st.query_params.get(key)
    if asked and not fits and key not in session:
        noted[key] = asked, None
    elif key in noted:
        asked, shown = noted.pop(key)
        if shown in (None, session.get(key)):
            noted[key] = asked, session.get(key)
    if key in noted:
        st.warning(
            f"The address asks for {what} **{escape(shorten(noted[key][0], 30))}**, which can't be had here: "
            f"{offered} can.",
            icon=":material/link_off:",
        )
