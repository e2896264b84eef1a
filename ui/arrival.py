"""What a link within the app asks of the page that it leads to.

A widget that is bound to the address keeps its value from an earlier visit, and a value in the address that is the
widget's default is cleared by Streamlit without being set. So a link that names it would lead to the one kept. Links
carry what they ask for in a parameter of its own too, which the page takes out of the address on arrival; the widgets'
own parameters stay there, for what a page sets by itself in its first run does not get into the address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import streamlit as st

PARAM = "open"


def link(values: Mapping[str, Any]) -> dict[str, str]:
    """The query parameters of a link to a page whose widgets of these keys are to have these values."""
    return {key: str(value) for key, value in values.items()} | {PARAM: urlencode(values)}


def arrive(kinds: Mapping[str, Callable[[str], Any]]) -> None:
    """Give a page's widgets what the link that led to it asks for; call before they are drawn.

    What is no value of its kind is left out; that a value is an option is for whoever draws the widget to see.

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
