"""Incremental re-evaluation of a routed model under one pruning plan after another.

What enters a converted layer depends only on the plans of the layers below. These hidden states and the outputs of experts
are kept, so a new plan computes only what it does not share with earlier ones. Examples come in a class-stratified order,
so the first batch gives an estimate.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import collate, encode, longest_input
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import Outputs, estimates, last_of
from shrp.evaluation.evaluation import Evaluation
from shrp.families.families import encoder_layers, family_of, relative_positions
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.packed import Packing, expert_outputs, first_token_outputs, static_output
from shrp.model.partial import first_token_logits, run_from, run_layers
from shrp.pruning.plan import LayerPlan, PruningPlan

FIRST_ESTIMATE = 64
"""Examples of the first batch."""
_MOST_BEGUN = 4  # plans whose outputs are kept, batch by batch
_LAYER = 3
"""Cost of a layer besides its experts, in experts (measured); a dense layer costs about four times as many as it has."""
MEMORY_BYTES = 768 * 2**20
"""Bytes of one evaluator's kept results; the least recently used are dropped."""


@dataclass(eq=False)
class _Batch:
    """A fixed batch of the data."""

    number: int
    rows: np.ndarray
    inputs: dict[str, Tensor]
    packing: Packing
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class _Step:
    """One converted layer under a plan."""

    layer: int
    kept: LayerPlan
    below: bytes
    """A digest of the plans of all layers below, which decide what enters this one."""


