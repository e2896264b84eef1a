"""The inputs as a layer's router sees them: a map in which one expert's inputs stand out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.input_map import Plane
from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from ui import measurements
from ui.bound import fall_back
from ui.downloads import chart, selected
from ui.expert import results as made
from ui.expert.inputs import EXAMPLE, TYPED, input_frame
from ui.expert.selection import selection
from ui.text import escape, escape_html, percent, shorten
from ui.theme import BLUE, GREEN, GREY, MUTED, ORANGE, PURPLE, SELECTED, SKY, layout

SCORES, STATES = "router scores", "hidden states"
THIS, EXPERTS = "this expert", "all experts"
OTHERS = "other experts"
AXES, COLOURED = "map_axes", "map_by"
"""Keys of the two controls, in the session's state and in the URL."""
_KEY = "input-map"
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)
_SYMBOLS = ("circle", "diamond", "square", "x", "triangle-up", "cross", "star")


def input_map(
    checkpoint: Checkpoint,
    stats: UsageStats,
    data: TextData,
    layer: int,
    expert: int,
    name: str,
    followed: bool,
) -> None:
    """The map with its two controls. Raises as `shrp.analysis.input_map.router_inputs`.

    Args:
        followed: whether the attention in an example is shown too, below.
    """
    st.markdown(
        f"**Map of the inputs** at the router of layer {layer}, n = {stats.n:,} of {escape(data.name)}"
    )
    by = _groupings(checkpoint, stats, data, layer, expert)
    left, right = st.columns(2)
    with left:
        axes = st.segmented_control(
            "Placed by",
            [SCORES, STATES],
            default=SCORES,
            required=True,
            key=AXES,
            bind="query-params",
            help="Router scores: what the router makes of an input, a number for each expert before the softmax. "
            "Hidden states: all that it is given, the mean over the input's tokens.",
        )
    with right:
        fall_back(COLOURED, by, THIS)
        coloured = st.selectbox("Coloured by", list(by), key=COLOURED, bind="query-params")
    drawn = made.router_planes(checkpoint, data, layer)[0 if axes == SCORES else 1]
    groups, order = by[coloured]
    order = [name for name in dict.fromkeys(order) if (groups == name).any()]
    top = stats.top1[layer].argmax(1)
    chart(
        map_figure(
            drawn,
            groups,
            order,
            [_hover(data, i, int(top[i]), stats.probs[layer][i]) for i in range(stats.n)],
            title=f"Inputs at layer {layer}, by {axes}",
            subtitle=f"{escape_html(data.name)}, n = {stats.n:,}; coloured by {coloured}",
        ),
        lambda: _table(stats, data, layer, expert, drawn),
        key=_KEY,
        name=f"{name}-map",
        alt=f"Scatter of {stats.n:,} inputs by two principal components of the {axes} at layer {layer}'s router, "
        f"coloured by {coloured}: " + "; ".join(f"{group} {int((groups == group).sum())}" for group in order),
        on_select=_pick,
        areas=True,
    )
    mixed = (
        " Here each token is routed for itself: an input lies at the mean of its tokens, and counts for the expert "
        "that most of them chose."
        if stats.unit == "tokens"
        else ""
    )
    rest = (
        f"{percent(max(0.0, 1 - sum(drawn.held)), 0)} of the variance lies in other directions, so points that look "
        "near may be apart there."
        if sum(drawn.held)
        else "Here all inputs are alike: they lie at one point."
    )
    pick = " Click a point to see this expert's attention in that input, below." * followed
    pick += " Select several with the box or the lasso in the chart's bar, to make a slice of them."
    st.caption(
        "The nearer, the more alike, in the two directions in which these inputs differ most, each drawn on a scale of "
        f"its own. {rest}{mixed}{pick}"
    )
    picked = [int(point[0]) for point in selected(_KEY) if point]
    selection(picked, lambda: _table(stats, data, layer, expert, drawn), stats, data, layer, name)


