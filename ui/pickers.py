"""Pickers of one of a few options that stand side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import streamlit as st

from ui.bound import fall_back, restate

# What Markdown leaves as it is; a link's address holds an option as it looks, so it can't be escaped instead.
_PLAIN = re.compile(r"(?!\d+[.)] |www\.)[^\W_](?:[\w./,()+-]| (?![-_+.]))*(?<![_.])")


def one_of(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    default: str | None = None,
    reset: bool = False,
    help: str | None = None,
) -> str | None:
    """Pick one of a checkpoint's or a person's own names; from a list where one would be read as Markdown.

    Args:
        default: what is picked at first, and then always one; None: nothing needs to be.
        reset: whether to go back to `default` in this run.
    """
    if reset:
        st.session_state[key] = default
    if all(_PLAIN.fullmatch(name) for name in options):
        more = {"default": default, "required": default is not None}
        return st.segmented_control(label, options, key=key, bind="query-params", help=help, **more)
    index = None if default is None else options.index(default)
    return st.selectbox(label, options, index, key=key, bind="query-params", help=help)


def always_one(label: str, options: Sequence[str], key: str, start: str | None = None, **more: Any) -> str:
    """Pick one of the app's own options, at first and where the pick is no option any more `start`, else the first."""
    start = options[0] if start is None else start
    fall_back(key, options, start)
    restate(key, start)
    more |= {"default": start, "required": True, "key": key, "bind": "query-params"}
    picked = st.segmented_control(label, options, **more)
    return picked if picked in options else start
