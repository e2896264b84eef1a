"""MPNet, whose encoder passes its layers a shared position bias and expects tuples back."""

import pytest
import torch

from shrp.families.families import encoder_layers
from shrp.model.gates import force_experts, use_gates
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

H = 4


@pytest.fixture
def routed(tiny_routed):
    return tiny_routed("mpnet")


def test_the_bias_of_a_head_changes_the_output_of_its_expert_alone(routed, tiny_inputs, tiny_logits):
    def forced(model, expert):
        with use_gates(force_experts({1: expert, 2: expert}, H)):
            return tiny_logits(model, inputs)

    inputs = tiny_inputs()
    layers = encoder_layers(routed)
    layers[0] = torch.nn.Identity()  # only converted layers may feel the change
    layers[0].forward = lambda hidden_states, *_, **__: (hidden_states,)
    static = prune(routed, make_plan({1: [0.4, 0.3, 0.2, 0.1], 2: [0.1, 0.2, 0.3, 0.4]}, per_layer=1))
    before = [forced(routed, expert) for expert in range(H)]
    kept = tiny_logits(static, inputs)
    with torch.no_grad():
        static.base_model.encoder.relative_attention_bias.weight[:, 1] += torch.randn(32)
        routed.base_model.encoder.relative_attention_bias.weight[:, 1] += torch.randn(32)
    for expert in range(H):
        assert torch.equal(forced(routed, expert), before[expert]) == (expert != 1)
    assert torch.equal(tiny_logits(static, inputs), kept)  # it keeps experts 0 and 3


@pytest.mark.parametrize("kind", ["routed", "static"])
def test_the_bias_is_trained_through_converted_layers_in_bfloat16_too(kind, routed, tiny_inputs):
    model = routed
    if kind == "static":
        model = prune(model, make_plan({1: [0.4, 0.3, 0.2, 0.1], 2: [0.1, 0.2, 0.3, 0.4]}, per_layer=2))
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**tiny_inputs()).logits.float().square().mean()
    loss.backward()
    assert model.base_model.encoder.relative_attention_bias.weight.grad.abs().sum() > 0
