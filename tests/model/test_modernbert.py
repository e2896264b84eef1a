"""What ModernBERT has alone: pre-norm layers, rotary positions in two bases, local attention, a gated network."""

import numpy as np
import pytest
import torch

from shrp.errors import ShrpError, UnsupportedModelError
from shrp.evaluation.costs import cost, counted_params
from shrp.evaluation.evaluate import evaluate
from shrp.families.families import encoder_layers, family_of, relative_positions
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, convert_layer, fit_expander
from shrp.model.partial import run_from
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.conftest import counted_flops

USAGE = {1: np.array([0.1, 0.6, 0.0, 0.3]), 2: np.array([0.2, 0.15, 0.4, 0.25])}


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_converted_layer_adds_to_its_input(layer, tiny_model, tiny_inputs):
    """Layer 0 has no norm of its own, layer 1 is local, and layer 2 global."""
    model, inputs = tiny_model("modernbert"), tiny_inputs()
    dense, real = encoder_layers(model)[layer], inputs["attention_mask"].bool()
    heads = []
    dense.attn.Wo.register_forward_pre_hook(lambda _, args: heads.append(args[0]))
    entering = run_from(model, inputs, watch=[layer])[1][layer]
    expert = convert_layer(model, layer, ShrpConfig((layer,))).eval()
    relative = relative_positions(model, entering.shape[1], layer)
    kind = (2, "sliding_attention") if layer == 1 else (None, "full_attention")
    assert (relative.window, expert.attention_type) == kind
    with torch.no_grad():
        outputs = expert.expert_outputs(entering, real, relative)
        mine = outputs.transpose(1, 2).flatten(2)
        torch.testing.assert_close(mine[real], heads[0][real], atol=1e-5, rtol=1e-5)
        chosen = expert.route(entering, real).argmax(-1)
        update = expert.expander(outputs[torch.arange(len(chosen)), chosen])
        angles = (relative.cos, relative.sin)
        found = expert(entering, real, position_embeddings=angles)
    torch.testing.assert_close(found[real], (entering + update)[real], atol=1e-5, rtol=1e-5)
    # The start: almost a dropped layer, which returns its input.
    assert (found - entering)[real].square().mean().sqrt() < 0.11


def test_an_expander_starts_from_the_dense_layers_update(tiny_model, tiny_inputs):
    model, inputs = tiny_model("modernbert"), tiny_inputs((9,) * 40)
    dense, asked = encoder_layers(model)[1], {}
    dense.register_forward_hook(lambda _, args, kwargs, out: asked.update(kwargs, y=out), with_kwargs=True)
    entering = run_from(model, inputs, watch=[1])[1][1]
    wanted, expert = asked.pop("y"), convert_layer(model, 1, ShrpConfig((1,))).eval()
    fit_expander(model, 1, dense, [(inputs, None)])
    with torch.no_grad():
        found = expert(entering, **asked)
    assert (found - wanted).square().mean() < 0.95 * (entering - wanted).square().mean()


def test_live_evaluation_of_a_head_that_reads_all_tokens(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed("modernbert", classifier_pooling="mean"), tiny_data(80)
    live = LiveEvaluator(model, tiny_tokenizer, data)
    for budget in (2, 5):
        plan = make_plan(USAGE, budget=budget)
        rebuilt = evaluate(prune(model, plan), tiny_tokenizer, data)
        np.testing.assert_allclose(live.evaluate(plan).logits, rebuilt.logits, atol=1e-4)


def test_costs_and_conversion_with_biases(tiny_model):
    model = tiny_model("modernbert", attention_bias=True, mlp_bias=True, norm_bias=True)
    bias = encoder_layers(model)[1].attn.Wqkv.bias.clone()
    static = prune(convert(model, ShrpConfig((0, 1))), make_plan({0: USAGE[1], 1: USAGE[2]}, budget=3))
    for one in (tiny_model("modernbert", attention_bias=True, mlp_bias=True, norm_bias=True), static):
        assert cost(one, 9).model_params == counted_params(one)
        assert cost(one, 9).model_flops == counted_flops(one.eval(), 9)
    copied = encoder_layers(model)[1].qkv_bias.view(4, 3, 6)  # (H, 3, dh)
    assert torch.equal(copied.transpose(0, 1).flatten(), bias)


def test_a_layer_without_its_encoders_angles_is_refused(tiny_routed):
    with pytest.raises(ShrpError, match="position_embeddings"):
        encoder_layers(tiny_routed("modernbert"))[1](torch.zeros(1, 3, 24))


def test_albert_is_refused_with_the_reason(tiny_model):
    model = tiny_model("bert")
    model.config.model_type = "albert"
    with pytest.raises(UnsupportedModelError, match="share one set of weights"):
        family_of(model)
