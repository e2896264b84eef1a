"""Where each expert's attention goes on average: to itself, to neighbours, to separators, to the other text.

Heads of a Transformer take such roles (Clark et al., "What Does BERT Look At?", 2019); an expert starts as one of them.
One that looks for its token in the other text of a pair is a matching one; `studies.experiments matching` measures
what such experts decide.

Shapes: `L` expert layers, `H` experts, `N` inputs, `R` roles, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import collate, encode, longest_input, token_spans
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.intervals import of_mean
from shrp.evaluation.minimal_pairs import pairs_among, units_of
from shrp.families.families import encoder_layers, relative_positions
from shrp.model.convert import layer_kinds
from shrp.model.partial import run_from

INPUTS = 96
"""Most sampled inputs."""
FIRST, SEPARATORS, ITSELF, PREVIOUS, NEXT, SAME, MATCHING, OTHER = (
    "first token",
    "separators",
    "itself",
    "previous token",
    "next token",
    "rest of its text",
    "same token, other text",
    "rest of other text",
)
ROLES = (FIRST, SEPARATORS, ITSELF, PREVIOUS, NEXT, SAME, MATCHING, OTHER)
"""Where a token's attention can go. Each place has one role, so an expert's shares sum to 1; `first token` and
`separators` are what the tokenizer adds (`[CLS]`, `[SEP]` and their like), and only a pair has an other text."""
_BATCH = 16


@dataclass(frozen=True, eq=False)
class AttentionRoles:
    """Shares of attention by role, of every expert in its layer's real inputs, whether they are routed to it or not."""

    data: str
    roles: tuple[str, ...]
    """The `R` of `ROLES` that there are in these data."""
    shares: Mapping[int, np.ndarray]
    """Layer -> `(N, H, R)` float32: means over an input's own tokens (not those that the tokenizer adds). `H` are the
    layer's experts, of a pruned layer those that it kept, of a narrow one its heads."""
    units: np.ndarray | None = None
    """`(N,)`: what is drawn as one where chance is asked (`shrp.evaluation.minimal_pairs.units_of`); None takes each by
    itself.
    """

    @property
    def n(self) -> int:
        """Sampled inputs that have a token of their own."""
        return len(next(iter(self.shares.values())))

    @property
    def layers(self) -> list[int]:
        """Expert layers, or those of kept heads, ascending."""
        return sorted(self.shares)

    def mean(self, layer: int) -> np.ndarray:
        """`(H, R)`: means over inputs, each expert's summing to 1."""
        return self.shares[layer].mean(0)

    def interval(self, layer: int) -> np.ndarray:
        """95% intervals of `mean` over inputs (`shrp.evaluation.intervals.of_mean`; the two of a minimal pair are
        drawn as one), `(H, R, 2)`, cut to 0 and 1; nan for a single input, and where all inputs are alike.
        """
        ends = np.apply_along_axis(of_mean, 0, self.shares[layer].astype(np.float64), self.units)  # (2, H, R)
        return np.moveaxis(ends, 0, -1).clip(0, 1)


def attention_roles(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    inputs: int = INPUTS,
    max_length: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> AttentionRoles:
    """Run a model on some inputs of each class and see where every expert attends to, routed or kept by pruning, and
    every kept head of the `narrow` control.

    Args:
        inputs: at most so many.
        progress: called with inputs done and in all.

    Raises:
        PlanError: the model has no layer with experts, or with kept heads.
        DataError: the data are empty, or no input has a token; or the tokenizer is a slow one.
    """
    kinds = enumerate(zip(encoder_layers(model), layer_kinds(model), strict=True))
    layers = {index: layer for index, (layer, kind) in kinds if kind in ("routed", "static", "narrow")}
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
    encoded = encode(tokenizer, sampled, limit)
    parts = [
        [None if span is None else span[0] for span in token_spans(tokenizer, text, limit)]
        for text in sampled
    ]
    order = np.argsort([len(row["input_ids"]) for row in encoded], kind="stable")
    roles = ROLES if len(data.task.text_columns) == 2 else ROLES[: ROLES.index(MATCHING)]
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    for start in range(0, len(order), _BATCH):
        picked = order[start : start + _BATCH]
        batch = collate(tokenizer, encoded, picked, model.device)
        length = batch["input_ids"].shape[1]
        places = torch.tensor(
            np.stack([_places(parts[i], encoded[i]["input_ids"], length)[: len(roles)] for i in picked]),
            dtype=torch.float32,
            device=model.device,
        )  # (B, R, T, T)
        own = places.sum((1, 3)).gt(0).sum(-1)  # (B,): tokens that attend
        drawn.append(units[picked][(own > 0).cpu().numpy()])
        with torch.inference_mode():
            _, entering = run_from(model, batch, watch=list(layers))
            relative = relative_positions(model, length)
            for layer, module in layers.items():
                weights = module.attention_maps(
                    entering[layer], batch["attention_mask"], relative
                )  # (B, H, T, T)
                sums = torch.einsum("bhqk,brqk->bhr", weights.float(), places)
                found[layer].append((sums / own[:, None, None])[own > 0].cpu().numpy())
        if progress:
            progress(min(start + _BATCH, len(order)), len(order))
    shares = {layer: np.concatenate(batches) for layer, batches in found.items()}
    if not all(np.isfinite(share).all() for share in shares.values()):
        raise DataError("The experts' attention is not all finite numbers: the model's weights are spoilt.")
    if not len(next(iter(shares.values()))):
        raise DataError(f"no input of {data.name} has a token of its own that could attend to anything.")
    return AttentionRoles(data.name, roles, shares, np.concatenate(drawn))


def _places(parts: Sequence[int | None], ids: Sequence[int], length: int) -> np.ndarray:
    """Which role each place has from each of an input's own tokens, bool `(R, length, length)`; rows are queries.

    Args:
        parts: of each token, which text of the input it is of; None for those that the tokenizer added.
        ids: the tokens.
    """
    size = len(parts)
    text = np.array([-1 if part is None else part for part in parts])
    offset = np.arange(size)[None, :] - np.arange(size)[:, None]  # key less query
    added = np.broadcast_to(text == -1, (size, size))
    first = np.broadcast_to(np.arange(size) == 0, (size, size))
    same = text[None, :] == text[:, None]
    alike = np.equal.outer(ids, ids)
    of = {
        FIRST: added & first,
        SEPARATORS: added & ~first,
        ITSELF: offset == 0,
        PREVIOUS: same & (offset == -1),
        NEXT: same & (offset == 1),
        SAME: same & (np.abs(offset) > 1),
        MATCHING: ~added & ~same & alike,
        OTHER: ~added & ~same & ~alike,
    }
    found = np.zeros((len(ROLES), length, length), dtype=bool)
    for place, role in enumerate(ROLES):
        found[place, :size, :size] = of[role] & (text[:, None] != -1)
    return found
