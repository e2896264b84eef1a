import numpy as np
import pytest
import torch

from shrp.analysis.attribution import instance, tokens
from shrp.analysis.attribution.instance import against
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from shrp.model.convert import expert_layers
from shrp.model.gates import record_routing
from tests.analysis.attribution.helpers import TEXT, direct

MNLI = TASKS["mnli"]
PAIR = ("w1 w20 w33, w4", "w50 w17")


def own_odds(model, tokenizer, layer, first, second, text=TEXT):
    with torch.no_grad(), record_routing() as record:
        model(**collate(tokenizer, encode(tokenizer, [text]), [0]))
    logs = record.last(layer).probs[0].log()
    return float((logs[..., first] - logs[..., second]).mean())


def test_a_routers_preference_is_its_log_odds(made, tiny_routed, tiny_tokenizer, tiny_family):
    model = tiny_routed(tiny_family)
    layer = sorted(expert_layers(model))[-1]
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
        next_to_padding = float(one.outputs(padded, **longer))
    assert alone == pytest.approx(own_odds(token_routed, tiny_tokenizer, 2, 1, 3), abs=1e-5)
    assert next_to_padding == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("replacement", tokens.REPLACEMENTS)
def test_the_route_without_a_word_is_that_of_the_text_without_it(made, routed, tiny_tokenizer, replacement):
    one = made(routed)
    changed = tokens.without_each_word(one, replacement)
    found = changed.routes
    assert found.layers == (0, 1, 2)

    def routes(inputs):
        with torch.no_grad(), record_routing() as record:
            routed(**inputs)
        return [int(record.last(layer).gates.argmax()) for layer in found.layers]

    assert found.own.tolist() == routes(one.inputs)
    np.testing.assert_array_equal((found.without != found.own[:, None]).sum(0), changed.rerouted)
    if replacement == "remove":
        without_the_last = encode(tiny_tokenizer, [("w1 w20 w33, w4 w50",)])
        assert found.without[:, -1].tolist() == routes(collate(tiny_tokenizer, without_the_last, [0]))


# The difference of two logits


@pytest.fixture
def one(made, tiny_routed):
    return made(tiny_routed("bert", layers=(0, 2), num_labels=3, top_k=2), PAIR, MNLI)


def test_it_is_the_one_logit_less_the_other(one, tiny_tokenizer):
    with torch.no_grad():
        both = one.outputs(one.embeddings)[0]
        lead = against(one, 2, 0).outputs(one.embeddings.repeat(3, 1, 1))
    assert lead.shape == (3, 1)
    np.testing.assert_allclose(lead, float(both[2] - both[0]), atol=1e-4)
    logits = direct(one.model, tiny_tokenizer, PAIR)[list(one.columns)]
    np.testing.assert_allclose(lead[0], float(logits[2] - logits[0]), atol=1e-5)


@pytest.mark.parametrize("method", ["input_x_gradient", "integrated_gradients", "ablate_words"])
def test_scores_of_words_are_those_of_the_one_less_those_of_the_other(one, method):
    scores = getattr(tokens, method)
    of_one, of_other, lead = scores(one, 1), scores(one, 2), scores(against(one, 1, 2), 0)
    np.testing.assert_allclose(lead.scores, of_one.scores - of_other.scores, atol=1e-5)
    assert np.abs(of_other.scores).max() > 1e-3
    assert lead.full == pytest.approx(of_one.full - of_other.full, abs=1e-5)


@pytest.mark.parametrize("both", [(1, 1), (0, 3), (-1, 0)])
def test_what_are_no_two_classes_is_refused(one, both):
    with pytest.raises(DataError, match=r"two different classes of 'mnli' \(0 \(entailment\), 1 \(neutral\)"):
        against(one, *both)
