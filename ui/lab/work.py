"""The pruning lab's work: settings, usage, running evaluations, costs, and what has been tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.data.text_data import TextData
from shrp.errors import PlanError
from shrp.evaluation.costs import TOKENS, Cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import NO_EDITS, FittedGates, PlanEdits, PruningPlan
from shrp.pruning.select import TEXTS, GateFit, plan_from
from ui import measurements
from ui.attribution import knock_outs
from ui.remaining import Remaining
from ui.store import disk, results
from ui.text import escape

GLOBAL, PER_LAYER = "Global budget", "Per layer"
FITTED, FITTED_WEIGHTS = "Fitted", "Fitted weights"
RECORDED = "Recorded usage"
SELECTIONS = {
    "Usage": "usage",
    RECORDED: "recorded",
    "Gate × norm": "gate_norm",
    "Ablation": "ablation",
    FITTED: "fitted",
    "Random (control)": "random",
}
GIVEN, AS_GIVEN = "Plan from a file", "as given"
"""In the place of a selection, where a file has every weight and doesn't say how, and of a combination."""
COMBINATIONS = {"Usage weights": "usage", "Plain mean": "mean"}
"""Those that can be picked; `FITTED_WEIGHTS` come with the selection of that name, and only with it."""
MAX_SEED = 9999


@dataclass(frozen=True)
class Setting:
    """What a person has set: the labels of the widgets' options, and numbers."""

    allocation: str
    number: int
    selection: str = "Usage"
    combination: str = "Usage weights"
    seed: int = 0
    edits: PlanEdits = NO_EDITS
    """Changes by hand, over what the rest gives."""
    edited: str = ""
    """What the edits make of it, in words; empty where there are none."""
    whole: bool = False
    """Whether the edits give every layer's experts and weights, so that nothing is left to choose."""

    def __post_init__(self) -> None:
        if self.selection == FITTED:
            object.__setattr__(self, "combination", FITTED_WEIGHTS)
        elif self.combination == FITTED_WEIGHTS:
            object.__setattr__(self, "combination", next(iter(COMBINATIONS)))

    @property
    def text(self) -> str:
        """The setting in words."""
        many = f"{self.number} in all" if self.allocation == GLOBAL else f"{self.number} a layer"
        if self.edited:
            many = f"{self.edited} (from {many})"
        given = any(edit.weights for _, edit in self.edits.layers)
        selection, combination = self.chosen_by
        if combination == AS_GIVEN:
            return f"{many}, {selection.lower()}, {AS_GIVEN}"
        seed = f" {self.seed}" if self.is_control else ""
        weights = "weights from a file" if given else combination.lower()
        return f"{many}, {selection.lower()}{seed}, {weights}"

    @property
    def chosen_by(self) -> tuple[str, str]:
        """The selection and the combination that made the plan: of one from a file or a link what that says, whatever
        is picked beside it.
        """
        if self.edits.origin:
            labels = {kind: label for label, kind in SELECTIONS.items()}
            picked = SELECTIONS.get("Usage" if self.selection == RECORDED else self.selection)
            if not self.whole and picked != self.edits.origin:  # layers that it does not give are chosen so
                mixed = "random" in (picked, self.edits.origin)
                return (labels["random"] if mixed else GIVEN), AS_GIVEN
            return labels.get(self.edits.origin, self.edits.origin), AS_GIVEN
        if self.edits and self.whole:
            return GIVEN, AS_GIVEN
        return self.selection, self.combination

    @property
    def is_control(self) -> bool:
        """Whether experts are drawn at random, as a control."""
        return SELECTIONS.get(self.chosen_by[0]) == "random"


@dataclass(frozen=True)
class Attempt:
    """A setting that was evaluated to the end, without the arrays."""

    setting: Setting
    plan: PruningPlan
    score: float
    interval: tuple[float, float]
    n: int
    cost: Cost


def usage_for(selection: str, checkpoint: Checkpoint, data: TextData) -> UsageStats:
    """The usage that a selection needs, measured once with a progress bar.

    Raises:
        PlanError: the model has no routed layer, or no recorded usage where the selection is by that.
        DataError: the data are empty.
    """
    kind = SELECTIONS.get(selection)
    stats = measurements.usage_stats(checkpoint, data, norms=kind == "gate_norm")
    if kind == "recorded":
        if not checkpoint.info.usage:
            raise PlanError(
                "this checkpoint carries no usage from its training; choose by usage on the data instead."
            )
        return replace(stats, recorded=usage_in(checkpoint.info))
    if kind == "ablation":
        return replace(stats, ablation=knock_outs.ablation(checkpoint, data))
    return replace(stats, fitted=_fitted(checkpoint, data, stats)) if kind == "fitted" else stats


def usage_known(selection: str, checkpoint: Checkpoint, data: TextData) -> UsageStats | None:
    """What `usage_for` would give, where nothing must be measured for it first; the plain usage is always there."""
    key, kind = (checkpoint.fingerprint, data.source_fingerprint, data.name), SELECTIONS.get(selection)
    if kind == "gate_norm":
        in_memory = results("usage with norms", 8)
        if (found := in_memory.get(key)) is None:
            found = measurements.kept_usage(checkpoint, data, norms=True)
            if found is not None:
                in_memory.put(key, found)
        return found
    if kind == "recorded":
        return usage_for(selection, checkpoint, data) if checkpoint.info.usage else None
    if kind == "ablation":
        found = knock_outs.ablation_known(checkpoint, data)
        return None if found is None else replace(measurements.usage_stats(checkpoint, data), ablation=found)
    if kind != "fitted" and (found := results("usage with norms", 8).get(key)) is not None:
        return found
    stats = measurements.usage_stats(checkpoint, data)
    if kind != "fitted":
        return stats
    fitted = results("fitted gates", 8).get(key)
    if fitted is None:
        fitted = disk().fitted(checkpoint.fingerprint, data, len(stats.layers), stats.num_experts)
    return None if fitted is None else replace(stats, fitted=fitted)


