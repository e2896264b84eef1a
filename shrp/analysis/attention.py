"""Attention of a layer's experts, or a dense layer's heads: maps for one input, and roles over a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import entr
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.explore import token_labels
from shrp.data.batching import collate, encode, longest_input, read, special_mask, token_counts, token_spans
from shrp.data.text_data import TextData, pairs_among, units_of
from shrp.errors import DataError, PlanError
from shrp.evaluation.statistics import of_mean
from shrp.families.attention import RelativePositions, attention_probs
from shrp.families.families import encoder_layers, family_of, relative_positions
from shrp.model.convert import layer_kinds
from shrp.model.partial import run_from, run_layers
from shrp.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Pattern:
    """Attention of one expert: a row a query token, a column a key token; every row sums to 1."""

    weights: np.ndarray
    """`(T, T)`."""
    tokens: tuple[str, ...]
    hidden: float
    """Share of attention to tokens left out, mean over rows."""

    @property
    def spread(self) -> float:
        """Effective number of tokens attended to, 1 to `T`: mean exp(entropy) of the rows; nan if all are 0."""
        rows = self.weights[self.weights.sum(1) > 0].astype(np.float64)
        return float(np.exp(entr(rows).sum(1)).mean()) if len(rows) else float("nan")


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """Attention of every expert of one layer in one input; of a dense layer all heads, of a static one the kept ones."""

    layer: int
    kind: str
    """`routed`, `static` or `dense`."""
    heads: tuple[int, ...]
    """The expert, or head, of each of the `m` maps."""
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    full_length: int
    """Tokens of the whole text, before it was cut."""
    special: np.ndarray
    """`(T,)` bool: tokens that the tokenizer added."""
    weights: np.ndarray
    """`(m, T, T)`: the layer's attention probabilities, rows are queries."""
    probs: np.ndarray | None
    """Router probabilities, `(H,)`, or `(T, H)` under token routing; None without a router."""
    top_k: int = 1
    """How many experts fire together."""

    @property
    def firing(self) -> tuple[int, ...]:
        """The experts that fire for the whole input, likeliest first; none without a router or under token routing."""
        if self.probs is None or self.probs.ndim == 2:
            return ()
        return tuple(np.argsort(-self.probs, kind="stable")[: self.top_k].tolist())

    def pattern(self, expert: int, *, without_special: bool = False) -> Pattern:
        """One expert's attention.

        `without_special`: leave special tokens out and renormalise each row; a row with nothing left is 0.
        """
        weights = self.weights[self.heads.index(expert)]
        if not without_special or self.special.all():
            return Pattern(weights, self.tokens, 0.0)
        kept = np.flatnonzero(~self.special)
        weights = weights[np.ix_(kept, kept)]
        left = weights.sum(1, keepdims=True)
        shares = np.divide(weights, left, out=np.zeros_like(weights), where=left > 0)
        return Pattern(shares, tuple(self.tokens[i] for i in kept), float(1 - left.mean()))


def layer_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: tuple[str, ...],
    layer: int,
    *,
    max_length: int = 128,
) -> LayerAttention:
    """Attention in one layer when the model reads `text`; the layers above don't run.

    Raises:
        DataError: the tokenizer can't read the text.
    """
    kinds = layer_kinds(model)
    encoded = encode(tokenizer, [text], longest_input(model, tokenizer, max_length))
    ids = encoded[0]["input_ids"]
    module, kind, probs, top_k = encoder_layers(model)[layer], kinds[layer], None, 1
    with torch.inference_mode():
        hidden = run_layers(model, collate(tokenizer, encoded, [0], model.device), 0, layer)
        relative = relative_positions(model, len(ids), layer)
        if kind == "dense":
            weights = _dense_maps(model, layer, hidden, relative)
            heads = range(model.config.num_attention_heads)
        else:
            weights, heads = module.attention_maps(hidden, relative=relative), module.heads
        if kind == "routed":
            probs, top_k = module.route(hidden, None)[0].float().cpu().numpy(), module.top_k
    full_length = token_counts(tokenizer, [text])[0]
    about = layer, kind, tuple(heads), text, token_labels(tokenizer, ids), full_length
    maps = weights[0].float().cpu().numpy()
    return LayerAttention(*about, special_mask(tokenizer, ids), maps, probs, top_k)


