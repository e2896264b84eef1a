"""Prunings of a routed checkpoint: their settings and controls, plans and evaluations. Shared by the lab and Compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.data.text_data import TextData
from shrp.errors import PlanError
from shrp.evaluation.costs import TOKENS, Cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import NO_EDITS, FittedGates, PlanEdits, PruningPlan
from shrp.pruning.select import TEXTS, GateFit, plan_from
from ui import measurements, not_here, plan_url
from ui.bound import fall_back, slider
from ui.store import Progress, disk, kept, once, results
from ui.text import escape

ALLOCATIONS = {"budget": "In all layers together", "per_layer": "In each layer"}
SELECTIONS = {
    "usage": "Usage",
    "recorded": "Recorded usage",
    "gate_norm": "Gate × norm",
    "ablation": "Ablation",
    "fitted": "Fitted gates",
    "random": "Random (control)",
}
PRUNED = "Pruned"
"""On Compare: a version of a side's checkpoint."""
ALLOCATION, SELECTION = "keep", "select"
"""Keys of the controls, in the session's state and in the URL; a slider's is its key of `ALLOCATIONS`."""


@dataclass(frozen=True)
class Setting:
    """What a person has set; `plan_of` makes a plan of it."""

    allocation: str = "budget"
    """`budget` or `per_layer`: what `number` counts."""
    number: int = 0
    selection: str = "usage"
    """One of `SELECTIONS`."""
    edits: PlanEdits = NO_EDITS
    """Changes by hand."""

    @property
    def text(self) -> str:
        """The setting in words."""
        how = "in all" if self.allocation == "budget" else "per layer"
        parts = [f"{self.number} {how}", SELECTIONS[self.selection].lower()]
        if self.edits:
            parts.append("edited")
        return ", ".join(parts)


def plan_of(setting: Setting, stats: UsageStats) -> PruningPlan:
    """The plan of a setting; a `PlanError` if the number is outside what the model allows, or the edits do not fit it."""
    return plan_from(
        stats,
        selection=setting.selection,
        combination="fitted" if setting.selection == "fitted" else "usage",
        edits=setting.edits,
        **{setting.allocation: setting.number},
    )


# Controls


def controls(layers: int, experts: int, side: str = "") -> Setting:
    """Draw the slider and, in a popover, the choices of what it keeps; returns the setting.

    `layers`: how many are converted. `experts`: in each. `side`: prefix of the widgets' keys, for a page with several models.
    """
    place = st.container()
    # In a session's first run the widget in the popover has no value yet, only the address has.
    asked = {words: name for name, words in SELECTIONS.items()}.get(st.query_params.get(side + SELECTION, ""))
    chosen = st.session_state.get(side + SELECTION, asked or "usage")
    with st.popover(f"Chosen by: {SELECTIONS[chosen].lower()}", icon=":material/tune:"):
        allocation = _choice(place, "The slider counts experts", ALLOCATIONS, side + ALLOCATION, "the setting")
        selection = _choice(place, "Experts are chosen by", SELECTIONS, side + SELECTION, "the selection")
        st.caption(_ABOUT[selection])
    with place:
        if allocation == "budget":
            low, high, what = layers, layers * experts, f"Experts kept, of {layers * experts}"
        else:
            low, high, what = 1, experts, f"Experts kept in each layer, of {experts}"
        # The start is given in every run: the address leaves it out.
        number = slider(what, low, high, min(2 * low, high), side + allocation)
    return Setting(allocation, number, selection)


def link_of(setting: Setting, name: str) -> dict[str, str]:
    """What a link from the lab asks of Compare whose side B is to be the checkpoint `name` pruned like this."""
    # The lab's own address has what is not a default. More would be taken out, each by a step of the browser's history.
    keys, edits = (ALLOCATION, setting.allocation, SELECTION), plan_url.encode(setting.edits)
    asked = {f"b_{key}": st.query_params[key] for key in keys if key in st.query_params}
    return {"b": f"{name}: {PRUNED.lower()}"} | asked | ({f"b_{plan_url.URL}": edits} if edits else {})


_ABOUT = {
    "usage": "The experts that the router picks most often on the picked data, as in the paper.",
    "recorded": "The same, counted on validation data during training and stored in the checkpoint.",
    "gate_norm": "Largest mean of gate times norm of the expert's output.",
    "ablation": "Experts whose removal changes the output most, each removed in turn on up to 512 examples.",
    "fitted": "Constant gates, trained on the texts alone so that the pruned model reproduces the routed one.",
    "random": "A control: a good selection must beat it. Usage still spreads a budget over the layers.",
}


def _choice(place: DeltaGenerator, label: str, options: dict[str, str], key: str, what: str) -> str:
    """Draw a picker; where the address asks for something else, say it in a place that is always visible."""
    with place:
        not_here.tell_unknown(key, what, options.values())
    fall_back(key, options, next(iter(options)))
    return st.selectbox(label, list(options), key=key, format_func=options.get, bind="query-params")


# What a selection needs


def usage_for(selection: str, checkpoint: Checkpoint, data: TextData) -> UsageStats:
    """The usage that a selection needs, measured once with a progress bar.

    Raises:
        PlanError: the model has no routed layer, or no recorded usage where the selection is by that.
        DataError: the data are empty.
    """
    stats = measurements.usage_stats(checkpoint, data, norms=selection == "gate_norm")
    if selection == "recorded":
        if not checkpoint.info.usage:
            raise PlanError("this checkpoint stores no usage from its training; choose by usage instead.")
        return replace(stats, recorded=usage_in(checkpoint.info))
    if selection == "ablation":
        return replace(stats, ablation=_ablation(checkpoint, data))
    return replace(stats, fitted=_fitted(checkpoint, data, stats)) if selection == "fitted" else stats


