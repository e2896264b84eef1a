"""Static layers on packed batches: the real tokens of all inputs as rows of one matrix, without padding or masks.

Experts are weighted afterwards, so that their outputs can be used again for every plan with the same input to the
layer. The result is that of `StaticLayer`, up to rounding. Shapes: `N` real tokens of `B`
inputs, `m` experts, `d` hidden size, `dh` head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from shrp.families.attention import RelativePositions, attend, positions_of
from shrp.model.layers import ExpertLayer


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the inputs of a padded batch `(B, T, d)` are in its packed form `(N, d)`."""

    mask: Tensor
    """`(B, T)` bool, True for real tokens."""
    groups: tuple[tuple[slice, slice, int], ...]
    """Neighbouring inputs of one length: their rows of the packed matrix, their places in the batch, the length."""
    firsts: Tensor
    """`(B,)`, the row of each input's first token."""

    @classmethod
    def of(cls, attention_mask: Tensor) -> Packing:
        """The packing of a batch; few groups, and so fast, where inputs of one length are neighbours."""
        mask = attention_mask.bool()
        lengths = mask.sum(1)
        groups, row, place = [], 0, 0
        for length, members in groupby(lengths.tolist()):
            inputs = len(list(members))
            groups.append((slice(row, row + inputs * length), slice(place, place + inputs), length))
            row, place = row + inputs * length, place + inputs
        return cls(mask, tuple(groups), lengths.cumsum(0) - lengths)

    def pack(self, padded: Tensor) -> Tensor:
        """`(B, T, d)` -> `(N, d)`."""
        return padded[self.mask]

    def unpack(self, packed: Tensor) -> Tensor:
        """`(N, d)` -> `(B, T, d)`, 0 where padded."""
        padded = packed.new_zeros(*self.mask.shape, packed.shape[-1])
        padded[self.mask] = packed
        return padded


def expert_outputs(
    layer: ExpertLayer,
    experts: Sequence[int],
    hidden_states: Tensor,
    packing: Packing,
    relative: RelativePositions | None = None,
) -> list[Tensor]:
    """The attention outputs of some experts, `(N, dh)` each, from what enters the layer, `(N, d)`.

    Args:
        relative: of at least as many tokens as the longest input has, in families that have them. Only the distance
            of two tokens counts there, so padding on the left shifts nothing.
    """
    positions = positions_of(layer, relative, experts)
    weight, bias = _weights(layer, experts)  # (m, 3 dh, d), (m, 3 dh)
    fused = F.linear(layer.read(hidden_states), weight.flatten(0, 1), bias.flatten())
    fused = fused.view(len(fused), len(experts), 3, layer.head_size)
    parts = []
    for rows, places, length in packing.groups:
        inputs = places.stop - places.start
        part = fused[rows].view(inputs, length, len(experts), 3, layer.head_size)
        query, key, value = part.permute(3, 0, 2, 1, 4).unbind(0)  # (inputs, m, length, dh) each
        attended = attend(query, key, value, None, positions and positions.within(length))
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    outputs = torch.cat(parts)  # (N, m, dh)
    return [outputs[:, i].contiguous() for i in range(len(experts))]


def first_token_outputs(
    layer: ExpertLayer,
    experts: Sequence[int],
    hidden_states: Tensor,
    packing: Packing,
    relative: RelativePositions | None = None,
) -> list[Tensor]:
    """As `expert_outputs`, but of each input's first token only, `(B, dh)` each.

    With one query an input, the key projection is better applied to the query, `q . (W_k x) = (W_k^T q) . x`, and
    the value projection to the attended mean of `x`: no token is projected. The keys' bias adds the same to all
    scores of a query, which the softmax does not see. Not so where relative positions meet keys.
    """
    positions = positions_of(layer, relative, experts)
    if positions is not None and positions.of_first() is None:
        outputs = expert_outputs(layer, experts, hidden_states, packing, relative)
        return [output[packing.firsts] for output in outputs]
    hidden_states = layer.read(hidden_states)
    weight, bias = _weights(layer, experts)
    w_query, w_key, w_value = weight.view(len(experts), 3, layer.head_size, -1).unbind(1)  # (m, dh, d) each
    b_query, _, b_value = bias.view(len(experts), 3, 1, layer.head_size).unbind(1)  # (m, 1, dh) each
    query = hidden_states[packing.firsts] @ w_query.transpose(1, 2) + b_query  # (m, B, dh)
    asked = (query @ w_key * layer.head_size**-0.5).transpose(0, 1)  # (B, m, d)
    attended = torch.empty_like(asked)
    for rows, places, length in packing.groups:
        tokens = hidden_states[rows].view(-1, length, layer.hidden_size)  # (inputs, length, d)
        scores = asked[places] @ tokens.transpose(1, 2)  # (inputs, m, length)
        if positions is not None:
            scores += positions.of_first()[:, :length]
        attended[places] = scores.softmax(-1) @ tokens
    values = attended.transpose(0, 1) @ w_value.transpose(1, 2) + b_value  # (m, B, dh)
    return list(values.unbind(0))


def static_output(
    layer: ExpertLayer, outputs: Sequence[Tensor], weights: Sequence[float], residual: Tensor
) -> Tensor:
    """What the layer's static form gives, `(N, d)`: experts' outputs `(N, dh)` each, combined with `weights`.

    `residual`: what entered the layer, `(N, d)`.
    """
    mixed = outputs[0] * weights[0]
    for output, weight in zip(outputs[1:], weights[1:], strict=True):
        mixed.add_(output, alpha=weight)
    if layer.self_path is not None:
        mixed.add_(layer.self_path(layer.read(residual)))
    return layer.output(residual, mixed)


def _weights(layer: ExpertLayer, experts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Projections of some experts, `(m, 3 dh, d)`, and their biases `(m, 3 dh)`."""
    return layer.qkv_weight[list(experts)], layer.qkv_bias[list(experts)]
