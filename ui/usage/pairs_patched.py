"""Where what tells minimal pairs apart passes through the model, layer by layer: a section of Expert usage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.pairs_patched import KINDS, PairsPatched, patch_pairs, work
from shrp.data.batching import token_counts
from shrp.errors import ShrpError
from shrp.evaluation.minimal_pairs import pairs_of
from ui import pair_views
from ui.downloads import chart
from ui.state import Selection, show_error
from ui.store import once
from ui.text import escape_html, percent
from ui.theme import BLUE, DASHES, GREEN, ORANGE, SYMBOLS, layout, whiskers

FOLLOW = "follow"
"""Key of the widget, in the session's state and in the URL alike."""
_WORK = 2e12
"""Multiplications that a look may take, about half a minute on two cores: of more pairs some are drawn."""
_FEWEST, _MOST = 32, 512
"""Pairs that are looked at, however much work or little they are."""
_HALF = 0.5
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
        "layers above anew, routes too (activation patching).",
    ):
        return
    try:
        found, frame = _patched(selection)
    except ShrpError as error:
        show_error(error)
        return
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
    measured = (
        "output" if data.task.is_regression else "logit of the greater label less that of the smaller one"
    )
    st.caption(
        f"Measured is each input's {measured}: 100% of the way is what the other input of the pair has. States of the "
        "one take their place in the other: the first token's, which the task head reads, those of tokens that differ, "
        "or those of all others. The three need not sum to 100%, as layers are not linear; pairs count by how far "
        f"their two inputs are apart, in both directions.{_not_there(found)} Routing shows single pairs token by token."
    )


def _not_there(found: PairsPatched) -> str:
    """Which pairs are not in it, as further sentences."""
    said, every = "", found.n + found.left_out + found.not_drawn
    if found.left_out:
        said += (
            f" Left out: {found.left_out:,} of {every:,} pairs, whose inputs have other numbers of tokens."
        )
    if found.not_drawn:
        said += f" Drawn at random: {found.n:,} of the {found.n + found.not_drawn:,} others."
    return said


def _patched(selection: Selection) -> tuple[PairsPatched, pd.DataFrame]:
    """The exchange, and its table, whose bootstrap takes a moment too. Raises as
    `shrp.analysis.pairs_patched.patch_pairs`.
    """
    one, data = selection.checkpoint, selection.data
    length = one.info.max_length
    tokens = np.minimum(
        token_counts(one.tokenizer, [data.texts[row] for row in pairs_of(data)[:, 0]]), length
    )
    most = int(np.clip(_WORK / work(one.model, float(tokens.mean())), _FEWEST, _MOST))

    def make(progress: Any) -> tuple[PairsPatched, pd.DataFrame]:
        found = patch_pairs(one.model, one.tokenizer, data, max_length=length, most=most, progress=progress)
        return found, found.table()

    key = one.fingerprint, data.fingerprint, data.pairs
    return once("pairs patched", 16, key, "Minimal pairs", make)


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


def _share(part: float) -> str:
    return percent(round(part, 3) + 0.0).replace("-", "−")  # + 0.0 turns -0.0 into 0.0


def _hover(row: Any) -> str:
    ends = "" if row.low != row.low else f", 95% interval {_share(row.low)} to {_share(row.high)}"
    return f"<b>{row.kind}</b>, entering layer {row.layer}<br>{_share(row.part)} of the way{ends}"


def in_words(frame: pd.DataFrame) -> str:
    """Up to which layer the tokens that differ bring most of the way, and from which on the first one does."""
    parts = frame.pivot(index="layer", columns="kind", values="part")
    first, differ, others = (parts[kind].to_numpy() for kind in KINDS)
    start = int(np.argmin(np.append(differ >= _HALF, False)))  # the first layer at which they don't
    if start:
        told = f"The tokens that differ bring half of the way or more up to layer {start - 1}"
        told += f" ({_share(differ[start - 1])})"
    else:
        told = "The tokens that differ bring less than half of the way"
    end = len(first) - int(np.argmin(np.append(first[::-1] >= _HALF, False)))  # from here on it always does
    if end < len(first):
        told += f", the first token from layer {end} on ({_share(first[end])})"
    else:
        told += f", the first token {_share(first[-1])} entering the last layer"
    most = int(others.argmax())
    return f"{told}. All other tokens together bring most entering layer {most}: {_share(others[most])}."
