"""Dense encoder layers become expert layers, in place, in any stock Hugging Face model of a supported family."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.errors import ShrpError
from shrp.families.families import encoder_layers, family_of
from shrp.families.family import Output
from shrp.model.config import ShrpConfig
from shrp.model.layers import ExpertLayer, StaticLayer
from shrp.model.partial import StandIn, run_from, skipped


def num_experts_of(model: PreTrainedModel) -> int:
    """Heads of a dense layer, which is the number of experts `H` of a converted one."""
    return model.config.num_attention_heads


def empty_expert_layer(model: PreTrainedModel, index: int, config: ShrpConfig) -> ExpertLayer:
    """An `ExpertLayer` of the model's geometry with fresh weights."""
    family, hf = family_of(model), model.config
    norm = family.layers(model)[index].get_submodule(family.norm)
    return ExpertLayer(
        layer=index,
        hidden_size=hf.hidden_size,
        num_experts=num_experts_of(model),
        routing=config.routing,
        top_k=config.top_k,
        eps=getattr(norm, "eps", 1e-5),  # ModernBERT's first layer has none
        gain=config.expander_gain,
        dropout=getattr(hf, family.dropout),
        attention_dropout=getattr(hf, family.attention_dropout),
        family=family.of_layer(hf, index),
        self_path=config.self_path,
        norm=copy.deepcopy(norm).requires_grad_(True),
    )


@torch.no_grad()
def convert_layer(model: PreTrainedModel, index: int, config: ShrpConfig) -> ExpertLayer:
    """Replace dense layer `index` of `model` by an `ExpertLayer`, in place, and return it.

    Expert `h` gets the dense head `h`'s slice of Q, K and V; the LayerNorm starts from the dense layer's last one, or in
    pre-norm families its first; Router and Expander are new, drawn from torch's global generator. `config.layers` is not read.

    Raises:
        UnsupportedModelError: the model's family has no adapter.
        ShrpError: the layer does not exist or is converted already.
    """
    family = family_of(model)
    layers = family.layers(model)
    ShrpConfig((index,), config.routing, config.top_k).check_fits(len(layers), num_experts_of(model))
    dense = layers[index]
    if isinstance(dense, (ExpertLayer, StaticLayer)):
        raise ShrpError(f"layer {index} is converted already; convert a layer that is still dense.")
    expert = empty_expert_layer(model, index, config)
    weight, bias = family.qkv(dense)
    shape = (3, expert.num_experts, expert.head_size)
    expert.qkv_weight.copy_(weight.view(*shape, -1).transpose(0, 1).flatten(1, 2))  # (H, 3 dh, d)
    expert.qkv_bias.copy_(bias.view(shape).transpose(0, 1).flatten(1))  # (H, 3 dh)
    reference = next(dense.parameters())
    layers[index] = expert.to(reference.device, reference.dtype).train(dense.training)
    return layers[index]


def convert(model: PreTrainedModel, config: ShrpConfig) -> PreTrainedModel:
    """Convert every layer that `config` names, in place, and return the model; errors as `convert_layer`."""
    config.check_fits(len(encoder_layers(model)), num_experts_of(model))
    for index in config.layers:
        convert_layer(model, index, config)
    return model


def expert_layers(model: PreTrainedModel) -> dict[int, ExpertLayer]:
    """The routed layers of a model, by index, ascending."""
    return {i: layer for i, layer in enumerate(encoder_layers(model)) if isinstance(layer, ExpertLayer)}


def layer_kinds(model: PreTrainedModel) -> list[str]:
    """`dense`, `routed` or `static` for each encoder layer, in order."""
    kinds = {"routed": ExpertLayer, "static": StaticLayer, "dense": nn.Module}
    return [next(kind for kind, cls in kinds.items() if isinstance(one, cls)) for one in encoder_layers(model)]


