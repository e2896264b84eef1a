"""Dense encoder layers become expert layers, in place, in any stock Hugging Face model of a supported family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.errors import ShrpError
from shrp.families.families import encoder_layers, family_of
from shrp.model.config import ShrpConfig
from shrp.model.layers import DroppedLayer, ExpertLayer, StaticLayer
from shrp.model.narrow import NarrowLayer, narrow_layer

_CONVERTED = (ExpertLayer, StaticLayer, DroppedLayer, NarrowLayer)


def num_experts_of(model: PreTrainedModel) -> int:
    """Heads of a dense layer, which is the number of experts `H` of a converted one."""
    return model.config.num_attention_heads


def empty_expert_layer(model: PreTrainedModel, index: int, config: ShrpConfig) -> ExpertLayer:
    """An `ExpertLayer` of the model's geometry with fresh weights."""
    family, hf = family_of(model), model.config
    dense = family.layers(model)[index]
    return ExpertLayer(
        layer=index,
        hidden_size=hf.hidden_size,
        num_experts=num_experts_of(model),
        routing="uniform" if config.control == "uniform" else config.routing,
        top_k=config.top_k,
        eps=dense.get_submodule(family.last_norm).eps,
        gain=config.expander_gain,
        dropout=getattr(hf, family.dropout),
        attention_dropout=getattr(hf, family.attention_dropout),
        calling=family.calling,
    )


@torch.no_grad()
def convert_layer(
    model: PreTrainedModel, index: int, config: ShrpConfig, batches: Iterable[dict[str, Tensor]] = ()
) -> ExpertLayer | DroppedLayer | NarrowLayer:
    """Replace dense layer `index` of `model` by an `ExpertLayer`, in place, and return it.

    (Or by a `DroppedLayer` or a `NarrowLayer`, if `config` asks for such a control.)

    Expert `h` gets the dense head `h`'s slice of Q, K and V; the outer LayerNorm starts from the dense layer's
    last one; Router and Expander are new, drawn from torch's global generator (method.md, "One converted layer").

    Args:
        batches: model inputs, `(B, T)` each, which say what a `NarrowLayer` keeps; others need none.

    Raises:
        UnsupportedModelError: the model's family has no adapter.
        ShrpError: the layer does not exist or is converted already, or a `NarrowLayer` can't be (`narrow_layer`).
    """
    family = family_of(model)
    layers = family.layers(model)
    ShrpConfig((index,), config.routing, config.top_k).check_fits(len(layers), num_experts_of(model))
    dense = layers[index]
    if isinstance(dense, _CONVERTED):
        raise ShrpError(f"layer {index} is converted already; convert a layer that is still dense.")
    if config.control == "dropped":
        layers[index] = DroppedLayer(index, family.calling)
        return layers[index]
    if config.control == "narrow":
        return narrow_layer(model, index, config.narrow_to, batches)
    expert = empty_expert_layer(model, index, config)
    shape = (expert.num_experts, expert.head_size)
    parts = [dense.get_submodule(path) for path in (family.query, family.key, family.value)]
    weight = torch.stack([part.weight.view(*shape, -1) for part in parts], dim=1)  # (H, 3, dh, d)
    bias = torch.stack([part.bias.view(*shape) for part in parts], dim=1)  # (H, 3, dh)
    expert.qkv_weight.copy_(weight.flatten(1, 2))
    expert.qkv_bias.copy_(bias.flatten(1))
    expert.norm.load_state_dict(dense.get_submodule(family.last_norm).state_dict())
    reference = next(dense.parameters())
    layers[index] = expert.to(reference.device, reference.dtype).train(dense.training)
    return layers[index]


def convert(
    model: PreTrainedModel, config: ShrpConfig, batches: Sequence[dict[str, Tensor]] = ()
) -> PreTrainedModel:
    """Convert every layer that `config` names, in place, and return the model; args and errors as `convert_layer`."""
    config.check_fits(len(encoder_layers(model)), num_experts_of(model))
    for index in config.layers:
        convert_layer(model, index, config, batches)
    return model


def expert_layers(model: PreTrainedModel) -> dict[int, ExpertLayer]:
    """The routed layers of a model, by index, ascending."""
    return {i: layer for i, layer in enumerate(encoder_layers(model)) if isinstance(layer, ExpertLayer)}


def router_layers(model: PreTrainedModel) -> dict[int, ExpertLayer]:
    """The expert layers that have a router, so that there is usage to speak of (not the uniform control's)."""
    return {i: layer for i, layer in expert_layers(model).items() if layer.routing != "uniform"}


def static_layers(model: PreTrainedModel) -> dict[int, StaticLayer]:
    """The static (pruned) layers of a model, by index, ascending."""
    return {i: layer for i, layer in enumerate(encoder_layers(model)) if isinstance(layer, StaticLayer)}


def narrow_layers(model: PreTrainedModel) -> dict[int, NarrowLayer]:
    """The layers of a model whose heads and neurons were pruned (the `narrow` control), by index, ascending."""
    return {i: layer for i, layer in enumerate(encoder_layers(model)) if isinstance(layer, NarrowLayer)}


def layer_kinds(model: PreTrainedModel) -> list[str]:
    """`dense`, `routed`, `static`, `narrow` or `dropped` for each encoder layer, in order."""
    kinds: dict[type[nn.Module], str] = {
        ExpertLayer: "routed",
        StaticLayer: "static",
        DroppedLayer: "dropped",
        NarrowLayer: "narrow",
    }
    return [kinds.get(type(layer), "dense") for layer in encoder_layers(model)]


def new_parameters(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that SHRP added (Router, Expander), which train at their own rate; in a narrow layer,
    those of what has the Expander's place.
    """
    added = (".router.", ".expander.", ".rest.")
    return {name for name, _ in model.named_parameters() if any(part in name for part in added)}
