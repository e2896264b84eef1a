"""Hidden states of one input put into another."""

import numpy as np
import pytest
import torch

from shrp.analysis.patching import Patched, aligned, patch, work
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from shrp.evaluation.evaluate import batch_logits
from shrp.families.families import encoder_layers
from shrp.model.gates import record_routing

SST2 = TASKS["sst2"]
TEXT, DONOR = ("w1 w20 w33 w4 w50",), ("w1 w20 w7 w4 w50",)


def whole(model, tokenizer, text):
    return batch_logits(model, collate(tokenizer, encode(tokenizer, [text]), [0]))[0]


def by_hand(model, tokenizer, layer, place, donor_place):
    """Logits and experts with one state exchanged by a hook."""
    batches = [collate(tokenizer, encode(tokenizer, [text]), [0]) for text in (TEXT, DONOR)]
    module, kept = encoder_layers(model)[layer], []

    def keep(module, args, kwargs):
        kept.append((args[0] if args else kwargs["hidden_states"])[0, donor_place].clone())

    def put(module, args, kwargs):
        states = (args[0] if args else kwargs["hidden_states"]).clone()
        states[0, place] = kept[0]
        return (states, *args[1:]), {k: v for k, v in kwargs.items() if k != "hidden_states"}

    with torch.no_grad():
        hook = module.register_forward_pre_hook(keep, with_kwargs=True)
        model(**batches[1])
        hook.remove()
        hook = module.register_forward_pre_hook(put, with_kwargs=True)
        with record_routing() as record:
            logits = model(**batches[0]).logits[0].numpy()
        hook.remove()
    return logits, {row: record.last(row).gates[0] != 0 for row in record.layers}


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_a_state_is_put_in_as_by_hand(tiny_routed, tiny_tokenizer, tiny_family, routing):
    model = tiny_routed(tiny_family, layers=(0, 2), routing=routing)
    found = patch(model, tiny_tokenizer, SST2, TEXT, DONOR)
    layers, tokens = len(encoder_layers(model)), len(found.tokens)
    assert found.logits.shape == (layers, tokens, 2)
    with torch.no_grad(), record_routing() as record:
        model(**collate(tiny_tokenizer, encode(tiny_tokenizer, [TEXT]), [0]))
    own = {row: record.last(row).gates[0] != 0 for row in record.layers}
    for layer in range(layers):
        for place in (0, 3, tokens - 1):
            logits, fires = by_hand(model, tiny_tokenizer, layer, place, place)
            np.testing.assert_allclose(found.logits[layer, place], logits, atol=1e-5)
            changed = 0
            for row in own:
                differ = (fires[row] != own[row]).any(-1)
                if routing == "token":
                    differ[place] = False
                changed += bool(differ.any()) if row >= layer else 0
            assert found.rerouted[layer, place] == changed
    np.testing.assert_allclose(found.own, whole(model, tiny_tokenizer, TEXT), atol=1e-5)
    np.testing.assert_allclose(found.other, whole(model, tiny_tokenizer, DONOR), atol=1e-5)


def test_the_one_word_that_differs_is_all_the_difference_below(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(0, 2))
    found = patch(model, tiny_tokenizer, SST2, TEXT, DONOR)
    place = 3
    assert (found.tokens[place], found.donors[place]) == ("w33", "w7")
    np.testing.assert_allclose(found.logits[0, place], found.other, atol=1e-5)
    assert found.moved[0, place] == pytest.approx(found.gap, abs=1e-5)
    others = [i for i in range(len(found.tokens)) if i != place]
    np.testing.assert_array_equal(found.logits[0, others], np.broadcast_to(found.own, (len(others), 2)))
    assert found.strongest()[0] == place
    assert found.rerouted[0, others].max() == 0


@pytest.mark.parametrize(
    ("donor", "partners", "missing"),
    [
        (("w1 w33 w4 w50",), [0, 1, -1, 2, 3, 4, 5], [2]),  # a word less
        (("w1 w20 w9 w33 w4 w50",), [0, 1, 2, 4, 5, 6, 7], []),  # a word more
        (("w1 w8 w9 w4 w50",), [0, 1, 2, 3, 4, 5, 6], []),
    ],
)
def test_texts_of_other_lengths_are_aligned(tiny_routed, tiny_tokenizer, donor, partners, missing):
    ids = [row["input_ids"] for row in encode(tiny_tokenizer, [TEXT, donor])]
    parts = [[None, *[0] * (len(row) - 2), None] for row in ids]
    assert aligned(*ids, *parts).tolist() == partners
    found = patch(tiny_routed("bert", layers=(1,)), tiny_tokenizer, SST2, TEXT, donor)
    assert [i for i, name in enumerate(found.donors) if name is None] == missing
    assert np.isnan(found.logits[:, missing]).all()
    assert not np.isnan(np.delete(found.logits, missing, axis=1)).any()
    frame = found.to_frame()
    assert len(frame) == 3 * (7 - len(missing))
    assert set(frame["position"]) == set(range(7)) - set(missing)


def test_texts_of_a_pair_are_aligned_each_with_its_own(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(1,))
    found = patch(model, tiny_tokenizer, TASKS["mrpc"], ("w1 w2", "w3 w4"), ("w9 w1 w2", "w4 w3"))
    assert found.tokens == ("[CLS]", "w1", "w2", "[SEP]", "w3", "w4", "[SEP]")
    assert found.donors == ("[CLS]", "w1", "w2", "[SEP]", "w4", "w3", "[SEP]")


