"""The training losses: on a task (its own, the teacher's, the balance of the routers), and on unlabelled text.

`TaskLoss` and `TextLoss` are what the one loop (`shrp.training.loop`) differs in: which parameters learn, and the loss
of a batch. Where several processes share a batch, every loss is that of the whole batch (`shrp.training.processes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.analysis.usage import top1_counts
from shrp.checkpoints.info import HEADS
from shrp.data.tasks import SPANS, UNLABELLED, Task
from shrp.families.families import encoder_layers, family_of, final_norm
from shrp.model.convert import expert_layers, layer_kinds, new_parameters
from shrp.model.gates import RoutingRecord, record_routing
from shrp.model.modules import logits_of
from shrp.model.partial import run_from
from shrp.training.config import Epoch, TextConfig, TrainConfig
from shrp.training.device import training_device
from shrp.training.processes import mean, total


@dataclass(frozen=True, eq=False)
class TeacherOutput:
    """The dense teacher's outputs for a batch."""

    logits: Tensor
    """`(B, C)`, or of tokens `(B, T, C)`."""
    hidden_states: tuple[Tensor, ...]
    """Embeddings' output, then each layer's, `(B, T, d)`; empty where they are not distilled."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What a training step sees."""

    inputs: dict[str, Tensor]
    """Model inputs, `(B, T)` each."""
    labels: Tensor | None
    """`(B,)`, or of tokens `(B, T)`, `UNLABELLED` where there is none; of spans the first and the last token, `(B, 2)`; None
    for unlabelled text."""
    teacher: TeacherOutput | None
    """The teacher's outputs; None where nothing is distilled."""
    counted: bool = False
    """Whether usage counts it: the epoch's last quarter."""


def task_loss(logits: Tensor, labels: Tensor, regression: bool) -> Tensor:
    """Cross-entropy, or squared error for regression, of `(B, C)` logits."""
    if regression:
        return mean(F.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="none"))
    return mean(F.cross_entropy(logits.float(), labels, reduction="none"))


def logits_loss(student: Tensor, teacher: Tensor, regression: bool, temperature: float) -> Tensor:
    """KL from the teacher's softened distribution, times T squared; squared error for regression."""
    if regression:
        return mean(F.mse_loss(student.float(), teacher.float(), reduction="none").mean(-1))
    soft = F.log_softmax(student.float() / temperature, -1)
    target = F.log_softmax(teacher.float() / temperature, -1)
    return mean(F.kl_div(soft, target, reduction="none", log_target=True).sum(-1)) * temperature**2


def _over_tokens(logits: Tensor, token_mask: Tensor) -> Tensor:
    """Logits of tokens `(B, T, 2)` as rows of one distribution over tokens each, `(2 B, T)`; padding has no share."""
    return logits.float().masked_fill(token_mask.unsqueeze(-1) == 0, -1e4).transpose(1, 2).flatten(0, 1)


def hidden_loss(
    outputs: Mapping[int, Tensor], teacher: tuple[Tensor, ...], token_mask: Tensor, *, relative: bool = False
) -> Tensor:
    """Sum over converted layers of the mean squared error to the teacher's same layer, real tokens only.

    A sum, so that the pull on a layer does not weaken as more layers are converted.

    Args:
        outputs: layer -> `(B, T, d)`.
        teacher: the teacher's hidden states; index `l + 1` is layer `l`'s output.
        token_mask: `(B, T)`, non-zero for real tokens.
        relative: divide each layer's error by the variance of the teacher's states over the batch's tokens, so that
            the loss is 1 for the mean state, however large an encoder's states are.
    """
    real = token_mask.unsqueeze(-1).float()
    tokens = total(real.sum())
    errors = []
    for layer, output in outputs.items():
        wanted = teacher[layer + 1].float()
        error = total(((output.float() - wanted).square() * real).sum())
        scale = tokens * output.shape[-1]
        if relative:
            centred = wanted - total((wanted * real).sum((0, 1))) / tokens
            scale = total((centred.square() * real).sum()).clamp_min(1e-6)
        errors.append(error / scale)
    return torch.stack(errors).sum()


