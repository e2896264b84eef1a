"""A checkpoint's model, built from its config and filled with its weights, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from shrp.checkpoints import hub
from shrp.checkpoints.info import CheckpointInfo
from shrp.errors import CheckpointError, ShrpError
from shrp.evaluation.costs import WHOLE_VOCABULARY
from shrp.families.families import encoder_layers
from shrp.model.convert import empty_expert_layer, num_experts_of
from shrp.model.layers import StaticLayer

_NOT_A_STRANGERS = (
    "shrp",
    "auto_map",
    "dtype",
    "attn_implementation",
    "_attn_implementation",
    "quantization_config",
    *("return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward"),
)
"""Entries of a config that are not handed on: some would make transformers fetch or run code, others return what nobody
asked for, or fail at some lengths of text alone.
"""
_COUNTED = {
    "num_hidden_layers": 256,
    "n_layers": 256,
    "num_attention_heads": 1024,
    "n_heads": 1024,
    "num_labels": 10_000,
}
"""Numbers in a config that make as many objects before the weights are looked at, and how large they may be."""


_MOST_TOKENS = 10_000_000


def without_weights(folder: Path, data: Mapping[str, Any], info: CheckpointInfo) -> PreTrainedModel:
    """The model that a checkpoint's `config.json` describes, its parameters still without storage.

    Raises:
        CheckpointError: it describes none, or other layers than its `shrp` section.
    """
    name = _architecture(folder, data)
    for key, most in _COUNTED.items():
        value = data.get(key)
        if value is not None and not (type(value) is int and 0 <= value <= most):
            raise CheckpointError(
                f"{folder}/config.json has a {key} that is not a number from 0 to {most:,}."
            )
    _check_whole_vocabulary(folder, data)
    try:
        cls = getattr(transformers, name)
        plain = {key: value for key, value in data.items() if key not in _NOT_A_STRANGERS}
        config = config_for(plain, info)
        with torch.device("meta"):
            model = cls(config)
            _shape(model, info)
    except ShrpError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise CheckpointError(f"{folder}: its config.json does not describe a {name}: {error}.") from error
    return model


def config_for(plain: Mapping[str, Any], info: CheckpointInfo) -> PreTrainedConfig:
    """A model's config: the family's own, or of a converted model one that says so wherever it is saved."""
    if not info.config.layers:
        return AutoConfig.for_model(**plain)
    known = {name: value for name, value in plain.items() if name != "model_type"}
    return hub.config_class(plain["model_type"])(**known, shrp=info.to_dict())


def _check_whole_vocabulary(folder: Path, data: Mapping[str, Any]) -> None:
    """Raise where the size that a trimmed vocabulary once had, of which shares are, is none."""
    whole, kept = data.get(WHOLE_VOCABULARY), data.get("vocab_size")
    if whole is None:
        return
    least = kept if type(kept) is int else 0
    if not (type(whole) is int and least <= whole <= _MOST_TOKENS):
        raise CheckpointError(
            f"{folder}/config.json has a {WHOLE_VOCABULARY} that is not a number from its vocab_size to "
            f"{_MOST_TOKENS:,}."
        )


def _architecture(folder: Path, data: Mapping[str, Any]) -> str:
    """The transformers class that a config names.

    Raises:
        CheckpointError: it names none, several, or something else.
    """
    names = data.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) else ""
    cls = getattr(transformers, name, None) if name.endswith("ForSequenceClassification") else None
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
        raise CheckpointError(
            f"{folder}: architectures must name one transformers class for sequence classification, not {names!r:.60}."
        )
    return name


def _shape(model: PreTrainedModel, info: CheckpointInfo) -> None:
    """Give every converted layer its module, without weights."""
    layers = encoder_layers(model)
    info.config.check_fits(len(layers), num_experts_of(model))
    if info.plan:
        info.plan.check_fits(info.config.layers, num_experts_of(model))
    if any(len(shares) != num_experts_of(model) for shares in info.usage.values()):
        raise CheckpointError(
            f"its usage is not of the {num_experts_of(model)} experts that its layers have."
        )
    kept = dict(info.plan.layers) if info.plan else {}
    for index in info.config.layers:
        layer = empty_expert_layer(model, index, info.config)
        layers[index] = StaticLayer.like(layer, kept[index].experts) if info.plan else layer


def fill(model: PreTrainedModel, state: dict[str, torch.Tensor], weights: Path) -> None:
    """Put `state` into a model without storage, as float32, after checking names and shapes.

    Args:
        weights: the file that the state is of, for errors.

    Raises:
        CheckpointError: a tensor is missing, or is not the model's.
    """
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        which = f"lacks {missing[0]}" if missing else f"has an unexpected {extra[0]}"
        raise CheckpointError(
            f"{weights} does not fit its config.json: it {which} "
            f"({len(missing)} missing, {len(extra)} unexpected tensors)."
        )
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{weights} does not fit its config.json: {name} is {list(value.shape)}, "
                f"expected {list(expected[name].shape)}."
            )
        if value.is_floating_point() != expected[name].is_floating_point():
            raise CheckpointError(
                f"{weights} does not fit its config.json: {name} is of {value.dtype}, "
                f"expected {expected[name].dtype}; quantised weights are not read."
            )
    # Copied: what the file maps into memory changes, or is gone, when somebody writes over it.
    state = {
        name: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for name, value in state.items()
    }
    model.load_state_dict(state, assign=True)
    # Buffers that are not stored (position ids) are still without storage: make them as the model would.
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                fresh = torch.zeros(buffer.shape, dtype=buffer.dtype)
                if name == "position_ids":
                    fresh = torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()
                module.register_buffer(name, fresh, persistent=False)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
