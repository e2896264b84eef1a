"""Incremental re-evaluation gives what a rebuilt, whole model gives."""

from itertools import pairwise, product
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import shrp.pruning.live
from shrp.analysis.usage import measure_usage
from shrp.errors import PlanError
from shrp.evaluation.evaluate import evaluate
from shrp.families.families import relative_positions
from shrp.model.packed import Packing, expert_outputs, first_token_outputs
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import LayerPlan, PruningPlan, make_plan
from shrp.pruning.prune import prune

EXPERTS = 4


@pytest.fixture(scope="module")
def data(tiny_data):
    return tiny_data(150)


@pytest.fixture
def routed(tiny_routed):
    return tiny_routed()


@pytest.fixture
def usage(routed, tiny_tokenizer, data):
    return measure_usage(routed, tiny_tokenizer, data).shares()


def all_budgets(usage):
    return [make_plan(usage, budget=m) for m in range(len(usage), EXPERTS * len(usage) + 1)]


def assert_same(live, plain):
    assert live.complete
    np.testing.assert_allclose(live.logits, plain.logits, atol=1e-4)
    np.testing.assert_array_equal(live.predictions, plain.predictions)
    assert live.score == plain.score


# A dense layer below the converted ones, between them, and above them; the position bias of MPNet is what differs
# between families here.
@pytest.mark.parametrize(
    ("family", "routing", "layers", "self_path"),
    [
        *product(("bert",), ("sequence", "token"), [(1, 2), (0, 2), (0, 1)], [False]),
        *((family, "sequence", (0, 2), False) for family in ("mpnet", "deberta-v2", "distilbert", "modernbert")),
        ("bert", "sequence", (0, 2), True),
        ("mpnet", "token", (1, 2), True),
    ],
)
def test_equals_the_rebuilt_model(family, routing, layers, self_path, tiny_routed, tiny_tokenizer, data):
    model = tiny_routed(family, layers=layers, routing=routing, self_path=self_path)
    usage = measure_usage(model, tiny_tokenizer, data).shares()
    plans = all_budgets(usage)
    plain = {plan: evaluate(prune(model, plan), tiny_tokenizer, data) for plan in plans}
    assert len({tuple(found.logits[:, 0]) for found in plain.values()}) > 1
    live = LiveEvaluator(model, tiny_tokenizer, data, batch_size=40)
    assert_same(live.evaluate(None), evaluate(model, tiny_tokenizer, data))
    # Neighbouring budgets share layers, so later plans start from what earlier ones left.
    for plan in [*plans, plans[0]]:
        assert_same(live.evaluate(plan), plain[plan])
    swept = list(LiveEvaluator(model, tiny_tokenizer, data, batch_size=40).sweep(plans))
    assert sorted(plan.budget for plan, _ in swept) == [plan.budget for plan in plans]
    for plan, found in swept:
        assert_same(found, plain[plan])


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v2", "modernbert"])
def test_packed_outputs_are_the_layers_own(family, tiny_routed, tiny_inputs):
    mask = tiny_inputs((9, 9, 7, 5, 5, 3))["attention_mask"]
    model = tiny_routed(family)
    packing, layer = Packing.of(mask), shrp.pruning.live.expert_layers(model)[1]
    bias = relative_positions(model, 12, 1)
    padded = torch.randn(*mask.shape, layer.hidden_size)
    packed = packing.pack(padded)
    with torch.no_grad():
        own = layer.expert_outputs(padded, mask, relative_positions(model, 9, 1))  # (B, H, T, dh)
        outputs = expert_outputs(layer, [0, 3], packed, packing, bias)
        firsts = first_token_outputs(layer, [0, 3], packed, packing, bias)
    for i, expert in enumerate([0, 3]):
        torch.testing.assert_close(outputs[i], packing.pack(own[:, expert]))
        torch.testing.assert_close(firsts[i], own[:, expert, 0])
    torch.testing.assert_close(packing.unpack(packed), padded * mask.unsqueeze(-1))


def test_estimates_narrow_to_the_exact_figure(routed, usage, tiny_tokenizer, data):
    live = LiveEvaluator(routed, tiny_tokenizer, data, batch_size=20)
    seen = list(live.stream(make_plan(usage, per_layer=2)))
    assert all(a.n < b.n for a, b in pairwise(seen))
    assert seen[0].n == 64
    assert seen[-1].n == seen[-1].total == 150
    widths = [high - low for low, high in (e.interval for e in seen)]
    assert widths[-1] < widths[0]
    share = np.mean(data.labels[seen[0].indices])
    assert abs(share - data.labels.mean()) < 1 / 32  # the first batch has the whole's mix of classes


