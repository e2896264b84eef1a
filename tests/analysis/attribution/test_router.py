import copy

import numpy as np
import pytest
import torch

from shrp.analysis.attribution import instance, tokens, trust
from shrp.data.batching import collate, encode
from shrp.errors import DataError
from shrp.model.convert import router_layers
from shrp.model.gates import record_routing, use_gates
from tests.analysis.attribution.helpers import TEXT


def own_odds(model, tokenizer, layer, first, second, text=TEXT):
    with torch.no_grad(), record_routing() as record:
        model(**collate(tokenizer, encode(tokenizer, [text]), [0]))
    logs = record.last(layer).probs[0].log()
    return float((logs[..., first] - logs[..., second]).mean())


def test_a_routers_preference_is_its_log_odds(made, tiny_routed, tiny_tokenizer, tiny_family):
    model = tiny_routed(tiny_family)
    layer = sorted(router_layers(model))[-1]
    text = (TEXT[0].replace(",", ""),)
    one = instance.prefer(made(model, text), layer, 2, 0)
    with torch.no_grad():
        odds = one.outputs(one.embeddings.repeat(3, 1, 1))
    assert odds.shape == (3, 1)
    np.testing.assert_allclose(odds, own_odds(model, tiny_tokenizer, layer, 2, 0, text), atol=1e-5)


def test_under_token_routing_a_preference_is_the_mean_over_tokens(made, token_routed, tiny_tokenizer):
    one = instance.prefer(made(token_routed), 2, 1, 3)
    with torch.no_grad():
        alone = float(one.outputs(one.embeddings))
        padded = torch.cat([one.embeddings, torch.randn(1, 4, one.embeddings.shape[-1])], 1)
        longer = {
            name: torch.cat([values, torch.zeros(1, 4, dtype=values.dtype)], 1)
            for name, values in one.inputs.items()
            if name != "input_ids"
        }
        beside_padding = float(one.outputs(padded, **longer))
    assert alone == pytest.approx(own_odds(token_routed, tiny_tokenizer, 2, 1, 3), abs=1e-5)
    assert beside_padding == pytest.approx(alone, abs=1e-5)


def test_the_words_add_up_to_a_preference(made, routed):
    one = instance.prefer(made(routed), 2, 3, 1)
    found = tokens.integrated_gradients(one, 0, steps=200)
    with torch.no_grad(), use_gates(one.route()):
        full, reference = (float(one.outputs(x)) for x in (one.embeddings, one.baseline()))
    assert found.full == pytest.approx(full, abs=1e-4)
    assert found.total == pytest.approx(full - reference, abs=2e-3)
    assert abs(found.total) > 0.1
    back = tokens.integrated_gradients(instance.prefer(made(routed), 2, 1, 3), 0, steps=200)
    np.testing.assert_allclose(found.scores, -back.scores, atol=1e-5)


def test_what_a_word_adds_to_a_preference_is_what_its_loss_takes(made, routed, tiny_tokenizer):
    one = instance.prefer(made(routed), 2, 3, 1)
    found = tokens.ablate_words(one, 0, replacement="remove")
    without = ("w1 w20 w33, w4 w50",)  # the last word is gone
    expected = own_odds(routed, tiny_tokenizer, 2, 3, 1) - own_odds(routed, tiny_tokenizer, 2, 3, 1, without)
    assert found.words[-1].text == "w17"
    assert found.scores[-1] == pytest.approx(expected, abs=1e-5)
    assert found.rerouted.max() <= 3


def test_what_lies_above_a_router_is_not_run(made, routed):
    one = instance.prefer(made(routed), 0, 1, 2)
    with torch.no_grad(), record_routing() as record:
        one.outputs(one.embeddings)
    assert record.layers == [0]
    assert sorted(router_layers(routed)) == [0, 1, 2]


def test_a_saturated_router_has_a_finite_preference(made, tiny_routed):
    model = copy.deepcopy(tiny_routed("bert", layers=(1,)))
    for parameter in router_layers(model)[1].router.parameters():
        parameter.data *= 1e6
    with torch.no_grad(), record_routing() as record:
        model(**made(model).inputs)
    probs = record.last(1).probs[0]
    sure, never = int(probs.argmax()), int(probs.argmin())
    assert probs[never] == 0
    one = instance.prefer(made(model), 1, sure, never)
    floor = -float(np.log(np.finfo(np.float32).tiny))
    found = tokens.ablate_words(one, 0)
    assert found.full == pytest.approx(floor, rel=1e-4)
    assert np.isfinite(found.scores).all()
    assert np.isfinite(tokens.input_x_gradient(one, 0).scores).all()


@pytest.mark.parametrize(
    ("layer", "expert", "other", "what"),
    [
        (1, 0, 1, r"routed layers are \[0, 2\]"),
        (0, 2, 2, "two different"),
        (0, 0, 4, "0 to 3"),
        (0, -1, 1, "0 to 3"),
    ],
)
def test_a_preference_of_no_router_or_no_experts_is_refused(made, tiny_routed, layer, expert, other, what):
    with pytest.raises(DataError, match=what):
        instance.prefer(made(tiny_routed("bert", layers=(0, 2))), layer, expert, other)


def test_a_preference_can_be_checked_for_trust(made, routed):
    one = instance.prefer(made(routed), 1, 0, 2)
    found = [tokens.ablate_words(one, 0)]
    real, _, shuffled = trust.check(one, found, 0)
    assert real.method == tokens.METHODS[2]
    assert real.infidelity < shuffled.infidelity


@pytest.mark.parametrize("replacement", tokens.REPLACEMENTS)
def test_the_route_without_a_word_is_that_of_the_text_without_it(made, routed, tiny_tokenizer, replacement):
    one = made(routed)
    found = tokens.routes_without(one, replacement)
    assert found.layers == (0, 1, 2)

    def routes(inputs):
        with torch.no_grad(), record_routing() as record:
            routed(**inputs)
        return [int(record.last(layer).gates.argmax()) for layer in found.layers]

    assert found.own.tolist() == routes(one.inputs)
    changed = tokens.ablate_words(one, 0, replacement=replacement)
    np.testing.assert_array_equal((found.without != found.own[:, None]).sum(0), changed.rerouted)
    if replacement == "remove":
        without_the_last = encode(tiny_tokenizer, [("w1 w20 w33, w4 w50",)])
        assert found.without[:, -1].tolist() == routes(collate(tiny_tokenizer, without_the_last, [0]))


def test_of_several_experts_the_one_with_the_largest_gate_is_taken(made, tiny_routed):
    model = tiny_routed("bert", layers=(1, 2), top_k=2)
    one = made(model)
    found = tokens.routes_without(one, "pad")
    with torch.no_grad(), record_routing() as record:
        model(**one.inputs)
    assert (found.top_k, found.experts) == (2, 4)
    assert found.own.tolist() == [int(record.last(layer).probs.argmax()) for layer in (1, 2)]


def test_without_a_router_no_word_changes_a_route(made, tiny_model):
    with pytest.raises(DataError, match="no router"):
        tokens.routes_without(made(tiny_model()))


def test_where_tokens_are_routed_there_is_no_one_route(made, token_routed):
    with pytest.raises(DataError, match="every token has a route of its own"):
        tokens.routes_without(made(token_routed))
