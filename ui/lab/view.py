"""The pruning lab's page: what is drawn where, and what is grey while it is not up to date."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from shrp.checkpoints.archive import files_of
from shrp.checkpoints.info import CheckpointInfo
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import expert_layers, num_experts_of
from ui import differences, loaders, measurements, pair_tabs, plan_url, prunings, state
from ui.bound import always_one
from ui.differences import exact, floor_of, floor_warning
from ui.downloads import chart, clicked
from ui.lab import curve, edits, kept, onnx, save, selections, verdict
from ui.measurements import ROUTED, TEACHER, teacher_on
from ui.own import convert
from ui.pair_tabs import CHANGED, LOST, THRESHOLD
from ui.prunings import ALLOCATION, SELECTIONS, Setting
from ui.state import Selection
from ui.store import Remaining, disk
from ui.text import capital, escape, with_interval

SWEEP, TAB, AGAINST = "sweep", "lab_tab", "against"
"""Keys of widgets, in the session's state and in the URL."""
KEPT, COMPARED = "Kept experts", "Selections compared"
TABS = (KEPT, LOST, CHANGED, COMPARED, THRESHOLD)
REDRAW = 1.0  # seconds between two drawings of the curve while it fills in; of the verdict a quarter of that
_GREY = "<style>[class*=st-key-lab-needs-score]{} {{opacity: 0.3}}</style>"
# The browser draws a chart some time after it got it, and until then shows the old one.
_FRESH = "<style>.st-key-lab-needs-score-curve {transition: opacity 0.5s 0.5s}</style>"


