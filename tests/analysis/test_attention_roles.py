"""Where experts' attention goes on average."""

import numpy as np
import pytest
import torch

from shrp.analysis.attention import (
    FIRST,
    ITSELF,
    MATCHING,
    NEXT,
    OTHER,
    PREVIOUS,
    ROLES,
    SAME,
    SEPARATORS,
    AttentionRoles,
    attention_roles,
    layer_attention,
)
from shrp.data.batching import encode
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, expert_layers
from shrp.pruning.plan import LayerPlan, PruningPlan
from shrp.pruning.prune import prune


def pairs(n=7):
    texts = tuple((f"w{i} w1 w2", " ".join(f"w{j}" for j in range(i + 1))) for i in range(n))
    return TextData(TASKS["mrpc"], "pairs", texts, np.arange(n) % 2)


def by_hand(weights, first, second, ids):
    """The roles in `[CLS] first [SEP] second [SEP]`, in a plain loop over tokens."""
    kinds = ["cls"] + ["a"] * first + ["sep"] + ["b"] * second + ["sep"] * (second > 0)
    assert len(ids) == len(kinds)
    found = dict.fromkeys(ROLES, 0.0)
    queries = [q for q, kind in enumerate(kinds) if kind in "ab"]
    for q in queries:
        for k, kind in enumerate(kinds):
            if kind == "cls":
                role = FIRST
            elif kind == "sep":
                role = SEPARATORS
            elif kind != kinds[q]:
                role = MATCHING if ids[k] == ids[q] else OTHER
            else:
                role = {0: ITSELF, -1: PREVIOUS, 1: NEXT}.get(k - q, SAME)
            found[role] += weights[q, k] / len(queries)
    return [found[role] for role in ROLES]


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_shares_are_those_of_a_plain_loop(family, tiny_routed, tiny_tokenizer):
    model, data = tiny_routed(family), pairs()
    found = attention_roles(model, tiny_tokenizer, data)
    assert found.n == len(data)
    assert found.layers == sorted(expert_layers(model))
    # Inputs come in another order: each one's shares must be among those found.
    for text in data.texts:
        sizes = [len(tiny_tokenizer(part, add_special_tokens=False)["input_ids"]) for part in text]
        for layer in found.layers:
            maps = layer_attention(model, tiny_tokenizer, text, layer).weights
            ids = tiny_tokenizer(*text)["input_ids"]
            expected = np.array([by_hand(weights, *sizes, ids) for weights in maps])
            distance = np.abs(found.shares[layer] - expected).max((1, 2))
            assert distance.min() < 1e-5
    matching = found.mean(found.layers[0])[:, ROLES.index(MATCHING)]
    assert (matching > 0.02).all()  # untrained heads look everywhere, and all pairs share a token


def test_a_pruned_models_experts_have_the_roles_of_their_own(tiny_routed, tiny_tokenizer):
    for family in ("bert", "mpnet"):
        model = tiny_routed(family)
        plan = PruningPlan(((1, LayerPlan((1, 3), (0.5, 0.5))), (2, LayerPlan((0,), (1.0,)))))
        pruned = attention_roles(prune(model, plan), tiny_tokenizer, pairs())
        assert pruned.layers == [1, 2]
        whole = attention_roles(model, tiny_tokenizer, pairs())
        assert pruned.shares[1] == pytest.approx(whole.shares[1][:, [1, 3]], abs=1e-5)
        assert pruned.shares[2].shape == (7, 1, len(ROLES))
        assert pruned.mean(2).sum(-1) == pytest.approx([1.0], abs=1e-5)


def test_shares_sum_to_one_and_single_texts_have_no_other(tiny_routed, tiny_tokenizer, tiny_data):
    seen = []
    found = attention_roles(
        tiny_routed(), tiny_tokenizer, tiny_data(40), inputs=20, progress=lambda *done: seen.append(done)
    )
    assert seen[-1] == (20, 20)
    assert found.n == 20
    assert found.roles == ROLES[:-2]
    for layer in found.layers:
        assert found.mean(layer).sum(-1) == pytest.approx(np.ones(4), abs=1e-5)
        ends = found.interval(layer)
        assert (ends[..., 0] <= found.mean(layer) + 1e-6).all()
        assert (ends[..., 1] >= found.mean(layer) - 1e-6).all()


