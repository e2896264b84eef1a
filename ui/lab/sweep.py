"""The sweep: all budgets of a selection and combination, one after another, on a curve that fills in as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, Cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan
from shrp.pruning.sweep import budgets
from ui import measurements
from ui.downloads import chart, downloads
from ui.floor import floor_of
from ui.lab import controls as lab_controls
from ui.lab import curve as lab_curve
from ui.lab import pareto as lab_pareto
from ui.lab import threshold as lab_threshold
from ui.lab import work as lab
from ui.lab.chance import against_chance
from ui.lab.marks import Mark, marks_frame
from ui.lab.sides import model_key
from ui.lab.work import GLOBAL, PER_LAYER, SELECTIONS, Setting
from ui.pickers import always_one
from ui.remaining import Remaining
from ui.state import Selection
from ui.store import disk
from ui.text import capital, count, escape, metric_name

DRAWS = (0, 1, 2)
"""Seeds of the random control."""
COST, SCOPE, RUN, CONTROLS, MATCHED = "curve_cost", "curve_of", "sweep", "sweep_controls", "sweep_matched"
MOST_OFFERED = 8
"""Pareto-best settings that the controls can be set to by a button."""
REDRAW = 0.7  # seconds between two drawings of the curve, each of which takes the browser about a tenth
_COSTS, _SCOPES = {"FLOPs": "flops", "Parameters": "params"}, {"Encoder": "encoder", "Whole model": "model"}
_CONTROL = next(label for label, selection in SELECTIONS.items() if selection == "random")

Point = tuple[Setting, PruningPlan]


def points(setting: Setting, stats: UsageStats) -> list[Point]:
    """What a sweep evaluates with the selection and combination of `setting`: both kinds of budget."""
    layers, experts = len(stats.layers), stats.num_experts
    sizes = [(PER_LAYER, m) for m in range(1, experts + 1)]
    sizes += [(GLOBAL, total) for total in budgets(layers, experts)]
    steps = [
        Setting(kind, size, setting.selection, setting.combination, setting.seed) for kind, size in sizes
    ]
    return [(step, lab.plan_of(step, stats)) for step in steps]


def control_points(setting: Setting, stats: UsageStats) -> list[Point]:
    """The random control: each number of experts a layer but all of them, in several draws."""
    steps = [
        Setting(PER_LAYER, m, _CONTROL, setting.combination, seed)
        for m in range(1, stats.num_experts)
        for seed in DRAWS
    ]
    return [(step, lab.plan_of(step, stats)) for step in steps]


def describe(layers: int, experts: int) -> str:
    """Which points a sweep has, in words."""
    grid = budgets(layers, experts)
    step = grid[1] - grid[0] if len(grid) > 1 else 1
    every = "every global budget" if step == 1 else f"global budgets in steps of {step}"
    return f"1 to {experts} a layer, and {every} from {grid[0]} to {grid[-1]}"


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: different plans evaluated, of how many; equal plans count once."""

    done: int
    total: int


def run(
    checkpoint: Checkpoint,
    data: TextData,
    wanted: list[Point],
    pause: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Progress]:
    """Evaluate points and keep each for the curve as it is done; those that anyone had before come at once.

    Closing the iterator abandons the work; what is done stays.

    Args:
        pause: called often while a point is at work; it may raise, which abandons the work as well.
    """
    by_plan: dict[str, list[Point]] = {}
    for setting, plan in wanted:
        by_plan.setdefault(plan.key(), []).append((setting, plan))
    missing = []
    for same in by_plan.values():
        plan = same[0][1]
        if (found := lab.recall(checkpoint, data, plan)) is None:
            missing.append(plan)
            continue
        for setting, plan in same:
            lab.keep(checkpoint, data, setting, plan, found)
    at = Progress(len(by_plan) - len(missing), len(by_plan))
    yield at
    if not missing:
        return
    with closing(measurements.live_evaluator(checkpoint, data).sweep(missing, lambda: pause(at))) as results:
        for plan, evaluation in results:
            lab.remember(checkpoint, data, plan, evaluation)
            for setting, same in by_plan[plan.key()]:
                lab.keep(checkpoint, data, setting, same, evaluation)
            at = Progress(at.done + 1, at.total)
            yield at


