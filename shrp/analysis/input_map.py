"""Where inputs lie as one layer's router sees them, and a plane to draw them in.

Shapes: `N` inputs, `H` experts, `d` hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import bucketed_batches, collate, encode, longest_input
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.model.convert import router_layers
from shrp.model.partial import run_layers

_ROUNDING = 1e-9  # a direction that holds less than this of the variance holds none
FEWEST = 3
"""Fewer inputs than this lie in a plane whatever they are."""


@dataclass(frozen=True, eq=False)
class RouterInputs:
    """What a layer's router is given, and what its scores are before the softmax.

    A router is linear, so under token routing the scores of the mean state are the mean of the tokens' scores.
    """

    states: np.ndarray
    """`(N, d)` float32: each input's hidden states at the layer's entry, averaged over its real tokens."""
    scores: np.ndarray
    """`(N, H)` float32: less their mean over the experts, which the softmax takes no notice of."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Points in the two directions in which they differ most (principal components)."""

    points: np.ndarray
    """`(N, 2)`, around 0."""
    held: tuple[float, float]
    """The part of all variance that each direction holds, 0 to 1; 0 where all points are one."""


def router_inputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    layer: int,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> RouterInputs:
    """Run all inputs up to a routed layer.

    Args:
        progress: called with inputs done and in all after each batch.

    Raises:
        PlanError: the layer has no router that learned.
        DataError: the data have fewer than `FEWEST` inputs, or the weights are spoilt.
    """
    found = router_layers(model).get(layer)
    if found is None or found.routing == "uniform":
        raise PlanError(f"layer {layer} has no router, so there is nothing that it is given.")
    if len(data) < FEWEST:
        raise DataError(
            f"{data.name} has {len(data)} inputs; a map of inputs needs at least {FEWEST} to say anything."
        )
    encoded = encode(tokenizer, data.texts, longest_input(model, tokenizer, max_length))
    states = np.zeros((len(data), model.config.hidden_size), dtype=np.float32)
    scores = np.zeros((len(data), found.router.num_experts), dtype=np.float32)
    done = 0
    for rows in bucketed_batches([len(e["input_ids"]) for e in encoded], batch_size):
        batch = collate(tokenizer, encoded, rows, model.device)
        with torch.inference_mode():
            entering = run_layers(model, batch, 0, layer)  # (B, T, d)
            real = batch["attention_mask"].unsqueeze(-1).to(entering.dtype)
            mean = (entering * real).sum(1) / real.sum(1)
            scored = found.router.dense(mean).float()
        states[rows] = mean.float().cpu().numpy()
        scores[rows] = (scored - scored.mean(-1, keepdim=True)).cpu().numpy()
        done += len(rows)
        if progress:
            progress(done, len(data))
    if not (np.isfinite(states).all() and np.isfinite(scores).all()):
        raise DataError(
            f"What layer {layer}'s router is given is not all finite numbers: the weights are spoilt."
        )
    return RouterInputs(states, scores)


def plane(table: np.ndarray) -> Plane:
    """The plane of the first two principal components of `(N, k)`, at least 3 x 2; signs are fixed by the data."""
    from sklearn.decomposition import PCA  # takes a while to import

    if not np.ptp(table, axis=0).any():
        return Plane(np.zeros((len(table), 2)), (0.0, 0.0))
    pca = PCA(2, svd_solver="covariance_eigh")
    points = pca.fit_transform(table.astype(np.float64))
    held = np.where(pca.explained_variance_ratio_ > _ROUNDING, pca.explained_variance_ratio_, 0.0)
    first, second = held.tolist()
    return Plane(points * (held > 0), (first, second))
