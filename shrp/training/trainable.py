"""Which parameters of a model learn, at which rate, and from which layer on it differs from its teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import layer_kinds, new_parameters
from shrp.training.config import TrainConfig


def set_trainable(model: PreTrainedModel, config: TrainConfig) -> None:
    """Set for every parameter whether it learns in a training on a task, whatever was set before."""
    model.requires_grad_(True)
    if config.freeze_embeddings:
        for part in _below_the_layers(model):  # ELECTRA has a projection too
            part.requires_grad_(False)
    if config.freeze_dense:
        for name, part in model.base_model.named_children():
            part.requires_grad_(name == "pooler")  # which is a part of the head
        for layer, kind in zip(encoder_layers(model), layer_kinds(model), strict=True):
            layer.requires_grad_(kind != "dense")


def replaced_layers(model: PreTrainedModel, base: PreTrainedModel) -> dict[int, nn.Module]:
    """The layers with parameters, by index, that are of another type than the base's layer in their place; none where
    the two have not the same number of layers.
    """
    ours, theirs = encoder_layers(model), encoder_layers(base)
    if len(ours) != len(theirs):
        return {}
    pairs = enumerate(zip(ours, theirs, strict=True))
    return {i: a for i, (a, b) in pairs if type(a) is not type(b) and any(True for _ in a.parameters())}


def same_start(model: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """The lowest layer that learns or differs from the teacher's; 0 where the embeddings do.

    Below it the model computes what the teacher computes, and goes on doing so while it trains.
    """
    below = list(zip(_below_the_layers(model), _below_the_layers(teacher), strict=False))
    layers = list(zip(encoder_layers(model), encoder_layers(teacher), strict=False))
    if any(map(_learns, _below_the_layers(model))) or not all(_equal(*pair) for pair in below):
        return 0
    return next((i for i, (mine, its) in enumerate(layers) if _learns(mine) or not _equal(mine, its)), 0)


def _learns(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _below_the_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The parts of the base model before its layers: neither the encoder nor the pooler, which comes after them."""
    after = {family_of(model).encoder.partition(".")[0], "pooler"}
    return [part for name, part in model.base_model.named_children() if name not in after]


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
