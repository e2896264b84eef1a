"""Conversion before any task: expert layers learn on unlabelled text what the pretrained encoder's layers do.

Stage 1 (one layer an epoch, with the balance loss) asks for text but for no labels, so it can be done once for an
encoder instead of once for each task, on far more text than a small task has; TinyBERT (Jiao et al. 2020) calls the
like "general distillation". Layers that are still dense stay as they are. What enters the lowest converted layer is
therefore what the pretrained encoder says there, and a step runs the converted layers alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import usage_of
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.batching import Encoded, bucketed_batches, collate, encode, epoch_rows, longest_input
from shrp.data.tasks import TEXTS
from shrp.errors import PlanError, TrainingError
from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import (
    convert_layer,
    expert_layers,
    layer_kinds,
    narrow_layers,
    router_layers,
    static_layers,
)
from shrp.model.dropout import without_dropout
from shrp.model.expander_init import fit_expander
from shrp.model.gates import record_routing
from shrp.model.layers import ExpertLayer
from shrp.model.narrow import NarrowLayer
from shrp.model.partial import run_from
from shrp.training.accelerator import one_accelerator
from shrp.training.config import Precision, check_seed, epoch_seed
from shrp.training.examples import FIT_EXAMPLES
from shrp.training.losses import hidden_loss
from shrp.training.precision import resolve_precision
from shrp.training.run_state import TEACHER_FILE, RunState, weights_digest
from shrp.training.teacher import kept_or_live
from shrp.training.trainable import finite, optimizer_and_schedule, parameter_groups

RECOVERY_RATES = {"learning_rate": 5e-4, "new_learning_rate": 2e-3}
"""For `recover_on_text`: a pruned layer is small, and its steps are many."""
FURTHER_SIZE = 60_000
"""Texts, likewise, where no other number is asked for."""
Texts = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class GeneralConfig:
    """Training on unlabelled text: a conversion from the top layer down, or of a pruned model with no layer to convert.

    Raises:
        TrainingError: a number is out of its range.
    """

    shrp: ShrpConfig
    """What is converted, or with no layers: nothing more."""
    conversion_size: int = 2500
    """Texts of the epoch after each conversion."""
    final_size: int = 20_000
    """Texts of the last epoch, in which the learning rate falls to 0."""
    batch_size: int = 32
    max_length: int = 64
    learning_rate: float = 2e-4
    new_learning_rate: float = 1e-3
    balance: float = 0.1
    """Lambda of the balance loss, throughout: experts are to specialise on a task, not on this text."""
    weight_decay: float = 0.01
    precision: Precision = "auto"
    """`auto` takes bf16 where a short timing shows that it helps."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision must be one of {', '.join(get_args(Precision))}.")
        check_seed(self.seed)
        for name in ("balance", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be a number from 0 on, not {getattr(self, name)}.")
        for name in ("conversion_size", "final_size", "batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be 1 or more, not {getattr(self, name)}.")
        for name in ("learning_rate", "new_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be a number above 0, not {getattr(self, name)}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self) | {"shrp": self.shrp.to_dict()}


def convert_on_text(
    config: GeneralConfig,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    teacher_outputs: Path,
    *,
    start: PreTrainedModel | None = None,
    measured: Texts = (),
    state: RunState | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Convert layers of `base` on texts, each to say what the dense layer in its place says.

    Args:
        base: the dense encoder, with a head of any kind; it is the teacher and is not changed, but moved to the device
            that trains, where the returned model is too.
        texts: single texts and pairs, mixed as one likes.
        teacher_outputs: folder for what the teacher says, which several conversions may share.
        start: a model of the same base, some of whose upper layers are converted already, to go on from.
        measured: texts, such as a task's, that say what the `narrow` control keeps; by default the first of an epoch.
        state: keeps every epoch of this conversion, and has those of a run that was killed to go on from. Who opened
            it says that it is the same conversion.
        progress: hears of every epoch.

    Returns:
        The converted model in evaluation mode, and the history, a row an epoch: the converted layer, mean losses,
        the Top-1 shares of each layer's experts over the epoch's last quarter, seconds.

    Raises:
        TrainingError: a layer of `start` is converted already, there is none to convert, or the loss diverges.
    """
    if not config.shrp.layers:
        raise TrainingError("name at least one layer to convert.")
    order, kinds = tuple(reversed(config.shrp.layers)), layer_kinds(start or base)
    if there := [layer for layer in order if layer < len(kinds) and kinds[layer] != "dense"]:
        raise TrainingError(f"layer {there[0]} is converted already; name layers that are still dense.")
    return _OnText(config, base, tokenizer, texts, teacher_outputs, state, measured).run(
        start or base, order, progress, state
    )


def recover_on_text(
    config: GeneralConfig,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    teacher_outputs: Path,
    model: PreTrainedModel,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Train a pruned model of `base`, or one whose layers were dropped, on texts: each pruned layer (also of the
    `narrow` control), and the last one, is to say what the dense layer in its place says.

    All layers learn, the dense ones among them. Where layers were dropped, only what the last one says is asked for; of
    a model that still has expert layers (the `uniform` control), these alone learn. Args as for `convert_on_text`; the
    epoch of `final_size` texts is the only one, and `model` is not changed.

    Returns:
        The trained model in evaluation mode, and the history, of one row.
    """
    if config.shrp.layers:
        raise TrainingError("a pruned model has no layers to convert; name none.")
    return _OnText(config, base, tokenizer, texts, teacher_outputs).run(model, (), progress)


def texts_digest(texts: Texts) -> str:
    """SHA-256 (hex) over texts and their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def usage_on_text(history: Sequence[dict[str, Any]]) -> dict[int, list[float]]:
    """Layer -> Top-1 shares `(H,)` of its experts in the last epoch of a conversion, from its history.

    Raises:
        PlanError: the history does not end with one.
    """
    usage = history[-1].get("usage") if history else None
    if not usage:
        raise PlanError("the conversion's history does not say how its experts were used on the texts.")
    return {int(layer): share for layer, share in usage.items()}


def graft(dense: PreTrainedModel, converted: PreTrainedModel, *, recovered: bool = False) -> PreTrainedModel:
    """A copy of `dense`, such as a task's teacher, with the layers of `converted` that are not dense.

    The layers that are left are the task's own, and so is the head. Where layers were pruned or dropped, those left
    have learned to make up for them, so all are taken from `converted`.

    Args:
        recovered: whether `recover_on_text` made `converted`, which tells whether the dense layers beside narrow ones
            have learned too.

    Raises:
        TrainingError: the two are not of one geometry.
    """
    check_same_geometry(converted.config, dense.config)
    model = copy.deepcopy(dense)
    ours, theirs = encoder_layers(model), encoder_layers(converted)
    alone = expert_layers(converted) or ({} if recovered else narrow_layers(converted))
    for index, layer in enumerate(theirs):
        if index in alone or not alone:
            ours[index] = copy.deepcopy(layer).to(model.device)
    return model


def check_same_geometry(converted: PreTrainedConfig, dense: PreTrainedConfig) -> None:
    """Raise `TrainingError` unless the two configs have as many layers and heads, of one width."""
    for what, name in (
        ("layers", "num_hidden_layers"),
        ("hidden dimensions", "hidden_size"),
        ("heads", "num_attention_heads"),
    ):
        theirs, ours = getattr(converted, name), getattr(dense, name)
        if theirs != ours:
            raise TrainingError(
                f"the converted model has {theirs} {what} and the dense one {ours}; "
                "layers can be taken over only between models of one base."
            )


class _OnText:
    """The fixed parts of a training on texts."""

    def __init__(
        self,
        config: GeneralConfig,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Texts,
        teacher_outputs: Path,
        state: RunState | None = None,
        measured: Texts = (),
    ) -> None:
        if not len(texts):
            raise TrainingError("there are no texts to train on: give at least one.")
        self.config, self.tokenizer = config, tokenizer
        self.device = one_accelerator().device
        self.base = base.eval().to(self.device)
        self.bf16 = resolve_precision(config.precision) == "bf16"
        longest = longest_input(base, tokenizer, config.max_length)
        self.encoded, self.measured = (encode(tokenizer, given, longest) for given in (texts, measured))
        self.lengths = np.array([len(row["input_ids"]) for row in self.encoded])
        identity = {
            "teacher": weights_digest(base),
            "data": texts_digest(texts),
            "max_length": str(config.max_length),
        }
        rows = np.arange(len(self.encoded))
        self.teacher = kept_or_live(
            teacher_outputs,
            base,
            tokenizer,
            self.encoded,
            rows,
            hidden=True,
            identity=identity,
            bf16=self.bf16,
            settled=state and state.folder / TEACHER_FILE,
        )

    def run(
        self,
        start: PreTrainedModel,
        order: Sequence[int],
        progress: Callable[[dict[str, Any]], None] | None,
        state: RunState | None = None,
    ) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
        """Convert the layers of `order`, an epoch after each, and end with an epoch of all; `start` is not changed."""
        model, history = (state and state.last()) or (copy.deepcopy(start), [])
        model = model.to(self.device)
        done = sum(row["texts"] for row in history)  # used up; epochs walk through all of them
        for index, layer in list(enumerate([*order, None]))[len(history) :]:
            started = time.perf_counter()
            set_seed(epoch_seed(self.config.seed, index))
            size = self.config.final_size if layer is None else self.config.conversion_size
            rows = epoch_rows(len(self.encoded), size, done, self.config.seed)
            done += size
            if layer is not None:
                self._convert(model, layer, rows)
            with without_dropout(model.train()):
                found = self._epoch(model, rows, index, last=layer is None)
            row = {"epoch": index, "stage": 1, "converted_layer": layer, "texts": size} | found
            row["precision"] = "bf16" if self.bf16 else "fp32"  # what `auto` came to
            history.append(row | {"seconds": round(time.perf_counter() - started, 2)})
            if state:
                changed = tuple(i for i, kind in enumerate(layer_kinds(model)) if kind != "dense")
                shrp = replace(self.config.shrp, layers=changed)
                state.keep(model, self.tokenizer, CheckpointInfo(shrp, TEXTS), history)
            if progress:
                progress(history[-1])
        return model.eval(), history

    def _convert(self, model: PreTrainedModel, layer: int, rows: np.ndarray) -> None:
        dense, given = encoder_layers(model)[layer], [self.encoded[row] for row in rows[:FIT_EXAMPLES]]
        measured = self._batches(self.measured or given)
        if isinstance(convert_layer(model, layer, self.config.shrp, measured), ExpertLayer):
            fit_expander(model, layer, dense, self._batches(given))

    def _batches(self, encoded: Sequence[Encoded]) -> Iterator[dict[str, Tensor]]:
        lengths = np.array([len(row["input_ids"]) for row in encoded])
        for batch in bucketed_batches(lengths, self.config.batch_size):
            yield self._inputs(batch, encoded)

    def _inputs(
        self, rows: Sequence[int] | np.ndarray, encoded: Sequence[Encoded] | None = None
    ) -> dict[str, Tensor]:
        batch = collate(self.tokenizer, encoded or self.encoded, rows)
        return {name: value.to(self.device) for name, value in batch.items()}

    def _epoch(self, model: PreTrainedModel, rows: np.ndarray, index: int, *, last: bool) -> dict[str, float]:
        config = self.config
        batches = bucketed_batches(self.lengths[rows], config.batch_size, (config.seed, index))
        learning = self._learning(model)
        routed = router_layers(model)
        replaced, pruned = self._replaced(model), static_layers(model) | narrow_layers(model)
        top = len(encoder_layers(model)) - 1
        steps = len(batches)
        rates = config.learning_rate, config.new_learning_rate, config.weight_decay
        optimizer, schedule = optimizer_and_schedule(
            parameter_groups(model, *rates), steps, max(1, steps // 16), end=0.0 if last else 1.0
        )
        sums = {"distill_hidden_loss": 0.0, "balance_loss": 0.0}
        counts = {layer: np.zeros(expert.num_experts) for layer, expert in routed.items()}
        for step, batch in enumerate(batches):
            chosen = rows[batch]
            inputs = self._inputs(chosen)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                said = self.teacher(chosen.tolist(), inputs).hidden_states
                with record_routing(hidden_states=True) as record:
                    if replaced:
                        lowest = min(replaced)
                        run_from(model, inputs, lowest, said[lowest].float() if lowest else None)
                        outputs = {layer: record.hidden_states[layer] for layer in replaced}
                    else:
                        outputs = {top: model.base_model(**inputs).last_hidden_state}
                        outputs |= {layer: record.hidden_states[layer] for layer in pruned}
            error = hidden_loss(outputs, said, inputs["attention_mask"])
            balance = record.balance_loss() if routed else error.new_zeros(())
            loss = error + config.balance * balance
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            finite(loss, index, step)
            sums["distill_hidden_loss"] += float(error.detach())
            sums["balance_loss"] += float(balance.detach())
            if routed and step >= steps * 3 // 4:
                for layer, share in usage_of(record).items():
                    counts[layer] += share * len(record.probs(layer))  # inputs, or tokens
        usage = {str(layer): (count / count.sum()).round(6).tolist() for layer, count in counts.items()}
        return {name: round(value / steps, 6) for name, value in sums.items()} | {"usage": usage}

    def _learning(self, model: PreTrainedModel) -> list[torch.nn.Parameter]:
        """Freeze all but what learns, which is returned: the replaced layers, or where there are none all layers."""
        model.requires_grad_(False)
        layers = list(self._replaced(model).values()) or list(encoder_layers(model))
        return [p.requires_grad_(True) for layer in layers for p in layer.parameters()]

    def _replaced(self, model: PreTrainedModel) -> dict[int, ExpertLayer | NarrowLayer]:
        """What learns while all other layers stay as they are: what dense ones became, unless pruned ones recover."""
        return {**expert_layers(model), **(narrow_layers(model) if self.config.shrp.layers else {})}
