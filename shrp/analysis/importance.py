"""The effect of knocking out each expert, or each head of a dense layer, on a whole data set.

Only examples that use an expert run again, from its layer on. Heads are set to 0 (Michel et al. 2019).

Shapes: `n` examples, `L` layers, `H` experts or heads a layer, `C` classes, `E = L H`, `G` groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis import Progress
from shrp.analysis.attribution.experts import check_can_pick_next
from shrp.data.batching import Batch, collate, encode, longest_input
from shrp.data.tasks import Task
from shrp.data.text_data import TextData, pairs_among, units_of
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import label_columns, summarise
from shrp.evaluation.metrics import to_predictions, worth
from shrp.evaluation.paired import paired_difference
from shrp.evaluation.statistics import FALSE_DISCOVERIES, NO_INTERVAL, apart_from_others, of_mean, spearman
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import expert_layers, layer_kinds, num_experts_of
from shrp.model.gates import RoutingRecord, knock_out, record_routing, use_gates
from shrp.model.modules import with_modules
from shrp.model.partial import run_from

MEANINGS = ("router picks the next", "zeroed")
"""An expert is knocked out by letting its router pick another, or by setting its gate to 0 with all other gates frozen."""
BLOCK = 32
"""Examples computed together."""
ABLATED = 512
"""Most examples for the selection by knock-out."""
_RESAMPLES = 500

MEASURES = {
    "effect": "mean |change of the output|, all inputs",
    "effect_per_use": "mean |change of the output|, inputs that use it",
    "score_lost": "score lost",
}
"""Columns of `KnockOuts.table` to compare usage with."""


@dataclass(frozen=True, eq=False)
class KnockOuts:
    """Outputs on some examples with each expert, or head, knocked out in turn."""

    task: Task
    layers: tuple[int, ...]
    rows: np.ndarray
    """int64 `(n,)`: rows of the data."""
    base: np.ndarray
    """Outputs of the model itself, `(n, C)`."""
    knocked_out: np.ndarray
    """`(n, L, H, C)`; `base` where an expert does not fire."""
    top1: np.ndarray
    """`(n, L, H)`: how often each expert is the example's Top-1."""
    fires: np.ndarray
    """bool `(n, L, H)`."""

    @property
    def n(self) -> int:
        """Inputs."""
        return len(self.rows)

    def effects(self, output: int | None) -> np.ndarray:
        """`(n, L, H)`: the output with the expert minus the output without it.

        Args:
            output: the class; None takes each example's predicted one. 0 for regression.
        """
        classes = self.base.argmax(1) if output is None else np.full(self.n, output)
        index = classes[:, None, None, None]
        with_it = np.take_along_axis(self.base, classes[:, None], 1)[:, :, None]  # (n, 1, 1)
        return with_it - np.take_along_axis(self.knocked_out, index, 3)[..., 0]

    def sizes(self) -> dict[int, np.ndarray]:
        """Layer -> mean absolute effect on the predicted output `(H,)`."""
        effects = np.abs(self.effects(None).astype(np.float64)).mean(0)
        return dict(zip(self.layers, effects, strict=True))

    def table(self, data: TextData, output: int | None) -> pd.DataFrame:
        """One row an expert, with 95% intervals; minimal pairs count as one unit but for `score_lost`.

        `signed` is the mean effect on the output, `effect` its mean size, `effect_per_use` the same over the `uses` examples
        that the expert fires for, `score_lost` the drop of the task's metric, `flips` the number of changed predictions.

        Args:
            data: the data that `rows` are of.
            output: as for `effects`.
        """
        effects, counts = self.effects(output).astype(np.float64), self.top1.sum(0)
        usage = counts / counts.sum(-1, keepdims=True)
        predictions = to_predictions(self.task, self.base)
        units = units_of(len(self.base), pairs_among(data, self.rows))
        records = []
        for i, expert in np.ndindex(usage.shape):
            found, mine = effects[:, i, expert], self.fires[:, i, expert]
            record = {
                "layer": self.layers[i],
                "expert": expert,
                "usage": usage[i, expert],
                "uses": int(mine.sum()),
            }
            sizes, everyone = np.abs(found), np.ones(self.n, dtype=bool)
            for name, values, rows in (
                ("signed", found, everyone),
                ("effect", sizes, everyone),
                ("effect_per_use", sizes, mine),
            ):
                low, high = of_mean(values[rows], units[rows])
                low = low if name == "signed" else max(low, 0.0)  # nan stays
                mean = values[rows].mean() if rows.any() else np.nan
                record |= {name: mean, f"{name}_low": low, f"{name}_high": high}
            lost = self._score_lost(data, i, expert)
            record |= dict(zip(("score_lost", "score_lost_low", "score_lost_high"), lost, strict=True))
            if not self.task.is_regression:
                changed = to_predictions(self.task, self.knocked_out[:, i, expert]) != predictions
                record["flips"] = int(changed.sum())
            records.append(record)
        return pd.DataFrame(records)

    def _score_lost(self, data: TextData, layer: int, expert: int) -> tuple[float, float, float]:
        if data.labels is None:
            return np.nan, *NO_INTERVAL
        changed = self.knocked_out[:, layer, expert]
        whole, without_it = (summarise(data, self.rows, x, False) for x in (self.base, changed))
        lost, bounds = paired_difference(whole, without_it, resamples=_RESAMPLES)
        return lost, *bounds


