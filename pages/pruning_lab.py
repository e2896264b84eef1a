"""Prune the routed model by a slider, see at once what it costs and saves, and take the result along."""

import time

import streamlit as st

from shrp.convert import expert_layers, num_experts_of
from shrp.errors import ShrpError
from shrp.evaluation import Evaluation
from shrp.measure import dense_cost, plan_cost
from shrp.plan import PruningPlan
from shrp.usage import UsageStats
from ui import lab, lab_outputs, lab_views, loaders, state
from ui.lab import PER_LAYER, Setting
from ui.lab_controls import controls
from ui.lab_marks import Mark, marks, shipped, teacher_mark
from ui.store import results
from ui.text import escape

REDRAW = 0.25  # seconds between two running estimates: drawing every one would cost more than computing it


def main() -> None:
    selection = state.current()
    st.title("Pruning lab")
    if not selection.is_routed:
        lab_outputs.not_routed(selection)
        return
    model, experts = selection.checkpoint.model, num_experts_of(selection.checkpoint.model)
    st.markdown(
        "Keep only some experts in each converted layer and drop the routers. The pruned model is rebuilt and "
        f"evaluated on **{escape(selection.data.name)}**, which also gives the usage that experts are ranked by."
    )
    # Not a fragment: Streamlit lets a fragment's work finish before it looks at a moved slider, but stops a
    # whole run at once. So an evaluation that nobody waits for any more is dropped, and nothing queues.
    setting = controls(len(expert_layers(model)), experts)
    try:
        with st.container():  # progress comes and goes in here without moving what is below
            stats = lab.usage_for(setting.selection, selection.checkpoint, selection.source, selection.data)
        plan = lab.plan_of(setting, stats)
        pruned, routed = evaluate(selection, setting, plan)
    except ShrpError as error:
        state.show_error(error)
        return
    known = marks(selection.checkpoint, selection.data, routed)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        measured = f"usage: Top-1 shares of {stats.unit}, {stats.data}, n = {stats.n:,}"
        lab_outputs.kept_chart(plan, experts, selection.name, stats.shares(), measured)
        swept = st.button(
            f"Run a sweep: 1 to {experts} a layer",
            key="sweep",
            icon=":material/stacked_line_chart:",
            help="Evaluates every number of experts a layer with this selection and combination, and draws the "
            "curve as they come. Change any control to stop it; what is done stays.",
        )
        bar = st.empty()
    place = right.empty()
    lab_outputs.details(selection, setting, plan, pruned, routed)
    if swept:  # last, so that everything else is there meanwhile
        sweep(selection, setting, stats, known, place, bar)
    with place.container():
        lab_outputs.curve_section(selection, setting, known)


def evaluate(
    selection: state.Selection, setting: Setting, plan: PruningPlan
) -> tuple[Evaluation, Evaluation]:
    """Show running estimates for the plan until they are exact; returns that and the routed model's."""
    checkpoint, data = selection.checkpoint, selection.data
    dense, price = dense_cost(checkpoint.model, lab.TOKENS), plan_cost(checkpoint.model, plan, lab.TOKENS)
    kept = (plan.budget, len(plan.layers) * num_experts_of(checkpoint.model))
    seen, key = results("routed", 16), (checkpoint.fingerprint, data.fingerprint)
    place, busy = st.empty(), st.empty()

    def show(evaluation: Evaluation, routed: Evaluation | None, teacher: Mark | None) -> None:
        with place.container(border=True):
            lab_views.headline(evaluation, price, dense, kept, routed, teacher)
        if evaluation.complete:
            busy.empty()
        else:
            text = f"A running estimate from {evaluation.n:,} of {evaluation.total:,} inputs"
            busy.progress(evaluation.n / evaluation.total, text)

    routed = seen.get(key)
    teacher = teacher_mark(shipped(checkpoint, data))
    drawn = 0.0
    for evaluation in lab.stream(checkpoint, data, plan):
        if not evaluation.complete and time.monotonic() - drawn > REDRAW:
            show(evaluation, routed, teacher)
            drawn = time.monotonic()
    lab.keep(checkpoint, data, setting, plan, evaluation)
    if routed is None:
        show(evaluation, None, teacher)
        with busy.container():
            routed = loaders.evaluation(checkpoint, data)
        seen.put(key, routed)
    show(evaluation, routed, teacher)
    return evaluation, routed


def sweep(
    selection: state.Selection, setting: Setting, stats: UsageStats, known: list[Mark], place, bar
) -> None:
    """Evaluate every number of experts a layer, drawing the curve into `place` as it fills in."""
    checkpoint, data, experts = selection.checkpoint, selection.data, stats.num_experts

    def draw(key: int) -> None:
        fig, _ = lab_outputs.curve_figure(selection, setting, known)
        place.plotly_chart(fig, width="stretch", key=f"sweep-{key}")

    draw(0)
    for m in range(1, experts + 1):
        step = Setting(PER_LAYER, m, setting.selection, setting.combination, setting.seed)
        plan = lab.plan_of(step, stats)
        for evaluation in lab.stream(checkpoint, data, plan):
            done = (m - 1 + evaluation.n / evaluation.total) / experts
            bar.progress(done, f"{m} a layer: {evaluation.n:,} of {evaluation.total:,} inputs")
        lab.keep(checkpoint, data, step, plan, evaluation)
        draw(m)
    bar.empty()


main()
