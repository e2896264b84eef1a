"""Where what tells minimal pairs apart passes through a model: `shrp.patching` over all pairs of a data set.

Instead of single states, those of a kind of token are put in together, layer by layer: the first token's, which the
task head reads; those of tokens that differ; those of all others. Together they are all that there is, so what one
kind does not bring over is with the others.

Shapes: `P` pairs, `L` layers, `T` tokens, `d` size of the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import collate, encode, longest_input, token_spans
from shrp.data import TextData
from shrp.errors import DataError
from shrp.evaluate import label_columns
from shrp.families import encoder_layers
from shrp.intervals import of_draws
from shrp.minimal_pairs import pairs_of
from shrp.partial import run_from
from shrp.patching import LITTLE

KINDS = ("first token", "tokens that differ", "all others")
RESAMPLES = 2000
_ROUNDING = 1e-6
"""What outputs of a regression that are the same may be apart."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PairsPatched:
    """What the hidden states of each input of a minimal pair do in the other one; `patch_pairs` makes it."""

    pairs: np.ndarray
    """`(P, 2)`, as `shrp.minimal_pairs.pairs_of`: those whose inputs have as many tokens."""
    left_out: int
    """The other pairs: no token of theirs goes with each token of the other input's."""
    gaps: np.ndarray
    """`(P, 2)`: by how much the lead of the greater label over the smaller one (of a regression the output) is higher
    in the other input, than in the first of the pair, and than in the second."""
    moved: np.ndarray
    """`(P, 2, L, 3)`: by how much the states of each of `KINDS`, entering each layer, move it."""

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    def table(self, seed: int = 0) -> pd.DataFrame:
        """How much of the way to the other input's output each kind of token brings, over all pairs in both directions.

        Returns:
            A row a layer and kind: layer (that the states enter), kind, n (pairs), part (the sum of what they move
            towards it, divided by the sum of the ways), low, high (95%, percentile bootstrap over pairs).
        """
        ways = np.abs(self.gaps).sum(1)  # (P,)
        towards = (np.sign(self.gaps)[..., None, None] * self.moved).sum(1)  # (P, L, 3)
        rows = np.random.default_rng(seed).integers(self.n, size=(RESAMPLES, self.n))
        weights = np.stack([np.bincount(row, minlength=self.n) for row in rows])  # (RESAMPLES, P)
        drawn = np.einsum("rp,plk->rlk", weights, towards) / (weights @ ways)[:, None, None]
        found = towards.sum(0) / ways.sum()
        return pd.DataFrame(
            [
                (layer, kind, self.n, found[layer, k], *of_draws(drawn[:, layer, k]))
                for layer in range(found.shape[0])
                for k, kind in enumerate(KINDS)
            ],
            columns=["layer", "kind", "n", "part", "low", "high"],
        )


def patch_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> PairsPatched:
    """Exchange hidden states within the minimal pairs of the data, in both directions.

    Args:
        max_length: tokens at which inputs are cut; None for what the model reads.
        progress: called with pairs done and in all.

    Raises:
        DataError: the data have no minimal pairs, or none whose inputs have as many tokens; the model gives both inputs
            of all pairs about the same output, or outputs that are no numbers; or the tokenizer is a slow one.
    """
    found = pairs_of(data)
    if not len(found):
        raise DataError(f"{data.name} has no minimal pairs: two labelled inputs that are named as one pair.")
    limit, columns = longest_input(model, tokenizer, max_length), label_columns(model, data.task)
    gaps, moved, kept = [], [], []
    for done, pair in enumerate(found, 1):
        texts = [data.texts[row] for row in pair]
        parts = [[span and span[0] for span in token_spans(tokenizer, text, limit)] for text in texts]
        if parts[0] == parts[1]:
            labels = (0, 0) if data.task.is_regression else tuple(data.labels[pair])
            inputs = collate(tokenizer, encode(tokenizer, texts, limit), [0, 1], model.device)
            gap, way = _exchanged(model, inputs, columns, labels)
            if not np.isfinite(gap).all():
                raise DataError(
                    "the model's outputs are not finite numbers, so there is no difference to follow."
                )
            gaps.append(gap)
            moved.append(way)
            kept.append(pair)
        if progress:
            progress(done, len(found))
    if not kept:
        raise DataError(
            f"in none of the {len(found):,} minimal pairs of {data.name} have both inputs as many tokens, so that "
            "states could be exchanged."
        )
    result = PairsPatched(np.stack(kept), len(found) - len(kept), np.stack(gaps), np.stack(moved))
    if np.abs(result.gaps).mean() < (_ROUNDING if data.task.is_regression else LITTLE):
        raise DataError(
            f"the model gives both inputs of the minimal pairs of {data.name} about the same output, so there is no "
            "difference to follow."
        )
    return result


def _exchanged(
    model: PreTrainedModel, inputs: dict[str, Tensor], columns: list[int], labels: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """`gaps` `(2,)` and `moved` `(2, L, 3)` of one pair.

    Args:
        inputs: of both inputs, each `(2, T)`, without padding.
        labels: of both, the smaller first; twice the same for a regression.
    """
    ids = inputs["input_ids"]
    first = torch.zeros_like(ids[0], dtype=torch.bool)
    first[0] = True
    differ = (ids[0] != ids[1]) & ~first
    kinds = torch.stack([first, differ, ~first & ~differ])  # (3, T)
    layers = range(len(encoder_layers(model)))

    def lead(logits: Tensor) -> np.ndarray:
        logits = logits[:, columns].float()
        low, high = labels
        return (logits[:, high] - (logits[:, low] if low != high else 0)).cpu().double().numpy()

    with torch.inference_mode():
        logits, entering = run_from(model, inputs, watch=layers)
        own = lead(logits)
        # Copies: of the first input with each kind of the second's states, then the other way round.
        copies = {name: values.repeat_interleave(len(kinds), 0) for name, values in inputs.items()}
        moved = np.empty((2, len(layers), len(kinds)))
        for layer in layers:
            states = entering[layer]  # (2, T, d)
            put = torch.where(
                kinds[None, :, :, None], states.flip(0)[:, None], states[:, None]
            )  # (2, 3, T, d)
            changed, _ = run_from(model, copies, layer, put.flatten(0, 1))
            moved[:, layer] = lead(changed).reshape(2, -1) - own[:, None]
    return own[::-1] - own, moved
