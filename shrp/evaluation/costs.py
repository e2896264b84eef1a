"""What a model costs: parameters and FLOPs, by formula.

A `Cost` always gives the encoder (the encoder layers, without embeddings and head) and the whole model, as a share
depends on its denominator (method.md, "Denominators").

FLOPs are 2 x the multiply-accumulates of matrix products, at inference, for one example of `T` real tokens. Not counted:
softmax, LayerNorm, activations, biases, masks, residuals, embedding look-ups, pooling, the gated sum of outputs.

Notation as in method.md: `d` hidden size, `ff` inner size of the feed-forward network, `H` experts, `dh = d / H`, `m`
kept experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shrp.errors import UnsupportedModelError
from shrp.evaluation.layer_params import dense_layer_params, expert_layer_params, static_layer_params
from shrp.families.families import encoder_layers, family_of
from shrp.model.layers import ExpertLayer, StaticLayer
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prunable_layers

TOKENS = 128
"""Length of the example that FLOPs are counted for by default (method.md, "Denominators")."""
WHOLE_VOCABULARY = "whole_vocab_size"
"""Field of a model's config: the size of its vocabulary before `shrp.pruning.vocabulary` trimmed it."""


@dataclass(frozen=True)
class Cost:
    """Parameters of a model, and FLOPs for one example."""

    encoder_params: int
    model_params: int  # with embeddings and head; a shared tensor counts once
    encoder_flops: int
    model_flops: int

    def relative_to(self, other: Cost) -> dict[str, float]:
        """Each figure as a share of `other`'s, of an example of the same length; nan where that is 0."""
        mine, base = asdict(self), asdict(other)
        return {key: mine[key] / base[key] if base[key] else math.nan for key in mine}


# One layer


def _product(rows: int, inputs: int, outputs: int) -> int:
    """FLOPs of `(rows, inputs) @ (inputs, outputs)`."""
    return 2 * rows * inputs * outputs


def _attention(tokens: int, size: int) -> int:
    """FLOPs of scores and weighted values, for heads of `size` features in all."""
    return _product(tokens, size, tokens) + _product(tokens, tokens, size)


def dense_layer_flops(d: int, neurons: int, tokens: int, width: int | None = None) -> int:
    """FLOPs of a BERT-style layer for one example of `tokens` tokens."""
    width = d if width is None else width
    return 4 * _product(tokens, d, width) + _attention(tokens, width) + 2 * _product(tokens, d, neurons)


def static_layer_flops(
    d: int, dh: int, m: int, tokens: int, self_path: bool = False, untied: bool = False
) -> int:
    """FLOPs of a `StaticLayer`. Unless it is untied, the Expander is one product with the sum of the `m` outputs."""
    width = (m + self_path if untied else 1) * dh
    return _product(tokens, d, (3 * m + self_path) * dh) + _attention(tokens, m * dh) + _product(tokens, width, d)


Size = tuple[int, int]
"""Parameters and FLOPs."""


def dense_layer(config: PreTrainedConfig, tokens: int) -> Size:
    """A dense layer of a family, for one example of `tokens` tokens."""
    family = family_of(config)
    if (own := family.dense_size(config, tokens)) is not None:
        return own
    d, ff = config.hidden_size, getattr(config, family.feed_forward_size)
    flops = dense_layer_flops(d, ff, tokens) + family.position_flops(config, tokens, d, dense=True)
    return dense_layer_params(d, ff), flops


def _static_layer(
    config: PreTrainedConfig, m: int, tokens: int, self_path: bool = False, untied: bool = False
) -> Size:
    """Both are linear in `m`."""
    d, dh = config.hidden_size, config.hidden_size // config.num_attention_heads
    flops = static_layer_flops(d, dh, m, tokens, self_path, untied)
    flops += family_of(config).position_flops(config, tokens, m * dh)
    return static_layer_params(d, dh, m, self_path, untied) + _of_norm(config), flops


def _of_norm(config: PreTrainedConfig) -> int:
    """Parameters of the LayerNorm that converted layers keep, less a BERT layer's."""
    return family_of(config).norm_params(config) - 2 * config.hidden_size


def _expert_layer(layer: ExpertLayer, config: PreTrainedConfig, tokens: int) -> Size:
    """At inference, under its own gates.

    Sequence routing with `top_k` 1 computes the one chosen expert. Token routing computes all `H`, as each expert's keys
    and values are needed for all tokens; so does Top-k.
    """
    d, H = layer.hidden_size, layer.num_experts
    computed = 1 if layer.routing == "sequence" and layer.top_k == 1 else H
    router = _product(tokens if layer.routing == "token" else 1, d, H)
    own = layer.self_path is not None
    params = expert_layer_params(d, H, own) + _of_norm(config)
    return params, router + _static_layer(config, computed, tokens, own)[1]


