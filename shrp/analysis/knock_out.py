"""The score of a routed model with some experts knocked out: the routers pick among the others.

`pairs` are the rows of minimal pairs, `(P, 2)`; each counts as one unit.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis import Progress
from shrp.data.batching import bucketed_batches, collate, encode, longest_input
from shrp.data.text_data import TextData, units_of
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import label_columns, summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import EQUAL, worth
from shrp.evaluation.paired import Agreement, agreement, paired_difference
from shrp.evaluation.statistics import NO_INTERVAL, apart_from_others, of_mean
from shrp.model.convert import expert_layers
from shrp.model.gates import knock_out, record_routing, top_k_gates, use_gates
from shrp.model.layers import ExpertLayer
from shrp.model.partial import run_from, run_layers

RESAMPLES = 2000
FEWEST = 5
"""A mean change has an interval from this many affected examples on; a minimal pair counts as one."""
FEWEST_BEYOND = 10
"""`Joint.beyond` has an interval from this many examples with a difference on."""
PREFIX_BYTES = 256 * 2**20
"""Memory of one `Prefix`; examples beyond it run again each time."""


class Prefix:
    """What enters a model's first routed layer, kept by example of one data set; thread-safe."""

    def __init__(self, model: PreTrainedModel, *, limit: int = PREFIX_BYTES) -> None:
        self.model, self.first, self.limit = model, min(expert_layers(model)), limit
        self.size, self._kept, self._lock = 0, {}, threading.Lock()

    def entering(self, rows: Sequence[int], inputs: Mapping[str, Tensor]) -> Tensor:
        """What enters layer `first`, `(B, T, d)`, 0 where padded, for rows of the data, encoded in `inputs`."""
        mask = inputs["attention_mask"].bool()
        known = [self._kept.get(row) for row in rows]
        if missing := [i for i, states in enumerate(known) if states is None]:
            part = {name: values[missing] for name, values in inputs.items()}
            for i, states in zip(missing, run_layers(self.model, part, 0, self.first), strict=True):
                known[i] = states[mask[i]]  # a copy, so the whole batch is not kept alive
                self._keep(rows[i], known[i])
        hidden = known[0].new_zeros(*mask.shape, known[0].shape[-1])
        hidden[mask] = torch.cat(known)
        return hidden

    def _keep(self, row: int, states: Tensor) -> None:
        with self._lock:
            if row not in self._kept and self.size + states.nbytes <= self.limit:
                self._kept[row] = states
                self.size += states.nbytes


