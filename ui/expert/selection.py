"""The inputs that a box or a lasso selects in the map of an expert's profile: what they are, and a slice of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData
from shrp.errors import DataError
from ui.downloads import downloads
from ui.only import ONLY
from ui.own.slices import SLICES, with_numbers
from ui.text import escape, percent

NAME = "selection-name"
_FIRST = "picked"
"""What a slice is called until a person calls it something else."""
_ROWS = 8  # of a table that is not scrolled
_NAMED = 3
"""Experts that the sentence names at most."""


def selection(
    rows: Sequence[int],
    table: Callable[[], pd.DataFrame],
    stats: UsageStats,
    data: TextData,
    layer: int,
    file_name: str,
) -> None:
    """Draw the selected inputs; nothing for fewer than two.

    Args:
        rows: their numbers.
        table: makes one row an input, in the data's order.
        layer: of the map.
    """
    rows = sorted(set(rows))
    if len(rows) < 2:
        return
    st.markdown(f"**{len(rows):,} of {len(data):,} inputs are selected.** {where_routed(rows, stats, layer)}")
    frame = table().iloc[rows]
    shown = [name for name in frame if name not in ("component 1", "component 2", "top expert")]
    texts = shown[1 : 1 + len(data.task.text_columns)]
    st.dataframe(
        frame[[*shown, "top expert"]],
        hide_index=True,
        height="content" if len(rows) <= _ROWS else 320,
        column_config={name: st.column_config.TextColumn(width=390 // len(texts)) for name in texts},
        alt=f"The {len(rows)} selected inputs",
    )
    downloads(frame, "selection", f"{file_name}-selection")
    if st.session_state.get(ONLY):
        st.caption(
            ":material/block: Only some slices are looked at, whose inputs have other numbers among all: to make a "
            "slice of these, take back what is picked under *Only these slices*."
        )
        return
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    name = left.text_input("Name of the slice", _FIRST, key=NAME, max_chars=60)
    try:
        text = with_numbers(name, rows, data)
    except DataError as error:
        st.caption(f":material/block: No slice can be made of them: {escape(str(error))}")
        return
    right.button(
        "Make it a slice of your own",
        on_click=_use,
        args=(text,),
        icon=":material/label:",
        help="It stands in the sidebar, and every page scores, counts and compares by it; other slices of your own "
        "stay, those of the data are put away while there are any.",
    )


def _use(text: str) -> None:
    st.session_state[SLICES] = text


def where_routed(rows: Sequence[int], stats: UsageStats, layer: int) -> str:
    """Which experts take most of these inputs in a layer, beside their shares of all, as Markdown."""
    here, everywhere = stats.share(layer, np.asarray(rows)), stats.share(layer)
    parts = [
        f"expert {expert} {percent(here[expert])} ({percent(everywhere[expert])} of all)"
        for expert in np.argsort(-here, kind="stable")[:_NAMED]
        if here[expert] > 0
    ]
    more = int((here > 0).sum()) - len(parts)
    what = "their tokens" if stats.unit == "tokens" else "them"
    return f"Of {what} layer {layer} sends to {', '.join(parts)}{f', and to {more} more' if more else ''}."
