"""Pruning plans: which experts each layer keeps, and their weights (method.md, "Usage and pruning").

A plan is the app's cache key, a file, and part of a static checkpoint's config. Only `PruningPlan.gates` needs torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shrp.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor

Allocation = Literal["per_layer", "budget"]
"""The same number in every layer, or a total spread over layers."""
SELECTIONS = ("usage", "gate_norm", "ablation", "fitted", "random")
_SCORED = {"gate_norm": "gate x norm scores", "ablation": "effects of knocking them out"}
COMBINATIONS = ("usage", "mean", "fitted")

_SUM_TOLERANCE = 0.0101  # of given weights from 1, such as `0.33 + 0.33 + 0.33`


@dataclass(frozen=True)
class LayerPlan:
    """The experts that one layer keeps, ascending, and their weights, which sum to about 1."""

    experts: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.experts:
            raise PlanError("a plan must keep at least one expert in every converted layer.")
        if len(set(self.experts)) != len(self.experts) or min(self.experts) < 0:
            raise PlanError(f"experts {list(self.experts)} must be distinct indices of 0 or more.")
        if len(self.weights) != len(self.experts) or not all(np.isfinite(self.weights)):
            raise PlanError(f"experts {list(self.experts)} need one finite weight each.")
        experts, weights = zip(*sorted(zip(self.experts, self.weights, strict=True)))
        object.__setattr__(self, "experts", tuple(map(int, experts)))
        object.__setattr__(self, "weights", tuple(map(float, weights)))


@dataclass(frozen=True)
class PruningPlan:
    """A `LayerPlan` for every converted layer, with how it was made."""

    layers: tuple[tuple[int, LayerPlan], ...]
    selection: str = "usage"
    combination: str = "usage"
    untied: bool = False
    """Whether each kept expert gets columns of its own in the Expander, which fine-tuning may then part."""

    def __post_init__(self) -> None:
        if len({layer for layer, _ in self.layers}) != len(self.layers):
            raise PlanError("a plan names a layer twice; name each converted layer once.")
        object.__setattr__(self, "layers", tuple(sorted(self.layers, key=lambda item: item[0])))

    @property
    def budget(self) -> int:
        """Experts kept in all converted layers together, the paper's M."""
        return sum(len(plan.experts) for _, plan in self.layers)

    def keep_counts(self) -> dict[int, int]:
        """Experts kept, by layer."""
        return {layer: len(plan.experts) for layer, plan in self.layers}

    def gates(self, num_experts: int) -> dict[int, Tensor]:
        """The plan as constant gates for `use_gates`: layer -> `(H,)` float64."""
        import torch

        gates = {layer: torch.zeros(num_experts, dtype=torch.float64) for layer, _ in self.layers}
        for layer, plan in self.layers:
            gates[layer][list(plan.experts)] = torch.tensor(plan.weights, dtype=torch.float64)
        return gates

    def check_fits(self, layers: Sequence[int], num_experts: int) -> None:
        """Raise `PlanError` unless the plan covers exactly `layers`, each of `num_experts` experts."""
        named = [layer for layer, _ in self.layers]
        if named != sorted(layers):
            raise PlanError(f"the plan is for layers {named}; the converted layers are {sorted(layers)}.")
        for layer, plan in self.layers:
            if plan.experts[-1] >= num_experts:
                raise PlanError(
                    f"the plan keeps expert {plan.experts[-1]} in layer {layer}; experts are 0 to {num_experts - 1}."
                )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; `from_dict` reads it back."""
        layers = {str(n): {"experts": list(p.experts), "weights": list(p.weights)} for n, p in self.layers}
        untied = {"untied": True} if self.untied else {}
        return {"selection": self.selection, "combination": self.combination, **untied, "layers": layers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PruningPlan:
        """Rebuild a plan from `to_dict`'s form; `PlanError` if it is none."""
        try:
            layers = tuple(
                (int(n), LayerPlan(tuple(map(operator.index, p["experts"])), tuple(map(float, p["weights"]))))
                for n, p in data["layers"].items()
            )
            made = str(data.get("selection", "given")), str(data.get("combination", "usage"))
            return cls(layers, *made, bool(data.get("untied", False)))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise PlanError(
                'not a pruning plan: it needs {"layers": {"6": {"experts": [0, 3], "weights": [0.7, 0.3]}, ...}}.'
            ) from error

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read the text of a plan file; `PlanError` if it is no plan, or its weights are not shares of 1."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"not a readable JSON file: {error}.") from error
        plan = cls.from_dict(data)
        for layer, kept in plan.layers:
            check_weights(layer, kept.weights)
        return plan

    def key(self) -> str:
        """A short digest of experts and weights: equal for equal models."""
        text = json.dumps(self.to_dict()["layers"], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FittedGates:
    """Gates for each number of experts, 0 for those removed, fitted on `n` texts of `data`. `L` layers of `H` experts."""

    data: str
    n: int
    per_layer: Mapping[int, Mapping[int, np.ndarray]]
    """1 to H experts in each layer -> layer -> `(H,)`, summing to 1."""
    budget: Mapping[int, Mapping[int, np.ndarray]]
    """L to L H experts in all -> layer -> `(H,)`."""

    def counts(self, *, per_layer: int | None = None, budget: int | None = None) -> dict[int, int]:
        """Layer -> experts kept; exactly one of the two arguments is given."""
        gates = self.budget[budget] if budget is not None else self.per_layer[per_layer]
        return {layer: int(np.count_nonzero(values)) for layer, values in gates.items()}

    def ranking(self, layer: int, count: int, budget: int | None = None) -> np.ndarray:
        """A layer's experts, best first: the kept ones by their gates, then the others by their first gates."""
        gates, first = self._of(layer, count, budget)
        return np.lexsort((-first, -gates))

    def weights(self, layer: int, kept: Sequence[int], count: int, budget: int | None = None) -> np.ndarray:
        """Weights `(H,)`; the first gates if `kept` (edited by hand) has a removed expert. Not normalised over `kept`."""
        gates, first = self._of(layer, count, budget)
        return gates if (gates[list(kept)] > 0).all() else first

    def _of(self, layer: int, count: int, budget: int | None) -> tuple[np.ndarray, np.ndarray]:
        now = self.per_layer[count] if budget is None else self.budget[budget]
        return now[layer], self.per_layer[len(self.per_layer)][layer]


@dataclass(frozen=True)
class LayerEdit:
    """Changes by hand in one layer of `H` experts."""

    count: int | None = None
    """Experts to keep; None leaves that to the allocation."""
    pinned: tuple[int, ...] = ()  # always kept
    dropped: tuple[int, ...] = ()  # never kept

    def kept(self, ranking: Sequence[int], count: int) -> list[int]:
        """The experts to keep, ascending: the pinned ones, then the best in `ranking` that are not dropped.

        `count` is the allocation's; more pins are all kept, and dropped experts do not fill it up.
        """
        free = [int(e) for e in ranking if e not in self.pinned and e not in self.dropped]
        wanted = max(self.count or count, len(self.pinned))
        return sorted([*self.pinned, *free][:wanted])

    def with_count(self, count: int | None) -> LayerEdit:
        """The same with another count."""
        return replace(self, count=count)

    def marked(self, pinned: Iterable[int], dropped: Iterable[int]) -> LayerEdit:
        """The same with other pins and drops."""
        return LayerEdit(self.count, tuple(sorted(set(pinned))), tuple(sorted(set(dropped))))

    def cycled(self, expert: int) -> LayerEdit:
        """The next state of one expert: free, pinned, dropped, free."""
        pinned, dropped = set(self.pinned) - {expert}, set(self.dropped) - {expert}
        if expert in self.pinned:
            dropped.add(expert)
        elif expert not in self.dropped:
            pinned.add(expert)
        return self.marked(pinned, dropped)

    def check(self, layer: int, num_experts: int) -> None:
        """Raise `PlanError` where the edit contradicts itself or a layer of `num_experts`."""
        for expert in (*self.pinned, *self.dropped):
            if not 0 <= expert < num_experts:
                raise PlanError(f"layer {layer} has no expert {expert}; experts are 0 to {num_experts - 1}.")
        if both := sorted(set(self.pinned) & set(self.dropped)):
            raise PlanError(f"expert {both[0]} of layer {layer} is both pinned and dropped; choose one.")
        allowed = num_experts - len(self.dropped)
        if not allowed:
            raise PlanError(f"all {num_experts} experts of layer {layer} would be dropped; keep one.")
        if self.count is not None:
            if not 1 <= self.count <= num_experts:
                raise PlanError(f"layer {layer} can keep 1 to {num_experts} experts, not {self.count}.")
            if len(self.pinned) > self.count:
                raise PlanError(
                    f"layer {layer} is set to keep {self.count} and has {len(self.pinned)} experts pinned; unpin some."
                )
            if self.count > allowed:
                raise PlanError(
                    f"layer {layer} is set to keep {self.count}, but only {allowed} of its experts are not dropped."
                )


@dataclass(frozen=True)
class PlanEdits:
    """The `LayerEdit` of every changed layer, ascending."""

    layers: tuple[tuple[int, LayerEdit], ...] = ()

    def __post_init__(self) -> None:
        changed = [(layer, edit) for layer, edit in self.layers if edit != LayerEdit()]
        object.__setattr__(self, "layers", tuple(sorted(changed, key=lambda item: item[0])))

    def __bool__(self) -> bool:
        return bool(self.layers)

    def of(self, layer: int) -> LayerEdit:
        """What was changed in a layer; nothing, where it isn't named."""
        return dict(self.layers).get(layer, LayerEdit())

    def with_layer(self, layer: int, edit: LayerEdit) -> PlanEdits:
        """The same with one layer's edit replaced."""
        return PlanEdits(tuple((dict(self.layers) | {layer: edit}).items()))

    def check(self, layers: Sequence[int], num_experts: int) -> None:
        """Raise `PlanError` unless the edits fit a model that has `layers`, each of `num_experts` experts."""
        for layer, edit in self.layers:
            if layer not in layers:
                known = ", ".join(map(str, sorted(layers)))
                raise PlanError(f"layer {layer} is not among the model's converted layers {known}.")
            edit.check(layer, num_experts)


NO_EDITS = PlanEdits()
"""Everything as the budget and the selection give it."""


def check_weights(layer: int, weights: Sequence[float]) -> None:
    """Raise `PlanError` unless weights are shares: 0 or more, and 1 together (within 0.01)."""
    # Added up in plain floats: enormous weights come to inf, where an exact sum would overflow.
    total = float(sum(weights))
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not abs(total - 1) <= _SUM_TOLERANCE:
        raise PlanError(f"the weights of layer {layer} sum to {total:.4g}, or one is < 0; give shares of 1.")


def allocate(
    usage: Mapping[int, np.ndarray], *, per_layer: int | None = None, budget: int | None = None
) -> dict[int, int]:
    """Layer -> how many experts it keeps.

    With a budget every layer gets one; the rest go to the most used experts over all layers (method.md, "allocation").

    `usage`: layer -> `(H,)` scores of 0 or more, comparable across layers.

    Raises:
        PlanError: neither or both are given, or the number is out of range.
    """
    if (per_layer is None) == (budget is None):
        raise PlanError("give either experts per layer or a global budget.")
    num_layers, num_experts = len(usage), len(next(iter(usage.values())))
    if per_layer is not None:
        if not 1 <= per_layer <= num_experts:
            raise PlanError(f"experts per layer must be 1 to {num_experts}, not {per_layer}.")
        return dict.fromkeys(usage, per_layer)
    if not num_layers <= budget <= num_layers * num_experts:
        raise PlanError(
            f"the budget must be {num_layers} (one expert a layer) to {num_layers * num_experts} (all), not {budget}."
        )
    counts = dict.fromkeys(usage, 1)
    rest = [
        (-float(score), layer, rank)
        for layer, scores in usage.items()
        for rank, score in enumerate(sorted(scores, reverse=True))
        if rank > 0
    ]
    for _, layer, _ in sorted(rest)[: budget - num_layers]:
        counts[layer] += 1
    return counts


def first_experts(counts: Mapping[int, int]) -> PruningPlan:
    """A plan of the first `counts[layer]` experts of each layer at equal weight, for costs and times."""
    kept = {count: LayerPlan(tuple(range(count)), (1 / count,) * count) for count in set(counts.values())}
    return PruningPlan(tuple((layer, kept[count]) for layer, count in counts.items()), combination="mean")


def make_plan(
    usage: Mapping[int, np.ndarray],
    *,
    per_layer: int | None = None,
    budget: int | None = None,
    counts: Mapping[int, int] | None = None,
    scores: Mapping[int, np.ndarray] | None = None,
    fitted: FittedGates | None = None,
    selection: str = "usage",
    combination: str = "usage",
    seed: int = 0,
    edits: PlanEdits = NO_EDITS,
) -> PruningPlan:
    """Make a plan from measured usage.

    Args:
        usage: layer -> `(H,)` Top-1 shares (`UsageStats.shares()`); gives the weights and the default ranking.
        per_layer: the same number of experts in every layer.
        budget: experts in all, spread by usage, or as the fitted gates are.
        counts: layer -> number, instead of `per_layer` or `budget`.
        scores: layer -> `(H,)`, for the selections `gate_norm` and `ablation`.
        fitted: for the selection `fitted`.
        selection: one of `SELECTIONS`; `random` is a control, drawn from `seed`.
        combination: `usage` weights renormalised over the kept experts, their `mean`, or the `fitted` gates.
        edits: changes by hand.

    Raises:
        PlanError: an impossible allocation or an unknown option.
    """
    if selection not in SELECTIONS:
        raise PlanError(f"selection must be one of {', '.join(SELECTIONS)}, not {selection!r}.")
    if combination not in COMBINATIONS:
        raise PlanError(f"combination must be one of {', '.join(COMBINATIONS)}, not {combination!r}.")
    if seed < 0:
        raise PlanError(f"a seed is 0 or more, not {seed}.")
    if not usage:
        raise PlanError("the model has no routed layer to prune; pick a routed checkpoint.")
    usage = {int(layer): share for layer, share in usage.items()}
    for layer, share in usage.items():
        if not (np.isfinite(share).all() and (np.asarray(share) >= 0).all()):
            raise PlanError(f"the usage of layer {layer} is not of finite shares; was it counted on no text?")
    if scores is not None and not all(np.isfinite(scores[layer]).all() for layer in scores):
        raise PlanError(f"the scores that selection {selection} ranks experts by are not all finite numbers.")
    if selection in _SCORED and scores is None:
        raise PlanError(f"selection {selection} needs the experts' {_SCORED[selection]}.")
    if combination == "fitted" and selection != "fitted":
        raise PlanError(f"the combination fitted goes with the selection fitted, not with {selection}.")
    if (selection == "fitted") != (fitted is not None):
        raise PlanError("the selection fitted needs fitted gates, and other selections take none.")
    if counts is None:
        wanted = {"per_layer": per_layer, "budget": budget}
        counts = allocate(usage, **wanted)  # refuses the impossible, for fitted gates too
        counts = counts if fitted is None else fitted.counts(**wanted)
    if sorted(counts) != sorted(usage):
        raise PlanError(f"counts are for layers {sorted(counts)}; the converted layers are {sorted(usage)}.")
    edits.check(sorted(usage), min(map(len, usage.values())))
    rng = np.random.default_rng(seed)
    layers = []
    for layer in sorted(usage):
        share, edit = np.asarray(usage[layer], dtype=np.float64), edits.of(layer)
        if not 1 <= counts[layer] <= len(share):
            raise PlanError(f"layer {layer} can keep 1 to {len(share)} experts, not {counts[layer]}.")
        if selection == "random":
            ranking = rng.permutation(len(share))
        elif fitted is not None:
            ranking = fitted.ranking(layer, counts[layer], budget)
        else:
            ranking = np.argsort(-np.asarray(scores[layer] if selection in _SCORED else share), kind="stable")
        kept = edit.kept(ranking.tolist(), counts[layer])
        if combination == "fitted":
            share = fitted.weights(layer, kept, counts[layer], budget)
        layers.append((layer, LayerPlan(tuple(kept), _weights(share[kept], combination))))
    return PruningPlan(tuple(layers), f"{selection}{' with edits' * bool(edits)}", combination)


def _weights(share: np.ndarray, combination: str) -> tuple[float, ...]:
    """Weights that sum to 1 for the kept experts; their mean if none was used."""
    total = share.sum()
    mean = combination == "mean" or total <= 0
    return tuple((np.full(len(share), 1 / len(share)) if mean else share / total).tolist())