class LiveEvaluator:
    """Evaluates prunings of one routed model, in evaluation mode, on one data set; thread-safe.

    Args:
        batch_size: examples a batch, after the first.
        memory: bound on the bytes of all kept results.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the data are empty.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        data: TextData,
        *,
        batch_size: int = 96,
        max_length: int = 128,
        memory: int = MEMORY_BYTES,
    ) -> None:
        self.routed = expert_layers(model)
        if not self.routed:
            raise PlanError("this model has no routed layer, so there is nothing to prune.")
        if not len(data):
            raise DataError(f"'{data.name}' holds no examples to evaluate on.")
        self.model, self.data = model, data
        self.first, self.top = min(self.routed), len(encoder_layers(model)) - 1
        self.as_scored = Outputs(model, tokenizer, data, max_length)
        self.batches = self._split(tokenizer, batch_size, max_length)
        # The top layer, where the head reads nothing but each input's first token.
        all_tokens = data.task.on_tokens or family_of(model).reads_all_tokens(model.config)
        self.last = None if all_tokens else self.top
        longest = max(b.packing.mask.shape[1] for b in self.batches)
        self._relative = {layer: relative_positions(model, longest, layer) for layer in self.routed}
        self._kept = _Kept(memory)
        self._begun: OrderedDict[tuple, dict[int, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def _split(self, tokenizer: PreTrainedTokenizerBase, batch_size: int, max_length: int) -> list[_Batch]:
        """A first stratified batch; then all others, sorted by length, in a random order of batches."""
        encoded = encode(tokenizer, self.data.texts, longest_input(self.model, tokenizer, max_length))
        lengths = np.array([len(row["input_ids"]) for row in encoded])
        order = self.data.stratified_order()
        head, rest = order[:FIRST_ESTIMATE], order[FIRST_ESTIMATE:]
        rest = rest[np.argsort(lengths[rest], kind="stable")]
        parts = [rest[i : i + batch_size] for i in range(0, len(rest), batch_size)]
        shuffled = np.random.default_rng(0).permutation(len(parts))
        groups = [head[np.argsort(lengths[head], kind="stable")], *(parts[i] for i in shuffled)]
        batches = []
        for rows in groups:
            inputs = collate(tokenizer, encoded, rows, self.model.device)
            batches.append(_Batch(len(batches), rows, inputs, Packing.of(inputs["attention_mask"])))
        return batches

    def stream(self, plan: PruningPlan | None) -> Iterator[Evaluation]:
        """Yield running estimates for the static model of `plan` (None: the routed model); the last is exact.

        Raises:
            PlanError: the plan does not fit the model.
        """
        return self._stream(None if plan is None else self._steps(plan), None)

    def evaluate(self, plan: PruningPlan | None) -> Evaluation:
        """The exact evaluation."""
        return last_of(self.stream(plan))

    def sweep(
        self, plans: Sequence[PruningPlan], pause: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[PruningPlan, Evaluation]]:
        """Yield `(plan, exact evaluation)` for every plan, in the order that shares the most work.

        `pause`: called after each batch; an exception that it raises abandons the work.

        Raises:
            PlanError: a plan does not fit the model.
        """
        work = self._ordered(plans)
        uses = Counter(step.below for steps, _ in work for step in steps)
        done: tuple[list[_Step], Evaluation] | None = None
        for steps, plan in work:
            uses.subtract(step.below for step in steps)
            if done is None or done[0] != steps:
                shared = {below for below, later in uses.items() if later}
                for last in self._stream(steps, shared):  # noqa: B007  # the last one is exact
                    pause()
                done = steps, last
            yield plan, done[1]

    def work_of(self, plans: Sequence[PruningPlan]) -> dict[str, int]:
        """`PruningPlan.key()` -> about what the plan adds to the work of a `sweep`, in experts, to estimate times."""
        experts = num_experts_of(self.model)
        known: set[Hashable] = {(b"", expert) for expert in range(experts)}  # as `_entering` computes them
        found = {}
        for steps, plan in self._ordered(plans):
            found[plan.key()] = 0
            above = [*((step.layer, step.below) for step in steps[1:]), (self.top + 1, tuple(steps))]
            for step, (layer, result) in zip(steps, above, strict=True):
                if result not in known:
                    outputs = {(step.below, expert) for expert in step.kept.experts} - known
                    found[plan.key()] += len(outputs) + _LAYER + (layer - step.layer - 1) * 4 * experts
                    known |= outputs | {result}
        return found

    def prepare(self) -> None:
        """Compute what every plan starts from, which `stream` otherwise does."""
        with torch.inference_mode():
            for batch in self.batches:
                self._entering(batch)

    def _ordered(self, plans: Sequence[PruningPlan]) -> list[tuple[list[_Step], PruningPlan]]:
        """Plans with their steps, so that those with equal lower layers are neighbours."""
        work = [(self._steps(plan), plan) for plan in plans]
        return sorted(work, key=lambda pair: [(len(s.kept.experts), *astuple(s.kept)) for s in pair[0]])

    def _steps(self, plan: PruningPlan) -> list[_Step]:
        plan.check_fits(list(self.routed), num_experts_of(self.model))
        steps, below = [], b""
        for layer, kept in plan.layers:
            step = _Step(layer, _effective(kept), below)
            steps.append(step)
            below = hashlib.sha256(below + repr((layer, step.kept)).encode()).digest()
        return steps

    def _stream(
        self, steps: list[_Step] | None, worth_keeping: Container[bytes] | None
    ) -> Iterator[Evaluation]:
        key = tuple(steps or ())
        with self._lock:  # an evaluation that was abandoned continues where it ended
            known = self._begun.setdefault(key, {})
            self._begun.move_to_end(key)
            if len(self._begun) > _MOST_BEGUN:
                self._begun.popitem(last=False)

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for batch in self.batches:
                if batch.number not in known:
                    with torch.inference_mode():
                        known[batch.number] = self._run(batch, steps, worth_keeping).float().cpu().numpy()
                yield batch.rows, self.as_scored(batch.rows, known[batch.number])

        return estimates(self.data, len(self.data), batches())

    def _run(self, batch: _Batch, steps: list[_Step] | None, worth_keeping: Container[bytes] | None) -> Tensor:
        """Logits `(B, C)` of one batch, or of its tokens, from the highest layer whose input is known.

        `worth_keeping` names what later plans share with this one; None keeps everything.
        """
        if steps is None:
            hidden = batch.packing.unpack(self._entering(batch))
            return run_from(self.model, batch.inputs, self.first, hidden)[0]
        start, hidden = self._highest_known(batch, steps)
        for i in range(start, len(steps)):
            step, layer = steps[i], self.routed[steps[i].layer]
            keep = worth_keeping is None or step.below in worth_keeping
            outputs = self._outputs(batch, step, hidden, keep)
            residual = hidden[batch.packing.firsts] if step.layer == self.last else hidden
            hidden = static_output(layer, outputs, step.kept.weights, residual)
            if i + 1 < len(steps):
                above = steps[i + 1]
                hidden = self._between(batch, step.layer + 1, above.layer, hidden)
                if worth_keeping is None or above.below in worth_keeping:
                    self._kept.put((batch.number, above.below), hidden)
        if steps[-1].layer == self.last:
            return first_token_logits(self.model, batch.inputs, hidden)
        hidden = batch.packing.unpack(hidden)
        return run_from(self.model, batch.inputs, steps[-1].layer + 1, hidden)[0]

    def _highest_known(self, batch: _Batch, steps: list[_Step]) -> tuple[int, Tensor]:
        """The highest step whose input is known, and that input, `(N, d)`."""
        # All are looked up, from top to bottom, so that what most plans share counts as used last.
        known = [self._kept.get((batch.number, step.below)) for step in reversed(steps[1:])]
        for i, hidden in enumerate(known):
            if hidden is not None:
                return len(steps) - 1 - i, hidden
        return 0, self._entering(batch)

    def _between(self, batch: _Batch, start: int, stop: int, hidden: Tensor) -> Tensor:
        """Run the layers between two converted ones, `(N, d)` -> `(N, d)`."""
        if start == stop:
            return hidden
        padded = batch.packing.unpack(hidden)
        return batch.packing.pack(run_layers(self.model, batch.inputs, start, stop, padded))

    def _outputs(self, batch: _Batch, step: _Step, hidden: Tensor, keep: bool) -> list[Tensor]:
        """Outputs of a step's experts, `(N, dh)` each, or `(B, dh)` in the top layer; those known are not computed."""
        outputs = {e: self._kept.get((batch.number, step.below, e)) for e in step.kept.experts}
        missing = [expert for expert, output in outputs.items() if output is None]
        if missing:
            computed = self._compute(batch, step.layer, missing, hidden)
            outputs |= computed
            if keep:
                for expert, output in computed.items():
                    self._kept.put((batch.number, step.below, expert), output)
        return list(outputs.values())

    def _compute(self, batch: _Batch, layer: int, experts: Sequence[int], hidden: Tensor) -> dict[int, Tensor]:
        compute = first_token_outputs if layer == self.last else expert_outputs
        outputs = compute(self.routed[layer], experts, hidden, batch.packing, self._relative[layer])
        return dict(zip(experts, outputs, strict=True))

    def _entering(self, batch: _Batch) -> Tensor:
        """What enters the first converted layer, `(N, d)`; computed once, with the outputs of all experts there."""
        key = (batch.number, b"")
        with batch.lock:
            known = self._kept.get(key)
            if known is None:
                known = batch.packing.pack(run_layers(self.model, batch.inputs, 0, self.first))
                if self._kept.put(key, known, for_good=True):
                    experts = range(num_experts_of(self.model))
                    outputs = self._compute(batch, self.first, experts, known)
                    for expert, output in outputs.items():
                        self._kept.put((*key, expert), output, for_good=True)
            return known