@dataclass(frozen=True, eq=False)
class KnockOut:
    """A routed model with and without some experts, on all of the data."""

    experts: tuple[tuple[int, int], ...]
    """Layer and number of those knocked out."""
    before: Evaluation
    after: Evaluation
    affected: np.ndarray
    """Rows of the examples that used one of the experts, ascending."""

    @property
    def flipped(self) -> int:
        """Examples whose prediction changes; 0 for regression."""
        if self.before.task.is_regression:
            return 0
        return int((self.before.predictions != self.after.predictions).sum())

    def score_change(self) -> tuple[float, tuple[float, float]]:
        """Score without the experts minus score with them, and its paired 95% interval."""
        return paired_difference(self.after, self.before, resamples=RESAMPLES)

    def agreement(self) -> Agreement:
        """Which of `after` and `before` is right where; needs labelled classes."""
        return agreement(self.after, self.before)

    def logit_changes(self, *, pairs: np.ndarray | None = None) -> pd.DataFrame:
        """One row a class: how its mean logit changes.

        Columns class, before, after (means), change with low, high (95%, nan by `FEWEST`), and `among its inputs`, the mean
        change over the affected examples.
        """
        before, after = (one.logits.astype(np.float64) for one in (self.before, self.after))
        units, change = units_of(len(before), pairs), after - before
        columns = {"class": self.before.task.label_names or ("the prediction",)}
        columns |= {"before": before.mean(0), "after": after.mean(0), "change": change.mean(0)}
        enough = len(np.unique(units[self.affected])) >= FEWEST
        ends = [of_mean(column, units) if enough else NO_INTERVAL for column in change.T]
        columns["low"], columns["high"] = zip(*ends)
        among = change[self.affected].mean(0) if len(self.affected) else np.nan
        return pd.DataFrame(columns | {"among its inputs": among})

    def changes(self) -> np.ndarray:
        """Change of each prediction's worth, `(N,)`, negative where the experts helped; needs labels."""
        after, before = (worth(one.task, one.logits, one.labels) for one in (self.after, self.before))
        return after - before

    def by_slice(self, pairs: np.ndarray | None = None, progress: Progress | None = None) -> pd.DataFrame:
        """One row a slice: the effect there, and whether it differs from elsewhere; empty without slices or labels.

        Columns slice, n, affected, `become wrong`, `become right`, change (mean of `changes`) with low, high (95%, nan by
        `FEWEST`), elsewhere (mean over all others), difference, p (permutation test) and q (Benjamini and Hochberg 1995).
        """
        columns = ["slice", "n", "affected", "become wrong", "become right"]
        columns += ["change", "low", "high", "elsewhere", "difference", "p"]
        if self.before.slices is None or self.before.labels is None:
            return pd.DataFrame(columns=[*columns, "q"])
        from scipy.stats import false_discovery_control

        names, codes = np.unique(np.array(self.before.slices, dtype=str), return_inverse=True)
        change, units = self.changes(), units_of(len(codes), pairs)
        taken = np.isin(np.arange(len(codes)), self.affected)
        right = [np.zeros(len(codes), dtype=bool)] * 2
        if not self.before.task.is_regression:
            right = [one.predictions == one.labels for one in (self.before, self.after)]
        together = np.empty((0, 2), dtype=np.int64) if pairs is None else pairs
        p = apart_from_others(change[:, None], codes, together, progress=progress)[:, 0]
        rows = []
        for name, mask in zip(names, codes == np.arange(len(names))[:, None], strict=True):
            here, ends = taken & mask, NO_INTERVAL
            if len(np.unique(units[here])) >= FEWEST:
                ends = of_mean(change[mask], units[mask])
            turned = [(right[a] & ~right[b] & mask).sum() for a, b in ((0, 1), (1, 0))]
            mine, others = change[mask].mean(), change[~mask].mean() if (~mask).any() else np.nan
            rows.append([name, mask.sum(), here.sum(), *turned, mine, *ends, others, mine - others])
        frame = pd.DataFrame(rows, columns=columns[:-1]).assign(p=p)
        return frame.assign(q=false_discovery_control(p) if len(names) > 1 else np.nan)


class Joint(NamedTuple):
    """Effects of several experts together and alone: means of `KnockOut.changes`."""

    together: float
    sum: float
    """Of the effects of each alone."""
    beyond: float
    """`together` minus `sum`."""
    interval: tuple[float, float]
    """95% interval of `beyond`; nan by `FEWEST_BEYOND`."""


def joint(together: KnockOut, alone: Sequence[KnockOut], pairs: np.ndarray | None = None) -> Joint:
    """Compare the knock-out of several experts with those of each alone, on the same labelled data."""
    whole, parts = together.changes(), np.sum([one.changes() for one in alone], axis=0)
    beyond = whole - parts
    beyond[np.abs(beyond) < EQUAL] = 0.0
    units, ends = units_of(len(beyond), pairs), NO_INTERVAL
    if len(np.unique(units[beyond != 0])) >= FEWEST_BEYOND:
        ends = of_mean(beyond, units)
    return Joint(float(whole.mean()), float(parts.mean()), float(beyond.mean()), ends)


