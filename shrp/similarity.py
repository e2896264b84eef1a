"""How alike the experts' outputs are, on a sample of real inputs.

Within a layer all experts feed one Expander, so their outputs `o_h` share its coordinates and a cosine between two of
them means something. Across layers they do not, however equal their sizes: there linear CKA is used, which compares
two sets of outputs by their patterns over tokens and does not change when the coordinates are turned.
Source of CKA: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019.

Shapes: `N` sampled tokens, `H` experts a layer, `dh` head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import collate, encode, longest_input
from shrp.convert import expert_layers
from shrp.data import TextData
from shrp.errors import DataError, PlanError
from shrp.families import position_bias
from shrp.intervals import NO_INTERVAL, of_draws, of_mean
from shrp.partial import run_from

INPUTS, TOKENS_OF_EACH = 96, 16
"""Most sampled inputs, and most sampled tokens of each, so that long inputs don't dominate."""
RESAMPLES = 200
_BATCH = 16


@dataclass(frozen=True, eq=False)
class OutputSample:
    """Outputs of all experts on the same tokens, each computed from its own layer's real input."""

    data: str
    outputs: Mapping[int, np.ndarray]
    """Layer -> `(H, N, dh)` float32."""
    inputs: np.ndarray
    """`(N,)`: which of the sampled inputs each token is of, ascending from 0."""

    @property
    def n(self) -> int:
        """Sampled tokens."""
        return len(self.inputs)

    @property
    def n_inputs(self) -> int:
        """Sampled inputs."""
        return int(self.inputs[-1]) + 1


def sample_outputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    inputs: int = INPUTS,
    tokens: int = TOKENS_OF_EACH,
    max_length: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> OutputSample:
    """Run the routed model on some inputs of each class and compute every expert's output on some real tokens of each.

    Args:
        inputs: at most so many.
        tokens: at most so many of each input, drawn without replacement; `[CLS]` and `[SEP]` are real tokens.
        progress: called with inputs done and in all.

    Raises:
        PlanError: the model has no expert layer.
        DataError: the data are empty.
    """
    layers = expert_layers(model)
    if not layers:
        raise PlanError("this model has no expert layers, so there are no outputs to compare.")
    if not len(data):
        raise DataError(f"{data.name} is empty; comparing experts needs at least one input.")
    generator = np.random.default_rng(seed)
    rows = data.stratified_order(seed)[:inputs]
    encoded = encode(tokenizer, [data.texts[i] for i in rows], longest_input(model, tokenizer, max_length))
    # Inputs of like lengths together, so that little is padded; the sample does not depend on the order.
    order = np.argsort([len(row["input_ids"]) for row in encoded], kind="stable")
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    owners = []
    for start in range(0, len(order), _BATCH):
        batch = collate(tokenizer, encoded, order[start : start + _BATCH], model.device)
        real = batch["attention_mask"].bool().cpu().numpy()
        picked = [np.sort(generator.permutation(np.flatnonzero(line))[:tokens]) for line in real]
        row = np.repeat(np.arange(len(picked)), [len(places) for places in picked])
        column = np.concatenate(picked)
        owners.append(start + row)
        with torch.inference_mode():
            _, entering = run_from(model, batch, watch=list(layers))
            bias = position_bias(model, real.shape[1])
            for layer, module in layers.items():
                outputs = module.expert_outputs(
                    entering[layer], batch["attention_mask"], bias
                )  # (B, H, T, dh)
                found[layer].append(outputs.transpose(1, 2)[row, column].float())  # (tokens, H, dh)
        if progress:
            progress(min(start + _BATCH, len(order)), len(order))
    stacked = {
        layer: torch.cat(parts).transpose(0, 1).contiguous().cpu().numpy() for layer, parts in found.items()
    }
    return OutputSample(data.name, stacked, np.concatenate(owners))


def nearest_in_layer(sample: OutputSample, layer: int, expert: int, top: int = 5) -> pd.DataFrame:
    """The experts of the same layer whose outputs point the most the same way.

    Returns:
        Columns expert, `cosine` (mean over tokens) and its 95% interval `low, high` over inputs (the tokens of one
        are not independent; `shrp.intervals.of_mean`), highest first; empty for a layer of one expert.
    """
    outputs = sample.outputs[layer]
    unit = outputs / np.maximum(np.linalg.norm(outputs, axis=-1, keepdims=True), 1e-12)
    cosines = np.einsum("hnd,nd->hn", unit, unit[expert])  # (H, N)
    rows = []
    for other, values in enumerate(cosines):
        if other == expert:
            continue
        low, high = of_mean(values, sample.inputs)
        rows.append((other, float(values.mean()), max(low, -1.0), min(high, 1.0)))
    frame = pd.DataFrame(rows, columns=["expert", "cosine", "low", "high"])
    return frame.sort_values("cosine", ascending=False, kind="stable", ignore_index=True).head(top)


def nearest_anywhere(
    sample: OutputSample, layer: int, expert: int, top: int = 5, *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """The experts of the other layers whose outputs vary the most alike over tokens, by linear CKA.

    Returns:
        Columns layer, expert, `cka` (0 to 1) and `low, high`, 95% by a bootstrap over inputs; highest first.
    """
    mine = _centred(sample.outputs[layer][expert])
    rows = [
        (other_layer, other, _cka(mine, _centred(output)))
        for other_layer, outputs in sample.outputs.items()
        if other_layer != layer
        for other, output in enumerate(outputs)
    ]
    frame = pd.DataFrame(rows, columns=["layer", "expert", "cka"])
    frame = frame.sort_values("cka", ascending=False, kind="stable", ignore_index=True).head(top)
    bounds = [
        _cka_interval(sample, (layer, expert), (int(row.layer), int(row.expert)), resamples, seed)
        for row in frame.itertuples()
    ]
    frame["low"], frame["high"] = zip(*bounds, strict=True) if bounds else ((), ())
    return frame


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of two centred matrices `(N, d1)` and `(N, d2)`; nan where one of them is constant."""
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / scale) if scale > 0 else float("nan")


def _cka_interval(
    sample: OutputSample, one: tuple[int, int], other: tuple[int, int], resamples: int, seed: int
) -> tuple[float, float]:
    """Percentiles of CKA over bootstrap samples of inputs; (nan, nan) for one input, and where all samples agree."""
    if sample.n_inputs < 2:
        return NO_INTERVAL
    both = np.concatenate([sample.outputs[layer][expert] for layer, expert in (one, other)], axis=1)
    split = both.shape[1] // 2
    starts = np.searchsorted(sample.inputs, np.arange(sample.n_inputs + 1))
    parts = [both[a:b].astype(np.float64) for a, b in pairwise(starts)]
    # Products and sums of each input: those of a resample are weighted sums of them.
    products = np.stack([part.T @ part for part in parts]).reshape(len(parts), -1)
    sums = np.stack([part.sum(0) for part in parts])
    sizes = np.diff(starts)
    drawn = np.random.default_rng(seed).multinomial(
        len(parts), np.full(len(parts), 1 / len(parts)), size=resamples
    )
    values = []
    for weights in drawn:
        mean, n = weights @ sums, weights @ sizes
        covariance = (weights @ products).reshape(both.shape[1], -1) - np.outer(mean, mean) / n
        scale = np.linalg.norm(covariance[:split, :split]) * np.linalg.norm(covariance[split:, split:])
        values.append(np.linalg.norm(covariance[:split, split:]) ** 2 / scale if scale > 0 else np.nan)
    return of_draws(np.array(values))
