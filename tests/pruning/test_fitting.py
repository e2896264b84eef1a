"""Gates that are fitted to the routed model, and the plans made of them."""

import numpy as np
import pytest
import torch

from shrp.analysis.usage import measure_usage
from shrp.model.convert import expert_layers
from shrp.pruning import select
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import FittedGates, make_plan
from shrp.pruning.select import GateFit
from shrp.results_store import ResultsStore


def sharpened(model):
    """A routed model whose experts differ enough for a choice among them to matter."""
    with torch.no_grad():
        for layer in expert_layers(model).values():
            layer.qkv_weight.mul_(20)
            layer.expander.norm.weight.fill_(1.0)
    return model.eval()


@pytest.fixture
def short(monkeypatch):
    """Fits of few steps, where what is asked is not how good they are."""
    monkeypatch.setattr(select, "WARM_UP", 4)
    monkeypatch.setattr(select, "STEPS", 24)


@pytest.fixture
def routed(tiny_routed):
    return sharpened(tiny_routed("bert"))


def fit(model, tokenizer, data, progress=lambda *at: None, **options):
    stats = measure_usage(model, tokenizer, data)
    return stats, GateFit(model, tokenizer, data, stats.shares(), **options).finish(progress)


def test_every_size_has_its_gates_and_each_is_inside_the_next(short, routed, tiny_tokenizer, tiny_data):
    seen = []
    stats, gates = fit(routed, tiny_tokenizer, tiny_data(24), progress=lambda *at: seen.append(at))
    layers, experts = len(stats.layers), stats.num_experts
    assert sorted(gates.per_layer) == list(range(1, experts + 1))
    assert sorted(gates.budget) == list(range(layers, layers * experts + 1))
    assert seen == [(i + 1, seen[0][1]) for i in range(seen[0][1])]
    assert (gates.data, gates.n) == (stats.data, 24)
    for walk in (gates.per_layer, gates.budget):
        for size, found in walk.items():
            assert sorted(found) == stats.layers
            kept = [int((values > 0).sum()) for values in found.values()]
            assert min(kept) >= 1
            assert set(kept) == {size} if walk is gates.per_layer else sum(kept) == size
            assert all(values.sum() == pytest.approx(1, abs=1e-6) for values in found.values())
            if size + 1 in walk:
                assert all(((found[i] > 0) <= (walk[size + 1][i] > 0)).all() for i in found)


def test_a_fit_that_was_left_goes_on_and_ends_with_the_same_gates(short, routed, tiny_tokenizer, tiny_data):
    data = tiny_data(24)
    stats, whole = fit(routed, tiny_tokenizer, data)
    before = LiveEvaluator(routed, tiny_tokenizer, data).evaluate(None).logits
    broken = GateFit(routed, tiny_tokenizer, data, stats.shares())
    seen = []
    for most in (3, 50, broken.steps):
        for done in broken:
            seen.append(done)
            if done == most:
                break
        # Meanwhile the model is as it was.
        assert (LiveEvaluator(routed, tiny_tokenizer, data).evaluate(None).logits == before).all()
    assert list(broken) == []  # done: the last step has been seen, and what is made of it is there
    assert seen == list(range(1, broken.steps + 1))
    for mine, theirs in ((broken.result.per_layer, whole.per_layer), (broken.result.budget, whole.budget)):
        for size, found in theirs.items():
            assert all((mine[size][layer] == gates).all() for layer, gates in found.items())


def test_fitted_gates_reproduce_the_routed_model_better_than_even_ones(
    monkeypatch, tiny_routed, tiny_tokenizer, tiny_data
):
    data, found, removals = tiny_data(40), [], GateFit._removals
    # None of so many experts in all, which take the most steps.
    monkeypatch.setattr(GateFit, "_removals", lambda self, each: removals(self, each) if each else 0)
    for seed in range(2):  # of one model alone, how its numbers round may turn the choice of the last expert
        routed = sharpened(tiny_routed("bert", seed=seed))
        stats, gates = fit(routed, tiny_tokenizer, data)
        live = LiveEvaluator(routed, tiny_tokenizer, data)
        target = torch.tensor(live.evaluate(None).logits).log_softmax(-1)

        def distance(plan, live=live, target=target):
            said = torch.tensor(live.evaluate(plan).logits).log_softmax(-1)
            return float((target.exp() * (target - said)).sum(-1).mean())

        everything = stats.num_experts
        usage = {layer: gates.per_layer[everything][layer] for layer in stats.layers}
        even = make_plan(stats.shares(), per_layer=everything, combination="mean")
        drawn = [make_plan(stats.shares(), per_layer=1, selection="random", seed=s) for s in range(12)]
        one = make_plan(stats.shares(), per_layer=1, selection="fitted", combination="fitted", fitted=gates)
        each = [distance(plan) for plan in (make_plan(usage, per_layer=everything), even, one)]
        found.append([*each, np.median([distance(plan) for plan in drawn])])
    fitted_all, even_all, fitted_one, random_one = np.mean(found, axis=0)
    assert fitted_all < even_all
    assert fitted_one < random_one


def gates_by_hand():
    """Two layers of three experts."""
    whole = {1: np.array([0.5, 0.3, 0.2]), 2: np.array([0.1, 0.2, 0.7])}
    two = {1: np.array([0.6, 0.4, 0.0]), 2: np.array([0.0, 0.3, 0.7])}
    one = {1: np.array([0.0, 1.0, 0.0]), 2: np.array([0.0, 0.0, 1.0])}
    budget = {2: one, 3: {1: two[1], 2: one[2]}, 4: two, 5: {1: whole[1], 2: two[2]}, 6: whole}
    return FittedGates("texts", 9, {1: one, 2: two, 3: whole}, budget)


USAGE = {1: np.array([0.9, 0.1, 0.0]), 2: np.array([0.8, 0.1, 0.1])}


def fitted_plan(**options):
    options = {"selection": "fitted", "combination": "fitted", "fitted": gates_by_hand()} | options
    return make_plan(USAGE, **options)


def test_plans_keep_what_the_fit_kept_with_its_weights():
    plan = dict(fitted_plan(per_layer=2).layers)
    assert (plan[1].experts, plan[2].experts) == ((0, 1), (1, 2))
    assert plan[1].weights == pytest.approx((0.6, 0.4))
    assert dict(fitted_plan(per_layer=1).layers)[1].experts == (1,)
    spread = fitted_plan(budget=3)
    assert spread.keep_counts() == {1: 2, 2: 1}  # usage would spread it otherwise
    assert (spread.selection, spread.combination) == ("fitted", "fitted")
    usage_weights = dict(fitted_plan(per_layer=2, combination="usage").layers)
    assert usage_weights[1].weights == pytest.approx((0.9, 0.1))


def test_a_fit_is_kept_on_disk_and_a_broken_file_is_no_fit(tmp_path, tiny_data):
    data, gates, sizes = tiny_data(9), gates_by_hand(), (2, 3)
    store = ResultsStore(tmp_path)
    assert store.fitted("a checkpoint", data, *sizes) is None
    store.keep_fitted("a checkpoint", data, gates)
    again = ResultsStore(tmp_path).fitted("a checkpoint", data, *sizes)
    assert (again.data, again.n) == (data.name, 9)
    for size, found in gates.budget.items():
        for layer, values in found.items():
            assert np.array_equal(again.budget[size][layer], values)
    assert store.fitted("another", data, *sizes) is None
    (file,) = (tmp_path / "results").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert store.fitted("a checkpoint", data, *sizes) is None
