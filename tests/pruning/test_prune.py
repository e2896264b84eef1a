"""The static model equals the routed one under the plan's gates, and leaves it alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.families.families import encoder_layers
from shrp.model.convert import layer_kinds
from shrp.model.gates import use_gates
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

H = 4
USAGE = {1: np.array([0.1, 0.6, 0.0, 0.3]), 2: np.array([0.2, 0.15, 0.4, 0.25])}


@pytest.mark.parametrize("extended", [False, True], ids=["paper", "extended"])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_static_equals_routed_under_constant_gates(
    tiny_family, tiny_attention, routing, extended, tiny_routed, tiny_inputs, tiny_logits
):
    model = tiny_routed(tiny_family, attn=tiny_attention, routing=routing, self_path=extended)
    inputs = tiny_inputs()
    live, seen = tiny_logits(model, inputs), []
    for budget in (2, 5, 8):
        for options in ({}, {"selection": "random", "seed": budget, "combination": "mean"}):
            plan = replace(make_plan(USAGE, budget=budget, **options), untied=extended)
            with use_gates(plan.gates(H)):
                expected = tiny_logits(model, inputs)
            for share in (True, False):
                found = tiny_logits(prune(model, plan, share_weights=share), inputs)
                assert (found - expected).abs().max() <= 1e-5
            seen.append(found)
    assert not torch.allclose(seen[0], seen[-1], atol=1e-3)  # the plans do differ
    assert torch.equal(tiny_logits(model, inputs), live)


@pytest.mark.parametrize("share", [True, False])
def test_the_routed_model_is_left_alone(share, tiny_routed, tiny_inputs, tiny_logits):
    model, inputs = tiny_routed(), tiny_inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [id(m) for m in model.modules()]
    logits = tiny_logits(model, inputs)
    pruned = prune(model, make_plan(USAGE, per_layer=2), share_weights=share)
    assert layer_kinds(model) == ["dense", "routed", "routed"]
    assert layer_kinds(pruned) == ["dense", "static", "static"]
    assert [id(m) for m in model.modules()] == modules
    with torch.no_grad():
        for layer in encoder_layers(pruned)[1:]:
            for parameter in layer.parameters():
                parameter.fill_(7.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(tiny_logits(model, inputs), logits)


def test_sharing_shares_what_is_not_converted_and_copying_shares_nothing(tiny_routed):
    model, plan = tiny_routed(), make_plan(USAGE, per_layer=2)
    own = {id(p) for p in model.parameters()}
    shared = prune(model, plan, share_weights=True)
    inside = {id(p) for layer in encoder_layers(shared)[1:] for p in layer.parameters()}
    assert inside.isdisjoint(own)
    assert {id(p) for p in shared.parameters()} - inside < own
    assert shared.base_model.embeddings is model.base_model.embeddings
    copied = {p.data_ptr() for p in prune(model, plan).parameters()}
    assert copied.isdisjoint({p.data_ptr() for p in model.parameters()})
