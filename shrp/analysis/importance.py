"""The effect of knocking out each expert, or each head of a dense layer, on a whole data set.

Only examples that use an expert run again, from its layer on. Heads are set to 0 (Michel et al. 2019).

Shapes: `n` examples, `L` layers, `H` experts or heads a layer, `C` classes, `E = L H`, `G` groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis import Progress
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
from shrp.model.layers import ExpertLayer
from shrp.model.modules import with_modules
from shrp.model.partial import run_from

MEANINGS = ("router picks the next", "zeroed")
"""An expert is knocked out by letting its router pick another, or by setting its gate to 0 with all other gates frozen."""
BLOCK = 32
"""Examples computed together."""
ABLATED = 512
"""Most examples for the selection by knock-out."""
_RESAMPLES = 500


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
        """One row an expert, with 95% intervals; minimal pairs count as one unit except in `score_lost`.

        `signed` is the mean effect on the output, `effect` its mean size, `effect_per_use` the same over the `uses` examples
        that the expert fires for, `score_lost` the drop of the task's metric, `flips` the number of changed predictions.
        """
        effects, counts = self.effects(output).astype(np.float64), self.top1.sum(0)
        usage = counts / counts.sum(-1, keepdims=True)
        predictions, everyone = to_predictions(self.task, self.base), np.ones(self.n, dtype=bool)
        units = units_of(self.n, pairs_among(data, self.rows))
        whole = None if data.labels is None else summarise(data, self.rows, self.base, False)
        records = []
        for i, expert in np.ndindex(usage.shape):
            found, mine = effects[:, i, expert], self.fires[:, i, expert]
            changed, sizes = self.knocked_out[:, i, expert], np.abs(found)
            record = {
                "layer": self.layers[i],
                "expert": expert,
                "usage": usage[i, expert],
                "uses": int(mine.sum()),
            }
            for name, values, rows in (
                ("signed", found, everyone),
                ("effect", sizes, everyone),
                ("effect_per_use", sizes, mine),
            ):
                low, high = of_mean(values[rows], units[rows])
                low = low if name == "signed" else max(low, 0.0)  # nan stays
                mean = values[rows].mean() if rows.any() else np.nan
                record |= {name: mean, f"{name}_low": low, f"{name}_high": high}
            lost, ends = np.nan, NO_INTERVAL
            if whole is not None:
                without_it = summarise(data, self.rows, changed, False)
                lost, ends = paired_difference(whole, without_it, resamples=_RESAMPLES)
            record |= {"score_lost": lost, "score_lost_low": ends[0], "score_lost_high": ends[1]}
            if not self.task.is_regression:
                record["flips"] = int((to_predictions(self.task, changed) != predictions).sum())
            records.append(record)
        return pd.DataFrame(records)


def knock_outs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    rows: Sequence[int] | np.ndarray,
    *,
    heads: bool = False,
    meaning: str = MEANINGS[0],
    max_length: int = 128,
    progress: Progress | None = None,
) -> KnockOuts:
    """Knock out every expert of every routed layer, or every head of every dense layer, in turn, on some examples.

    A head's output is set to 0 and routers above route again; it fires for every example.

    Args:
        rows: which examples, such as one of `blocks`; they run as one batch.
        meaning: of `MEANINGS`, for experts.

    Raises:
        PlanError: the model has no such layer, an unknown meaning, or nothing to pick next.
        DataError: there are no examples.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not len(rows):
        raise DataError(f"{data.name} is empty; knocking out needs at least one example.")
    encoded = encode(tokenizer, [data.texts[i] for i in rows], longest_input(model, tokenizer, max_length))
    batch = collate(tokenizer, encoded, range(len(rows)), model.device)
    columns = label_columns(model, data.task)
    layers, *found = knock_out_batch(model, batch, columns, heads=heads, meaning=meaning, progress=progress)
    return KnockOuts(data.task, layers, rows, *found)


