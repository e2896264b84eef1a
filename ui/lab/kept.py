"""The lab's kept experts: a map to click on, and the same with boxes, undo and a file."""

from __future__ import annotations

from functools import partial

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.pruning.plan import PlanEdits, PruningPlan
from ui.bound import fall_back
from ui.downloads import chart, clicked
from ui.expert_map import expert_map, plan_frame, plan_words, weights_of
from ui.lab.edits import Editor
from ui.plan_url import LONGEST, encode
from ui.text import escape, escape_html, percent
from ui.theme import SELECTED, click_targets, pick_by_click

MAP, LAYER, PINNED, DROPPED, COUNT, FILE = (
    *("kept-map", "edit_layer", "edit-pinned"),
    *("edit-dropped", "edit-count", "edit-file"),
)
_NEXT = {
    "free": "click to pin it: always kept",
    "pinned": "pinned; click to drop it: never kept",
    "dropped": "dropped by hand; click to leave it to the plan",
}


def section(found: Editor, plan: PruningPlan, base: PruningPlan | None, stats: UsageStats, name: str) -> None:
    """Draw the map of the plan and the ways to edit it.

    Args:
        base: the plan without the edits, where they change it.
        name: of the checkpoint.
    """
    if found.notice:
        show, icon = (st.warning, "block") if found.refused else (st.info, "check")
        show(escape(found.notice), icon=f":material/{icon}:")
    if notes := _notes(found, plan, base):
        st.caption(" ".join(notes))
    usage = stats.recorded or stats.shares()
    measured = (
        "stored with the checkpoint" if stats.recorded else f"{escape_html(stats.data)}, n = {stats.n:,}"
    )
    left, right = st.columns([3, 1], gap="medium")
    with left:
        chart(
            kept_map(plan, usage, measured, found.edits, found.serial),
            plan_frame(plan),
            MAP,
            f"{name}-plan",
            f"Weights of the kept experts: {plan_words(plan)}",
            partial(_clicked, found),
            "The boxes do the same.",
        )
    with right:
        _boxes(found)
        with st.container(horizontal=True, gap="small"):
            for label, icon, able, action in (
                ("Undo", "undo", found.past, found.undo),
                ("Redo", "redo", found.future, found.redo),
                ("Reset", "restart_alt", found.edits, found.reset),
            ):
                st.button(
                    label,
                    key=f"edit-{label.lower()}",
                    icon=f":material/{icon}:",
                    disabled=not able,
                    on_click=action,
                )
        with st.expander("Load a plan", icon=":material/upload_file:"):
            key = f"{FILE}-{found.serial}"  # a new one after each file, so that the same file can be taken again
            st.file_uploader(
                "A plan (.json), as saved here",
                type="json",
                key=key,
                max_upload_size=1,
                on_change=partial(_uploaded, found, key),
            )


