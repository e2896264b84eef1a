"""Where experts' attention goes on average."""

import numpy as np
import pytest
import torch

from shrp.analysis.attention import ROLES, AttentionRoles, attention_roles, layer_attention
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.model.convert import expert_layers


def pairs(n=7):
    texts = tuple((f"w{i} w1 w2", " ".join(f"w{j}" for j in range(i + 1))) for i in range(n))
    return TextData(TASKS["mrpc"], "pairs", texts, np.arange(n) % 2)


def by_hand(weights, first, second, ids):
    """The roles in `[CLS] first [SEP] second [SEP]`, in a plain loop over tokens."""
    kinds = ["cls"] + ["a"] * first + ["sep"] + ["b"] * second + ["sep"] * (second > 0)
    assert len(ids) == len(kinds)
    found = np.zeros(len(ROLES))
    queries = [q for q, kind in enumerate(kinds) if kind in "ab"]
    for q in queries:
        for k, kind in enumerate(kinds):
            role = {"cls": 0, "sep": 1}.get(kind)
            if role is None and kind == kinds[q]:
                role = {0: 2, -1: 3, 1: 4}.get(k - q, 5)
            elif role is None:
                role = 6 if ids[k] == ids[q] else 7
            found[role] += weights[q, k] / len(queries)
    return found


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
    matching = found.mean(found.layers[0])[:, ROLES.index("same token, other text")]
    assert (matching > 0.02).all()  # untrained heads look everywhere, and all pairs share a token


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


def test_what_can_not_be_seen(tiny_model, tiny_routed, tiny_tokenizer, tiny_data):
    with pytest.raises(PlanError, match="no layers of experts"):
        attention_roles(tiny_model(), tiny_tokenizer, tiny_data(4))
    spoilt = tiny_routed()
    with torch.no_grad():
        expert_layers(spoilt)[1].qkv_weight.fill_(np.nan)
    with pytest.raises(DataError, match="spoilt"):
        attention_roles(spoilt, tiny_tokenizer, tiny_data(4))
    for n in (1, 5):  # one example, and equal ones
        found = AttentionRoles("d", ROLES, {1: np.full((n, 2, 8), 1 / 8, dtype=np.float32)})
        assert np.isnan(found.interval(1)).all()
