"""What an address asks a picker for and this session does not have: a page says so, and what is there instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import streamlit as st

from shrp.phrases import listed
from ui.text import escape, shorten

_MOST_LISTED = 12
_NOTED = "not-here"
"""Key of what was asked for in vain: picker -> what it picks, what was asked for, what was shown then."""


def note(key: str, what: str, fits: bool, asked: str | None = None) -> bool:
    """Note that the address asks a picker for what it does not offer, until something else is picked.

    Call before it is drawn, in each run: drawing mends the address. Only what a session starts with counts, since what is
    gone later the person has removed.

    Args:
        asked: what is asked for, where that is not all that the address has.

    Returns:
        Whether that is to be said.
    """
    session, noted = st.session_state, st.session_state.setdefault(_NOTED, {})
    asked = asked or st.query_params.get(key)
    if asked and not fits and key not in session:
        noted[key] = what, asked, None
    elif key in noted:
        what, asked, shown = noted.pop(key)
        if shown in (None, session.get(key)):
            noted[key] = what, asked, session.get(key)
    return key in noted


def was_asked_for(key: str) -> bool:
    """Whether what the address asks this picker for is not here, so that the rest of it is about something else."""
    return key in st.session_state.get(_NOTED, {})


def show(*keys: str) -> None:
    """Say what the address asks these pickers for in vain: a page of something else is easily taken for it."""
    noted = st.session_state.get(_NOTED, {})
    for key in filter(noted.get, keys):
        what, asked, _ = noted[key]
        shown = st.session_state.get(key)
        noted[key] = what, asked, shown
        instead = "Nothing is picked instead" if shown is None else f"**{escape(shown)}** is shown instead"
        st.warning(
            f"The address asks for **{escape(shorten(asked))}**, and there is no such {what} here. {instead}.",
            icon=":material/link_off:",
        )


def tell_unknown(key: str, what: str, options: Iterable[Any]) -> None:
    """As `tell`, of a widget that offers some options. Call it before the widget is drawn, in each run."""
    names = [str(option) for option in options]
    unknown = [asked for asked in st.query_params.get_all(key) if asked not in names]
    offered = names if len(names) <= _MOST_LISTED else [*names[:_MOST_LISTED], "others"]
    tell(key, what, not unknown, listed(offered) or "nothing", listed(unknown))


def tell(key: str, what: str, fits: bool, offered: str, asked: str | None = None) -> None:
    """As `note`, and say it, with what is offered."""
    if note(key, what, fits, asked):
        asked = st.session_state[_NOTED][key][1]
        st.warning(
            f"The address asks for {what} **{escape(shorten(asked, 30))}**, which is not available here. Available: {offered}.",
            icon=":material/link_off:",
        )
