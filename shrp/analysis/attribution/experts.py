"""What each expert adds to one output of one input: by taking it away, and by Shapley values.

Only experts that fire, that is have a gate other than 0 for the input, can matter; all others are 0 by definition and
cost nothing. Shapes: `R` coalitions, `K` experts that fire, `L` routed layers, `H` experts a layer, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shrp.analysis.attribution.instance import Instance
from shrp.errors import PlanError
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.gates import knock_out, record_routing, use_gates
from shrp.model.partial import run_from, run_layers

METHODS = ("zeroed", "router picks the next", "Shapley value")
BUDGETS = (64, 256, 1024, 4096)
"""Coalitions that Shapley values may be computed from."""
ENOUGH_ORDERS = 10
"""Of fewer random orders, the means and their standard errors say little."""
_KEPT_BYTES = 128 * 2**20
"""Bound on the hidden states that coalitions evaluated together share."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ExpertScores:
    """An attribution of one output to experts; positive experts raise it."""

    method: str
    layers: tuple[int, ...]
    values: np.ndarray
    """`(L, H)`, in units of the output; exactly 0 for experts that do not fire."""
    fires: np.ndarray
    """bool `(L, H)`."""
    full: float
    """The output as the model gives it."""
    empty: float | None = None
    """The output with every expert zeroed; Shapley values sum to `full - empty`. None where nothing is claimed."""
    errors: np.ndarray | None = None
    """Standard errors `(L, H)` of sampled Shapley values; None where the values are exact."""
    evaluations: int = 0
    """Coalitions evaluated."""
    permutations: int = 0
    """Orders of the experts that were drawn; 0 where the values are exact."""


class Coalitions:
    """One output of one input as a function of which of its experts are there, its route frozen.

    An expert that is not there has its gate set to 0: in its place the Expander reads zeros, and the gates of all
    others stay what they are. Coalitions that agree in their lower layers share the computation of these.

    Args:
        instance: the input, of `prepare` or `shrp.analysis.attribution.instance.against`.
        output: the class, in the order of the task's labels; 0 for regression, and where the instance has one output.

    Raises:
        PlanError: the model has no expert layer.
    """

    def __init__(self, instance: Instance, output: int) -> None:
        routed = expert_layers(instance.model)
        if not routed:
            raise PlanError("this model has no routed layer, so there are no experts to attribute to.")
        self.instance, self.output = instance, output
        self.layers = tuple(routed)
        self.num_experts = num_experts_of(instance.model)
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
        return self.instance.explained(logits)[:, self.output].cpu().double().numpy()

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of the players `(K,)` as `(L, H)`, 0 for the experts that do not fire."""
        grid = np.zeros(self.fires.shape)
        grid[self.fires] = values
        return grid

    def values(self, present: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """The output `(R,)` for each coalition, bool `(R, K)`.

        Args:
            progress: called with different coalitions done and in all.
        """
        different, place = np.unique(np.asarray(present, dtype=bool), axis=0, return_inverse=True)
        state_bytes = 4 * len(self.instance.tokens) * self.entering[self.layers[0]].shape[-1]
        size = max(1, _KEPT_BYTES // (2 * state_bytes))
        found = np.empty(len(different))
        with torch.inference_mode():
            for start in range(0, len(different), size):  # sorted, so that neighbours share the most
                block = different[start : start + size]
                found[start : start + len(block)] = self._block(block, start, len(different), progress)
        return found[place.reshape(-1)]

    def _block(self, present: np.ndarray, before: int, total: int, progress: Progress | None) -> np.ndarray:
        """The output of each of these coalitions, `(B, K)`, layer by layer: what leaves a layer is computed once for
        all that agree up to there. Of players in two layers, coalitions 00, 01, 10 and 11 are two prefixes in the first
        layer, 0 and 1, and four in the second, whose rows go on from rows 0, 0, 1 and 1 of the first.
        """
        hidden = self.entering[self.layers[0]]  # (1, T, d)
        of_row = np.zeros(len(present), dtype=np.int64)  # each coalition's row of `hidden`
        for i, layer in enumerate(self.layers):
            upto = np.array([place for place, (other, _) in enumerate(self.players) if other <= layer])
            prefixes, first, inverse = np.unique(
                present[:, upto], axis=0, return_index=True, return_inverse=True
            )
            parents = hidden[of_row[first]]  # (P, T, d)
            keep = torch.ones(len(prefixes), self.num_experts, device=hidden.device)
            mine = [place for place, (other, _) in enumerate(self.players) if other == layer]
            keep[:, [self.players[place][1] for place in mine]] = torch.from_numpy(prefixes[:, mine]).to(keep)
            own = self.gates[layer]
            gates = own * (keep if own.dim() == 2 else keep.unsqueeze(1))
            stop = self.layers[i + 1] if i + 1 < len(self.layers) else None
            parts = []
            for chunk in self.instance.batches(len(prefixes)):
                inputs = self.instance_inputs(chunk.stop - chunk.start)
                with use_gates({layer: gates[chunk]}):
                    if stop is None:
                        parts.append(run_from(self.instance.model, inputs, layer, parents[chunk])[0])
                    else:
                        parts.append(run_layers(self.instance.model, inputs, layer, stop, parents[chunk]))
                if progress:  # the top layer has the most different coalitions, and so most of the work
                    part = (i + chunk.stop / len(prefixes)) / len(self.layers)
                    progress(before + int(len(present) * part), total)
            hidden, of_row = torch.cat(parts), inverse.reshape(-1)
        return self.of(hidden[of_row])

    def instance_inputs(self, rows: int) -> dict[str, Tensor]:
        """The encoded input `rows` times, without copying it."""
        return {name: values.expand(rows, -1) for name, values in self.instance.inputs.items()}


def zero_experts(coalitions: Coalitions) -> ExpertScores:
    """The drop of the output when one expert's contribution is set to 0, the route of all else frozen."""
    k = len(coalitions.players)
    # The whole is evaluated along with the rest, so that rounding is the same and cancels.
    values = coalitions.values(np.concatenate([~np.eye(k, dtype=bool), np.ones((1, k), dtype=bool)]))
    return ExpertScores(
        METHODS[0],
        coalitions.layers,
        coalitions.on_grid(values[-1] - values[:-1]),
        coalitions.fires,
        coalitions.full,
        evaluations=k + 1,
    )


