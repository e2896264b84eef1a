"""The lab's kept experts: a map to click on, and the same with boxes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.phrases import numbered
from shrp.pruning.plan import NO_EDITS, PlanEdits, PruningPlan
from ui.bound import fall_back
from ui.downloads import chart, clicked
from ui.lab.edits import Editor
from ui.plan_url import LONGEST, encode
from ui.text import escape, escape_html, percent
from ui.theme import MUTED, SELECTED, SEQUENTIAL, click_targets, layout, pick_by_click

MAP, LAYER = "kept-map", "edit_layer"
PINNED, DROPPED, COUNT = "edit-pinned", "edit-dropped", "edit-count"


def section(found: Editor, plan: PruningPlan, stats: UsageStats, name: str) -> None:
    """Draw the map of the plan and the ways to edit it."""
    if found.notice:
        st.warning(escape(found.notice), icon=":material/block:")
    if notes := _notes(found, plan):
        st.caption(" ".join(notes))
    fig = kept_map(plan, stats, found.edits, found.serial)
    alt, same = f"Weights of the kept experts: {kept_in_words(plan)}", "The boxes do the same."
    left, right = st.columns([3, 1], gap="medium")
    with left:
        chart(fig, plan_frame(plan), MAP, f"{name}-plan", alt, partial(_clicked, found), same)
    with right:
        _boxes(found)
        reset = {"on_click": found.apply, "args": (NO_EDITS,), "icon": ":material/restart_alt:"}
        st.button("Reset", key="edit-reset", disabled=not found.edits, **reset)


def kept_map(plan: PruningPlan, stats: UsageStats, edits: PlanEdits, drawing: int) -> go.Figure:
    """The weights of the kept experts, pins and drops marked, with cells that can be clicked.

    `drawing`: number of the drawing, in the `customdata` behind layer and expert.
    """
    usage, experts = stats.recorded or stats.shares(), stats.num_experts
    measured = f"{escape_html(stats.data)}, n = {stats.n:,}"
    measured = "stored with the checkpoint" if stats.recorded else measured
    under = f"<br>usage: {measured}; click a cell to pin, drop or free it"
    fig, weights = expert_map(plan, experts, under, legend=True), weights_of(plan, experts)
    layers = list(weights)
    for name, symbol, size, chosen in (
        ("pinned", "square-open", 24, {i: edits.of(i).pinned for i in layers}),
        ("dropped", "x-thin-open", 10, {i: edits.of(i).dropped for i in layers}),
    ):
        points = [(layer, expert) for layer, marked in chosen.items() for expert in marked]
        for color, width in (("white", 6), (SELECTED, 2.5)):  # with a white edge, legible on every colour
            look = {"symbol": symbol, "size": size, "color": color, "line": {"width": width, "color": color}}
            fig.add_scatter(
                x=[expert for _, expert in points] or [None],
                y=[f"layer {layer}" for layer, _ in points] or [f"layer {layers[0]}"],
                mode="markers",
                name=name,
                showlegend=color == SELECTED,
                marker=look,
                unselected={"marker": {"opacity": 1}},  # Streamlit dims what is not selected
                hoverinfo="skip",
            )
    cells, texts = [], []
    for layer, row in weights.items():
        edit = edits.of(layer)
        for expert, weight in enumerate(row):
            by_hand = ", pinned" if expert in edit.pinned else ", dropped by hand" * (expert in edit.dropped)
            kept = "not kept" if np.isnan(weight) else f"kept, weight {percent(weight)}"
            share = percent(float(usage[layer][expert]))
            cells.append((layer, expert, drawing))
            texts.append(f"layer {layer}, expert {expert}: {kept}{by_hand}<br>usage {share}")
    fig.add_trace(click_targets(cells, texts))
    pick_by_click(fig)
    return fig


def expert_map(plan: PruningPlan, experts: int, subtitle: str, *, legend: bool = False) -> go.Figure:
    """The weights of a plan's experts, of `experts` in each layer, one row a layer; those that are not kept are grey."""
    weights = weights_of(plan, experts)
    z = np.stack(list(weights.values()))
    cells = {"x": list(range(experts)), "y": [f"layer {layer}" for layer in weights]}
    cells |= {"xgap": 1, "ygap": 1, "hoverinfo": "skip"}
    fig = go.Figure()
    grey = [[0, MUTED], [1, MUTED]]
    fig.add_heatmap(z=np.where(np.isnan(z), 0.0, np.nan), colorscale=grey, showscale=False, **cells)
    fig.add_heatmap(
        z=100 * z,
        zmin=0,
        zmax=100,
        colorscale=SEQUENTIAL,
        # Also 0: on a dark page a small weight looks like no more than grey.
        text=[["" if np.isnan(v) else "<1" if 0 < v < 0.005 else f"{100 * v:.0f}" for v in row] for row in z],
        texttemplate="%{text}" if experts <= 16 else None,
        colorbar={"title": {"text": "weight (%)"}, "thickness": 12},
        **cells,
    )
    height, margin = 150 + 28 * max(4, len(z)) + 36 * legend, {"b": 84} if legend else {}
    title, kept = "Kept experts and their weights", f"{plan.budget} of {len(z) * experts} experts"
    subtitle = f"{kept}; grey: not kept{subtitle}"
    layout(fig, title, subtitle=subtitle, x="expert", height=height, legend=legend, margin=margin)
    fig.update_xaxes(tickmode="array", tickvals=cells["x"], range=[-0.5, experts - 0.5])
    return fig.update_yaxes(type="category", range=[len(z) - 0.5, -0.5])


