"""The pruning lab's per-layer what-if: the map to click on, undo, and the same by table, boxes and file."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.pruning.plan import LayerEdit, PruningPlan
from ui.bound import fall_back
from ui.downloads import clicked
from ui.lab.edits import COUNT, PLAN_BYTES, Editor
from ui.lab.outputs import kept_chart
from ui.lab.plan_url import LONGEST, encode
from ui.text import escape

MAP, LAYER, PINNED, DROPPED, FILE = "kept-map", "edit_layer", "edit-pinned", "edit-dropped", "edit-file"

_WEIGHTS = {"usage": "weights: by usage", "mean": "weights: all alike", "fitted": "weights: as fitted"}


def section(found: Editor, plan: PruningPlan, base: PruningPlan, stats: UsageStats, name: str) -> None:
    """Draw the map of the plan and all the ways to edit it.

    Args:
        plan: with the edits.
        base: as the controls alone give it.
        name: of the checkpoint.
    """
    st.header("Edit the kept experts")
    left, right = st.columns([3, 2], gap="large")
    with left:
        kept_chart(
            plan,
            found.experts,
            name,
            stats.recorded or stats.shares(),
            f"{_WEIGHTS.get(plan.combination, 'weights as given')}; hover: {_shares_of(stats)}",
            found.edits,
            found.serial,
            partial(_clicked, found),
        )
    with right:
        _toolbar(found)
        _notes(found, plan, base)
        _table(found, base)
        with st.expander("Pin and drop without the map", icon=":material/keyboard:"):
            _boxes(found)
        with st.expander("Load a plan", icon=":material/upload_file:"):
            upload(found, FILE)


def _shares_of(stats: UsageStats) -> str:
    if stats.recorded:
        return "Top-1 shares that the checkpoint carries"
    return f"Top-1 shares of {stats.unit}, {stats.data}, n = {stats.n:,}"


def _toolbar(found: Editor) -> None:
    with st.container(horizontal=True, gap="small"):
        for label, icon, able, action, help_text in (
            ("Undo", "undo", bool(found.past), found.undo, "Take back the latest edit"),
            ("Redo", "redo", bool(found.future), found.redo, "Make the edit again that was taken back"),
            (
                "Reset",
                "restart_alt",
                bool(found.edits),
                found.reset,
                "Leave all layers to the slider again; can be undone",
            ),
        ):
            st.button(
                label,
                key=f"edit-{label.lower()}",
                icon=f":material/{icon}:",
                disabled=not able,
                on_click=action,
                help=help_text,
            )


def show_notice(found: Editor) -> None:
    """Why the latest change was refused, or what came of it, where there is something to say."""
    if found.notice:
        show, icon = (st.warning, "block") if found.refused else (st.info, "check")
        show(escape(found.notice), icon=f":material/{icon}:")


def _notes(found: Editor, plan: PruningPlan, base: PruningPlan) -> None:
    """What was refused, and what the edits do that can't be seen on the map."""
    show_notice(found)
    if not found.edits:
        st.caption(
            "Click a cell of the map to pin its expert, again to drop it, again to free it; or set a layer's count in "
            "the table. Edits hold wherever the slider goes, and the page's address carries them."
        )
        if idle := sum(weight == 0 for _, kept in plan.layers for weight in kept.weights):
            st.caption(
                f":material/info: {idle} of the {plan.budget} kept experts have weight 0, as they are no input's first "
                f"choice: the other {plan.budget - idle} alone give the same answers at a lower cost. A plain mean, or "
                "fitted gates, would weigh them."
            )
        return
    notes = [f"Edited by hand: {_layers([layer for layer, _ in found.edits.layers])}."]
    if plan.key() == base.key():
        notes.append("At this setting the plan is the same without the edits.")
    for layer, (wanted, kept) in found.bent(base.keep_counts(), plan).items():
        why = "pinned" if kept > wanted else "not dropped"
        notes.append(f"Layer {layer} keeps {kept} instead of {wanted}: so many are {why}.")
    if idle := _idle(found, plan):
        notes.append(
            f"Kept with weight 0, as no input's first choice: {idle}. A plain mean would weigh them."
        )
    if given := [layer for layer, edit in found.edits.layers if edit.weights]:
        notes.append(f"Weights as in the file: {_layers(given)}.")
    if len(encode(found.edits)) > LONGEST:
        notes.append("These edits are too long for the page's address, so a link leaves them out.")
    st.caption(" ".join(notes))