def fill(checkpoint: Checkpoint, data: TextData, setting: Setting, stats: UsageStats) -> None:
    """Put on the curve what was evaluated before this session, once for each selection and combination."""
    looked = st.session_state.setdefault("sweep-looked", set())
    of = checkpoint.fingerprint, data.source_fingerprint
    key = (*of, setting.selection, setting.combination, setting.seed)
    if key in looked:
        return
    for step, plan in [*points(setting, stats), *control_points(setting, stats)]:
        if (found := lab.recall(checkpoint, data, plan)) is not None:
            lab.keep(checkpoint, data, step, plan, found)
    looked.add(key)


def over() -> str:
    """The cost that the curve is drawn over, as picked."""
    kind = _COSTS.get(st.session_state.get(COST), "flops")
    return f"{_SCOPES.get(st.session_state.get(SCOPE), 'encoder')}_{kind}"


class Section:
    """The curve's part of the page: first its places, then what is drawn into them, now or after a sweep."""

    def __init__(
        self,
        selection: Selection,
        setting: Setting,
        stats: UsageStats,
        marks: list[Mark],
        routed: Evaluation,
        *,
        by_hand: bool,
    ) -> None:
        """Args:
        by_hand: whether anything is edited by hand, though it may change nothing at this setting.
        """
        self.by_hand = by_hand
        self.selection, self.setting, self.stats, self.marks = selection, setting, stats, marks
        self.checkpoint, self.data, self.routed = selection.checkpoint, selection.data, routed
        self.matched: bool | None = None if self.data.task.is_regression else False
        """Whether what was tried is scored with the routed model's answer shares; None where there are none."""
        self.dense: Cost = dense_cost(self.checkpoint.model, TOKENS)
        self.sketches = 0

    def place(self) -> bool:
        """Draw the choices and the places for the rest; returns whether a sweep was asked for."""
        if self.data.labels is None:
            st.info(
                "These data have no labels, so no setting has a score to draw against its cost; what flips is below."
            )
            return False
        # Not a fragment: its clicks would wait for a sweep to end, where all others stop it.
        with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
            for label, options, key in (("Cost", _COSTS, COST), ("Of", _SCOPES, SCOPE)):
                always_one(label, list(options), key, label_visibility="collapsed")
            asked = st.button(
                "Run a sweep",
                key=RUN,
                icon=":material/stacked_line_chart:",
                help="Evaluates all these budgets with the selection and combination above and draws them as they "
                "come. Change any control to stop it; what is done stays, and is kept on disk. On "
                "the command line: `python -m shrp sweep`.",
            )
            st.checkbox(
                f"with random controls ({len(DRAWS)} draws each)",
                key=CONTROLS,
                bind="query-params",
                help="Also draws experts by chance for each number a layer: what a good selection must beat.",
            )
            if self.matched is not None:
                self.matched = st.checkbox(
                    "answer shares matched",
                    key=MATCHED,
                    bind="query-params",
                    help="Scores all that is tried here with the output bias shifted, without labels, until each class "
                    "is as frequent as in the routed model: what then is lost is more than the threshold.",
                )
        st.caption(f"A sweep evaluates {describe(len(self.stats.layers), self.stats.num_experts)}.")
        self.busy, self.curve, self.table = st.empty(), st.empty(), st.empty()
        return asked

    def _frames(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """What was tried, the references, and the Pareto-best of what was tried."""
        attempts = list(lab.tried(self.checkpoint, self.data).values())
        if self.matched:
            scored = [(one, self.evaluation_of(one.plan)) for one in attempts]
            attempts = [
                replace(one, score=found.score, interval=found.interval)
                for one, found in scored
                if found is not None  # whose outputs are no longer there
            ]
        tried = lab.attempts_frame(attempts, self.dense)
        return tried, marks_frame(self.marks, self.dense), lab_pareto.pareto(tried, over())

    def evaluation_of(self, plan: PruningPlan) -> Evaluation | None:
        """What was found of a plan, with answer shares matched where that is asked for; None where it is gone."""
        found = lab.recall(self.checkpoint, self.data, plan)
        if found is None or not self.matched:
            return found
        key = model_key(self.checkpoint, plan)
        moved = lab_threshold.matched(key, found, self.routed, self.data)
        return found if moved is None else moved.evaluation

    def _figure(self, tried: pd.DataFrame, references: pd.DataFrame, best: pd.DataFrame):
        metric, name = self.data.task.metric, self.data.name
        return lab_curve.curve(
            tried,
            references,
            over(),
            metric,
            name,
            self.setting.text,
            best,
            floor_of(self.data),
            bool(self.matched),
        )

    def _alt(self, tried: pd.DataFrame, references: pd.DataFrame, best: pd.DataFrame) -> str:
        return (
            f"Scatter of score against cost: {len(tried)} settings evaluated here and {len(references)} "
            f"references. {lab_pareto.in_words(best, self.data.task.metric, over())}."
        )

    def sketch(self) -> None:
        """Draw the curve alone, as it stands while a sweep runs."""
        self.sketches += 1  # two charts of one run need different keys, even in the same place
        frames = self._frames()
        fig, alt = self._figure(*frames), self._alt(*frames)
        self.curve.plotly_chart(fig, width="stretch", key=f"sweep-{self.sketches}", alt=alt)

    def draw(self) -> None:
        """Draw the curve with its downloads, and under it the Pareto-best settings."""
        if self.data.labels is None:
            return
        tried, references, best = self._frames()
        fig, name, metric = self._figure(tried, references, best), self.selection.name, self.data.task.metric
        frame = pd.concat([tried.assign(source="tried here"), references.assign(source="reference")])
        takes_part = ~frame["control"].eq(True) if "control" in frame else True
        frame["pareto"] = frame["plan"].isin(best["plan"]) & takes_part if "plan" in frame else False
        if self.matched:  # the references never are
            frame["answer shares matched"] = frame["source"] == "tried here"
        with self.curve.container():
            file = f"{name}-curve{'-matched' * bool(self.matched)}"
            chart(fig, frame, "curve", file, self._alt(tried, references, best))
            if gone := len(lab.tried(self.checkpoint, self.data)) - len(tried):
                st.caption(
                    f"{counted(gone, 'setting')} tried before {'is' if gone == 1 else 'are'} left out: their "
                    "outputs are not in memory any more, so answer shares can't be matched. A sweep evaluates them "
                    "anew."
                )
        with self.table.container():
            if self.matched:
                st.caption(
                    "All that follows is of scores with matched answer shares; Compare pairs them as they are."
                )
            for sentence in against_chance(tried, metric):
                st.markdown(escape(sentence))
            if len(best):
                self._best(best, tried, name, metric)
            if disk().problem:
                st.caption(f"Results are not kept on disk: {escape(disk().problem)}.")

    def _best(self, best: pd.DataFrame, tried: pd.DataFrame, name: str, metric: str) -> None:
        gaps = self._gaps(best)
        floor = floor_of(self.data)
        st.markdown(escape(lab_pareto.verdict(best, gaps, metric, over(), tried, floor)))
        routed = next((mark.score for mark in self.marks if mark.kind == "routed"), float("nan"))
        st.markdown(escape(lab_pareto.cheapest_within(best, routed, metric, over(), self.matched, floor)))
        shown = lab_pareto.table(best, gaps, metric)
        tested = bool(shown["McNemar's test"].any())
        if not tested:
            shown = shown.drop(columns="McNemar's test")
        config = {
            "#": st.column_config.NumberColumn(width=35),
            "setting": st.column_config.TextColumn(width=185 if tested else 270),
            metric_name(metric): st.column_config.TextColumn(
                "score", width=75, help=capital(metric_name(metric))
            ),
            "95% interval": st.column_config.TextColumn(width=85),
            "n": st.column_config.NumberColumn(width=45),
            "McNemar's test": st.column_config.TextColumn(
                width=80, help="Exact test that this setting and the best are right equally often"
            ),
        }
        for what in ("FLOPs", "parameters"):
            config[f"{what}, encoder / model"] = st.column_config.TextColumn(
                what, width=105, help="Of the dense encoder's / of the whole dense model's"
            )
        st.dataframe(
            shown,
            hide_index=True,
            column_config=config,
            height=38 + 35 * len(shown),
            alt="Pareto-best settings with score, interval, costs and distance from the best",
        )
        self._use(best)
        dense = self.dense
        st.caption(
            f"{'Intervals in brackets are 95% and paired. ' * (len(best) > 1)}Costs are shares of the dense encoder's "
            f"{count(dense.encoder_flops)} FLOPs (one input of {dense.tokens} tokens) and "
            f"{count(dense.encoder_params)} parameters, and of the whole dense model's "
            f"{count(dense.model_flops)} and {count(dense.model_params)}."
        )
        far = {key: (gap.difference, *gap.interval, gap.p_value) for key, gap in gaps.items()}
        apart = pd.DataFrame.from_dict(far, orient="index", columns=lab_pareto.GAP_COLUMNS)
        table = best.merge(apart, how="left", left_on="plan", right_index=True)
        if self.matched:
            table["answer shares matched"] = True
        downloads(table, "pareto", f"{name}-pareto{'-matched' * bool(self.matched)}")

    def _gaps(self, best: pd.DataFrame) -> dict[str, lab_pareto.Gap]:
        """Each setting's distance from the highest score; without those whose outputs are gone."""
        plans = {a.plan.key(): a.plan for a in lab.tried(self.checkpoint, self.data).values()}
        found = {key: self.evaluation_of(plans[key]) for key in best["plan"]}
        top = found[best.loc[best["score"].idxmax(), "plan"]]
        if top is None:
            return {}
        return {key: lab_pareto.gap(one, top) for key, one in found.items() if one is not None}

    def sweep(self) -> None:
        """Evaluate all points, drawing the curve as it fills in.

        Raises:
            ShrpError: a model can't be evaluated, as one whose outputs are not finite; what was scored before is kept.
        """
        wanted = points(self.setting, self.stats)
        if st.session_state.get(CONTROLS):
            wanted += control_points(self.setting, self.stats)
        drawn, left = -np.inf, Remaining()

        def show(progress: Progress) -> None:
            # Streamlit looks for a moved control whenever something is drawn, and then ends this run right here.
            share = progress.done / progress.total
            text = f"{progress.done:,} of {progress.total:,} different plans, each on all {len(self.data):,} inputs"
            self.busy.progress(share, text + left.said(share))

        try:
            for progress in run(self.checkpoint, self.data, wanted, show):
                show(progress)
                if time.monotonic() - drawn > REDRAW:
                    self.sketch()
                    drawn = time.monotonic()
        except ShrpError:
            self.busy.empty()
            raise
        self.busy.empty()
        st.toast(
            f"All {progress.total:,} different plans of this sweep are evaluated.", icon=":material/check:"
        )

    def _use(self, best: pd.DataFrame) -> None:
        """Buttons that set the controls to a Pareto-best setting, whose model can then be looked at and saved."""
        if self.by_hand:  # which would be laid over it
            return
        everything = lab.tried(self.checkpoint, self.data).values()
        made: dict[str, Setting] = {}
        for one in everything:  # of settings that give one plan, the one that its row names first
            if not (one.setting.edited or one.setting.is_control):
                made.setdefault(one.plan.key(), one.setting)
        offered = [(row.number, made[row.plan]) for row in best.itertuples() if row.plan in made]
        with st.container(horizontal=True, gap="small"):
            for number, setting in offered[:MOST_OFFERED]:
                st.button(
                    f"Use #{number}",
                    key=f"use-{number}",
                    on_click=lab_controls.take,
                    args=(setting,),
                    help=f"Sets the controls above to {escape(setting.text)}, to look closer at it or to save it.",
                )
