"""Values of keyed widgets: kept among what the widgets offer now, and in the page's address.

A pick is kept by its key while checkpoint, data and plan change around it; Streamlit alone does not bring back numbers, nor
the start that a page gives. Call these before the widget is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from shrp.phrases import listed
from ui import not_here

Kept = TypeVar("Kept")
_FOLLOWED, _PAGE, _LEFT_WITH = "address-followed", "address-page", "address-left-with"
"""Keys of the session's state: what `follow` last saw of each parameter; the open page; and each page's parameters when it
was left.
"""
_RANGES = "slider-ranges"
"""Key of the session's state: each slider's key -> its ends when it was last drawn."""


@contextmanager
def remembered(page: str, shared: Container[str]):
    """Run a page so that it comes back as it was left, also by the browser's Back; for `app.py`.

    Streamlit takes a page's parameters out of the address as the page is left, and reads an address without them as all
    widgets' defaults. So they are put back first, in one step. `shared` are those of all pages, which stay.
    """
    session = st.session_state
    before, session[_PAGE] = session.get(_PAGE), page
    left = session.setdefault(_LEFT_WITH, {})
    kept = left_with(page)
    if before not in (None, page) and kept and not any(key in st.query_params for key in kept):
        st.query_params.update(kept)
        st.rerun()  # no longer a step of the browser's history, for which an address without a parameter is its default

    if before not in (None, page):  # by a link: what its address leaves out is as at first
        for key in kept:
            session.pop(key, None)
    mine = left[page] = {key: st.query_params.get_all(key) for key in st.query_params if key not in shared}
    context = get_script_run_ctx()
    asked = context.query_string
    try:
        yield
    finally:
        # Not from `st.query_params`, which a run that another page's interrupts can't read any more. A later run of this page
        # may have begun before this one, which it interrupts, gets here.
        if context.query_string != asked and left[page] is mine:
            written = parse_qs(context.query_string, keep_blank_values=True)
            left[page] = {key: values for key, values in written.items() if key not in shared}


def left_with(page: str) -> dict[str, list[str]]:
    """The parameters that a page's address had when it was left."""
    return st.session_state.get(_LEFT_WITH, {}).get(page, {})


def went_back() -> bool:
    """Whether this run was asked for by the browser's Back or Forward button, so that the address leads."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def of_checkpoint(key: str, fingerprint: str, start: Kept) -> tuple[Kept, bool]:
    """What the session keeps under `key` for a checkpoint, at first `start`, and whether the address leads.

    It does at the start of a session and after Back or Forward. Otherwise the session leads: a request that was under way
    while the address changed still carries the old one, and what belongs to another checkpoint comes back with it.
    """
    leads = key not in st.session_state or went_back()
    return st.session_state.setdefault(key, {}).setdefault(fingerprint, start), leads


def follow(options: Mapping[str, Sequence[Any]], starts: Mapping[str, Any]) -> None:
    """Keep several boxes, which one click sets together, and the address in step, in one step of the browser's history.

    Each box is drawn with its key, without `bind`, after this call; the click's callback writes the session's state alone.

    Args:
        options: key of a box -> what it offers.
        starts: key -> what it shows at first. The address leaves all of them out until one is another.
    """
    session, seen = st.session_state, st.session_state.setdefault(_FOLLOWED, {})
    for key, offered in options.items():
        text = st.query_params.get(key)
        known = {str(option): option for option in offered}
        named = all(isinstance(option, str) for option in offered)
        can = listed(offered) if named else f"{offered[0]} to {offered[-1]}"
        not_here.tell(key, key.replace("_", " "), text in known, can)
        unpicked = text is None and session.get(key) == seen.get((key, "start"))
        if key not in session or text != seen.get(key):  # at first, by a link, by Back
            session[key] = known.get(text, starts[key])
        elif unpicked or session[key] not in offered:  # of another model
            session[key] = starts[key]
    texts = {key: str(session[key]) for key in options}
    if any(key in st.query_params or session[key] != starts[key] for key in options) and any(
        st.query_params.get(key) != text for key, text in texts.items()
    ):
        st.query_params.update(texts)
    seen |= {key: st.query_params.get(key) for key in options} | {(key, "start"): starts[key] for key in options}


def clamp(key: str, low: int, high: int) -> None:
    """Bring a number into the range from `low` to `high`; says so where the address asks for another one."""
    asked = st.query_params.get(key)
    try:
        number = low if asked is None else float(asked)
    except ValueError:
        number = math.nan
    if math.isinf(number) and key not in st.session_state:  # which a box of whole numbers fails at
        st.query_params.pop(key)
        st.rerun()
    not_here.tell(key, key.replace("_", " "), low <= number <= high, f"{low:,} to {high:,}")
    value = st.session_state.get(key)
    if isinstance(value, int | float) and not low <= value <= high:
        st.session_state[key] = int(min(max(value, low), high))


def slider(label: str, low: int, high: int, start: int, key: str) -> int:
    """Draw a slider of whole numbers that keeps its value while its ends change; returns the value.

    Of other ends it is another widget to Streamlit, which would take the value that was set by the key last, such as the
    one of the last visit to the page, though that is neither the newest nor between the new ends.
    """
    if low == high:  # a slider needs two ends
        st.markdown(f"{label}: {low}")
        return low
    clamp(key, low, high)
    session = st.session_state
    ranges = session.setdefault(_RANGES, {})
    if key in session and ranges.get(key) != (low, high):
        session[key] = session[key]
    number = st.slider(label, low, high, start, key=key, bind="query-params")
    ranges[key] = low, high  # not before, as a run that is interrupted draws none
    return int(number)


def fall_back(key: str, options: Collection, start: Any, what: str = "") -> None:
    """Bring a box whose value is no option any more to `start`; says so where the address asks for another `what`.

    Were the value only removed, the browser would go on showing it.
    """
    if what:
        not_here.tell_unknown(key, what, (option for option in options if option is not None))
    if key in st.session_state and st.session_state[key] not in options:
        st.session_state[key] = start


def restate(key: str, start: Any) -> None:
    """Write a kept value to the address once it is not the widget's start any more, as that has moved with the data.

    Streamlit leaves out the start, and writes only what has just been picked.
    """
    if key in st.session_state and st.session_state[key] != start:
        st.session_state[key] = st.session_state[key]


def always_one(label: str, options: Sequence[str], key: str, start: str | None = None, **more: Any) -> str:
    """Pick one of the app's own options, at first and where the pick is no option any more `start`, else the first."""
    not_here.tell_unknown(key, key.replace("_", " "), map(more.get("format_func", str), options))
    start = options[0] if start is None else start
    fall_back(key, options, start)
    restate(key, start)
    more |= {"default": start, "required": True, "key": key, "bind": "query-params"}
    picked = st.segmented_control(label, options, **more)
    return picked if picked in options else start


def one_of_several(label: str, options: Sequence[int], key: str, what: str, **more: Any) -> int:
    """Pick the number of a `what`, at first the first; there is a box only for several."""
    fall_back(key, options, options[0], what)
    if len(options) == 1:
        return options[0]
    picked = st.selectbox(label, options, key=key, bind="query-params", **more)
    return picked if picked in options else options[0]


def set_param(name: str, value: str | None) -> None:
    """Have the page's address hold a value that no widget is bound to; None takes it out."""
    if st.query_params.get(name) == value:
        return
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = value