def next_experts(coalitions: Coalitions) -> ExpertScores:
    """The drop of the output when one expert is taken away and the router picks among those that remain.

    The layers above route as they then would.

    Raises:
        PlanError: the model has no router, or but one expert a layer.
    """
    instance, model = coalitions.instance, coalitions.instance.model
    routed = expert_layers(model)
    check_can_pick_next(routed)
    drops = []
    with torch.inference_mode():
        for layer in coalitions.layers:
            removed = [None, *(expert for other, expert in coalitions.players if other == layer)]
            for start in range(0, len(removed), instance.batch_size):
                rows = removed[start : start + instance.batch_size]
                source = knock_out(
                    {layer: torch.tensor([-1 if e is None else e for e in rows])}, routed[layer].top_k
                )
                with use_gates(source):
                    logits, _ = run_from(
                        model, coalitions.instance_inputs(len(rows)), layer, coalitions.entering[layer]
                    )
                values = coalitions.of(logits)
                if start == 0:  # nothing removed, at the same place: rounding is the same and cancels
                    whole, values = values[0], values[1:]
                drops.append(whole - values)
    return ExpertScores(
        METHODS[1],
        coalitions.layers,
        coalitions.on_grid(np.concatenate(drops)),
        coalitions.fires,
        coalitions.full,
        evaluations=len(coalitions.players) + len(coalitions.layers),
    )


def check_can_pick_next(routed: dict) -> None:
    """Raise `PlanError` unless every expert layer has a router with another expert to pick."""
    if not routed or any(module.num_experts < 2 for module in routed.values()):
        raise PlanError(
            "there is no router that could pick another expert; set contributions to zero instead."
        )


def shapley_values(
    coalitions: Coalitions, *, budget: int = 256, seed: int = 0, progress: Progress | None = None
) -> ExpertScores:
    """Shapley values of the experts that fire, in the game where those left out are zeroed (route frozen).

    Exact, from all `2^K` coalitions, where the budget allows; else the mean over random orders of what each expert
    adds to those before it, with its standard error (Castro et al., Computers & Operations Research 36, 2009). Either
    way they sum to the output less the output without any expert.

    Args:
        budget: most coalitions to evaluate, at least enough for two orders.
        progress: as for `Coalitions.values`.
    """
    k = len(coalitions.players)
    if 2**k <= budget:
        return _exact(coalitions, k, progress)
    orders = _orders(k, budget)
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.permutation(k) for _ in range(orders)])
    rank = np.argsort(drawn, axis=1)  # (orders, K): when each expert joins
    present = rank[:, None, :] < np.arange(k + 1)[None, :, None]  # (orders, K + 1, K)
    values = coalitions.values(present.reshape(-1, k), progress).reshape(orders, k + 1)
    added = np.take_along_axis(np.diff(values, axis=1), rank, axis=1)  # (orders, K), by expert again
    return ExpertScores(
        METHODS[2],
        coalitions.layers,
        coalitions.on_grid(added.mean(0)),
        coalitions.fires,
        float(values[0, -1]),
        float(values[0, 0]),
        coalitions.on_grid(added.std(0, ddof=1) / np.sqrt(orders)),
        evaluations=len(np.unique(present.reshape(-1, k), axis=0)),
        permutations=orders,
    )


def _orders(k: int, budget: int) -> int:
    """Random orders of `k` experts whose coalitions a budget allows: all share the empty and the full one."""
    return max(2, (budget - 2) // max(k - 1, 1))


def enough(k: int) -> int:
    """The least of `BUDGETS` that gives exact Shapley values of `k` experts, or `ENOUGH_ORDERS`; else the largest."""
    found = (budget for budget in BUDGETS if 2**k <= budget or _orders(k, budget) >= ENOUGH_ORDERS)
    return next(found, BUDGETS[-1])


def _exact(coalitions: Coalitions, k: int, progress: Progress | None) -> ExpertScores:
    numbers = np.arange(2**k)
    present = (numbers[:, None] >> np.arange(k)) & 1 == 1
    values = coalitions.values(present, progress)
    sizes = present.sum(1)
    weights = np.array([factorial(s) * factorial(k - s - 1) / factorial(k) for s in range(k)])
    shares = np.empty(k)
    for player in range(k):
        absent = numbers[~present[:, player]]
        shares[player] = (weights[sizes[absent]] * (values[absent | 1 << player] - values[absent])).sum()
    return ExpertScores(
        METHODS[2],
        coalitions.layers,
        coalitions.on_grid(shares),
        coalitions.fires,
        float(values[-1]),
        float(values[0]),
        evaluations=len(numbers),
    )


def to_frame(results: list[ExpertScores]) -> pd.DataFrame:
    """One row an expert that fires: its layer, and its score by every method, with the standard error if it has one."""
    first = results[0]
    rows, experts = np.nonzero(first.fires)
    frame = pd.DataFrame({"layer": np.array(first.layers)[rows], "expert": experts})
    for result in results:
        frame[result.method] = result.values[first.fires]
        if result.errors is not None:
            frame[f"{result.method} standard error"] = result.errors[first.fires]
    return frame