@pytest.fixture
def computed(monkeypatch):
    """`(layer, experts)` of every computation of experts' outputs, as it is done."""
    calls = []
    original = LiveEvaluator._compute

    def logged(self, batch, layer, experts, hidden):
        calls.append((layer, tuple(experts)))
        return original(self, batch, layer, experts, hidden)

    monkeypatch.setattr(LiveEvaluator, "_compute", logged)
    return calls


def plan_of(*experts):
    """A plan for layers 1, 2, ... that keeps these experts, equally weighted."""
    kept = (LayerPlan(tuple(e), (1 / len(e),) * len(e)) for e in experts)
    return PruningPlan(tuple(enumerate(kept, 1)))


def test_only_what_is_new_is_computed(routed, tiny_tokenizer, data, computed):
    live = LiveEvaluator(routed, tiny_tokenizer, data)
    live.prepare()
    assert set(computed) == {(1, (0, 1, 2, 3))}  # the first converted layer, once and for all
    for plan, new in [
        (plan_of([0], [1]), {(2, (1,))}),
        (plan_of([0], [1, 3]), {(2, (3,))}),
        (plan_of([0], [3]), set()),
        (plan_of([0, 2], [3]), {(2, (3,))}),
        (plan_of([0], [1, 2]), {(2, (2,))}),
    ]:
        computed.clear()
        live.evaluate(plan)
        assert set(computed) == new


def test_a_sweep_computes_what_plans_share_once(routed, tiny_tokenizer, data, computed):
    live = LiveEvaluator(routed, tiny_tokenizer, data)
    live.prepare()
    computed.clear()
    unused = PruningPlan(((1, LayerPlan((0, 3), (1.0, 0.0))), (2, LayerPlan((1,), (1.0,)))))
    plans = [plan_of([0], [1]), plan_of([1], [1]), plan_of([0], [1, 2]), plan_of([1], [0, 1]), unused]
    swept = list(live.sweep(plans))
    assert sorted(map(id, plans)) == sorted(id(plan) for plan, _ in swept)
    expected = [(2, (1,)), (2, (2,)), (2, (1,)), (2, (0,))] * len(live.batches)
    assert sorted(computed) == sorted(expected)
    found = {id(plan): evaluation for plan, evaluation in swept}
    assert found[id(unused)] is found[id(plans[0])]  # an expert of weight 0 changes nothing


def test_a_sweep_can_be_abandoned_within_a_plan(routed, usage, tiny_tokenizer, data):
    live = LiveEvaluator(routed, tiny_tokenizer, data)
    assert len(live.batches) > 1
    pause = Mock(side_effect=[None] * len(live.batches) + [InterruptedError])
    results = live.sweep(all_budgets(usage), pause)
    assert next(results)[1].complete
    with pytest.raises(InterruptedError):
        next(results)
    assert pause.call_count == len(live.batches) + 1


def kept_bytes(live):
    return sum(value.nbytes for part in (live._kept.entries, live._kept.fixed) for value in part.values())


@pytest.mark.parametrize("memory", [0, 60_000, 400_000])
def test_memory_is_bounded_and_too_little_of_it_harmless(memory, routed, usage, tiny_tokenizer, data):
    live = LiveEvaluator(routed, tiny_tokenizer, data, memory=memory)
    live.prepare()
    for plan in all_budgets(usage):
        assert_same(live.evaluate(plan), evaluate(prune(routed, plan), tiny_tokenizer, data))
        assert live._kept.size == kept_bytes(live) <= memory
    for _ in live.sweep(all_budgets(usage)):
        assert live._kept.size == kept_bytes(live) <= memory


def test_plan_for_other_layers_is_refused(routed, tiny_tokenizer, data):
    plan, live = make_plan({0: np.ones(4) / 4}, per_layer=1), LiveEvaluator(routed, tiny_tokenizer, data)
    for act in (lambda: live.evaluate(plan), lambda: next(live.sweep([plan]))):
        with pytest.raises(PlanError, match=r"converted layers are \[1, 2\]"):
            act()
