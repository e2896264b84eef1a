"""Hidden states of one input put into another."""

import numpy as np
import pytest
import torch

from shrp.analysis.patching import Patched, aligned, patch
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
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


@pytest.mark.parametrize(
    ("family", "routing"),
    [("bert", "sequence"), ("bert", "token"), ("distilbert", "token"), ("mpnet", "sequence"), ("deberta-v2", "token")],
)
def test_a_state_is_put_in_as_by_hand(tiny_routed, tiny_tokenizer, family, routing):
    model = tiny_routed(family, layers=(0, 2), routing=routing)
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


def test_a_small_gap_is_not_divided():
    near = made([2.0], [2.03], [[[1.0], [2.5]]], "stsb")
    assert np.isnan(near.parts).all()
    assert near.strongest() == [0]  # the furthest, either way
    assert near.to_frame()["part of the gap"].isna().all()
    assert not np.isnan(made([0.2], [0.29], [[[0.25]]], "stsb").parts).any()  # of another scale
    assert np.isnan(made([1.0, 0.0], [1.05, 0.0], [[[2.0, 0.0]]]).parts).all()
    assert not np.isnan(made([1.0, 0.0], [1.2, 0.0], [[[2.0, 0.0]]]).parts).any()