def _table(found: Editor, base: PruningPlan) -> None:
    counts = base.keep_counts()
    key = f"edit-counts-{found.of}-{found.serial}-" + ".".join(map(str, counts.values()))
    if found.table != key or key not in st.session_state:
        # The table keeps its own changes, so what it starts from stays the same as long as it is on the screen; they
        # go when it is not drawn.
        found.table, found.table_edits = key, found.edits
    frame = pd.DataFrame(
        {
            "layer": list(counts),
            "by the slider": list(counts.values()),
            COUNT: pd.array([found.table_edits.of(layer).count for layer in counts], dtype="Int64"),
        }
    )
    st.data_editor(
        frame,
        key=key,
        hide_index=True,
        width="stretch",
        height=38 + 35 * len(frame),
        disabled=["layer", "by the slider"],
        placeholder="as the slider",
        column_config={
            COUNT: st.column_config.NumberColumn(
                min_value=1,
                max_value=found.experts,
                step=1,
                help=f"Experts to keep in this layer, 1 to {found.experts}; empty leaves it to the slider.",
            )
        },
        on_change=partial(_counted, found, key),
        alt="Experts kept in each layer by the slider's plan, and the count set by hand",
    )


def _boxes(found: Editor) -> None:
    """Pins and drops without the map, for one layer at a time."""
    fall_back(LAYER, found.layers, found.layers[0])
    layer = st.selectbox("Layer", found.layers, key=LAYER, bind="query-params")
    edit = found.edits.of(layer)
    st.session_state[PINNED], st.session_state[DROPPED] = list(edit.pinned), list(edit.dropped)
    for label, key, empty in (
        ("Pinned: always kept", PINNED, "none pinned"),
        ("Dropped: never kept", DROPPED, "none dropped"),
    ):
        st.multiselect(
            label,
            range(found.experts),
            key=key,
            placeholder=empty,
            on_change=partial(_marked, found, layer, key),
        )


def upload(found: Editor, key: str) -> None:
    """Draw the box that takes a plan from a file.

    Args:
        key: what its key begins with.
    """
    key = f"{key}-{found.serial}"  # a new one after each file, so that the same file can be taken again
    st.file_uploader(
        "A plan (.json), as saved here or written for `python -m shrp prune --plan`",
        type="json",
        key=key,
        max_upload_size=1,
        on_change=partial(_uploaded, found, key),
        help=f"At most {PLAN_BYTES // 1000} kB. Sets every layer's experts and weights.",
    )


def _clicked(found: Editor) -> None:
    if cell := clicked(MAP):
        found.click(*map(int, cell))


def _counted(found: Editor, key: str) -> None:
    found.set_counts(st.session_state[key]["edited_rows"])


def _marked(found: Editor, layer: int, key: str) -> None:
    """The box that was changed wins over the other one."""
    pinned, dropped = set(st.session_state[PINNED]), set(st.session_state[DROPPED])
    if key == PINNED:
        dropped -= pinned
    else:
        pinned -= dropped
    found.mark(layer, sorted(pinned), sorted(dropped))


def _uploaded(found: Editor, key: str) -> None:
    file = st.session_state[key]
    if file is not None:
        found.load(file.name, file.getvalue())


def _idle(found: Editor, plan: PruningPlan) -> str:
    """Experts that an edited layer keeps and pays for, though usage gives them no weight."""
    parts = []
    for layer, kept in plan.layers:
        experts = [e for e, w in zip(kept.experts, kept.weights, strict=True) if w == 0]
        edit = found.edits.of(layer)
        if experts and edit != LayerEdit() and not edit.weights:
            parts.append(f"{', '.join(map(str, experts))} of layer {layer}")
    return "; ".join(parts)


def _layers(layers: list[int]) -> str:
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(map(str, layers))
