"""Whether it matters which expert an input takes: routes are exchanged among inputs, or done away with.

Three questions, which have different answers. What does a *wrong* route cost? Every input takes the route of another
one, so each layer is used as before. What does it cost if that one is answered *alike*? Then the route is another, but
of the same answer. And what is an input's *own* route worth, against none at all? Every input gets one and the same
mixture of all experts, weighted by their usage: what a pruned model computes that keeps them all (method.md, "Usage and
pruning"). A model may lose much by wrong routes and nothing by the mixture.

Nothing is trained: what a model keeps that learnt without a router is another question, which the no-router control
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
from shrp.metrics import to_predictions, wilson
from shrp.paired import paired_difference
from shrp.partial import run_from
from shrp.routing import RoutingRecord, record_routing, top_k_gates, use_gates
from shrp.specialisation import by_value
from shrp.usage import UsageStats

ALL, ALIKE, MIXTURE = "all", "alike", "mixture"


@dataclass(frozen=True, eq=False)
class ShuffledRoutes:
    """A routed model with its routes as they are and otherwise, on all of the data."""

    before: Evaluation
    """As routed; rows in the data set's order."""
    after: Mapping[int | str, Evaluation]
    """The same rows with the routes of one layer exchanged, ascending, those of `ALL`, those of all among inputs that
    the model answers `ALIKE`, and with the `MIXTURE`."""
    matched: Mapping[int | str, Evaluation]
    """The same with outputs shifted so that each class is given as often as before; empty for regression."""
    moved: Mapping[int | str, float]
    """Part of the choices in a layer, in all, or in all among inputs answered alike, that fall on another expert once
    exchanged."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for each of `after`; takes a second or two.

        Columns layer (its number, `all`, `alike` or `mixture`), moved (nan for the mixture), score, change (of the
        score, nan without labels) with low and high (95%, paired), matched, matched_change, matched_low and
        matched_high (the same with answer shares matched; nan for regression), flipped (inputs whose predicted class
        changes; nan for regression), share (of all) with share_low and share_high (95% Wilson). A layer exchanged alone
        leaves those above to route as they then would.
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
    alone: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> ShuffledRoutes:
    """Exchange routes among inputs, in one layer at a time, in all together, and in all among inputs that the model
    answers alike; and put the mixture in their place.

    Under sequence routing an input takes the gates of another one, the same one in all layers. Under token routing the
    real tokens of a batch, special ones among them, exchange theirs; batches are of inputs of about the same length.
    Alike are inputs of the same predicted class, of a regression those whose output is in the same fourth; one that is
    alone keeps its own.

    Args:
        stats: of `data`, row by row, at the same `max_length`.
        alone: whether each layer is exchanged alone too.
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
    if len(stats.logits) != len(data):
        raise DataError("the usage has no outputs, which say what is answered alike; measure it anew.")
    if len(data) < 2:
        raise DataError("a single input has no other one to exchange its route with; give at least two.")
    columns, first = label_columns(model, data.task), min(routed)
    answers = to_predictions(data.task, stats.logits[:, columns])
    # The draw among all is the same whatever the answers are.
    groups = {ALL: np.zeros(len(data), dtype=np.int64), ALIKE: _answer_of(answers, data)}
    generators = {ALL: np.random.default_rng(seed), ALIKE: np.random.default_rng([seed, 1])}
    by_token = stats.unit == "tokens"
    partners = {} if by_token else {case: _partners(of, generators[case]) for case, of in groups.items()}
    gates = {
        case: {
            layer: top_k_gates(torch.from_numpy(stats.probs[layer][partner]), module.top_k)
            for layer, module in routed.items()
        }
        for case, partner in partners.items()
    }
    mixture = {layer: torch.from_numpy(stats.share(layer)).float() for layer in routed}
    encoded = encode(tokenizer, data.texts, longest_input(model, tokenizer, max_length))
    prefix = prefix or Prefix(model, limit=0)
    single = sorted(routed) if alone else []
    logits = {
        case: np.zeros((len(data), len(columns)), dtype=np.float32)
        for case in ("as routed", *single, ALL, ALIKE, MIXTURE)
    }
    moved = {(case, layer): 0 for case in groups for layer in routed}
    choices, done = 0, 0  # as many in each layer
    for rows in bucketed_batches([len(row["input_ids"]) for row in encoded], batch_size):
        inputs = collate(tokenizer, encoded, rows)
        mask = inputs["attention_mask"].bool()
        with torch.inference_mode():
            entering = {first: prefix.entering(rows, inputs)}
            with record_routing() as record:
                output, found = run_from(model, inputs, first, entering[first], watch=sorted(routed)[1:])
            logits["as routed"][rows] = output.float().numpy()[:, columns]
            entering |= found
            theirs = {
                case: _among_tokens(record, mask, groups[case][rows], generators[case])
                if by_token
                else {layer: gates[case][layer][rows] for layer in routed}
                for case in groups
            }
            for case, taken in theirs.items():
                for layer in routed:
                    other = record.last(layer).gates.argmax(-1) != taken[layer].argmax(-1)
                    moved[case, layer] += int((other & mask if by_token else other).sum())
            choices += int(mask.sum()) if by_token else len(rows)
            cases = {layer: {layer: theirs[ALL][layer]} for layer in single} | theirs | {MIXTURE: mixture}
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
        {layer: moved[ALL, layer] / choices for layer in routed}
        | {case: sum(moved[case, layer] for layer in routed) / (choices * len(routed)) for case in groups},
    )


def _answer_of(answers: np.ndarray, data: TextData) -> np.ndarray:
    """The group of answers that each input is in `(N,)`."""
    masks = [mask for _, mask in by_value(answers, data)]
    return np.argmax(np.stack(masks), axis=0)


def _partners(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each of `(n,)` another one of its group, each once: a random ring a group. One that is alone has itself."""
    partner = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        ring = generator.permutation(np.flatnonzero(groups == group))
        partner[ring] = np.roll(ring, -1)
    return partner


def _among_tokens(
    record: RoutingRecord, mask: Tensor, groups: np.ndarray, generator: np.random.Generator
) -> dict[int, Tensor]:
    """Layer -> gates `(B, T, H)`, where each real token, `mask` `(B, T)`, has another's of the same group, `(B,)`."""
    partner = torch.from_numpy(_partners(np.repeat(groups, mask.sum(1).numpy()), generator))
    dealt = {}
    for layer in record.layers:
        dealt[layer] = record.last(layer).gates.clone()
        dealt[layer][mask] = dealt[layer][mask][partner]
    return dealt
