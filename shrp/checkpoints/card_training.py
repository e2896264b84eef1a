"""How a checkpoint was trained, in sentences: on texts, if so, then on the task, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shrp.checkpoints import stored
from shrp.checkpoints.info import CheckpointInfo
from shrp.errors import CheckpointError, ShrpError
from shrp.phrases import counted
from shrp.training.config import RECIPES, TrainConfig


def trained(training: Mapping[str, Any]) -> str:
    """On what and how a checkpoint was trained."""
    before = converted(training)
    if training.get("adopted"):
        return "Taken as it was; how it was trained is not known here."
    if training.get("train_examples") is None:
        return before or "Nothing was stored about its training."
    then = f"{before} Then: " if before else ""
    return (
        f"{then}{_recipe(training)}Trained on {learned(training)}; one seed: intervals are over inputs, and another "
        f"training may differ by more.{distilled(training)}"
    )


def settings(config: Mapping[str, Any]) -> str:
    """The settings of a training that its scores depend on, in a sentence; empty where they can't be read."""
    used = _config(config)
    if used is None:
        return ""
    parts = [
        f"Learning rates {used.learning_rate:g} and, for Routers and Expanders, {used.new_learning_rate:g}",
        f"batches of {used.batch_size}, at most {used.max_length} tokens",
        f"{'with' if used.dropout else 'without'} dropout",
        f"dense layers {'stayed as the teacher has them' if used.freeze_dense else 'learned too'}",
    ]
    if used.freeze_embeddings:
        parts.append("embeddings frozen")
    if used.shrp.layers:
        fitted = used.expander_init == "least_squares"
        parts.append(
            f"Expanders started {'from a least-squares fit' if fitted else 'at random, near the identity'}"
        )
    return "; ".join(parts) + "."


def converted(training: Mapping[str, Any]) -> str:
    """How `shrp convert` made the layers, in a sentence; empty where it did not, or what it stored can't be read."""
    made = training.get("converted", training)
    try:
        config, texts = made["config"], made["texts"]
        earlier, pruned = f"{converted(made['earlier'])} Then: " if made.get("earlier") else "", ""
        if further := made.get("recovery"):
            how = "there by usage on them"
            if made.get("selection") == "random":
                how = "to experts drawn at random"
            elif task := made.get("usage_of"):
                how = f"to the experts that a routed model of {task} uses most"
            others = _of(made.get("recovery_sources"), made.get("sources"))
            pruned = f"; pruned {how}, and trained on with {further['final_size']:,}{others}"
        of = _of(made.get("sources"), (made.get("earlier") or {}).get("sources"))
        return (
            f"{earlier}Converted on {texts:,} unlabelled texts{of}, {config['conversion_size']:,} for each of "
            f"{counted(len(config['shrp']['layers']), 'layer')} and {config['final_size']:,} for all{pruned} "
            f"(seed {config['seed']})."
        )
    except (KeyError, TypeError, ValueError, AttributeError):  # a checkpoint may come from anywhere
        return ""


def texts_in(history: Sequence[Mapping[str, Any]]) -> str:
    """What a history says of epochs on unlabelled texts, in a sentence; empty where there were none."""
    rows = [row for row in history if row.get("texts")]
    if not rows:
        return ""
    layers = [row for row in rows if row.get("converted_layer") is not None]
    seen = sum(row["texts"] for row in rows)
    return f"Converted on unlabelled texts, {counted(len(layers), 'layer')} with {seen:,} texts in all."


def recovered_on_texts(info: CheckpointInfo) -> bool:
    """Whether a static checkpoint was pruned and trained on with unlabelled texts, before its task."""
    made = info.training.get("converted", info.training)
    return info.plan is not None and bool(converted(info.training)) and "recovery" in made


def chosen_on_texts(info: CheckpointInfo) -> bool:
    """Whether its experts were also chosen there, and not by the usage of a task's routed model."""
    made = info.training.get("converted", info.training)
    return recovered_on_texts(info) and not {"usage_of", "selection"} & set(made)


def usage_of(info: CheckpointInfo) -> str | None:
    """The task whose routed model's usage chose the experts before they learned on from texts, if one did."""
    return info.training.get("converted", info.training).get("usage_of")


def recovery_of(training: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of a training on the task after pruning; empty where there was none, or it can't be read."""
    try:
        found = stored.check_training(training.get("recovery") or {})
    except CheckpointError:  # a checkpoint may come from anywhere
        return {}
    return found if "train_data" in found and "train_examples" in found else {}  # else it was on texts


def learned(training: Mapping[str, Any]) -> str:
    """The data of a training and how it went over them."""
    examples, config = training["train_examples"], training.get("config", {})
    size = f"{config['epoch_size']:,} an epoch at most, " if config.get("epoch_size") else ""
    precision = f", {training['precision']}" if training.get("precision") else ""
    epochs = f"{counted(training['epochs'], 'epoch')}, " if "epochs" in training else ""
    return (
        f"{training.get('train_data')} ({examples:,} examples, {size}{epochs}seed {config.get('seed')}{precision}), "
        f"validated on {training.get('validation_data')}"
    )


def distilled(training: Mapping[str, Any]) -> str:
    """What of the teacher was distilled, as a sentence after another; empty for nothing."""
    config = training.get("config", {})
    distilled = [
        text
        for key, text in (("distill_logits", "logits"), ("distill_hidden", "hidden states"))
        if config.get(key)
    ]
    return f" Distilled from the dense teacher's {' and '.join(distilled)}." if distilled else ""


def _recipe(training: Mapping[str, Any]) -> str:
    """The recipe's name, and where the training had other settings than the recipe of that name has now."""
    name, used = training.get("recipe"), _config(training.get("config", {}))
    if not name:
        return ""
    changed = [
        key.replace("_", " ")
        for key, value in RECIPES.get(str(name), {}).items()
        if used is not None and getattr(used, key) != value
    ]
    return f"Recipe `{name}`" + (f", but for {', '.join(changed)}" if changed else "") + ". "


def _config(config: Mapping[str, Any]) -> TrainConfig | None:
    """The stored config; None where it is not whole or not valid, as a checkpoint may come from anywhere."""
    try:
        return TrainConfig.from_dict(dict(config))
    except (ShrpError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _of(sources: Sequence[str] | None, said: Sequence[str] | None) -> str:
    """Where texts come from, in brackets; nothing where that is not known or was said before."""
    return f" (of {', '.join(sources)})" if sources and sources != said else ""
