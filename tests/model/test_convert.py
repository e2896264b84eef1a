"""Dense layers become expert layers: what is copied, what is new, what is refused."""

import pytest
import torch
from transformers import AutoConfig, GPT2Config, GPT2Model

from shrp.errors import ShrpError, UnsupportedModelError
from shrp.families.families import FAMILIES, encoder_layers, family_of, relative_positions
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, convert_layer, expert_layers, layer_kinds

D, H, DH = 24, 4, 6


def test_experts_are_the_dense_heads(tiny_family, tiny_attention, tiny_model, tiny_inputs, tiny_logits):
    """An expert's output equals the dense layer's own attention output for that head, before `W_o`."""
    model = tiny_model(tiny_family, attn=tiny_attention)
    family, dense = family_of(model), encoder_layers(model)[1]
    value = {}
    dense.get_submodule(family.attention_out).register_forward_pre_hook(lambda _, a: value.update(heads=a[0]))
    seen = {}
    dense.register_forward_pre_hook(lambda _, args, kwargs: seen.update(args=args, asked=kwargs), with_kwargs=True)
    inputs = tiny_inputs((6, 4, 6))
    tiny_logits(model, inputs)
    expert = convert_layer(model, 1, ShrpConfig((1,)))
    real, hidden = inputs["attention_mask"].bool(), seen["asked"].get("hidden_states", *seen["args"][:1])
    with torch.no_grad():
        relative = relative_positions(model, 6, 1)
        outputs = expert.expert_outputs(hidden, real, relative)  # (B, H, T, dh)
    heads = value["heads"].view(3, 6, H, DH).transpose(1, 2)
    for h in range(H):
        torch.testing.assert_close(outputs[:, h][real], heads[:, h][real], atol=1e-5, rtol=1e-5)
        rows = slice(h * DH, (h + 1) * DH)
        weights, biases = (part.chunk(3) for part in family.qkv(dense))
        assert torch.equal(expert.qkv_weight[h], torch.cat([weight[rows] for weight in weights]))
        assert torch.equal(expert.qkv_bias[h], torch.cat([bias[rows] for bias in biases]))
    assert (outputs[:, 0] - outputs[:, 1]).abs().max() > 1e-2
    if relative is not None:  # and what the encoder hands its layers does the same
        handed = expert.family.relative(seen["args"][2:], seen["asked"])
        with torch.no_grad():
            assert torch.equal(expert.expert_outputs(hidden, real, handed), outputs)
            without = expert.expert_outputs(hidden, real)
        assert (outputs - without).abs().max() > 1e-2


def test_the_norm_starts_from_the_dense_layers(tiny_family, tiny_model):
    """From its last one; in pre-norm families from the one before attention."""
    model = tiny_model(tiny_family)
    last = encoder_layers(model)[2].get_submodule(family_of(model).norm)
    expert = convert_layer(model, 2, ShrpConfig((2,), expander_gain=0.3))
    assert torch.equal(expert.norm.weight, last.weight)
    assert last.bias is expert.norm.bias is None or torch.equal(expert.norm.bias, last.bias)
    assert expert.norm.weight is not last.weight
    assert expert.norm.eps == last.eps
    assert torch.equal(expert.expander.norm.weight, torch.full((D,), 0.3))
    by_default = convert_layer(model, 1, ShrpConfig((1,)))  # small, or the residual stream breaks
    assert torch.equal(by_default.expander.norm.weight, torch.full((D,), 0.1))


def test_conversion_is_in_place_and_leaves_the_rest(tiny_family, tiny_model, tiny_inputs, tiny_logits):
    model = tiny_model(tiny_family)
    layers = encoder_layers(model)
    stay = list(layers[:2])
    others = [p.clone() for layer in stay for p in layer.parameters()]
    before = tiny_logits(model, tiny_inputs())
    assert convert(model, ShrpConfig((2,), expander_gain=1.0)) is model
    assert all(one is other for one, other in zip(encoder_layers(model), stay))
    assert layer_kinds(model) == ["dense", "dense", "routed"]
    assert list(expert_layers(model)) == [2]
    assert all(map(torch.equal, (p for layer in stay for p in layer.parameters()), others))
    after = tiny_logits(model, tiny_inputs())
    assert after.shape == before.shape
    assert not torch.allclose(after, before, atol=1e-3)


def test_unsupported_families_are_named():
    model = GPT2Model(GPT2Config(n_embd=24, n_layer=1, n_head=4, vocab_size=10, n_positions=8))
    with pytest.raises(UnsupportedModelError) as raised:
        convert_layer(model, 0, ShrpConfig((0,)))
    assert "'gpt2'" in str(raised.value)
    for name in FAMILIES:
        assert name in str(raised.value)


@pytest.mark.parametrize("flag", ["is_decoder", "add_cross_attention"])
def test_decoders_are_refused(flag):
    config = AutoConfig.for_model("bert", **{flag: True})
    with pytest.raises(UnsupportedModelError):
        family_of(config)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layers": (1, 1)}, "names a layer twice"),
        ({"layers": (-1, 1)}, "must be 0 or more"),
        ({"layers": (1,), "routing": "random"}, '"sequence" or "token"'),
        ({"layers": (1,), "top_k": 0}, "top_k must be 1 or more"),
    ],
)
def test_configs_that_are_refused(fields, words):
    with pytest.raises(ShrpError, match=words):
        ShrpConfig(**fields)


@pytest.mark.parametrize("config", [ShrpConfig((1, 3)), ShrpConfig((1,), top_k=5), ShrpConfig((2,))])
def test_conversions_that_do_not_fit_leave_the_model_as_it_was(config, tiny_model):
    model = convert(tiny_model(), ShrpConfig((2,)))
    before = list(encoder_layers(model))
    with pytest.raises(ShrpError):
        convert(model, config)
    assert all(one is other for one, other in zip(encoder_layers(model), before, strict=True))


def test_config_round_trip_and_order():
    config = ShrpConfig((5, 2), "token", 2, 0.5)
    assert config.layers == (2, 5)
    assert ShrpConfig.from_dict(config.to_dict()) == config
    older = config.to_dict() | {"control": "none"}
    assert ShrpConfig.from_dict(older) == config
    assert hash(ShrpConfig((2, 5))) == hash(ShrpConfig((5, 2)))
