"""Values of keyed widgets, brought back among what the widgets offer now; and what else the address holds.

What a person picked is kept by its key while checkpoint, data and plan change around it. Streamlit brings some of it
back among a widget's options by itself, but not numbers, and not to the start that a page gives. Call these before the
widget is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import streamlit as st


def clamp(key: str, low: int, high: int) -> None:
    """Bring a number into the range from `low` to `high`.

    An infinite one in the address, which a box of whole numbers fails at, is taken out, and the run starts anew.
    """
    try:
        infinite = math.isinf(float(st.query_params.get(key, "")))
    except ValueError:
        infinite = False
    if infinite and key not in st.session_state:
        st.query_params.pop(key)
        st.rerun()
    value = st.session_state.get(key)
    if isinstance(value, int | float) and not low <= value <= high:
        st.session_state[key] = int(min(max(value, low), high))


def fall_back(key: str, options: Container, start: Any) -> bool:
    """Bring a box whose value is no option any more to `start`; returns whether it did.

    Were its value only taken away, the browser would go on showing it while the page computes with the start.
    """
    if key in st.session_state and st.session_state[key] not in options:
        st.session_state[key] = start
        return True
    return False


def restate(key: str, start: Any) -> None:
    """Have the address hold a kept value that is not the widget's start any more, as this has moved with the data.

    The address leaves out what is the start, and Streamlit does not write a value there that nobody has just picked.
    """
    if key in st.session_state and st.session_state[key] != start:
        st.session_state[key] = st.session_state[key]


def leave_known(key: str, options: Container) -> None:
    """Take out of several picks those that are no options any more."""
    if any(one not in options for one in st.session_state.get(key, ())):
        st.session_state[key] = [one for one in st.session_state[key] if one in options]


def set_param(name: str, value: str | None) -> None:
    """Have the page's address hold a value that no widget is bound to; None takes it out."""
    if st.query_params.get(name) == value:
        return
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = value
