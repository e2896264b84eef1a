"""Models that share weights, dropout switched off, and devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from shrp.errors import ShrpError, first_line
from shrp.families.families import family_of


def with_layers(model: PreTrainedModel, replacements: dict[int, nn.Module]) -> PreTrainedModel:
    """Return a second model that shares every weight with `model` except for `replacements` of some layers.

    Only the containers around the layers are copied, so this takes well under a millisecond, and the original, which
    other threads may be using, is not changed.
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
    """Return a module that shares everything with this one, and whose parts can be replaced without changing it."""
    clone = copy.copy(module)
    # copy.copy shares the registries, and writing to one would then change the original.
    clone.__dict__ = dict(module.__dict__)
    for registry in ("_modules", "_parameters", "_buffers"):
        clone.__dict__[registry] = dict(module.__dict__[registry])
    return clone


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch a model's dropout off inside, training mode or not.

    Distillation has one target for each text, which dropout would only blur; and on a CPU its random numbers cost more
    than a tenth of a step.
    """
    kept: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = ("p",) if isinstance(module, nn.Dropout) else ("dropout", "attention_dropout")
        kept += [
            (module, name, rate) for name in names if isinstance(rate := getattr(module, name, None), float)
        ]
    try:
        for module, name, _ in kept:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, rate in kept:
            setattr(module, name, rate)


def device_named(name: str | torch.device) -> torch.device:
    """A device by PyTorch's name, `cpu`, `cuda`, `cuda:1` or `mps`, after a check that it works.

    Raises:
        ShrpError: there is none here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # whatever PyTorch, built without it, raises
        raise ShrpError(
            f"there is no device '{name}' to compute on here ({first_line(error).rstrip('.')}); "
            "leave it out for the CPU."
        ) from error
    return device