def knock_outs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    rows: Sequence[int] | np.ndarray,
    *,
    meaning: str = MEANINGS[0],
    max_length: int = 128,
    progress: Progress | None = None,
) -> KnockOuts:
    """Knock out every expert of every routed layer in turn, on some examples, as one batch.

    Args:
        rows: which examples, such as one of `blocks`.
        meaning: of `MEANINGS`.

    Raises:
        PlanError: the model has no router, an unknown meaning, or nothing to pick next.
        DataError: there are no examples.
    """
    routed = expert_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so there is no expert to knock out.")
    if meaning not in MEANINGS:
        raise PlanError(f"an expert can be knocked out as {' or '.join(MEANINGS)}, not as '{meaning}'.")
    if meaning == MEANINGS[0]:
        check_can_pick_next(routed)
    rows = np.asarray(rows, dtype=np.int64)
    batch = one_batch(model, tokenizer, data, rows, max_length)
    columns, layers = label_columns(model, data.task), list(routed)
    with torch.inference_mode():
        with record_routing() as record:
            logits, entering = run_from(model, batch, watch=layers)
        base = logits.float().cpu().numpy()[:, columns]
        fires, top1 = (np.stack(x, 1) for x in zip(*(_use(record, layer) for layer in layers), strict=True))
        shape = (len(rows), len(layers), num_experts_of(model), len(columns))
        knocked_out = np.broadcast_to(base[:, None, None], shape).copy()
        for i, layer in enumerate(layers):
            inputs, experts = np.nonzero(fires[:, i])
            for start in range(0, len(inputs), len(rows)):
                part = slice(start, start + len(rows))
                who, what = torch.from_numpy(inputs[part]), torch.from_numpy(experts[part])
                if meaning == MEANINGS[0]:
                    source = knock_out({layer: what}, routed[layer].top_k)
                else:
                    source = _zeroed(record, layers[i:], who, what)
                copies: Batch = {name: values[who] for name, values in batch.items()}
                with use_gates(source):
                    changed, _ = run_from(model, copies, layer, entering[layer][who])
                knocked_out[inputs[part], i, experts[part]] = changed.float().cpu().numpy()[:, columns]
            if progress:
                progress(i + 1, len(layers))
    return KnockOuts(data.task, tuple(layers), rows, base, knocked_out, top1, fires)


def one_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    rows: np.ndarray,
    max_length: int,
) -> Batch:
    """Some examples as one batch on the model's device.

    Raises:
        DataError: there are none.
    """
    if not len(rows):
        raise DataError(f"{data.name} is empty; attribution needs at least one input.")
    encoded = encode(tokenizer, [data.texts[i] for i in rows], longest_input(model, tokenizer, max_length))
    return collate(tokenizer, encoded, range(len(rows)), model.device)


def blocks(data: TextData, n: int) -> Iterator[np.ndarray]:
    """The first `n` rows of the data's class-balanced random order, in blocks of `BLOCK`."""
    order = data.stratified_order()[:n]
    return (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))


def merge(parts: Sequence[KnockOuts]) -> KnockOuts:
    """The results of several blocks as one."""
    fields = ("rows", "base", "knocked_out", "top1", "fires")
    first = parts[0]
    return KnockOuts(
        first.task,
        first.layers,
        *(np.concatenate([getattr(part, name) for part in parts]) for name in fields),
    )


