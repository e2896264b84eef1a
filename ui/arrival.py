"""Links within the app, and what they ask of the page that they lead to.

A widget that is bound to the address keeps its value from an earlier visit, and a value in the address that is the
widget's default is cleared by Streamlit without being set. So a link that names it would lead to the one kept. Links
carry what they ask for in a parameter of its own too, which the page takes out of the address on arrival; the widgets'
own parameters stay there, for what a page sets by itself in its first run does not get into the address.

A link that is opened in a new tab, or copied, begins a session of its own: so each carries the picked checkpoint, data
and slices, and which of these alone are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import streamlit as st

from ui.only import ONLY
from ui.own.slices import SLICES
from ui.state import CHECKPOINT, SOURCE

PARAM = "open"


def page_link(page: str, label: str, icon: str | None = None, asked: Mapping[str, str] | None = None) -> None:
    """Draw a link to a page of the app, with the parameters that it asks for beside the sidebar's picks."""
    picked = {key: st.session_state.get(key) for key in (CHECKPOINT, SOURCE, SLICES, ONLY)}
    params = {key: value for key, value in picked.items() if value} | dict(asked or {})
    st.page_link(page, label=label, icon=icon, query_params=params, width="content")


def link(values: Mapping[str, Any]) -> dict[str, str]:
    """What a link asks of a page whose widgets of these keys are to have these values: query parameters."""
    return {key: str(value) for key, value in values.items()} | {PARAM: urlencode(values)}


def arrive(kinds: Mapping[str, Callable[[str], Any]]) -> None:
    """Give a page's widgets what the link that led to it asks for; call before they are drawn.

    What is no value of its kind is left out; that a value is an option is checked where the widget is drawn.

    Args:
        kinds: key of a widget -> what makes its value of a text.
    """
    asked = st.query_params.get(PARAM)
    if asked is None:
        return
    del st.query_params[PARAM]
    for key, text in parse_qsl(asked):
        if key in kinds:
            try:
                st.session_state[key] = kinds[key](text)
            except ValueError:
                continue