class Lab:
    """One run of the page.

    Costs, counts and kept experts are drawn at once. What needs the model is grey, or says "estimating ...", until the
    exact evaluation is there.
    """

    def __init__(self, selection: Selection) -> None:
        self.actions = st.container(key="lab-actions")
        # What is drawn several times in a run goes through `show`: an element that is not replaced yet stays, grey.
        self.places = {"verdict": st.container(key="verdict")}
        self.places |= {name: st.container(key=f"lab-needs-score-{name}") for name in ("smallest", "notes")}
        self.slots: dict[str, DeltaGenerator] = {}
        left, right = st.columns([2, 3], gap="medium")
        self.places["curve"] = right.container(key="lab-needs-score-curve")
        self.model = selection.checkpoint.model
        self.layers, self.experts = tuple(expert_layers(self.model)), num_experts_of(self.model)
        with left:
            self.setting = prunings.controls(len(self.layers), self.experts)
            labelled = selection.data.labels is not None
            self.sweep = labelled and st.toggle("All sizes", key=SWEEP, bind="query-params")
            self.places["busy"], self.costs = st.container(), st.container()
            self.places["score"] = st.container(key="lab-needs-score-score")
        self.tab, place = state.open_tab(TABS, TAB)
        self.below = place.container(key="lab-kept" if self.tab == KEPT else "lab-needs-score-tab")
        self.places["grey"] = st.container()
        self.stale()
        number = self.setting.number * (len(self.layers) if self.setting.allocation == "per_layer" else 1)
        self._estimating(number)
        self.selection, self.checkpoint, self.data = selection, selection.checkpoint, selection.data
        self.routed = measurements.evaluation_known(self.checkpoint, self.data)
        self.teacher = teacher_on(self.checkpoint, self.data)
        self.stored = curve.stored_frame(self.checkpoint, self.data)
        self.drawings = 0

    def show(self, name: str) -> DeltaGenerator:
        """A place whose element is replaced at each call; before the first one what was there stays."""
        if name not in self.slots:
            self.slots[name] = self.places[name].empty()
        return self.slots[name]

    def draw(self) -> None:
        """Draw all of the page, or why that cannot be done, where the verdict would be."""
        try:
            self._draw()
        except ShrpError as error:
            self.show("verdict").error(escape(str(error)), icon=":material/error:")
            self.show("busy").empty()

    def _draw(self) -> None:
        with self.show("busy"):
            self.stats = prunings.usage_for(self.setting.selection, self.checkpoint, self.data)
        editor = edits.editor(self.checkpoint.fingerprint, self.layers, self.experts)
        self.setting = replace(self.setting, edits=editor.edits)
        self.plan = prunings.plan_of(self.setting, self.stats)
        self._estimating(self.plan.budget)
        with self.costs:
            if editor.edits:
                st.caption(f":material/edit: {self.plan.budget} experts, with your edits.")
            verdict.costs(self.checkpoint, self.plan)
            st.caption(_measured_on(self.selection, self.setting))
        self.sizes = curve.sizes(self.checkpoint, self.data, self.setting, self.stats)
        if self.tab == KEPT:
            with self.below:
                kept.section(editor, self.plan, self.stats, self.selection.name)
        menu = self._actions()
        pruned = self._evaluate()
        self._draw_verdict(pruned)
        if self.data.labels is not None:
            with self.show("busy"):
                tuned = curve.tuned_frame(self.checkpoint, self.data)
            self.stored = pd.concat([self.stored, tuned]) if len(tuned) else self.stored
        self._draw_curve(pruned)
        self.show("grey").markdown(_FRESH, unsafe_allow_html=True)
        with menu:
            save.menu(self.selection, self.setting, self.plan, pruned)
            onnx.menu(self.selection, self.plan, save.name_of(self.selection, self.plan))
        with self.below:
            self._fill_tab(pruned)
        if self.sweep:
            self._sweep(pruned)
        if disk().problem:
            st.caption(f"Results are not kept on disk: {escape(disk().problem)}.")

    def stale(self, *, curve_too: bool = True) -> None:
        """Grey what needs the model, but for the curve where that has an estimate."""
        but = "" if curve_too else ":not(.st-key-lab-needs-score-curve)"
        style = _GREY.format(but) + ("" if curve_too else _FRESH)
        self.show("grey").markdown(style, unsafe_allow_html=True)

    def _estimating(self, kept: int) -> None:
        total = len(self.layers) * self.experts
        self.show("verdict").markdown(f"**{kept} of {total} experts: estimating …**")

    def _actions(self) -> DeltaGenerator:
        """Draw the row of actions; returns the place of what needs the exact evaluation."""
        with self.actions, st.container(horizontal=True, gap="small", vertical_alignment="center"):
            if save.fine_tune_button(self.selection, self.plan):
                st.stop()  # the dialog answers only once the page is done
            found = st.popover("Save or export", icon=":material/save:")
            asked = prunings.link_of(self.setting, self.selection.name)
            if len(asked.get(f"b_{plan_url.URL}", "")) <= plan_url.LONGEST:
                state.page_link("pages/compare.py", "Compare", ":material/compare:", asked)
        return found

    def _evaluate(self) -> Evaluation:
        """Show running estimates for the plan until they are exact; evaluates the routed model too, where needed."""
        drawn = sketched = time.monotonic()
        for found in prunings.stream(self.checkpoint, self.data, self.plan):
            now = time.monotonic()
            if not found.complete and now - drawn > REDRAW / 4:
                self._draw_verdict(found)
                drawn = now
            if not found.complete and now - sketched > REDRAW:
                self._draw_curve(found)
                self.stale(curve_too=False)
                sketched = now
        if self.routed is None:
            with self.show("busy"):
                self.routed = measurements.evaluation(self.checkpoint, self.data, self.stats)
        return found

    def _draw_verdict(self, found: Evaluation) -> None:
        scores = self.stored[self.stored["kind"] == "teacher"]["score"]
        dense = self.teacher or (float(scores.iloc[0]) if len(scores) else math.nan)
        total = len(self.layers) * self.experts
        text = verdict.verdict(found, self.routed, dense, self.plan.budget, total)
        self.show("verdict").markdown(text)
        if found.labels is not None:
            score = with_interval(found.score, found.interval, found.metric, found.n)
            self.show("score").markdown(escape(capital(score)))
        if not found.complete or self.routed is None:
            return
        with self.show("notes").container():
            models = [("the pruned model", exact(found)), ("the routed model", exact(self.routed))]
            if warned := floor_warning(self.data, models):
                st.warning(warned, icon=":material/warning:")
            moved = differences.matched(found, self.routed, self.data)
            if differences.most_is_the_threshold(moved, found, self.routed):
                st.button(
                    "Most of this loss comes from predicting one class too often: see how to correct it",
                    key="open-threshold",
                    on_click=st.session_state.__setitem__,
                    args=(TAB, THRESHOLD),
                    type="tertiary",
                    icon=":material/tune:",
                )
        self._draw_smallest()

    def _draw_smallest(self) -> None:
        if self.data.labels is not None:
            known = curve.known(self.checkpoint, self.data, self.sizes)
            scores = self.checkpoint.info.scores
            text = verdict.smallest_text(known, len(self.sizes), self.routed, self.data, scores)
            edited = " Your edits are left out there." if self.setting.edits else ""
            self.show("smallest").markdown(text + edited)

    def _draw_curve(self, found: Evaluation | None) -> None:
        """Draw the curve as far as it is known, with the current point."""
        if self.data.labels is None:
            self.show("curve").info(
                f"These data have no labels, so there is no score to draw. See *{CHANGED}*."
            )
            return
        self.drawings += 1  # two charts of one run need different keys, even in the same place
        frame = curve.frame_of(self.checkpoint, curve.known(self.checkpoint, self.data, self.sizes))
        scored = {"floor": floor_of(self.data), "whole": len(frame) == len(self.sizes)}
        share = prunings.cost_of(self.checkpoint, self.plan).relative_to(dense_cost(self.model, TOKENS))
        now, title = (self.plan.budget, share[curve.OVER], found), SELECTIONS[self.setting.selection].lower()
        chosen_on = str(self.checkpoint.info.training.get("validation_data", ""))
        fig = curve.curve(frame, self.stored, self.routed, self.data, title, now, chosen_on=chosen_on, **scored)
        # Streamlit keeps a chart's callback as long as its session: one that knew `self` would keep this run of the page.
        key, allocation, layers = f"curve-{self.drawings}", self.setting.allocation, len(self.layers)
        with self.show("curve").container():
            chart(
                fig,
                frame.assign(selection=self.setting.selection, data=self.data.name),
                key,
                f"{self.selection.name}-curve",
                f"Score against cost of {len(frame)} sizes; the current one keeps {self.plan.budget} experts.",
                lambda: _take(key, allocation, layers),
                "The slider does the same.",
            )

    def _fill_tab(self, pruned: Evaluation) -> None:
        """Draw the open tab, where it needs the model."""
        if self.tab == COMPARED:
            selections.section(self.selection, self.setting, self.plan, pruned)
        elif self.tab != KEPT:
            against, name = self.routed, "routed"
            if self.teacher is not None:
                if always_one("Compared with", (ROUTED, TEACHER), AGAINST) == TEACHER:
                    against, name = self.teacher, "teacher"
            elif self.checkpoint.problem:
                st.warning(escape(self.checkpoint.problem), icon=":material/warning:")
            file = f"{self.selection.name}-{self.plan.budget}"
            models = {name: name, "pruned": "static"}
            pair_tabs.draw(self.tab, against, pruned, self.selection, models, file, self.checkpoint)

    def _sweep(self, pruned: Evaluation) -> None:
        """Evaluate all sizes, drawing the curve as it fills in. A moved slider interrupts it and the next run goes on."""
        if len(curve.known(self.checkpoint, self.data, self.sizes)) == len(self.sizes):
            return
        left, drawn = Remaining(), time.monotonic()

        def show(share: float) -> None:
            nonlocal drawn
            self.show("busy").progress(share, f"Evaluating all sizes: {share:.0%}{left.said(share)}")
            if time.monotonic() - drawn > 2 * REDRAW:
                self._draw_curve(pruned)
                drawn = time.monotonic()

        try:
            prunings.evaluate_all(self.checkpoint, self.data, self.sizes, show)
        except ShrpError as error:  # what was scored before stays
            with self.show("busy"):
                state.show_error(error)
            return
        self.show("busy").empty()
        self._draw_curve(pruned)
        self._draw_smallest()


