"""Links within the app, and what they ask of the page that they lead to.

A bound widget keeps its value from an earlier visit, and Streamlit clears a value in the address that is the widget's
default without setting it. So links carry what they ask for in a parameter of its own too, which the page takes out on
arrival. A link may also begin a session, in a new tab, so each carries the sidebar's picks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import streamlit as st

from ui.state import CHECKPOINT, SOURCE

PARAM = "open"


def page_link(page: str, label: str, icon: str | None = None, asked: Mapping[str, str] | None = None) -> None:
    """Draw a link to a page of the app, with the parameters that it asks for and the sidebar's picks."""
    picked = {key: st.session_state.get(key) for key in (CHECKPOINT, SOURCE)}
    params = {key: value for key, value in picked.items() if value} | dict(asked or {})
    st.page_link(page, label=label, icon=icon, query_params=params, width="content")


def link(values: Mapping[str, Any]) -> dict[str, str]:
    """What a link asks of a page whose widgets of these keys shall have these values: query parameters."""
    return {key: str(value) for key, value in values.items()} | {PARAM: urlencode(values)}


def arrive(kinds: Mapping[str, Callable[[str], Any]]) -> None:
    """Give a page's widgets what the link that led to it asks for; call before they are drawn, which checks the options.

    Args:
        kinds: key of a widget -> what makes its value of a text; a ValueError leaves it out.
    """
    asked = st.query_params.get(PARAM)
    if asked is None:
        return
    for key, text in parse_qsl(asked):
        if key in kinds:
            try:
                st.session_state[key] = kinds[key](text)
            except ValueError:
                continue
    del st.query_params[PARAM]  # last, as a click may interrupt this