def ablation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    max_length: int = 128,
    progress: Progress | None = None,
) -> dict[int, np.ndarray]:
    """Layer -> `KnockOuts.sizes` on the first `ABLATED` examples, for selecting experts without labels.

    Raises:
        PlanError, DataError: as `knock_outs`.
    """
    parts, n = [], min(ABLATED, len(data))
    for rows in blocks(data, n):
        parts.append(knock_outs(model, tokenizer, data, rows, max_length=max_length))
        if progress:
            progress(sum(part.n for part in parts), n)
    if not parts:
        raise DataError(f"{data.name} is empty; attribution needs at least one input.")
    return merge(parts).sizes()


def correlations(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Spearman correlation of usage and a measure over each layer's used experts.

    Returns:
        Columns layer, n (used experts), spearman and p; nan for fewer than 3 experts, or where one side is constant.
    """
    records = []
    for layer, group in table.groupby("layer"):
        group = group.loc[group["uses"] > 0, ["usage", measure]].dropna()
        rho, p = spearman(group["usage"], group[measure])
        records.append({"layer": layer, "n": len(group), "spearman": rho, "p": p})
    return pd.DataFrame(records)


def _use(record: RoutingRecord, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Which experts fire, bool `(B, H)`, and how often each is an example's Top-1, `(B, H)`."""
    trace = record.last(layer)
    gates, probs, mask = trace.gates, trace.probs, trace.token_mask
    if probs.dim() == 2:
        gates, probs, mask = gates.unsqueeze(1), probs.unsqueeze(1), None
    real = probs.new_ones(probs.shape[:2]) if mask is None else mask.float()  # (B, T)
    first = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]) * real.unsqueeze(-1)
    fires = ((gates != 0) & (real > 0).unsqueeze(-1)).any(1)
    return fires.cpu().numpy(), first.sum(1).cpu().numpy()


def _zeroed(
    record: RoutingRecord, layers: list[int], who: torch.Tensor, what: torch.Tensor
) -> dict[int, torch.Tensor]:
    """The recorded gates of examples `who`, without expert `what` in the first of `layers`."""
    gates = {layer: record.last(layer).gates[who] for layer in layers}
    gates[layers[0]][torch.arange(len(who)), ..., what] = 0.0
    return gates


_OF_USE = ("usage", "uses", "effect_per_use", "effect_per_use_low", "effect_per_use_high")
"""Columns that have no meaning for heads, which every example uses."""


class _WithoutHead(nn.Module):
    """A layer's output projection that reads zeros where one head's output is."""

    def __init__(self, projection: nn.Linear, head: int, heads: int) -> None:
        super().__init__()
        size = projection.in_features // heads
        self.projection, self.zeroed = projection, slice(head * size, (head + 1) * size)

    def forward(self, outputs: Tensor) -> Tensor:
        """All heads' outputs side by side, `(B, T, d)`, to what they add, `(B, T, d)`."""
        outputs = outputs.clone()
        outputs[..., self.zeroed] = 0.0
        return self.projection(outputs)


def dense_layers(model: PreTrainedModel) -> list[int]:
    """Dense layers, ascending: those whose heads can be knocked out."""
    return [index for index, kind in enumerate(layer_kinds(model)) if kind == "dense"]


def check_has_heads(model: PreTrainedModel) -> None:
    """Raise `PlanError` for a model without a dense layer."""
    if not dense_layers(model):
        raise PlanError("this model has no dense layer, so there is no head of one to knock out.")


def without_head(model: PreTrainedModel, layer: int, head: int) -> nn.Module:
    """A copy of dense layer `layer`, sharing its weights, with the output of one head set to 0."""
    path, dense = family_of(model).attention_out, encoder_layers(model)[layer]
    part = _WithoutHead(dense.get_submodule(path), head, num_experts_of(model))
    return with_modules(dense, {path: part})


def head_knock_outs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    rows: Sequence[int] | np.ndarray,
    *,
    max_length: int = 128,
    progress: Progress | None = None,
) -> KnockOuts:
    """Set the output of every head of every dense layer to 0 in turn, on some examples, as one batch.

    Routers above route again. In the result the `L` layers are the dense ones, and each head fires for every example.

    Args:
        rows: which examples, such as one of `blocks`.

    Raises:
        PlanError: no layer is dense.
        DataError: there are no examples.
    """
    check_has_heads(model)
    layers, heads, depth = dense_layers(model), num_experts_of(model), len(encoder_layers(model))
    rows = np.asarray(rows, dtype=np.int64)
    batch = one_batch(model, tokenizer, data, rows, max_length)
    columns = label_columns(model, data.task)
    done, total = 0, heads * sum(depth - layer for layer in layers)
    with torch.inference_mode():
        logits, entering = run_from(model, batch, watch=layers)
        base = logits.float().cpu().numpy()[:, columns]
        knocked_out = np.empty((len(rows), len(layers), heads, len(columns)), dtype=base.dtype)
        for i, layer in enumerate(layers):
            for head in range(heads):
                without = {layer: without_head(model, layer, head)}
                changed, _ = run_from(model, batch, layer, entering[layer], replacements=without)
                knocked_out[:, i, head] = changed.float().cpu().numpy()[:, columns]
                done += depth - layer
                if progress:
                    progress(done, total)
    places = knocked_out.shape[:3]
    fires, top1 = np.ones(places, dtype=bool), np.ones(places, dtype=np.int64)
    return KnockOuts(data.task, tuple(layers), rows, base, knocked_out, top1, fires)


