from dataclasses import replace

import numpy as np
import pytest

from shrp.analysis import importance
from shrp.analysis.attribution import experts, instance
from shrp.analysis.usage import measure_usage
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
