from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from shrp.analysis.attribution import experts
from shrp.model.convert import expert_layers
from shrp.model.gates import knock_out, play_back, record_routing, use_gates
from tests.analysis.attribution.conftest import TEXT


def by_hand(model, one, output, gone):
    """The output with these `(layer, expert)` gates set to 0, all else as the input's own route."""
    with torch.no_grad(), record_routing() as record:
        model(**one.inputs)
    gates = {layer: g.clone() for layer, g in play_back(record).items()}
    for layer, expert in gone:
        gates[layer][..., expert] = 0
    with torch.no_grad(), use_gates(gates):
        return float(model(**one.inputs).logits[0, output])


@pytest.mark.parametrize("method", experts.METHODS[:2])
@pytest.mark.parametrize("name", ["routed", "token_routed"])
def test_a_knock_out_equals_one_by_hand(made, request, name, method):
    model = request.getfixturevalue(name)
    top_k = next(iter(expert_layers(model).values())).top_k
    one = made(model)
    coalitions = experts.Coalitions(one, 1)
    found = experts.knock_out_scores(one, 1, method)
    assert found.fires.sum() == len(coalitions.players) > len(coalitions.layers) - 1
    for row, layer in enumerate(found.layers):
        for expert in range(4):
            if method == "zeroed":
                without = by_hand(model, one, 1, [(layer, expert)])
            else:
                with torch.no_grad(), use_gates(knock_out({layer: expert}, top_k)):
                    without = float(model(**one.inputs).logits[0, 1])
            assert found.values[row, expert] == pytest.approx(coalitions.full - without, abs=1e-5)
    assert not found.values[~found.fires].any()


def brute_force_shapley(value, players):
    """By the definition, over all subsets."""
    k, shares = len(players), []
    for player in players:
        others = [p for p in players if p != player]
        share = 0.0
        for size in range(k):
            for there in combinations(others, size):
                share += (value({*there, player}) - value(set(there))) / (k * comb(k - 1, size))
        shares.append(share)
    return shares


@pytest.mark.parametrize("name", ["routed", "token_routed"])
def test_exact_shapley_values_follow_the_definition_and_are_efficient(made, request, name):
    model = request.getfixturevalue(name)
    one = made(model, ("w1 w7",) if name == "token_routed" else TEXT)
    coalitions = experts.Coalitions(one, 1)
    found = experts.shapley_values(coalitions, budget=4096)
    players, known = coalitions.players, {}

    def value(there):
        key = frozenset(there)
        if key not in known:
            known[key] = by_hand(model, one, 1, [p for p in players if p not in there])
        return known[key]

    np.testing.assert_allclose(found.values[found.fires], brute_force_shapley(value, players), atol=1e-5)
    assert found.errors is None
    assert found.permutations == 0
    assert found.values.sum() == pytest.approx(coalitions.full - value(set()), abs=1e-5)
    assert not found.values[~found.fires].any()


def test_sampled_shapley_values_are_efficient_and_near_the_exact_ones(made, token_routed):
    coalitions = experts.Coalitions(made(token_routed), 1)
    assert len(coalitions.players) > 5
    exact = experts.shapley_values(coalitions, budget=2 ** len(coalitions.players))
    sampled = experts.shapley_values(coalitions, budget=2 ** len(coalitions.players) - 1)
    assert sampled.permutations > 10
    assert sampled.values.sum() == pytest.approx(exact.values.sum(), abs=1e-5)
    away = np.abs(sampled.values - exact.values)[exact.fires]
    assert away.max() < 4 * sampled.errors.max() + 1e-5
    assert away.max() > 0
    again = experts.shapley_values(coalitions, budget=2 ** len(coalitions.players) - 1)
    np.testing.assert_array_equal(sampled.values, again.values)
    assert experts.shapley_values(coalitions, budget=30).errors.mean() > sampled.errors.mean()
