"""Does it matter which expert an example takes? Routes exchanged, groups' usage compared, and two models' usage.

`shuffle_routes` answers three questions without training. What does a wrong route cost: every example takes the route of
another one, so each layer is used as before. What if that one has the same prediction? And what is an example's own
route worth against none: all examples get one mixture of all experts, weighted by usage, as a pruned model that keeps
them all computes. Scores also come with the threshold calibrated (`shrp.evaluation.calibration`), without labels.

Shapes: `L` routed layers, `H` experts, `N` examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.knock_out import Prefix
from shrp.analysis.usage import UsageStats
from shrp.data.batching import bucketed_batches, collate, encode, longest_input
from shrp.data.slices import ANSWER, groups_by
from shrp.data.text_data import TextData, units_of
from shrp.errors import DataError, PlanError
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.evaluate import label_columns, summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import to_predictions
from shrp.evaluation.paired import mean_difference
from shrp.evaluation.statistics import NO_WIDTH, at_once, wilson
from shrp.model.convert import router_layers
from shrp.model.gates import RoutingRecord, record_routing, top_k_gates, use_gates
from shrp.model.layers import ExpertLayer
from shrp.model.partial import run_from
from shrp.pruning.overlap import total_variation

MIXTURE = "mixture"
DRAWS = 5

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class ShuffledRoutes:
    """A routed model with its routes as they are and otherwise, on all of the data."""

    before: Evaluation
    """As routed."""
    after: Mapping[int | str, tuple[Evaluation, ...]]
    """With the routes of one layer exchanged; of `ALL` layers, and of all among examples predicted `ALIKE`, each in
    several draws; and with the `MIXTURE`."""
    matched: Mapping[int | str, tuple[Evaluation, ...]]
    """The same with the threshold calibrated; empty for regression."""
    moved: Mapping[int | str, float]
    """Part of the choices that fall on another expert once exchanged."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for each of `after`; takes a few seconds.

        Columns layer (its number, `all`, `alike` or `mixture`), draws, moved, score, change with low and high (95%,
        paired; nan without labels), matched, matched_change, matched_low and matched_high (the same, calibrated; nan
        for regression), flipped (examples whose predicted class changes), share (of all) with share_low and
        share_high. With several draws these are means, and the columns in _min and _max the draws' range.
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
    """Exchange routes among examples, in one layer at a time, in all, and in all among examples predicted alike (the
    same class, or the same quartile of a regression's outputs); and replace them by the mixture.

    Args:
        stats: of `data`, row by row, at the same `max_length`.
        prefix: as for `shrp.analysis.knock_out.knock_out_effect`.
        draws: exchanges of all layers, at least one; one layer alone is exchanged once.
        seed: of the first draw.
        progress: called with examples done and in all.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the usage is not of these data and this model, or has no outputs, or there is but one example.
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


ALL, ALIKE = "all", "alike"

Case = tuple[int | str, int]
"""What is exchanged (a layer's number, or a kind for all layers) and in which draw."""


class Exchanges:
    """Whose gates each input, or token, takes: in several draws, among all inputs and among those answered alike.

    Under sequence routing an input takes the gates of another one, the same one in all layers; one that is alone in its
    answer keeps its own. Under token routing the real tokens of a batch, special ones among them, exchange theirs, also
    with those of their own text.
    """

    def __init__(
        self, stats: UsageStats, answers: np.ndarray, top_k: Mapping[int, int], draws: int, seed: int
    ) -> None:
        """Args:
        stats: of the inputs as routed.
        answers: the group of each input `(N,)`, as by `answer_groups`.
        top_k: how many experts an input takes, by layer.
        draws: of each kind.
        seed: of the first draw.
        """
        self.stats, self.top_k, self.by_token = stats, top_k, stats.unit == "tokens"
        self.groups = {ALL: np.zeros_like(answers), ALIKE: answers}
        # The draws among all are the same whatever the answers are.
        self.generators = {(ALL, draw): np.random.default_rng(seed + draw) for draw in range(draws)}
        self.generators |= {(ALIKE, draw): np.random.default_rng([seed + draw, 1]) for draw in range(draws)}
        self.partners = {}
        if not self.by_token:
            for case, generator in self.generators.items():
                self.partners[case] = _partners(self.groups[case[0]], generator)

    @property
    def cases(self) -> list[Case]:
        """Kinds of exchange and draws."""
        return [*self.generators]

    def __call__(
        self, rows: Sequence[int], record: RoutingRecord, mask: Tensor
    ) -> dict[Case, dict[int, Tensor]]:
        """Case -> layer -> gates of a batch, `(B, H)` or `(B, T, H)`.

        Args:
            rows: of the data, the batch's.
            record: of the batch as routed.
            mask: the real tokens `(B, T)`.
        """
        if self.by_token:
            lengths = mask.sum(1).cpu().numpy()
            return {
                case: _among_tokens(
                    record, mask, _partners(np.repeat(self.groups[case[0]][rows], lengths), generator)
                )
                for case, generator in self.generators.items()
            }
        return {
            case: {
                layer: top_k_gates(torch.from_numpy(self.stats.probs[layer][partner[rows]]), k)
                for layer, k in self.top_k.items()
            }
            for case, partner in self.partners.items()
        }


def answer_groups(answers: np.ndarray, data: TextData) -> np.ndarray:
    """The group of answers that each input is in `(N,)`: its predicted class, or which fourth of the numbers.

    Args:
        answers: predictions `(N,)`.
    """
    return np.argmax(np.stack([*groups_by(ANSWER, data, answers).values()]), axis=0)


def count_moved(record: RoutingRecord, taken: Mapping[int, Tensor], mask: Tensor) -> tuple[int, int]:
    """How many of a batch's choices of an expert fall on another one than as routed, and how many there are.

    Args:
        record: of the batch as routed.
        taken: layer -> gates taken instead, `(B, H)` or `(B, T, H)`.
        mask: the real tokens `(B, T)`.
    """
    moved, choices = 0, 0
    for layer, gates in taken.items():
        other = record.last(layer).gates.argmax(-1) != gates.argmax(-1).to(mask.device)
        if other.dim() == mask.dim():
            other = other[mask]
        moved, choices = moved + int(other.sum()), choices + len(other)
    return moved, choices


def _partners(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each of `(n,)` another one of its group, each once: a random ring a group. One that is alone has itself."""
    partner = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        ring = generator.permutation(np.flatnonzero(groups == group))
        partner[ring] = np.roll(ring, -1)
    return partner


def _among_tokens(record: RoutingRecord, mask: Tensor, partner: np.ndarray) -> dict[int, Tensor]:
    """Layer -> gates `(B, T, H)`, where each real token, `mask` `(B, T)`, has its partner's."""
    dealt = {}
    for layer in record.layers:
        dealt[layer] = record.last(layer).gates.clone()
        dealt[layer][mask] = dealt[layer][mask][torch.from_numpy(partner)]
    return dealt


FEWEST = 5
"""A difference of Top-1 shares has an interval where, by the share in both groups together, at least so many inputs of
the smaller group are to be expected to choose the expert, and as many not to: of fewer the bootstrap is too sure. Both
inputs of a minimal pair count as one."""
SMALLEST = 40
"""A difference of mean probabilities has an interval where both groups have at least so many inputs, likewise."""


def usage_difference(
    stats: UsageStats,
    group: np.ndarray,
    other: np.ndarray,
    measure: Literal["share", "mean_probs"] = "share",
    *,
    pairs: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The group's usage less the other's, expert by expert.

    The intervals of several experts are not independent: a share that one has more another has less.

    Args:
        group, other: masks `(N,)`; they may overlap, as a class does with all inputs.
        measure: Top-1 shares, or mean router probabilities.
        pairs: rows of minimal pairs `(P, 2)`, which are drawn as one: they route much alike.
        resamples: draws of the bootstrap over all inputs, the same ones for all experts. Tokens of one input are not
            independent, so under token routing too it is inputs that are drawn.
        seed: makes the intervals reproducible.
        progress: called with the draws done and all of them.

    Returns:
        Differences `(L, H)`, nan where a group is empty, and their 95% percentile intervals `(L, H, 2)`, nan where
        there is none: by `FEWEST` and `SMALLEST`, and where all draws are alike. Then how many of these would leave 0
        out by chance, were there no differences at all: a count a draw that misses neither group, of differences more
        than 1.96 standard deviations from their mean over the draws.
    """
    of = stats.share if measure == "share" else stats.mean_probs
    values = np.stack([of(layer, group) - of(layer, other) for layer in stats.layers])
    shape = values.shape
    ends = np.full((*shape, 2), np.nan)
    if not (group.any() and other.any()):
        return values, ends, np.empty(0)
    each = stats.top1 if measure == "share" else stats.probs
    table = np.concatenate([each[layer] for layer in stats.layers], axis=1).astype(np.float64)  # (N, L * H)
    weight = stats.top1[stats.layers[0]].sum(1) if measure == "share" else np.ones(stats.n)  # (N,)
    weight = weight.astype(np.float64)
    units = units_of(stats.n, pairs)
    drawn = _draws(table, weight, group, other, units, resamples, np.random.default_rng(seed), progress)
    smaller = min(len(np.unique(units[mask])) for mask in (group, other))
    known = np.full(shape, smaller >= SMALLEST)
    if measure == "share":
        share = np.stack([stats.share(layer, group | other) for layer in stats.layers])
        known = np.minimum(share, 1 - share) * smaller >= FEWEST - NO_WIDTH
    if not len(drawn):
        return values, ends, np.empty(0)
    found = np.moveaxis(np.percentile(drawn, [2.5, 97.5], axis=0), 0, -1).reshape(*shape, 2)
    known &= found[..., 1] - found[..., 0] > NO_WIDTH
    ends[known] = found[known]
    drawn = drawn[:, known.ravel()]
    return values, ends, (np.abs(drawn - drawn.mean(0)) > 1.96 * drawn.std(0)).sum(1)


def _draws(
    table: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    other: np.ndarray,
    units: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Differences in bootstrap samples of the units, but for those that miss a group; `(resamples, L * H)`."""
    n, found, done = int(units.max()) + 1, [], 0
    for size in at_once(resamples, len(table)):
        times = generator.multinomial(n, np.full(n, 1 / n), size=size)[:, units]
        totals = [times[:, mask] @ weight[mask] for mask in (group, other)]
        both = (totals[0] > 0) & (totals[1] > 0)
        means = [
            (times[:, mask] @ table[mask])[both] / total[both, None]
            for mask, total in zip((group, other), totals, strict=True)
        ]
        found.append(means[0] - means[1])
        done += size
        if progress is not None:
            progress(done, resamples)
    return np.concatenate(found) if found else np.empty((0, table.shape[1]))


def usage_distances(
    a: UsageStats,
    b: UsageStats,
    *,
    pairs: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Distances of the Top-1 shares of two models in every layer that both route.

    Expert `h` starts out as head `h` of the dense layer, so a number names the same thing in both models only where
    they were converted from the same base. `renumbered` holds whatever the numbers mean: it is the least distance
    that any renumbering of one model's experts leaves, which sorting both models' shares gives.

    A distance can't be negative, so that of two models of the same usage is above 0 too. What chance makes of it is
    measured by exchanging the models: each input's two choices change sides, or not, at random.

    Args:
        pairs: rows of minimal pairs `(P, 2)`, of which both inputs change sides together.
        draws: how often sides are exchanged; 0 leaves chance out.
        seed: makes the draws reproducible.
        progress: called with the draws done and all of them.

    Returns:
        Columns layer, distance, chance (its mean over the draws), p (how often a draw's is as large) and q (p for all
        layers, after Benjamini and Hochberg 1995), renumbered; one row a layer, ascending, none where no layer is
        routed in both. chance, p and q are nan where one counts inputs and the other tokens, which can't change sides.

    Raises:
        DataError: the models have different numbers of experts, or were not measured on the same data.
    """
    from scipy.stats import false_discovery_control

    if a.data != b.data or a.n != b.n:
        raise DataError(
            f"Usage on '{a.data}' (n = {a.n:,}) and on '{b.data}' (n = {b.n:,}) can't be compared; measure both models "
            "on the same data."
        )
    if a.num_experts != b.num_experts:
        raise DataError(
            f"{a.num_experts} and {b.num_experts} experts a layer have no distance; only layers with equally many do."
        )
    layers = sorted(set(a.layers) & set(b.layers))
    shares = [(a.share(layer), b.share(layer)) for layer in layers]
    found = np.array([total_variation(p, q) for p, q in shares])
    chance = p_values = q_values = np.full(len(layers), np.nan)
    if layers and draws and a.unit == b.unit:
        drawn = _exchanged(a, b, layers, units_of(a.n, pairs), draws, np.random.default_rng(seed), progress)
        chance = drawn.mean(0)
        p_values = (1 + (drawn >= found - 1e-12).sum(0)) / (1 + draws)
        q_values = false_discovery_control(p_values)
    least = [total_variation(np.sort(p), np.sort(q)) for p, q in shares]
    columns = {"layer": layers, "distance": found, "chance": chance, "p": p_values, "q": q_values}
    return pd.DataFrame(columns | {"renumbered": least})


def _exchanged(
    a: UsageStats,
    b: UsageStats,
    layers: list[int],
    units: np.ndarray,
    draws: int,
    generator: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Distances where the choices of each unit change sides at random, `(draws, L)`."""
    ours, theirs = (
        np.concatenate([one.top1[layer] for layer in layers], axis=1).astype(np.float64) for one in (a, b)
    )
    found, done = [], 0
    for size in at_once(draws, a.n):
        change = (generator.random((size, int(units.max()) + 1)) < 0.5)[:, units].astype(np.float64)
        moved = (change @ (theirs - ours)).reshape(size, len(layers), -1)
        sides = [
            side.sum(0).reshape(len(layers), -1) + way * moved for side, way in ((ours, 1), (theirs, -1))
        ]
        p, q = (side / side.sum(-1, keepdims=True) for side in sides)
        found.append(total_variation(p, q))
        done += size
        if progress is not None:
            progress(done, draws)
    return np.concatenate(found)
