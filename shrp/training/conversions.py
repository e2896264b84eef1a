"""What `shrp convert` made, read back to go on from, and whose usage may say which of its experts to keep."""

from __future__ import annotations

import os
from pathlib import Path

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import base_config
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.data.tasks import TEXTS
from shrp.errors import PlanError, TrainingError
from shrp.model.config import ShrpConfig
from shrp.training.general import check_same_geometry


def load_conversion(folder: str | os.PathLike, base: str, base_name: str) -> Checkpoint:
    """A conversion on texts that was made before.

    Args:
        base, base_name: the encoder that it is to be of, and what checkpoints call that.

    Raises:
        CheckpointError: as `shrp.load`.
        TrainingError: it was not made by `convert`, or of another base.
    """
    found = checkpoint.load(folder)
    made = found.info
    if made.task.name != TEXTS.name:
        raise TrainingError(
            f"{found.path} is of the task {made.task.name}; give what `convert` made of the base on texts."
        )
    if made.config.control != "none":
        raise TrainingError(
            f"{found.path} is a study's control ({made.config.control}); give what `convert` made of the base on texts."
        )
    check_same_geometry(found.model.config, base_config(base))
    if made.base_model != base_name:
        raise TrainingError(
            f"{found.path} was made of {made.base_model}, and the base here is called {base_name}; "
            f"if they are one, or it was fine-tuned from that, say so with --base-name {made.base_model}."
        )
    return found


def task_usage(
    folder: str | os.PathLike, config: ShrpConfig, num_experts: int, base_name: str
) -> tuple[str, dict[int, list[float]]]:
    """A task's name, and layer -> Top-1 shares `(H,)` of its routed checkpoint.

    Args:
        folder: the checkpoint's.
        config: of the encoder that is to be pruned by them, which must be the checkpoint's too.
        num_experts: likewise.
        base_name: likewise.

    Raises:
        CheckpointError: as `shrp.load`.
        PlanError: it is not a task's, not routed, has no usage, or was converted otherwise or from another base.
    """
    path = Path(folder)
    info = checkpoint.read_config(path)[1]
    if info.task.name == TEXTS.name:
        raise PlanError(
            f"{path} has seen no task; give what `train --converted` made of it, or leave --usage-of out."
        )
    if info.plan is not None:
        raise PlanError(f"{path} is pruned already; give the routed checkpoint that it was made of.")
    if info.base_model != base_name:
        raise PlanError(
            f"{path} was made of {info.base_model}, and the encoder to prune of {base_name}: "
            "one's experts are not the other's."
        )
    for what, theirs, ours in (
        ("converted layers", list(info.config.layers), list(config.layers)),
        ("routing", info.config.routing, config.routing),
        ("Top-k", info.config.top_k, config.top_k),
    ):
        if theirs != ours:
            raise PlanError(
                f"{path} has {what} {theirs}, and the encoder to prune {ours}; give one of the same."
            )
    usage = usage_in(info)
    if sorted(usage) != sorted(config.layers) or {len(share) for share in usage.values()} != {num_experts}:
        raise PlanError(f"{path} does not have the usage of {num_experts} experts in each converted layer.")
    return info.task.name, usage
