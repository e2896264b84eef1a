"""What a finished `train` leaves beside its result: recovered models to serve and, where asked for, all else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shrp.checkpoints import checkpoint
from shrp.checkpoints.card_pruning import pruned_training
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import history_text, joined
from shrp.checkpoints.reference import Reference
from shrp.errors import TrainingError
from shrp.training.run_state import run_folder


def stages_folder(out: str | Path) -> Path:
    """Where a run that writes to `out` leaves the models of its stages, if it keeps them."""
    out = Path(out)
    return out.with_name(out.name + "-stages")


def leave_stages(
    out: Path,
    served: Mapping[str, tuple[str, int]],
    rows: Sequence[Mapping[str, Any]],
    dtype: torch.dtype | None,
    references: Mapping[str, Reference],
    also: Sequence[Path | Checkpoint] = (),
) -> None:
    """Leave what was recovered beside the result, each as it would be served; all of it or nothing, and the run as it
    is, which thus can go on where this was killed.

    Args:
        served: stages that are static models -> what rows of scores call them, and their experts a layer.
        rows: of all models of the run.
        dtype: in which weights are stored; None for float32.
        references: the teacher's outputs, which go along.
        also: what else is left: folders of stages, as they were trained, and the dense teacher where no stage is one.

    Raises:
        TrainingError: there are other things where they are to be left.
    """
    final = stages_folder(out)
    partial = final.with_name(f".{final.name}")  # hidden, so that nobody takes a part of it for the whole
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, (label, per_layer) in served.items():
        own = tuple(row for row in rows if row["model"] == label or _stands_beside(row, per_layer))
        _as_served(run_folder(out) / name, partial / name, out, per_layer, own, dtype, references)
    for other in also:
        if isinstance(other, Path):
            shutil.copytree(other, partial / other.name)
        else:
            checkpoint.save(other.model, other.tokenizer, other.info, partial / "teacher")
    if final.exists():  # of this run, killed just after it
        if foreign := {path.name for path in final.iterdir()} - {path.name for path in partial.iterdir()}:
            raise TrainingError(
                f"{final} holds what this run has not made ({', '.join(sorted(foreign))}): move it away, and go on "
                "with --resume."
            )
        shutil.rmtree(final)
    partial.replace(final)


def _stands_beside(row: Mapping[str, Any], per_layer: int) -> bool:
    """Whether a row is of the teacher, or of a control of a recovered model: random experts of its size, trained on
    likewise, heads and neurons pruned to it, or layers without experts or a router, which train for as long (`epochs`).
    """
    if row["kind"] != "control":
        return row["kind"] == "teacher"
    if "per_layer" in row:
        return bool(row.get("recovered") and row["per_layer"] == per_layer)
    return "epochs" in row


def _as_served(
    stage_folder: Path,
    target: Path,
    out: Path,
    per_layer: int,
    rows: tuple[Mapping[str, Any], ...],
    dtype: torch.dtype | None,
    references: Mapping[str, Reference],
) -> None:
    """Write a recovered stage as `prune --recover` would have: stored as the result is, with its scores."""
    stage, (_, routed) = checkpoint.load(stage_folder), checkpoint.read_config(out)
    training = pruned_training(
        routed.training, checkpoint.fingerprint(out), stage.info.plan, per_layer=per_layer
    )
    training |= {"recovery": dict(stage.info.training)}
    info = replace(stage.info, usage={}, scores=rows, training=training)
    history = history_text(joined(checkpoint.read_history(out), checkpoint.read_history(stage_folder)))
    extra = {checkpoint.HISTORY: history}
    checkpoint.save(
        stage.model, stage.tokenizer, info, target, dtype=dtype, extra_files=extra, teacher=references
    )
