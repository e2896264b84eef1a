"""From a routed model and a plan to the static model (method.md, "Usage and pruning")."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from shrp.errors import PlanError
from shrp.families.family import install_hooks
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.layers import ExpertLayer, StaticLayer
from shrp.model.modules import with_layers
from shrp.pruning.plan import PruningPlan


def prunable_layers(model: PreTrainedModel, plan: PruningPlan) -> dict[int, ExpertLayer]:
    """The layers that a plan prunes, by index; `PlanError` if it does not fit, or the model has no routed layer."""
    routed = expert_layers(model)
    if not routed:
        raise PlanError("the model has no routed layer to prune; pick a routed checkpoint.")
    plan.check_fits(list(routed), num_experts_of(model))
    return routed


def prune(model: PreTrainedModel, plan: PruningPlan, *, share_weights: bool = False) -> PreTrainedModel:
    """The static model of `plan`; the routed `model` is left as it was.

    Args:
        share_weights: share the unconverted parts with `model`, which gets transformers' hooks for hidden states (quick, for
            evaluation); otherwise the result is a copy of its own (for training or saving).

    Raises:
        PlanError: the plan does not fit, or the model has no routed layer.
    """
    routed = prunable_layers(model, plan)
    static: dict[int, nn.Module] = {
        index: StaticLayer.from_expert_layer(routed[index], kept.experts, kept.weights, untied=plan.untied)
        for index, kept in plan.layers
    }
    if share_weights:
        install_hooks(model)
    pruned = with_layers(model, static)
    return pruned if share_weights else copy.deepcopy(pruned)
