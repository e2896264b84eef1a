"""Gates: how they are made, recorded, overridden, and kept apart between threads."""

import math
import warnings

import numpy as np
import pytest
import torch

from shrp.errors import PlanError, UnusedGatesWarning
from shrp.model.gates import (
    balance_loss,
    force_experts,
    knock_out,
    play_back,
    record_routing,
    straight_through,
    top_k_gates,
    use_gates,
)

H = 4


@pytest.fixture(params=["sequence", "token"])
def routed(request, tiny_routed):
    return tiny_routed(routing=request.param)


def probabilities(*shape, seed=0):
    return torch.randn(*shape, H, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(-1)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_top_k_renormalises_the_k_largest(k):
    probs = probabilities(5, 6)
    gates = top_k_gates(probs, k)
    for p, g in zip(probs.view(-1, H), gates.view(-1, H), strict=True):
        largest = p.argsort(descending=True)[:k]
        assert sorted(g.nonzero().flatten().tolist()) == sorted(largest.tolist())
        torch.testing.assert_close(g[largest], p[largest] / p[largest].sum())
        assert g.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_straight_through_is_exactly_hard_forward_and_soft_backward(k):
    logits = torch.randn(2000, H, generator=torch.Generator().manual_seed(0)).requires_grad_()
    probs = logits.softmax(-1)
    hard = top_k_gates(probs, k)
    soft = straight_through(hard, probs)
    assert torch.equal(soft, hard)  # bit for bit: (g + p) - p would round
    downstream = torch.randn(2000, H, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((soft * downstream).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((probs * downstream).sum(), logits)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def test_balance_loss_equals_a_hand_computation():
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.3, 0.1]])
    mean = [0.4, 0.3, 0.2, 0.1]
    expected = sum(p * math.log(p / 0.25) for p in mean) + sum(0.25 * math.log(0.25 / p) for p in mean)
    assert balance_loss(probs).item() == pytest.approx(expected, rel=1e-5)
    padded = torch.stack([probs, probabilities(2)], 1)  # the second token of each is padding
    torch.testing.assert_close(balance_loss(padded, torch.tensor([[True, False]] * 2)), balance_loss(probs))