def new_parameters(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that SHRP adds (Router, Expander, self path), which train at their own rate."""
    parts = (".router.", ".expander.", ".self_path.")
    return {name for name, _ in model.named_parameters() if any(part in name for part in parts)}


# --- Initialising an Expander from the dense layer, before any gradient step ---

_LINEAR = 3.0
"""Where GELU is the identity to within 0.4%, for pre-activations spread about it with unit variance."""
_RIDGE = 1e-3
_MOST = 2**28
"""Most numbers in all experts' updates of all tokens; beyond it tokens are skipped. Four bytes each, and two such arrays
while the norm is fitted: 2 GiB."""


@torch.no_grad()
def fit_expander(
    model: PreTrainedModel,
    index: int,
    dense: nn.Module,
    batches: Iterable[tuple[dict[str, Tensor], Tensor | None]],
) -> None:
    """Fit the Expander of layer `index` to the residual update of `dense`, the layer that it replaced.

    A least-squares fit. The target is the dense layer's whole residual update `r`: what enters its last LayerNorm, or in
    pre-norm families what it returns, less the layer's input. It is regressed on the outputs `u` of single
    experts, as a router that is still near uniform may choose any of them: `r ~ A (u - E u) + E r`. The Expander can
    represent that map: `W` is a multiple of `A` with its bias in GELU's linear range, and the LayerNorm's gain and bias
    are then fitted in each dimension. So are, in post-norm families, those of the layer's own LayerNorm, to what the dense
    layer returns: without most of `r` what enters it is smaller, and it would enlarge the input's share.

    Args:
        model: holds the new `ExpertLayer` at `index`; changed in place.
        dense: not changed; other models may share it and run at the same time.
        batches: model inputs, `(B, T)` each, and what enters the layer, `(B, T, d)`, or None for what the model's lower
            layers make of them; if they hold very many tokens, only every second or third is used.
    """
    layer = encoder_layers(model)[index]
    assert isinstance(layer, ExpertLayer)
    device, was_training = layer.qkv_weight.device, model.training
    dense = copy.deepcopy(dense).eval()
    model.eval()
    try:
        samples = [
            _sample(model, index, layer, dense, {k: v.to(device) for k, v in inputs.items()}, states)
            for inputs, states in batches
        ]
    finally:
        model.train(was_training)
    every = math.ceil(sum(len(s[1]) for s in samples) * layer.num_experts * layer.hidden_size / _MOST)
    outputs = torch.cat([s[0] for s in samples], 1)[:, ::every]  # (H, N, dh), every such token in order
    update, states = (torch.cat([s[i] for s in samples])[::every] for i in (1, 2))  # (N, d)
    mean_u, mean_r = outputs.mean((0, 1)), update.mean(0)
    u = outputs - mean_u
    spread = torch.einsum("hni,hnj->ij", u, u) / u.shape[0] / u.shape[1]
    shared = torch.einsum("hni,nd->id", u, update - mean_r) / u.shape[0] / u.shape[1]
    ridge = _RIDGE * spread.diagonal().mean() * torch.eye(len(spread), device=device)
    weight = torch.linalg.solve(spread + ridge, shared).T  # A, (d, dh)
    scale = (weight @ spread @ weight.T).diagonal().mean().clamp_min(1e-12).rsqrt()
    expander = layer.expander
    expander.dense.weight.copy_(scale * weight)
    expander.dense.bias.copy_(_LINEAR - scale * weight @ mean_u)
    made = _fit_norm(expander.norm, F.gelu(expander.dense(outputs)), update)
    if not layer.family.pre_norm:
        wanted = layer.norm(states + update)  # of the dense layer, whose norm it still is
        _fit_norm(layer.norm, made.add_(states), wanted)


def _fit_norm(norm: nn.Module, inner: Tensor, target: Tensor) -> Tensor:
    """Fit a LayerNorm's gain and bias in each dimension, by least squares.

    Args:
        inner: what enters it, `(H, N, d)`.
        target: what it should return, `(N, d)`, the same for all experts.

    Returns:
        What it then returns, `(H, N, d)`.
    """
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    outputs, mean_target = norm(inner), target.mean(0)
    mean, spread = outputs.mean((0, 1)), outputs.var((0, 1), correction=0).clamp_min(1e-6)
    outputs.sub_(mean)  # in place, as below: each of these takes as much as `_MOST` says
    gain = torch.einsum("hnd,nd->d", outputs, target - mean_target) / len(outputs) / len(target) / spread
    norm.weight.copy_(gain)
    norm.bias.copy_(mean_target - gain * mean)
    return outputs.mul_(gain).add_(mean_target)


def _sample(
    model: PreTrainedModel,
    index: int,
    layer: ExpertLayer,
    dense: nn.Module,
    inputs: dict[str, Tensor],
    states: Tensor | None,
) -> tuple[Tensor, ...]:
    """Expert outputs `(H, N, dh)` and the dense layer's updates and inputs, `(N, d)`, of a batch's real tokens; float32.

    `dense` gets a hook, so it must be no other model's.
    """
    family, caught = layer.family, {}
    sums: list[Tensor] = []  # a feed-forward network may take a text's tokens in several chunks

    def run(states: Tensor, attention_mask: Tensor | None = None, *args: object, **kwargs: object) -> Output:
        mask, relative = family.attention_mask(attention_mask), family.relative(args, kwargs)
        caught["input"] = states
        caught["outputs"] = layer.expert_outputs(states, mask, relative)  # (B, H, T, dh)
        return dense(states, attention_mask, *args, **kwargs)

    changed = {i: skipped(family) for i in range(index, len(encoder_layers(model)))}
    changed[index] = StandIn(run)
    if family.pre_norm:
        hook = dense.register_forward_hook(lambda _, args, output: sums.append(output))
    else:
        norm = dense.get_submodule(family.norm)
        hook = norm.register_forward_pre_hook(lambda _, args: sums.append(args[0]))
    with hook:
        run_from(model, inputs, 0 if states is None else index, states, replacements=changed)
    real = inputs["attention_mask"].bool()
    states = caught["input"].float()[real]
    update = torch.cat(sums, 1).float()[real] - states
    return caught["outputs"].float().permute(1, 0, 2, 3)[:, real], update, states
