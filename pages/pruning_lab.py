"""Prune the routed model by a slider, see at once what it costs and saves, and take the result along."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

import time

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from shrp.analysis.usage import UsageStats
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, cost, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import expert_layers, num_experts_of
from shrp.pruning.plan import PruningPlan
from ui import floor, measurements, pair_views
from ui.compare import sides as compare_sides
from ui.lab import beside as lab_beside
from ui.lab import breaking as lab_breaking
from ui.lab import compare as lab_compare
from ui.lab import editor as lab_editor
from ui.lab import edits as lab_edits
from ui.lab import outputs as lab_outputs
from ui.lab import reference as lab_reference
from ui.lab import split as lab_split
from ui.lab import sweep as lab_sweep
from ui.lab import threshold as lab_threshold
from ui.lab import views as lab_views
from ui.lab import work as lab
from ui.lab.controls import controls
from ui.lab.marks import Mark, marks, shipped, teacher_mark
from ui.lab.sides import model_key
from ui.lab.work import Setting

REDRAW = 0.25  # seconds between two running estimates: drawing every one would cost more than computing it


def introduce(place: DeltaGenerator, selection: state.Selection, setting: Setting) -> None:
    """Say in a place what the page does, and what is chosen and scored on what."""
    place.markdown(
        "Keep only some experts in each converted layer and drop the routers. The pruned model is not trained further "
        "here (`prune --recover` does that, and may win back much of what is lost); it is rebuilt and "
        + lab_split.introduction(selection, setting)
    )


def main() -> None:
    selection = state.current("Pruning lab")
    if not selection.is_routed:
        lab_outputs.not_routed(selection)
        return
    model, experts = selection.checkpoint.model, num_experts_of(selection.checkpoint.model)
    intro = st.empty()
    selection = lab_split.held_out(selection)
    # Not a fragment: Streamlit lets a fragment's work finish before it looks at a moved slider, but stops a
    # whole run at once. So an evaluation that nobody waits for any more is dropped, and nothing queues.
    setting = controls(len(expert_layers(model)), experts)
    introduce(intro, selection, setting)
    layers = list(expert_layers(model))
    editor = lab_edits.editor(selection.checkpoint.fingerprint, layers, experts, state.CHECKPOINT)
    score = st.container()  # filled in last, so that an edit is on the map before its score is there
    place = st.container()
    try:
        with score.container():  # progress comes and goes in here without moving what is below
            stats = lab.usage_for(setting.selection, selection.checkpoint, selection.ranking)
        setting, plan, base = lab_edits.edited(setting, editor.edits, stats, editor)
        introduce(intro, selection, setting)  # anew, as edits may have brought a plan from a file
        with place:
            if setting.selection != lab.FITTED and max(plan.keep_counts().values()) == 1:
                st.caption(
                    ":material/info: One expert a layer: there is nothing to combine, so both ways of combining are "
                    "the same."
                )
            lab_editor.section(editor, plan, base, stats, selection.name)
        with score:
            ranked_here = stats if selection.ranked_on is None else None
            pruned, routed = evaluate(selection, setting, plan, ranked_here)
    except ShrpError as error:
        state.show_error(error)
        return
    beside = st.container()
    known = marks(selection.checkpoint, selection.data, routed)
    lab_sweep.fill(selection.checkpoint, selection.data, setting, stats)
    curve = lab_sweep.Section(
        selection, setting, stats, known, routed, by_hand=editor.edits != lab_edits.NO_EDITS
    )
    asked = curve.place()
    changing = st.container()
    if asked:
        curve.sketch()
    else:
        curve.draw()
    lab_outputs.where_it_hurts(selection, plan, pruned, routed)
    comparing = st.container()
    compare_sides.offer(setting, plan, held_out=selection.ranked_on is not None)
    lab_outputs.take_along(selection, setting, plan, pruned, routed)
    if asked:  # late, so that everything else is there meanwhile
        try:
            curve.sweep()
        except ShrpError as error:  # what was scored until then stays
            with curve.busy:
                state.show_error(error)
        curve.draw()
    with comparing:  # of all that was scored by now
        lab_compare.section(selection, setting, plan, pruned, routed)
    with changing:
        lab_breaking.section(curve)
    with beside:
        try:
            lab_beside.section(selection, setting, plan, pruned, routed)
        except ShrpError as error:
            state.show_error(error)


def evaluate(
    selection: state.Selection, setting: Setting, plan: PruningPlan, stats: UsageStats | None
) -> tuple[Evaluation, Evaluation]:
    """Show running estimates for the plan until they are exact; returns that and the routed model's.

    Args:
        stats: the usage on the same data, or None where experts are chosen on others.
    """
    checkpoint, data = selection.checkpoint, selection.data
    dense, price = dense_cost(checkpoint.model, TOKENS), plan_cost(checkpoint.model, plan, TOKENS)
    as_routed = cost(checkpoint.model, TOKENS)
    kept = (plan.budget, len(plan.layers) * num_experts_of(checkpoint.model))
    place = busy = None

    def show(evaluation: Evaluation, routed: Evaluation | None, teacher: Mark | None) -> None:
        nonlocal place, busy
        if place is None:  # not before: until then the last score stays, dimmed, and nothing below it moves
            place, busy = st.empty(), st.empty()
        with place.container(border=True):
            lab_views.headline(
                evaluation,
                price,
                dense,
                kept,
                as_routed,
                routed,
                teacher,
                dense_model,
                floor.floor_text(data),
            )
            models = [
                ("the pruned model", floor.exact(evaluation)),
                ("the routed one", floor.exact(routed)),
                ("the teacher", teacher.score if teacher else floor.exact(dense_model)),
            ]
            if warned := floor.floor_warning(data, models):
                st.warning(warned, icon=":material/warning:")
            moved = routed and lab_threshold.matched(model_key(checkpoint, plan), evaluation, routed, data)
            if moved:
                said = lab_threshold.line(moved, evaluation, routed, data)
                if data.labels is not None and lab_threshold.is_most(moved, evaluation, routed):
                    st.info(
                        f"{said} So most of the loss is the threshold's; *answer shares matched*, at the curve below, "
                        "leaves it out everywhere there.",
                        icon=":material/tune:",
                    )
                else:
                    st.caption(said)
            known = {"pruned": evaluation, "routed": routed, "dense teacher": dense_model}
            if evaluation.complete and (said := pair_views.line(data, known)):
                st.caption(said)
        if evaluation.complete:
            busy.empty()
        else:
            text = f"A running estimate from {evaluation.n:,} of {evaluation.total:,} inputs"
            busy.progress(evaluation.n / evaluation.total, text)

    routed = measurements.evaluation_known(checkpoint, data)
    teacher = teacher_mark(shipped(checkpoint, data))
    dense_model = lab_reference.teacher_on(checkpoint, data)
    drawn = 0.0
    for evaluation in lab.stream(checkpoint, data, plan):
        if not evaluation.complete and time.monotonic() - drawn > REDRAW:
            show(evaluation, routed, teacher)
            drawn = time.monotonic()
    lab.keep(checkpoint, data, setting, plan, evaluation)
    if routed is None:
        show(evaluation, None, teacher)
        with busy.container():
            routed = measurements.evaluation(checkpoint, data, stats)
    show(evaluation, routed, teacher)
    return evaluation, routed


main()
