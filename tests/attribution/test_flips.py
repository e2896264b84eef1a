import copy
from itertools import combinations

import numpy as np
import pytest
import torch

from shrp.attribution import flips
from shrp.attribution.flips import fewest_words
from shrp.errors import DataError
from shrp.routing import record_routing

from .helpers import MRPC, SST2, STSB, direct

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
    if size == 1:
        assert found.random == (len(wanted), len(WORDS))
    else:
        rng = np.random.default_rng(0)
        drawn = [rng.choice(len(WORDS), size, replace=False) for _ in range(flips.RANDOM)]
        assert found.random == (sum(tuple(sorted(one)) in wanted for one in drawn), flips.RANDOM)


def test_larger_sets_grow_word_by_word_and_what_never_flips_is_said(made, routed):
    text = " ".join(WORDS)
    stuck = fewest_words(made(shifted(routed, 50.0), (text,)))
    assert (stuck.answer, stuck.found, stuck.size) == (0, (), len(WORDS))
    assert stuck.tried == 6 + 15 + 20 + 3 + 2 + 1
    assert stuck.random == (0, flips.RANDOM)
    assert stuck.to_frame(SST2.label_names).empty


def test_only_some_words_of_a_long_text_are_combined(made, routed, monkeypatch):
    monkeypatch.setattr(flips, "AMONG", 4)
    found = fewest_words(made(shifted(routed, 50.0), (" ".join(WORDS),)))
    assert found.size == 4
    assert not found.smallest
    assert found.tried == 6 + 6 + 4 + 1


def test_progress_ends_at_what_was_tried(made, routed):
    seen = []
    found = fewest_words(
        made(shifted(routed, 50.0), (" ".join(WORDS),)), progress=lambda done, of: seen.append((done, of))
    )
    assert seen[-1] == (found.tried + flips.RANDOM,) * 2
    assert all(done <= of for done, of in seen)


def test_words_of_both_texts_count(made, tiny_routed):
    one = made(tiny_routed("bert", layers=(1,)), ("w1 w2", "w3"), MRPC)
    found = fewest_words(one)
    assert {place for each in found.found for place in each.places} <= {0, 1, 2}


def test_a_regression_or_unknown_replacement_is_refused(made, tiny_model, routed):
    with pytest.raises(DataError, match="regression: it has no class"):
        fewest_words(made(tiny_model(num_labels=1), ("w1", "w2"), STSB))
    with pytest.raises(DataError, match="not by 'nothing'"):
        fewest_words(made(routed), replacement="nothing")
