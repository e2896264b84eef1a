"""Experts and heads knocked out on a data set: as by hand, by slice, and what their intervals count."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis import importance
from shrp.analysis.attribution import experts, instance
from shrp.analysis.usage import measure_usage
from shrp.data.batching import collate, encode
from shrp.data.slices import SLICE, groups_by
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import label_columns
from shrp.evaluation.metrics import worth
from shrp.families.families import encoder_layers, family_of
from tests.analysis.attribution.conftest import SST2


@pytest.mark.parametrize("name", ["routed", "token_routed"])
def test_knock_outs_on_data_equal_one_input_at_a_time(request, tiny_data, tiny_tokenizer, name):
    model, data = request.getfixturevalue(name), tiny_data(7)
    rows = np.array([3, 0, 6, 5])
    found = importance.knock_outs(model, tiny_tokenizer, data, rows)
    for i, row in enumerate(rows):
        one = instance.prepare(model, tiny_tokenizer, SST2, data.texts[row])
        for output in (0, 1):
            alone = experts.knock_out_scores(one, output, importance.MEANINGS[0])
            np.testing.assert_allclose(found.effects(output)[i], alone.values, atol=2e-5)
        np.testing.assert_array_equal(found.fires[i], alone.fires)
    part = replace(data, texts=tuple(data.texts[row] for row in rows), labels=data.labels[rows], slices=None)
    usage = measure_usage(model, tiny_tokenizer, part)
    table = found.table(data, None).set_index(["layer", "expert"])["usage"]
    for layer in usage.layers:  # the same as in plans
        np.testing.assert_allclose(table[layer], usage.share(layer))
    assert not found.effects(1)[~found.fires].any()


def test_the_table_of_a_data_set(routed, tiny_data, tiny_tokenizer):
    data = tiny_data(40)
    order = list(importance.blocks(data, 40))
    assert [len(block) for block in order] == [32, 8]
    done = []
    found = importance.in_turn(routed, tiny_tokenizer, data, progress=lambda *step: done.append(step))
    assert done[-1] == (40, 40)
    assert found.n == 40
    assert sorted(found.rows) == list(range(40))
    table = found.table(data, None)
    assert len(table) == 12
    own = found.base.argmax(1)
    labels = data.labels[found.rows]
    for row in table.itertuples():
        place = found.layers.index(row.layer)
        changed = found.knocked_out[:, place, row.expert]
        drop = found.base[np.arange(40), own] - changed[np.arange(40), own]
        assert row.signed == pytest.approx(drop.mean(), abs=1e-6)
        assert row.effect == pytest.approx(np.abs(drop).mean(), abs=1e-6)
        if row.uses:
            assert row.signed_low <= row.signed <= row.signed_high
        else:  # these inputs say nothing of others
            assert np.isnan([row.signed_low, row.signed_high]).all()
        lost = (own == labels).mean() - (changed.argmax(1) == labels).mean()
        assert row.score_lost == pytest.approx(lost)
        assert row.score_lost_low <= row.score_lost <= row.score_lost_high
        assert row.flips == (changed.argmax(1) != own).sum()
        if not row.uses:
            assert (row.effect, row.score_lost) == (0, 0)
    assert table.groupby("layer")["usage"].sum().tolist() == pytest.approx([1, 1, 1])
    sizes = found.sizes()
    for layer, rows in table.groupby("layer"):
        assert sizes[layer].tolist() == pytest.approx(rows["effect"].tolist())


def test_both_of_a_minimal_pair_count_as_one_in_the_intervals(routed, tiny_data, tiny_tokenizer):
    """Here they are the same text twice, so the second one of each says nothing more."""
    single = tiny_data(30)
    twice = replace(
        single,
        texts=tuple(text for text in single.texts for _ in (0, 1)),
        labels=np.tile([0, 1], 30),
        slices=None,
        pairs=tuple(f"pair {i // 2}" for i in range(60)),
    )
    rows = np.random.default_rng(0).permutation(60)
    found = importance.knock_outs(routed, tiny_tokenizer, twice, rows).table(twice, 1)
    once = importance.knock_outs(routed, tiny_tokenizer, single, np.arange(30)).table(single, 1)
    for end in ("signed_low", "signed_high", "effect_low", "effect_high"):
        np.testing.assert_allclose(found[end], once[end], atol=1e-5)
    bare = replace(twice, pairs=None)
    outputs = importance.knock_outs(routed, tiny_tokenizer, bare, rows)
    alone = outputs.table(bare, 1)
    known = alone["signed_low"].notna()
    widths = [(one["signed_high"] - one["signed_low"])[known] for one in (found, alone)]
    assert (widths[0] > 1.3 * widths[1]).all()


# Heads of dense layers: one that is knocked out adds nothing, and nothing else changes but what follows from it

HEADS, SIZE = 4, 6


def outputs(model, tokenizer, data, rows):
    batch = collate(tokenizer, encode(tokenizer, [data.texts[i] for i in rows]), range(len(rows)))
    with torch.no_grad():
        return model(**batch).logits.numpy()[:, label_columns(model, data.task)]


def without_head(model, layer, head):
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
    found = importance.knock_outs(
        model, tiny_tokenizer, data, rows, progress=lambda *step: done.append(step), heads=True
    )
    assert found.layers == (0, 1, 2)
    assert found.knocked_out.shape == (4, 3, HEADS, 2)
    np.testing.assert_allclose(found.base, outputs(model, tiny_tokenizer, data, rows), atol=1e-5)
    for layer in range(3):
        for head in range(HEADS):
            expected = outputs(without_head(model, layer, head), tiny_tokenizer, data, rows)
            np.testing.assert_allclose(found.knocked_out[:, layer, head], expected, atol=1e-5)
    assert np.abs(found.effects(1)).mean((0,)).min() > 1e-3  # each one of them does something
    assert found.fires.all()
    assert (found.top1 == 1).all()
    steps = np.cumsum([len(rows) * above for above in (3, 2, 1) for _ in range(HEADS)])  # layers that run
    assert done == [(step, steps[-1]) for step in steps]
    assert [id(module) for module in model.modules()] == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Where each expert matters: planted effects are found, others are not, and rare experts are not tested

N = 120


def effects(labels, change, fires):
    """Knock-outs of a layer of experts whose change of the true class's logit `(N, H)` is given."""
    n, experts = change.shape
    outputs = np.zeros((n, SST2.num_labels), dtype=np.float32)
    knocked = np.broadcast_to(outputs[:, None, None], (n, 1, experts, SST2.num_labels)).copy()
    for expert in range(experts):
        knocked[np.arange(n), 0, expert, labels] -= change[:, expert]
    return importance.KnockOuts(SST2, (3,), np.arange(n), outputs, knocked, fires[:, None], fires[:, None])


