"""MPNet, whose encoder calls its layers otherwise: the shared position bias reaches every stand-in, and only tuples
go back."""

import pytest
import torch

from shrp.analysis.attention import layer_attention
from shrp.analysis.usage import measure_usage
from shrp.data.batching import collate, encode
from shrp.errors import ShrpError, UnsupportedModelError
from shrp.families.families import encoder_layers, relative_positions
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, expert_layers
from shrp.model.gates import force_experts, record_routing, use_gates
from shrp.model.partial import run_layers
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

H = 4


@pytest.fixture
def routed(tiny_routed):
    return tiny_routed("mpnet")


def test_the_bias_of_some_heads_changes_what_those_experts_say_and_no_others(
    routed, tiny_inputs, tiny_logits
):
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


def test_attention_maps_are_the_dense_heads(tiny_model, tiny_tokenizer):
    model, text = tiny_model("mpnet"), ("w1 w2 w3 w1 w5",)
    batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0])
    with torch.no_grad():
        heads = model(**batch, output_attentions=True).attentions[1][0]
    convert(model, ShrpConfig((1,)))
    shown = layer_attention(model, tiny_tokenizer, text, 1)
    torch.testing.assert_close(torch.from_numpy(shown.weights), heads, atol=1e-6, rtol=1e-5)


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


def test_usage_is_counted_and_layers_run_in_parts(routed, tiny_tokenizer, tiny_data, tiny_inputs):
    data = tiny_data()
    encoded = encode(tiny_tokenizer, data.texts)
    top1 = {layer: torch.zeros(len(data), H, dtype=torch.int64) for layer in (1, 2)}
    for i in range(len(data)):
        with torch.no_grad(), record_routing() as record:
            routed(**collate(tiny_tokenizer, encoded, [i]))
        for layer, counts in top1.items():
            counts[i, record.probs(layer)[0].argmax()] = 1
    stats = measure_usage(routed, tiny_tokenizer, data)
    for layer, counts in top1.items():
        assert stats.top1[layer].tolist() == counts.tolist()
        assert stats.share(layer) == pytest.approx(counts.double().mean(0).numpy())
        assert (counts.sum(0) > 0).sum() > 1  # otherwise this would show little
    inputs = tiny_inputs()
    with torch.no_grad():
        whole = routed(**inputs, output_hidden_states=True).hidden_states[2]
        middle = run_layers(routed, inputs, 0, 1)
        torch.testing.assert_close(run_layers(routed, inputs, 1, 2, middle), whole)


def test_what_converted_layers_cannot_do_is_said(routed, tiny_inputs):
    with pytest.raises(UnsupportedModelError, match="layer_attention"):
        routed(**tiny_inputs(), output_attentions=True)
    layer, hidden = expert_layers(routed)[1], torch.zeros(1, 3, 24)
    with pytest.raises(ShrpError, match="position bias"):
        layer(hidden)


def test_other_families_have_no_bias(tiny_routed):
    assert relative_positions(tiny_routed("bert"), 5) is None