def test_batches_change_nothing(tiny_routed, tiny_tokenizer, monkeypatch):
    model, seen = tiny_routed("bert", layers=(0, 2)), []
    once = patch(model, tiny_tokenizer, SST2, TEXT, ("w9 w8 w7 w6 w5",))
    monkeypatch.setattr("shrp.analysis.patching.TOKENS_AT_ONCE", 1)
    again = patch(
        model, tiny_tokenizer, SST2, TEXT, ("w9 w8 w7 w6 w5",), progress=lambda *at: seen.append(at)
    )
    np.testing.assert_allclose(once.logits, again.logits, atol=1e-5)
    np.testing.assert_array_equal(once.rerouted, again.rerouted)
    assert seen == sorted(seen)
    assert seen[-1] == (21, 21)


def test_what_only_the_donor_has_is_left_out_and_said(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(1,))
    found = patch(model, tiny_tokenizer, SST2, ("w1 w2 w3",), ("w1 w8 w9 w2 w3",))
    assert found.donors == ("[CLS]", "w1", "w2", "w3", "[SEP]")
    assert found.left_out == ("w8", "w9")
    assert patch(model, tiny_tokenizer, SST2, TEXT, DONOR).left_out == ()


def test_several_experts_of_a_layer_and_labels_in_another_order(tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", layers=(0, 2), top_k=2)
    model.config.id2label = {0: "positive", 1: "negative"}
    model.config.label2id = {"positive": 0, "negative": 1}
    found = patch(model, tiny_tokenizer, SST2, TEXT, DONOR)
    logits, fires = by_hand(model, tiny_tokenizer, 1, 3, 3)
    np.testing.assert_allclose(found.logits[1, 3], logits[::-1], atol=1e-5)
    with torch.no_grad(), record_routing() as record:
        model(**collate(tiny_tokenizer, encode(tiny_tokenizer, [TEXT]), [0]))
    own = record.last(2).gates[0] != 0
    assert own.sum() == 2
    assert found.rerouted[1, 3] == (fires[2] != own).any()


@pytest.mark.parametrize("control", ["uniform", "dropped"])
def test_layers_without_routers_reroute_nothing(tiny_routed, tiny_tokenizer, control):
    found = patch(tiny_routed("bert", layers=(0, 2), control=control), tiny_tokenizer, SST2, TEXT, DONOR)
    assert found.rerouted is None
    np.testing.assert_allclose(found.logits[0, 3], found.other, atol=1e-5)


def test_work_goes_with_layers_and_the_square_of_tokens(tiny_model):
    model = tiny_model()
    assert work(model, 20) == pytest.approx(4 * work(model, 10))
    weights = sum(p.numel() for layer in encoder_layers(model) for p in layer.parameters())
    assert work(model, 10) == pytest.approx(100 * 3 * weights / 2)


def made(own, other, logits, task="sst2"):
    logits = np.array(logits, dtype=float)
    tokens = tuple(f"t{i}" for i in range(logits.shape[1]))
    return Patched(TASKS[task], tokens, tokens, (), np.array(own), np.array(other), logits, None)


def test_the_lead_is_of_the_donors_answer():
    found = made([2.0, 1.0], [0.0, 3.0], [[[1.0, 1.5], [2.0, 1.0], [np.nan, np.nan]]])
    assert found.contrast == (1, 0)
    assert (found.start, found.gap) == (-1.0, 4.0)
    np.testing.assert_allclose(found.moved, [[1.5, 0.0, np.nan]])
    assert found.flips.tolist() == [[True, False, False]]
    assert found.strongest() == [0]
    frame = found.to_frame()
    assert frame["part of the gap"].tolist() == [0.375, 0.0]
    assert list(frame)[4:] == ["logit negative", "logit positive", "change", "part of the gap"]


def test_where_both_answer_alike_it_is_of_the_next_class():
    found = made([3.0, 1.0, 2.0], [4.0, 2.0, 1.0], [[[3.0, 1.0, 4.0]]], "mnli")
    assert found.contrast == (2, 0)
    assert (found.start, found.gap) == (-1.0, -2.0)
    assert found.moved.tolist() == [[2.0]]
    assert found.flips.tolist() == [[True]]


def test_of_a_number_it_is_the_output():
    found = made([2.0], [4.5], [[[3.0], [1.0]]], "stsb")
    assert found.contrast is None
    assert (found.start, found.gap) == (2.0, 2.5)
    assert not found.flips.any()
    assert found.strongest() == [0]
    assert found.measured == "the output"


def test_a_small_gap_is_not_divided():
    near = made([2.0], [2.03], [[[1.0], [2.5]]], "stsb")
    assert np.isnan(near.parts).all()
    assert near.strongest() == [0]  # the furthest, either way
    assert near.to_frame()["part of the gap"].isna().all()
    assert not np.isnan(made([0.2], [0.29], [[[0.25]]], "stsb").parts).any()  # of another scale
    assert np.isnan(made([1.0, 0.0], [1.05, 0.0], [[[2.0, 0.0]]]).parts).all()
    assert not np.isnan(made([1.0, 0.0], [1.2, 0.0], [[[2.0, 0.0]]]).parts).any()


def test_models_without_routers_reroute_nothing(tiny_model, tiny_tokenizer):
    found = patch(tiny_model(), tiny_tokenizer, SST2, TEXT, DONOR)
    assert found.rerouted is None
    assert "layers routed anew" not in found.to_frame()


def test_what_is_too_long_or_no_input_is_refused(tiny_routed, tiny_tokenizer, monkeypatch):
    model = tiny_routed("bert", layers=(1,))
    with pytest.raises(DataError, match=r"has 1 text\(s\), not 2"):
        patch(model, tiny_tokenizer, SST2, TEXT, ("w1", "w2"))
    monkeypatch.setattr("shrp.analysis.patching.MOST", 6)
    with pytest.raises(DataError, match="at most 6 tokens"):
        patch(model, tiny_tokenizer, SST2, DONOR, TEXT)
