"""Training on unlabelled text: converting an encoder once for all tasks, and fine-tuning it after pruning.

Each converted layer is trained to reproduce the hidden states of the dense layer it replaces. That needs text but no
labels, so there is far more of it than a small task has; TinyBERT (Jiao et al. 2020) calls it "general distillation".
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import base_config
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.batching import longest_input
from shrp.data.tasks import TEXTS
from shrp.errors import PlanError, TrainingError
from shrp.families.families import encoder_layers
from shrp.model.convert import convert_layer, expert_layers, layer_kinds
from shrp.training.config import TextConfig
from shrp.training.examples import Examples
from shrp.training.loop import Training
from shrp.training.losses import TextLoss
from shrp.training.progress import Progress
from shrp.training.runs import Convert, identity_of, run_folder

Texts = Sequence[tuple[str, ...]]


def train_on_text(
    config: TextConfig,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    out: Path,
    teacher_outputs: Path | None = None,
    *,
    model: PreTrainedModel | None = None,
    convert: Convert | None = None,
    converts_by: str = "",
    progress: Progress | None = None,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Convert layers of an encoder on unlabelled text, or (no layers to convert) fine-tune it after pruning (`TextLoss`).

    State is kept in `run_folder(out)`, from which a training that was killed continues.

    Args:
        base: the dense encoder, with a head of any kind; it is the teacher and is not changed, but moved to the device
            that trains, where the returned model is too.
        teacher_outputs: folder for the teacher's outputs on all texts, which several trainings may share; by default one
            in `run_folder(out)`, for the texts that this training visits.
        model: where to start: a model of the same base, pruned, or with some upper layers converted; not changed. By
            default `base`.
        convert, converts_by: as for `shrp.training.loop.train`.

    Returns:
        The model in evaluation mode, and the history, a row an epoch: the converted layer, mean losses, the Top-1
        shares of each layer's experts over the epoch's last quarter, the number format, seconds (in the first epoch with
        the teacher's pass).

    Raises:
        TrainingError: there is no text, a layer of `model` is converted already, the loss diverges, or
            `run_folder(out)` holds another training.
    """
    if not len(texts):
        raise TrainingError("there are no texts to train on: give at least one.")
    kinds = layer_kinds(model or base)
    if there := [i for i in config.shrp.layers if i < len(kinds) and kinds[i] != "dense"]:
        raise TrainingError(f"layer {there[-1]} is converted already; name layers that are still dense.")
    model, progress = copy.deepcopy(model or base), progress or Progress()
    digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()  # of the texts in their order
    longest = longest_input(base, tokenizer, config.max_length)
    training = Training(
        config=config,
        examples=Examples(config, texts, None, digest, tokenizer, longest),
        objective=TextLoss(config, base),
        teacher=base.eval(),
        outputs=teacher_outputs,
        convert=convert or (lambda model, layer: convert_layer(model, layer, config.shrp)),
        facts=lambda model, epoch: {"texts": epoch.size, "precision": training.precision},
        progress=progress,
        precision=config.precision,
    )
    identity = identity_of(config, model, None, digest, teacher=base, converts_by=converts_by)
    history = training(model, run_folder(out), identity)
    return model.eval(), history


def usage_on_text(history: Sequence[dict[str, Any]]) -> dict[int, list[float]]:
    """Layer -> Top-1 shares `(H,)` of its experts in the last epoch of a conversion, from its history.

    Raises:
        PlanError: the history does not end with one.
    """
    usage = history[-1].get("usage") if history else None
    if not usage:
        raise PlanError("the conversion's history does not record how its experts were used on the texts.")
    return {int(layer): share for layer, share in usage.items()}


def graft(
    dense: PreTrainedModel, converted: PreTrainedModel, layers: Collection[int] | None = None
) -> PreTrainedModel:
    """A copy of `dense`, such as a task's teacher, with the layers of `converted` that are not dense.

    The other layers are the task's own, and so is the head. Where `converted` was pruned, all of its layers were
    fine-tuned together, so all are taken. `layers`: the layers to take, where they are others than these.

    Raises:
        TrainingError: the two have not the same geometry.
    """
    check_same_geometry(converted.config, dense.config)
    model = copy.deepcopy(dense)
    ours, theirs = encoder_layers(model), encoder_layers(converted)
    for index in layers or expert_layers(converted) or range(len(theirs)):
        ours[index] = copy.deepcopy(theirs[index]).to(model.device)
    return model


def check_same_geometry(converted: PreTrainedConfig, dense: PreTrainedConfig) -> None:
    """Raise `TrainingError` unless the two configs have as many layers and heads, of one width."""
    sizes = {"layers": "num_hidden_layers", "hidden dimensions": "hidden_size", "heads": "num_attention_heads"}
    for what, name in sizes.items():
        theirs, ours = getattr(converted, name), getattr(dense, name)
        if theirs != ours:
            raise TrainingError(
                f"the converted model has {theirs} {what} and the dense one {ours}; "
                "layers can be taken over only between models of one base."
            )


def load_conversion(folder: str | os.PathLike, base: str, base_name: str) -> Checkpoint:
    """A conversion on text that was made before.

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
    check_same_geometry(found.model.config, base_config(base))
    if made.base_model != base_name:
        raise TrainingError(
            f"{found.path} was made of {made.base_model}, and the base here is called {base_name}; "
            f"if they are the same, or it was fine-tuned from that, set `base_name: {made.base_model}` in --config."
        )
    return found
