"""Where what tells minimal pairs apart passes through a model: `shrp.analysis.patching` over the pairs of a data
set.

Instead of single states, those of a kind of token are put in together, layer by layer: the first token's, which the
task head reads; those of tokens that differ; those of all others.

Shapes: `P` pairs, `L` layers, `T` tokens, `d` size of the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.patching import LITTLE, TOKENS_AT_ONCE
from shrp.data.batching import Encoded, collate, encode, longest_input, token_counts, token_spans
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluate import label_columns
from shrp.evaluation.intervals import of_draws
from shrp.evaluation.metrics import at_once, to_predictions
from shrp.evaluation.minimal_pairs import pairs_of
from shrp.families.families import encoder_layers
from shrp.model.partial import run_from

KINDS = ("first token", "tokens that differ", "all others")
RESAMPLES = 2000
_ROUNDING = 1e-5
"""What outputs of a regression that are the same may be apart, as a part of the largest."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PairsPatched:
    """What the hidden states of each input of a minimal pair do in the other one; `patch_pairs` makes it.

    The output is the logit of the pair's greater label less that of its smaller one; of a regression its output.
    """

    pairs: np.ndarray
    """`(P, 2)`, as `shrp.evaluation.minimal_pairs.pairs_of`."""
    left_out: int
    """Pairs whose inputs have other numbers of tokens, so that no token of theirs goes with each of the other's."""
    not_drawn: int
    """Pairs that were not looked at, as there were more than were asked for."""
    gaps: np.ndarray
    """`(P, 2)`: the other input's output less this one's, of the first of the pair, and of the second."""
    moved: np.ndarray
    """`(P, 2, L, 3)`: by how much the other input's states of each of `KINDS`, entering each layer, move the output."""

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
        towards = (np.sign(self.gaps)[..., None, None] * self.moved).sum(1).reshape(self.n, -1)  # (P, L * 3)
        generator, drawn = np.random.default_rng(seed), []
        for size in at_once(RESAMPLES, self.n):
            rows = generator.integers(self.n, size=(size, self.n))
            times = np.stack([np.bincount(row, minlength=self.n) for row in rows]).astype(float)  # (size, P)
            of_all = times @ ways
            drawn.append(
                np.divide(
                    times @ towards,
                    of_all[:, None],
                    where=of_all[:, None] > 0,
                    out=np.full((size, towards.shape[1]), np.nan),
                )
            )
        draws, found = np.concatenate(drawn), towards.sum(0) / ways.sum()
        places = [(layer, kind) for layer in range(self.moved.shape[2]) for kind in KINDS]
        return pd.DataFrame(
            [
                (layer, kind, self.n, found[i], *of_draws(draws[:, i]))
                for i, (layer, kind) in enumerate(places)
            ],
            columns=["layer", "kind", "n", "part", "low", "high"],
        )


