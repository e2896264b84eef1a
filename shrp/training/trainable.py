"""What of a model learns, at which rate and by which steps, and from where on it differs from its teacher."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrp.errors import TrainingError
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import layer_kinds, new_parameters
from shrp.training.config import TrainConfig, freezes_dense
from shrp.training.schedules import Swap


def set_trainable(model: PreTrainedModel, config: TrainConfig) -> None:
    """Say of every parameter whether it learns, whatever it went through before."""
    model.requires_grad_(True)
    if config.freeze_embeddings:
        for part in _below_the_layers(model):  # ELECTRA's have a projection beside them
            part.requires_grad_(False)
    if freezes_dense(config):
        for name, part in model.base_model.named_children():
            part.requires_grad_(name == "pooler")  # which is a part of the head
        for layer, kind in zip(encoder_layers(model), layer_kinds(model), strict=True):
            layer.requires_grad_(kind != "dense" or isinstance(layer, Swap))
            if isinstance(layer, Swap):
                layer.dense.requires_grad_(False)


def same_start(model: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """The lowest layer that learns or is not the teacher's; 0 where what comes before the layers is neither.

    Below it the model says what the teacher says, and goes on doing so while it trains.
    """
    below = list(zip(_below_the_layers(model), _below_the_layers(teacher), strict=False))
    layers = list(zip(encoder_layers(model), encoder_layers(teacher), strict=False))
    if any(map(_learns, _below_the_layers(model))) or not all(_equal(*pair) for pair in below):
        return 0
    return next((i for i, (mine, its) in enumerate(layers) if _learns(mine) or not _equal(mine, its)), 0)


def _learns(part: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _below_the_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The parts of the base model that come before its layers: not the encoder, nor the pooler, which is after them."""
    after = {family_of(model).encoder.partition(".")[0], "pooler"}
    return [part for name, part in model.base_model.named_children() if name not in after]


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return type(one) is type(other) and all(torch.equal(a[name], b[name].to(a[name].device)) for name in a)


def parameter_groups(
    model: PreTrainedModel, learning_rate: float, new_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW's groups of the parameters that learn: pretrained or new ones, with or without decay."""
    fresh = new_parameters(model)
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
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


def optimizer_and_schedule(
    groups: list[dict[str, Any]], steps: int, warm: int, *, start: float = 1.0, end: float = 1.0
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW over `parameter_groups`, and an epoch's rates: up over `warm` steps, and from `start` linearly to `end`.

    Args:
        steps: of the epoch.
        start, end: factors of the groups' rates.
    """
    optimizer = torch.optim.AdamW(groups, fused=True)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (start + (end - start) * step / steps)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def finite(loss: Tensor, epoch: int, step: int) -> float:
    """A step's loss, `()`, as a number.

    Raises:
        TrainingError: it is not finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} in epoch {epoch}, step {step}: lower the learning rates, or train in fp32."
        )
    return value
