from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.attribution import tokens
from shrp.analysis.attribution.beside import beside, parting, question
from shrp.analysis.attribution.instance import Word
from shrp.analysis.attribution.tokens import WordScores
from shrp.errors import DataError
from tests.analysis.attribution.helpers import SST2, STSB


def scores(words, values, **more):
    made = tuple(Word(text, part, (0,), span) for text, part, span in words)
    return WordScores("word ablation", made, np.array(values), 1.0, **more)


@pytest.mark.parametrize(
    ("one", "other", "classes"),
    [
        ([2.0, 1.0], [0.0, 1.0], (0, 1)),
        ([1.0, 2.0], [0.0, 1.0], (1, 0)),
        ([3.0, 1.0, 0.0], [3.0, 0.0, 2.0], (0, 2)),  # both answer 0; 2 comes next by their mean
        ([0.0, 1.0, 5.0], [4.0, 1.0, 5.0], (2, 0)),
        ([0.7], [0.2], None),
    ],
)
def test_what_parts_two_models(one, other, classes):
    assert parting(np.array(one), np.array(other)) == classes


def test_words_are_the_same_where_they_stand_at_the_same_place():
    one = scores([("a", 0, (0, 1)), ("b-c", 0, (2, 5)), ("a", 1, (0, 1))], [0.5, -1.0, 0.25])
    other = scores([("a", 0, (0, 1)), ("b", 0, (2, 3)), ("a", 1, (0, 1))], [1.5, 2.0, 0.0])
    frame = beside(one, other)
    assert frame["place"].tolist() == [1, 2, 3, 4]
    assert frame["text"].tolist() == [1, 1, 1, 2]
    assert frame["word"].tolist() == ["a", "b", "b-c", "a"]
    np.testing.assert_array_equal(frame["one"], [0.5, np.nan, -1.0, 0.25])
    np.testing.assert_array_equal(frame["other"], [1.5, 2.0, np.nan, 0.0])
    np.testing.assert_array_equal(frame["apart"], [0.75 - 0.5, np.nan, np.nan, 0.0 - 0.25])
    with pytest.raises(DataError, match="word ablation by word and word ablation by phrase"):
        beside(one, scores([("a", 0, (0, 1))], [0.5], unit="phrase"))


def test_parts_are_of_each_models_largest():
    words = [("a", 0, (0, 1)), ("b", 0, (2, 3)), ("c", 0, (4, 5))]
    frame = beside(scores(words, [1.0, -2.0, 0.0]), scores(words, [30.0, 15.0, -7.5]))
    assert frame["one part"].tolist() == [0.5, -1.0, 0.0]
    assert frame["other part"].tolist() == [1.0, 0.5, -0.25]
    assert frame["apart"].tolist() == [0.5, 1.5, -0.25]
    nothing = beside(scores(words, [0.0] * 3), scores(words, [0.0] * 3))
    assert not nothing[["one part", "other part", "apart"]].to_numpy().any()


def test_two_models_of_one_input(made, tiny_routed):
    text = ("w1 w20 w33, w4 w50. w17 w2",)
    both = [made(model, text) for model in (tiny_routed(), tiny_routed("distilbert", seed=5))]
    with torch.no_grad():
        logits = [one.outputs(one.embeddings)[0].numpy() for one in both]
    asked = question(both, logits)
    assert (asked.output, asked.rather_than) == parting(*logits)
    assert (asked.unit, asked.replacement) == ("word", "mask")
    assert asked.what(SST2.label_names) == "the logit of {} less that of {}".format(
        *(SST2.label_names[i] for i in parting(*logits))
    )
    found = [tokens.ablate_words(*asked.of(one)) for one in both]
    frame = beside(*found)
    np.testing.assert_array_equal(frame["one"], found[0].scores)
    np.testing.assert_array_equal(frame["other"], found[1].scores)
    assert found[0].full == pytest.approx(logits[0][asked.output] - logits[0][asked.rather_than], abs=1e-5)
    assert np.abs(frame["apart"]).max() > 1e-3
    alone = question(both, logits, 1)
    assert (alone.output, alone.rather_than) == (1, None)
    assert alone.of(both[0]) == (both[0], 1)
    maskless = replace(both[0], replacements={"pad": both[0].replacements["pad"]})
    assert question([both[1], maskless], logits).replacement == "pad"
    assert question([both[1], replace(both[0], replacements={})], logits).replacement == "remove"


def test_of_a_regression_the_output_is_explained(made, tiny_routed):
    both = [made(tiny_routed(num_labels=1, seed=seed), ("w1 w2", "w3 w4"), STSB) for seed in (0, 5)]
    asked = question(both, [np.array([0.7]), np.array([0.1])])
    assert (asked.output, asked.rather_than, asked.what(STSB.label_names)) == (0, None, "the output")
    assert [asked.of(one) for one in both] == [(one, 0) for one in both]


def test_the_unit_is_the_one_that_suits_both(made, tiny_routed, monkeypatch):
    instances = [made(tiny_routed(), (text,)) for text in ("w1 w2", "w1 w2 w3, w4 w5 w6. w7")]
    units = dict(zip(map(id, instances), ("word", "phrase"), strict=True))
    monkeypatch.setattr("shrp.analysis.attribution.beside.fitting_unit", lambda one: units[id(one)])
    logits = [np.zeros(2)] * 2
    assert question(instances, logits).unit == question(instances[::-1], logits).unit == "phrase"
    instance, _ = question(instances, logits).of(instances[1])
    assert [word.text for word in instance.words] == ["w1 w2 w3,", "w4 w5 w6.", "w7"]
