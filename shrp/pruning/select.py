"""Constant gates fitted to the routed model's outputs, at every size of a pruned model.

All converted layers run under constant gates, whose logits are trained to reproduce the routed model's outputs; the
weights stay fixed. The expert with the smallest gate is removed repeatedly, which gives a plan for each size.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import UsageStats
from shrp.data.batching import read
from shrp.data.text_data import TextData
from shrp.errors import PlanError
from shrp.model.convert import expert_layers
from shrp.model.gates import use_gates
from shrp.model.partial import run_from, run_layers
from shrp.progress import Progress, silent
from shrp.pruning.plan import FittedGates, PruningPlan, make_plan

TEXTS = 512
"""Most texts to fit on."""
BATCH = 16
LEARNING_RATE = 0.1
WARM_UP = 32
"""Steps before the first expert is removed."""
STEPS = 132
"""About how many steps follow, for each of the two walks."""
START = 1e-2
"""Added to the usage shares that gates start from."""
_Batch = tuple[dict[str, Tensor], Tensor, Tensor]


class GateFit:
    """A fit of constant gates to the routed model's outputs on texts, by KL divergence (squared error for regression).

    Iterate over it for the steps done, or let it `finish`. It may be paused, and threads that iterate at once share the
    steps. Nothing is computed before the first. `steps` is how many there are; `result` the gates once all are done.

    Args:
        usage: layer -> `(H,)` Top-1 shares, where the gates start.
        size: texts to use, a class-balanced draw.

    Raises:
        PlanError: the model has no router, or `usage` is not of its layers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        data: TextData,
        usage: Mapping[int, np.ndarray],
        *,
        size: int = TEXTS,
        max_length: int = 128,
        seed: int = 0,
    ) -> None:
        routed = expert_layers(model)
        if not routed or sorted(usage) != sorted(routed):
            raise PlanError("fitting gates needs a router and measured usage in every converted layer.")
        data.task.check_of_texts("fitting gates")
        self.model, self.tokenizer, self.data, self.max_length = model, tokenizer, data, max_length
        self.layers = sorted(usage)
        self.start = torch.tensor(np.stack([usage[layer] for layer in self.layers])) + START  # (L, H)
        self.seed, self.rows = seed, data.stratified_order(seed)[:size]
        walks = [self._removals(each_layer) for each_layer in (True, False)]
        self.steps = sum(WARM_UP + removals * _between(removals) for removals in walks)
        self.result: FittedGates | None = None
        self._done, self._lock, self._work = 0, threading.Lock(), self._walks()

    def __iter__(self) -> Iterator[int]:
        end = object()
        while True:
            with self._lock:
                if next(self._work, end) is end:
                    return
                self._done = done = self._done + 1
            yield done

    def finish(self, progress: Progress = silent) -> FittedGates:
        """Do all remaining steps; `progress` receives the steps done and all of them."""
        for done in self:
            progress(done, self.steps)
        if self.result is None:
            raise PlanError("an error ended this fit of gates; begin another one.")
        return self.result

    def _removals(self, each_layer: bool) -> int:
        """How often a walk removes experts."""
        layers, experts = self.start.shape
        return (experts - 1) * (1 if each_layer else layers)

    def _walks(self) -> Iterator[None]:
        batches = list(self._batches())
        per_layer = yield from self._walk(batches, True)
        budget = yield from self._walk(batches, False)
        self.result = FittedGates(self.data.name, len(self.rows), per_layer, budget)

    def _batches(self) -> Iterator[_Batch]:
        """Inputs, what enters the lowest routed layer, and the routed model's outputs."""
        texts, sizes = [self.data.texts[i] for i in self.rows], {"batch_size": BATCH, "max_length": self.max_length}
        for _, inputs in read(self.model, self.tokenizer, texts, **sizes):
            with torch.no_grad():
                entering = run_layers(self.model, inputs, 0, self.layers[0])
                target, _ = run_from(self.model, inputs, self.layers[0], entering)
            yield inputs, entering, target

    def _walk(
        self, batches: list[_Batch], each_layer: bool
    ) -> Generator[None, None, dict[int, dict[int, np.ndarray]]]:
        """From all experts to one a layer: remove one in each layer, or one in all, and fit on; yields after a step.

        Returns:
            Experts in each layer, or in all -> layer -> `(H,)` gates.
        """
        logits = self.start.log().float().requires_grad_(True)  # (L, H)
        kept = torch.ones_like(logits, dtype=torch.bool)
        optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
        order, removals, found = np.random.default_rng(self.seed), self._removals(each_layer), {}
        for removal in range(removals + 1):
            for _ in range(_between(removals) if removal else WARM_UP):
                self._step(logits, kept, optimizer, batches[order.integers(len(batches))])
                yield
            gates = _gates(logits.detach(), kept)
            size = int(kept[0].sum() if each_layer else kept.sum())
            found[size] = {layer: gates[i].double().numpy() for i, layer in enumerate(self.layers)}
            if removal < removals:
                _take_out(gates, kept, each_layer)
        return found

    def _step(self, logits: Tensor, kept: Tensor, optimizer: torch.optim.Optimizer, batch: _Batch) -> None:
        inputs, entering, target = batch
        with torch.enable_grad():
            gates = _gates(logits, kept)
            source = {layer: gates[i].expand(len(target), -1) for i, layer in enumerate(self.layers)}
            with use_gates(source):
                outputs, _ = run_from(self.model, inputs, self.layers[0], entering)
            loss = _distance(outputs, target, self.data.task.is_regression)
            (logits.grad,) = torch.autograd.grad(loss, logits)  # not of weights that others use
        optimizer.step()


def _between(removals: int) -> int:
    """Steps between two of so many removals."""
    return max(1, round(STEPS / removals)) if removals else 0


def _gates(logits: Tensor, kept: Tensor) -> Tensor:
    return logits.masked_fill(~kept, -torch.inf).softmax(-1)


def _take_out(gates: Tensor, kept: Tensor, each_layer: bool) -> None:
    """Remove the expert with the smallest gate: in each layer, or in all layers that have another."""
    left = gates.masked_fill(~kept, torch.inf)
    if each_layer:
        kept[torch.arange(len(kept)), left.argmin(-1)] = False
        return
    left[kept.sum(-1) == 1] = torch.inf
    kept.view(-1)[left.argmin()] = False


def _distance(outputs: Tensor, target: Tensor, regression: bool) -> Tensor:
    outputs, target = outputs.float(), target.float()
    if regression:
        return F.mse_loss(outputs, target)
    return F.kl_div(outputs.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True)


def plan_from(stats: UsageStats, *, selection: str = "usage", **options: Any) -> PruningPlan:
    """`make_plan` with the usage of `stats`, and the scores or fitted gates that the selection needs.

    `selection`: of `make_plan`, or `recorded`: by the usage `stats.recorded`.

    Raises:
        PlanError: as `make_plan`, or what the selection needs was not measured.
    """
    if selection == "recorded":
        return make_plan(stats.recorded, **options)
    scores = {"gate_norm": stats.gate_norm, "ablation": lambda: stats.ablation or None}.get(selection)
    fitted = stats.fitted if selection == "fitted" else None
    return make_plan(stats.shares(), scores=scores and scores(), fitted=fitted, selection=selection, **options)
