"""A pruning plan is data: which experts each layer keeps and with what weights (method.md, "Usage and pruning").

The app's cache key, the command line's file and a static checkpoint's config all are this one object.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shrp.errors import PlanError
from shrp.pruning.plan_edits import NO_EDITS, PlanEdits, check_weights

if TYPE_CHECKING:
    from shrp.analysis.usage import UsageStats
    from shrp.pruning.fitting import FittedGates

SELECTIONS = ("usage", "gate_norm", "ablation", "fitted", "random")
_SCORED = {"gate_norm": "gate x norm scores", "ablation": "effects of knocking them out"}
COMBINATIONS = ("usage", "mean", "fitted")


@dataclass(frozen=True)
class LayerPlan:
    """The experts that one layer keeps, ascending, and their combination weights, which sum to 1 (`make_plan`), or
    nearly so where a file has them rounded.
    """

    experts: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.experts:
            raise PlanError("a plan must keep at least one expert in every converted layer.")
        if len(set(self.experts)) != len(self.experts) or min(self.experts) < 0:
            raise PlanError(f"experts {list(self.experts)} must be distinct indices of 0 or more.")
        if len(self.weights) != len(self.experts) or not all(np.isfinite(self.weights)):
            raise PlanError(f"experts {list(self.experts)} need one finite weight each.")
        order = sorted(range(len(self.experts)), key=lambda i: self.experts[i])
        object.__setattr__(self, "experts", tuple(int(self.experts[i]) for i in order))
        object.__setattr__(self, "weights", tuple(float(self.weights[i]) for i in order))


@dataclass(frozen=True)
class PruningPlan:
    """A `LayerPlan` for every converted layer, with how it was made."""

    layers: tuple[tuple[int, LayerPlan], ...]
    selection: str = "usage"
    combination: str = "usage"

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
        result = {}
        for layer, plan in self.layers:
            gate = torch.zeros(num_experts, dtype=torch.float64)
            gate[list(plan.experts)] = torch.tensor(plan.weights, dtype=torch.float64)
            result[layer] = gate
        return result

    def check_fits(self, layers: Sequence[int], num_experts: int) -> None:
        """Raise `PlanError` unless the plan covers exactly `layers`, each of `num_experts` experts."""
        named = [layer for layer, _ in self.layers]
        if named != sorted(layers):
            raise PlanError(
                f"the plan is for layers {named}, but the model's converted layers are {sorted(layers)}."
            )
        for layer, plan in self.layers:
            if plan.experts[-1] >= num_experts:
                raise PlanError(
                    f"the plan keeps expert {plan.experts[-1]} in layer {layer}; experts are 0 to {num_experts - 1}."
                )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; `PruningPlan.from_dict` reads it back."""
        return {
            "selection": self.selection,
            "combination": self.combination,
            "layers": {
                str(layer): {"experts": list(p.experts), "weights": list(p.weights)}
                for layer, p in self.layers
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PruningPlan:
        """Rebuild a plan from `to_dict`'s form.

        Raises:
            PlanError: the dictionary is not a plan.
        """
        try:
            layers = tuple(
                (
                    int(layer),
                    LayerPlan(tuple(map(operator.index, p["experts"])), tuple(map(float, p["weights"]))),
                )
                for layer, p in data["layers"].items()
            )
            return cls(layers, str(data.get("selection", "given")), str(data.get("combination", "usage")))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise PlanError(
                'not a pruning plan: it needs {"layers": {"6": {"experts": [0, 3], "weights": [0.7, 0.3]}, ...}}.'
            ) from error

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read the text of a plan file, which may be of anyone's making.

        Raises:
            PlanError: it is no JSON, no plan, or has weights that are not shares of 1.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"not a readable JSON file: {error}.") from error
        plan = cls.from_dict(data)
        for layer, kept in plan.layers:
            check_weights(layer, kept.weights)
        return plan

    def key(self) -> str:
        """A short digest of the experts and weights, whatever made them: equal for equal models."""
        text = json.dumps(self.to_dict()["layers"], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def allocate(usage: Mapping[int, np.ndarray], *, per_layer: int | None = None, budget: int | None = None):
    """How many experts each layer keeps: the same `per_layer`, or a global `budget` spread by usage.

    With a budget every layer first gets one expert; the rest go, one by one, to the most used experts that are
    not kept yet, over all layers (method.md, "allocation").

    Args:
        usage: layer -> `(H,)` non-negative scores, comparable across layers (usage shares are).

    Returns:
        layer -> count.

    Raises:
        PlanError: neither or both are given, or the number is outside what the layers allow.
    """
    if (per_layer is None) == (budget is None):
        raise PlanError("give either experts per layer or a global budget, not both and not neither.")
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
    """The first so many experts of each layer, all of one weight, where which ones they are does not matter: for costs,
    times, or all experts.

    Args:
        counts: layer -> how many, at least 1.
    """
    kept = {count: LayerPlan(tuple(range(count)), (1 / count,) * count) for count in set(counts.values())}
    return PruningPlan(tuple((layer, kept[count]) for layer, count in counts.items()), combination="mean")


def make_plan(
    usage: Mapping[int, np.ndarray] | UsageStats,
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
        usage: layer -> `(H,)` Top-1 shares on validation data; gives the weights and, by default, the ranking. Layers
            may be texts, as in a checkpoint's `info.usage`. Of a `UsageStats` its shares are taken.
        per_layer: the same number of experts in every layer.
        budget: experts in all, spread by usage.
        counts: layer -> number, instead of `per_layer` or `budget`.
        scores: layer -> `(H,)` ranking scores, needed for the selections `gate_norm` and `ablation`.
        fitted: gates for each number of experts, needed for `selection="fitted"`; a budget is spread as they say.
        selection: `usage` (the paper's), `gate_norm`, `ablation`, `fitted`, or `random` (a control, drawn from `seed`).
        combination: `usage` weights renormalised over the kept experts, their plain `mean`, or, with the selection
            of that name, the `fitted` gates.
        seed: for random selection.
        edits: changes by hand, over what the options above give.

    Raises:
        PlanError: an impossible allocation or an unknown option; the message names the right ones.
    """
    if selection not in SELECTIONS:
        raise PlanError(f"selection must be one of {', '.join(SELECTIONS)}, not {selection!r}.")
    if combination not in COMBINATIONS:
        raise PlanError(f"combination must be one of {', '.join(COMBINATIONS)}, not {combination!r}.")
    if seed < 0:
        raise PlanError(f"a seed is 0 or more, not {seed}.")
    if not isinstance(usage, Mapping):
        usage = usage.shares()
    if not usage:
        raise PlanError("the model has no routed layer to prune; pick a routed checkpoint.")
    usage = {int(layer): share for layer, share in usage.items()}
    for layer, share in usage.items():
        if not (np.isfinite(share).all() and (np.asarray(share) >= 0).all()):
            raise PlanError(
                f"the usage of layer {layer} is not of finite shares, 0 or more; counted on no input it is of none."
            )
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
        counts = allocate(usage, **wanted)  # it refuses what is impossible, of fitted gates too
        counts = counts if fitted is None else fitted.counts(**wanted)
    if sorted(counts) != sorted(usage):
        raise PlanError(
            f"counts are for layers {sorted(counts)}, but the converted layers are {sorted(usage)}."
        )
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
        if edit.weights:
            layers.append((layer, LayerPlan(edit.pinned, edit.weights)))
            continue
        kept = edit.kept(ranking.tolist(), counts[layer])
        if combination == "fitted":
            share = fitted.weights(layer, kept, counts[layer], budget)
        layers.append((layer, LayerPlan(tuple(kept), _weights(share[kept], combination))))
    return PruningPlan(tuple(layers), *_names(selection, combination, edits, usage))


def _weights(share: np.ndarray, combination: str) -> tuple[float, ...]:
    """Weights that add up to 1 of the kept experts with these shares."""
    total = share.sum()
    # Experts that nothing was routed to have no usage to weigh by; then a mean is all that is left.
    mean = combination == "mean" or total <= 0
    return tuple((np.full(len(share), 1 / len(share)) if mean else share / total).tolist())


def _names(selection: str, combination: str, edits: PlanEdits, layers: Iterable[int]) -> tuple[str, str]:
    """What a plan's selection and combination are called once edits were made to it."""
    if any(edit.weights for _, edit in edits.layers):
        combination = "given weights"
    if not edits:
        return selection, combination
    if all(edits.of(layer).weights for layer in layers):
        # Whatever is picked beside a plan that a file gave whole has no part in it.
        return edits.origin or "given", combination
    # A control where either is one, and else neither's own choice.
    if edits.origin and edits.origin != selection:
        selection = "random" if "random" in (edits.origin, selection) else "given"
    return f"{selection} with edits", combination
