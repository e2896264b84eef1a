"""Where inputs lie as a router sees them."""

import numpy as np
import pytest
import torch

from shrp.analysis.input_map import plane, router_inputs
from shrp.analysis.usage import measure_usage
from shrp.errors import DataError, PlanError
from shrp.model.convert import router_layers


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_scores_are_what_the_router_decides_by(family, tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(family), tiny_data(30)
    usage = measure_usage(model, tiny_tokenizer, data)
    for layer in (1, 2):
        found = router_inputs(model, tiny_tokenizer, data, layer, batch_size=7)
        assert found.states.shape == (30, model.config.hidden_size)
        probs = torch.tensor(found.scores).softmax(-1).numpy()
        assert probs == pytest.approx(usage.probs[layer], abs=1e-5)
        assert found.scores.sum(1) == pytest.approx(np.zeros(30), abs=1e-4)


def test_under_token_routing_scores_are_means_over_real_tokens(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(routing="token"), tiny_data(9)
    seen = []
    found = router_inputs(model, tiny_tokenizer, data, 1, progress=lambda *done: seen.append(done))
    assert seen[-1] == (9, 9)
    router, given = router_layers(model)[1].router, []
    router.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    for i, text in enumerate(data.texts):
        with torch.no_grad():
            model(**tiny_tokenizer(*text, return_tensors="pt"))
            entering = given[-1]
            scores = router.dense(entering)[0]
        assert found.states[i] == pytest.approx(entering[0].mean(0).numpy(), abs=1e-5)
        assert found.scores[i] == pytest.approx(
            (scores - scores.mean(-1, keepdim=True)).mean(0).numpy(), abs=1e-4
        )


def test_layers_without_a_router_and_too_few_inputs(tiny_routed, tiny_tokenizer, tiny_data):
    for model, layer in ((tiny_routed(), 0), (tiny_routed(control="uniform"), 1)):
        with pytest.raises(PlanError, match="has no router"):
            router_inputs(model, tiny_tokenizer, tiny_data(5), layer)
    with pytest.raises(DataError, match="at least 3"):
        router_inputs(tiny_routed(), tiny_tokenizer, tiny_data(2), 1)
    spoilt = tiny_routed()
    with torch.no_grad():
        router_layers(spoilt)[1].router.dense.bias[0] = np.nan
    with pytest.raises(DataError, match="spoilt"):
        router_inputs(spoilt, tiny_tokenizer, tiny_data(5), 1)


def test_the_plane_holds_the_two_directions_of_most_variance():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 4)) * [0.1, 3.0, 0.1, 1.0] + 7
    found = plane(table)
    assert np.abs(np.corrcoef(found.points[:, 0], table[:, 1])[0, 1]) > 0.99
    assert np.abs(np.corrcoef(found.points[:, 1], table[:, 3])[0, 1]) > 0.99
    assert found.held == pytest.approx((9 / 10.02, 1 / 10.02), abs=0.02)
    assert found.points.mean(0) == pytest.approx([0, 0], abs=1e-9)
    again = plane(table.astype(np.float32))
    assert again.points == pytest.approx(found.points, abs=1e-3)


def test_one_direction_leaves_the_other_axis_empty():
    table = np.random.default_rng(1).normal(size=(40, 1)) @ [
        [1.0, -1.0]
    ]  # the scores of a layer of two experts
    found = plane(table.astype(np.float32))
    assert found.held == (pytest.approx(1), 0.0)
    assert not found.points[:, 1].any()


def test_one_point_many_times_has_no_directions():
    found = plane(np.ones((4, 3)))
    assert not found.points.any()
    assert found.held == (0.0, 0.0)