def as_returned(model: PreTrainedModel, outputs: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Layers' outputs as `output_hidden_states` has them: the top layer's after the encoder's final norm, if it has one."""
    norm, top = final_norm(model), len(encoder_layers(model)) - 1
    return {i: norm(output) if norm is not None and i == top else output for i, output in outputs.items()}


class Objective(Protocol):
    """What one kind of training asks of a model."""

    reported: tuple[str, ...]
    """The parts of the loss that the history records."""

    def begin(self, model: PreTrainedModel, epoch: Epoch) -> None:
        """Set which parameters learn, before an epoch."""

    def __call__(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch (`loss`), and its parts, scalars."""

    def end(self) -> dict[str, Any]:
        """What else the history records of the epoch."""


class TaskLoss:
    """The objective of a training on a task.

    Hidden states are distilled to every converted or pruned layer. A model with fewer layers than the teacher gets the
    teacher's last hidden states as targets of its last layer instead.
    """

    reported = ("loss", "task_loss", "distill_logits_loss", "distill_hidden_loss", "balance_loss")

    def __init__(self, config: TrainConfig, task: Task, teacher: PreTrainedModel | None) -> None:
        self.config, self.task, self.teacher = config, task, teacher
        self.stage = self.start = 0

    def begin(self, model: PreTrainedModel, epoch: Epoch) -> None:
        """See `Objective`; also find the layer to start at, below which the model is the teacher."""
        set_trainable(model, self.config)
        self.stage, self.start, fewer = epoch.stage, 0, False
        if self.teacher is not None:
            self.start = same_start(model, self.teacher) if self.config.freeze_dense else 0
            fewer = len(encoder_layers(model)) < len(encoder_layers(self.teacher))
        self.last_alone = fewer and self.config.distill_hidden > 0

    def __call__(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """See `Objective`."""
        inputs, known, last = batch.inputs, batch.teacher, {}
        with record_routing(hidden_states=self.config.distill_hidden > 0) as record:
            if self.start and known.hidden_states:
                logits, _ = run_from(model, inputs, self.start, known.hidden_states[self.start].float())
            else:
                output = model(**inputs, output_hidden_states=self.last_alone)
                logits = logits_of(output)
                if self.last_alone:
                    last = {len(known.hidden_states) - 2: output.hidden_states[-1]}
        # A layer that was skipped returns its input: nothing to compare.
        recorded = {i: output for i, output in record.hidden_states.items() if i >= self.start}
        outputs = last or as_returned(model, recorded)
        return self.parts(batch, logits, record, outputs)

    def parts(
        self, batch: Batch, logits: Tensor, record: RoutingRecord, outputs: Mapping[int, Tensor]
    ) -> dict[str, Tensor]:
        """The weighted sum, `loss`, and its parts, each a scalar, 0 where it plays no part.

        `outputs`: layer of the teacher -> hidden states that are compared with it.
        """
        config, regression, teacher = self.config, self.task.is_regression, batch.teacher
        labels, soft_targets = batch.labels, teacher and teacher.logits
        if self.task.on_words:  # rows are words from here on
            words = labels != UNLABELLED
            logits, labels, soft_targets = logits[words], labels[words], teacher and soft_targets[words]
        if self.task.on_spans:  # rows are starts and ends of answers, and classes are tokens
            real = batch.inputs["attention_mask"]
            logits, soft_targets = _over_tokens(logits, real), teacher and _over_tokens(soft_targets, real)
            labels = labels.flatten()
        task = task_loss(logits, labels, regression)
        soft = hidden = balance = logits.new_zeros((), dtype=torch.float32)
        if teacher is not None and config.distill_logits:
            soft = logits_loss(logits, soft_targets, regression, config.temperature)
        if teacher is not None and config.distill_hidden and outputs:
            hidden = hidden_loss(outputs, teacher.hidden_states, batch.inputs["attention_mask"])
        if self.stage == 1 and config.balance > 0 and record.layers:
            balance = record.balance_loss(mean)
        share = config.distill_logits if teacher is not None else 0.0
        total = (1 - share) * task + share * soft + config.distill_hidden * hidden + config.balance * balance
        return dict(zip(self.reported, (total, task, soft, hidden, balance), strict=True))

    def end(self) -> dict[str, Any]:
        """See `Objective`."""
        return {}


class TextLoss:
    """The objective of a training on unlabelled text: reproduce the dense layers' hidden states.

    In a conversion the replaced layers alone learn, each from the dense layer in its place: all others stay as they
    are, so the teacher's hidden states enter the lowest replaced layer. Without a conversion (after pruning), or where
    the model has fewer layers than the base, all layers learn, from the last hidden states and those of each replaced
    layer. With `distill_logits` they also learn the base's soft targets, through the head, which stays as it is. A
    module that replaces a layer records its output by `shrp.model.gates.add_to_records`.
    """

    reported = ("loss", "distill_hidden_loss", "distill_logits_loss", "balance_loss")

    def __init__(self, config: TextConfig, base: PreTrainedModel) -> None:
        self.config, self.base = config, base
        self.top, self.marks = base.config.num_hidden_layers - 1, type(base).__name__.endswith(HEADS[SPANS])

    def begin(self, model: PreTrainedModel, epoch: Epoch) -> None:
        """See `Objective`."""
        self.replaced = replaced_layers(model, self.base)
        self.alone = bool(self.config.shrp.layers and self.replaced) or bool(expert_layers(model))
        model.requires_grad_(False)
        for layer in self.replaced.values() if self.alone else encoder_layers(model):
            layer.requires_grad_(True)
        self.counts = {i: np.zeros(layer.num_experts) for i, layer in expert_layers(model).items()}

    def __call__(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """See `Objective`."""
        inputs, known = batch.inputs, batch.teacher.hidden_states
        with record_routing(hidden_states=True) as record:
            if self.alone:
                lowest = min(self.replaced)
                start = known[lowest].float() if lowest else None
                logits, _ = run_from(model, inputs, lowest, start)
                outputs = {}
            elif self.config.distill_logits:
                output = model(**inputs, output_hidden_states=True)
                logits, outputs = logits_of(output), {self.top: output.hidden_states[-1]}
            else:
                outputs = {self.top: model.base_model(**inputs).last_hidden_state}
        outputs |= as_returned(model, {i: record.hidden_states[i] for i in self.replaced})
        error = hidden_loss(outputs, known, inputs["attention_mask"], relative=True)
        balance = record.balance_loss(mean) if self.counts else error.new_zeros(())
        soft = error.new_zeros(())
        if self.config.distill_logits:
            soft_targets = batch.teacher.logits
            if self.marks:
                logits, soft_targets = (_over_tokens(of, inputs["attention_mask"]) for of in (logits, soft_targets))
            elif logits.dim() == 3:  # of tokens
                real = inputs["attention_mask"].bool()
                logits, soft_targets = logits[real], soft_targets[real]
            soft = logits_loss(logits, soft_targets, logits.shape[-1] == 1, self.config.temperature)
        if batch.counted:
            for layer in self.counts:
                self.counts[layer] += top1_counts(record.probs(layer))
        total = error + self.config.balance * balance + self.config.distill_logits * soft
        parts = {"distill_hidden_loss": error, "distill_logits_loss": soft, "balance_loss": balance}
        return {"loss": total, **parts}

    def end(self) -> dict[str, Any]:
        """See `Objective`: the Top-1 shares `(H,)` of each layer's experts."""
        device = training_device()
        sums = {layer: total(torch.from_numpy(n).long().to(device)) for layer, n in self.counts.items()}
        counts = {layer: n.cpu().numpy() for layer, n in sums.items()}
        shares = {str(layer): (count / count.sum()).round(6).tolist() for layer, count in counts.items()}
        return {"usage": shares}


# --- Which parameters learn, at which rate, and from which layer on a model differs from its teacher ---


def set_trainable(model: PreTrainedModel, config: TrainConfig) -> None:
    """Set for every parameter whether it learns in a training on a task, whatever was set before."""
    model.requires_grad_(True)
    if config.freeze_embeddings:
        for part in _around_the_layers(model)[0]:  # ELECTRA has a projection too
            part.requires_grad_(False)
    if config.freeze_dense:
        model.base_model.requires_grad_(False)
        for part in _around_the_layers(model)[1]:  # such as a pooler, which is a part of the head
            part.requires_grad_(True)
        for layer, kind in zip(encoder_layers(model), layer_kinds(model), strict=True):
            layer.requires_grad_(kind != "dense")


def replaced_layers(model: PreTrainedModel, base: PreTrainedModel) -> dict[int, nn.Module]:
    """The layers with parameters, by index, that are of another type than the base's; none where the numbers differ."""
    ours, theirs = encoder_layers(model), encoder_layers(base)
    if len(ours) != len(theirs):
        return {}
    pairs = enumerate(zip(ours, theirs, strict=True))
    return {i: a for i, (a, b) in pairs if type(a) is not type(b) and any(True for _ in a.parameters())}


def same_start(model: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """The lowest layer that learns or differs from the teacher's; 0 where the embeddings do.

    Below it the model computes what the teacher computes, and goes on doing so while it trains.
    """
    mine, its = _around_the_layers(model)[0], _around_the_layers(teacher)[0]
    below = list(zip(mine, its, strict=False))
    layers = list(zip(encoder_layers(model), encoder_layers(teacher), strict=False))
    if any(map(_learns, mine)) or not all(_equal(*pair) for pair in below):
        return 0
    return next((i for i, (one, other) in enumerate(layers) if _learns(one) or not _equal(one, other)), 0)


def _learns(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _around_the_layers(model: PreTrainedModel) -> tuple[list[nn.Module], list[nn.Module]]:
    """The parts of the base model before the one that holds its layers, and those after it."""
    names, parts = map(list, zip(*model.base_model.named_children(), strict=True))
    place = names.index(family_of(model).layer_list.partition(".")[0])
    return parts[:place], parts[place + 1 :]


def _equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return type(one) is type(other) and all(torch.equal(a[name], b[name].to(a[name].device)) for name in a)


def parameter_groups(
    model: PreTrainedModel, learning_rate: float, new_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW's groups of the parameters that learn: pretrained or new ones, with or without decay."""
    fresh = new_parameters(model)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.dim() > 1 and not name.endswith("bias")
            groups.setdefault((name in fresh, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": new_learning_rate if is_new else learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_new, decays), parameters in groups.items()
    ]
