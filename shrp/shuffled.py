"""Whether it matters which expert an input takes: routes are exchanged among inputs, or done away with.

Two questions, which have different answers. What does a *wrong* route cost? Every input takes the route of another one,
so each layer is used as before. And what is an input's *own* route worth, against none at all? Every input gets one and
the same mixture of all experts, weighted by their usage: what a pruned model computes that keeps them all (method.md,
"Usage and pruning"). A model may lose much by wrong routes and nothing by the mixture.

Neither is trained: what a model keeps that learnt without a router is another question, which the no-router control
answers. And what moves may be the threshold alone (`shrp.answer_shares`), so scores stand beside those with each class
given as often as by the model as routed, which takes no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.answer_shares import matching_shift, shifted
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
from shrp.routing import RoutingRecord, record_routing, top_k_gates, use_gates
from shrp.usage import UsageStats

ALL, MIXTURE = "all", "mixture"


@dataclass(frozen=True, eq=False)
class ShuffledRoutes:
    """A routed model with its routes as they are and otherwise, on all of the data."""

    before: Evaluation
    """As routed; rows in the data set's order."""
    after: Mapping[int | str, Evaluation]
    """The same rows with the routes of one layer exchanged, ascending, those of `ALL`, and with the `MIXTURE`."""
    matched: Mapping[int | str, Evaluation]
    """The same with outputs shifted so that each class is given as often as before; empty for regression."""
    moved: Mapping[int | str, float]
    """Part of the choices in a layer, or in all, that fall on another expert once exchanged."""
    partner: np.ndarray | None = None
    """Whose route each input takes in `ALL` `(N,)`; None under token routing."""

    @property
    def other_answer(self) -> np.ndarray | None:
        """Inputs `(N,)` that take in `ALL` the route of one which the model answers otherwise; None where that is not
        to be told, as of a regression.
        """
        if self.partner is None or self.before.task.is_regression:
            return None
        return self.before.predictions[self.partner] != self.before.predictions

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for each of `after`; takes a second or two.

        Columns layer (its number, `all` or `mixture`), moved (nan for the mixture), score, change (of the score, nan
        without labels) with low and high (95%, paired), matched, matched_change, matched_low and matched_high (the same
        with answer shares matched; nan for regression), flipped (inputs whose predicted class changes; nan for
        regression), share (of all) with share_low and share_high (95% Wilson). A layer exchanged alone leaves those
        above to route as they then would.
        """
        rows, n = [], self.before.n
        for layer, after in self.after.items():
            moved, flips = self.matched.get(layer), [np.nan] * 4
            if not after.task.is_regression:
                flipped = int((after.predictions != self.before.predictions).sum())
                flips = [flipped, flipped / n, *wilson(flipped, n)]
            scores = (*self._against(after), *(self._against(moved) if moved else [np.nan] * 4))
            rows.append((layer, self.moved.get(layer, np.nan), *scores, *flips))
        scores = ["score", "change", "low", "high"]
        names = [*scores, "matched", *(f"matched_{name}" for name in scores[1:])]
        names += ["flipped", "share", "share_low", "share_high"]
        return pd.DataFrame(rows, columns=["layer", "moved", *names])

    def _against(self, after: Evaluation) -> tuple[float, ...]:
        change, ends = paired_difference(after, self.before, resamples=1000)
        return after.score, change, *ends


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
    """Exchange routes among inputs, in one layer at a time and in all together, and put the mixture in their place.

    Under sequence routing an input takes the gates of another one, the same one in all layers. Under token routing the
    real tokens of a batch, special ones among them, exchange theirs; batches are of inputs of about the same length.

    Args:
        stats: of `data`, row by row, at the same `max_length`.
        prefix: as for `shrp.knockout.knock_out_effect`.
        seed: of the draw. Another one gives another figure; the intervals are over inputs, and take it as given.
        progress: called with inputs done and in all.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the usage is not of these data and this model, or there is no second input to exchange with.
    """
    routed = router_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so there are no routes to exchange.")
    if set(stats.layers) != set(routed):
        raise DataError(f"the usage is of layers {stats.layers}, and the model routes in {sorted(routed)}.")
    if stats.n != len(data):
        raise DataError(f"the usage is of {stats.n} inputs of {stats.data}, not of these {len(data)}.")
    if len(data) < 2:
        raise DataError("a single input has no other one to exchange its route with; give at least two.")
    generator = np.random.default_rng(seed)
    by_token, partner = stats.unit == "tokens", _partners(len(data), generator)
    gates = {
        layer: top_k_gates(torch.from_numpy(stats.probs[layer][partner]), module.top_k)
        for layer, module in routed.items()
        if not by_token
    }
    mixture = {layer: torch.from_numpy(stats.share(layer)).float() for layer in routed}
    encoded = encode(tokenizer, data.texts, longest_input(model, tokenizer, max_length))
    columns, first = label_columns(model, data.task), min(routed)
    prefix = prefix or Prefix(model, limit=0)
    logits = {
        case: np.zeros((len(data), len(columns)), dtype=np.float32)
        for case in ("as routed", *sorted(routed), ALL, MIXTURE)
    }
    moved, choices, done = dict.fromkeys(routed, 0), dict.fromkeys(routed, 0), 0
    for rows in bucketed_batches([len(row["input_ids"]) for row in encoded], batch_size):
        inputs = collate(tokenizer, encoded, rows)
        with torch.inference_mode():
            entering = {first: prefix.entering(rows, inputs)}
            with record_routing() as record:
                output, found = run_from(model, inputs, first, entering[first], watch=sorted(routed)[1:])
            logits["as routed"][rows] = output.float().numpy()[:, columns]
            entering |= found
            if by_token:
                theirs = _among_tokens(record, inputs["attention_mask"].bool(), generator)
            else:
                theirs = {layer: gates[layer][rows] for layer in routed}
            for layer, taken in theirs.items():
                own, mask = record.last(layer).gates, inputs["attention_mask"].bool()
                other = (own.argmax(-1) != taken.argmax(-1)) & (mask if by_token else True)
                moved[layer] += int(other.sum())
                choices[layer] += int(mask.sum()) if by_token else len(rows)
            cases = {layer: {layer: theirs[layer]} for layer in sorted(routed)} | {
                ALL: theirs,
                MIXTURE: mixture,
            }
            for case, source in cases.items():
                start = min(source)
                with use_gates(source):
                    output, _ = run_from(model, inputs, start, entering[start])
                logits[case][rows] = output.float().numpy()[:, columns]
        done += len(rows)
        if progress:
            progress(done, len(data))
    before, *after = (summarise(data, np.arange(len(data)), values, False) for values in logits.values())
    found = dict(zip([case for case in logits if case != "as routed"], after, strict=True))
    matched = {}
    if not data.task.is_regression:
        for case, one in found.items():
            matched[case] = shifted(one, data, matching_shift(one.logits, before.logits))
    return ShuffledRoutes(
        before,
        found,
        matched,
        {layer: moved[layer] / choices[layer] for layer in routed}
        | {ALL: sum(moved.values()) / sum(choices.values())},
        None if by_token else partner,
    )


def _partners(n: int, generator: np.random.Generator) -> np.ndarray:
    """For each of `n` another one, each once: a random ring `(n,)`."""
    ring = generator.permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[ring] = np.roll(ring, -1)
    return partner


def _among_tokens(record: RoutingRecord, mask: Tensor, generator: np.random.Generator) -> dict[int, Tensor]:
    """Layer -> gates `(B, T, H)`, where each real token, `mask` `(B, T)`, has another's."""
    partner = torch.from_numpy(_partners(int(mask.sum()), generator))
    dealt = {}
    for layer in record.layers:
        dealt[layer] = record.last(layer).gates.clone()
        dealt[layer][mask] = dealt[layer][mask][partner]
    return dealt
