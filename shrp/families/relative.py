"""What the distance of two tokens adds to heads' attention scores, in families whose positions are relative.

An encoder has one `RelativePositions` a pass, which its layers share; what it says to some heads of one layer is a
`HeadPositions`. Shapes: `B` inputs, `T` tokens, `d` hidden size, `H` heads of `dh` dimensions, of which `m` are asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A layer's query and key projections for the heads that are asked: `(S, d)` -> two of `(m, S, dh)`."""


class HeadPositions(ABC):
    """What relative positions add to the scores of `m` heads."""

    @property
    def scale(self) -> float:
        """Times the usual `dh ** -0.5`, the factor of the product of queries and keys."""
        return 1.0

    @abstractmethod
    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """What is added, scaled, `(B, m, T, T)` or `(1, m, T, T)`, beside queries and keys `(B, m, T, dh)`."""

    def of_first(self) -> Tensor | None:
        """What is added to the first token's scores, `(m, T)`, where it is the same whatever the tokens are."""
        return None

    @abstractmethod
    def one_each(self) -> HeadPositions:
        """The same where the `m` heads are those of as many inputs, one of each: `(m, 1, T, T)`."""

    @abstractmethod
    def within(self, tokens: int) -> HeadPositions:
        """The same for inputs of the first `tokens` tokens; only distances count, so any neighbours will do."""


class RelativePositions(ABC):
    """What an encoder's layers share of relative positions in a pass of `T` tokens."""

    @abstractmethod
    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """What they say to some heads of a layer.

        Args:
            heads: indices among the dense layer's, None for all of them.
            project: the layer's projections for these heads.
        """


@dataclass(frozen=True, eq=False)
class _HeadBias(HeadPositions):
    bias: Tensor
    """`(m, T, T)`, or `(B, 1, T, T)`."""

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        bias = self.bias.to(query.dtype)
        return bias if bias.dim() == 4 else bias.unsqueeze(0)

    def of_first(self) -> Tensor | None:
        return self.bias[:, 0] if self.bias.dim() == 3 else None

    def one_each(self) -> HeadPositions:
        return _HeadBias(self.bias.unsqueeze(1))

    def within(self, tokens: int) -> HeadPositions:
        return _HeadBias(self.bias[..., :tokens, :tokens])


@dataclass(frozen=True, eq=False)
class PositionBias(RelativePositions):
    """A number for each head and distance, whatever the tokens are, as in MPNet."""

    bias: Tensor
    """`(H, T, T)`."""

    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """As in `RelativePositions`; nothing is projected."""
        if heads is None:
            return _HeadBias(self.bias)
        # One at a time where they are known: exporters keep what they index by.
        picked = self.bias[heads] if isinstance(heads, Tensor) else torch.stack([self.bias[h] for h in heads])
        return _HeadBias(picked)


_TERMS = 3
"""Of disentangled attention: content to content, content to position, position to content."""


@dataclass(frozen=True, eq=False)
class _HeadDistances(HeadPositions):
    query: Tensor
    key: Tensor
    """Of each distance, `(m, S, dh)`, or `(B, 1, S, dh)`."""
    places: Tensor
    """`(T, T)`: the distance's place among the `S`, rows are queries."""

    @property
    def scale(self) -> float:
        return _TERMS**-0.5

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
    """An embedding for each distance, which every layer projects as it does its tokens: the disentangled attention of
    DeBERTa (He et al. 2021, equation 4).

    To the product of a query and a key come those of the query with the distance's key (content to position) and of the
    key with the distance's query (position to content), and all are divided by the root of `3 dh`.
    """

    embeddings: Tensor
    """`(S, d)`."""
    places: Tensor
    """`(T, T)`: each pair's row of them; rows are queries."""

    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """As in `RelativePositions`."""
        return _HeadDistances(*project(self.embeddings), self.places)
