"""What the pruning lab shows below its controls: the curve, the details, what to take along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, cost, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import num_experts_of
from shrp.pruning.plan import LayerEdit, PlanEdits, PruningPlan
from shrp.pruning.vocabulary import can_be_trimmed
from ui import loaders, measurements, state
from ui.describe import plan_words
from ui.downloads import chart
from ui.lab import export as lab_export
from ui.lab import figures as lab_figures
from ui.lab import hurts as lab_hurts
from ui.lab import onnx as lab_onnx
from ui.lab import reference as lab_reference
from ui.lab import threshold as lab_threshold
from ui.lab.sides import model_key
from ui.lab.work import RECORDED, SELECTIONS, Setting
from ui.overview import latency
from ui.own import checkpoints as own_checkpoints
from ui.state import Selection
from ui.text import count, escape, file_name, percent, plain, with_interval

OPENED = "opened-pruned"
"""Key of the session's state: the pruning that was opened last, and the name that it is listed by."""
MATCH, MATCH_LABEL = "match_shares", "With the routed model's answer shares"
MATCH_HELP = (
    "Shifts the output bias of the saved checkpoint so that it gives each class as often as the routed model does on "
    "these inputs; their labels have no part in it. The score under Threshold, above, is then the checkpoint's, but "
    "for its rounding to float16."
)


def plan_frame(plan: PruningPlan) -> pd.DataFrame:
    """One row a kept expert, with its weight."""
    rows = [
        {"layer": layer, "expert": expert, "weight": weight}
        for layer, kept in plan.layers
        for expert, weight in zip(kept.experts, kept.weights, strict=True)
    ]
    return pd.DataFrame(rows)


def kept_chart(
    plan: PruningPlan,
    experts: int,
    name: str,
    usage=None,
    measured: str = "",
    edits: PlanEdits | None = None,
    drawing: int = 0,
    on_select: Callable[[], None] | None = None,
) -> None:
    """The kept experts as a map, for `edits` one to click on (`ui.lab.figures.kept_map`)."""
    parts = []
    for layer, kept in plan.layers:
        edit = edits.of(layer) if edits is not None else LayerEdit()
        parts.append(f"layer {layer} keeps {', '.join(map(str, kept.experts))}")
        for word, marked in (("pinned", edit.pinned), ("dropped by hand", edit.dropped)):
            if marked:
                parts[-1] += f" ({word}: {', '.join(map(str, marked))})"
    chart(
        lab_figures.kept_map(plan, experts, usage, measured, edits, drawing),
        plan_frame(plan),
        "kept-map",
        f"{name}-plan",
        "Heatmap of the kept experts' weights: " + "; ".join(parts),
        on_select,
    )


def where_it_hurts(selection: Selection, plan: PruningPlan, pruned: Evaluation, routed: Evaluation) -> None:
    """What the pruning loses, and on which inputs, beside what it can be held against."""
    checkpoint, data = selection.checkpoint, selection.data
    held_against = lab_reference.references(checkpoint, data, routed)
    lengths = measurements.read_lengths(checkpoint, data)
    name = f"{selection.name}-{plan.budget}"
    lab_hurts.section(held_against, pruned, selection, lengths, checkpoint.problem, name, plan)


@st.fragment
def take_along(
    selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation, routed: Evaluation
) -> None:
    """What can be had of the pruned model: its speed here, and itself."""
    st.header("Take it along")
    timing, save = st.tabs(["Latency", "Save"], key="take", bind="query-params")
    with timing:
        latency.section(selection.checkpoint, {"pruned": plan}, selection.name)
    with save:
        save_section(selection, setting, plan, pruned, routed)


@st.fragment
def save_section(
    selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation, routed: Evaluation
) -> None:
    """Downloads of the pruned model and of its plan."""
    checkpoint, name = selection.checkpoint, f"{selection.name}-static-{plan.budget}"
    st.markdown(
        f"**{escape(setting.text)}** as a static checkpoint that this app and the command line read: "
        "unpack it into a folder of checkpoints. The plan alone is what `python -m shrp prune --plan` takes. "
        f"Of the model's parameters {percent(_embedded(checkpoint, plan), 0)} are the embeddings of its vocabulary"
        + (
            ": `python -m shrp trim-vocabulary` takes out the tokens that your texts don't need."
            if can_be_trimmed(checkpoint.tokenizer) and "vocabulary" not in checkpoint.info.training
            else "."
        )
    )
    moved = lab_threshold.matched(model_key(checkpoint, plan), pruned, routed, selection.data)
    if not (moved and st.checkbox(MATCH_LABEL, key=MATCH, bind="query-params", help=MATCH_HELP)):
        moved = None
    shift, scored = (None, pruned) if moved is None else (moved.shift, moved.evaluation)
    chosen_on = None if setting.selection == RECORDED else selection.ranking
    drawn_here = SELECTIONS.get(setting.selection) == "random" and not setting.whole
    seed = setting.seed if drawn_here else None
    saved_as = name if moved is None else f"{name}-matched"
    with st.container(horizontal=True, gap="medium"):
        st.download_button(
            "Pruned checkpoint (.zip)",
            data=lambda: lab_export.checkpoint_zip(
                checkpoint, plan, saved_as, scored, selection.data, chosen_on, shift, seed
            ),
            file_name=f"{file_name(saved_as)}.zip",
            mime="application/zip",
            key="download-checkpoint",
            on_click="ignore",
            icon=":material/archive:",
            help="Weights in float16; made on the click, which takes a moment.",
        )
        st.download_button(
            "Plan (.json)",
            data=lab_export.plan_json(plan),
            file_name=f"{file_name(name)}-plan.json",
            mime="application/json",
            key="download-plan",
            on_click="ignore",
            icon=":material/description:",
        )
    known_as = f"{model_key(checkpoint, plan)}-{'' if shift is None else shift.tobytes().hex()}"

    def write(folder: Path) -> Path:
        return lab_export.write_checkpoint(
            folder, checkpoint, plan, scored, selection.data, chosen_on, shift, seed
        )

    open_here(known_as, saved_as, write, selection.name)
    st.json(plan.to_dict(), expanded=False)
    with st.expander("Use it in Python"):
        texts = "[...]" if len(checkpoint.info.task.text_columns) == 1 else "[(..., ...), ...]"
        lines = (
            "import shrp  # in SHRP's folder, or installed from it",
            "",
            f"checkpoint = shrp.load({saved_as!r})  # the unpacked folder",
            f"checkpoint.predict({texts})  # a table of answers",
        )
        st.code("\n".join(lines), language="python")
    lab_onnx.section(checkpoint, plan, saved_as, selection.data, scored, shift)


