"""What a finished `train` leaves beside its result: recovered models to serve and, where asked for, all else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shrp import checkpoint
from shrp.card_pruning import pruned_training
from shrp.history import history_text, joined
from shrp.reference import Reference
from shrp.run_state import run_folder


def stages_folder(out: str | Path) -> Path:
    """Where a run that writes to `out` leaves the models of its stages, if it keeps them."""
    out = Path(out)
    return out.with_name(out.name + "-stages")


def leave_stages(
    out: Path,
    result: str,
    recovered: Mapping[str, tuple[str, int]],
    rows: Sequence[Mapping[str, Any]],
    dtype: torch.dtype | None,
    references: Mapping[str, Reference],
    everything: bool,
) -> None:
    """Leave what was recovered beside the result, each as it would be served.

    Args:
        result: the stage that is the result itself.
        recovered: stages that are static models -> what rows of scores call them, and their experts a layer.
        rows: of all models of the run.
        dtype: in which weights are stored; None for float32.
        references: the teacher's outputs, which go along.
        everything: whether the teacher and the controls stay too, as they were trained.
    """
    kept = stages_folder(out)
    run_folder(out).replace(kept)  # in one step, after which the run is done
    for path in kept.iterdir():
        if path.is_file():
            path.unlink()
        elif path.name in recovered:
            label, per_layer = recovered[path.name]
            own = tuple(row for row in rows if row["kind"] == "teacher" or row["model"] == label)
            _as_served(path, out, per_layer, own, dtype, references)
        elif not everything or path.name == result or not (path / checkpoint.CONFIG).is_file():
            shutil.rmtree(path)
    if not any(kept.iterdir()):
        kept.rmdir()


def _as_served(
    path: Path,
    out: Path,
    per_layer: int,
    rows: tuple[Mapping[str, Any], ...],
    dtype: torch.dtype | None,
    references: Mapping[str, Reference],
) -> None:
    """Write a recovered stage anew, as `prune --recover` would have: stored as the result is, with its scores."""
    stage, (_, routed) = checkpoint.load(path), checkpoint.read_config(out)
    training = pruned_training(
        routed.training, checkpoint.fingerprint(out), stage.info.plan, per_layer=per_layer
    )
    training |= {"recovery": dict(stage.info.training)}
    info = replace(stage.info, usage={}, scores=rows, training=training)
    history = history_text(joined(checkpoint.read_history(out), checkpoint.read_history(path)))
    extra = {checkpoint.HISTORY: history}
    checkpoint.save(
        stage.model, stage.tokenizer, info, path, dtype=dtype, extra_files=extra, teacher=references
    )
