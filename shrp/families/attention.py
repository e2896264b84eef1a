"""Attention of heads under the masks and relative positions of every supported family.

Shapes: `B` inputs, `T` tokens, `d` hidden size, `H` heads of `dh` dimensions, `m` of them computed, `S` distances.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A layer's query and key projections for some heads: `(S, d)` -> two of `(m, S, dh)`."""


class HeadPositions(ABC):
    """What relative positions add to the attention scores of `m` heads of one layer."""

    scale: float = 1.0
    """Factor of the product of queries and keys, next to the usual `dh ** -0.5`."""

    def turned(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `(B, m, T, dh)` as they are multiplied."""
        return query, key

    @abstractmethod
    def scores(self, query: Tensor, key: Tensor) -> Tensor | None:
        """The added scores, scaled, `(B or 1, m or 1, T, T)`, for what `turned` returns; None if nothing is added."""

    def of_first(self) -> Tensor | None:
        """What is added to the first token's scores, `(m, T)`; None if it depends on the tokens."""
        return None

    @abstractmethod
    def one_each(self) -> HeadPositions:
        """The same for `m` inputs with one head each: `(m, 1, T, T)`."""

    @abstractmethod
    def within(self, tokens: int) -> HeadPositions:
        """The same for shorter inputs; only distances count, so any neighbouring tokens will do."""


class RelativePositions(ABC):
    """Relative positions in one pass of `T` tokens, shared by the encoder's layers."""

    @abstractmethod
    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """What they add for some heads of a layer (indices among the dense layer's heads; None for all).

        `project` are the layer's projections for these heads.
        """


def traced() -> bool:
    """Whether torch compiles, exports or traces the current pass: then it must not branch on values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def positions_of(
    layer: nn.Module, relative: RelativePositions | None, experts: Sequence[int] | Tensor | None = None
) -> HeadPositions | None:
    """What relative positions add for the heads of an `ExpertLayer` or a `StaticLayer`; None in most families.

    `experts`: some of the layer's own; a tensor `(B,)` names one for each input. None for all of them.
    """
    if relative is None:
        return None
    heads = layer.heads if experts is None else experts
    return relative.of_heads(heads, lambda distances: _project(layer, distances, experts))


def _project(
    layer: nn.Module, distances: Tensor, experts: Sequence[int] | Tensor | None
) -> tuple[Tensor, Tensor]:
    """Queries and keys of distance embeddings: `(S, d)` -> `(m, S, dh)` each."""
    weight, bias = layer.head_weights()  # (m, 3 dh, d), (m, 3 dh)
    places = None
    if isinstance(experts, Tensor) and not traced():  # each expert once, however many inputs chose it
        experts, places = experts.unique(return_inverse=True)
    if experts is not None:
        experts = experts if isinstance(experts, Tensor) else list(experts)
        weight, bias = weight[experts], bias[experts]
    rows = F.dropout(distances, layer.dropout, layer.training)
    both = 2 * layer.head_size
    found = rows @ weight[:, :both].transpose(1, 2) + bias[:, None, :both]  # (m, S, 2 dh)
    return (found if places is None else found[places]).split(layer.head_size, -1)


def token_mask_of(attention_mask: Tensor | None) -> Tensor | None:
    """Reduce the mask that an encoder passes to its layers to `(B, T)` bool, True for real tokens.

    Accepts None (nothing padded), `(B, 1, T, T)` or `(B, 1, 1, T)` bool (SDPA) or additive float (eager), and `(B, T)`.
    An encoder's mask hides the same keys from every query, so one row is enough.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() == 4:
        attention_mask = attention_mask[:, 0, 0, :]
        return attention_mask if attention_mask.dtype == torch.bool else attention_mask >= 0
    return attention_mask.bool()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    positions: HeadPositions | None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention output of heads, `softmax(q k^T / sqrt(dh) + mask) v`, all `(B, H, T, dh)`.

    `attention_mask`: in any form that `token_mask_of` accepts.
    """
    bias = attention_mask
    if bias is not None:
        # One row of queries: a bool mask becomes an additive one in every layer, `T` times as costly for all rows.
        bias = bias.bool()[:, None, None, :] if bias.dim() == 2 else bias[:, :, :1]
        bias = bias if bias.dtype == torch.bool else bias.to(query.dtype)
    scale = None
    if positions is not None:
        query, key = positions.turned(query, key)
        scale, added = positions.scale * query.shape[-1] ** -0.5, positions.scores(query, key)
        if bias is None or added is None:
            bias = added if bias is None else bias
        elif bias.dtype == torch.bool:
            bias = added.masked_fill(~bias, torch.finfo(added.dtype).min)
        else:
            bias = added + bias
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)


def attention_probs(
    query: Tensor, key: Tensor, attention_mask: Tensor | None, positions: HeadPositions | None
) -> Tensor:
    """Attention probabilities `(B, H, T, T)` of queries and keys `(B, H, T, dh)`; rows are queries."""
    if positions is not None:
        query, key = positions.turned(query, key)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if positions is not None:
        added = positions.scores(query, key)
        scores = scores * positions.scale + (0.0 if added is None else added)
    mask = token_mask_of(attention_mask)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1)
