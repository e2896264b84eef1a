"""What a person takes home from the pruning lab: the pruned model as a checkpoint, and its latency here."""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from shrp import checkpoint as checkpoints
from shrp.checkpoint import Checkpoint
from shrp.evaluation import Evaluation
from shrp.explore import longest_input
from shrp.measure import latency, model_inputs
from shrp.plan import PruningPlan
from shrp.prune import prune

BATCHES = (1, 8)
REPEATS = 10


def plan_json(plan: PruningPlan) -> str:
    """A plan as the file that `python -m shrp prune --plan` reads."""
    return json.dumps(plan.to_dict(), indent=2) + "\n"


def checkpoint_zip(
    checkpoint: Checkpoint, plan: PruningPlan, name: str, evaluation: Evaluation | None, fingerprint: str = ""
) -> bytes:
    """The pruned model as a zipped checkpoint folder, weights in float16, with the score measured here.

    Args:
        fingerprint: of the data that `evaluation` is of.
    """
    kept = [dict(row) for row in checkpoint.info.scores if row.get("kind") == "teacher"]
    if evaluation is not None and math.isfinite(evaluation.score):
        kept.append(
            {
                "model": f"static, {plan.budget} in all",
                "kind": "static",
                "data": evaluation.data,
                "data_fingerprint": fingerprint,
                "metric": evaluation.metric,
                "score": evaluation.score,
                "n": evaluation.n,
                "interval": list(evaluation.interval),
                "interval_is": "95%",
                "budget": plan.budget,
            }
        )
    training = dict(checkpoint.info.training) | {"pruned_from": checkpoint.fingerprint}
    info = replace(checkpoint.info, plan=plan, scores=tuple(kept), training=training, usage={})
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch:
        # Only new modules are made, the rest is shared: nothing of the shared model is written to.
        model = prune(checkpoint.model, plan, share_weights=True)
        folder = checkpoints.save(
            model, checkpoint.tokenizer, info, Path(scratch) / name, dtype=torch.float16
        )
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # weights hardly compress
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{name}/{file.name}")
    return buffer.getvalue()


def measure_latency(checkpoint: Checkpoint, plan: PruningPlan, tokens: int = 128) -> pd.DataFrame:
    """Dense, routed and pruned on this machine, all in float32, in one interleaved run a batch size.

    Returns:
        One row a model and batch size: `batch`, `tokens`, and `shrp.measure.latency`'s columns.
    """
    tokens = min(tokens, longest_input(checkpoint.model, checkpoint.tokenizer))
    models = {
        "dense": type(checkpoint.model)(
            checkpoint.model.config
        ).eval(),  # speed does not depend on the weights
        "routed": checkpoint.model,
        "pruned": prune(checkpoint.model, plan, share_weights=True),
    }
    frames = []
    for batch in BATCHES:
        inputs = model_inputs(checkpoint.model, batch, tokens)
        times = latency(
            {name: partial(model, **inputs) for name, model in models.items()},
            repeats=REPEATS,
            warmup=2,
        )
        frames.append(times.assign(batch=batch, tokens=tokens))
    return pd.concat(frames, ignore_index=True)