def _layer(layer: nn.Module, config: PreTrainedConfig, tokens: int) -> Size:
    if isinstance(layer, StaticLayer):
        return _static_layer(config, layer.kept, tokens, layer.self_path, layer.untied)
    if isinstance(layer, ExpertLayer):
        return _expert_layer(layer, config, tokens)
    return dense_layer(config, tokens)


# A whole model

_ONE_POSITION = "ForSequenceClassification"
_EVERY_POSITION = ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


def _rest(model: PreTrainedModel, tokens: int) -> tuple[int, int]:
    """Outside the encoder layers: embeddings, pooler, head."""
    layers = encoder_layers(model)
    inside = {id(module) for module in layers.modules()}
    params, flops = counted_params(model) - counted_params(layers), 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module) not in inside:
            flops += _product(_positions(model, name, tokens), module.in_features, module.out_features)
    return params, flops


def _positions(model: PreTrainedModel, name: str, tokens: int) -> int:
    """Token positions that the linear map `name`, outside the encoder layers, is applied to."""
    parts = name.split(".")
    if {"embeddings_project", "embed_proj"} & set(parts):  # embeddings narrower than the encoder
        return tokens
    if "pooler" in parts:
        return 1
    kinds = {cls.__name__ for cls in type(model).__mro__}
    if any(kind.endswith(_ONE_POSITION) for kind in kinds):
        return 1
    if any(kind.endswith(_EVERY_POSITION) for kind in kinds):
        return tokens
    raise UnsupportedModelError(
        f"the FLOPs of the head of {type(model).__name__} are unknown; known are bare encoders and models "
        f"{', '.join([_ONE_POSITION, *_EVERY_POSITION])}."
    )


def _total(model: PreTrainedModel, layers: Sequence[Size], tokens: int) -> Cost:
    """Cost of a model with these layers."""
    (params, flops), rest = (sum(part) for part in zip((0, 0), *layers, strict=True)), _rest(model, tokens)
    params -= family_of(model).lacking_params(model.config)
    return Cost(params, params + rest[0], flops, flops + rest[1])


def cost(model: PreTrainedModel, tokens: int = TOKENS) -> Cost:
    """Cost of a model by formula, its layers dense, routed or static in any mixture; nothing is run.

    Raises:
        UnsupportedModelError: no adapter for its family, or a head of unknown cost.
    """
    return _total(model, [_layer(layer, model.config, tokens) for layer in encoder_layers(model)], tokens)


def dense_cost(model: PreTrainedModel, tokens: int = TOKENS, *, dropped: int = 0) -> Cost:
    """Cost of the same architecture with every layer dense and its whole vocabulary: the denominator of a share.

    `dropped` layers are left out.
    """
    found = partly_dense(model, [], dropped, tokens)
    embeddings = model.get_input_embeddings()
    whole = getattr(model.config, WHOLE_VOCABULARY, None) or embeddings.num_embeddings
    taken = (whole - embeddings.num_embeddings) * embeddings.embedding_dim
    return replace(found, model_params=found.model_params + taken)


def static_cost(
    model: PreTrainedModel,
    layers: int,
    kept: int,
    tokens: int = TOKENS,
    *,
    self_path: bool = False,
    untied: bool = False,
) -> Cost:
    """Cost of the same architecture with `layers` layers static, of `kept` experts in all, however these are spread."""
    each = [0] * (layers - 1) + [kept]  # linear in m
    sizes = [_static_layer(model.config, m, tokens, self_path, untied) for m in each]
    return partly_dense(model, sizes, layers, tokens)


def partly_dense(model: PreTrainedModel, sizes: Sequence[Size], replaced: int, tokens: int) -> Cost:
    """Cost with `replaced` layers of these sizes in all, the rest dense, and the vocabulary as it is."""
    dense = [dense_layer(model.config, tokens)] * (len(encoder_layers(model)) - replaced)
    return _total(model, [*dense, *sizes], tokens)


def plan_cost(model: PreTrainedModel, plan: PruningPlan, tokens: int = TOKENS) -> Cost:
    """Cost of `prune(model, plan)`, without building it.

    Raises:
        PlanError: the plan does not fit, or the model has no routed layer.
    """
    layers = prunable_layers(model, plan)
    own = any(layer.self_path is not None for layer in layers.values())
    return static_cost(model, len(layers), plan.budget, tokens, self_path=own, untied=plan.untied)


def counted_params(model: nn.Module) -> int:
    """Parameters of a module; a shared tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters())