def _fitted(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> FittedGates:
    """Gates fitted on the data, once, with a progress bar."""
    # The name is part of the result, as that of the usage is.
    store, key = results("fitted gates", 8), (checkpoint.fingerprint, data.source_fingerprint, data.name)
    if (found := store.get(key)) is None:
        layers, experts = len(stats.layers), stats.num_experts
        if (found := disk().fitted(checkpoint.fingerprint, data, layers, experts)) is None:
            texts = f"{min(TEXTS, len(data)):,} texts of {escape(data.name)}"
            label = f"Fitting the gates on {texts}, for every budget at once:"
            # A moved slider ends this run of the page, and the next one, which may come before this one has noticed,
            # goes on with the same fit: it holds for all of the slider's numbers. So do other sessions.
            running = results("running fits", 2)
            make = partial(
                GateFit,
                checkpoint.model,
                checkpoint.tokenizer,
                data,
                stats.shares(),
                max_length=checkpoint.info.max_length,
            )
            fit = running.get_or_make(key, make)
            bar, left = st.progress(0.0, text=label), Remaining()
            try:
                for done in fit:
                    share = done / fit.steps
                    bar.progress(share, f"{label} step {done:,} of {fit.steps:,}{left.said(share)}")
            finally:
                bar.empty()
            if (found := fit.result) is None:  # an error had ended it, and was shown
                running.drop(key)
                return _fitted(checkpoint, data, stats)
            disk().keep_fitted(checkpoint.fingerprint, data, found)
            store.put(key, found)  # before the fit is dropped, or a session between would begin another
            running.drop(key)
        store.put(key, found)
    return found


def plan_of(setting: Setting, stats: UsageStats) -> PruningPlan:
    """The plan of a setting.

    Raises:
        PlanError: the number is outside what the model allows.
    """
    amount = {"budget" if setting.allocation == GLOBAL else "per_layer": setting.number}
    return plan_from(
        stats,
        selection=SELECTIONS.get(setting.selection, setting.selection),
        combination=(COMBINATIONS | {FITTED_WEIGHTS: "fitted"}).get(setting.combination, setting.combination),
        seed=setting.seed,
        edits=setting.edits,
        **amount,
    )


def recall(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> Evaluation | None:
    """A plan's evaluation that was finished before, by anyone: in this process, or before it started."""
    store = results("prunings")
    key = (checkpoint.fingerprint, data.fingerprint, data.name, plan.key())
    if (found := store.get(key)) is None:
        found = disk().evaluation(checkpoint.fingerprint, data, plan.key())
        if found is not None:
            store.put(key, found)
    return found


def remember(checkpoint: Checkpoint, data: TextData, plan: PruningPlan, evaluation: Evaluation) -> None:
    """Keep a finished evaluation for every session, and on disk for other processes."""
    key = (checkpoint.fingerprint, data.fingerprint, data.name, plan.key())
    results("prunings").put(key, evaluation)
    disk().keep_evaluation(checkpoint.fingerprint, data, plan.key(), evaluation)


def stream(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> Iterator[Evaluation]:
    """Running estimates for a plan, the last one exact; one finished before, by anyone, comes at once.

    Closing the iterator abandons the work; nothing of it is kept.
    """
    if (found := recall(checkpoint, data, plan)) is not None:
        yield found
        return
    with closing(measurements.live_evaluator(checkpoint, data).stream(plan)) as estimates:
        for estimate in estimates:
            if estimate.complete:
                remember(checkpoint, data, plan, estimate)
            yield estimate


def tried(checkpoint: Checkpoint, data: TextData) -> dict[str, Attempt]:
    """What this session has tried on this checkpoint and data, by plan and setting; add to it with `keep`."""
    everything = st.session_state.setdefault("lab-tried", {})
    return everything.setdefault((checkpoint.fingerprint, data.source_fingerprint), {})


def keep(
    checkpoint: Checkpoint, data: TextData, setting: Setting, plan: PruningPlan, evaluation: Evaluation
) -> None:
    """Remember a finished evaluation for the curve of this session."""
    attempt = Attempt(
        setting,
        plan,
        evaluation.score,
        evaluation.interval,
        evaluation.n,
        plan_cost(checkpoint.model, plan, TOKENS),
    )
    kept, key = tried(checkpoint, data), f"{setting.text} {plan.key()}"
    kept.pop(key, None)  # the latest comes last
    kept[key] = attempt


def attempts_frame(attempts: list[Attempt], dense: Cost) -> pd.DataFrame:
    """One row a tried setting: what was kept, the score with its interval, and costs as shares of dense."""
    rows = []
    for attempt in attempts:
        low, high = attempt.interval
        selection, combination = attempt.setting.chosen_by
        rows.append(
            {
                "setting": attempt.setting.text,
                "plan": attempt.plan.key(),
                "selection": selection,
                "combination": combination,
                "allocation": attempt.setting.allocation,
                "seed": attempt.setting.seed,
                "control": attempt.setting.is_control,
                "edited": bool(attempt.setting.edited),
                "experts kept": attempt.plan.budget,
                "score": attempt.score,
                "low": low,
                "high": high,
                "n": attempt.n,
            }
            | attempt.cost.relative_to(dense)
        )
    return pd.DataFrame(rows)
