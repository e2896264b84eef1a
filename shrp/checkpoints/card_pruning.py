"""How a checkpoint was pruned, in sentences: what is kept, how that was chosen, and how the rest was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shrp.checkpoints.card_training import distilled, learned, recovery_of, settings
from shrp.checkpoints.info import PLAN_FILE, CheckpointInfo, chosen_on
from shrp.data.text_data import TextData
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan

_PICKED = {
    "usage": "by usage",
    "gate_norm": "by gate x output norm",
    "ablation": "by what knocking each out changes",
    "fitted": "by gates fitted on texts",
    "random": "at random",
}
_WEIGHED = {
    "usage": "weighted by usage",
    "mean": "weighted alike",
    "fitted": "weighted by the fitted gates",
    "given weights": "with weights given by hand or file",
}
_PRUNING = {
    **dict.fromkeys(("selection", "combination", "plan_file", "counted_on"), str),
    **dict.fromkeys(("budget", "per_layer", "seed", "counted_n"), int),
}
"""What `prune` stores in `training["pruning"]`, all of it optional, and of which types."""


def pruning_facts(
    plan: PruningPlan,
    *,
    budget: int | None = None,
    per_layer: int | None = None,
    seed: int | None = None,
    counted_on: TextData | None = None,
    file: Path | None = None,
) -> dict[str, Any]:
    """What `training["pruning"]` says of how a plan was made; `picked` and `kept` read it.

    Args:
        budget, per_layer: as asked for; what is not given was not.
        seed: of what is drawn, of random experts and fitted gates; other selections have none.
        counted_on: the data whose usage the plan is made of; None for the checkpoint's own.
        file: that the plan came from, and with it all that is said here of it.
    """
    asked: dict[str, Any] = {"selection": plan.selection, "combination": plan.combination}
    if file is not None:
        # Half of a surrogate pair in it would make the checkpoint unreadable.
        return asked | {"plan_file": file.name.encode(errors="replace").decode()}
    asked |= {name: n for name, n in (("budget", budget), ("per_layer", per_layer)) if n is not None}
    if seed is not None and plan.selection.startswith(("random", "fitted")):
        asked["seed"] = seed
    if counted_on is not None:
        asked |= {"counted_on": counted_on.name, "counted_n": len(counted_on)}
    return asked


def pruned_training(
    training: Mapping[str, Any],
    fingerprint: str,
    plan: PruningPlan,
    *,
    counted_on: TextData | None = None,
    file: Path | None = None,
    **asked: int | None,
) -> dict[str, Any]:
    """What a pruned checkpoint's `training` says: that of the routed one, which it is pruned from, and how.

    Args:
        training, fingerprint: the routed checkpoint's.
        counted_on, file, asked: as for `pruning_facts`. A plan with weights by hand or file is a file's, whose data are
            not known here.
    """
    facts = pruning_facts(plan, counted_on=counted_on, file=file, **asked)
    made = dict(training) | {"pruned_from": fingerprint, "pruning": facts}
    if file is not None or plan.combination == "given weights":
        return made | {"chosen_by": PLAN_FILE}
    drawn = plan.selection.startswith("random")  # also with edits
    return made if counted_on is None or drawn else made | chosen_on(counted_on, plan.selection)


def pruned(info: CheckpointInfo) -> str:
    """What is kept of the experts, how that was chosen, and how the rest was trained on, in sentences; empty where
    nothing was pruned.
    """
    if info.plan is None:
        return ""
    start = "Pruned to" if "pruned_from" in info.training else "It keeps"
    said = [f"{start} {kept(info.training, info.plan)}, {picked(info.training, info.plan)}."]
    if recovery := recovery_of(info.training):
        said += [f"After pruning trained on {learned(recovery)}.{distilled(recovery)}"]
        said += [settings(recovery.get("config", {}))]
    return " ".join(filter(None, said))


def trimmed(training: Mapping[str, Any]) -> str:
    """What is kept of the vocabulary, in a sentence; empty where all of it is."""
    if not (found := training.get("vocabulary")):
        return ""
    often = f" {found['min_count']:,} times or more" if found["min_count"] > 1 else ""
    common = f", the first {found['common']:,} words and pieces of the whole" if found["common"] else ""
    return (
        f"Its vocabulary has {found['kept']:,} of {found['size']:,} tokens: those that {found['counted_on']} "
        f"(n = {found['counted_n']:,}) has{often}{common}, special ones and single characters."
    )


def kept(training: Mapping[str, Any], plan: PruningPlan | None = None) -> str:
    """How many experts are kept, in words.

    Args:
        plan: what is kept; without one only what `training` says of it, which may be nothing.
    """
    asked = _pruning(training)
    if plan is None:
        if "per_layer" in asked:
            return f"{counted(asked['per_layer'], 'expert')} in each converted layer"
        return f"{counted(asked['budget'], 'expert')} in all" if "budget" in asked else ""
    counts = plan.keep_counts()
    if len(set(counts.values())) == 1:
        each = counted(next(iter(counts.values())), "expert")
        return f"{each} in each of {counted(len(counts), 'layer')} ({plan.budget} in all)"
    by_layer = ", ".join(f"{layer}: {count}" for layer, count in counts.items())
    return f"{counted(plan.budget, 'expert')} in all (by layer {by_layer})"


def picked(training: Mapping[str, Any], plan: PruningPlan | None = None) -> str:
    """How the experts that are kept were picked and are weighted, and by which data; empty where nothing says so.

    Args:
        plan: what is kept; without one only what `training` says of it.
    """
    asked = _pruning(training)
    selection = asked.get("selection") if plan is None else plan.selection
    combination = asked.get("combination") if plan is None else plan.combination
    if not selection:
        return ""
    rule, edited, _ = selection.partition(" with edits")
    how = f"picked {_PICKED.get(rule, 'as given')}"
    if rule == "random" and "seed" in asked:
        how += f" (seed {asked['seed']})"
    how += ", then edited by hand" * bool(edited)
    how += f", {_WEIGHED.get(combination, f'combined by {combination}')}"
    if training.get("chosen_by") == PLAN_FILE:
        name = f" ({asked['plan_file']})" if "plan_file" in asked else ""
        return f"{how}, as {PLAN_FILE}{name} says"
    return f"{how}{_counted_on(training, asked, rule)}"


def kept_table(plan: PruningPlan) -> list[str]:
    """The plan: each layer's experts with the weights that took the router's place."""
    lines = ["| layer | experts kept | experts (weight) |", "|---|---|---|"]
    for layer, of in plan.layers:
        each = ", ".join(f"{e} ({w:.2f})" for e, w in zip(of.experts, of.weights, strict=True))
        lines.append(f"| {layer} | {len(of.experts)} | {each} |")
    return lines


def _counted_on(training: Mapping[str, Any], asked: Mapping[str, Any], rule: str) -> str:
    """By which data experts were picked and weighted, as the end of a sentence."""
    if chosen := training.get("chosen_on"):
        return f", measured on {chosen['data']} (n = {chosen['n']:,})"
    if "counted_on" in asked:  # of experts drawn at random, whose usage weights them
        return f", usage counted on {asked['counted_on']}" + (
            f" (n = {asked['counted_n']:,})" if "counted_n" in asked else ""
        )
    if rule not in ("usage", "random") or "pruned_from" not in training:
        return ""
    of = training.get("validation_data")
    return ", usage as the routed checkpoint has it" + (f" from {of}" if of else "")


def _pruning(training: Mapping[str, Any]) -> dict[str, Any]:
    """What `prune` was asked for, of what can be read; a checkpoint may come from anywhere, and older ones lack it."""
    found = training.get("pruning")
    if not isinstance(found, Mapping):
        return {}
    return {
        name: found[name]
        for name, kind in _PRUNING.items()
        if isinstance(found.get(name), kind) and not isinstance(found[name], bool)
    }
