"""What a model costs: parameters and FLOPs, by formula and by count.

Shares depend on their denominator, so a `Cost` always gives the encoder (the stack of encoder layers, without
embeddings and head) and the whole model side by side (method.md, "Denominators").

**FLOPs** are 2 x the multiply-accumulates of matrix products, at inference, for one input of `T` real tokens.
Not counted, as they lack the long inner dimension of a matrix product: softmax, LayerNorm, GELU and other
activations, biases, masks, residuals, embedding look-ups, the router's pooling, the gated sum of outputs.

Notation as in method.md: `d` hidden size, `ff` inner size of the feed-forward network, `H` experts,
`dh = d / H`, `m` kept experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from shrp.errors import PlanError, ShrpError, UnsupportedModelError
from shrp.evaluation.timing import model_inputs
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.layers import ExpertLayer, StaticLayer
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prunable_layers

TOKENS = 128
"""Length of the one input that FLOPs are counted for where nothing else is said (method.md, "Denominators")."""

WHOLE_VOCABULARY = "whole_vocab_size"
"""Field of a model's config: how many tokens there were before `shrp.pruning.vocabulary` took some out."""


@dataclass(frozen=True)
class Cost:
    """Size of a model, and work for one input of `tokens` tokens (see the module's text for what counts)."""

    encoder_params: int
    """Parameters of the encoder layers."""
    model_params: int
    """Parameters of everything, embeddings and head included; a shared tensor counts once."""
    encoder_flops: int
    """FLOPs of the encoder layers."""
    model_flops: int
    """FLOPs of everything."""
    tokens: int
    """Length of the one input that the FLOPs are for."""

    def relative_to(self, other: Cost) -> dict[str, float]:
        """Shares kept: each figure of this cost over `other`'s, 1.0 meaning equal (nan where `other` has 0).

        Raises:
            ShrpError: the costs are for inputs of different lengths.
        """
        if self.tokens != other.tokens:
            raise ShrpError(
                f"costs for {self.tokens} and {other.tokens} tokens do not compare; take both at one length."
            )
        mine, base = asdict(self), asdict(other)
        return {key: mine[key] / base[key] if base[key] else math.nan for key in mine if key != "tokens"}


