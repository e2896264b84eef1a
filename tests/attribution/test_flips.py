import copy
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from shrp.attribution import flips
from shrp.attribution.flips import fewest_words
from shrp.errors import DataError
from shrp.routing import record_routing
from shrp.tasks import TASKS

from .helpers import MRPC, SST2, STSB, direct

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
    assert not found.by_chance


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


def test_larger_sets_grow_from_the_best_triple(made, routed, monkeypatch):
    one = stuck(made, routed)
    lost = [0.5, 3, 1, 5, 2, 4]
    lay_out(monkeypatch, lambda places: 13.2 - sum(lost[place] for place in places))
    found = fewest_words(one)
    assert [each.places for each in found.found] == [
        (1, 3, 4, 5)
    ]  # of three 12 is the most, with the next one 14
    assert (found.answer, found.size, found.smallest, found.by_chance) == (0, 4, True, False)
    assert found.tried == 6 + 15 + 20 + 3
    assert found.random[1] == flips.RANDOM


def test_what_never_flips_is_tried_to_the_end(made, routed):
    found = fewest_words(stuck(made, routed))
    assert (found.answer, found.found, found.size) == (0, (), len(WORDS))
    assert found.tried == 6 + 15 + 20 + 3 + 2 + 1
    assert found.random == (0, 1)  # of all words there is one set
    assert found.to_frame(SST2.label_names).empty


def test_chance_may_find_what_the_search_among_some_words_misses(made, routed, monkeypatch):
    monkeypatch.setattr(flips, "AMONG", 2)
    one = stuck(made, routed)
    lay_out(monkeypatch, lambda places: 5 - len(places & {0, 1}) - 9 * ({3, 4} <= places))
    found = fewest_words(one)
    assert [each.places for each in found.found] == [(3, 4)]  # drawn several times, and told once
    assert (found.size, found.by_chance, found.smallest, found.tried) == (2, True, True, 6 + 1)
    drawn = [np.random.default_rng(0)] * flips.RANDOM
    hits = sum(set(rng.choice(6, 2, replace=False)) == {3, 4} for rng in drawn)
    assert found.random == (hits, flips.RANDOM)
    lay_out(monkeypatch, lambda places: 5 - len(places & {0, 1}) - 9 * ({2, 3, 4} <= places))
    missed = fewest_words(one)
    assert (missed.found, missed.size, missed.random) == ((), 2, (0, flips.RANDOM))


def test_progress_has_an_end_that_it_does_not_pass(made, routed):
    seen = []
    found = fewest_words(stuck(made, routed), progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (found.tried, found.tried)
    assert all(done < of for done, of in seen[:-1])
    assert len({of for _, of in seen[:-1]}) == 1


@pytest.mark.parametrize(
    "options", [{"routing": "token"}, {"top_k": 2}, {"control": "uniform"}, {"layers": ()}]
)
def test_models_of_every_kind(made, tiny_routed, tiny_tokenizer, options):
    model = tiny_routed("bert", **{"layers": (0, 2)} | options)
    for text, task in ((("w1 w2 w3",), SST2), (("w1 w2", "w3"), MRPC)):
        one = made(model, text, task)
        found = fewest_words(one)
        for each in found.found:
            left = flips.left_text(one, tiny_tokenizer, each.places, "mask")
            logits = direct(model, tiny_tokenizer, left)
            assert int(logits.argmax()) == each.answer != found.answer
        if options.get("control") or options.get("layers") == ():
            assert all(each.rerouted == 0 for each in found.found)


def test_several_classes(made, tiny_routed, tiny_tokenizer):
    model = tiny_routed("bert", num_labels=3)
    one = made(model, ("w1 w2 w3", "w4 w5"), MNLI)
    found = fewest_words(one)
    for each in found.found:
        logits = direct(model, tiny_tokenizer, flips.left_text(one, tiny_tokenizer, each.places, "mask"))
        assert each.answer == int(logits.argmax())
        others = [float(x) for i, x in enumerate(logits) if i != found.answer]
        assert each.margin == pytest.approx(float(logits[found.answer]) - max(others), abs=1e-5)


def test_a_text_that_reads_otherwise_is_none(made, routed, tiny_tokenizer):
    one = made(routed, ("w1,w2 w3",))
    comma = [word.text for word in one.words].index(",")
    assert flips.left_text(one, tiny_tokenizer, [comma], "remove") is None  # w1w2 is another word
    assert flips.left_text(one, tiny_tokenizer, [comma], "mask") == ("w1[MASK]w2 w3",)
    assert flips.left_text(one, tiny_tokenizer, range(len(one.words)), "remove") is None


def test_a_regression_or_unknown_replacement_is_refused(made, tiny_model, routed):
    with pytest.raises(DataError, match="regression: it has no class"):
        fewest_words(made(tiny_model(num_labels=1), ("w1", "w2"), STSB))
    with pytest.raises(DataError, match="not by 'nothing'"):
        fewest_words(made(routed), replacement="nothing")
