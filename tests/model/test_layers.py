"""The layers against the method's formulas, written out by hand."""

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F

from shrp.model.gates import force_experts, record_routing, top_k_gates, use_gates
from shrp.model.layers import ExpertLayer, StaticLayer

B, T, D, H = 5, 7, 24, 4
DH = D // H


@pytest.fixture(params=["sequence", "token"])
def routing(request):
    return request.param


def build(routing="sequence", top_k=1, seed=0, **options):
    torch.manual_seed(seed)
    layer = ExpertLayer(layer=1, hidden_size=D, num_experts=H, routing=routing, top_k=top_k, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.eval()


def hidden(seed=0):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed))


def lengths_mask():
    return torch.arange(T) < torch.tensor([7, 3, 5, 1, 6])[:, None]


def by_hand(layer, x, real, gates):
    """Steps 1 to 5 of the method, one input, expert and token at a time."""
    result = torch.zeros_like(x)
    for b in range(len(x)):
        outputs = []
        for h in range(H):
            weights, biases = layer.qkv_weight[h].split(DH), layer.qkv_bias[h].split(DH)
            q, k, v = (x[b] @ w.T + c for w, c in zip(weights, biases))
            scores = (q @ k.T / DH**0.5).masked_fill(~real[b], float("-inf"))
            outputs.append(scores.softmax(-1) @ v)
        for t in range(x.shape[1]):
            gate = gates[b] if gates.dim() == 2 else gates[b, t]
            mixed = sum(gate[h] * outputs[h][t] for h in range(H))
            if layer.self_path is not None:
                mixed = mixed + layer.self_path.weight @ x[b, t]
            expander = layer.expander
            u = F.gelu(expander.dense.weight @ mixed + expander.dense.bias)
            u = F.layer_norm(u, (D,), expander.norm.weight, expander.norm.bias, expander.norm.eps)
            result[b, t] = F.layer_norm(x[b, t] + u, (D,), layer.norm.weight, layer.norm.bias, layer.norm.eps)
    return result


@pytest.mark.parametrize("self_path", [False, True])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_forward_is_the_method_written_out(routing, top_k, padded, self_path):
    layer, x = build(routing, top_k, self_path=self_path), hidden()
    real = lengths_mask() if padded else torch.ones(B, T, dtype=torch.bool)
    if routing == "sequence":
        pooled = torch.stack([x[b, real[b]].mean(0) for b in range(B)])
        probs = (pooled @ layer.router.dense.weight.T + layer.router.dense.bias).softmax(-1)
    else:
        probs = (x @ layer.router.dense.weight.T + layer.router.dense.bias).softmax(-1)
    gates = top_k_gates(probs, top_k)
    with record_routing() as record:
        found = layer(x, real[:, None, None, :] if padded else None)
    expected = by_hand(layer, x, real, gates)
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(record.last(1).probs, probs)
    assert torch.equal(record.last(1).gates, gates)


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_sequence_top1_computes_one_expert_and_equals_all_with_one_hot_gates(padded, monkeypatch):
    layer, x = build(), hidden()
    mask = lengths_mask()[:, None, None, :] if padded else None
    with record_routing(output_norms=True) as record:  # asking for norms computes all experts
        everything = layer(x, mask)
    assert len(set(record.gates(1).argmax(-1).tolist())) > 1
    monkeypatch.setattr(layer, "project", Mock(side_effect=AssertionError("all experts were computed")))
    torch.testing.assert_close(layer(x, mask), everything, atol=1e-6, rtol=1e-5)
    with use_gates(force_experts({1: 2}, H)):
        layer(x, mask)  # a forced expert is one-hot as well
    with pytest.raises(AssertionError), use_gates({1: torch.full((H,), 0.25)}):
        layer(x, mask)


