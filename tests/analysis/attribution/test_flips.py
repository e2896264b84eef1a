import copy
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from shrp.analysis.attribution import tokens
from shrp.analysis.attribution.tokens import fewest_words
from shrp.errors import DataError
from shrp.model.gates import record_routing
from tests.analysis.attribution.helpers import STSB, direct

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

    monkeypatch.setattr(tokens, "ablated", logits)
    monkeypatch.setattr(tokens, "layers_rerouted", lambda own, record, words, *_: [0] * len(words))


def test_random_sets_show_what_the_search_among_some_words_misses(made, routed, monkeypatch):
    monkeypatch.setattr(tokens, "AMONG", 2)
    monkeypatch.setattr(tokens, "RANDOM", 14)  # one fewer than there are pairs of six words
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
    monkeypatch.setattr(tokens, "RANDOM", 15)  # now all pairs are tried
    found = fewest_words(one)
    assert len(found.found) == found.random[0] == 9
    assert found.random[1] == 15


def test_a_regression_or_unknown_replacement_is_refused(made, tiny_model, routed):
    with pytest.raises(DataError, match="regression: it has no class"):
        fewest_words(made(tiny_model(num_labels=1), ("w1", "w2"), STSB))
    with pytest.raises(DataError, match="not by 'nothing'"):
        fewest_words(made(routed), replacement="nothing")
