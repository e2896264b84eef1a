import numpy as np
import pytest

from shrp.attribution import tokens
from shrp.attribution.beside import beside, parting, same_replacement, same_unit
from shrp.attribution.instance import Word
from shrp.attribution.tokens import WordScores
from shrp.errors import DataError


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
    np.testing.assert_array_equal(frame["difference"], [1.0, np.nan, np.nan, -0.25])
    with pytest.raises(DataError, match="word ablation by word and word ablation by phrase"):
        beside(one, scores([("a", 0, (0, 1))], [0.5], unit="phrase"))


def test_two_models_of_one_input(made, tiny_routed):
    text = ("w1 w20 w33, w4 w50. w17 w2",)
    models = [tiny_routed(), tiny_routed("distilbert", seed=5)]
    both = [made(model, text) for model in models]
    assert same_unit(both) == "word"
    assert same_replacement(both) == "mask"
    found = [tokens.ablate_words(one, 1) for one in both]
    frame = beside(*found)
    np.testing.assert_array_equal(frame["one"], found[0].scores)
    np.testing.assert_array_equal(frame["other"], found[1].scores)
    assert np.abs(frame["difference"]).max() > 1e-3
    maskless = made(models[0], text)
    maskless.replacements.pop("mask")
    assert same_replacement([both[1], maskless]) == "pad"
    maskless.replacements.pop("pad")
    assert same_replacement([both[1], maskless]) == "remove"


def test_the_unit_is_the_one_that_suits_both(made, tiny_routed, monkeypatch):
    instances = [made(tiny_routed(), (text,)) for text in ("w1 w2", "w1 w2 w3, w4 w5 w6. w7")]
    units = dict(zip(map(id, instances), ("word", "phrase"), strict=True))
    monkeypatch.setattr("shrp.attribution.beside.fitting_unit", lambda one: units[id(one)])
    assert same_unit(instances) == same_unit(instances[::-1]) == "phrase"