@pytest.mark.parametrize("padded", [False, True])
def test_passes_in_place_and_passes_for_gradients_give_the_same_and_spare_their_input(padded, routing):
    layer, x = build(routing), hidden()
    mask = lengths_mask()[:, None, None, :] if padded else None
    static = StaticLayer.from_expert_layer(layer, [1, 3], [0.5, 0.5])
    for module in (layer, static):
        before = x.clone()
        with torch.no_grad():
            found = module(x, mask)
        assert torch.equal(x, before)
        expected = module(x.clone().requires_grad_(), mask)
        assert expected.requires_grad
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_forms_of_the_mask_give_the_same_output(routing):
    layer, x, real = build(routing, top_k=2), hidden(), lengths_mask()
    additive = torch.zeros(B, 1, 1, T).masked_fill(~real[:, None, None, :], torch.finfo(torch.float32).min)
    expected = layer(x, real[:, None, None, :])
    for form in (real, real.long(), additive, additive.expand(B, 1, T, T)):
        torch.testing.assert_close(layer(x, form)[real], expected[real], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_attention_maps_reproduce_the_experts_outputs():
    layer, x, real = build(), hidden(), lengths_mask()
    mask = real[:, None, None, :]
    maps = layer.attention_maps(x, mask)
    assert maps.shape == (B, H, T, T)
    torch.testing.assert_close(maps.sum(-1), torch.ones(B, H, T))
    assert maps.masked_select(~mask.expand_as(maps)).abs().max() == 0
    outputs = layer.expert_outputs(x, mask)
    torch.testing.assert_close(maps @ layer.project(x)[2], outputs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_output_norms_are_means_over_real_tokens():
    layer, x, real = build("token"), hidden(), lengths_mask()
    with record_routing(output_norms=True) as record:
        layer(x, real[:, None, None, :])
    outputs = layer.expert_outputs(x, real[:, None, None, :])
    for b in range(B):
        expected = outputs[b, :, real[b]].norm(dim=-1).mean(-1)
        torch.testing.assert_close(record.last(1).output_norms[b], expected)


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_training_is_straight_through_and_the_task_reaches_the_router(routing, top_k):
    layer, x = build(routing, top_k), hidden().requires_grad_()
    with torch.no_grad():
        expected = layer(x)
    layer.train()
    output = layer(x)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)  # the forward pass is the hard one
    probs = layer.router(x, None)
    hard = top_k_gates(probs, top_k).detach()
    gates = hard + probs - probs.detach()
    by_token = gates if routing == "token" else gates.unsqueeze(1)
    mixed = (by_token.transpose(1, 2).unsqueeze(-1) * layer.expert_outputs(x)).sum(1)
    wanted = layer.norm(x + layer.expander(mixed))
    learning = (x, *layer.parameters())
    by_hand = torch.autograd.grad((wanted * hidden(1)).sum(), learning)
    (output * hidden(1)).sum().backward()
    for parameter, gradient in zip(learning, by_hand, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)
    assert layer.router.dense.weight.grad.abs().max() > 1e-3
    chosen = set(hard.flatten(0, -2).nonzero()[:, 1].tolist())
    for expert in set(range(H)) - chosen:
        assert layer.qkv_weight.grad[expert].abs().max() == 0  # an expert that was not chosen learns nothing
    for expert in chosen:
        assert layer.qkv_weight.grad[expert].abs().max() > 0


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("update", "attention"), [(0.5, 0.0), (0.0, 0.5), (0.0, 0.0)])
@torch.no_grad()
def test_dropout_of_the_update_and_of_attention_act_each_alone_and_in_training_only(routing, update, attention, static):
    layer, x = build(routing, dropout=update, attention_dropout=attention).train(), hidden()
    if static:  # which drops as the layer that it came from
        layer = StaticLayer.from_expert_layer(layer, [0, 2], [0.5, 0.5])
    assert torch.equal(layer(x), layer(x)) == (update == attention == 0.0)
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_new_layer_starts_near_the_identity_and_evenly():
    torch.manual_seed(0)
    layer = ExpertLayer(layer=0, hidden_size=D, num_experts=H, routing="sequence", top_k=1).eval()
    assert torch.equal(layer.expander.norm.weight, torch.full((D,), 0.1))
    x = F.layer_norm(hidden(), (D,))
    with torch.no_grad():
        assert (layer(x) - x).std() < 0.15
        assert (layer.router(x, None) - 0.25).abs().max() < 0.05
    assert layer.router.dense.weight.abs().min() > 0  # with zeros, argmax is always expert 0


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("self_path", [False, True])
@pytest.mark.parametrize("kept", [[0], [2], [1, 3], [0, 1, 2, 3]])
@torch.no_grad()
def test_static_layer_equals_constant_gates(routing, kept, self_path, untied):
    layer, x, real = build(routing, self_path=self_path), hidden(), lengths_mask()
    weights = [0.5 / len(kept) + 0.25 * (i == 0) for i in range(len(kept))]  # need not sum to 1
    gate = torch.zeros(H)
    gate[kept] = torch.tensor(weights)
    static = StaticLayer.from_expert_layer(layer, kept, weights, untied=untied)
    assert static.qkv.weight.shape == ((3 * len(kept) + self_path) * DH, D)
    assert static.expander.dense.in_features == (len(kept) + self_path if untied else 1) * DH
    for mask in (None, real[:, None, None, :]):
        with use_gates({1: gate}):
            expected = layer(x, mask)
        torch.testing.assert_close(static(x, mask), expected, atol=1e-5, rtol=1e-5)
    assert not any("router" in name for name, _ in static.named_parameters())
