"""Which experts, of all layers, a group of inputs takes unlike the others do: a list that leads to each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.specialisation import Grouping, cells_frame
from ui import state
from ui.downloads import downloads
from ui.text import escape, p_text, percent

SURE = 0.05
MOST = 30
"""Experts that are listed."""


def section(one: Grouping, selection: state.Selection, unit: str) -> None:
    """Which experts of any layer a group takes more or less often than all inputs do; a row leads to the expert."""
    frame = cells_frame(one)
    sure = frame[frame["p"] <= SURE]
    tested = f"tested pairs of {one.by} and expert ({escape(selection.data.name)}, {len(one.layers)} layers)"
    if sure.empty:
        st.markdown(f"None of {len(frame):,} {tested} differs from all inputs beyond chance.")
        return
    st.markdown(
        f"**Experts by {one.by}**: {len(sure):,} of {len(frame):,} {tested} differ from all inputs beyond chance "
        "(p ≤ 5%, corrected for all of them). "
        + f"Listed are the {MOST} that differ most; the CSV has all. " * (len(sure) > MOST)
        + "Pick a row to go to the expert."
    )
    shown = sure.iloc[np.argsort(-sure["difference"].abs(), kind="stable")[:MOST]].reset_index(drop=True)
    # A picked row belongs to this list alone.
    key = f"unlike-{one.by}-{selection.checkpoint.fingerprint}-{selection.data.fingerprint}"
    st.dataframe(
        pd.DataFrame(
            {
                "layer": shown["layer"],
                "expert": shown["expert"],
                one.by: [str(name).replace("_", " ") for name in shown["group"]],
                "takes it": [percent(share) for share in shown["share"]],
                "of": [f"{count:,} of {n:,}" for count, n in zip(shown["count"], shown["n"], strict=True)],
                "of all": [percent(share) for share in shown["of_all"]],
                "difference, points": 100 * shown["difference"],
                "p": [p_text(p).removeprefix("p ").removeprefix("= ") for p in shown["p"]],
            }
        ),
        key=key,
        on_select=lambda: _pick(key, shown),
        selection_mode="single-row",
        hide_index=True,
        width="stretch",
        height=38 + 35 * min(len(shown), 8),
        column_config={
            "layer": st.column_config.NumberColumn(width=45),
            "expert": st.column_config.NumberColumn(width=50),
            "takes it": st.column_config.TextColumn(
                help=f"Share of its {unit} that take the expert", width=70
            ),
            "of": st.column_config.TextColumn("as counts", width=80),
            "of all": st.column_config.TextColumn(help=f"Share of all {unit} that take it", width=60),
            "difference, points": st.column_config.NumberColumn(format="%+.1f", width=105),
            "p": st.column_config.TextColumn(
                help="Of shuffled groups, corrected for all cells of all layers", width=70
            ),
        },
        alt=f"Experts by {one.by} that are taken more or less often than by all inputs",
    )
    downloads(frame, "unlike", f"{selection.name}-experts-by-{one.by}")


def _pick(key: str, shown: pd.DataFrame) -> None:
    """Take a picked row's expert into the boxes."""
    if rows := st.session_state[key].selection.rows:
        st.session_state[state.LAYER] = int(shown["layer"].iloc[rows[0]])
        st.session_state[state.EXPERT] = int(shown["expert"].iloc[rows[0]])
