"""Models that share weights, dropout switched off, and devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from shrp.errors import ShrpError, first_line
from shrp.families.families import encoder_layers, family_of


def logits_of(output: ModelOutput) -> Tensor:
    """What a model's head returns: `(B, C)`, or of tokens `(B, T, C)`; of one that marks answers starts and ends `(B, T, 2)`."""
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], -1)
    return output.logits


def with_layers(model: PreTrainedModel, replacements: Mapping[int, nn.Module]) -> PreTrainedModel:
    """A second model that shares every weight with `model` except for `replacements` of some encoder layers.

    This takes well under a millisecond, and the original, which other threads may be using, is not changed.
    """
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    path, layers = f"{prefix}{family_of(model).layer_list}", dict(enumerate(encoder_layers(model)))
    return with_modules(model, {f"{path}.{index}": layer for index, layer in (layers | replacements).items()})


Module = TypeVar("Module", bound=nn.Module)


def with_modules(model: Module, replacements: Mapping[str, nn.Module]) -> Module:
    """A second module that shares everything with `model` except for the modules at some paths."""
    copies: dict[str, nn.Module] = {"": _shallow_copy(model)}

    def copied(path: str) -> nn.Module:
        if path not in copies:
            above, _, name = path.rpartition(".")
            parent = copied(above)
            copies[path] = parent._modules[name] = _shallow_copy(parent._modules[name])
        return copies[path]

    for path, module in replacements.items():
        above, _, name = path.rpartition(".")
        copied(above)._modules[name] = module
    return copies[""]


def _shallow_copy(module: nn.Module) -> nn.Module:
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
