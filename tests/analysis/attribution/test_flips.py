import copy
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from shrp.analysis.attribution import flips, instance
from shrp.analysis.attribution.flips import fewest_words
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from shrp.model.gates import record_routing
from tests.analysis.attribution.helpers import MRPC, SST2, STSB, direct

MNLI = TASKS["mnli"]

WORDS = ["w1", "w20", "w33", "w4", "w50", "w17"]


def margins(model, tokenizer, words, answer, replaced):
    """By brute force: set of places -> logit of `answer` less the other one's, of each set of words."""
    found = {}
    for size in range(len(words) + 1):
        for places in combinations(range(len(words)), size):
            text = " ".join("[MASK]" if i in places else word for i, word in enumerate(words))
            if replaced == "remove":
                text = " ".join(word for i, word in enumerate(words) if i not in places)
            logits = direct(model, tokenizer, (text,))
            found[places] = float(logits[answer] - logits[1 - answer])
    return found


def shifted(model, by):
    """A copy whose first class has a logit larger by so much."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.classifier.bias[0] += by
    return moved


def layers_moved(model, tokenizer, places):
    """In how many layers the input takes other experts with those words masked."""
    records = []
    for gone in ((), places):
        with record_routing() as record:
            direct(
                model, tokenizer, (" ".join("[MASK]" if i in gone else word for i, word in enumerate(WORDS)),)
            )
        records.append(record)
    before, after = records
    return sum(
        bool(((before.last(layer).gates != 0) != (after.last(layer).gates != 0)).any())
        for layer in before.layers
    )


@pytest.mark.parametrize("replaced", ["mask", "remove"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_sets_are_those_of_brute_force(made, routed, tiny_tokenizer, size, replaced):
    text = " ".join(WORDS)
    free = margins(routed, tiny_tokenizer, WORDS, 1, replaced)
    lowest = [min(m for places, m in free.items() if len(places) == n) for n in range(len(WORDS) + 1)]
    # A bias at which sets of that size flip the answer, and no smaller ones do.
    bias = -(lowest[size] + min(lowest[:size])) / 2
    assert lowest[size] < min(lowest[:size])
    model = shifted(routed, -bias)
    found = fewest_words(made(model, (text,)), replacement=replaced)
    wanted = {places: m + bias for places, m in free.items() if len(places) == size and m + bias < 0}
    assert (found.answer, found.size) == (1, size)
    assert found.smallest
    assert {one.places for one in found.found} == set(wanted)
    assert [one.margin for one in found.found] == sorted(one.margin for one in found.found)
    for one in found.found:
        assert one.answer == 0
        assert one.margin == pytest.approx(wanted[one.places], abs=1e-5)
        if replaced == "mask":
            assert one.rerouted == layers_moved(model, tiny_tokenizer, one.places)
        assert one.probability == pytest.approx(1 / (1 + np.exp(one.margin)), abs=1e-5)
    # All sets of that size were tried, so the control needs no draws.
    assert found.random == (len(wanted), comb(len(WORDS), size))


def stuck(made, routed):
    """An input that nothing flips."""
    return made(shifted(routed, 50.0), (" ".join(WORDS),))


def lay_out(monkeypatch, margin_of):
    """Make the logits what a set of places says, whatever the model."""

    def logits(instance, words, replacement):
        places = [{position - 1 for position in word.positions} for word in words]  # each word is one token
        return torch.tensor([[float(margin_of(each)), 0.0] for each in places])

    monkeypatch.setattr(flips, "ablated", logits)
    monkeypatch.setattr(flips, "layers_rerouted", lambda own, record, words, *_: [0] * len(words))


def test_larger_sets_grow_from_the_best_one_before(made, routed, monkeypatch):
    monkeypatch.setattr(flips, "RANDOM", 10)  # fewer than there are sets of two to four of six words
    one = stuck(made, routed)
    lost = [0.5, 3, 1, 5, 2, 4]
    lay_out(monkeypatch, lambda places: 13.2 - sum(lost[place] for place in places))
    found = fewest_words(one)
    assert [each.places for each in found.found] == [
        (1, 3, 4, 5)
    ]  # of three 12 is the most, with the next one 14
    assert (found.answer, found.size, found.smallest) == (0, 4, True)
    assert found.tried == 6 + 15 + 20 + 3
    assert found.random[1] == 10


def test_what_never_flips_is_tried_to_the_end(made, routed):
    found = fewest_words(stuck(made, routed))
    assert (found.answer, found.found, found.size) == (0, (), len(WORDS))
    assert found.tried == 6 + 15 + 20 + 15 + 6 + 1  # all that there are
    assert found.random == (0, 1)  # of all words there is one set
    assert found.to_frame(SST2.label_names).empty


def test_random_sets_show_what_the_search_among_some_words_misses(made, routed, monkeypatch):
    monkeypatch.setattr(flips, "AMONG", 2)
    monkeypatch.setattr(flips, "RANDOM", 14)  # one fewer than there are pairs of six words
    one = stuck(made, routed)
    lay_out(
        monkeypatch, lambda places: 5 - len(places & {0, 1}) - 9 * bool(places & {3, 4} and len(places) == 2)
    )
    found = fewest_words(one)
    assert (found.found, found.size, found.tried) == ((), 2, 6 + 1)
    rng = np.random.default_rng(0)
    hits = sum(bool({3, 4} & set(rng.choice(6, 2, replace=False).tolist())) for _ in range(14))
    assert found.random == (hits, 14)
    assert hits
    monkeypatch.setattr(flips, "RANDOM", 15)  # now all pairs are tried
    found = fewest_words(one)
    assert len(found.found) == found.random[0] == 9
    assert found.random[1] == 15


def test_a_smaller_set_may_exist_where_not_all_were_tried(made, routed, monkeypatch):
    monkeypatch.setattr(flips, "AMONG", 4)
    monkeypatch.setattr(flips, "RANDOM", 10)
    lay_out(monkeypatch, lambda places: 2.5 - len(places & {0, 1, 2, 3}) - 9 * ({4, 5} <= places))
    found = fewest_words(stuck(made, routed))
    assert (found.size, found.smallest) == (3, False)  # 4 and 5 together were not tried
    assert len(found.found) == 4


def test_progress_has_an_end_that_it_does_not_pass(made, routed):
    seen = []
    found = fewest_words(stuck(made, routed), progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (found.tried, found.tried)
    assert all(done < of for done, of in seen[:-1])
    assert len({of for _, of in seen[:-1]}) == 1


def easily_flipped(model, tokenizer, made, text, task):
    """The input, by a copy of the model that some masked word moves to the other class."""
    one = made(model, text, task)
    own = direct(model, tokenizer, text)
    answer = int(own.argmax())
    others = [direct(model, tokenizer, left(one, tokenizer, place)) for place in range(len(one.words))]
    gaps = [float(logits[answer] - logits[1 - answer]) for logits in (own, *others)]
    lowest = min(gaps[1:])
    if lowest >= gaps[0]:  # masking raises this class, so begin with the other one
        answer, gaps = 1 - answer, [-gap for gap in gaps]
        lowest = min(gaps[1:])
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.classifier.bias[answer] -= (lowest + gaps[0]) / 2
    return made(moved, text, task)


def left(one, tokenizer, *places):
    return flips.left_text(one, tokenizer, places, "mask")


@pytest.mark.parametrize(
    "options", [{"routing": "token"}, {"top_k": 2}, {"control": "uniform"}, {"layers": ()}]
)
@pytest.mark.parametrize(("text", "task"), [(("w1 w2 w3",), SST2), (("w1 w2", "w3"), MRPC)])
def test_models_of_every_kind(made, tiny_routed, tiny_tokenizer, options, text, task):
    model = tiny_routed("bert", **{"layers": (0, 2)} | options)
    one = easily_flipped(model, tiny_tokenizer, made, text, task)
    found = fewest_words(one)
    assert found.found
    for each in found.found:
        logits = direct(one.model, tiny_tokenizer, left(one, tiny_tokenizer, *each.places))
        assert int(logits.argmax()) == each.answer != found.answer
        if not {"routing", "top_k"} & options.keys():
            assert each.rerouted == 0


def test_several_classes(made, tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", num_labels=3)
    one = made(model, ("w1 w2 w3", "w4 w5"), MNLI)
    found = fewest_words(one)
    assert found.found
    for each in found.found:
        logits = direct(model, tiny_tokenizer, left(one, tiny_tokenizer, *each.places))
        assert each.answer == int(logits.argmax())
        others = [float(x) for i, x in enumerate(logits) if i != found.answer]
        assert each.margin == pytest.approx(float(logits[found.answer]) - max(others), abs=1e-5)


def test_a_text_that_reads_otherwise_is_none(made, routed, tiny_tokenizer):
    one = made(routed, ("w1,w2 w3",))
    comma = [word.text for word in one.words].index(",")
    assert flips.left_text(one, tiny_tokenizer, [comma], "remove") is None  # w1w2 is another word
    assert flips.left_text(one, tiny_tokenizer, [comma], "mask") == ("w1[MASK]w2 w3",)
    assert flips.left_text(one, tiny_tokenizer, range(len(one.words)), "remove") is None
    spaced = made(routed, ("  w1  w2 w3 ",))
    assert flips.left_text(spaced, tiny_tokenizer, [1], "remove") == ("w1 w3",)
    assert flips.left_text(spaced, tiny_tokenizer, [1], "pad") == ("w1 [PAD] w3",)


def test_positions_that_skip_padding_have_no_text_with_it(made, tiny_routed, tiny_tokenizer):
    one = made(tiny_routed("roberta", layers=(1,)), ("w1 w2",))
    assert flips.left_text(one, tiny_tokenizer, [0], "pad") is None
    assert flips.left_text(one, tiny_tokenizer, [0], "mask") == ("[MASK] w2",)


def test_a_text_of_byte_pieces_is_checked_as_it_is_typed(made, routed):
    """There a space is part of a token, and one at the beginning is not typed."""
    core = Tokenizer(models.BPE(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], vocab_size=60
    )
    core.train_from_iterator(["the good film the good film"], trainer)
    pieces = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, sep_token="[SEP]", **pieces)
    one = instance.prepare(routed, tokenizer, SST2, ("the good film",))
    assert flips.left_text(one, tokenizer, [0], "remove") is None
    assert flips.left_text(one, tokenizer, [2], "remove") == ("the good",)


def test_a_regression_or_unknown_replacement_is_refused(made, tiny_model, routed):
    with pytest.raises(DataError, match="regression: it has no class"):
        fewest_words(made(tiny_model(num_labels=1), ("w1", "w2"), STSB))
    with pytest.raises(DataError, match="not by 'nothing'"):
        fewest_words(made(routed), replacement="nothing")


def test_larger_sets_are_of_the_words_whose_loss_alone_leaves_the_smallest_margins(made, routed, monkeypatch):
    monkeypatch.setattr(flips, "AMONG", 3)
    monkeypatch.setattr(flips, "RANDOM", 14)
    one = stuck(made, routed)
    lost = [1, 1, 1, 4, 5, 6]  # the last ones, and of the first three no pair flips
    lay_out(monkeypatch, lambda places: 10.5 - sum(lost[place] for place in places))
    found = fewest_words(one)
    assert [each.places for each in found.found] == [(4, 5)]
    assert found.tried == 6 + 3