def knock_out_batch(
    model: PreTrainedModel,
    batch: Batch,
    columns: Sequence[int],
    *,
    heads: bool = False,
    meaning: str = MEANINGS[0],
    progress: Progress | None = None,
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`knock_outs` of encoded examples: layers, base, knocked_out, top1 and fires, as in `KnockOuts`.

    Args:
        columns: of the logits, in the order of the task's labels.

    Raises:
        PlanError: as `knock_outs`.
    """
    routed = expert_layers(model)
    if heads:
        check_has_heads(model)
    elif not routed:
        raise PlanError("this model has no routed layer, so there is no expert to knock out.")
    elif meaning not in MEANINGS:
        raise PlanError(f"an expert can be knocked out as {' or '.join(MEANINGS)}, not as '{meaning}'.")
    elif meaning == MEANINGS[0]:
        check_can_pick_next(routed)
    n, layers = len(batch["input_ids"]), dense_layers(model) if heads else list(routed)
    shape = (n, len(layers), num_experts_of(model))

    def run(layer: int, who: np.ndarray, what: np.ndarray) -> Tensor:
        """Logits of examples `who`, each without its expert `what`, from `layer` on."""
        chosen, gates, replacements = torch.from_numpy(who), {}, {}
        copies: Batch = {name: values[chosen] for name, values in batch.items()}
        if heads:  # one for all
            replacements = {layer: without_head(model, layer, int(what[0]))}
        elif meaning == MEANINGS[0]:
            gates = knock_out({layer: torch.from_numpy(what)}, routed[layer].top_k)
        else:  # the recorded gates, without the expert
            gates = {above: record.last(above).gates[chosen] for above in layers[layers.index(layer) :]}
            gates[layer][torch.arange(len(who)), ..., torch.from_numpy(what)] = 0.0
        with use_gates(gates):
            return run_from(model, copies, layer, entering[layer][chosen], replacements=replacements)[0]

    with torch.inference_mode():
        with record_routing() as record:
            logits, entering = run_from(model, batch, watch=layers)
        base = logits.float().cpu().numpy()[:, columns]
        fires, top1 = np.ones(shape, dtype=bool), np.ones(shape, dtype=np.int64)
        if not heads:
            fires, top1 = (
                np.stack(x, 1) for x in zip(*(_use(record, layer) for layer in layers), strict=True)
            )
        knocked_out, size = (
            np.broadcast_to(base[:, None, None], (*shape, len(columns))).copy(),
            n if heads else BLOCK,
        )
        for i, layer in enumerate(layers):
            experts, inputs = np.nonzero(fires[:, i].T)  # by expert, so that a part has one head
            for start in range(0, len(inputs), size):
                who, what = (one[start : start + size] for one in (inputs, experts))
                knocked_out[who, i, what] = run(layer, who, what).float().cpu().numpy()[:, columns]
            if progress:
                progress(i + 1, len(layers))
    return tuple(layers), base, knocked_out, top1, fires


def check_can_pick_next(routed: Mapping[int, ExpertLayer]) -> None:
    """Raise `PlanError` unless every expert layer has a router with another expert to pick."""
    if not routed or any(module.num_experts < 2 for module in routed.values()):
        raise PlanError(
            "there is no router that could pick another expert; set contributions to zero instead."
        )


def blocks(data: TextData, n: int) -> Iterator[np.ndarray]:
    """The first `n` rows of the data's class-balanced random order, in blocks of `BLOCK`."""
    order = data.stratified_order()[:n]
    return (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))


def merge(parts: Sequence[KnockOuts]) -> KnockOuts:
    """The results of several blocks as one."""
    names = ("rows", "base", "knocked_out", "top1", "fires")
    return replace(parts[0], **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


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
        raise DataError(f"{data.name} is empty; knocking out needs at least one example.")
    return merge(parts).sizes()


def correlations(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Spearman correlation of usage and a measure over each layer's used experts.

    Returns:
        Columns layer, n (used experts), spearman and p; nan for fewer than 3 experts, or where one side is constant.
    """
    rows = []
    for layer, group in table[table["uses"] > 0].dropna(subset=measure).groupby("layer"):
        rows.append([layer, len(group), *spearman(group["usage"], group[measure])])
    return pd.DataFrame(rows, columns=["layer", "n", "spearman", "p"])


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
        raise DataError(f"{data.name} has no labels, so the worth of an expert is unknown.")
    labels = data.labels[found.rows]
    lost = worth(data.task, found.base, labels)[:, None, None] - worth(data.task, found.knocked_out, labels)
    lost, fires = (values.reshape(found.n, -1) for values in (lost, found.fires))  # (n, E)
    masks = {name: mask[found.rows] for name, mask in groups.items()}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    members = np.stack(list(masks.values())).astype(np.float64)  # (G, n)
    sums, p = members @ lost, np.full((len(masks), lost.shape[1]), np.nan)
    units = units_of(found.n, pairs := pairs_among(data, found.rows))
    tested = np.array([len(np.unique(units[column])) >= FEWEST for column in fires.T])
    if tested.any():
        codes = members.argmax(0)
        p[:, tested] = apart_from_others(lost[:, tested], codes, pairs, seed=seed, progress=progress)
    n = members.sum(1)[:, None]
    others = np.divide(lost.sum(0) - sums, found.n - n, out=np.full(sums.shape, np.nan), where=found.n > n)
    q = np.full_like(p, np.nan)
    if (known := np.isfinite(p)).any():
        q[known] = false_discovery_control(p[known])  # of two groups each has the same p, which changes none
    names = ["layer", "expert", "group"]
    places = pd.MultiIndex.from_product([found.layers, range(found.fires.shape[2]), list(masks)], names=names)
    columns = {"n": np.broadcast_to(n, sums.shape).astype(int), "uses": (members @ fires).astype(int)}
    columns |= {"lost": sums / n, "elsewhere": others, "difference": sums / n - others, "p": p, "q": q}
    flat = {name: values.T.ravel() for name, values in columns.items()}
    return pd.DataFrame(flat, index=places).reset_index()


def count_tests(frame: pd.DataFrame) -> int:
    """How many differences `worth_by_group` tested; two groups make one an expert."""
    return int(frame["p"].notna().sum()) // (2 if frame["group"].nunique() == 2 else 1)


def beyond_chance(frame: pd.DataFrame) -> pd.DataFrame:
    """The significant rows of `worth_by_group`, largest difference first; of two groups, the one with the greater loss."""
    sure = frame[frame["q"] <= FALSE_DISCOVERIES]
    if frame["group"].nunique() == 2:
        sure = sure[sure["difference"] > 0]
    return sure.sort_values("difference", key=np.abs, ascending=False, kind="stable")
