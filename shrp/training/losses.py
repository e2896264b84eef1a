"""The training loss: the task's, the teacher's, and the balance of the routers (method.md, "Training")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shrp.model.gates import RoutingRecord
from shrp.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class TeacherOutput:
    """What the dense teacher says of a batch."""

    logits: Tensor
    """`(B, C)`."""
    hidden_states: tuple[Tensor, ...]
    """Embeddings' output, then each layer's, `(B, T, d)`; empty where they are not distilled."""


@dataclass(frozen=True, eq=False)
class LossParts:
    """The scalar loss and what it is made of, each 0 where it plays no part."""

    total: Tensor
    task: Tensor
    logits: Tensor
    hidden: Tensor
    balance: Tensor


def task_loss(logits: Tensor, labels: Tensor, regression: bool) -> Tensor:
    """Cross-entropy, or squared error for regression, of `(B, C)` logits."""
    if regression:
        return F.mse_loss(logits.float().squeeze(-1), labels.float())
    return F.cross_entropy(logits.float(), labels)


def logits_loss(student: Tensor, teacher: Tensor, regression: bool, temperature: float) -> Tensor:
    """KL from the teacher's softened distribution, times T squared; squared error for regression."""
    if regression:
        return F.mse_loss(student.float(), teacher.float())
    soft = F.log_softmax(student.float() / temperature, -1)
    target = F.log_softmax(teacher.float() / temperature, -1)
    return F.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


def hidden_loss(outputs: dict[int, Tensor], teacher: tuple[Tensor, ...], token_mask: Tensor) -> Tensor:
    """Sum over converted layers of the mean squared error to the teacher's same layer, real tokens only.

    A sum, so that the pull on a layer does not weaken as more layers are converted.

    Args:
        outputs: layer -> `(B, T, d)`.
        teacher: the teacher's hidden states; index `l + 1` is layer `l`'s output.
        token_mask: `(B, T)`, non-zero for real tokens.
    """
    real = token_mask.unsqueeze(-1).float()
    count = real.sum() * next(iter(outputs.values())).shape[-1]
    errors = [
        ((output.float() - teacher[layer + 1].float()).square() * real).sum() / count
        for layer, output in outputs.items()
    ]
    return torch.stack(errors).sum()


def total_loss(
    config: TrainConfig,
    *,
    stage: int,
    logits: Tensor,
    labels: Tensor,
    regression: bool,
    token_mask: Tensor,
    record: RoutingRecord,
    outputs: dict[int, Tensor],
    teacher: TeacherOutput | None,
) -> LossParts:
    """Put the parts together with the config's weights; `outputs` maps layers to what is distilled there."""
    zero = logits.new_zeros((), dtype=torch.float32)
    task = task_loss(logits, labels, regression)
    soft = hidden = zero
    if teacher is not None and config.distill_logits:
        soft = logits_loss(logits, teacher.logits, regression, config.temperature)
    if teacher is not None and config.distill_hidden and outputs:
        hidden = hidden_loss(outputs, teacher.hidden_states, token_mask)
    balanced = stage == 1 and config.balance > 0 and config.shrp.control == "none" and record.layers
    balance = record.balance_loss() if balanced else zero
    share = config.distill_logits if teacher is not None else 0.0
    total = (1 - share) * task + share * soft + config.distill_hidden * hidden + config.balance * balance
    return LossParts(total, task, soft, hidden, balance)