def of_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of heads: column `head` for `expert`, and no columns of usage."""
    return frame.rename(columns={"expert": "head"}).drop(columns=list(_OF_USE), errors="ignore")


FEWEST = 5
"""An expert is tested if it fires for this many examples; a minimal pair counts as one."""


def worth_by_group(
    found: KnockOuts,
    data: TextData,
    groups: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """What each group loses without each expert, by `shrp.evaluation.metrics.worth` of the predictions.

    Args:
        data: the data that `found.rows` are of; with labels.
        groups: name -> mask over all of the data `(N,)`; each example is in one.

    Returns:
        A row an expert and group: layer, expert, group, n, uses (examples that the expert fires for), lost (mean over the
        group, positive where the expert helps), elsewhere (mean over all others), difference, p (`apart_from_others`) and q
        (Benjamini and Hochberg 1995); p and q are nan by `FEWEST`.

    Raises:
        DataError: the data have no labels.
    """
    from scipy.stats import false_discovery_control

    if data.labels is None:
        raise DataError(f"{data.name} has no labels, so what an expert is worth can't be told.")
    labels = data.labels[found.rows]
    lost = worth(data.task, found.base, labels)[:, None, None] - worth(data.task, found.knocked_out, labels)
    lost, fires = (values.reshape(found.n, -1) for values in (lost, found.fires))  # (n, E)
    masks = {name: mask[found.rows] for name, mask in groups.items()}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    members = np.stack(list(masks.values())).astype(np.float64)  # (G, n)
    sums, p = members @ lost, np.full((len(masks), lost.shape[1]), np.nan)
    pairs = pairs_among(data, found.rows)
    units = units_of(found.n, pairs)
    tested = np.array([len(np.unique(units[column])) >= FEWEST for column in fires.T])
    if tested.any():
        codes = members.argmax(0)
        p[:, tested] = apart_from_others(lost[:, tested], codes, pairs, seed=seed, progress=progress)
    n, uses = members.sum(1)[:, None], members @ fires
    others = np.divide(lost.sum(0) - sums, found.n - n, out=np.full(sums.shape, np.nan), where=found.n > n)
    experts = found.fires.shape[2]
    places = pd.MultiIndex.from_product(
        [list(masks), found.layers, range(experts)], names=["group", "layer", "expert"]
    )
    frame = pd.DataFrame(
        {
            "n": np.repeat(n[:, 0].astype(int), lost.shape[1]),
            "uses": uses.astype(int).ravel(),
            "lost": (sums / n).ravel(),
            "elsewhere": others.ravel(),
            "difference": (sums / n - others).ravel(),
            "p": p.ravel(),
        },
        index=places,
    ).reset_index()
    q = np.full_like(p, np.nan)
    if np.isfinite(p).any():
        known = np.isfinite(p)
        q[known] = false_discovery_control(p[known])  # of two groups each has the same p, which changes none
    frame["q"] = q.ravel()
    return frame.sort_values(["layer", "expert"], kind="stable", ignore_index=True)[
        ["layer", "expert", "group", "n", "uses", "lost", "elsewhere", "difference", "p", "q"]
    ]


def count_tests(frame: pd.DataFrame) -> int:
    """How many differences `worth_by_group` tested; two groups make one an expert."""
    return int(frame["p"].notna().sum()) // (2 if frame["group"].nunique() == 2 else 1)


def beyond_chance(frame: pd.DataFrame) -> pd.DataFrame:
    """The significant rows of `worth_by_group`, largest difference first; of two groups, the one with the greater loss."""
    sure = frame[frame["q"] <= FALSE_DISCOVERIES]
    if frame["group"].nunique() == 2:
        sure = sure[sure["difference"] > 0]
    return sure.sort_values("difference", key=np.abs, ascending=False, kind="stable")
