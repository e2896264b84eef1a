"""What each expert adds to one output of one input: by knock-out, and by Shapley values.

Experts with a gate of 0 add nothing and are left out. Shapes: `R` coalitions, `K` experts that fire, `L` routed layers,
`H` experts a layer, `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shrp.analysis.attribution.instance import Instance
from shrp.analysis.importance import MEANINGS, knock_out_batch
from shrp.model.convert import expert_layers
from shrp.model.gates import record_routing, use_gates
from shrp.model.partial import run_from
from shrp.progress import Progress, silent

METHODS = (*MEANINGS[::-1], "Shapley value")
BUDGETS = (64, 256, 1024, 4096)
"""Numbers of coalitions for Shapley values."""
ENOUGH_ORDERS = 10
"""Fewest random orders for useful standard errors."""


@dataclass(frozen=True, eq=False)
class ExpertScores:
    """An attribution of one output to experts; positive experts raise it."""

    method: str
    layers: tuple[int, ...]
    values: np.ndarray
    """`(L, H)`, in units of the output; 0 for experts that do not fire."""
    fires: np.ndarray
    """bool `(L, H)`."""
    errors: np.ndarray | None = None
    """Standard errors `(L, H)` of sampled Shapley values; None where exact."""
    evaluations: int = 0
    """Coalitions evaluated."""
    permutations: int = 0
    """Random orders drawn; 0 where exact."""

    def to_frame(self) -> pd.DataFrame:
        """One row an expert that fires: layer, expert, and its score and standard error."""
        rows, experts = np.nonzero(self.fires)
        frame = pd.DataFrame({"layer": np.array(self.layers)[rows], "expert": experts})
        frame[self.method] = self.values[self.fires]
        if self.errors is not None:
            frame[f"{self.method} standard error"] = self.errors[self.fires]
        return frame


class Coalitions:
    """One output of one input as a function of the set of its experts, with its route frozen; of a routed model.

    An expert that is left out has its gate set to 0; all other gates stay.

    `output`: the class, in the order of the task's labels; 0 where there is one output.
    """

    def __init__(self, instance: Instance, output: int) -> None:
        self.instance, self.output = instance, output
        self.layers = tuple(expert_layers(instance.model))
        with torch.inference_mode(), record_routing() as record:
            logits, entering = run_from(instance.model, instance.inputs, watch=list(self.layers))
        self.entering = entering
        self.full = float(self.of(logits)[0])
        self.gates = {layer: record.last(layer).gates for layer in self.layers}  # (1, H) or (1, T, H)
        self.fires = np.stack([(g != 0).flatten(0, -2).any(0).cpu().numpy() for g in self.gates.values()])
        rows, experts = np.nonzero(self.fires)
        self.players = [(self.layers[row], int(expert)) for row, expert in zip(rows, experts, strict=True)]
        """The experts that fire, `(layer, expert)`, ascending."""

    def of(self, logits: Tensor) -> np.ndarray:
        """The output `(B,)` of the model's logits."""
        return logits.float()[:, self.instance.columns[self.output]].cpu().double().numpy()

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of the players `(K,)` as `(L, H)`, 0 for the experts that do not fire."""
        grid = np.zeros(self.fires.shape)
        grid[self.fires] = values
        return grid

    def values(self, present: np.ndarray, progress: Progress = silent) -> np.ndarray:
        """The output `(R,)` for each coalition, bool `(R, K)`."""
        different, place = np.unique(np.asarray(present, dtype=bool), axis=0, return_inverse=True)
        first, found = self.layers[0], []
        with torch.inference_mode():
            for chunk in self.instance.batches(len(different)):
                size = chunk.stop - chunk.start
                keep = torch.zeros(size, *self.fires.shape, device=self.entering[first].device)
                keep[:, *np.nonzero(self.fires)] = torch.from_numpy(different[chunk]).to(keep)
                gates = {}
                for i, (layer, own) in enumerate(self.gates.items()):
                    gates[layer] = own * (keep[:, i] if own.dim() == 2 else keep[:, i, None])
                copies = {name: one.expand(size, -1) for name, one in self.instance.inputs.items()}
                with use_gates(gates):
                    entering = self.entering[first].expand(size, -1, -1)
                    logits, _ = run_from(self.instance.model, copies, first, entering)
                found.append(self.of(logits))
                progress(chunk.stop, len(different))
        return np.concatenate(found)[place.reshape(-1)]


def knock_out_scores(instance: Instance, output: int, method: str) -> ExpertScores:
    """The drop of a logit without each expert that fires, by one of `MEANINGS`. Raises as `knock_outs`."""
    found = knock_out_batch(instance.model, instance.inputs, instance.columns, meaning=method)
    layers, base, knocked_out, _, fires = found
    values = (base[:, None, None] - knocked_out)[0, ..., output].astype(np.float64)
    return ExpertScores(method, layers, values, fires[0], evaluations=int(fires.sum()) + 1)


def shapley_values(
    coalitions: Coalitions, *, budget: int = 256, progress: Progress = silent
) -> ExpertScores:
    """Shapley values of the experts that fire, with the route frozen.

    Exact, from all `2^K` coalitions, if the budget allows; else the mean over random orders of what each expert adds to
    those before it, with its standard error (Castro et al. 2009).
    """
    k = len(coalitions.players)
    if exact := 2**k <= budget:
        numbers = np.arange(2**k)
        present = (numbers[:, None] >> np.arange(k)) & 1 == 1
        values, sizes = coalitions.values(present, progress), present.sum(1)
        weights = np.array([factorial(s) * factorial(k - s - 1) / factorial(k) for s in range(k)])
        found, errors, orders = np.empty(k), None, 0
        for player in range(k):
            absent = numbers[~present[:, player]]
            added = values[absent | 1 << player] - values[absent]
            found[player] = (weights[sizes[absent]] * added).sum()
    else:
        orders, generator = _orders(k, budget), np.random.default_rng(0)
        rank = np.argsort([generator.permutation(k) for _ in range(orders)], axis=1)  # when each expert joins
        present = (rank[:, None, :] < np.arange(k + 1)[None, :, None]).reshape(-1, k)  # (orders * (K + 1), K)
        values = coalitions.values(present, progress)
        added = np.diff(values.reshape(orders, k + 1), axis=1)
        added = np.take_along_axis(added, rank, axis=1)  # (orders, K), by expert again
        found, errors = added.mean(0), coalitions.on_grid(added.std(0, ddof=1) / np.sqrt(orders))
    evaluations = len(values) if exact else len(np.unique(present, axis=0))
    scores = coalitions.on_grid(found), coalitions.fires, errors
    return ExpertScores(METHODS[2], coalitions.layers, *scores, evaluations, orders)


def _orders(k: int, budget: int) -> int:
    """Random orders of `k` experts that a budget allows; all share the empty and the full coalition."""
    return max(2, (budget - 2) // max(k - 1, 1))


def enough(k: int) -> int:
    """The least of `BUDGETS` that gives exact values for `k` experts or `ENOUGH_ORDERS`; else the largest."""
    found = (budget for budget in BUDGETS if 2**k <= budget or _orders(k, budget) >= ENOUGH_ORDERS)
    return next(found, BUDGETS[-1])
