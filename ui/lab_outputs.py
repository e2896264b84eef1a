"""What the pruning lab shows below its controls: the curve, the details, what to take along."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.convert import num_experts_of
from shrp.errors import ShrpError
from shrp.evaluation import Evaluation
from shrp.measure import cost, dense_cost
from shrp.plan import PruningPlan
from ui import lab, lab_curve, lab_export, lab_figures, lab_views, loaders, state
from ui.downloads import chart
from ui.lab import Setting
from ui.lab_marks import Mark, marks_frame
from ui.state import Selection
from ui.store import results
from ui.text import count, escape, percent, with_interval

COST, SCOPE = "curve_cost", "curve_of"
_COSTS, _SCOPES = {"FLOPs": "flops", "Parameters": "params"}, {"Encoder": "encoder", "Whole model": "model"}


def plan_frame(plan: PruningPlan) -> pd.DataFrame:
    """One row a kept expert, with its weight."""
    rows = [
        {"layer": layer, "expert": expert, "weight": weight}
        for layer, kept in plan.layers
        for expert, weight in zip(kept.experts, kept.weights, strict=True)
    ]
    return pd.DataFrame(rows)


def kept_chart(plan: PruningPlan, experts: int, name: str, usage=None, measured: str = "") -> None:
    """The kept experts as a map."""
    chart(
        lab_figures.kept_map(plan, experts, usage, measured),
        plan_frame(plan),
        "kept",
        f"{name}-plan",
        "Heatmap of the kept experts' weights: "
        + "; ".join(f"layer {i} keeps {', '.join(map(str, p.experts))}" for i, p in plan.layers),
    )


def over() -> str:
    """The cost that the curve is drawn over, as picked."""
    kind = _COSTS.get(st.session_state.get(COST), "flops")
    return f"{_SCOPES.get(st.session_state.get(SCOPE), 'encoder')}_{kind}"


def curve_figure(selection: Selection, setting: Setting, marks: list[Mark]):
    """The curve as it stands, with its data."""
    dense = dense_cost(selection.checkpoint.model, lab.TOKENS)
    attempts = list(lab.tried(selection.checkpoint, selection.data).values())
    tried, references = lab.attempts_frame(attempts, dense), marks_frame(marks, dense)
    metric, data = selection.data.task.metric, selection.data.name
    fig = lab_curve.curve(tried, references, over(), metric, data, lab.TOKENS, setting.text)
    return fig, pd.concat([tried.assign(source="tried here"), references.assign(source="reference")])


@st.fragment
def curve_section(selection: Selection, setting: Setting, marks: list[Mark]) -> None:
    """The curve with its choice of costs; a fragment, as it needs no new evaluation."""
    with st.container(horizontal=True, gap="medium"):
        for label, options, key in (("Cost", _COSTS, COST), ("Of", _SCOPES, SCOPE)):
            if st.session_state.get(key) not in (None, *options):
                st.session_state[key] = None
            st.segmented_control(
                label, list(options), default=None if key in st.session_state else next(iter(options)), key=key,
                bind="query-params", label_visibility="collapsed", required=True,
            )  # fmt: skip
    fig, frame = curve_figure(selection, setting, marks)
    tried = len(frame[frame["source"] == "tried here"])
    chart(
        fig,
        frame,
        "curve",
        f"{selection.name}-curve",
        f"Scatter of score against cost: {tried} settings tried here and {len(frame) - tried} references",
    )


def details(
    selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation, routed: Evaluation
) -> None:
    """Tabs: flips, slices, classes, latency, and what to take along."""
    titles = ["Flipped predictions", "By slice", "By class", "Latency", "Save"]
    flips, by_slice, by_class, latency, save = st.tabs(titles)
    name = f"{selection.name}-{plan.budget}"
    with flips:
        lab_views.flips_section(routed, pruned, selection.data, name)
    with by_slice:
        lab_views.group_section(routed, pruned, "slice", name)
    with by_class:
        lab_views.group_section(routed, pruned, "class", name)
    with latency:
        latency_section(selection, plan)
    with save:
        save_section(selection, setting, plan, pruned)


@st.fragment
def latency_section(selection: Selection, plan: PruningPlan) -> None:
    """Timing on this machine, on demand."""
    store, key = results("latency", 64), (selection.checkpoint.fingerprint, plan.key())
    st.markdown(
        "Times the dense architecture, the routed and the pruned model side by side on this machine, in float32 on "
        "inputs of "
        f"{lab.TOKENS} tokens, {lab_export.REPEATS} calls each. Other load makes it noisy."
    )
    if st.button("Measure latency here", key="measure-latency", icon=":material/timer:"):
        with st.spinner("Timing batches of 1 and 8, which takes some seconds …"):
            store.put(key, lab_export.measure_latency(selection.checkpoint, plan, lab.TOKENS))
    if (times := store.get(key)) is None:
        return
    shown = times[["name", "batch", "tokens", "median_ms", "low_ms", "high_ms", "repeats"]].copy()
    shown["inputs a second"] = 1000 * shown["batch"] / shown["median_ms"]
    base = shown[shown["name"] == "dense"].set_index("batch")["median_ms"]
    shown["speed against dense"] = [
        base[b] / ms for b, ms in zip(shown["batch"], shown["median_ms"], strict=True)
    ]
    formats = {"median_ms": "%.1f ms", "low_ms": "%.1f ms", "high_ms": "%.1f ms"}
    labels = {"median_ms": "median", "low_ms": "lower quartile", "high_ms": "upper quartile"}
    config = {c: st.column_config.NumberColumn(labels[c], format=f) for c, f in formats.items()}
    config["inputs a second"] = st.column_config.NumberColumn(format="%.1f")
    config["speed against dense"] = st.column_config.NumberColumn(format="%.2f×")
    st.dataframe(
        shown, hide_index=True, column_config=config, width="content", alt="Latencies by model and batch"
    )


@st.fragment
def save_section(selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation) -> None:
    """Downloads of the pruned model and of its plan."""
    checkpoint, name = selection.checkpoint, f"{selection.name}-static-{plan.budget}"
    st.markdown(
        f"**{escape(setting.text)}** as a static checkpoint that this app and the command line read: "
        "unpack it into a folder of checkpoints. The plan alone is what `python -m shrp prune --plan` takes."
    )
    with st.container(horizontal=True, gap="medium"):
        st.download_button(
            "Pruned checkpoint (.zip)",
            data=lambda: lab_export.checkpoint_zip(
                checkpoint, plan, name, pruned, selection.data.fingerprint
            ),
            file_name=f"{name}.zip",
            mime="application/zip",
            key="download-checkpoint",
            on_click="ignore",
            icon=":material/archive:",
            help="Weights in float16; made on the click, which takes a moment.",
        )
        st.download_button(
            "Plan (.json)",
            data=lab_export.plan_json(plan),
            file_name=f"{name}-plan.json",
            mime="application/json",
            key="download-plan",
            on_click="ignore",
            icon=":material/description:",
        )
    st.json(plan.to_dict(), expanded=False)


def not_routed(selection: Selection) -> None:
    """For a checkpoint without routers: why it can't be pruned here, and what it is."""
    checkpoint, info = selection.checkpoint, selection.checkpoint.info
    if info.plan is None:
        kinds = {
            "dropped": "a control whose layers were dropped",
            "uniform": "a control without routers",
        }
        what = kinds.get(info.config.control, "all dense")
        st.info(f"This checkpoint is {what}, so there is no usage to prune by. Pick a routed checkpoint.")
        return
    st.info(
        "This checkpoint is pruned already: its routers are gone, so there is no usage to prune by any more. Below "
        "is its plan and its score. To try other prunings, pick the routed checkpoint that it came from.",
        icon=":material/content_cut:",
    )
    place = st.container()
    price, dense = cost(checkpoint.model, lab.TOKENS), dense_cost(checkpoint.model, lab.TOKENS)
    part = price.relative_to(dense)
    st.markdown(
        f"Encoder: {percent(part['encoder_params'])} of the dense encoder's {count(dense.encoder_params)} "
        f"parameters, {percent(part['encoder_flops'])} of its {count(dense.encoder_flops)} FLOPs "
        f"({lab.TOKENS} tokens). Whole model: {percent(part['model_params'])} of "
        f"{count(dense.model_params)} and {percent(part['model_flops'])} of {count(dense.model_flops)}."
    )
    how = f"selected by {info.plan.selection}, combined by {info.plan.combination}"
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
            evaluation = loaders.evaluation(checkpoint, selection.data)
        except ShrpError as error:
            state.show_error(error)
            return
        scored = with_interval(evaluation.score, evaluation.interval, evaluation.metric, evaluation.n)
        st.markdown(f"**{escape(scored)}** on {escape(evaluation.data)}.")