def test_an_expert_that_looks_at_itself(tiny_routed, tiny_tokenizer, tiny_data, monkeypatch):
    model = tiny_routed()

    def only_itself(hidden_states, *_):
        return torch.eye(hidden_states.shape[1]).expand(len(hidden_states), 4, -1, -1)

    for module in expert_layers(model).values():
        monkeypatch.setattr(module, "attention_maps", only_itself)
    mean = attention_roles(model, tiny_tokenizer, tiny_data(9)).mean(1)
    assert mean[:, ROLES.index(ITSELF)] == pytest.approx(np.ones(4))


def test_kept_heads_of_the_narrow_control_are_those_of_the_dense_model(
    tiny_routed, tiny_model, tiny_tokenizer, tiny_data
):
    data, model = tiny_data(6), tiny_routed(control="narrow", layers=(0,))
    found = attention_roles(model, tiny_tokenizer, data)
    assert found.layers == [0]
    whole = attention_roles(convert(tiny_model(), ShrpConfig((0,))), tiny_tokenizer, data)
    (head,) = encoder_layers(model)[0].heads
    assert found.mean(0)[0] == pytest.approx(whole.mean(0)[head], abs=1e-5)


def test_a_typed_separator_begins_no_other_text(tiny_routed, tiny_tokenizer):
    model, sep = tiny_routed(), tiny_tokenizer.sep_token
    data = TextData(TASKS["sst2"], "typed", ((f"w1 {sep} w2 w3",), ("w4 w5",)), None)
    assert attention_roles(model, tiny_tokenizer, data).shares[1].sum(-1) == pytest.approx(
        np.ones((2, 4)), abs=1e-5
    )
    text = (f"w1 {sep} w2 w3 w4", "w5")
    found = attention_roles(model, tiny_tokenizer, TextData(TASKS["mrpc"], "typed", (text,), None))
    maps = layer_attention(model, tiny_tokenizer, text, 1).weights
    (row,) = encode(tiny_tokenizer, [text], 128)
    expected = [
        by_hand(weights, 5, 1, row["input_ids"]) for weights in maps
    ]  # what was typed is a token as any other
    assert found.shares[1][0] == pytest.approx(np.array(expected), abs=1e-5)


def test_what_can_not_be_seen(tiny_model, tiny_routed, tiny_tokenizer, tiny_data):
    with pytest.raises(PlanError, match="no layers of experts"):
        attention_roles(tiny_model(), tiny_tokenizer, tiny_data(4))
    empty = TextData(TASKS["sst2"], "blank", (("",),) * 3, None)
    with pytest.raises(DataError, match="token of its own"):
        attention_roles(tiny_routed(), tiny_tokenizer, empty)
    with pytest.raises(DataError, match="empty"):
        attention_roles(tiny_routed(), tiny_tokenizer, TextData(TASKS["sst2"], "none", (), None))
    spoilt = tiny_routed()
    with torch.no_grad():
        expert_layers(spoilt)[1].qkv_weight.fill_(np.nan)
    with pytest.raises(DataError, match="spoilt"):
        attention_roles(spoilt, tiny_tokenizer, tiny_data(4))
    one = AttentionRoles("d", ROLES, {1: np.full((1, 2, 8), 1 / 8, dtype=np.float32)})
    assert np.isnan(one.interval(1)).all()
    alike = AttentionRoles("d", ROLES, {1: np.full((5, 2, 8), 1 / 8, dtype=np.float32)})
    assert np.isnan(alike.interval(1)).all()


def test_intervals_of_few_inputs_hold_the_mean_as_often_as_they_say():
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        shares = rng.normal(0.5, 0.1, size=(3, 1, 1)).astype(np.float32)
        low, high = AttentionRoles("d", ROLES[:1], {1: shares}).interval(1)[0, 0]
        held.append(low <= 0.5 <= high)
    assert 0.92 < np.mean(held) < 0.98
