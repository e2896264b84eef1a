"""The effect of knocking out each expert, or each head of a dense layer, on a whole data set.

Only examples that use an expert run again, from its layer on. Heads are set to 0 (Michel et al. 2019).

Shapes: `n` examples, `L` layers, `H` experts or heads a layer, `C` classes, `E = L H`, `G` groups.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import by_token
from shrp.data.batching import Batch, collate, encode, longest_input, read
from shrp.data.tasks import Task
from shrp.data.text_data import TextData, pairs_among, same, units_of
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import Outputs, label_columns, summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import to_predictions, worth
from shrp.evaluation.paired import paired_difference
from shrp.evaluation.statistics import FALSE_DISCOVERIES, NO_INTERVAL, apart_from_others, of_mean
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import expert_layers, layer_kinds, num_experts_of
from shrp.model.gates import RoutingRecord, knock_out, record_routing, top_k_gates, use_gates
from shrp.model.layers import ExpertLayer
from shrp.model.modules import with_modules
from shrp.model.partial import run_from, run_layers
from shrp.progress import Progress, silent

MEANINGS = ("router picks the next", "zeroed")
"""An expert is knocked out by letting its router pick another, or by setting its gate to 0 with all other gates frozen."""
BLOCK = 32
"""Examples computed together."""
ABLATED = 512
"""Examples that the selection by knock-out looks at, at most."""
FEWEST = 5
"""An expert is tested, and a mean change has an interval, if so many examples use the expert; a minimal pair counts as one."""
PREFIX_BYTES = 256 * 2**20
"""Memory of one `Prefix`; examples beyond it run again each time."""
RESAMPLES, _RESAMPLES_EACH = 2000, 500


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

        `output`: the class; None takes each example's predicted one. 0 for regression.
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

        `uses` counts the examples that the expert fires for, `signed` is the mean effect on the output, `effect` its mean
        size, `score_lost` the drop of the task's metric, `flips` the number of changed predictions.
        """
        effects, counts = self.effects(output).astype(np.float64), self.top1.sum(0)
        usage = counts / counts.sum(-1, keepdims=True)
        predictions = to_predictions(self.task, self.base)
        units = units_of(self.n, pairs_among(data, self.rows))
        whole = None if data.labels is None else summarise(data, self.rows, self.base, False)
        records = []
        for i, expert in np.ndindex(usage.shape):
            found, changed = effects[:, i, expert], self.knocked_out[:, i, expert]
            record = {"layer": self.layers[i], "expert": expert}
            record |= {"usage": float(usage[i, expert]), "uses": int(self.fires[:, i, expert].sum())}
            for name, values in (("signed", found), ("effect", np.abs(found))):
                low, high = of_mean(values, units)
                low = low if name == "signed" else max(low, 0.0)  # nan stays
                record |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
            lost, ends = np.nan, NO_INTERVAL
            if whole is not None:
                without_it = summarise(data, self.rows, changed, False)
                lost, ends = paired_difference(whole, without_it, resamples=_RESAMPLES_EACH)
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
    max_length: int = 128,
    progress: Progress = silent,
) -> KnockOuts:
    """Knock out every expert of every routed layer, or every head of every dense layer, in turn, on some examples.

    A head's output is set to 0 and routers above route again; it fires for every example.

    Args:
        rows: which examples, one or more, such as one of `blocks`; they run as one batch.

    Raises:
        PlanError: the model has no such layer, or nothing to pick next.
    """
    rows = np.asarray(rows, dtype=np.int64)
    encoded = encode(tokenizer, [data.texts[i] for i in rows], longest_input(model, tokenizer, max_length))
    batch = collate(tokenizer, encoded, range(len(rows)), model.device)
    data.task.check_of_texts("the knock-out of every expert, example by example,")
    columns = label_columns(model, data.task)
    layers, *found = knock_out_batch(model, batch, columns, heads=heads, progress=progress)
    return KnockOuts(data.task, layers, rows, *found)


