"""Routes exchanged between examples.

Shapes: `L` routed layers, `H` experts, `N` examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.importance import Prefix
from shrp.analysis.usage import UsageStats
from shrp.data.batching import read
from shrp.data.slices import ANSWER, groups_by
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import label_columns, summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import to_predictions
from shrp.evaluation.paired import mean_difference
from shrp.evaluation.statistics import wilson
from shrp.model.convert import expert_layers
from shrp.model.gates import RoutingRecord, record_routing, top_k_gates, use_gates
from shrp.model.layers import ExpertLayer
from shrp.model.partial import run_from
from shrp.progress import Progress, silent

ALL, SAME, MIXTURE = "all", "same prediction", "mixture"
DRAWS = 5
Case = tuple[int | str, int]
"""What is exchanged (a layer's number, or a kind for all layers), and the draw."""


@dataclass(frozen=True, eq=False)
class ShuffledRoutes:
    """A routed model on all of the data, with its own routes and with others."""

    before: Evaluation
    """As routed."""
    after: Mapping[int | str, tuple[Evaluation, ...]]
    """The draws of each kind: routes exchanged in one layer (its number), in `ALL` layers, in all among examples
    with the `SAME` prediction; and the `MIXTURE` of all experts by usage."""
    moved: Mapping[int | str, float]
    """Share of the choices that fall on another expert."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a kind; computed once, in a few seconds.

        Columns layer (its number, or one of these three), draws, moved, score, change with low and high (95%,
        paired; nan without labels), flipped (examples whose predicted class changes), share (of all) with share_low
        and share_high. With several draws these are means.
        """
        return pd.DataFrame([self._row(layer) for layer in self.after])

    def _row(self, layer: int | str) -> dict[str, Any]:
        after, n = self.after[layer], self.before.n
        change, (low, high) = mean_difference(after, self.before)
        row = {"layer": layer, "draws": len(after), "moved": self.moved.get(layer, np.nan)}
        row |= {"score": float(np.mean([one.score for one in after])), "change": change, "low": low, "high": high}
        names = ("flipped", "share", "share_low", "share_high")
        if self.before.task.is_regression:
            return row | dict.fromkeys(names, np.nan)
        flipped = float(np.mean([(one.predictions != self.before.predictions).sum() for one in after]))
        return row | dict(zip(names, (flipped, flipped / n, *wilson(flipped, n)), strict=True))


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
    progress: Progress = silent,
) -> ShuffledRoutes:
    """Exchange routes between examples, and replace them by one mixture of all experts, weighted by usage.

    They are exchanged in one layer at a time, in all, and in all among examples with the same prediction (a
    regression's by quartile). Each example takes the gates of one other example. Under token routing the real tokens of
    a batch exchange theirs.

    Args:
        stats: of `data`, row by row, at the same `max_length`.
        prefix: as for `shrp.analysis.importance.knock_out_effect`.
        draws: exchanges of all layers; one layer alone is exchanged once.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the task labels words; the usage is not of these data; or there is but one example.
    """
    routed = _routed(model, data, stats)
    data.task.check_of_texts("the exchange of routes")
    layers, columns, first = sorted(routed), label_columns(model, data.task), min(routed)
    answers = to_predictions(data.task, stats.logits[:, columns])
    answers = np.argmax(np.stack([*groups_by(ANSWER, data, answers).values()]), axis=0)
    groups = {ALL: np.zeros_like(answers), SAME: answers}
    generators = {(ALL, draw): np.random.default_rng(draw) for draw in range(draws)}
    generators |= {(SAME, draw): np.random.default_rng([draw, 1]) for draw in range(draws)}
    by_token, partners = stats.unit == "tokens", {}
    if not by_token:
        partners = {case: _partners(groups[case[0]], each) for case, each in generators.items()}
    mixture = {layer: torch.from_numpy(stats.share(layer)).float() for layer in layers}
    prefix = prefix or Prefix(model, limit=0)
    cases: list[Case] = [*((layer, 0) for layer in layers), *generators, (MIXTURE, 0)]
    logits = {case: np.zeros((len(data), len(columns)), dtype=np.float32) for case in (None, *cases)}
    counts = {case: np.zeros(2, dtype=np.int64) for case in cases[:-1]}
    options = {"batch_size": batch_size, "max_length": max_length, "progress": progress}
    for rows, inputs in read(model, tokenizer, data.texts, **options):
        mask = inputs["attention_mask"].bool()
        with torch.inference_mode():
            entering = {first: prefix.entering(rows, inputs)}
            with record_routing() as record:
                own, found = run_from(model, inputs, first, entering[first], watch=layers[1:])
            entering |= found
            gates: dict[Case, dict[int, Tensor]] = {(MIXTURE, 0): mixture}
            for case, generator in generators.items():
                if by_token:
                    of_tokens = np.repeat(groups[case[0]][rows], mask.sum(1).cpu().numpy())
                    gates[case] = _among_tokens(record, mask, _partners(of_tokens, generator))
                else:
                    theirs = partners[case][rows]
                    gates[case] = {
                        layer: top_k_gates(torch.from_numpy(stats.probs[layer][theirs]), routed[layer].top_k)
                        for layer in layers
                    }
            gates |= {(layer, 0): {layer: gates[ALL, 0][layer]} for layer in layers}
            logits[None][rows] = own.float().cpu().numpy()[:, columns]
            for case, taken in gates.items():
                start = min(taken)
                with use_gates(taken):
                    output, _ = run_from(model, inputs, start, entering[start])
                logits[case][rows] = output.float().cpu().numpy()[:, columns]
                if case in counts:
                    counts[case] += _moved(record, taken, mask)
    found = {case: summarise(data, np.arange(len(data)), given, False) for case, given in logits.items()}
    before, after, moved = found.pop(None), {}, {}
    for kind, _ in cases:
        after[kind] = tuple(one for case, one in found.items() if case[0] == kind)
        elsewhere, choices = sum((pair for case, pair in counts.items() if case[0] == kind), np.zeros(2))
        if choices:
            moved[kind] = float(elsewhere / choices)
    return ShuffledRoutes(before, after, moved)