def _key(checkpoint: Checkpoint, data: TextData) -> tuple[str, str, str]:
    return checkpoint.fingerprint, data.source_fingerprint, data.name


def _ablation(checkpoint: Checkpoint, data: TextData) -> dict:
    """Layer -> effect of each expert's removal `(H,)`, measured once with a progress bar."""
    from shrp.analysis.importance import in_turn

    parts, length = (checkpoint.model, checkpoint.tokenizer, data), checkpoint.info.max_length
    work = lambda progress: in_turn(*parts, max_length=length, progress=progress).sizes()  # noqa: E731
    label = f"Removing every expert in turn on {escape(data.name)}"
    return once("ablation", 8, _key(checkpoint, data), label, work)


def _fitted(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> FittedGates:
    """Gates fitted on the data, once, with a progress bar. A fit that was interrupted is continued."""
    key = _key(checkpoint, data)
    model, tokenizer, length = checkpoint.model, checkpoint.tokenizer, checkpoint.info.max_length

    def work(progress: Progress) -> FittedGates:
        found = disk().fitted(checkpoint.fingerprint, data, len(stats.layers), stats.num_experts)
        if found is not None:
            return found
        # The slider interrupts this run, and the next run continues the same fit, as do other sessions.
        make = lambda: GateFit(model, tokenizer, data, stats.shares(), max_length=length)  # noqa: E731
        fit = kept("running fits", 2, key, make)
        for done in fit:
            progress(done, fit.steps)
        results("running fits", 2).drop(key)
        if fit.result is None:  # an error had ended it, and was shown
            return work(progress)
        disk().keep_fitted(checkpoint.fingerprint, data, fit.result)
        return fit.result

    texts = min(TEXTS, len(data))
    label = f"Fitting gates on {texts:,} texts of {escape(data.name)}, for all sizes at once: steps"
    return once("fitted gates", 8, key, label, work)


# Evaluations


def model_key(checkpoint: Checkpoint, plan: PruningPlan | None = None) -> str:
    """A key of a checkpoint as it is, or of its pruning by `plan`."""
    return checkpoint.fingerprint if plan is None else f"{checkpoint.fingerprint} {plan.key()}"


def cost_of(checkpoint: Checkpoint, plan: PruningPlan) -> Cost:
    """`plan_cost`, kept: it depends on how many experts each layer keeps."""
    key = (checkpoint.fingerprint, tuple(plan.keep_counts().items()))
    return kept("plan costs", 4096, key, lambda: plan_cost(checkpoint.model, plan, TOKENS))


def _plan_key(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> tuple[str, ...]:
    return checkpoint.fingerprint, data.fingerprint, data.name, plan.key()


def in_memory(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> Evaluation | None:
    """A plan's exact evaluation, where this process has it."""
    return results("prunings").get(_plan_key(checkpoint, data, plan))


def recall(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> Evaluation | None:
    """A plan's exact evaluation, from memory or disk."""
    if (found := in_memory(checkpoint, data, plan)) is None:
        found = disk().evaluation(checkpoint.fingerprint, data, plan.key())
        if found is not None:
            results("prunings").put(_plan_key(checkpoint, data, plan), found)
    return found


def _remember(checkpoint: Checkpoint, data: TextData, plan: PruningPlan, evaluation: Evaluation) -> None:
    """Keep an exact evaluation for every session, and on disk for other processes."""
    results("prunings").put(_plan_key(checkpoint, data, plan), evaluation)
    disk().keep_evaluation(checkpoint.fingerprint, data, plan.key(), evaluation)


def stream(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> Iterator[Evaluation]:
    """Yield running estimates for a plan, the last one exact. Closing the iterator abandons the work."""
    if (found := recall(checkpoint, data, plan)) is not None:
        yield found
        return
    with closing(measurements.live_evaluator(checkpoint, data).stream(plan)) as estimates:
        for estimate in estimates:
            if estimate.complete:
                _remember(checkpoint, data, plan, estimate)
            yield estimate


def evaluated(checkpoint: Checkpoint, data: TextData, plan: PruningPlan) -> Evaluation:
    """A plan's exact evaluation, with a progress bar where it must be made."""
    bar = st.empty()
    for evaluation in stream(checkpoint, data, plan):
        if not evaluation.complete:
            text = f"Evaluating the pruning: {evaluation.n:,} of {evaluation.total:,} examples"
            bar.progress(evaluation.n / evaluation.total, text)
    bar.empty()
    return evaluation


def evaluate_all(
    checkpoint: Checkpoint, data: TextData, plans: Sequence[PruningPlan], pause: Callable[[float], None]
) -> None:
    """Evaluate plans that nobody has evaluated, in the order that shares most work, and keep each as it is done.

    Args:
        pause: called often with the share of the work that is done; it may raise, which abandons the work.
    """
    missing = {plan.key(): plan for plan in plans if recall(checkpoint, data, plan) is None}
    if not missing:
        return
    evaluator = measurements.live_evaluator(checkpoint, data)
    work = evaluator.work_of(list(missing.values()))
    total, done = sum(work.values()) or 1.0, 0.0
    with closing(evaluator.sweep(list(missing.values()), lambda: pause(done / total))) as found:
        for plan, evaluation in found:
            _remember(checkpoint, data, plan, evaluation)
            done += work[plan.key()]
            pause(min(done / total, 1.0))