def _effective(kept: LayerPlan) -> LayerPlan:
    """Without experts of weight 0, which add nothing."""
    pairs = [(e, w) for e, w in zip(kept.experts, kept.weights, strict=True) if w]
    return LayerPlan(*zip(*(pairs or [(kept.experts[0], kept.weights[0])])))


class _Kept:
    """Tensors by key, bounded in bytes; the least recently used are dropped, except those kept for good. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.entries: OrderedDict[tuple, Tensor] = OrderedDict()
        self.fixed: dict[tuple, Tensor] = {}
        self.fixed_size = 0
        self.lock = threading.Lock()

    def get(self, key: tuple) -> Tensor | None:
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
                return self.entries[key]
            return self.fixed.get(key)

    def put(self, key: tuple, value: Tensor, *, for_good: bool = False) -> bool:
        """Keep `value` if there is room; whether `key` is now kept."""
        with self.lock:
            if key in self.entries or key in self.fixed:
                return True
            if (self.fixed_size if for_good else 0) + value.nbytes > self.limit:
                return False
            (self.fixed if for_good else self.entries)[key] = value
            self.size += value.nbytes
            self.fixed_size += value.nbytes if for_good else 0
            while self.size > self.limit and self.entries:
                self.size -= self.entries.popitem(last=False)[1].nbytes
            return key in self.entries or key in self.fixed