def _routed(model: PreTrainedModel, data: TextData, stats: UsageStats) -> dict[int, ExpertLayer]:
    """The routed layers; raises unless `stats` is of these data."""
    routed = expert_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so there are no routes to exchange.")
    if stats.n != len(data):
        raise DataError(f"the usage is of {stats.n} inputs of {stats.data}, not of these {len(data)}.")
    if len(data) < 2:
        raise DataError("a single input has no other one to exchange its route with; give at least two.")
    return routed


def _moved(record: RoutingRecord, taken: Mapping[int, Tensor], mask: Tensor) -> tuple[int, int]:
    """How many of a batch's choices fall on another expert than as routed, and how many there are."""
    moved, choices = 0, 0
    for layer, gates in taken.items():
        other = record.last(layer).gates.argmax(-1) != gates.argmax(-1).to(mask.device)
        if other.dim() == mask.dim():
            other = other[mask]
        moved, choices = moved + int(other.sum()), choices + len(other)
    return moved, choices


def _partners(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each of `(n,)` another one of its group: a random ring a group. One that is alone keeps itself."""
    partner = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        ring = generator.permutation(np.flatnonzero(groups == group))
        partner[ring] = np.roll(ring, -1)
    return partner


def _among_tokens(record: RoutingRecord, mask: Tensor, partner: np.ndarray) -> dict[int, Tensor]:
    """Layer -> gates `(B, T, H)`, where each real token, `mask` `(B, T)`, has its partner's."""
    permuted = {}
    for layer in record.layers:
        permuted[layer] = record.last(layer).gates.clone()
        permuted[layer][mask] = permuted[layer][mask][torch.from_numpy(partner)]
    return permuted