def weights_of(plan: PruningPlan, experts: int) -> dict[int, np.ndarray]:
    """Layer -> weights `(H,)` of a plan, nan for experts that it does not keep."""
    found = {}
    for layer, kept in plan.layers:
        found[layer] = np.full(experts, np.nan)
        found[layer][list(kept.experts)] = kept.weights
    return found


def plan_frame(plan: PruningPlan) -> pd.DataFrame:
    """One row a kept expert: layer, expert, weight."""
    rows = [(i, e, w) for i, kept in plan.layers for e, w in zip(kept.experts, kept.weights, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "expert", "weight"])


def kept_in_words(plan: PruningPlan) -> str:
    """The kept experts in words, for those who cannot see a map."""
    return "; ".join(f"layer {layer} keeps {', '.join(map(str, kept.experts))}" for layer, kept in plan.layers)


def _notes(found: Editor, plan: PruningPlan) -> list[str]:
    """What cannot be seen on the map."""
    notes = []
    if found.edits:
        notes.append(f"Edited by hand: {numbered('layer', [layer for layer, _ in found.edits.layers])}.")
    if idle := sum(weight == 0 for _, kept in plan.layers for weight in kept.weights):
        notes.append(
            f"Of the {plan.budget} kept experts, no example uses {idle}: weight 0, so the other "
            f"{plan.budget - idle} give the same predictions."
        )
    if len(encode(found.edits)) > LONGEST:
        notes.append("These edits are too long for the address, so a link leaves them out.")
    return notes


def _boxes(found: Editor) -> None:
    """Pins, drops and the count of one layer at a time, without the map."""
    fall_back(LAYER, found.layers, found.layers[0], "layer")
    layer = st.selectbox("Layer", found.layers, key=LAYER, bind="query-params")
    edit = found.edits.of(layer)
    st.session_state[PINNED], st.session_state[DROPPED] = list(edit.pinned), list(edit.dropped)
    st.session_state[COUNT] = edit.count
    for label, key in (("Pinned", PINNED), ("Dropped", DROPPED)):
        mark = partial(_marked, found, layer, key)
        st.multiselect(label, range(found.experts), key=key, placeholder="none", on_change=mark)
    box = {"key": COUNT, "placeholder": "auto"}
    box["on_change"] = lambda: found.change(layer, found.edits.of(layer).with_count(st.session_state[COUNT]))
    st.number_input("Experts in this layer", 1, found.experts, None, **box)


def _clicked(found: Editor) -> None:
    if cell := clicked(MAP):
        st.session_state[LAYER] = int(cell[0])
        found.click(*map(int, cell))


def _marked(found: Editor, layer: int, key: str) -> None:
    """The box that was changed wins over the other one."""
    pinned, dropped = set(st.session_state[PINNED]), set(st.session_state[DROPPED])
    if key == PINNED:
        dropped -= pinned
    else:
        pinned -= dropped
    found.change(layer, found.edits.of(layer).marked(pinned, dropped))
