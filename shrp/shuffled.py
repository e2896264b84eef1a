"""Whether it matters which expert an input takes: it is given another input's route, and the model is scored again.

Usage stays as it is, to the last count; what goes is that the route is the input's own. A model that loses nothing by
it would do as well with any constant mixture of the same shares, which is what pruning makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import bucketed_batches, collate, encode, longest_input
from shrp.convert import router_layers
from shrp.data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluate import label_columns, summarise
from shrp.evaluation import Evaluation
from shrp.knockout import Prefix
from shrp.metrics import wilson
from shrp.paired import paired_difference
from shrp.partial import run_from
from shrp.routing import GateSource, top_k_gates, use_gates
from shrp.usage import UsageStats

ALL = "all"


@dataclass(frozen=True, eq=False)
class ShuffledRoutes:
    """A routed model with its routes as they are and exchanged among inputs, on all of the data."""

    before: Evaluation
    """As routed; rows in the data set's order."""
    after: Mapping[int | str, Evaluation]
    """The same rows with the routes of one layer exchanged, ascending, then of `ALL`."""

    def frame(self, *, resamples: int = 1000) -> pd.DataFrame:
        """One row a layer, and one of all layers together, named as in `after`.

        Returns:
            Columns layer, score, change (of the score, nan without labels) with low and high (95%, paired), flipped
            (inputs whose predicted class changes; 0 for regression), share (of all) with share_low and share_high
            (95% Wilson). A layer exchanged alone leaves those above to route as they then would.
        """
        rows, n = [], self.before.n
        for layer, after in self.after.items():
            change, (low, high) = paired_difference(after, self.before, resamples=resamples)
            flipped = 0
            if not after.task.is_regression:
                flipped = int((after.predictions != self.before.predictions).sum())
            rows.append((layer, after.score, change, low, high, flipped, flipped / n, *wilson(flipped, n)))
        names = ["layer", "score", "change", "low", "high", "flipped", "share", "share_low", "share_high"]
        return pd.DataFrame(rows, columns=names)


def shuffle_routes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    stats: UsageStats,
    *,
    prefix: Prefix | None = None,
    batch_size: int = 64,
    max_length: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ShuffledRoutes:
    """Exchange routes among inputs, in one layer at a time and in all together.

    Under sequence routing an input takes the gates of another one, drawn once for all layers, so in all layers
    together it takes that one's whole route. Under token routing the real tokens of a batch exchange theirs, layer by
    layer.

    Args:
        stats: of `data`, row by row, at the same `max_length`.
        prefix: as for `shrp.knockout.knock_out_effect`.
        seed: of the draw. One draw is enough: the paired interval over inputs holds what chance has in it.
        progress: called with inputs done and in all.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the usage is not of these data.
    """
    routed = router_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so there are no routes to exchange.")
    if stats.n != len(data) or set(stats.layers) != set(routed):
        raise DataError(f"the usage is of {stats.n} inputs of {stats.data}, not of these {len(data)}.")
    generator = np.random.default_rng(seed)
    partner = generator.permutation(len(data))
    by_token = stats.unit == "tokens"
    gates = {
        layer: top_k_gates(torch.from_numpy(stats.probs[layer][partner]), module.top_k)
        for layer, module in routed.items()
        if not by_token
    }
    encoded = encode(tokenizer, data.texts, longest_input(model, tokenizer, max_length))
    columns, first = label_columns(model, data.task), min(routed)
    prefix = prefix or Prefix(model, limit=0)
    cases: list[int | str] = [*sorted(routed), ALL]
    logits = {case: np.zeros((len(data), len(columns)), dtype=np.float32) for case in ("as routed", *cases)}
    done = 0
    for rows in bucketed_batches([len(row["input_ids"]) for row in encoded], batch_size):
        inputs = collate(tokenizer, encoded, rows)
        mask = inputs["attention_mask"].bool()
        with torch.inference_mode():
            entering = {first: prefix.entering(rows, inputs)}
            output, found = run_from(model, inputs, first, entering[first], watch=cases[1:-1])
            logits["as routed"][rows] = output.float().numpy()[:, columns]
            entering |= found
            for case in cases:
                layers = sorted(routed) if case == ALL else [case]
                source = (
                    _among_tokens(layers, mask, generator)
                    if by_token
                    else {layer: gates[layer][rows] for layer in layers}
                )
                with use_gates(source):
                    output, _ = run_from(model, inputs, layers[0], entering[layers[0]])
                logits[case][rows] = output.float().numpy()[:, columns]
        done += len(rows)
        if progress:
            progress(done, len(data))
    whole = np.arange(len(data))
    before, *after = (summarise(data, whole, values, False) for values in logits.values())
    return ShuffledRoutes(before, dict(zip(cases, after, strict=True)))


def _among_tokens(layers: list[int], mask: Tensor, generator: np.random.Generator) -> GateSource:
    """Gates that the real tokens of a batch, `mask` `(B, T)`, have exchanged in some layers."""

    def source(layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        if layer not in layers:
            return None
        dealt = gates.clone()
        real = gates[mask]
        dealt[mask] = real[torch.from_numpy(generator.permutation(len(real)))]
        return dealt

    return source
