"""Prune the routed model by a slider, see at once what it costs and saves, and take the result along."""

import time

import streamlit as st

from shrp.convert import expert_layers, num_experts_of
from shrp.errors import ShrpError
from shrp.evaluation import Evaluation
from shrp.measure import dense_cost, plan_cost
from shrp.plan import PruningPlan
from ui import lab, lab_controls, lab_figures, lab_marks, lab_outputs, lab_views, loaders, state
from ui.downloads import chart
from ui.lab import Setting
from ui.store import results
from ui.text import escape

REDRAW = 0.25
"""Seconds between two running estimates; drawing each batch would cost more than computing it."""


def main() -> None:
    selection = state.current()
    st.title("Pruning lab")
    if not selection.is_routed:
        lab_outputs.not_routed(selection)
        return
    st.markdown(
        "Keep only some experts in each converted layer and drop the routers. The pruned model is rebuilt and "
        f"evaluated on **{escape(selection.data.name)}**, which also gives the usage that experts are ranked by."
    )
    # This part is not a fragment: Streamlit lets a fragment's work finish before it looks at a moved slider,
    # but stops a whole run at once. So an evaluation that nobody waits for any more is dropped, never queued.
    setting = lab_controls.controls(expert_layers(selection.checkpoint.model), num_experts_of(selection.checkpoint.model))
    try:
        stats = lab.usage_for(setting.selection, selection.checkpoint, selection.source, selection.data)
        plan = lab.plan_of(setting, stats)
        pruned, routed = evaluate(selection, setting, plan)
    except ShrpError as error:
        state.show_error(error)
        return
    marks = lab_marks.marks(selection.checkpoint, selection.data, routed)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        h = num_experts_of(selection.checkpoint.model)
        chart(
            lab_figures.kept_map(
                plan, h, stats.shares(), f"Top-1 shares of {stats.unit} of {stats.data}, n = {stats.n:,} inputs"
            ),
            lambda: plan_frame(plan),
            "kept",
            f"{selection.name}-plan",
            "Heatmap of kept experts: " + "; ".join(f"layer {i} keeps {list(p.experts)}" for i, p in plan.layers),
        )
    with right:
        place = st.empty()
        swept = lab_controls.sweep_button(h)
        if swept:
            sweep(selection, setting, stats, marks, place)
        with place.container():
            lab_outputs.curve_section(selection, setting, marks)
    details(selection, setting, plan, pruned, routed)


main()
