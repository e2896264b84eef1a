"""Pickers whose options are a checkpoint's or a person's own names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st

# What Markdown leaves as it is; a link's address holds an option as it looks, so it can't be escaped instead.
_PLAIN = re.compile(r"(?!\d+[.)] |www\.)[^\W_](?:[\w./,()+-]| (?![-_+.]))*(?<![_.])")


def one_of(
    label: str, options: Sequence[str], *, key: str, default: str | None = None, anew: bool = False
) -> str | None:
    """Pick one of a few names, side by side; from a list where a name would be read as Markdown.

    Args:
        default: what is picked at first, and then always one; None: nothing needs to be.
        anew: whether to go back to `default` in this run, whatever was picked before.
    """
    if anew:
        st.session_state[key] = default
    if all(_PLAIN.fullmatch(name) for name in options):
        return st.segmented_control(
            label, options, key=key, default=default, required=default is not None, bind="query-params"
        )
    index = None if default is None else options.index(default)
    return st.selectbox(label, options, index, key=key, bind="query-params")
