"""Quick conversion: upper layers of a fine-tuned classifier, by distillation on unlabelled text, in minutes.

From the top, each converted layer starts from a least-squares fit and learns the dense model's hidden states, with the
balance loss for its router, and the dense model's soft targets through its own head. All else stays as it is, so the dense
model runs once on each text and the lower layers never again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from shrp.checkpoints import checkpoint, reference
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import evaluated_length
from shrp.checkpoints.saving import round_as_stored
from shrp.checkpoints.score_rows import score_row
from shrp.data.batching import longest_input
from shrp.data.sources import load_probe
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.model.convert import convert_layer
from shrp.model.modules import without_dropout
from shrp.training.config import TextConfig
from shrp.training.device import resolve_precision, training_device
from shrp.training.examples import Examples
from shrp.training.loop import evaluate_with_usage
from shrp.training.losses import Batch, TextLoss, parameter_groups
from shrp.training.processes import from_main
from shrp.training.progress import Progress, Status
from shrp.training.runs import finish, run_folder
from shrp.training.teacher import LiveTeacher
from shrp.training.text import Texts, train_on_text, usage_on_text

FEW = 500
"""With fewer texts of one's own, the shipped probe sentences are added."""
_PROBES = {1: ("sst2", "cola"), 2: ("mrpc",)}
_TIMED, _MEASURED = 2, 2000
"""Steps that an estimate measures, and of how many texts it takes the mean length."""


def enough(texts: Texts, held_out: Texts = ()) -> tuple[list[tuple[str, ...]], list[str]]:
    """The texts, with the shipped probe sentences (or pairs) if they are fewer than `FEW`.

    `held_out`: what the model will be scored on, which is not added.

    Returns:
        The texts, the added ones last; and the names of the probe sets that those are from.
    """
    found, sources, known = list(texts), [], {*texts, *held_out}
    for task in _PROBES[len(found[0])] if 0 < len(found) < FEW else ():
        probe = load_probe(task)
        if new := [row for row in probe.texts if row not in known]:
            found += new
            sources.append(probe.name)
    return found, sources


def convert_quickly(
    dense: Checkpoint,
    texts: Texts,
    config: TextConfig,
    out: Path,
    *,
    validation: TextData | None = None,
    sources: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Convert layers of a dense classifier and write a routed checkpoint of its task; a killed run continues.

    Args:
        validation: examples that the dense and the routed model are scored on, where they have labels. Usage is counted on
            them where they have labels, else on the texts of the last epoch.

    Returns:
        `seconds` of training, the dense model's pass among them (of a run that was killed, those of the epochs that it
        finished), `examples` trained on, `dense_score`, `routed_score` and `n`; the last three are None where there are no
        labels.

    Raises:
        TrainingError: the checkpoint is not dense, or as `train_on_text`.
    """
    if dense.info.config.layers:
        raise TrainingError(f"{dense.path} is converted already; start from a dense model.")
    folder, started = run_folder(out), time.perf_counter()
    model, history = train_on_text(
        config,
        dense.model,
        dense.tokenizer,
        texts,
        folder / "converted",
        progress=progress,
    )
    # Of a run that was killed, what its epochs took before counts too; the dense model's pass is part of the first.
    seconds = max(time.perf_counter() - started, sum(row["seconds"] for row in history))
    about = {"texts": len(texts), "sources": [*sources], "seconds": round(seconds, 1)}
    about |= {name: value for name, value in dense.info.training.items() if name == "vocabulary"}
    if progress is not None and validation is not None:
        progress.step(Status("scoring on the validation data", 0, 0))
    found = from_main(lambda: _scored_and_saved(dense, model, config, history, about, validation, out))
    finish(out)
    return {"seconds": about["seconds"], "examples": config.visited(len(texts)), **found}


def _scored_and_saved(
    dense: Checkpoint,
    model: PreTrainedModel,
    config: TextConfig,
    history: list[dict[str, Any]],
    about: dict[str, Any],
    validation: TextData | None,
    out: Path,
) -> dict[str, Any]:
    """Score both models where that can be done, and write the checkpoint; returns the scores and `n`."""
    model = model.cpu()
    round_as_stored(model, torch.float16)
    cut = evaluated_length(config.max_length)
    info = replace(
        dense.info,
        config=config.shrp,
        usage={str(layer): share for layer, share in usage_on_text(history).items()},
        training={"quick": True, "config": config.to_dict(), "precision": history[-1]["precision"], **about},
    )
    found: dict[str, Any] = {"dense_score": None, "routed_score": None, "n": None}
    teacher = {}
    if validation is not None and validation.labels is not None:
        one = replace(dense, info=info).evaluate(validation)
        other, usage = evaluate_with_usage(model, dense.tokenizer, validation, cut)
        rows = (
            score_row("dense teacher", "teacher", [one], None, validation, cut),
            score_row("routed", "routed", [other], one.score, validation, cut),
        )
        info = replace(info, usage=usage, scores=rows)
        outputs = reference.from_evaluation(one, dense.fingerprint, cut)
        teacher = (
            {validation.source_fingerprint: outputs} if outputs.logits.nbytes <= reference.SET_BYTES else {}
        )
        found = {"dense_score": one.score, "routed_score": other.score, "n": one.n}
    checkpoint.save(
        model,
        dense.tokenizer,
        info,
        out,
        dtype=torch.float16,
        history=history,
        teacher=teacher,
        new=True,
    )
    return found


def estimate(dense: Checkpoint, texts: Texts, config: TextConfig) -> float:
    """Seconds that `convert_quickly` trains on this machine, without scoring, from a few measured steps.

    A step is measured with all layers converted; on average an epoch's step has about half of them.
    """
    device, bf16 = training_device(), resolve_precision(config.precision) == "bf16"
    base, model, layers = copy.deepcopy(dense.model).to(device), copy.deepcopy(dense.model), config.shrp.layers
    for layer in layers:
        convert_layer(model, layer, config.shrp)
    longest = longest_input(model, dense.tokenizer, config.max_length)
    examples = Examples(config, texts[:_MEASURED], None, "", dense.tokenizer, longest)
    objective, teacher = TextLoss(config, base), LiveTeacher(base, True)
    objective.begin(model.to(device).train(), list(config.schedule())[-1])
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.learning_rate, config.new_learning_rate, config.weight_decay), fused=True
    )
    near = np.abs(examples.lengths - examples.lengths.mean())
    rows = np.argsort(near, kind="stable")[: config.batch_size]
    inputs, _ = examples.batch(rows, device)
    times: dict[str, list[float]] = {"teacher": [], "step": []}
    for _ in range(_TIMED + 1):  # the first one warms up
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            target = teacher(rows, inputs)
        target.logits.cpu()  # waits for a GPU
        times["teacher"].append(time.perf_counter() - started)
        started = time.perf_counter()
        with without_dropout(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = objective(model, Batch(inputs, None, target))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        times["step"].append(time.perf_counter() - started)
    of_text = {name: float(np.mean(seconds[1:])) / len(rows) for name, seconds in times.items()}
    steps = (len(layers) + 1) / 2 * config.conversion_size + config.final_size
    return config.visited(len(texts)) * of_text["teacher"] + steps * of_text["step"]
