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
        reset: whether to go back to `default` in this run, whatever was picked before.
        help: behind a question mark beside the label.
    """
    if reset:
        st.session_state[key] = default
    if all(_PLAIN.fullmatch(name) for name in options):
        return st.segmented_control(
            label,
            options,
            key=key,
            default=default,
            required=default is not None,
            bind="query-params",
            help=help,
        )
    index = None if default is None else options.index(default)
    return st.selectbox(label, options, index, key=key, bind="query-params", help=help)


def always_one(
    label: str,
    options: Sequence[str],
    key: str,
    start: str | None = None,
    help: str | None = None,
    **more: Any,
) -> str:
    """Pick one of the app's own options; always one, and `start` where what was picked is none of them any more.

    Args:
        start: what is picked at first; None for the first option.
        more: further arguments of `st.segmented_control`.
    """
    start = options[0] if start is None else start
    fall_back(key, options, start)
    restate(key, start)
    picked = st.segmented_control(
        label,
        options,
        default=start,
        required=True,
        key=key,
        bind="query-params",
        help=help,
        **more,
    )
    return picked if picked in options else start
