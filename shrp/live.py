"""Re-evaluate a routed model under one pruning plan after another, as a person moves a slider.

What enters the first converted layer is the same for every plan, and what enters the others depends only on the
plans of the layers below them. So both are kept, and a new plan runs only the layers from the first one whose plan
changed. Inputs come in a class-stratified order, in few sizes, so that an estimate is there after the first batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import collate, encode
from shrp.convert import expert_layers, num_experts_of
from shrp.data import TextData
from shrp.errors import PlanError
from shrp.evaluate import Evaluation, label_columns, summarise
from shrp.layers import StaticLayer
from shrp.partial import run_from
from shrp.plan import LayerPlan, PruningPlan

FIRST_ESTIMATE = 64
"""Inputs of the first batch: enough for a meaningful interval, few enough to be there at once."""
MEMORY_BYTES = 768 * 2**20
"""Hidden states that plans leave, kept by one evaluator (what enters the first converted layer comes on top); beyond
it the plans tried longest ago are forgotten."""


@dataclass(eq=False)
class _Batch:
    """A fixed batch of the data and what is known of it."""

    rows: np.ndarray
    inputs: dict[str, Tensor]
    entering: Tensor | None = None
    """What enters the first converted layer, `(B, T, d)`."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class LiveEvaluator:
    """Evaluates prunings of one routed model on one data set; one object serves several threads.

    Args:
        batch_size: inputs a batch, after the first, which is smaller.
        dtype: how kept hidden states are stored; bfloat16 halves the memory and costs exactness.
        memory: bound on the bytes of hidden states kept.

    Raises:
        PlanError: the model has no routed layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        data: TextData,
        *,
        batch_size: int = 64,
        max_length: int = 128,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        memory: int = MEMORY_BYTES,
    ) -> None:
        self.routed = expert_layers(model)
        if not self.routed:
            raise PlanError("this model has no routed layer, so there is nothing to prune.")
        self.model, self.data, self.dtype = model, data, dtype
        self.first = min(self.routed)
        self.columns = label_columns(model, data.task)
        self.batches = self._split(tokenizer, batch_size, max_length, seed)
        self._hidden = _Kept(memory)

    def _split(
        self, tokenizer: PreTrainedTokenizerBase, batch_size: int, max_length: int, seed: int
    ) -> list[_Batch]:
        """A first stratified batch; then all others, sorted by length, in a random order of batches."""
        encoded = encode(tokenizer, self.data.texts, max_length)
        lengths = np.array([len(row["input_ids"]) for row in encoded])
        order = self.data.stratified_order(seed)
        head, rest = order[:FIRST_ESTIMATE], order[FIRST_ESTIMATE:]
        rest = rest[np.argsort(lengths[rest], kind="stable")]
        parts = [rest[i : i + batch_size] for i in range(0, len(rest), batch_size)]
        shuffled = np.random.default_rng(seed).permutation(len(parts))
        groups = [head[np.argsort(lengths[head], kind="stable")], *(parts[i] for i in shuffled)]
        return [_Batch(rows, collate(tokenizer, encoded, rows)) for rows in groups if len(rows)]

    def stream(self, plan: PruningPlan | None) -> Iterator[Evaluation]:
        """Yield running estimates for the static model of `plan` (None: the routed model); the last is exact.

        The model computes only inside each step; dropping the iterator abandons the work.

        Raises:
            PlanError: the plan does not fit the model.
        """
        if plan is not None:
            plan.check_fits(list(self.routed), num_experts_of(self.model))
        statics = {layer: self._static(layer, kept) for layer, kept in plan.layers} if plan else {}
        n = len(self.data)
        logits = np.empty((n, self.data.task.num_labels), dtype=np.float32)
        indices = np.empty(n, dtype=np.int64)
        done = 0
        for number, batch in enumerate(self.batches):
            outputs = self._run(number, batch, plan, statics)
            end = done + len(batch.rows)
            logits[done:end], indices[done:end] = outputs[:, self.columns], batch.rows
            done = end
            with_interval = done == n or self.data.task.metric == "accuracy"
            yield summarise(self.data, indices[:done], logits[:done], with_interval)

    def prepare(self) -> None:
        """Compute what enters the first converted layer for all of the data, which `stream` otherwise does."""
        with torch.inference_mode():
            for batch in self.batches:
                self._entering(batch)

    def forget(self) -> None:
        """Drop what earlier plans left, but not what enters the first converted layer."""
        self._hidden.clear()

    def evaluate(self, plan: PruningPlan | None) -> Evaluation:
        """The exact evaluation, without the estimates on the way."""
        *_, last = self.stream(plan)
        return last

    @torch.inference_mode()
    def _run(
        self, number: int, batch: _Batch, plan: PruningPlan | None, statics: Mapping[int, nn.Module]
    ) -> np.ndarray:
        """Logits of one batch under a plan, from the highest layer whose input is known."""
        entering = self._entering(batch)
        if plan is None:
            logits, _ = run_from(self.model, batch.inputs, self.first, entering)
            return logits.float().numpy()
        kept = dict(plan.layers)
        layers = sorted(kept)
        start, hidden = self.first, entering
        for layer in reversed(layers[1:]):
            known = self._hidden.get((number, _below(kept, layer)))
            if known is not None:
                start, hidden = layer, known.float()
                break
        replacements = {layer: statics[layer] for layer in layers if layer >= start}
        watch = [layer for layer in layers if layer > start]
        logits, inputs = run_from(
            self.model, batch.inputs, start, hidden, replacements=replacements, watch=watch
        )
        for layer, value in inputs.items():
            self._hidden.put((number, _below(kept, layer)), value.to(self.dtype))
        return logits.float().numpy()

    def _entering(self, batch: _Batch) -> Tensor:
        with batch.lock:
            if batch.entering is None:
                _, inputs = run_from(self.model, batch.inputs, watch=[self.first])
                batch.entering = inputs[self.first].to(self.dtype)
            return batch.entering.float()

    def _static(self, layer: int, kept: LayerPlan) -> StaticLayer:
        # Built anew for each plan: cheap beside running it, and kept ones would add up to gigabytes.
        source = self.routed[layer]
        return StaticLayer.from_expert_layer(source, list(kept.experts), list(kept.weights)).eval()


def _below(kept: Mapping[int, LayerPlan], layer: int) -> tuple[tuple[int, LayerPlan], ...]:
    """The part of a plan that decides what enters `layer`, with the layer itself as its mark."""
    return (*((index, kept[index]) for index in sorted(kept) if index < layer), (layer, _MARK))


_MARK = LayerPlan((0,), (1.0,))


class _Kept:
    """Hidden states by key, the least recently used forgotten first, bounded in bytes; safe between threads."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.entries: OrderedDict[tuple, Tensor] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: tuple) -> Tensor | None:
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
            return self.entries.get(key)

    def put(self, key: tuple, value: Tensor) -> None:
        with self.lock:
            if key not in self.entries:
                self.entries[key] = value
                self.size += value.nbytes
            while self.size > self.limit and self.entries:
                self.size -= self.entries.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.size = 0
