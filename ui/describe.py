"""A checkpoint in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shrp.checkpoints.info import CheckpointInfo
from shrp.pruning.plan import PruningPlan
from ui.text import escape


def shape(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Layers, heads, hidden size and inner size of an encoder, from its config."""
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    of_distilbert = ("n_layers", "n_heads", "dim", "hidden_dim")
    return tuple(int(config.get(one, config.get(other, 0))) for one, other in zip(names, of_distilbert))


def kind_of(info: CheckpointInfo) -> str:
    """A checkpoint's kind among scored models (`ui.theme.KIND_COLORS`)."""
    if info.plan is not None:
        return "control" if info.plan.selection.startswith("random") else "static"
    return "routed" if info.config.layers else "teacher"


def summary_line(info: CheckpointInfo, num_layers: int, num_experts: int) -> str:
    """What a checkpoint is, as one line of Markdown."""
    config, parts = info.config, []
    converted = f"{len(config.layers)} of {num_layers} layers"
    each = "example" if config.routing == "sequence" else "token"
    if not config.layers:
        parts.append("**Dense**: no layer is converted")
    elif info.plan is not None:
        kept = sorted(set(info.plan.keep_counts().values()))
        number = f"{kept[0]}" if len(kept) == 1 else f"{kept[0]} to {kept[-1]}"
        parts.append(
            f"**Pruned**, no routers; {converted} keep {number} of {num_experts} experts, "
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
