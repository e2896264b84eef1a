"""What a person takes home from the pruning lab: the pruned model as a checkpoint, and its plan."""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.card_pruning import pruned_training
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import history_text
from shrp.checkpoints.info import shares_of
from shrp.checkpoints.score_rows import pruned_row
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError
from shrp.evaluation.calibration import with_output_shift
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from ui import measurements
from ui.lab.reference import teacher_on


def plan_json(plan: PruningPlan) -> str:
    """A plan as the file that `python -m shrp prune --plan` reads."""
    return json.dumps(plan.to_dict(), indent=2) + "\n"


def _teacher_score(checkpoint: Checkpoint, data: TextData) -> float | None:
    """The dense teacher's, from its outputs on these data, be they some of a set's inputs alone; else as stored."""
    if (teacher := teacher_on(checkpoint, data)) is not None:
        return teacher.score
    rows = measurements.score_rows(checkpoint, data)
    return next((row.get("score") for row in rows if row.get("kind") == "teacher"), None)


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    plan: PruningPlan,
    evaluation: Evaluation,
    data: TextData,
    ranked_on: TextData | None,
    shift: np.ndarray | None = None,
    seed: int | None = None,
) -> Path:
    """The pruned model as a checkpoint, weights in float16, with the score measured here.

    Args:
        folder: where it goes; nothing may be there yet.
        data: what `evaluation` is of.
        ranked_on: what the plan's experts were chosen on; None where that was the checkpoint's own usage.
        shift: of the output bias, found on `data` (`ui.lab.threshold`); `evaluation` is then of the shifted model.
        seed: of the draw, where the experts were drawn here.
    """
    kept = [dict(row) for row in checkpoint.info.scores if row.get("kind") == "teacher"]
    if math.isfinite(evaluation.score):
        cut = checkpoint.info.max_length
        row = pruned_row(
            plan, evaluation, _teacher_score(checkpoint, data), data, cut, matched=shift is not None
        )
        kept.append(row)
    of = checkpoint.info.training, checkpoint.fingerprint
    training = pruned_training(*of, plan, counted_on=ranked_on, seed=seed) | shares_of(data, shift)
    try:
        same = checkpoints.fingerprint(checkpoint.path) == checkpoint.fingerprint  # not trained anew since
        history = checkpoints.read_history(checkpoint.path) if same else []
    except (CheckpointError, OSError):  # which Overview tells of
        history = []
    info = replace(checkpoint.info, plan=plan, scores=tuple(kept), training=training, usage={})
    # Only new modules are made, the rest is shared: nothing of the shared model is written to.
    model = prune(checkpoint.model, plan, share_weights=True)
    if shift is not None:
        model = with_output_shift(model, checkpoint.info.task, shift)
    return checkpoints.save(
        model,
        checkpoint.tokenizer,
        info,
        folder,
        dtype=torch.float16,
        extra_files={checkpoints.HISTORY: history_text(history)} if history else {},
        teacher=checkpoint.teacher,
    )


def checkpoint_zip(checkpoint: Checkpoint, plan: PruningPlan, name: str, *scored: Any, **how: Any) -> bytes:
    """The folder of `write_checkpoint`, named `name`, as a zip archive; further arguments are that one's."""
    with tempfile.TemporaryDirectory() as scratch:
        return zipped(write_checkpoint(Path(scratch) / name, checkpoint, plan, *scored, **how), name)


def zipped(folder: Path, name: str) -> bytes:
    """The files of a folder as a zip archive, in one folder of this name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # weights hardly compress
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{name}/{file.name}")
    return buffer.getvalue()
