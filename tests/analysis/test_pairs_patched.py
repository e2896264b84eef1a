"""Hidden states exchanged within minimal pairs."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from shrp.analysis.pairs_patched import KINDS, PairsPatched, patch_pairs, work
from shrp.analysis.patching import patch
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.families.families import encoder_layers
from shrp.model.partial import run_from

SST2 = TASKS["sst2"]
TEXTS = (("w1 w2 w3",), ("w1 w9 w3",), ("w4 w5",), ("w4 w5 w6",), ("w7 w8 w9",), ("w7 w1 w2",))


def data(task=SST2, texts=TEXTS, labels=(0, 1, 0, 1, 1, 0), pairs=("a", "a", "b", "b", "c", "c")):
    return TextData(task, "mine", texts, np.array(labels), pairs=pairs)


def test_single_states_do_what_patching_does(tiny_routed, tiny_tokenizer, tiny_family):
    model, seen = tiny_routed(tiny_family, layers=(0, 2)), []
    found = patch_pairs(model, tiny_tokenizer, data(), progress=lambda *at: seen.append(at))
    assert found.pairs.tolist() == [[0, 1], [5, 4]]  # the smaller label first
    assert (found.left_out, found.not_drawn) == (1, 0)
    assert seen[-1] == (2, 2)
    for direction, (into, donor) in enumerate([(0, 1), (1, 0)]):
        one = patch(model, tiny_tokenizer, SST2, TEXTS[into], TEXTS[donor])
        start = one.own[1] - one.own[0]
        lead = one.logits[..., 1] - one.logits[..., 0] - start  # (L, T)
        assert found.gaps[0, direction] == pytest.approx(one.other[1] - one.other[0] - start, abs=1e-5)
        np.testing.assert_allclose(found.moved[0, direction, :, 0], lead[:, 0], atol=1e-5)
        np.testing.assert_allclose(found.moved[0, direction, :, 1], lead[:, 2], atol=1e-5)  # what differs


def test_all_others_are_put_in_as_by_hand(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(0, 2))
    found = patch_pairs(model, tiny_tokenizer, data())
    inputs = collate(tiny_tokenizer, encode(tiny_tokenizer, list(TEXTS[:2])), [0, 1])
    with torch.no_grad():
        logits, entering = run_from(model, inputs, watch=[1, 2])
        for layer in (1, 2):
            states = entering[layer][:1].clone()
            states[0, [1, 3, 4]] = entering[layer][
                1, [1, 3, 4]
            ]  # not the first token, nor the one that differs
            one = {name: values[:1] for name, values in inputs.items()}
            changed = run_from(model, one, layer, states)[0][0] - logits[0]
            assert found.moved[0, 0, layer, 2] == pytest.approx(float(changed[1] - changed[0]), abs=1e-5)


def test_below_all_layers_what_differs_is_the_whole_way(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(0, 2))
    found = patch_pairs(model, tiny_tokenizer, data())
    np.testing.assert_allclose(
        found.moved[:, :, 0, 1], found.gaps, rtol=1e-12
    )  # of logits there is no rounding
    assert not found.moved[:, :, 0, [0, 2]].any()
    assert found.moved.shape == (2, 2, len(encoder_layers(model)), 3)
    frame = found.table()
    assert frame.loc[frame["layer"] == 0, "part"].tolist() == pytest.approx([0, 1, 0])
    assert frame.loc[frame["layer"] == 0, "low"].isna().all()
    assert frame["kind"].tolist() == [*KINDS] * found.moved.shape[2]


def test_batches_and_draws_change_nothing_else(tiny_routed, tiny_tokenizer, monkeypatch):
    model = tiny_routed("bert", layers=(1,))
    texts = tuple((f"w{i} w{label}",) for i in range(2, 12) for label in (0, 1))
    many = data(texts=texts, labels=(0, 1) * 10, pairs=tuple(str(i // 2) for i in range(20)))
    whole = patch_pairs(model, tiny_tokenizer, many)
    monkeypatch.setattr("shrp.analysis.pairs_patched.TOKENS_AT_ONCE", 1)
    np.testing.assert_allclose(patch_pairs(model, tiny_tokenizer, many).moved, whole.moved, atol=1e-5)
    some = patch_pairs(model, tiny_tokenizer, many, most=4)
    assert (some.n, some.not_drawn, some.left_out) == (4, 6, 0)
    places = [whole.pairs.tolist().index(pair) for pair in some.pairs.tolist()]
    np.testing.assert_allclose(some.moved, whole.moved[places], atol=1e-5)
    before = whole.table()
    monkeypatch.setattr("shrp.evaluation.metrics.RESAMPLE_CELLS", 10)
    pd.testing.assert_frame_equal(before, whole.table())


def test_pairs_that_are_alike_only_where_they_are_cut_are_left_out(tiny_routed, tiny_tokenizer):
    long = " ".join(f"w{i % 20}" for i in range(40))
    texts = ((long,), (f"{long} w3",), ("w1 w2",), ("w1 w4",))
    some = data(texts=texts, labels=(0, 1, 0, 1), pairs=("a", "a", "b", "b"))
    found = patch_pairs(tiny_routed("bert", layers=(1,)), tiny_tokenizer, some, max_length=16)
    assert (found.pairs.tolist(), found.left_out) == ([[2, 3]], 1)


def test_parts_are_sums_over_pairs_and_directions_whichever_way_they_go():
    gaps = np.array([[2.0, -2.0], [-1.0, 1.0]])
    moved = np.zeros((2, 2, 1, 3))
    moved[0, :, 0, 0] = [1.0, -1.0]  # half of the way, both times
    moved[1, :, 0, 0] = [0.5, 0.5]  # half of it the wrong way, and half of it
    moved[1, :, 0, 1] = [-1.0, 1.0]
    found = PairsPatched(np.array([[0, 1], [2, 3]]), 0, 0, gaps, moved)
    frame = found.table()
    assert frame["part"].tolist() == pytest.approx([2 / 6, 2 / 6, 0])
    assert frame["n"].tolist() == [2, 2, 2]
    first = frame.iloc[0]
    assert (first["low"], first["high"]) == pytest.approx((0.0, 0.5))
    assert np.isnan(frame["low"].iloc[2])  # nothing varies
    assert found.table(seed=1)["part"].tolist() == frame["part"].tolist()


def test_a_regression_has_its_output(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(1,), num_labels=1)
    texts = tuple((*text, "w3") for text in TEXTS)
    found = patch_pairs(model, tiny_tokenizer, data(TASKS["stsb"], texts, (1.0, 2.0, 1.0, 2.0, 4.0, 3.0)))
    one = patch(model, tiny_tokenizer, TASKS["stsb"], texts[0], texts[1])
    assert found.gaps[0].tolist() == pytest.approx([one.gap, -one.gap], abs=1e-5)


def test_three_classes_have_the_lead_of_the_pairs_own(tiny_routed, tiny_tokenizer):
    model, task = tiny_routed("bert", layers=(1,), num_labels=3), TASKS["mnli"]
    texts = tuple((*text, "w3") for text in TEXTS)
    found = patch_pairs(model, tiny_tokenizer, data(task, texts, (0, 2, 0, 1, 1, 0)))
    for pair, (into, donor), label in ((0, (0, 1), 2), (1, (5, 4), 1)):
        one = patch(model, tiny_tokenizer, task, texts[into], texts[donor])
        gap = (one.other[label] - one.other[0]) - (one.own[label] - one.own[0])
        assert found.gaps[pair, 0] == pytest.approx(gap, abs=1e-5)


def test_work_goes_with_tokens(tiny_model):
    model = tiny_model()
    weights = sum(p.numel() for layer in encoder_layers(model) for p in layer.parameters())
    assert work(model, 10) == pytest.approx(6 * 10 * 3 * weights / 2)


def test_where_there_is_nothing_to_follow_it_says_so(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(1,))
    with pytest.raises(DataError, match="mine has no minimal pairs"):
        patch_pairs(model, tiny_tokenizer, data(pairs=None))
    with pytest.raises(
        DataError, match="in none of the 1 minimal pairs of mine have both inputs as many tokens"
    ):
        patch_pairs(model, tiny_tokenizer, data(texts=TEXTS[2:4], labels=(0, 1), pairs=("b", "b")))
    same = (("w1 w2",), ("w1 w2",))
    with pytest.raises(DataError, match="about the same output"):
        patch_pairs(model, tiny_tokenizer, data(texts=same, labels=(0, 1), pairs=("a", "a")))
    number = copy.deepcopy(tiny_routed("bert", layers=(1,), num_labels=1))
    numbers = data(TASKS["stsb"], tuple((*text, "w3") for text in same), (1.0, 2.0), ("a", "a"))
    with pytest.raises(DataError, match="about the same output"):
        patch_pairs(number, tiny_tokenizer, numbers)
    with torch.no_grad():
        number.classifier.bias.fill_(float("nan"))
    with pytest.raises(DataError, match="not all finite numbers"):
        patch_pairs(number, tiny_tokenizer, numbers)
