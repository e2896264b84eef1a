"""Whether it matters which expert an input takes: routes are exchanged among inputs, or done away with.

Three questions, which have different answers. What does a *wrong* route cost? Every input takes the route of another
one, so each layer is used as before. What does it cost if that one is answered *alike*? Then it is a route of the same
answer. And what is an input's *own* route worth, against none at all? Every input gets one and the same
mixture of all experts, weighted by their usage: what a pruned model computes that keeps them all (method.md, "Usage and
pruning"). A model may lose much by wrong routes and nothing by the mixture.

Nothing is trained: what a model keeps that learnt without a router is another question, which the no-router control
answers. And what moves may be the threshold alone (`shrp.evaluation.answer_shares`), so scores stand beside those with
each class given as often as by the model as routed, which takes no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.exchanges import ALL, Case, Exchanges, answer_groups, count_moved
from shrp.analysis.knock_out import Prefix
from shrp.analysis.usage import UsageStats
from shrp.data.batching import bucketed_batches, collate, encode, longest_input
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.answer_shares import matching_shift, shifted
from shrp.evaluation.evaluate import label_columns, summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import to_predictions, wilson
from shrp.evaluation.paired import mean_difference
from shrp.model.convert import router_layers
from shrp.model.gates import record_routing, use_gates
from shrp.model.layers import ExpertLayer
from shrp.model.partial import run_from

MIXTURE = "mixture"
DRAWS = 5

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class ShuffledRoutes:
    """A routed model with its routes as they are and otherwise, on all of the data."""

    before: Evaluation
    """As routed; rows in the data set's order."""
    after: Mapping[int | str, tuple[Evaluation, ...]]
    """The same rows with the routes of one layer exchanged, ascending; those of `ALL`, and of all among inputs that the
    model answers `ALIKE`, each in several draws; and with the `MIXTURE`."""
    matched: Mapping[int | str, tuple[Evaluation, ...]]
    """The same with outputs shifted so that each class is given as often as before; empty for regression."""
    moved: Mapping[int | str, float]
    """Part of the choices in a layer, in all, or in all among inputs answered alike, that fall on another expert once
    exchanged."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for each of `after`; takes a few seconds.

        Columns layer (its number, `all`, `alike` or `mixture`), draws, moved (nan for the mixture), score, change (of
        the score, nan without labels) with low and high (95%, paired), matched, matched_change, matched_low and
        matched_high (the same with answer shares matched; nan for regression), flipped (inputs whose predicted class
        changes; nan for regression), share (of all) with share_low and share_high (95%). Of several draws all of these
        are means with their intervals (`shrp.evaluation.paired.mean_difference`), and change_min, change_max,
        matched_min, matched_max (of the matched change), flipped_min and flipped_max are the draws' own. A layer
        exchanged alone leaves those above to route as they then would.
        """
        return pd.DataFrame([self._row(layer) for layer in self.after])

    def _row(self, layer: int | str) -> dict[str, Any]:
        after, n = self.after[layer], self.before.n
        row = {"layer": layer, "draws": len(after), "moved": self.moved.get(layer, np.nan)}
        row |= self._change(after, ("score", "change", "low", "high", "change_min", "change_max"))
        names = ("matched", "matched_change", "matched_low", "matched_high", "matched_min", "matched_max")
        row |= self._change(self.matched.get(layer, ()), names)
        names = ("flipped", "flipped_min", "flipped_max", "share", "share_low", "share_high")
        if self.before.task.is_regression:
            return row | dict.fromkeys(names, np.nan)
        flipped = [int((one.predictions != self.before.predictions).sum()) for one in after]
        mean = float(np.mean(flipped))
        counts = mean, min(flipped), max(flipped), mean / n, *wilson(mean, n)
        return row | dict(zip(names, counts, strict=True))

    def _change(self, draws: Sequence[Evaluation], names: tuple[str, ...]) -> dict[str, float]:
        """Score, change, its interval's ends, and the draws' smallest and largest change, by these names."""
        if not draws:
            return dict.fromkeys(names, np.nan)
        change, ends = mean_difference(draws, self.before)
        changes = [one.score - self.before.score for one in draws]
        score = float(np.mean([one.score for one in draws]))
        return dict(zip(names, (score, change, *ends, min(changes), max(changes)), strict=True))


