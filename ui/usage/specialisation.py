"""What routing goes by: how much class, answer, slice and length tell of routes, and one layer's experts by group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.specialisation import (
    EXPECTED,
    MOST_GROUPS,
    Grouping,
    specialisation,
    specialisation_frame,
)
from shrp.analysis.usage import UsageStats
from shrp.data.slices import ANSWER, CLASS, LENGTH, SLICE
from shrp.data.text_data import TextData
from shrp.evaluation.minimal_pairs import pairs_of
from ui import bound, measurements, state
from ui.downloads import chart
from ui.store import once
from ui.text import LONGEST_LABEL, capital, escape_html, percent, plain, shorten
from ui.theme import BLUE, DIVERGING, GREEN, GREY, PURPLE, click_targets, layout, outline, pick_by_click
from ui.usage import group_experts
from ui.usage.figures import LABELLED, cells_height
from ui.usage.group_experts import SURE

BY = "goes_by"
"""Key of the picked grouping, in the session's state and in the URL."""
ONE = 1 + 1e-6
"""Fewer effective experts than this are one."""
_KINDS = {
    CLASS: ("circle", BLUE),
    ANSWER: ("diamond", PURPLE),
    SLICE: ("square", GREEN),
    LENGTH: ("triangle-up", GREY),
}
_MEANT = {CLASS: "class", ANSWER: "the model's own answer", SLICE: "slice", LENGTH: "length"}
_MAP = "group-map"


def section(selection: state.Selection, stats: UsageStats, layer: int, expert: int) -> None:
    """The section; nothing where the data can't be grouped.

    Args:
        stats: of the selection's data.
        layer: whose experts are shown by group.
        expert: to be marked.
    """
    found = measured(selection, stats)
    if not found:
        return
    st.header("What routing goes by", anchor="goes-by")
    frame, data = specialisation_frame(found), escape_html(stats.data)
    lines = "\n".join(f"- {line}" for line in said(frame))
    if frame["explained"].isna().all():  # of two inputs, say
        st.markdown(lines)
    else:
        left, right = st.columns([3, 2], gap="medium")
        right.markdown(lines)
        with left:
            chart(
                explained_marks(frame, f"{data}, n = {stats.n:,}"),
                frame,
                "goes-by",
                f"{selection.name}-goes-by",
                "How much groups tell of the routes, layer by layer. "
                + " ".join(plain(line) for line in said(frame)),
            )
    st.caption(explanation(selection.data))
    names = [one.by for one in found]
    start = SLICE if SLICE in names else names[0]
    bound.fall_back(BY, names, start)
    bound.restate(BY, start)
    by = st.segmented_control("Experts by", names, default=start, key=BY, bind="query-params", required=True)
    one = found[names.index(by if by in names else start)]
    group_experts.section(one, selection, stats.unit)
    chart(
        group_map(one, layer, expert, stats.unit, data),
        cell_frame(one, layer),
        _MAP,
        f"{selection.name}-layer{layer}-by-{one.by}",
        f"Heatmap: a row a group, a column an expert of layer {layer}, each cell the share of the group that takes it.",
        hint="The same as a table: the CSV below.",
        on_select=lambda: state.pick_cell(_MAP),
    )
    st.caption(_sure_cells(one, layer))


def explanation(data: TextData) -> str:
    """What the figures mean, and how they were found."""
    pairs = (
        "Both inputs of a minimal pair are shuffled together, or swapped if their groups differ, and get their mean "
        "length. "
    )
    return (
        "0%: the group predicts the expert no better than shuffled groups do; 100%: it determines the expert (mutual "
        "information beyond chance, as part of the experts' entropy). Few groups can't separate many experts, so the "
        "possible maximum may be below 100%. More than chance: q ≤ 5% (p corrected for all layers and groupings, "
        "separately at similar length). Beyond length: compared with groups shuffled among inputs of similar length. "
        f"{pairs if len(pairs_of(data)) else ''}Numbers are split into quartiles; groupings with more than {MOST_GROUPS} "
        "groups, or one, are left out. A link between expert and answer does not show which causes the other."
    )


