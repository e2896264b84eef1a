"""What an address asks a picker for and this session does not have: a notice says so, and what is there instead."""

from __future__ import annotations

from collections.abc import Container

import streamlit as st

from ui.text import escape, shorten


def asked_for(key: str, offered: Container[str]) -> str | None:
    """What the address asks for in vain; call before the picker is drawn, since that mends the address.

    Only what a session starts with counts: what is gone later the person has taken away.
    """
    asked = st.query_params.get(key)
    return asked if asked and key not in st.session_state and asked not in offered else None


def notice(what: str, key: str, asked: str | None, shown: str | None) -> None:
    """Say what was asked for and what is shown instead, until something else is picked.

    Args:
        what: is picked, in words.
        key: of the picker.
        asked: from `asked_for`, in the run that found it.
        shown: the picker's value; None where nothing is picked.
    """
    session, kept = st.session_state, f"not-here-{key}"
    if asked is not None:
        session[kept] = asked, shown
    if kept not in session:
        return
    asked, first = session[kept]
    if shown != first:
        del session[kept]
        return
    instead = "Nothing is picked instead" if shown is None else f"**{escape(shown)}** is shown instead"
    st.info(
        f"The address asks for the {what} **{escape(shorten(asked))}**, which is not here; what is uploaded belongs to "
        f"one session alone. {instead}.",
        icon=":material/link_off:",
    )
