"""The control whose layers stay dense: pruned of heads and neurons, by what these add, to the size of SHRP's layers."""

import copy

import pytest
import torch

from shrp import narrow
from shrp.config import ShrpConfig
from shrp.convert import convert, convert_layer, layer_kinds, new_parameters
from shrp.errors import ShrpError
from shrp.families import encoder_layers, family_of
from shrp.measure import dense_layer_params, static_layer_params


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
    torch.testing.assert_close(again[2], states[2], atol=1e-5, rtol=1e-5)


def test_what_is_left_is_told_apart_by_what_it_adds(tiny_model, tiny_inputs, tiny_logits):
    model, inputs = tiny_model(), tiny_inputs()
    with torch.no_grad():
        part(model, "attention_out").weight[:, :6] *= 50  # head 0's
        part(model, "down").weight[:, 7] *= 100
    layer = narrowed(model, inputs, experts=1)
    assert (layer.heads, layer.neurons) == ((0,), 1)
    own = 0.01 * layer.rest.down.weight[:, 0]
    torch.testing.assert_close(own, tiny_model().bert.encoder.layer[1].output.dense.weight[:, 7])


def test_the_others_stay_in_the_biases_as_they_are_on_average(tiny_model, tiny_inputs, tiny_logits):
    """Neurons that say the same of every token can be pruned for nothing."""
    model, inputs = tiny_model(), tiny_inputs()
    up, down = part(model, "up"), part(model, "down")
    _, neurons = narrow.size_like(24, 6, 4)
    with torch.no_grad():
        up.weight[neurons:] = 0  # constant, and not nothing, by their biases
        down.weight[:, :neurons] *= 20
    idle(model, (1, 3), [])
    before = tiny_logits(model, inputs)
    layer = narrowed(model, inputs, experts=4)
    assert layer.heads == (0, 2)
    torch.testing.assert_close(tiny_logits(model, inputs), before, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        layer.rest.down.bias.copy_(down.bias)
    assert (tiny_logits(model, inputs) - before).abs().max() > 1e-3


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
        mine = narrow.layer_params(d, d // heads, kept, neurons)
        static = static_layer_params(d, d // heads, experts)
        one = 2 * d + 1
        if experts > 1:
            assert static - one < mine <= static
        else:
            assert (kept, neurons, mine - static) == (1, 1, 3 * d + 1)
    assert narrow.layer_params(d, d // heads, heads, 4 * d) == dense_layer_params(d, 4 * d)


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
