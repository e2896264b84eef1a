"""Hidden states exchanged within minimal pairs."""

import numpy as np
import pytest

from shrp.data import TextData
from shrp.errors import DataError
from shrp.families import encoder_layers
from shrp.pairs_patched import KINDS, PairsPatched, patch_pairs
from shrp.patching import patch
from shrp.tasks import TASKS

SST2 = TASKS["sst2"]
TEXTS = (("w1 w2 w3",), ("w1 w9 w3",), ("w4 w5",), ("w4 w5 w6",), ("w7 w8 w9",), ("w7 w1 w2",))


def data(task=SST2, texts=TEXTS, labels=(0, 1, 0, 1, 1, 0), pairs=("a", "a", "b", "b", "c", "c")):
    return TextData(task, "mine", texts, np.array(labels), pairs=pairs)


def test_single_states_do_what_patching_does(tiny_routed, tiny_tokenizer, tiny_family):
    model, seen = tiny_routed(tiny_family, layers=(0, 2)), []
    found = patch_pairs(model, tiny_tokenizer, data(), progress=lambda *at: seen.append(at))
    assert found.pairs.tolist() == [[0, 1], [5, 4]]  # the smaller label first
    assert found.left_out == 1
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for direction, (into, donor) in enumerate([(0, 1), (1, 0)]):
        one = patch(model, tiny_tokenizer, SST2, TEXTS[into], TEXTS[donor])
        lead = one.logits[..., 1] - one.logits[..., 0] - (one.own[1] - one.own[0])  # (L, T)
        gap = (one.other[1] - one.other[0]) - (one.own[1] - one.own[0])
        assert found.gaps[0, direction] == pytest.approx(gap, abs=1e-5)
        np.testing.assert_allclose(found.moved[0, direction, :, 0], lead[:, 0], atol=1e-5)
        np.testing.assert_allclose(
            found.moved[0, direction, :, 1], lead[:, 2], atol=1e-5
        )  # the one that differs


def test_below_all_layers_what_differs_is_the_whole_way(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(0, 2))
    found = patch_pairs(model, tiny_tokenizer, data())
    np.testing.assert_allclose(found.moved[:, :, 0, 1], found.gaps, atol=1e-5)
    np.testing.assert_allclose(found.moved[:, :, 0, [0, 2]], 0, atol=1e-5)
    assert found.moved.shape == (2, 2, len(encoder_layers(model)), 3)
    frame = found.table()
    assert frame.loc[frame["layer"] == 0, "part"].tolist() == pytest.approx([0, 1, 0], abs=1e-4)
    assert frame["kind"].tolist() == [*KINDS] * found.moved.shape[2]


def test_parts_are_sums_over_pairs_and_directions_whichever_way_they_go():
    gaps = np.array([[2.0, -2.0], [-1.0, 1.0]])
    moved = np.zeros((2, 2, 1, 3))
    moved[0, :, 0, 0] = [1.0, -1.0]  # half of the way, both times
    moved[1, :, 0, 0] = [0.5, 0.5]  # half of it the wrong way, and half of it
    moved[1, :, 0, 1] = [-1.0, 1.0]
    found = PairsPatched(np.array([[0, 1], [2, 3]]), 0, gaps, moved)
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
    one = patch(model, tiny_tokenizer, task, texts[0], texts[1])
    gap = (one.other[2] - one.other[0]) - (one.own[2] - one.own[0])
    assert found.gaps[0, 0] == pytest.approx(gap, abs=1e-5)


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
