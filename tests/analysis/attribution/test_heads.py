"""A head of a dense layer that is knocked out adds nothing, and nothing else changes but what follows from it."""

import copy
import threading

import numpy as np
import pytest
import torch

from shrp.analysis import importance
from shrp.analysis.importance import dense_layers, head_knock_outs, worth_by_group
from shrp.data.batching import collate, encode
from shrp.data.slices import groups_by
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import label_columns
from shrp.families.families import encoder_layers, family_of
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.model.gates import play_back, record_routing, use_gates
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

HEADS, SIZE = 4, 6


def outputs(model, tokenizer, data, rows):
    batch = collate(tokenizer, encode(tokenizer, [data.texts[i] for i in rows]), range(len(rows)))
    with torch.no_grad():
        return model(**batch).logits.numpy()[:, label_columns(model, data.task)]


def by_hand(model, layer, head):
    """A copy of the model whose `W_o` has zeros where the head's output is read."""
    found = copy.deepcopy(model)
    projection = encoder_layers(found)[layer].get_submodule(family_of(found).attention_out)
    with torch.no_grad():
        projection.weight[:, SIZE * head : SIZE * (head + 1)] = 0.0
    return found


def test_a_head_is_zeroed_as_by_zeros_in_the_output_projection(
    tiny_family, tiny_attention, tiny_model, tiny_data, tiny_tokenizer
):
    model, data, rows = tiny_model(tiny_family, attn=tiny_attention), tiny_data(8), np.array([5, 0, 3, 6])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules, done = [id(module) for module in model.modules()], []
    found = head_knock_outs(model, tiny_tokenizer, data, rows, progress=lambda *step: done.append(step))
    assert found.layers == (0, 1, 2)
    assert found.knocked_out.shape == (4, 3, HEADS, 2)
    np.testing.assert_allclose(found.base, outputs(model, tiny_tokenizer, data, rows), atol=1e-5)
    for layer in range(3):
        for head in range(HEADS):
            expected = outputs(by_hand(model, layer, head), tiny_tokenizer, data, rows)
            np.testing.assert_allclose(found.knocked_out[:, layer, head], expected, atol=1e-5)
    assert np.abs(found.effects(1)).mean((0,)).min() > 1e-3  # each one of them does something
    assert found.fires.all()
    assert (found.top1 == 1).all()
    assert done[0] == (3, 24)  # a head of the lowest layer runs all three
    assert done[-1] == (24, 24)
    assert len(done) == 12
    assert [id(module) for module in model.modules()] == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_routers_above_route_as_they_then_would(tiny_family, routing, tiny_routed, tiny_data, tiny_tokenizer):
    model, data, rows = tiny_routed(tiny_family, routing=routing), tiny_data(12), np.arange(12)
    found = head_knock_outs(model, tiny_tokenizer, data, rows)
    assert found.layers == (0,)
    with record_routing() as record:
        outputs(model, tiny_tokenizer, data, rows)
    apart = 0.0
    for head in range(HEADS):
        without = by_hand(model, 0, head)
        rerouted = outputs(without, tiny_tokenizer, data, rows)
        np.testing.assert_allclose(found.knocked_out[:, 0, head], rerouted, atol=1e-5)
        with use_gates(play_back(record)):
            apart = max(apart, np.abs(rerouted - outputs(without, tiny_tokenizer, data, rows)).max())
    assert apart > 1e-3  # the routes as they were would have given something else


def test_blocks_merged_are_as_one_run_and_deal_to_groups(tiny_model, tiny_data, tiny_tokenizer):
    model, data = tiny_model("bert"), tiny_data(40)
    parts = [head_knock_outs(model, tiny_tokenizer, data, rows) for rows in importance.blocks(data, 40)]
    assert [part.n for part in parts] == [32, 8]
    found = importance.merge(parts)
    whole = head_knock_outs(model, tiny_tokenizer, data, data.stratified_order()[:40])
    for name in ("rows", "top1", "fires"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for name in ("base", "knocked_out"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-5)
    table = found.table(data, None)
    assert len(table) == 12
    assert (table["effect_per_use"] == table["effect"]).all()
    frame = worth_by_group(found, data, groups_by("slice", data))
    assert (frame["uses"] == frame["n"]).all()
    assert frame["p"].notna().all()


def test_only_dense_layers_have_heads(tiny_model, tiny_routed, tiny_data, tiny_tokenizer):
    data = tiny_data(4)
    pruned = prune(tiny_routed("bert"), make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.25] * 4}, per_layer=1))
    uniform = convert(tiny_model("bert"), ShrpConfig((1, 2), control="uniform"))
    dropped = convert(tiny_model("bert"), ShrpConfig((0, 2), control="dropped"))
    narrow = tiny_routed("bert", control="narrow")
    for model, layers in ((pruned, [0]), (uniform, [0]), (dropped, [1]), (narrow, [0])):
        assert dense_layers(model) == layers
        found = head_knock_outs(model, tiny_tokenizer, data, range(4))
        assert found.layers == tuple(layers)
        expected = outputs(by_hand(model, layers[0], 2), tiny_tokenizer, data, range(4))
        np.testing.assert_allclose(found.knocked_out[:, 0, 2], expected, atol=1e-5)
    with pytest.raises(PlanError, match="no dense layer"):
        head_knock_outs(tiny_routed("bert", layers=(0, 1, 2)), tiny_tokenizer, data, range(4))
    with pytest.raises(DataError, match="empty"):
        head_knock_outs(narrow, tiny_tokenizer, data, [])


def test_threads_share_a_model(tiny_routed, tiny_data, tiny_tokenizer, eager_switching):
    model, wrong = tiny_routed("bert"), []
    sets = [tiny_data(6, seed) for seed in range(4)]
    alone = [head_knock_outs(model, tiny_tokenizer, data, range(6)).knocked_out for data in sets]

    def work(data, expected):
        for _ in range(3):
            found = head_knock_outs(model, tiny_tokenizer, data, range(6)).knocked_out
            wrong.append(not np.allclose(found, expected, atol=1e-5))

    threads = [threading.Thread(target=work, args=each) for each in zip(sets, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 12
    assert not any(wrong)