@pytest.mark.parametrize("lead", [1.0, 5.0, 60.0])
def test_the_balance_loss_pulls_a_collapsed_router_back(lead):
    logits = torch.tensor([[lead, 0.0, 0.0, 0.0]] * 8, requires_grad=True)
    balance_loss(logits.softmax(-1)).backward()
    exact = torch.tensor([[lead, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    log_p = exact.log_softmax(-1)
    ((log_p.exp() - 1 / H) * (log_p - math.log(1 / H))).sum().backward()
    torch.testing.assert_close(logits.grad.sum(0), exact.grad[0].float(), rtol=1e-4, atol=1e-5)
    assert logits.grad[:, 0].sum() > 0 > logits.grad[:, 1:].sum(0).max()


def test_recording_of_several_passes(routed, tiny_inputs, tiny_logits):
    first, second = tiny_inputs(), tiny_inputs((4, 6), seed=1)
    with record_routing() as record:
        tiny_logits(routed, first)
        tiny_logits(routed, second)
    assert record.layers == [1, 2]
    token = routed.base_model.encoder.layer[1].routing == "token"
    tokens = int(first["attention_mask"].sum() + second["attention_mask"].sum())
    assert record.probs(1).shape == record.gates(1).shape == ((tokens if token else 8), H)
    torch.testing.assert_close(record.probs(1).sum(-1), torch.ones(len(record.probs(1))))
    assert record.last(2).probs.shape == ((2, 6, H) if token else (2, H))
    losses = [balance_loss(record.last(i).probs, record.last(i).token_mask) for i in (1, 2)]
    torch.testing.assert_close(record.balance_loss(), losses[0] + losses[1])


def test_recorders_nest_and_end(routed, tiny_inputs, tiny_logits):
    inputs = tiny_inputs()
    with record_routing(hidden_states=True) as outer:
        tiny_logits(routed, inputs)
        with record_routing() as inner:
            tiny_logits(routed, inputs)
    tiny_logits(routed, inputs)
    assert len(outer.traces[1]) == 2
    assert len(inner.traces[1]) == 1
    assert set(outer.hidden_states) == {1, 2}
    assert inner.hidden_states == {}
    with pytest.raises(RuntimeError), record_routing() as broken, use_gates({1: torch.ones(H)}):
        raise RuntimeError("on purpose")
    with record_routing() as free:
        tiny_logits(routed, inputs)
    assert not broken.traces  # it ended with the error, and so did the override
    assert torch.equal(free.gates(1), inner.gates(1))


def test_play_back_repeats_routes_for_changed_inputs(routed, tiny_inputs, tiny_logits):
    first, changed = tiny_inputs(), tiny_inputs(seed=9)
    with record_routing() as record:
        own = tiny_logits(routed, first)
    with record_routing() as other:
        free = tiny_logits(routed, changed)
    assert not torch.equal(other.last(1).gates, record.last(1).gates)
    with use_gates(play_back(record)), record_routing() as played:
        again, fixed = tiny_logits(routed, first), tiny_logits(routed, changed)
    torch.testing.assert_close(again, own, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(fixed, free, atol=1e-3)
    for layer in (1, 2):
        for trace in played.traces[layer]:
            assert torch.equal(trace.gates, record.last(layer).gates)
    # The probabilities stay the router's own, so that a display can tell a forced choice from a free one.
    torch.testing.assert_close(played.last(1).probs, other.last(1).probs)


@pytest.mark.parametrize("k", [1, 2])
def test_knock_out_picks_the_next_best(routed, tiny_inputs, tiny_logits, k):
    with use_gates(knock_out({1: 2}, top_k=k)), record_routing() as record:
        tiny_logits(routed, tiny_inputs())
    probs, gates = record.probs(1), record.gates(1)
    assert (probs.argmax(-1) == 2).any()  # otherwise nothing was taken away
    for p, g in zip(probs, gates, strict=True):
        order = [e for e in p.argsort(descending=True).tolist() if e != 2][:k]
        assert sorted(g.nonzero().flatten().tolist()) == sorted(order)
        torch.testing.assert_close(g[order], p[order] / p[order].sum())


def test_gates_of_every_shape(tiny_routed, tiny_inputs, tiny_logits):
    model, inputs = tiny_routed(routing="token"), tiny_inputs()
    b, t = inputs["input_ids"].shape
    one = torch.tensor([0.1, 0.2, 0.3, 0.4])
    with use_gates({1: one}), record_routing() as record:
        expected = tiny_logits(model, inputs)
    assert torch.equal(record.last(1).gates, one.expand(b, t, H))
    for gates in (one.double(), one.expand(b, H), one.expand(b, t, H)):
        with use_gates({1: gates}):
            assert torch.equal(tiny_logits(model, inputs), expected)
    rows = probabilities(b)
    with use_gates({1: rows}), record_routing() as record:
        tiny_logits(model, inputs)
    assert torch.equal(record.last(1).gates, rows[:, None].expand(b, t, H))  # one gate for all of an input
    sequence = tiny_routed()
    with use_gates({1: rows}), record_routing() as record:
        tiny_logits(sequence, inputs)
    assert torch.equal(record.last(1).gates, rows)


def test_overrides_nest_and_a_function_may_abstain(routed, tiny_inputs, tiny_logits):
    inputs, seen = tiny_inputs(), []
    outer, inner = force_experts({1: 0, 2: 3}, H), force_experts({1: 2}, H)

    def look(layer, probs, gates):
        seen.append((layer, gates.argmax(-1).unique().tolist()))

    with use_gates(outer), use_gates(inner), use_gates(look), record_routing() as record:
        tiny_logits(routed, inputs)
    assert record.gates(1).argmax(-1).unique().tolist() == [2]  # the inner one wins
    assert record.gates(2).argmax(-1).unique().tolist() == [3]  # and what it lacks is the outer one's
    assert seen == [(1, [2]), (2, [3])]
    with record_routing() as free:
        tiny_logits(routed, inputs)
    assert len(free.gates(1).argmax(-1).unique()) > 1


@pytest.mark.parametrize("routing_kind", ["sequence", "token"])
def test_an_input_s_logits_do_not_depend_on_the_other_rows_lengths(
    tiny_family, tiny_attention, routing_kind, tiny_routed, tiny_inputs, tiny_logits
):
    model = tiny_routed(tiny_family, attn=tiny_attention, routing=routing_kind, top_k=1)
    inputs = tiny_inputs((4, 11, 2, 7))
    with record_routing() as record:
        together = tiny_logits(model, inputs)
    for row, length in enumerate((4, 11, 2, 7)):
        single = {key: value[row : row + 1, :length] for key, value in inputs.items()}
        with record_routing() as alone:
            logits = tiny_logits(model, single)
        torch.testing.assert_close(together[row], logits[0], atol=1e-5, rtol=1e-5)
        for layer in (1, 2):
            own = record.last(layer).probs[row]
            own = own[:length] if routing_kind == "token" else own
            torch.testing.assert_close(own, alone.last(layer).probs[0], atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_gates_of_a_layer_without_a_router_are_warned_about(tiny_routed, tiny_inputs):
    model, inputs = tiny_routed(), tiny_inputs()
    forced = use_gates(force_experts({0: 1, 1: 1, 9: 0}, 4))
    with pytest.warns(UnusedGatesWarning, match=r"layers \[0, 9\].*did: \[1, 2\]"), forced:
        model(**inputs)
    with pytest.warns(UnusedGatesWarning, match=r"layers \[0\]"), use_gates(knock_out({0: 1})):
        model(**inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with use_gates(force_experts({1: 1}, 4)), use_gates(knock_out({2: 1})):
            model(**inputs)


@pytest.mark.parametrize(
    "source",
    [
        {1: torch.ones(3)},
        {1: torch.ones(2, H)},
        {1: torch.ones(6, 9, H)},
        *(knock_out({1: gone}) for gone in (4, -1, (0, 7), (0, 1, 2, 3), np.int64(4))),
        knock_out({1: torch.tensor([-1, 4, 0, 0, 0, 0])}),
    ],
)
def test_gates_that_do_not_fit_are_refused(tiny_routed, tiny_inputs, source):
    with pytest.raises(PlanError), use_gates(source):
        tiny_routed()(**tiny_inputs())
