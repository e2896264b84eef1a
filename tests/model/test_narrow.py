"""The control whose layers stay dense: pruned of heads and neurons that change little of what is added."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.errors import CheckpointError, ShrpError
from shrp.families.families import encoder_layers, family_of
from shrp.model import narrow
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, convert_layer, layer_kinds, new_parameters
from shrp.model.sizes import dense_layer_params, narrow_layer_params, static_layer_params


def narrowed(model, inputs, experts=2, layer=1):
    config = ShrpConfig((layer,), control="narrow", narrow_to=experts)
    return convert_layer(model, layer, config, [inputs])


def part(model, name, layer=1):
    return encoder_layers(model)[layer].get_submodule(getattr(family_of(model), name))


def idle(model, heads, neurons):
    """Have some heads and neurons of layer 1 add nothing."""
    out, down = part(model, "attention_out"), part(model, "down")
    size = out.in_features // model.config.num_attention_heads
    with torch.no_grad():
        for head in heads:
            out.weight[:, head * size : (head + 1) * size] = 0
        down.weight[:, neurons] = 0


def test_what_adds_nothing_goes_first_and_is_not_missed(tiny_family, tiny_model, tiny_inputs, tiny_logits):
    model, inputs = tiny_model(tiny_family), tiny_inputs()
    heads, neurons = narrow.size_like(model.config.hidden_size, model.config.hidden_size // 4, 2)
    assert heads == 1
    stay = torch.randperm(part(model, "up").out_features)[:neurons].sort().values
    idle(model, (0, 1, 3), [i for i in range(part(model, "up").out_features) if i not in stay])
    before, states = tiny_logits(model, inputs), model(**inputs, output_hidden_states=True).hidden_states
    up = part(model, "up").weight[stay].clone()
    layer = narrowed(model, inputs)
    assert layer.heads == (2,)
    assert torch.equal(layer.rest.up.weight, up)
    torch.testing.assert_close(tiny_logits(model, inputs), before, atol=1e-5, rtol=1e-5)
    again = model(**inputs, output_hidden_states=True).hidden_states
    assert len(again) == len(states) == 4
    real = inputs["attention_mask"].bool()  # padding may attend to other things than it did
    torch.testing.assert_close(again[2][real], states[2][real], atol=1e-5, rtol=1e-5)


def test_kept_is_what_changes_and_not_what_is_large(tiny_model, tiny_inputs):
    """By weights alone head 3 and neuron 9 would be first, by the size of what they add head 1 and neuron 8."""
    model, inputs = tiny_model(), tiny_inputs()
    out, value, up, down = (part(model, name) for name in ("attention_out", "value", "up", "down"))
    with torch.no_grad():
        value.weight[18:] = value.bias[18:] = up.weight[9] = up.bias[9] = 0  # head 3 and neuron 9 say nothing
        out.weight[:, 18:] *= 1000
        down.weight[:, 9] *= 1000
        value.weight[6:12], value.bias[6:12] = 0, 100  # head 1 and neuron 8 the same of every token
        up.weight[8], up.bias[8] = 0, 100
        out.weight[:, 12:18] *= 20  # head 2 and neuron 7 are left
        down.weight[:, 7] *= 50
    weight = down.weight[:, 7].clone()
    layer = narrowed(model, inputs, experts=1)
    assert (layer.heads, layer.neurons) == ((2,), 1)
    assert torch.equal(layer.rest.down.weight[:, 0], weight)


def test_the_others_stay_in_the_biases_as_they_are_on_average(tiny_model, tiny_inputs, tiny_logits):
    """Heads and neurons that say the same of every token can be pruned for nothing."""
    model, inputs = tiny_model(), tiny_inputs()
    value, up, out, down = (part(model, name) for name in ("value", "up", "attention_out", "down"))
    _, neurons = narrow.size_like(24, 6, 4)
    with torch.no_grad():
        value.weight[6:12] = value.weight[18:] = (
            0  # heads 1 and 3: constant, and not nothing, by their biases
        )
        up.weight[neurons:] = 0
    before = tiny_logits(model, inputs)
    layer = narrowed(model, inputs, experts=4)
    assert layer.heads == (0, 2)
    torch.testing.assert_close(tiny_logits(model, inputs), before, atol=1e-4, rtol=1e-4)
    for of_rest, whole in ((layer.rest.out, out), (layer.rest.down, down)):
        kept = of_rest.bias.clone()
        with torch.no_grad():
            of_rest.bias.copy_(whole.bias)
        assert (tiny_logits(model, inputs) - before).abs().max() > 1e-3
        with torch.no_grad():
            of_rest.bias.copy_(kept)


def test_a_feed_forward_network_that_takes_tokens_in_chunks_is_measured_whole(tiny_model, tiny_inputs):
    made = []
    for chunk in (0, 3):
        model = tiny_model(chunk_size_feed_forward=chunk)
        made.append(narrowed(model, tiny_inputs()).state_dict())
    for name, value in made[0].items():
        torch.testing.assert_close(value, made[1][name], msg=name)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_it_drops_out_where_a_dense_layer_does(family, tiny_model, tiny_inputs, monkeypatch):
    model, inputs = tiny_model(family, dropout=0.5), tiny_inputs()
    dense, dropped = encoder_layers(model)[1], []
    dropout = torch.nn.functional.dropout
    watched = lambda x, p, training, *rest: (dropped.append(p), dropout(x, p, training, *rest))[1]  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "dropout", watched)
    model.train()(**inputs)
    of_dense = len(dropped)
    layer = narrowed(model, inputs)
    dropped.clear()
    model.train()(**inputs)
    assert len(dropped) == of_dense
    assert dense.training
    state, mask = torch.randn(2, 5, 24), torch.ones(2, 5)
    assert not torch.equal(layer.train()(state, mask), layer(state, mask))
    layer.attention_dropout = 0.0
    assert not torch.equal(layer(state, mask), layer(state, mask))
    layer.dropout = 0.0
    assert torch.equal(layer(state, mask), layer(state, mask))
    layer.attention_dropout = 0.5
    assert not torch.equal(layer(state, mask), layer(state, mask))
    assert torch.equal(layer.eval()(state, mask), layer(state, mask))


@pytest.mark.parametrize("kept", [[10**9], [-1], [1.0], [True], [4]])
def test_a_checkpoint_whose_heads_are_none_of_the_layers_is_refused(
    tmp_path, tiny_routed, tiny_info, tiny_tokenizer, kept
):
    folder = checkpoint.save(
        tiny_routed(control="narrow"), tiny_tokenizer, tiny_info(control="narrow"), tmp_path / "made"
    )
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("1.kept_heads"))
    save_file(state | {name: torch.tensor(kept)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit its config.json: .*kept"):
        checkpoint.load(folder)


def test_a_model_is_saved_as_the_control_that_it_is(tmp_path, tiny_routed, tiny_info, tiny_tokenizer):
    model = tiny_routed(control="narrow")
    with pytest.raises(CheckpointError, match="narrow layers, and by its info its control is 'none'"):
        checkpoint.save(model, tiny_tokenizer, tiny_info(), tmp_path / "made")
    plan = {"selection": "usage", "layers": {}}
    told = tiny_info(control="narrow").to_dict() | {"plan": plan}
    with pytest.raises(CheckpointError, match="layers of the control narrow have none"):
        CheckpointInfo.from_dict(told)


def test_padding_says_nothing_about_which_are_kept(tiny_model, tiny_inputs):
    batches = [tiny_inputs((3, 3)), tiny_inputs((9,), seed=1)]
    padded = [
        {name: torch.nn.functional.pad(value, (0, 12)) for name, value in batch.items()} for batch in batches
    ]
    config, made = ShrpConfig((1,), control="narrow", narrow_to=2), []
    for given in (batches, padded):
        model = convert(tiny_model(), config, given)
        made.append(encoder_layers(model)[1].state_dict())
    for name, value in made[0].items():
        torch.testing.assert_close(value, made[1][name], msg=name)


@pytest.mark.parametrize(("d", "heads"), [(384, 12), (768, 12), (32, 4)])
def test_it_is_no_larger_than_what_it_stands_beside_and_hardly_smaller(d, heads):
    for experts in range(1, heads + 1):
        kept, neurons = narrow.size_like(d, d // heads, experts)
        mine = narrow_layer_params(d, d // heads, kept, neurons)
        static = static_layer_params(d, d // heads, experts)
        one = 2 * d + 1
        if experts > 1:
            assert static - one < mine <= static
        else:
            assert (kept, neurons, mine - static) == (1, 1, 3 * d + 1)
    assert narrow_layer_params(d, d // heads, heads, 4 * d) == dense_layer_params(d, 4 * d)


def test_its_rates_are_those_of_what_it_stands_beside(tiny_model, tiny_inputs):
    """What takes the Expander's place learns as fast as an Expander does."""
    model = tiny_model()
    layer = narrowed(model, tiny_inputs())
    new = new_parameters(model)
    assert {name.rpartition(".rest.")[2] for name in new} == set(layer.rest.state_dict())