def knock_out_batch(
    model: PreTrainedModel,
    batch: Batch,
    columns: Sequence[int],
    *,
    heads: bool = False,
    meaning: str = MEANINGS[0],
    progress: Progress = silent,
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`knock_outs` of encoded examples: layers, base, knocked_out, top1 and fires, as in `KnockOuts`.

    `meaning`: of `MEANINGS`, for experts.

    Raises:
        PlanError: as `knock_outs`, or an unknown meaning.
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
            used = (_use(record, layer) for layer in layers)
            fires, top1 = (np.stack(values, 1) for values in zip(*used, strict=True))
        knocked_out = np.broadcast_to(base[:, None, None], (*shape, len(columns))).copy()
        size = n if heads else BLOCK
        # A knock-out runs all layers from its own on.
        above = [model.config.num_hidden_layers - layer for layer in layers]
        done, total = 0, int(fires.sum((0, 2)) @ above)
        for i, layer in enumerate(layers):
            experts, inputs = np.nonzero(fires[:, i].T)  # by expert, so that a part has one head
            for start in range(0, len(inputs), size):
                who, what = (one[start : start + size] for one in (inputs, experts))
                knocked_out[who, i, what] = run(layer, who, what).float().cpu().numpy()[:, columns]
                done += above[i] * len(who)
                progress(done, total)
    return tuple(layers), base, knocked_out, top1, fires


def check_can_pick_next(routed: Mapping[int, ExpertLayer]) -> None:
    """Raise `PlanError` unless every expert layer has a router with another expert to pick."""
    if not routed or any(module.num_experts < 2 for module in routed.values()):
        raise PlanError("no router could pick another expert; set contributions to zero instead.")


def blocks(data: TextData, n: int) -> Iterator[np.ndarray]:
    """The first `n` rows of the data's class-balanced random order, in blocks of `BLOCK`."""
    order = data.stratified_order()[:n]
    return (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))


def in_turn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    n: int = ABLATED,
    *,
    heads: bool = False,
    max_length: int = 128,
    progress: Progress = silent,
    keep: Callable[[tuple[int, int], Callable[[], KnockOuts]], KnockOuts] = lambda block, make: make(),
) -> KnockOuts:
    """`knock_outs` on the first `n` examples or all, block by block.

    Args:
        progress: receives the examples done and all of them.
        keep: gives a block's result, known by its number and size or made: a run that was interrupted goes on.

    Raises:
        PlanError: as `knock_outs`.
        DataError: there are no examples.
    """
    parts, done, n = [], 0, min(n, len(data))
    for rows in blocks(data, n):

        def show(step: float, steps: int, done: int = done, size: int = len(rows)) -> None:
            progress(done + size * step / steps, n)

        how = {"heads": heads, "max_length": max_length, "progress": show}
        parts.append(keep((len(parts), len(rows)), partial(knock_outs, model, tokenizer, data, rows, **how)))
        done += len(rows)
    if not parts:
        raise DataError(f"{data.name} is empty; knocking out needs at least one example.")
    names = ("rows", "base", "knocked_out", "top1", "fires")
    return replace(parts[0], **{name: np.concatenate([getattr(one, name) for one in parts]) for name in names})


def _use(record: RoutingRecord, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Which experts fire, bool `(B, H)`, and how often each is an example's Top-1, `(B, H)`."""
    probs, gates, real = by_token(record.last(layer))
    first = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]) * real
    return ((gates != 0) & (real > 0)).any(1).numpy(), first.sum(1).numpy()


def dense_layers(model: PreTrainedModel) -> list[int]:
    """Dense layers, ascending: those whose heads can be knocked out."""
    return [index for index, kind in enumerate(layer_kinds(model)) if kind == "dense"]


def check_has_heads(model: PreTrainedModel) -> None:
    """Raise `PlanError` for a model without a dense layer."""
    if not dense_layers(model):
        raise PlanError("this model has no dense layer, so there is no head of one to knock out.")


@torch.no_grad()
def without_head(model: PreTrainedModel, layer: int, head: int) -> nn.Module:
    """A copy of dense layer `layer`, sharing its other weights, whose output projection reads one head's output as 0."""
    path, dense = family_of(model).attention_out, encoder_layers(model)[layer]
    projection = copy.deepcopy(dense.get_submodule(path))
    size = projection.in_features // num_experts_of(model)
    projection.weight[:, head * size : (head + 1) * size] = 0.0
    return with_modules(dense, {path: projection})