# One layer


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear map with bias."""
    return inputs * outputs + outputs


def _product(rows: int, inputs: int, outputs: int) -> int:
    """FLOPs of `(rows, inputs) @ (inputs, outputs)`."""
    return 2 * rows * inputs * outputs


def _attention(tokens: int, size: int) -> int:
    """FLOPs of scores and weighted values, for heads of `size` features in all."""
    return _product(tokens, size, tokens) + _product(tokens, tokens, size)


def dense_layer_params(d: int, neurons: int, width: int | None = None) -> int:
    """Parameters of a BERT-style layer: Q, K, V, `W_o`, the two-layer FFN and two LayerNorms.

    Args:
        width: of all heads together, if it is not `d`.
    """
    width = d if width is None else width
    return 3 * _linear(d, width) + _linear(width, d) + _linear(d, neurons) + _linear(neurons, d) + 2 * 2 * d


def dense_layer_flops(d: int, neurons: int, tokens: int, width: int | None = None) -> int:
    """FLOPs of a BERT-style layer for one input of `tokens` tokens; args as for `dense_layer_params`."""
    width = d if width is None else width
    return 4 * _product(tokens, d, width) + _attention(tokens, width) + 2 * _product(tokens, d, neurons)


def static_layer_params(d: int, dh: int, m: int) -> int:
    """Parameters of a `StaticLayer`: Q, K, V of `m` experts, the Expander, two LayerNorms."""
    return _linear(d, 3 * m * dh) + _linear(dh, d) + 2 * 2 * d


def static_layer_flops(d: int, dh: int, m: int, tokens: int) -> int:
    """FLOPs of a `StaticLayer`. The `m` outputs are summed first, so the Expander is one product."""
    return _product(tokens, d, 3 * m * dh) + _attention(tokens, m * dh) + _product(tokens, dh, d)


def expert_layer_params(d: int, H: int) -> int:
    """Parameters of an `ExpertLayer`: all `H` experts and the router."""
    return static_layer_params(d, d // H, H) + _linear(d, H)


def size_like(d: int, dh: int, experts: int) -> tuple[int, int]:
    """Heads and neurons of a layer under width pruning, with no more parameters than a static layer of so many experts.

    Half as many heads as experts, since a head brings its own output projection, and as many neurons as then fit; at
    least one of each, which for a single expert is `3 d + 1` parameters more.
    """
    heads = max(1, experts // 2)
    left = static_layer_params(d, dh, experts) - dense_layer_params(d, 0, heads * dh)
    return heads, max(1, left // (2 * d + 1))


Size = tuple[int, int]
"""Parameters and FLOPs."""


def _dense_layer(config: PreTrainedConfig, tokens: int) -> Size:
    """An unconverted layer."""
    d, ff = config.hidden_size, getattr(config, family_of(config).feed_forward_size)
    flops = dense_layer_flops(d, ff, tokens) + _position_flops(config, tokens, d, dense=True)
    return dense_layer_params(d, ff), flops


def _static_layer(config: PreTrainedConfig, m: int, tokens: int) -> Size:
    """A `StaticLayer`; both are linear in `m`."""
    d, dh = config.hidden_size, config.hidden_size // config.num_attention_heads
    flops = static_layer_flops(d, dh, m, tokens) + _position_flops(config, tokens, m * dh)
    return static_layer_params(d, dh, m), flops


def _narrow_layer(config: PreTrainedConfig, experts: int, tokens: int) -> Size:
    """A dense layer under width pruning to the size of so many experts."""
    d, dh = config.hidden_size, config.hidden_size // config.num_attention_heads
    heads, neurons = size_like(d, dh, experts)
    flops = dense_layer_flops(d, neurons, tokens, heads * dh) + _position_flops(config, tokens, heads * dh)
    return dense_layer_params(d, neurons, heads * dh), flops


def _expert_layer(layer: ExpertLayer, config: PreTrainedConfig, tokens: int) -> Size:
    """An `ExpertLayer` at inference, under its own gates.

    Sequence routing with `top_k` 1 computes the one chosen expert. Any other computes all `H`: token routing because
    each expert's keys and values are needed for all tokens, Top-k because the layer is written so.
    """
    d, H = layer.hidden_size, layer.num_experts
    computed = 1 if layer.routing == "sequence" and layer.top_k == 1 else H
    router = _product(tokens if layer.routing == "token" else 1, d, H)
    return expert_layer_params(d, H), router + _static_layer(config, computed, tokens)[1]


def _layer(layer: nn.Module, config: PreTrainedConfig, tokens: int) -> Size:
    """An encoder layer, whatever its kind."""
    if isinstance(layer, StaticLayer):
        return _static_layer(config, layer.kept, tokens)
    if isinstance(layer, ExpertLayer):
        return _expert_layer(layer, config, tokens)
    return _dense_layer(config, tokens)


def _position_flops(config: PreTrainedConfig, tokens: int, width: int, *, dense: bool = False) -> int:
    """What relative positions take in a layer with heads of `width` features in all."""
    return family_of(config).position_flops(config, tokens, width, dense=dense)


# A whole model

_ONE_POSITION = ("ForSequenceClassification", "ForMultipleChoice")
_EVERY_POSITION = ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


def _rest(model: PreTrainedModel, tokens: int) -> tuple[int, int]:
    """Parameters and FLOPs of everything outside the encoder layers: embeddings, pooler, head."""
    layers = encoder_layers(model)
    inside = {id(module) for module in layers.modules()}
    params = counted_params(model) - counted_params(layers)
    flops = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module) not in inside:
            rows = _positions(model, name, tokens)
            flops += _product(rows, module.in_features, module.out_features)
    return params, flops


def _positions(model: PreTrainedModel, name: str, tokens: int) -> int:
    """How many token positions the linear map `name`, which is outside the encoder layers, is applied to."""
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
        f"the FLOPs of the head of {type(model).__name__} are not known; known are bare encoders and models "
        f"{', '.join(_ONE_POSITION + _EVERY_POSITION)}."
    )


def _total(model: PreTrainedModel, layers: Sequence[Size], tokens: int) -> Cost:
    """Cost of a model with these layers."""
    if tokens < 1:
        raise ShrpError(f"tokens must be 1 or more, not {tokens}.")
    (params, flops), rest = (sum(part) for part in zip((0, 0), *layers, strict=True)), _rest(model, tokens)
    return Cost(params, params + rest[0], flops, flops + rest[1], tokens)


def cost(model: PreTrainedModel, tokens: int = TOKENS) -> Cost:
    """Cost of a model by formula, its layers dense, routed or static in any mixture.

    Args:
        model: of a supported family, on any device (meta too); nothing is run.
        tokens: length of the one input, all tokens real.

    Raises:
        UnsupportedModelError: no adapter for its family, or a head of unknown cost.
        ShrpError: `tokens` is below 1.
    """
    return _total(model, [_layer(layer, model.config, tokens) for layer in encoder_layers(model)], tokens)


def dense_cost(
    model_or_config: PreTrainedModel | PreTrainedConfig, tokens: int = TOKENS, *, dropped: int = 0
) -> Cost:
    """Cost of the same architecture with every layer dense and its whole vocabulary: the denominator of a share.

    Args:
        model_or_config: a model, converted or not, whose own head counts; or a config, which stands for a
            sequence classifier of `config.num_labels` outputs.
        tokens: length of the one input, all tokens real.
        dropped: how many of the layers are left out.

    Raises:
        UnsupportedModelError, ShrpError: as `cost`.
    """
    family_of(model_or_config)
    model = model_or_config
    if not isinstance(model, PreTrainedModel):
        with torch.device("meta"):  # sizes without storage
            model = AutoModelForSequenceClassification.from_config(model)
    found = _partly_dense(model, [], dropped, tokens)
    embeddings = model.get_input_embeddings()
    whole = getattr(model.config, WHOLE_VOCABULARY, None) or embeddings.num_embeddings
    taken = (whole - embeddings.num_embeddings) * embeddings.embedding_dim
    return replace(found, model_params=found.model_params + taken)


def static_cost(model: PreTrainedModel, layers: int, kept: int, tokens: int = TOKENS) -> Cost:
    """Cost of the same architecture with `layers` layers static, of `kept` experts in all, however these are spread.

    Raises:
        UnsupportedModelError, ShrpError: as `cost`.
    """
    sizes = [_static_layer(model.config, m, tokens) for m in [0] * (layers - 1) + [kept]]  # linear in m
    return _partly_dense(model, sizes, layers, tokens)


def narrow_cost(model: PreTrainedModel, layers: int, experts: int, tokens: int = TOKENS) -> Cost:
    """Cost of the same architecture with `layers` layers under width pruning to the size of so many experts, a control.

    Raises:
        UnsupportedModelError, ShrpError: as `cost`.
    """
    return _partly_dense(model, [_narrow_layer(model.config, experts, tokens)] * layers, layers, tokens)


def _partly_dense(model: PreTrainedModel, sizes: Sequence[Size], replaced: int, tokens: int) -> Cost:
    """Cost with `replaced` layers of these sizes in all, the rest dense, and the vocabulary as it is."""
    dense = [_dense_layer(model.config, tokens)] * (len(encoder_layers(model)) - replaced)
    return _total(model, [*dense, *sizes], tokens)


def plan_cost(model: PreTrainedModel, plan: PruningPlan, tokens: int = TOKENS) -> Cost:
    """Cost of `prune(model, plan)`, without building it.

    Raises:
        PlanError: the plan does not fit, or the model has no routed layer.
        UnsupportedModelError: a head of unknown cost.
        ShrpError: `tokens` is below 1.
    """
    return static_cost(model, len(prunable_layers(model, plan)), plan.budget, tokens)


_COSTS = {
    "encoder_params": "the dense encoder's parameters",
    "model_params": "the whole dense model's parameters",
    "encoder_flops": "the dense encoder's FLOPs",
    "model_flops": "the whole dense model's FLOPs",
}


def largest_budget(model: PreTrainedModel, share: float, of: str = "encoder_params") -> int:
    """The most experts in all, at least one a routed layer, of a pruning that costs no more than a share of the dense
    model, which holds for a share as it is printed: a tenth of a percent is reached by what rounds to it.

    Args:
        share: above 0, at most 1.
        of: a cost of `Cost.relative_to`: encoder_params, model_params, encoder_flops or model_flops, FLOPs at 128
            tokens.

    Raises:
        PlanError: the model has no routed layer, the share or the cost is none, or the smallest pruning costs more.
    """
    if of not in _COSTS:
        raise PlanError(f"a cost is one of {', '.join(_COSTS)}, not {of!r}.")
    layers, dense = len(expert_layers(model)), dense_cost(model, TOKENS)
    if not layers:
        raise PlanError("this model has no routed layer, so there is nothing to prune.")
    if not 0 < share <= 1:
        raise PlanError(f"a share of the dense model is above 0 and at most 1, not {share:g}.")

    def costs(kept: int) -> float:
        return static_cost(model, layers, kept, TOKENS).relative_to(dense)[of]

    most = share + 0.0005
    if costs(layers) > most:
        found = f"{costs(layers):.1%} of {_COSTS[of]}"
        raise PlanError(f"the smallest pruning, one expert a layer, has {found}, more than {share:.1%}.")
    return max(kept for kept in range(layers, layers * num_experts_of(model) + 1) if costs(kept) <= most)


def counted_params(model: nn.Module) -> int:
    """Parameters that a module really holds; a tensor that it uses twice counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def counted_flops(model: PreTrainedModel, tokens: int = TOKENS) -> int:
    """FLOPs of the matrix products of a real forward pass on one random input of `tokens` tokens.

    The check of `cost`, for tests and benchmarks; torch's counter hooks every module in the process while it
    runs, so the app, which serves several threads, uses the formulas.

    Raises:
        ShrpError: the model is in training mode, where a routed layer computes all experts.
    """
    if model.training:
        raise ShrpError("FLOPs are counted at inference; call model.eval() first.")
    inputs = model_inputs(model, 1, tokens)
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={cpu_attention: _cpu_attention_flops})
    with torch.no_grad(), counter:
        model(**inputs)
    return counter.get_total_flops()


def _cpu_attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object
) -> int:
    """FLOPs inside the fused attention kernel for CPUs, which torch's counter passes over."""
    return sdpa_flop_count(query, key, value)