def knock_out_effect(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    before: Evaluation,
    experts: Collection[tuple[int, int]],
    *,
    chosen: np.ndarray | None = None,
    prefix: Prefix | None = None,
    batch_size: int = 64,
    max_length: int = 128,
    progress: Progress | None = None,
) -> KnockOut:
    """Knock experts out on all of the data.

    Only examples that use one of them run again, from the lowest of the experts' layers on.

    Args:
        before: the model's evaluation on all of the data.
        chosen: mask `(N,)` of examples that may use one of them, to skip the others; None runs all.
        prefix: shared by calls on the same model and data.

    Raises:
        PlanError: there is no such expert, none is named, or none would be left in a layer.
        DataError: `before` is not of all these data.
    """
    routed = expert_layers(model)
    removed = removed_by_layer(experts, routed)
    if before.n != len(data) or before.data != data.name:
        raise DataError(
            f"The evaluation is of {before.n} inputs of {before.data}, not of all of {data.name}."
        )
    before = summarise(data, before.indices, before.logits, False)  # with the slices of these data
    rows = np.arange(len(data)) if chosen is None else np.flatnonzero(chosen)
    encoded = encode(tokenizer, [data.texts[i] for i in rows], longest_input(model, tokenizer, max_length))
    columns = label_columns(model, data.task)
    prefix = prefix or Prefix(model, limit=0)
    logits, affected, done = before.logits.copy(), [], 0
    lowest = min(removed)
    for places in bucketed_batches([len(row["input_ids"]) for row in encoded], batch_size):
        inputs = collate(tokenizer, encoded, places, model.device)
        with torch.inference_mode():
            entering = prefix.entering(rows[places].tolist(), inputs)
            if lowest > prefix.first:
                entering = run_layers(model, inputs, prefix.first, lowest, entering)
            uses = _uses(model, inputs, entering, removed)
            if uses.any():
                part = {name: values[uses] for name, values in inputs.items()}
                with use_gates(knock_out(removed, routed[lowest].top_k)):
                    outputs, _ = run_from(model, part, lowest, entering[uses])
                here = rows[np.asarray(places)[uses.cpu().numpy()]]
                logits[here] = outputs.float().cpu().numpy()[:, columns]
                affected.append(here)
        done += len(places)
        if progress:
            progress(done, len(rows))
    after = summarise(data, np.arange(len(data)), logits, False)
    found = np.sort(np.concatenate(affected)) if affected else np.empty(0, dtype=np.int64)
    named = tuple((layer, expert) for layer, taken in removed.items() for expert in taken)
    return KnockOut(named, before, after, found)


def removed_by_layer(
    experts: Collection[tuple[int, int]], routed: Mapping[int, ExpertLayer]
) -> dict[int, tuple[int, ...]]:
    """Layer -> the experts to knock out, both ascending. Raises as `knock_out_effect`."""
    if not experts:
        raise PlanError("name at least one expert to knock out.")
    removed: dict[int, set[int]] = {}
    for layer, expert in sorted(experts):
        if layer not in routed or not 0 <= expert < routed[layer].num_experts:
            known = ", ".join(map(str, routed))
            most = next(iter(routed.values())).num_experts - 1 if routed else 0
            raise PlanError(
                f"layer {layer} has no router with an expert {expert}: layers {known} have one, of experts 0 to {most}."
            )
        removed.setdefault(layer, set()).add(expert)
    for layer, taken in removed.items():
        if len(taken) == routed[layer].num_experts:
            raise PlanError(
                f"all experts of layer {layer} can't be knocked out: leave its router at least one."
            )
    return {layer: tuple(sorted(taken)) for layer, taken in removed.items()}


def _uses(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    entering: Tensor,
    removed: Mapping[int, Sequence[int]],
) -> Tensor:
    """Which examples use one of the experts, bool `(B,)`; `entering` `(B, T, d)` enters their lowest layer."""
    routed, lowest, mask = expert_layers(model), min(removed), inputs["attention_mask"].bool()
    if len(removed) == 1:
        gates = {lowest: top_k_gates(routed[lowest].router(entering, mask), routed[lowest].top_k)}
    else:
        with record_routing() as record:
            run_from(model, inputs, lowest, entering)
        gates = {layer: record.last(layer).gates for layer in removed}
    found = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    for layer, taken in removed.items():
        uses = (gates[layer][..., list(taken)] > 0).any(-1)  # (B,) or (B, T)
        found |= (uses & mask).any(1) if uses.dim() == 2 else uses
    return found
