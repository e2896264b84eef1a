"""A model with other layers that shares everything else with the one that it is of."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from shrp.families.families import family_of


def with_layers(model: PreTrainedModel, replacements: dict[int, nn.Module]) -> PreTrainedModel:
    """A second model that shares every weight with `model` but has `replacements` for the given layers.

    Only the containers on the way to the layers are copied, so this takes well under a millisecond, and the
    original, which other threads may be using, is left alone.
    """
    family = family_of(model)
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    path = f"{prefix}{family.encoder}.layer".split(".")
    clone = shallow_copy(model)
    parent = clone
    for name in path:
        child = shallow_copy(getattr(parent, name))
        parent._modules[name] = child
        parent = child
    for index, layer in replacements.items():
        parent[index] = layer
    return clone


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module that shares everything with this one, and whose parts can be exchanged without touching it."""
    clone = copy.copy(module)
    # copy.copy shares the registries, and writing to one would then change the original.
    clone.__dict__ = dict(module.__dict__)
    for registry in ("_modules", "_parameters", "_buffers"):
        clone.__dict__[registry] = dict(module.__dict__[registry])
    return clone