def test_what_an_expert_is_worth_to_each_slice():
    """Experts: one helps in slice a alone, one helps everywhere, one does nothing, and one is hardly used."""
    rng = np.random.default_rng(0)
    labels, slices = rng.integers(2, size=N), ["a"] * 30 + ["b"] * 50 + ["c"] * 40
    change = np.zeros((N, 4), dtype=np.float32)
    fires = rng.random((N, 4)) < 0.5
    fires[:, 3] = np.arange(N) < importance.FEWEST - 1
    noise = rng.normal(0, 0.1, (N, 4)).astype(np.float32)
    change[:30, 0] = 1.0
    change[:, 1] = 0.5
    change[:, 3] = 2.0
    data = TextData(SST2, "some", tuple((f"w{i}",) for i in range(N)), labels, tuple(slices))
    found, done = effects(labels, (change + noise) * fires, fires), []
    frame = importance.worth_by_group(
        found, data, groups_by(SLICE, data), progress=lambda *step: done.append(step)
    ).set_index(["expert", "group"])
    assert len(frame) == 12
    assert done[-1][0] == done[-1][1] >= 2000
    lost = worth(SST2, found.base, data.labels)[:, None] - worth(SST2, found.knocked_out[:, 0], data.labels)
    for expert, group, rows in ((0, "a", slice(0, 30)), (1, "c", slice(80, 120))):
        cell, others = frame.loc[expert, group], np.delete(lost[:, expert], rows)
        assert cell["lost"] == pytest.approx(lost[rows, expert].mean())
        assert cell["elsewhere"] == pytest.approx(others.mean())
        assert cell["difference"] == pytest.approx(lost[rows, expert].mean() - others.mean())
        assert cell["uses"] == found.fires[rows, 0, expert].sum()
        assert cell["n"] == rows.stop - rows.start
    assert frame.loc[3, ["p", "q"]].isna().all(axis=None)  # too few inputs to tell
    sure = importance.beyond_chance(frame.reset_index())
    assert sure[["expert", "group"]].to_numpy()[0].tolist() == [0, "a"]
    assert set(sure["expert"]) == {0}  # an expert that helps everywhere is not significant
    assert (frame["q"].dropna() >= frame["p"].dropna() - 1e-12).all()