def patch_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    max_length: int | None = None,
    most: int | None = None,
    progress: Progress | None = None,
) -> PairsPatched:
    """Exchange hidden states within the minimal pairs of the data, in both directions.

    Of pairs whose inputs have as many tokens (each text of a pair of texts), which then go together place by place.

    Args:
        max_length: tokens at which inputs are cut; None for what the model reads.
        most: of more pairs so many are drawn.
        progress: called with pairs done and in all.

    Raises:
        DataError: the data have no minimal pairs, or none whose inputs have as many tokens; the model gives both inputs
            of all pairs about the same output, or outputs that are no numbers; or the tokenizer is a slow one.
    """
    found = pairs_of(data)
    if not len(found):
        raise DataError(f"{data.name} has no minimal pairs: two labelled inputs that are named as one pair.")
    limit, columns = longest_input(model, tokenizer, max_length), label_columns(model, data.task)
    rows = found.ravel().tolist()
    encoded = dict(zip(rows, encode(tokenizer, [data.texts[row] for row in rows], limit), strict=True))
    alike = _as_many_tokens(tokenizer, data, found, limit)
    kept, left_out = found[alike], int((~alike).sum())
    if not len(kept):
        raise DataError(
            f"in none of the {len(found):,} minimal pairs of {data.name} have both inputs as many tokens, so that "
            "states could be exchanged."
        )
    not_drawn = 0 if most is None else max(0, len(kept) - most)
    if not_drawn:
        drawn = np.random.default_rng(0).choice(len(kept), most, replace=False)
        kept = kept[np.sort(drawn)]
    labels = np.zeros_like(kept) if data.task.is_regression else data.labels[kept]

    def batches(copies: int) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Pairs of as many tokens, and their inputs, as many as pass the model together that many times."""
        yield from _batches(kept, encoded, tokenizer, model.device, copies)

    outputs = np.empty(kept.shape)
    with torch.inference_mode():
        for some, inputs in batches(2):
            logits = model(**inputs).logits[:, columns].float().cpu().numpy()
            to_predictions(data.task, logits)  # which says so where they are no numbers
            outputs[some] = _output(logits, labels[some])
        gaps = outputs[:, ::-1] - outputs
        least = LITTLE if not data.task.is_regression else _ROUNDING * max(1.0, float(np.abs(outputs).max()))
        if np.abs(gaps).mean() < least:
            raise DataError(
                f"the model gives both inputs of the minimal pairs of {data.name} about the same output, so there is "
                "no difference to follow."
            )
        moved, done = np.empty((len(kept), 2, len(encoder_layers(model)), len(KINDS))), 0
        for some, inputs in batches(2 * len(KINDS)):
            moved[some] = _exchanged(model, inputs, columns, labels[some])
            done += len(some)
            if progress:
                progress(done, len(kept))
    if not np.isfinite(moved).all():
        raise DataError("with states exchanged the model's outputs are not all finite numbers.")
    return PairsPatched(kept, left_out, not_drawn, gaps, moved)


def work(model: PreTrainedModel, tokens: float) -> float:
    """About how many multiplications `patch_pairs` takes for a pair with so many tokens in each input."""
    layers = encoder_layers(model)
    weights = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    return (
        2 * len(KINDS) * tokens * len(layers) * weights / 2
    )  # of each layer's copies half of the layers lie above


def _as_many_tokens(
    tokenizer: PreTrainedTokenizerBase, data: TextData, pairs: np.ndarray, limit: int
) -> np.ndarray:
    """Which pairs have inputs of as many tokens, whole and as they are read; bool `(pairs,)`."""
    counts = token_counts(tokenizer, [data.texts[row] for row in pairs.ravel()])
    alike = np.array(counts).reshape(-1, 2)
    found = alike[:, 0] == alike[:, 1]
    for place in np.flatnonzero(found):
        first, second = (
            [span and span[0] for span in token_spans(tokenizer, data.texts[row], limit)]
            for row in pairs[place]
        )
        found[place] = first == second
    return found


def _batches(
    pairs: np.ndarray,
    encoded: dict[int, Encoded],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    copies: int,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Places of pairs of one length, and their inputs, each `(2 * pairs, T)`: both of a pair one after the other."""
    lengths = [len(encoded[first]["input_ids"]) for first, _ in pairs]
    for length in sorted(set(lengths)):
        places = [place for place, one in enumerate(lengths) if one == length]
        size = max(1, TOKENS_AT_ONCE // (copies * length))
        for start in range(0, len(places), size):
            some = places[start : start + size]
            rows = [encoded[row] for row in pairs[some].ravel()]
            yield some, collate(tokenizer, rows, list(range(len(rows))), device)


def _output(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(pairs, copies)`: what the output of `PairsPatched` is.

    Args:
        logits: `(pairs * copies, C)`.
        labels: `(pairs, 2)`, the smaller one first; twice 0 of a regression.
    """
    by_pair = logits.astype(float).reshape(len(labels), -1, logits.shape[-1])
    if logits.shape[-1] == 1:
        return by_pair[..., 0]
    low, high = (np.take_along_axis(by_pair, which[:, None, None], 2)[..., 0] for which in labels.T)
    return high - low


def _exchanged(
    model: PreTrainedModel, inputs: dict[str, Tensor], columns: list[int], labels: np.ndarray
) -> np.ndarray:
    """`moved` `(pairs, 2, L, 3)` of some pairs.

    Args:
        inputs: of their inputs, both of a pair one after the other, each `(2 * pairs, T)`, without padding.
        labels: `(pairs, 2)`.
    """
    pairs, kinds = len(labels), len(KINDS)
    ids = inputs["input_ids"].unflatten(0, (pairs, 2))
    first = torch.zeros_like(ids[:, 0], dtype=torch.bool)
    first[:, 0] = True
    differ = (ids[:, 0] != ids[:, 1]) & ~first
    masks = torch.stack([first, differ, ~first & ~differ], 1)[:, None, :, :, None]  # (pairs, 1, 3, T, 1)
    layers = range(len(encoder_layers(model)))
    logits, entering = run_from(model, inputs, watch=layers)
    own = _output(logits[:, columns].float().cpu().numpy(), labels)  # (pairs, 2)
    copies = {name: values.repeat_interleave(kinds, 0) for name, values in inputs.items()}
    moved = np.empty((pairs, 2, len(layers), kinds))
    for layer in layers:
        states = entering[layer].unflatten(0, (pairs, 2))  # (pairs, 2, T, d)
        mine, others = states[:, :, None], states.flip(1)[:, :, None]
        put = torch.where(masks, others, mine)  # (pairs, 2, 3, T, d)
        found, _ = run_from(model, copies, layer, put.flatten(0, 2))
        changed = _output(found[:, columns].float().cpu().numpy(), labels).reshape(pairs, 2, kinds)
        # Where all states are as they were, or all are the other's, there is no rounding to be taken for a change.
        as_before, as_other = ((put == which).flatten(3).all(-1).cpu().numpy() for which in (mine, others))
        changed = np.where(as_before, own[..., None], np.where(as_other, own[:, ::-1, None], changed))
        moved[:, :, layer] = changed - own[..., None]
    return moved