def _groupings(
    checkpoint: Checkpoint, stats: UsageStats, data: TextData, layer: int, expert: int
) -> dict[str, tuple[np.ndarray, list[str]]]:
    """What points can be coloured by -> each input's group `(N,)`, as text, and the groups in their order: what is only
    there for contrast first, so that it lies below.
    """
    top = stats.top1[layer].argmax(1)
    mine = f"expert {expert}"
    found = {
        THIS: (np.where(top == expert, mine, OTHERS), [OTHERS, mine]),
        EXPERTS: (
            np.array([f"expert {number}" for number in top]),
            [f"expert {number}" for number in np.unique(top)],
        ),
    }
    for by, groups in measurements.groups(checkpoint, data, stats).items():
        if len(groups) > len(_COLORS) * len(_SYMBOLS):  # more than can be told apart
            continue
        named = np.full(stats.n, "", dtype=object)
        for name, mask in groups.items():
            named[mask] = name
        found[by] = named, list(groups)
    return found


def map_figure(
    drawn: Plane,
    groups: np.ndarray,
    order: Sequence[str],
    hovers: Sequence[str],
    *,
    title: str,
    subtitle: str,
) -> go.Figure:
    """A point an input; colours and shapes tell groups apart, and `customdata` holds the input's number.

    Args:
        groups: `(N,)` names.
        order: of the groups, from the one that lies lowest.
        hovers: of each input, safe in HTML.
    """
    fig = go.Figure()
    for place, name in enumerate(order):
        rows = np.flatnonzero(groups == name)
        style, muted = place - (OTHERS in order), name == OTHERS
        fig.add_scatter(
            x=drawn.points[rows, 0],
            y=drawn.points[rows, 1],
            mode="markers",
            name=f"{escape_html(name.replace('_', ' '))} ({len(rows):,})",
            marker={
                "size": 6 if muted else 8,
                "color": MUTED if muted else _COLORS[style % len(_COLORS)],
                # One colour comes back with another shape: there are more shapes than colours.
                "symbol": "circle" if muted else _SYMBOLS[style % len(_SYMBOLS)],
            },
            # Streamlit dims what isn't selected.
            selected={"marker": {"color": SELECTED}},
            unselected={"marker": {"opacity": 1}},
            customdata=[[int(i)] for i in rows],
            hovertext=[hovers[i] for i in rows],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    first, second = (percent(part, 0) for part in drawn.held)
    fig.update_layout(hovermode="closest", dragmode="pan", newselection={"line": {"color": GREY, "width": 2}})
    return layout(
        fig,
        title,
        subtitle=subtitle,
        x=f"first principal component ({first} of the variance)",
        y=f"second principal component ({second})",
        height=520,
        legend=True,
    )


def _hover(data: TextData, number: int, expert: int, probs: np.ndarray) -> str:
    """An input's number, text, label and slice, and where it was routed."""
    lines = [f"<b>{number}</b>. {escape_html(shorten(' / '.join(data.texts[number]), 100))}"]
    if data.labels is not None:
        label, names = data.labels[number], data.task.label_names
        lines.append(f"label: {f'{label:g}' if data.task.is_regression else escape_html(names[label])}")
    if data.slices is not None:
        lines.append(f"slice: {escape_html(data.slices[number].replace('_', ' '))}")
    return "<br>".join([*lines, f"expert {expert}, probability {probs[expert]:.3f}"])


def _table(stats: UsageStats, data: TextData, layer: int, expert: int, drawn: Plane) -> pd.DataFrame:
    """One row an input, in the data's order: the two coordinates, its Top-1 expert, and `input_frame`'s columns."""
    frame = input_frame(stats, data, layer, expert).sort_values("index", ignore_index=True)
    places = {"component 1": drawn.points[:, 0], "component 2": drawn.points[:, 1]}
    return pd.concat([pd.DataFrame(places | {"top expert": stats.top1[layer].argmax(1)}), frame], axis=1)


def _pick() -> None:
    found = selected(_KEY)
    if len(found) == 1 and found[0]:  # several are no example; a redrawn chart's have no number
        st.session_state[EXAMPLE], st.session_state[TYPED] = int(found[0][0]), ""
