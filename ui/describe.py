"""A checkpoint in words: what it is, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shrp.checkpoints.info import CheckpointInfo
from shrp.pruning.plan import PruningPlan
from ui.text import duration, escape


def kept_experts(plan: PruningPlan) -> pd.DataFrame:
    """What a plan keeps: a row a layer, its experts with the weights that took the router's place."""
    rows = [
        (
            layer,
            len(p.experts),
            ", ".join(f"{e} ({w:.2f})" for e, w in zip(p.experts, p.weights, strict=True)),
        )
        for layer, p in plan.layers
    ]
    return pd.DataFrame(rows, columns=["layer", "experts kept", "experts (weight)"])


def summary_line(info: CheckpointInfo, num_layers: int, num_experts: int) -> str:
    """What a checkpoint is, as one line of Markdown."""
    config, parts = info.config, []
    converted = f"{len(config.layers)} of {num_layers} layers"
    each = "input" if config.routing == "sequence" else "token"
    if not config.layers:
        parts.append("**Dense**: no layer is converted")
    elif info.plan is not None:
        kept = sorted(set(info.plan.keep_counts().values()))
        number = f"{kept[0]}" if len(kept) == 1 else f"{kept[0]} to {kept[-1]}"
        parts.append(
            f"**Static**: pruned, no routers; {converted} keep {number} of {num_experts} experts, "
            f"{info.plan.budget} in all ({plan_words(info.plan)})"
        )
    else:
        parts.append(
            f"**Routed**: in {converted}, every {each} goes to {config.top_k} of {num_experts} experts"
        )
    parts.append(f"task **{escape(info.task.name)}**")
    if info.base_model:
        parts.append(f"from {escape(info.base_model)}")
    if vocabulary := info.training.get("vocabulary"):
        parts.append(f"vocabulary of {vocabulary['kept']:,} instead of {vocabulary['size']:,} tokens")
    return " · ".join(parts)


def plan_words(plan: PruningPlan) -> str:
    """How a plan's experts were picked and are combined, as Markdown."""
    given = plan.selection.startswith("given")
    edited = " with edits" * plan.selection.endswith(" with edits")
    picked = f"given by a plan from a file{edited}" if given else f"picked by {escape(plan.selection)}"
    return f"{picked}, combined by {escape(plan.combination)}"


def training_facts(
    training: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]] = (),
    plan: PruningPlan | None = None,
) -> list[tuple[str, str]]:
    """What a checkpoint stores of its training, as pairs of name and value; only what is there.

    Args:
        history: its epochs, which alone may tell that its layers were converted on texts.
        plan: what its pruning kept; without it only what `training` says of that, which is nothing in those that the
            lab or an earlier version wrote.
    """
    from shrp.checkpoints import card  # here, as it imports torch

    config = training.get("config") if isinstance(training.get("config"), Mapping) else {}
    shrp = config.get("shrp") if isinstance(config.get("shrp"), Mapping) else {}
    facts = []
    if name := training.get("train_data"):
        facts.append(("trained on", f"{name}, n = {training.get('train_examples', 0):,}"))
    if name := training.get("validation_data"):
        facts.append(("validated on", str(name)))
    if (epochs := training.get("epochs")) is not None:
        stage2 = config.get("stage2_epochs")
        converting = epochs - stage2 if isinstance(stage2, int) else 0
        split = f" ({converting} converting, {stage2} after)" if converting else ""
        facts.append(("epochs", f"{epochs}{split}"))
    if size := config.get("epoch_size"):
        facts.append(("examples an epoch", f"at most {size:,}"))
    order = config.get("order") or list(reversed(shrp.get("layers") or []))
    if order:
        facts.append(("conversion order", ", ".join(str(layer) for layer in order)))
    names = {
        "batch_size": "batch size",
        "learning_rate": "learning rate, pretrained",
        "new_learning_rate": "learning rate, new parts",
        "balance": "balance loss, weight",
        "distill_logits": "distilled logits, share",
        "distill_hidden": "distilled hidden, weight",
        "temperature": "temperature",
        "seed": "seed",
    }
    on_texts = "" if card.converted(training) else card.texts_in(history)
    if how := card.converted(training) or on_texts:
        facts.insert(0, ("layers", how.rstrip(".")))
    before_task = bool(on_texts) or "converted" in training
    if before_task:
        names.pop("balance")  # it was over when the task began
    if before_task:
        facts = [(f"{what} on the task" if what == "epochs" else what, value) for what, value in facts]
    facts += [(label, _said(config[key])) for key, label in names.items() if _number(config.get(key))]
    if _number(seconds := training.get("seconds")):
        facts.append(("time on the task" if before_task else "time", duration(seconds)))
    return [*facts, *_pruning_facts(training, plan)]


def _pruning_facts(training: Mapping[str, Any], plan: PruningPlan | None) -> list[tuple[str, str]]:
    """What was kept of the experts, how they were picked, and what was trained on after."""
    from shrp.checkpoints import card

    facts = []
    if left := card.kept(training, plan):
        facts.append(("pruned to", left))
    if how := card.picked(training, plan):
        facts.append(("experts", how))
    if chosen := training.get("chosen_on"):
        facts.append(("experts chosen on", f"{chosen['data']}, n = {chosen['n']:,}"))
    if matched := training.get("shares_matched"):
        facts.append(("output bias matched on", f"{matched['data']}, n = {matched['n']:,}"))
    if vocabulary := training.get("vocabulary"):
        facts.append(
            (
                "vocabulary",
                f"{vocabulary['kept']:,} of {vocabulary['size']:,} tokens, needed by {vocabulary['counted_on']}",
            )
        )
    recovery = card.recovery_of(training)
    if not recovery:
        return facts
    config = recovery.get("config", {})
    facts.append(
        ("after pruning, trained on", f"{recovery['train_data']}, n = {recovery['train_examples']:,}")
    )
    if name := recovery.get("validation_data"):
        facts.append(("after pruning, validated on", name))
    if (epochs := recovery.get("epochs")) is not None:
        most = f", of at most {config['epoch_size']:,} examples" if config.get("epoch_size") else ""
        facts.append(("after pruning, epochs", f"{epochs}{most}"))
    names = {
        "learning_rate": "learning rate, pretrained",
        "new_learning_rate": "learning rate, new parts",
        "distill_logits": "distilled logits, share",
        "distill_hidden": "distilled hidden, weight",
        "seed": "seed",
    }
    facts += [
        (f"after pruning, {label}", _said(config[key]))
        for key, label in names.items()
        if _number(config.get(key))
    ]
    if _number(seconds := recovery.get("seconds")):
        facts.append(("after pruning, time", duration(seconds)))
    return facts


def _said(value: float) -> str:
    """A setting in full where it is a whole number, as a seed is."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
