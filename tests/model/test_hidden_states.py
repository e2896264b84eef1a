"""`output_hidden_states`, as probing code asks for it: every layer is among them, whatever replaced some."""

import copy

import pytest
import torch

from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.model.gates import record_routing
from shrp.model.partial import run_from, run_layers
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training.losses import as_returned

LAYERS = 3


def asked(model, inputs):
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def assert_whole(model, inputs, replaced):
    """As many states as layers and one, those of replaced layers being what these return."""
    with record_routing(hidden_states=True) as record:
        found = asked(model, inputs)
    states = found.hidden_states
    assert len(states) == LAYERS + 1
    assert set(record.hidden_states) == set(replaced)
    with torch.no_grad():
        for layer, output in as_returned(model, record.hidden_states).items():
            torch.testing.assert_close(states[layer + 1], output, rtol=0, atol=0)
        torch.testing.assert_close(states[-1], model.base_model(**inputs).last_hidden_state)
    seen = []
    handle = encoder_layers(model)[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    asked(model, inputs)
    handle.remove()
    torch.testing.assert_close(states[0], seen[0], rtol=0, atol=0)
    copied = asked(copy.deepcopy(model), inputs).hidden_states
    assert all(torch.equal(*pair) for pair in zip(copied, states, strict=True))


@pytest.mark.parametrize("layers", [(1, 2), (0,)])
def test_every_layer_is_among_them(tiny_family, tiny_routed, tiny_inputs, layers):
    routed, inputs = tiny_routed(tiny_family, layers=layers), tiny_inputs()
    assert_whole(routed, inputs, layers)
    usage = {layer: [0.4, 0.3, 0.2, 0.1] for layer in layers}
    assert_whole(prune(routed, make_plan(usage, per_layer=2)), inputs, layers)


def test_a_model_that_was_asked_before_its_conversion(tiny_model, tiny_inputs):
    """Transformers hooks its layers at the first time and never again; a copy of a teacher has been asked then."""
    model, inputs = tiny_model("bert").eval(), tiny_inputs()
    before = asked(model, inputs).hidden_states
    convert(model, ShrpConfig((2,)))
    assert_whole(model.eval(), inputs, (2,))
    again = asked(model, inputs).hidden_states
    assert all(torch.equal(*pair) for pair in zip(again[:3], before[:3], strict=True))


def test_models_that_share_layers_have_each_state_once(tiny_routed, tiny_inputs):
    routed, inputs = tiny_routed(layers=(1, 2)), tiny_inputs()
    pruned = prune(routed, make_plan({1: [1.0, 0, 0, 0], 2: [1.0, 0, 0, 0]}, per_layer=1), share_weights=True)
    assert_whole(pruned, inputs, (1, 2))
    assert_whole(routed, inputs, (1, 2))
    assert_whole(pruned, inputs, (1, 2))


def test_passes_in_part_leave_no_hooks(tiny_family, tiny_model, tiny_inputs):
    """Of a model, too, whose config asks for all states."""
    model, inputs = tiny_model(tiny_family), tiny_inputs()
    model.config.output_hidden_states = True
    for _ in range(3):
        entering = run_layers(model, inputs, 0, 1)
        run_from(model, inputs, 1, entering)
    assert not any(layer._forward_hooks for layer in encoder_layers(model))
    assert len(asked(model, inputs).hidden_states) == LAYERS + 1
