import numpy as np
import pytest

from shrp.analysis.explore import explore, rerouted, what_if
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.errors import PlanError
from shrp.evaluation.evaluate import batch_logits
from shrp.model.forcing import AS_ROUTED, Force, ForcedRoute
from shrp.model.gates import force_experts, use_gates

WORDS = [f"w{i}" for i in range(30)]
SST2 = TASKS["sst2"]


@pytest.fixture
def build(tiny_routed):
    def make(routing="sequence", layers=(1, 2, 3)):
        return tiny_routed(layers=layers, routing=routing, num_hidden_layers=4)

    return make


def texts(n, words=12, seed=0):
    rng = np.random.default_rng(seed)
    return [(" ".join(rng.choice(WORDS, size=rng.integers(2, words))),) for _ in range(n)]


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_a_batch_equals_single_inputs_and_the_model_itself(build, tiny_tokenizer, routing):
    model, inputs = build(routing), texts(11)
    together = explore(model, tiny_tokenizer, SST2, inputs)
    for text, found in zip(inputs, together, strict=True):
        (alone,) = explore(model, tiny_tokenizer, SST2, [text])
        direct = batch_logits(model, collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0]))[0]
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)
        np.testing.assert_allclose(found.logits, direct, atol=1e-5)
        assert found.text == text
        assert found.layers == [1, 2, 3]
        for layer in found.layers:
            np.testing.assert_allclose(found.probs[layer], alone.probs[layer], atol=1e-5)
            assert found.choice(layer) == alone.choice(layer)
            assert found.probs[layer].shape == ((4,) if routing == "sequence" else (len(found.tokens), 4))
            assert found.shares(layer).sum() == pytest.approx(1)


@pytest.mark.parametrize("layers", [(1, 2, 3), (0, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_what_if_equals_forcing_by_hand(build, tiny_tokenizer, routing, layers):
    model, text = build(routing, layers), texts(1)[0]
    calls = []
    result = what_if(model, tiny_tokenizer, SST2, text, progress=lambda *call: calls.append(call))
    assert calls == [(i + 1, len(layers)) for i in range(len(layers))]
    assert result.logits.shape == (len(layers), 4, 2)
    batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0])
    np.testing.assert_allclose(result.base, batch_logits(model, batch)[0], atol=1e-5)
    for row, layer in enumerate(layers):
        for expert in range(4):
            with use_gates(force_experts({layer: expert}, 4)):
                direct = batch_logits(model, batch)[0]
            np.testing.assert_allclose(result.logits[row, expert], direct, atol=1e-5)


def test_a_route_is_built_piece_by_piece():
    route = AS_ROUTED.forced(3, 1).forced(1, 2).forced(3, 0)
    assert route.text == "1.2_3.0"
    assert ForcedRoute.parse(route.text) == route
    assert route.released(Force(3, 0)).text == "1.2"
    assert route.released(Force(3, 9)) == route
    assert route.fitting((3,), 4).text == route.fitting((1, 3), 1).text == "3.0"
    assert route.layers == [1, 3]
    assert not AS_ROUTED


@pytest.mark.parametrize("text", ["6", "6.3_", "a.b", "6.3t", "-1.3", "6.3 ", "6.99999", "٣.١", "1.1_" * 900])
def test_text_that_is_no_route_is_refused(text):
    with pytest.raises(PlanError, match="forced route"):
        ForcedRoute.parse(text)


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_exploring_under_a_forced_route(build, tiny_tokenizer, routing):
    model, inputs, choice = build(routing), texts(5), {1: 2, 3: 0}
    route = ForcedRoute((Force(1, 2), Force(3, 0)))
    plain = explore(model, tiny_tokenizer, SST2, inputs)
    forced = explore(model, tiny_tokenizer, SST2, inputs, route=route)
    for text, before, after in zip(inputs, plain, forced, strict=True):
        with use_gates(force_experts(choice, 4)):
            direct = batch_logits(model, collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0]))[0]
        np.testing.assert_allclose(after.logits, direct, atol=1e-5)
        assert [after.choice(layer) for layer in (1, 3)] == [2, 0]
        assert after.shares(1).tolist() == [0, 0, 1, 0]
        np.testing.assert_allclose(after.probs[1], before.probs[1], atol=1e-5)  # what the router wanted
        frame = after.to_frame()
        assert set(frame.loc[(frame["layer"] == 3) & frame["chosen"], "expert"]) == {0}


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_routes_are_compared_and_consequences_told_from_causes(build, tiny_tokenizer, routing):
    model, seen = build(routing), set()
    for text in texts(12):
        (before,) = explore(model, tiny_tokenizer, SST2, [text])
        route = AS_ROUTED.forced(1, (before.choice(1) + 1) % 4)
        (after,) = explore(model, tiny_tokenizer, SST2, [text], route=route)
        moved = rerouted(before, after, route)
        for layer in (2, 3):
            same = (before.taken(layer) == after.taken(layer)).all()
            assert (layer in moved) != same
            seen.add(bool(same))
        assert 1 not in moved
    assert False in seen  # some route above did change because of it