def shuffle_routes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    stats: UsageStats,
    *,
    prefix: Prefix | None = None,
    batch_size: int = 64,
    max_length: int = 128,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ShuffledRoutes:
    """Exchange routes among inputs, in one layer at a time, in all together, and in all among inputs that the model
    answers alike; and put the mixture in their place.

    Who takes whose is in `shrp.analysis.exchanges`; batches are of inputs of about the same length. Alike are
    inputs of the same predicted class, of a regression those whose output is in the same fourth.

    Args:
        stats: of `data`, row by row, at the same `max_length`.
        prefix: as for `shrp.analysis.knock_out.knock_out_effect`.
        draws: how often all layers are exchanged, at least once; one layer alone is once, by the first of them.
        seed: of the first draw.
        progress: called with inputs done and in all.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the usage is not of these data and this model, or has no outputs, or there is no second input to
            exchange with.
    """
    routed = _routed(model, data, stats)
    columns, first = label_columns(model, data.task), min(routed)
    answers = answer_groups(to_predictions(data.task, stats.logits[:, columns]), data)
    exchanges = Exchanges(stats, answers, {layer: one.top_k for layer, one in routed.items()}, draws, seed)
    mixture = {layer: torch.from_numpy(stats.share(layer)).float() for layer in routed}
    encoded = encode(tokenizer, data.texts, longest_input(model, tokenizer, max_length))
    prefix = prefix or Prefix(model, limit=0)
    tally = _Tally(data, columns, [*((layer, 0) for layer in sorted(routed)), *exchanges.cases, (MIXTURE, 0)])
    done = 0
    for rows in bucketed_batches([len(row["input_ids"]) for row in encoded], batch_size):
        inputs = collate(tokenizer, encoded, rows, model.device)
        mask = inputs["attention_mask"].bool()
        with torch.inference_mode():
            entering = {first: prefix.entering(rows, inputs)}
            with record_routing() as record:
                output, found = run_from(model, inputs, first, entering[first], watch=sorted(routed)[1:])
            tally.add(None, rows, output)
            entering |= found
            gates = exchanges(rows, record, mask) | {(MIXTURE, 0): mixture}
            gates |= {(layer, 0): {layer: gates[ALL, 0][layer]} for layer in routed}
            for case, taken in gates.items():
                start = min(taken)
                with use_gates(taken):
                    output, _ = run_from(model, inputs, start, entering[start])
                tally.add(case, rows, output)
                if case != (MIXTURE, 0):
                    tally.moved[case] += count_moved(record, taken, mask)
        done += len(rows)
        if progress:
            progress(done, len(data))
    return tally.told()


def _routed(model: PreTrainedModel, data: TextData, stats: UsageStats) -> dict[int, ExpertLayer]:
    """The routed layers, once it is sure that `stats` is of them and of these data."""
    routed = router_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so there are no routes to exchange.")
    if set(stats.layers) != set(routed):
        raise DataError(f"the usage is of layers {stats.layers}, and the model routes in {sorted(routed)}.")
    if stats.n != len(data):
        raise DataError(f"the usage is of {stats.n} inputs of {stats.data}, not of these {len(data)}.")
    if len(stats.logits) != len(data):
        raise DataError("the usage has no outputs, which say what is answered alike; measure it anew.")
    if len(data) < 2:
        raise DataError("a single input has no other one to exchange its route with; give at least two.")
    return routed


class _Tally:
    """Outputs as routed (of None) and of each case, gathered batch by batch, and how many choices moved."""

    def __init__(self, data: TextData, columns: Sequence[int], cases: Sequence[Case]) -> None:
        self.data, self.columns = data, columns
        self.logits = {case: np.zeros((len(data), len(columns)), dtype=np.float32) for case in (None, *cases)}
        self.moved = {case: np.zeros(2, dtype=np.int64) for case in cases}

    def add(self, case: Case | None, rows: Sequence[int], output: Tensor) -> None:
        """Logits `(B, num_labels)` of the model for these rows of the data."""
        self.logits[case][rows] = output.float().cpu().numpy()[:, self.columns]

    def told(self) -> ShuffledRoutes:
        """All that was gathered, the draws of a kind together."""
        everyone = np.arange(len(self.data))
        found = {case: summarise(self.data, everyone, given, False) for case, given in self.logits.items()}
        before = found.pop(None)
        after, moved = _by_kind(found), {}
        for kind, pairs in _by_kind(self.moved).items():
            elsewhere, choices = np.sum(pairs, axis=0)
            if choices:  # none are counted of the mixture
                moved[kind] = float(elsewhere / choices)
        matched = {}
        if not self.data.task.is_regression:
            matched = {
                kind: tuple(
                    shifted(one, self.data, matching_shift(one.logits, before.logits)) for one in draws
                )
                for kind, draws in after.items()
            }
        return ShuffledRoutes(before, after, matched, moved)


def _by_kind(values: Mapping[Case, Value]) -> dict[int | str, tuple[Value, ...]]:
    """Layer or kind -> its draws, in order."""
    kinds: dict[int | str, list[Value]] = {}
    for (kind, _), value in values.items():
        kinds.setdefault(kind, []).append(value)
    return {kind: tuple(draws) for kind, draws in kinds.items()}
