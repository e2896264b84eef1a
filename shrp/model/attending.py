"""What all layers do that attend: masks as encoders hand them down, scores, attention probabilities.

Shapes: `B` inputs, `T` tokens, `d` hidden size, `H` heads or experts of `dh` dimensions, of which `m` are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrp.families.relative import HeadPositions, RelativePositions


def token_mask_of(attention_mask: Tensor | None) -> Tensor | None:
    """Reduce the mask that an encoder hands its layers to `(B, T)` bool, True for real tokens.

    Accepts None (nothing padded), `(B, 1, T, T)` or `(B, 1, 1, T)` bool (SDPA) or additive float (eager),
    and `(B, T)`. An encoder's mask hides the same keys from every query, so one row says it all.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() == 4:
        attention_mask = attention_mask[:, 0, 0, :]
        return attention_mask if attention_mask.dtype == torch.bool else attention_mask >= 0
    return attention_mask.bool()


def _attention_bias(attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The mask in a form that `scaled_dot_product_attention` takes beside queries of `dtype`, `(B, 1, 1, T)`.

    Only one row of queries: a bool mask becomes an additive one in every layer, which for all `T` rows costs
    `T` times as much and says no more (`token_mask_of`).
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() == 2:
        return attention_mask.bool()[:, None, None, :]
    attention_mask = attention_mask[:, :, :1]
    return attention_mask if attention_mask.dtype == torch.bool else attention_mask.to(dtype)


def score_bias(
    attention_mask: Tensor | None, positions: HeadPositions | None, query: Tensor, key: Tensor
) -> Tensor | None:
    """What is added to the scores of queries and keys `(B, H, T, dh)`: the mask, and what relative positions say.

    Args:
        positions: of the heads that are computed, in families that have them.
    """
    mask = _attention_bias(attention_mask, query.dtype)
    if positions is None:
        return mask
    bias = positions.scores(query, key)
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
    return bias + mask


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    positions: HeadPositions | None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention output of heads, `(B, H, T, dh)`, from queries, keys and values of that shape.

    Args:
        attention_mask, positions: as for `score_bias`.
        dropout: of the probabilities.
    """
    bias = score_bias(attention_mask, positions, query, key)
    scale = None if positions is None else positions.scale * query.shape[-1] ** -0.5
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)


def attention_probs(
    query: Tensor, key: Tensor, attention_mask: Tensor | None, positions: HeadPositions | None
) -> Tensor:
    """Attention probabilities `(B, H, T, T)` of queries and keys `(B, H, T, dh)`; rows are queries."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if positions is not None:
        scores = scores * positions.scale + positions.scores(query, key)
    mask = token_mask_of(attention_mask)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


class KeptHeads(nn.Module):
    """Some of a dense layer's heads, their queries, keys and values one product: what pruned layers begin with."""

    qkv: nn.Linear
    """Rows: queries of all kept heads, then keys, then values."""
    head_size: int
    attention_dropout: float
    dropout: float

    @property
    def of_dense(self) -> Sequence[int] | Tensor:
        """Which of the dense layer's heads they are: relative positions may say another thing to each."""
        raise NotImplementedError

    def attended(
        self, hidden_states: Tensor, attention_mask: Tensor | None, relative: RelativePositions | None
    ) -> Tensor:
        """What each kept head takes from the tokens, `(B, m, T, dh)`; args as for `ExpertLayer.expert_outputs`."""
        dropout = self.attention_dropout if self.training else 0.0
        return attend(*self._split(hidden_states), attention_mask, self._positions(relative), dropout)

    def attention_maps(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Attention probabilities of the kept heads, `(B, m, T, T)`; args as for `ExpertLayer.attention_maps`."""
        query, key, _ = self._split(hidden_states)
        return attention_probs(query, key, attention_mask, self._positions(relative))

    def _positions(self, relative: RelativePositions | None) -> HeadPositions | None:
        return None if relative is None else relative.of_heads(self.of_dense, self._project)

    def _project(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of distances' embeddings, `(S, d)` -> `(m, S, dh)` each."""
        rows, both = F.dropout(distances, self.dropout, self.training), 2 * self.qkv.out_features // 3
        fused = F.linear(rows, self.qkv.weight[:both], self.qkv.bias[:both])
        query, key = fused.view(len(rows), 2, -1, self.head_size).permute(1, 2, 0, 3).unbind(0)
        return query, key

    def _split(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `(B, m, T, dh)` each."""
        b, t, _d = hidden_states.shape
        kept = self.qkv.out_features // (3 * self.head_size)
        fused = self.qkv(hidden_states).view(b, t, 3, kept, self.head_size)
        return fused.permute(2, 0, 3, 1, 4).unbind(0)
