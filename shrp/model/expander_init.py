"""Start a new layer's Expander from what its dense layer does: a least-squares fit, before any gradient step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.families.calling import Output
from shrp.families.families import encoder_layers, family_of
from shrp.model.layers import ExpertLayer
from shrp.model.partial import run_from

_LINEAR = 3.0
"""Where GELU is the identity to within 0.4%, for pre-activations spread about it with unit variance."""
_RIDGE = 1e-3
_MOST = 2**28
"""Numbers in what all experts would add to all tokens: beyond it not all tokens are looked at. Four bytes each, and
while the last norm is fitted there are two of them at a time, 2 GiB.
"""


@torch.no_grad()
def fit_expander(
    model: PreTrainedModel, index: int, dense: nn.Module, batches: Iterable[dict[str, Tensor]]
) -> None:
    """Fit layer `index`'s Expander so that it adds what `dense`, the layer it replaced, added.

    The outer LayerNorm starts from the dense layer's last one, so the target is what enters that, less the layer's
    input: the dense layer's whole residual update `r`. It is regressed on the outputs `u` of single experts, since
    a Top-1 router that is near uniform still may pick any of them: `r ~ A (u - E u) + E r`. The Expander can hold
    that map: `W` a multiple of `A` with its bias in GELU's linear range, and the LayerNorm's gain and bias fitted in
    each dimension to what `W` leaves of it (method.md, "Training": initialising the Expander from the teacher).

    Args:
        model: holds the new `ExpertLayer` at `index`; changed in place.
        batches: model inputs, `(B, T)` each; all are used, of very many tokens every second one, or third, and so on.
    """
    layer = encoder_layers(model)[index]
    assert isinstance(layer, ExpertLayer)
    device = layer.qkv_weight.device
    was_training = model.training
    model.eval()
    try:
        samples = [
            _sample(model, index, layer, dense, {k: v.to(device) for k, v in b.items()}) for b in batches
        ]
    finally:
        model.train(was_training)
    heads, size = layer.num_experts, layer.hidden_size
    every = math.ceil(sum(len(s[1]) for s in samples) * heads * size / _MOST)  # token, in order
    outputs, update = (
        torch.cat([s[0] for s in samples], 1)[:, ::every],
        torch.cat([s[1] for s in samples])[::every],
    )  # (H, N, dh), (N, d)
    mean_u, mean_r = outputs.mean((0, 1)), update.mean(0)
    u = outputs - mean_u
    spread = torch.einsum("hni,hnj->ij", u, u) / u.shape[0] / u.shape[1]
    shared = torch.einsum("hni,nd->id", u, update - mean_r) / u.shape[0] / u.shape[1]
    ridge = _RIDGE * spread.diagonal().mean() * torch.eye(len(spread), device=device)
    weight = torch.linalg.solve(spread + ridge, shared).T  # (d, dh)
    scale = (weight @ spread @ weight.T).diagonal().mean().clamp_min(1e-12).rsqrt()
    expander = layer.expander
    expander.dense.weight.copy_(scale * weight)
    expander.dense.bias.copy_(_LINEAR - scale * weight @ mean_u)
    expander.norm.weight.fill_(1.0)
    expander.norm.bias.zero_()
    normal = expander(outputs)  # (H, N, d)
    mean = normal.mean((0, 1))
    centred = normal.sub_(mean)  # in place, as below: each of these takes as much as `_MOST` says
    spread = centred.square().mean((0, 1))
    gain = centred.mul_(update - mean_r).mean((0, 1)) / spread.clamp_min(1e-6)
    expander.norm.weight.copy_(gain)
    expander.norm.bias.copy_(mean_r - gain * mean)


def _sample(
    model: PreTrainedModel, index: int, layer: ExpertLayer, dense: nn.Module, inputs: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Real tokens' expert outputs `(H, N, dh)` and residual updates `(N, d)` of one batch, in float32."""
    caught: dict[str, Tensor] = {}
    sums: list[Tensor] = []  # a feed-forward network may take a text's tokens in several chunks
    before_norm = dense.get_submodule(family_of(model).last_norm).register_forward_pre_hook(
        lambda module, args: sums.append(args[0])
    )
    try:
        probe = _Probe(dense.eval(), layer, caught)
        run_from(model, inputs, replacements={index: probe})
    finally:
        before_norm.remove()
    real = inputs["attention_mask"].bool()
    update = (torch.cat(sums, 1) - caught["input"]).float()[real]
    return caught["outputs"].float().permute(1, 0, 2, 3)[:, real], update


class _Probe(nn.Module):
    """Runs the dense layer and keeps what both layers make of its input, for one call."""

    def __init__(self, dense: nn.Module, layer: ExpertLayer, caught: dict[str, Tensor]) -> None:
        super().__init__()
        self.dense, self.layer, self.caught = dense, layer, caught

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args, **kwargs) -> Output:
        calling = self.layer.calling
        mask, relative = calling.attention_mask(attention_mask), calling.relative(args, kwargs)
        self.caught["input"] = hidden_states
        self.caught["outputs"] = self.layer.expert_outputs(hidden_states, mask, relative)  # (B, H, T, dh)
        return self.dense(hidden_states, attention_mask, *args, **kwargs)