def test_where_there_is_nothing_to_prune_it_says_so(tiny_model, tiny_inputs):
    model, inputs = tiny_model(), tiny_inputs()
    for experts in (0, 5):
        with pytest.raises(ShrpError, match="narrow_to must be 1"):
            narrowed(model, inputs, experts)
    with pytest.raises(ShrpError, match="narrow_to must be 1 or more where control is narrow, else 0"):
        ShrpConfig((1,), narrow_to=2)
    with pytest.raises(ShrpError, match="at least one input"):
        convert_layer(model, 1, ShrpConfig((1,), control="narrow", narrow_to=2))
    assert layer_kinds(model) == ["dense"] * 3
    small = copy.deepcopy(model)
    small.config.intermediate_size = 2
    with pytest.raises(ShrpError, match="2 feed-forward neurons is smaller than one of 4 experts"):
        narrowed(small, inputs, 4)
    narrowed(model, inputs)
    with pytest.raises(ShrpError, match="layer 1 is converted already"):
        narrowed(model, inputs)


def test_a_config_tells_of_it_only_where_it_is_one():
    assert "narrow_to" not in ShrpConfig((1,)).to_dict()
    config = ShrpConfig((1,), control="narrow", narrow_to=3)
    assert ShrpConfig(**config.to_dict()) == config