def of_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of heads, which every example uses: column `head` for `expert`, and no columns of usage."""
    return frame.rename(columns={"expert": "head"}).drop(columns=["usage", "uses"], errors="ignore")


def worth_by_group(
    found: KnockOuts,
    data: TextData,
    groups: Mapping[str, np.ndarray],
    *,
    progress: Progress = silent,
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
        p[:, tested] = apart_from_others(lost[:, tested], codes, pairs, progress=progress)
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
                with self._lock:
                    if rows[i] not in self._kept and self.size + known[i].nbytes <= self.limit:
                        self._kept[rows[i]] = known[i]
                        self.size += known[i].nbytes
        hidden = known[0].new_zeros(*mask.shape, known[0].shape[-1])
        hidden[mask] = torch.cat(known)
        return hidden


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
        return int((~same(self.before.predictions, self.after.predictions)).sum())

    def score_change(self) -> tuple[float, tuple[float, float]]:
        """Score without the experts minus score with them, and its paired 95% interval."""
        return paired_difference(self.after, self.before, resamples=RESAMPLES)

    def by_slice(self, pairs: np.ndarray | None = None) -> pd.DataFrame:
        """One row a slice: what it loses, and whether others lose another amount; empty without slices or labels.

        Columns slice, n, affected, lost (mean worth, positive: the experts help) with low, high (95%, nan by `FEWEST`),
        elsewhere (mean over all others), difference, p (permutation test) and q (Benjamini and Hochberg 1995).
        """
        columns = ["slice", "n", "affected", "lost", "low", "high", "elsewhere", "difference", "p"]
        if self.before.slices is None or self.before.labels is None:
            return pd.DataFrame(columns=[*columns, "q"])
        from scipy.stats import false_discovery_control

        names, codes = np.unique(np.array(self.before.slices, dtype=str), return_inverse=True)
        lost, units = self.before.worth - self.after.worth, units_of(len(codes), pairs)
        taken = np.isin(np.arange(len(codes)), self.affected)
        together = np.empty((0, 2), dtype=np.int64) if pairs is None else pairs
        p = apart_from_others(lost[:, None], codes, together)[:, 0]
        rows = []
        for name, mask in zip(names, codes == np.arange(len(names))[:, None], strict=True):
            here, ends = taken & mask, NO_INTERVAL
            if len(np.unique(units[here])) >= FEWEST:
                ends = of_mean(lost[mask], units[mask])
            mine, others = lost[mask].mean(), lost[~mask].mean() if (~mask).any() else np.nan
            rows.append([name, mask.sum(), here.sum(), mine, *ends, others, mine - others])
        frame = pd.DataFrame(rows, columns=columns[:-1]).assign(p=p)
        return frame.assign(q=false_discovery_control(p) if len(names) > 1 else np.nan)


def knock_out_effect(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    before: Evaluation,
    experts: Collection[tuple[int, int]],
    *,
    chosen: np.ndarray | None = None,
    prefix: Prefix | None = None,
    max_length: int = 128,
    progress: Progress = silent,
) -> KnockOut:
    """Knock experts out on all of the data.

    Only examples that use one of them run again, from the lowest of the experts' layers on.

    `chosen`: mask `(N,)` of examples that may use one of them, to skip the others; None runs all.

    Raises:
        PlanError: there is no such expert, none is named, or none would be left in a layer.
        DataError: `before` is not of all these data.
    """
    routed = expert_layers(model)
    removed = removed_by_layer(experts, routed)
    if before.n != len(data) or before.data != data.name:
        raise DataError(f"The evaluation is of {before.n} inputs of {before.data}, not of all {data.name}.")
    before = summarise(data, before.indices, before.logits, False)  # with the slices of these data
    rows = np.arange(len(data)) if chosen is None else np.flatnonzero(chosen)
    lowest, prefix = min(removed), prefix or Prefix(model, limit=0)
    logits, affected, texts = before.logits.copy(), [], [data.texts[i] for i in rows]
    as_scored = Outputs(model, tokenizer, data, max_length)
    for places, inputs in read(model, tokenizer, texts, max_length=max_length, progress=progress):
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
                logits[here] = as_scored(here, outputs.float().cpu().numpy())
                affected.append(here)
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
            raise PlanError(f"all experts of layer {layer} can't be knocked out: leave its router one.")
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
        gates = {lowest: top_k_gates(routed[lowest].route(entering, mask), routed[lowest].top_k)}
    else:
        with record_routing() as record:
            run_from(model, inputs, lowest, entering)
        gates = {layer: record.last(layer).gates for layer in removed}
    found = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    for layer, taken in removed.items():
        uses = (gates[layer][..., list(taken)] > 0).any(-1)  # (B,) or (B, T)
        found |= (uses & mask).any(1) if uses.dim() == 2 else uses
    return found