def open_here(known_as: str, name: str, write: Callable[[Path], Path], of: str) -> None:
    """Put the pruned model among the sidebar's checkpoints, so that the other pages can look at it.

    Args:
        known_as: what tells this pruning from others.
        name: what it is to be called.
        write: makes the checkpoint in a folder.
        of: the name of the checkpoint that is pruned.
    """
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        asked = st.button(
            "Open it in this session",
            key="open-pruned",
            icon=":material/folder_open:",
            help="Puts the pruned checkpoint, weights in float16, among the sidebar's: its words on Routing, where "
            "its heads look on Routing, its answers on Overview and Compare. It is for this session alone; the "
            f"last {own_checkpoints.MOST_HELD} stay.",
        )
        if asked:
            try:
                with st.spinner("Making the checkpoint …"):
                    listed = own_checkpoints.make(known_as, name, write, of)
            except ShrpError as error:
                state.show_error(error)
                return
            st.session_state[OPENED] = {known_as: listed}
            st.rerun()  # all of the app: the sidebar lists it
        listed = st.session_state.get(OPENED, {}).get(known_as)
        if listed not in loaders.discover_all():
            return
        if st.button(
            f"Go on with {escape(listed)}",
            key="pick-pruned",
            icon=":material/arrow_forward:",
            help="Picks it in the sidebar, where you can also go back.",
        ):
            own_checkpoints.pick(listed)
            st.rerun()  # likewise


def _embedded(checkpoint: Checkpoint, plan: PruningPlan) -> float:
    """The share of a pruned model's parameters that its tokens' embeddings have."""
    whole = plan_cost(checkpoint.model, plan, TOKENS).model_params
    return checkpoint.model.get_input_embeddings().weight.numel() / whole


def not_routed(selection: Selection) -> None:
    """For a checkpoint without routers: why it can't be pruned here, and what it is."""
    checkpoint, info = selection.checkpoint, selection.checkpoint.info
    if info.plan is None:
        kinds = {
            "dropped": "a control whose layers were dropped",
            "uniform": "a control without routers",
            "narrow": "a control without experts: heads and neurons of its layers were pruned",
        }
        what = kinds.get(info.config.control, "all dense")
        st.info(f"This checkpoint is {what}, so there is no usage to prune by. Pick a routed checkpoint.")
        return
    st.info(
        "This checkpoint is pruned already: its routers are gone, so there is no usage to prune by any more. Below "
        "is its plan and its score. To try other prunings, pick a routed checkpoint.",
        icon=":material/content_cut:",
    )
    place = st.container()
    price, dense = cost(checkpoint.model, TOKENS), dense_cost(checkpoint.model, TOKENS)
    part = price.relative_to(dense)
    st.markdown(
        f"Encoder: {percent(part['encoder_params'])} of the dense encoder's {count(dense.encoder_params)} "
        f"parameters, {percent(part['encoder_flops'])} of its {count(dense.encoder_flops)} FLOPs "
        f"({TOKENS} tokens). Whole model: {percent(part['model_params'])} of "
        f"{count(dense.model_params)} and {percent(part['model_flops'])} of {count(dense.model_flops)}."
    )
    how = plain(plan_words(info.plan))
    kept_chart(info.plan, num_experts_of(checkpoint.model), selection.name, measured=how)
    st.download_button(
        "Plan (.json)",
        data=lab_export.plan_json(info.plan),
        file_name=f"{selection.name}-plan.json",
        mime="application/json",
        on_click="ignore",
        icon=":material/description:",
    )
    with place:  # above, but last: the plan need not wait for the score
        try:
            evaluation = measurements.evaluation(checkpoint, selection.data)
        except ShrpError as error:
            state.show_error(error)
            return
        scored = with_interval(evaluation.score, evaluation.interval, evaluation.metric, evaluation.n)
        st.markdown(f"**{escape(scored)}** on {escape(evaluation.data)}.")
    onnx_section(selection, evaluation)


@st.fragment
def onnx_section(selection: Selection, scored: Evaluation) -> None:
    """The pruned checkpoint as it is, in a form that serves it."""
    st.header("Take it along")
    lab_onnx.section(selection.checkpoint, None, selection.name, selection.data, scored)