def _measured_on(selection: Selection, setting: Setting) -> str:
    """What is scored, and what the experts are chosen on, as Markdown."""
    scored = f"Scored on {escape(selection.data.name)} (n = {len(selection.data):,})"
    if setting.selection == "random":
        return f"{scored}; experts drawn at random, a control."
    if setting.selection == "recorded":
        return f"{scored}; experts chosen on validation data of the training."
    return f"{scored}, where experts are chosen too."


def _take(key: str, allocation: str, layers: int) -> None:
    """Set the slider to a clicked size, of so many experts in all."""
    if cell := clicked(key):
        st.session_state[ALLOCATION] = allocation
        st.session_state[allocation] = int(cell[0]) // (layers if allocation == "per_layer" else 1)


@state.shows_errors
def not_routed(selection: Selection) -> None:
    """For a checkpoint without routers: what it is, its plan and export where it is pruned, and the next step."""
    name, checkpoint, plan = selection.name, selection.checkpoint, selection.checkpoint.info.plan
    what = "is pruned already" if plan is not None else "has no routers"
    st.info(f"**{escape(name)}** {what}, so there is no usage to prune by.", icon=":material/info:")
    with st.container(horizontal=True, gap="small"):
        if plan is None:
            convert.button(selection)
        else:
            save.plan_button(plan, name)
        with st.popover("Export", icon=":material/deployed_code:"):
            save.folder_button(lambda: save.zipped(files_of(checkpoint.path), name), name)
            onnx.menu(selection, None, name)
        _routed_ones(checkpoint.info.task.name)
    if plan is None:
        return
    experts = num_experts_of(checkpoint.model)
    kept_of, place = f"{plan.budget} of {len(plan.layers) * experts} experts", st.empty()
    alt = f"Weights of the kept experts: {kept.kept_in_words(plan)}"
    chart(kept.expert_map(plan, experts, ""), kept.plan_frame(plan), kept.MAP, f"{name}-plan", alt)
    found = measurements.evaluation(checkpoint, selection.data)
    scored = with_interval(found.score, found.interval, found.metric, found.n)
    place.markdown(f"**{kept_of}**: {escape(scored)}, {escape(found.data)}.")


def _routed_ones(task: str) -> None:
    """Buttons that pick a routed checkpoint of the same task."""
    known = loaders.discover_all().items()
    infos = {name: info for name, info in known if isinstance(info, CheckpointInfo)}
    routed = [name for name, info in infos.items() if state.is_routed(info) and info.task.name == task]
    pick = st.session_state.__setitem__
    for name in routed[:3]:
        args = (state.CHECKPOINT, name)
        st.button(f"Prune {escape(name)}", key=f"prune-{name}", on_click=pick, args=args)
