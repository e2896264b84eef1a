"""MPNet, whose encoder passes its layers a shared position bias."""

import pytest
import torch

from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune


@pytest.mark.parametrize("kind", ["routed", "static"])
def test_the_bias_is_trained_through_converted_layers_in_bfloat16_too(kind, tiny_routed, tiny_inputs):
    model = tiny_routed("mpnet")
    if kind == "static":
        model = prune(model, make_plan({1: [0.4, 0.3, 0.2, 0.1], 2: [0.1, 0.2, 0.3, 0.4]}, per_layer=2))
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**tiny_inputs()).logits.float().square().mean()
    loss.backward()
    assert model.base_model.encoder.relative_attention_bias.weight.grad.abs().sum() > 0
