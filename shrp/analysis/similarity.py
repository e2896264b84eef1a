"""How alike the experts' outputs are, on a sample of real inputs.

Within a layer all experts feed one Expander, so their outputs `o_h` share its coordinates and a cosine between two of
them means something. Across layers they do not, however equal their sizes: there linear CKA is used, which compares
two sets of outputs by their patterns over tokens and does not change when the coordinates are turned.
Source of CKA: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019; debiased by the
estimator of Song et al., "Feature Selection via Dependence Maximization", JMLR 13, 2012: without, even unrelated
outputs look alike on few tokens.

Shapes: `N` sampled tokens, `H` experts a layer, `dh` head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import collate, encode, longest_input
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.intervals import NO_INTERVAL, of_mean
from shrp.evaluation.minimal_pairs import pairs_among, units_of
from shrp.families.families import relative_positions
from shrp.model.convert import expert_layers
from shrp.model.partial import run_from
from shrp.model.special import special_mask

INPUTS, TOKENS_OF_EACH = 96, 16
"""Most sampled inputs, and most sampled tokens of each, so that long inputs don't dominate."""
_BATCH = 16


@dataclass(frozen=True, eq=False)
class OutputSample:
    """Outputs of all experts on the same tokens, each computed from its own layer's real input."""

    data: str
    outputs: Mapping[int, np.ndarray]
    """Layer -> `(H, N, dh)` float32."""
    n_inputs: int
    """Sampled inputs that have a token of their own."""
    units: np.ndarray
    """`(N,)`: what each token is drawn with where chance is asked, its input or both of a minimal pair."""

    @property
    def n(self) -> int:
        """Sampled tokens."""
        return len(self.units)


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
        tokens: at most so many of each input, drawn without replacement; not of those that the tokenizer adds.
        progress: called with inputs done and in all.

    Raises:
        PlanError: the model has no expert layer.
        DataError: the data are empty, or no input has a token of its own.
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
    drawn, n_inputs, units = [], 0, units_of(len(rows), pairs_among(data, rows))
    for start in range(0, len(order), _BATCH):
        batch = collate(tokenizer, encoded, order[start : start + _BATCH], model.device)
        real = batch["attention_mask"].bool().cpu().numpy()
        own = real & ~np.stack([special_mask(tokenizer, line) for line in batch["input_ids"].tolist()])
        picked = [np.sort(generator.permutation(np.flatnonzero(line))[:tokens]) for line in own]
        row = np.repeat(np.arange(len(picked)), [len(places) for places in picked])
        column = np.concatenate(picked)
        n_inputs += sum(len(places) > 0 for places in picked)
        drawn.append(units[order[start + row]])
        with torch.inference_mode():
            _, entering = run_from(model, batch, watch=list(layers))
            relative = relative_positions(model, real.shape[1])
            for layer, module in layers.items():
                outputs = module.expert_outputs(
                    entering[layer], batch["attention_mask"], relative
                )  # (B, H, T, dh)
                found[layer].append(outputs.transpose(1, 2)[row, column].float())  # (tokens, H, dh)
        if progress:
            progress(min(start + _BATCH, len(order)), len(order))
    stacked = {
        layer: torch.cat(parts).transpose(0, 1).contiguous().cpu().numpy() for layer, parts in found.items()
    }
    if not n_inputs:
        raise DataError(f"no input of {data.name} has a token of its own whose outputs could be compared.")
    return OutputSample(data.name, stacked, n_inputs, np.concatenate(drawn))


def nearest_in_layer(sample: OutputSample, layer: int, expert: int, top: int = 5) -> pd.DataFrame:
    """The experts of the same layer whose outputs point the most the same way.

    Returns:
        Columns expert, `cosine` (mean over tokens) and its 95% interval `low, high` over inputs (the tokens of one
        are not independent; `shrp.evaluation.intervals.of_mean`), highest first; empty for a layer of one expert.
    """
    outputs = sample.outputs[layer]
    unit = outputs / np.maximum(np.linalg.norm(outputs, axis=-1, keepdims=True), 1e-12)
    cosines = np.einsum("hnd,nd->hn", unit, unit[expert])  # (H, N)
    rows = []
    for other, values in enumerate(cosines):
        if other == expert:
            continue
        low, high = of_mean(values, sample.units)
        rows.append((other, float(values.mean()), max(low, -1.0), min(high, 1.0)))
    frame = pd.DataFrame(rows, columns=["expert", "cosine", "low", "high"])
    return frame.sort_values("cosine", ascending=False, kind="stable", ignore_index=True).head(top)


def nearest_anywhere(sample: OutputSample, layer: int, expert: int, top: int = 5) -> pd.DataFrame:
    """The experts of the other layers whose outputs vary the most alike over tokens, by linear CKA.

    Returns:
        Columns layer, expert, `cka` (about 0 where unrelated, at most 1) and `low, high`, 95% by a jackknife over
        inputs (a bootstrap's repeated tokens would count as alike); highest first, without those where it is not
        defined.
    """
    mine = sample.outputs[layer][expert]
    rows = [
        (other_layer, other, _cka(mine, output))
        for other_layer, outputs in sample.outputs.items()
        if other_layer != layer
        for other, output in enumerate(outputs)
    ]
    frame = pd.DataFrame(rows, columns=["layer", "expert", "cka"]).dropna()
    frame = frame.sort_values("cka", ascending=False, kind="stable", ignore_index=True).head(top)
    bounds = [
        _jackknife(mine, sample.outputs[int(row.layer)][int(row.expert)], sample.units)
        for row in frame.itertuples()
    ]
    frame["low"], frame["high"] = zip(*bounds, strict=True) if bounds else ((), ())
    return frame


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased linear CKA of two matrices `(N, d1)` and `(N, d2)`, at most 1; nan for fewer than 4 rows, and where one
    of them is constant.
    """
    if len(x) < 4:
        return float("nan")
    x, y = (values.astype(np.float64) - values.mean(0, dtype=np.float64) for values in (x, y))
    scale = _dependence(x, x) * _dependence(y, y)
    return float(min(_dependence(x, y) / np.sqrt(scale), 1.0)) if scale > 0 else float("nan")


def _dependence(x: np.ndarray, y: np.ndarray) -> float:
    """How much two centred matrices of `N` rows depend on each other, without the bias of the squared norm of their
    product: the rows' products with themselves taken out.
    """
    n, of_x, of_y = len(x), (x**2).sum(1), (y**2).sum(1)
    rows = n / (n - 2) * of_x @ of_y
    return float(np.linalg.norm(x.T @ y) ** 2 - rows + of_x.sum() * of_y.sum() / ((n - 1) * (n - 2)))


def _jackknife(x: np.ndarray, y: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """The 95% interval of `_cka` from the values without each unit, by Student's t, cut to at most 1; (nan, nan) for
    fewer than two units, and where all agree.
    """
    values = np.array([_cka(x[units != unit], y[units != unit]) for unit in np.unique(units)])
    if len(values) < 2:
        return NO_INTERVAL
    # What each unit adds to the mean, whose interval is that of a mean of them.
    low, high = of_mean(_cka(x, y) + (len(values) - 1) * (values.mean() - values))
    return low, min(high, 1.0)
