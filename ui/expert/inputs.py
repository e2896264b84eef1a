"""The inputs that the router gives the highest and the lowest probability for one expert."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from ui import closer
from ui.downloads import downloads
from ui.tables import row_height
from ui.text import escape

SHOWN = 12
_OF = "example-of"
HIGHEST, LOWEST = "highest", "lowest"
RANKED, EXAMPLE, TYPED = "ranked", "example", "example_text"
"""Keys in the session's state and in the URL; `example` is the number of the input whose attention is shown."""


def input_frame(stats: UsageStats, data: TextData, layer: int, expert: int) -> pd.DataFrame:
    """Every input with its router probability for the expert, highest first.

    Columns index, the text columns, (label, slice), `router probability`, and `chosen` (whether the expert is its
    Top-1) or, under token routing, `tokens` (how many of its tokens chose the expert).
    """
    frame = replace(data, task=replace(data.task, text_columns=tuple(_text_names(data)))).to_frame()
    frame.insert(0, "index", np.arange(len(data)))
    frame["router probability"] = stats.probs[layer][:, expert].astype(float)
    mine = stats.top1[layer][:, expert]
    frame["tokens" if stats.unit == "tokens" else "chosen"] = mine if stats.unit == "tokens" else mine > 0
    return frame.sort_values("router probability", ascending=False, kind="stable", ignore_index=True)


def _text_names(data: TextData) -> list[str]:
    """The names of the texts' columns in `input_frame`."""
    return distinct(
        data.task.text_columns, ("index", "label", "slice", "router probability", "tokens", "chosen")
    )


def inputs(
    frame: pd.DataFrame, stats: UsageStats, data: TextData, cell: str, file_name: str, followed: bool
) -> None:
    """The table of inputs; a picked row becomes the example whose attention is shown.

    Args:
        frame: `input_frame`'s.
        cell: names layer and expert in the table's key.
        followed: whether the attention in an example is shown too, below.
    """
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with right:
        ranked = st.segmented_control(
            "Router probability",
            [HIGHEST, LOWEST],
            default=HIGHEST,
            required=True,
            key=RANKED,
            bind="query-params",
        )
    shown = frame.head(SHOWN) if ranked != LOWEST else frame.iloc[::-1].head(SHOWN)
    mean = ", a mean over each input's tokens" if stats.unit == "tokens" else ""
    with left:
        st.markdown(
            f"**Inputs with the {ranked or HIGHEST} router probability for this expert**, {len(shown)} of "
            f"n = {len(frame):,} of {escape(data.name)}{mean}"
        )
    key = f"inputs-{cell}-{ranked}-{data.fingerprint}"
    texts = _text_names(data)
    width = 275 if len(texts) == 1 else 148
    # With spaces, since a long name wraps at these alone.
    named = ("slice",) if data.task.is_regression else ("label", "slice")
    spaced = {name: shown[name].str.replace("_", " ") for name in named if name in shown}
    top = float(frame["router probability"].max())
    st.dataframe(
        shown.assign(**spaced),
        key=key,
        on_select=lambda: _pick(key, shown["index"].tolist()),
        selection_mode="single-row",
        hide_index=True,
        width="stretch",
        height="content",
        row_height=row_height(max(shown[name].str.len().max() for name in texts), width, most=109),
        column_config={
            "index": st.column_config.NumberColumn(
                "no.", width=50, help=f"Row of {escape(data.name)}, from 0"
            ),
            # Narrow enough that the probability, which the table is sorted by, is in sight in a small window.
            **{name: st.column_config.TextColumn(width=width) for name in texts},
            "router probability": st.column_config.ProgressColumn(
                format="%.3f", min_value=0, max_value=top or 1.0, width=125, help=f"A full bar is {top:.3f}"
            ),
            "label": st.column_config.Column(width=82),
            "slice": st.column_config.TextColumn(width=95),
            "chosen": st.column_config.CheckboxColumn(help="Whether this expert is the input's Top-1"),
            "tokens": st.column_config.NumberColumn(help="How many of its tokens chose this expert"),
        },
        alt=f"Inputs with the {ranked or HIGHEST} router probability for this expert",
    )
    below = ", and this expert's attention in it below" * followed
    st.caption(f"Pick a row to look closer at it{below}. The CSV holds all inputs.")
    if (picked := st.session_state.get(EXAMPLE)) in shown["index"].to_numpy():
        closer.links(data, [picked], routed=True)
    downloads(frame, "top-inputs", f"{file_name}-inputs")


def forget_example(data: TextData) -> None:
    """Take the picked example back where it is another data set's: its number says nothing here."""
    now = data.source_fingerprint  # slices by words leave the numbers as they are
    if st.session_state.setdefault(_OF, now) != now:
        st.session_state[_OF], st.session_state[EXAMPLE] = now, None


def _pick(key: str, numbers: list[int]) -> None:
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(numbers):
        st.session_state[EXAMPLE], st.session_state[TYPED] = numbers[rows[0]], ""