def measured(selection: state.Selection, stats: UsageStats) -> list[Grouping]:
    """The groupings of the picked data, once, with a progress bar the first time."""
    checkpoint, data = selection.checkpoint, selection.data
    lengths = measurements.read_lengths(checkpoint, data)
    answers = measurements.answers(checkpoint, data, stats)
    return once(
        "specialisation",
        16,
        (checkpoint.fingerprint, data.fingerprint, data.name, data.pairs),
        "Shuffling groups",
        lambda progress: specialisation(stats, data, lengths, answers, progress=progress),
    )


def explained_marks(frame: pd.DataFrame, about: str) -> go.Figure:
    """A row a layer, a mark a grouping, filled where it is beyond chance.

    Args:
        frame: of `specialisation_frame`.
        about: data and n, safe as HTML.
    """
    fig = go.Figure()
    for by, rows in frame.groupby("by", sort=False):
        symbol, color = _KINDS[by]
        sure = rows["q"] <= SURE
        fig.add_scatter(
            x=100 * rows["explained"],
            y=rows["layer"].astype(str),
            mode="markers",
            name=by,
            legendgroup=by,
            showlegend=False,
            marker={
                "symbol": [symbol if one else f"{symbol}-open" for one in sure],
                "size": 11,
                "color": color,
                "line": {"color": color, "width": 1.5},
            },
            hovertext=[_hover(row) for row in rows.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        # The legend would show the mark of the first layer, hollow or not.
        mark = {"symbol": symbol, "size": 11, "color": color}
        fig.add_scatter(x=[None], y=[None], mode="markers", name=by, legendgroup=by, marker=mark)
    fig.add_vline(x=0, line={"dash": "dot", "color": GREY, "width": 1.5})
    fig.update_xaxes(ticksuffix="%", zeroline=False)
    layers = [str(layer) for layer in dict.fromkeys(frame["layer"])]
    fig.update_yaxes(type="category", categoryorder="array", categoryarray=layers[::-1])
    return layout(
        fig,
        "How much groups tell of the expert",
        subtitle=f"0%: chance; filled: q ≤ 5%; {about}",
        x="part of the choice explained",
        y="layer",
        height=cells_height(len(layers)) + 95,
        legend=True,
    )


def _hover(row) -> str:
    text = f"<b>Layer {row.layer}, by {row.by}</b> ({row.groups} groups)<br>"
    if np.isnan(row.explained):
        return text + (
            "all take the same expert" if row.effective_experts < ONE else "groups too small to tell"
        )
    text += f"{percent(row.explained)} of the choice explained beyond chance, q = {row.q:.2g}"
    text += f"<br>possible with such groups: {percent(row.ceiling)}"
    if not np.isnan(row.beyond_length):
        text += f"<br>among inputs of like length: {percent(row.beyond_length)}, q = {row.q_beyond:.2g}"
    return f"{text}<br>{row.effective_experts:.1f} effective experts"


def said(frame: pd.DataFrame) -> list[str]:
    """A line for each grouping, as Markdown: in how many layers it tells more than chance, and where the most."""
    lines = []
    for by, rows in frame.groupby("by", sort=False):
        known, of = (
            rows[rows["explained"].notna()],
            f"**{capital(_MEANT[by])}** ({rows['groups'].iloc[0]} groups)",
        )
        if known.empty:
            same = (rows["effective_experts"] < ONE).all()
            why = "every layer has one expert for all inputs" if same else "its groups are too small"
            lines.append(f"{of}: nothing to tell, since {why}.")
            continue
        layers, equal = (known[known[q] <= SURE] for q in ("q", "q_beyond"))
        text = f"{of} tells the expert better than chance in {len(layers)} of {len(known)} layers"
        if known["beyond_length"].notna().any():
            text += f", among inputs of similar length in {len(equal)}"
        if len(layers):
            top = layers.loc[layers["explained"].idxmax()]
            text += f". It tells most in layer {top['layer']} ({top['effective_experts']:.1f} effective experts): "
            text += (
                f"{percent(top['explained'])} of the choice, of at most {percent(top['ceiling'], 0)} possible"
            )
            if pd.notna(top["beyond_length"]):
                text += f"; {percent(top['beyond_length'])} among inputs of similar length"
        lines.append(f"{text}.")
    return lines


def cell_frame(one: Grouping, layer: int) -> pd.DataFrame:
    """A row for each group and expert: group, inputs, n (what shares are of: these, or their tokens), expert, count,
    share, p.
    """
    at, shares = one.layers.index(layer), one.shares(layer)
    return pd.DataFrame(
        [
            (
                name,
                int(one.sizes[g]),
                int(one.counts[at, g].sum()),
                e,
                int(one.counts[at, g, e]),
                shares[g, e],
                one.cells[at, g, e],
            )
            for g, name in enumerate(one.names)
            for e in range(shares.shape[1])
        ],
        columns=[one.by, "inputs", "n", "expert", "count (Top-1)", "share", "p"],
    )


def group_map(one: Grouping, layer: int, expert: int, unit: str, data: str) -> go.Figure:
    """Groups x experts of a layer: which part of each group takes each expert, above them what part of all does.

    Args:
        unit: what is counted.
        data: its name, safe as HTML.
    """
    at, shares = one.layers.index(layer), one.shares(layer)
    counts = one.counts[at]
    whole = counts.sum(0) / counts.sum()
    difference = 100 * np.vstack([np.zeros(len(whole)), shares - whole])
    shares, counts = np.vstack([whole, shares]), np.vstack([counts.sum(0), counts])
    p = np.vstack([np.full(len(whole), np.nan), one.cells[at]])
    names = ["all inputs", *(escape_html(name) for name in one.names)]
    short = [escape_html(shorten(name, LONGEST_LABEL)) for name in one.names]
    labels = [f"{name} (n = {int(n):,})" for name, n in zip(["all", *short], counts.sum(1))]
    rows = list(range(len(labels)))  # two groups may look alike
    text = [
        [f"<b>{_whole(share)}</b>" if bold else _whole(share) for share, bold in zip(*line)]
        for line in zip(shares, p <= SURE)
    ]
    experts = range(len(whole))
    limit = max(float(np.nanmax(np.abs(difference))), 5.0)
    fig = go.Figure(
        go.Heatmap(
            z=difference,
            x=list(experts),
            y=rows,
            text=text if len(whole) <= LABELLED else None,
            texttemplate="%{text}" if len(whole) <= LABELLED else None,
            colorscale=DIVERGING,
            zmin=-limit,
            zmax=limit,
            zmid=0,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            colorbar={
                "tickformat": "+.0f",
                "nticks": 5,
                "thickness": 12,
                "title": {"text": "points from all", "side": "right"},
            },
        )
    )
    cells = [(g, e) for g in rows for e in experts]
    texts = [
        f"<b>{names[g]}, expert {e}</b><br>{percent(shares[g, e])}: {counts[g, e]:,} of "
        f"{int(counts[g].sum()):,} {unit}<br>of all: {percent(whole[e])}"
        f"<br>{_p(p[g, e]) if g else ''}<br><i>click to pick this expert</i>"
        for g, e in cells
    ]
    places = [(layer, e) for _, e in cells]
    fig.add_trace(click_targets([e for _, e in cells], [g for g, _ in cells], places, texts, size=28))
    outline(fig, (expert - 0.5, expert + 0.5), (-0.5, len(rows) - 0.5))
    pick_by_click(fig)
    fig.update_xaxes(tickvals=list(experts), showgrid=False, zeroline=False)
    fig.update_yaxes(tickvals=rows, ticktext=labels, autorange="reversed", showgrid=False, zeroline=False)
    return layout(
        fig,
        f"Layer {layer}: experts by {one.by}",
        subtitle=f"percent of each row's {unit} that take the expert; {data}",
        x="expert",
        height=165 + 26 * len(rows),
        legend=False,
    )


def _whole(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f}"


def _p(p: float) -> str:
    return (
        "not tested: too few to be expected"
        if np.isnan(p)
        else f"p = {p:.2g}, corrected for all cells of this map"
    )


def _sure_cells(one: Grouping, layer: int) -> str:
    cells = one.cells[one.layers.index(layer)]
    if np.isnan(cells).all():
        return (
            f"No cell can be tested: in none are {EXPECTED} inputs of the group expected to take the expert, and "
            f"{EXPECTED} not to. Layer {layer} is the one picked above."
        )
    shown = "In bold" if cells.shape[1] <= LABELLED else "Beyond chance, as hovers and the CSV tell"
    return (
        f"{shown}: {int((cells <= SURE).sum())} of {int(np.isfinite(cells).sum())} tested cells differ from row “all” "
        "(p ≤ 5%, shuffled groups, corrected for all cells of this map). Tested: cells where at least "
        f"{EXPECTED} inputs are expected to take the expert, and at least {EXPECTED} not to. Layer {layer} is the one "
        "picked above."
    )
