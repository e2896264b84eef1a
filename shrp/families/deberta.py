"""DeBERTa-v2 and v3: disentangled attention, in which every layer projects an embedding of each distance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from shrp.errors import ShrpError, UnsupportedModelError
from shrp.families.attention import HeadPositions, Project, RelativePositions, traced
from shrp.families.family import Family, Output, refuse_attention_maps

_TERMS = 3
"""Of disentangled attention: content to content, content to position, position to content."""


@dataclass(frozen=True, eq=False)
class _HeadDistances(HeadPositions):
    query: Tensor
    key: Tensor
    """Of each distance, `(m, S, dh)`, or `(B, 1, S, dh)`."""
    places: Tensor
    """`(T, T)`: the distance's place among the `S`; rows are queries."""
    scale: float = _TERMS**-0.5

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        b, m, t, dh = query.shape
        to_position = query @ self.key.transpose(-1, -2)  # (B, m, T, S)
        to_content = key @ self.query.transpose(-1, -2)
        added = to_position.gather(-1, self.places.expand(b, m, t, t))
        added = added + to_content.gather(-1, self.places.T.expand(b, m, t, t)).transpose(-1, -2)
        return added * (_TERMS * dh) ** -0.5

    def one_each(self) -> HeadPositions:
        return replace(self, query=self.query.unsqueeze(1), key=self.key.unsqueeze(1))

    def within(self, tokens: int) -> HeadPositions:
        return replace(self, places=self.places[:tokens, :tokens])


@dataclass(frozen=True, eq=False)
class DistanceEmbeddings(RelativePositions):
    """An embedding for each distance, which every layer projects as it does its tokens (He et al. 2021, equation 4).

    The product of a query and a key is joined by those of the query with the distance's key (content to position) and
    of the key with the distance's query (position to content); all are divided by the root of `3 dh`.
    """

    embeddings: Tensor
    """`(S, d)`."""
    places: Tensor
    """`(T, T)`: each pair's row of them; rows are queries."""

    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """As in `RelativePositions`."""
        return _HeadDistances(*project(self.embeddings), self.places)


def _spans(config: PreTrainedConfig) -> tuple[int, int]:
    """Buckets of distances to either side, 0 where each distance has its own, and the furthest distance."""
    furthest = getattr(config, "max_relative_positions", -1)
    buckets = max(getattr(config, "position_buckets", -1), 0)
    return buckets, furthest if furthest >= 1 else config.max_position_embeddings


@dataclass(frozen=True)
class DebertaV2(Family):
    """`layer(hidden_states, attention_mask, relative_pos=..., rel_embeddings=...)` returns two things.

    The mask is `(B, 1, T, T)`, 1 where both tokens are real. `check` makes sure that positions have both terms of
    disentangled attention, as in DeBERTa-v2 and v3.
    """

    query: str = "attention.self.query_proj"
    key: str = "attention.self.key_proj"
    value: str = "attention.self.value_proj"

    def check(self, config: PreTrainedConfig) -> None:
        """As in `Family`: no convolution, both position terms, and heads that project distances as they do tokens."""
        buckets, furthest = _spans(config)
        has = {
            "relative_attention": getattr(config, "relative_attention", False),
            "share_att_key": getattr(config, "share_att_key", False),
            "pos_att_type with c2p": "c2p" in (config.pos_att_type or ()),
            "pos_att_type with p2c": "p2c" in (config.pos_att_type or ()),
            "conv_kernel_size 0": not getattr(config, "conv_kernel_size", 0),
            # So that no bucket's number is above the distance, which `relative` relies on.
            "max_relative_positions above e / 2 position_buckets": furthest - 1 >= math.e / 2 * buckets,
        }
        if lacks := [name for name, there in has.items() if not there]:
            raise UnsupportedModelError(
                f"this deberta-v2 lacks {', '.join(lacks)} in its config; "
                "SHRP supports models built like DeBERTa-v3."
            )

    def attention_mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """`(B, T)`: a token attends to itself unless it is padding; any one row may be that of a padded token."""
        if attention_mask is None or attention_mask.dim() != 4:
            return attention_mask
        return attention_mask[:, 0].diagonal(dim1=-2, dim2=-1)

    def graph_mask(self, attention_mask: Tensor) -> Tensor:
        """The plain `(B, T)`, from which the model makes its own."""
        return attention_mask

    def relative(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> RelativePositions | None:
        """From the encoder's distances `(1, T, T)` and their embeddings `(2 span, d)`; a `ShrpError` if they are missing."""
        distances, embeddings = kwargs.get("relative_pos"), kwargs.get("rel_embeddings")
        if not (isinstance(distances, Tensor) and isinstance(embeddings, Tensor)):
            raise ShrpError("a layer of a DeBERTa encoder needs relative_pos and rel_embeddings by keyword.")
        span = near = len(embeddings) // 2
        distances = distances[0]  # (T, T)
        if not traced():
            # No distance, nor its bucket's number, exceeds the number of tokens; each costs a layer two projections.
            near = min(distances.shape[-1], span)
            embeddings = embeddings[span - near : span + near]
        return DistanceEmbeddings(embeddings, (distances + near).clamp(0, 2 * near - 1))

    @torch.no_grad()
    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """By the encoder's own methods, of which the first looks only at the shape and device of its argument."""
        embeddings = encoder.get_rel_embedding()
        states = torch.empty(1, tokens, 1, device=embeddings.device)
        return self.relative((), {"relative_pos": encoder.get_rel_pos(states), "rel_embeddings": embeddings})

    def answer(self, hidden_states: Tensor, output: Tensor, kwargs: Mapping[str, object]) -> Output:
        """As in `Family`, and None; raises `UnsupportedModelError` if attention maps are asked for."""
        refuse_attention_maps(kwargs)
        return super().answer(hidden_states, output, kwargs), None

    def position_flops(self, config: PreTrainedConfig, tokens: int, width: int, *, dense: bool = False) -> int:
        """As in `Family`: distances are projected to queries and keys, and meet every token's key and query.

        The family's own layers do so with all distances that there are, ours with those that the input can have.
        """
        buckets, furthest = _spans(config)
        span = buckets or furthest
        distances = 2 * (span if dense else min(tokens, span))
        return 2 * (2 * distances * config.hidden_size * width) + 2 * (2 * tokens * width * distances)
