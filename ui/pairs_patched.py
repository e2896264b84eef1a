"""Where what tells minimal pairs apart passes through the model, layer by layer: the last section of Expert usage."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.errors import ShrpError
from shrp.pairs_patched import KINDS, PairsPatched, patch_pairs
from ui import pair_views
from ui.downloads import chart
from ui.state import Selection, show_error
from ui.store import once
from ui.text import escape_html, percent
from ui.theme import BLUE, DASHES, GREEN, ORANGE, SYMBOLS, layout, whiskers

FOLLOW = "follow"
"""Key of the widget, in the session's state and in the URL alike."""
_COLORS = dict(zip(KINDS, (BLUE, ORANGE, GREEN), strict=True))


def section(selection: Selection) -> None:
    """The section, where the data have minimal pairs; nothing elsewhere."""
    data = selection.data
    if data is None or not pair_views.has_pairs(data):
        return
    st.header("Where the difference within pairs passes", anchor="follow")
    if not st.toggle(
        "Follow the difference within pairs through the layers",
        key=FOLLOW,
        bind="query-params",
        help="Puts hidden states of each input of a minimal pair into the other one, layer by layer, and runs the "
        "layers above anew, routes too (activation patching). Takes some seconds for a hundred pairs.",
    ):
        return
    try:
        found = _patched(selection)
    except ShrpError as error:
        show_error(error)
        return
    frame = found.table()
    said = in_words(frame)
    chart(
        lines(frame, data.name),
        frame,
        "pairs-patched",
        f"{selection.name}-difference-within-pairs",
        "Lines: how much of the way to the other input's output the hidden states of three kinds of tokens bring, by "
        f"the layer that they enter. {said}",
    )
    st.markdown(said)
    every = found.n + found.left_out
    others = f" Left out: {found.left_out:,} of {every:,} pairs, with other numbers of tokens." * bool(
        found.left_out
    )
    st.caption(
        "States of each input of a pair take their place in the other one: the first token's, which the task head "
        "reads, those of tokens that differ, or those of all others. 100%: the output is that of the other input. The "
        "three need not sum to 100%, as layers are not linear; pairs count by how far their outputs are apart, in both "
        f"directions.{others} On Routing the same is shown of single pairs, token by token."
    )


def _patched(selection: Selection) -> PairsPatched:
    one, data = selection.checkpoint, selection.data
    return once(
        "pairs patched",
        16,
        (one.fingerprint, data.fingerprint, data.pairs),
        "Minimal pairs",
        lambda progress: patch_pairs(
            one.model, one.tokenizer, data, max_length=one.info.max_length, progress=progress
        ),
    )


def lines(frame: pd.DataFrame, data: str) -> go.Figure:
    """How far the states of each kind of token, entering a layer, bring the output.

    Args:
        frame: of `PairsPatched.table`.
        data: its name.
    """
    fig = go.Figure()
    for (kind, color), dash, symbol in zip(_COLORS.items(), DASHES, SYMBOLS, strict=False):
        part = frame[frame["kind"] == kind]
        share, low, high = (100 * part[name] for name in ("part", "low", "high"))
        fig.add_trace(
            go.Scatter(
                x=part["layer"],
                y=share,
                name=kind,
                mode="lines+markers",
                line={"color": color, "dash": dash, "width": 2},
                marker={"color": color, "symbol": symbol, "size": 8},
                error_y=whiskers(share, low, high),
                customdata=[_hover(row) for row in part.itertuples()],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    layout(
        fig,
        "How far states of one input bring the other",
        subtitle=f"{escape_html(data)}, n = {int(frame['n'].iloc[0]):,} minimal pairs, in both directions; bars: 95% "
        "intervals over pairs",
        x="layer that the states enter",
        y="% of the way to the other's output",
        height=400,
        legend=True,
        margin={"b": 90},
    )
    fig.update_xaxes(dtick=1)
    return fig


def _hover(row) -> str:
    ends = "" if row.low != row.low else f", 95% interval {percent(row.low)} to {percent(row.high)}"
    return f"<b>{row.kind}</b>, entering layer {row.layer}<br>{percent(row.part)} of the way{ends}"


def in_words(frame: pd.DataFrame) -> str:
    """Until where the tokens that differ bring most of the way, and from where on the first one does."""
    parts = frame.pivot(index="layer", columns="kind", values="part")
    first, differ, others = (parts[kind] for kind in KINDS)
    late = differ[differ >= 0.5].index
    early = first[first >= 0.5].index
    told = []
    if len(late):
        told.append(
            f"The tokens that differ bring half of the way or more up to layer {late[-1]} ({percent(differ[late[-1]])})"
        )
    else:
        told.append("In no layer do the tokens that differ bring half of the way")
    if len(early):
        told.append(f"the first token from layer {early[0]} on ({percent(first[early[0]])})")
    else:
        told.append(f"the first token brings {percent(first.iloc[-1])} entering the last layer")
    most = int(others.idxmax())
    return f"{', '.join(told)}. All other tokens together bring most entering layer {most}: {percent(others[most])}."