def _dense_maps(
    model: PreTrainedModel, layer: int, hidden_states: Tensor, relative: RelativePositions | None
) -> Tensor:
    """Attention probabilities of a dense layer's heads, `(B, H, T, T)`."""
    family, heads = family_of(model), model.config.num_attention_heads
    dense = encoder_layers(model)[layer]
    if family.pre_norm:
        hidden_states = dense.get_submodule(family.norm)(hidden_states)
    weight, bias = (part.unflatten(0, (3, -1))[:2].flatten(0, 1) for part in family.qkv(dense))

    def project(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, `(..., S, d)` -> `(..., H, S, dh)` each."""
        both = F.linear(rows, weight, bias).unflatten(-1, (2, heads, -1))  # (..., S, 2, H, dh)
        return both.movedim(-3, 0).transpose(-2, -3).unbind(0)

    positions = None if relative is None else relative.of_heads(None, project)
    return attention_probs(*project(hidden_states), None, positions)


INPUTS = 96
"""Most examples."""
ROLES = FIRST, SEPARATORS, ITSELF, PREVIOUS, NEXT, SAME, MATCHING, OTHER = (
    "first token",
    "separators",
    "itself",
    "previous token",
    "next token",
    "rest of its text",
    "same token, other text",
    "rest of other text",
)
"""Where a token's attention goes; the shares of an expert sum to 1. Only a pair has another text."""
_BATCH = 16


@dataclass(frozen=True, eq=False)
class AttentionRoles:
    """Shares of attention by role, of every expert in every example, whether routed to it or not."""

    data: str
    roles: tuple[str, ...]
    """The `R` of `ROLES` that these data have."""
    shares: Mapping[int, np.ndarray]
    """Layer -> `(N, H, R)` float32: means over an example's own tokens; `H` experts, or those kept."""
    units: np.ndarray | None = None
    """`(N,)`: unit of each example (`units_of`); None takes each by itself."""

    @property
    def n(self) -> int:
        """Sampled examples that have a token of their own."""
        return len(next(iter(self.shares.values())))

    @property
    def layers(self) -> list[int]:
        """Expert layers, or those of kept heads, ascending."""
        return sorted(self.shares)

    def mean(self, layer: int) -> np.ndarray:
        """`(H, R)`: means over examples."""
        return self.shares[layer].mean(0)

    def interval(self, layer: int) -> np.ndarray:
        """95% intervals of `mean` over units, `(H, R, 2)`, cut to 0 and 1; nan where all examples are equal."""
        ends = np.apply_along_axis(of_mean, 0, self.shares[layer].astype(np.float64), self.units)  # (2, H, R)
        return np.moveaxis(ends, 0, -1).clip(0, 1)


def attention_roles(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    inputs: int = INPUTS,
    max_length: int = 128,
    progress: Progress = silent,
) -> AttentionRoles:
    """Measure where each expert attends to, on at most `inputs` examples, of each class some.

    Raises:
        PlanError: the model has no layer with experts.
        DataError: the data are empty, or no example has a token; the tokenizer is a slow one; or the weights are not finite.
    """
    kinds = layer_kinds(model)
    layers = {i: layer for i, layer in enumerate(encoder_layers(model)) if kinds[i] in ("routed", "static")}
    if not layers:
        raise PlanError(
            "this model has no layers of experts or kept heads, so there is no attention of these."
        )
    if not len(data):
        raise DataError(f"{data.name} is empty; attention needs at least one input.")
    limit = longest_input(model, tokenizer, max_length)
    rows = data.stratified_order()[:inputs]
    units, drawn = units_of(len(rows), pairs_among(data, rows)), []
    sampled = [data.texts[i] for i in rows]
    parts = [[span and span[0] for span in token_spans(tokenizer, text, limit)] for text in sampled]
    roles = ROLES if len(data.task.text_columns) == 2 else ROLES[: ROLES.index(MATCHING)]
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    for picked, batch in read(
        model, tokenizer, sampled, batch_size=_BATCH, max_length=limit, progress=progress
    ):
        length = batch["input_ids"].shape[1]
        of_each = [_places(parts[i], ids, length) for i, ids in zip(picked, batch["input_ids"].cpu().numpy())]
        places = torch.from_numpy(np.stack(of_each)[:, : len(roles)]).to(model.device).float()  # (B, R, T, T)
        own = places.sum((1, 3)).gt(0).sum(-1)  # (B,): tokens that attend
        drawn.append(units[picked][(own > 0).cpu().numpy()])
        with torch.inference_mode():
            _, entering = run_from(model, batch, watch=list(layers))
            for layer, module in layers.items():
                relative = relative_positions(model, length, layer)
                weights = module.attention_maps(entering[layer], batch["attention_mask"], relative)
                sums = torch.einsum("bhqk,brqk->bhr", weights.float(), places)
                found[layer].append((sums / own[:, None, None])[own > 0].cpu().numpy())
    shares = {layer: np.concatenate(batches) for layer, batches in found.items()}
    if not all(np.isfinite(share).all() for share in shares.values()):
        raise DataError("The experts' attention is not all finite numbers: the model's weights are spoilt.")
    if not len(next(iter(shares.values()))):
        raise DataError(f"no input of {data.name} has a token of its own that could attend to anything.")
    return AttentionRoles(data.name, roles, shares, np.concatenate(drawn))


def _places(parts: Sequence[int | None], ids: Sequence[int], length: int) -> np.ndarray:
    """Role of each place from each of an example's own tokens, bool `(R, length, length)`; rows are queries.

    `parts` has the text of each token; None for those that the tokenizer added.
    """
    size = len(parts)
    text = np.array([-1 if part is None else part for part in parts])
    offset = np.arange(size) - np.arange(size)[:, None]  # key less query
    added, same = (text == -1)[None, :], text == text[:, None]
    first, equal = np.arange(size) == 0, np.equal.outer(ids[:size], ids[:size])
    by_place = [added & first, added & ~first, offset == 0, same & (offset == -1), same & (offset == 1)]
    by_text = [same & (np.abs(offset) > 1), ~added & ~same & equal, ~added & ~same & ~equal]
    found = np.zeros((len(ROLES), length, length), dtype=bool)
    for role, one in enumerate(by_place + by_text):  # in the order of `ROLES`
        found[role, :size, :size] = one & (text[:, None] != -1)
    return found
