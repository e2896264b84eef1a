"""From a routed model and a plan to the static model (method.md, "Usage and pruning")."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from shrp.convert import expert_layers, num_experts_of
from shrp.errors import PlanError
from shrp.families import family_of
from shrp.layers import ExpertLayer, StaticLayer
from shrp.plan import PruningPlan


def with_layers(model: PreTrainedModel, replacements: dict[int, nn.Module]) -> PreTrainedModel:
    """A second model that shares every weight with `model` but has `replacements` for the given layers.

    Only the containers on the way to the layers are copied, so this takes well under a millisecond, and the
    original, which other threads may be using, is left alone.
    """
    family = family_of(model)
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    path = f"{prefix}{family.encoder}.layer".split(".")
    clone = shallow_copy(model)
    parent = clone
    for name in path:
        child = shallow_copy(getattr(parent, name))
        parent._modules[name] = child
        parent = child
    for index, layer in replacements.items():
        parent[index] = layer
    return clone


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module that shares everything with this one, and whose parts can be exchanged without touching it."""
    clone = copy.copy(module)
    # copy.copy shares the registries, and writing to one would then change the original.
    clone.__dict__ = dict(module.__dict__)
    for registry in ("_modules", "_parameters", "_buffers"):
        clone.__dict__[registry] = dict(module.__dict__[registry])
    return clone


def prunable_layers(model: PreTrainedModel, plan: PruningPlan) -> dict[int, ExpertLayer]:
    """The layers that a plan prunes, by index.

    Raises:
        PlanError: the plan does not fit, or the model has no routed layer.
    """
    routed = expert_layers(model)
    if not routed:
        raise PlanError("the model has no routed layer to prune; pick a routed checkpoint.")
    plan.check_fits(list(routed), num_experts_of(model))
    return routed


def prune(model: PreTrainedModel, plan: PruningPlan, *, share_weights: bool = False) -> PreTrainedModel:
    """Return the static model of `plan`; the routed `model` is left as it was.

    Args:
        share_weights: the result's unconverted parts are the very tensors of `model` (quick, for evaluation);
            otherwise it is a copy of its own (for training or saving).

    Raises:
        PlanError: the plan does not fit, or the model has no routed layer.
    """
    routed = prunable_layers(model, plan)
    static: dict[int, nn.Module] = {
        index: StaticLayer.from_expert_layer(routed[index], list(kept.experts), list(kept.weights))
        for index, kept in plan.layers
    }
    pruned = with_layers(model, static)
    return pruned if share_weights else copy.deepcopy(pruned)