def kept_map(
    plan: PruningPlan,
    usage: dict[int, np.ndarray],
    measured: str,
    edits: PlanEdits,
    drawing: int,
) -> go.Figure:
    """The weights of the kept experts, pins and drops marked, with cells that can be clicked.

    Args:
        usage: layer -> Top-1 shares `(H,)`, for the hover texts.
        measured: what the usage was measured on, HTML-safe.
        drawing: number of the drawing, in the `customdata` behind layer and expert.
    """
    experts = len(next(iter(usage.values())))
    weights, total = weights_of(plan, experts), len(plan.layers) * experts
    fig = expert_map(
        weights,
        experts,
        "Kept experts and their weights",
        f"{plan.budget} of {total} experts; grey: not kept<br>usage: {measured}; click a cell to pin or drop it",
        "weight",
        legend=True,
    )
    layers = list(weights)
    for name, symbol, size, chosen in (
        ("pinned", "square-open", 24, {i: edits.of(i).pinned for i in layers}),
        ("dropped", "x-thin-open", 10, {i: edits.of(i).dropped for i in layers}),
    ):
        points = [(layer, expert) for layer, marked in chosen.items() for expert in marked]
        for color, width in (("white", 6), (SELECTED, 2.5)):  # with a white edge, legible on every colour
            fig.add_scatter(
                x=[expert for _, expert in points] or [None],
                y=[f"layer {layer}" for layer, _ in points] or [f"layer {layers[0]}"],
                mode="markers",
                name=name,
                showlegend=color == SELECTED,
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": color,
                    "line": {"width": width, "color": color},
                },
                unselected={"marker": {"opacity": 1}},  # Streamlit dims what is not selected
                hoverinfo="skip",
            )
    cells, texts = [], []
    for layer, row in weights.items():
        edit = edits.of(layer)
        for expert, weight in enumerate(row):
            now = "pinned" if expert in edit.pinned else "dropped" if expert in edit.dropped else "free"
            kept = "not kept" if np.isnan(weight) else f"kept, weight {percent(weight)}"
            share = percent(float(usage[layer][expert]))
            cells.append((layer, expert, drawing))
            texts.append(
                f"layer {layer}, expert {expert}: {kept}<br>usage {share}<br><i>click: {_NEXT[now]}</i>"
            )
    fig.add_trace(
        click_targets([e for _, e, _ in cells], [f"layer {layer}" for layer, _, _ in cells], cells, texts)
    )
    pick_by_click(fig)
    return fig


def _notes(found: Editor, plan: PruningPlan, base: PruningPlan | None) -> list[str]:
    """What cannot be seen on the map."""
    notes = []
    if found.edits:
        named = ", ".join(str(layer) for layer, _ in found.edits.layers)
        notes.append(f"Edited by hand: layer{'s' * (len(found.edits.layers) > 1)} {named}.")
        if base is None:
            notes.append("At this setting the plan is the same without the edits.")
    if base is not None and plan.budget != base.budget:
        notes.append(f"The plan keeps {plan.budget} experts instead of {base.budget}.")
    if idle := sum(weight == 0 for _, kept in plan.layers for weight in kept.weights):
        notes.append(
            f"{idle} of the {plan.budget} kept experts have weight 0, as no example uses them: "
            f"{plan.budget - idle} give the same predictions."
        )
    if len(encode(found.edits)) > LONGEST:
        notes.append("These edits are too long for the address, so a link leaves them out.")
    return notes


def _boxes(found: Editor) -> None:
    """Pins, drops and the count of one layer at a time, without the map."""
    fall_back(LAYER, found.layers, found.layers[0])
    layer = st.selectbox("Layer", found.layers, key=LAYER, bind="query-params")
    edit = found.edits.of(layer)
    st.session_state[PINNED], st.session_state[DROPPED] = list(edit.pinned), list(edit.dropped)
    st.session_state[COUNT] = edit.count
    for label, key in (("Pinned", PINNED), ("Dropped", DROPPED)):
        st.multiselect(
            label,
            range(found.experts),
            key=key,
            placeholder="none",
            on_change=partial(_marked, found, layer, key),
        )
    st.number_input(
        "Experts in this layer",
        1,
        found.experts,
        None,
        key=COUNT,
        placeholder="as the slider",
        on_change=lambda: found.set_count(layer, st.session_state[COUNT]),
    )


def _clicked(found: Editor) -> None:
    if cell := clicked(MAP):
        found.click(*map(int, cell))


def _marked(found: Editor, layer: int, key: str) -> None:
    """The box that was changed wins over the other one."""
    pinned, dropped = set(st.session_state[PINNED]), set(st.session_state[DROPPED])
    if key == PINNED:
        dropped -= pinned
    else:
        pinned -= dropped
    found.mark(layer, sorted(pinned), sorted(dropped))


def _uploaded(found: Editor, key: str) -> None:
    if (file := st.session_state[key]) is not None:
        found.load(file.name, file.getvalue())
