import numpy as np
import pytest

from shrp.analysis.attribution import tokens
from shrp.analysis.attribution.instance import UNITS, fitting_unit, in_units

TEXT = "w1 w2, w3 w4 (w5, w6). w7: w8 w9! w10"


@pytest.mark.parametrize(
    ("text", "phrases", "sentences"),
    [
        ("It drags , and then it ends . ok", ["It drags ,", "and then it ends .", "ok"],
         ["It drags , and then it ends .", "ok"]),
        ("Dr. J. Smith won 3.5 or 1,000. So did I. Why?", ["Dr. J. Smith won 3.5 or 1,000.", "So did I.", "Why?"],
         ["Dr. J. Smith won 3.5 or 1,000.", "So did I.", "Why?"]),
        ("A plot (if any) is lost -- fast; bye", ["A plot", "(if any)", "is lost --", "fast;", "bye"],
         ["A plot (if any) is lost -- fast; bye"]),
        ('He left. "No idea." “Why?” she said', ["He left.", '"No idea."', "“Why?”", "she said"],
         ["He left.", '"No idea."', "“Why?”", "she said"]),
        ("你好，世界。好吗", ["你好，", "世界。", "好吗"], ["你好，世界。", "好吗"]),
        ("Great!👍 It was 30°. C++. Bye", ["Great!👍", "It was 30°.", "C++.", "Bye"],
         ["Great!👍", "It was 30°.", "C++.", "Bye"]),
        ("A film--fast and loud--that works, 1990–2000.", ["A film--", "fast and loud--", "that works,", "1990–2000."],
         ["A film--fast and loud--that works, 1990–2000."]),
        ("Again? No. It is 5, etc. of St. John. I", ["Again?", "No.", "It is 5,", "etc. of St. John.", "I"],
         ["Again?", "No.", "It is 5, etc. of St. John.", "I"]),
        ("It ends ( well ) . '' So", ["It ends", "( well ) . ''", "So"], ["It ends ( well ) . ''", "So"]),
        ("film(s) e.g. U.S. dogs. . . ok", ["film(s) e.g. U.S. dogs. . .", "ok"],
         ["film(s) e.g. U.S. dogs. . .", "ok"]),
        ("a b c d e f g h i j k l m, n", ["a b c d e f g h i j k l", "m,", "n"], ["a b c d e f g h i j k l m, n"]),
    ],
)  # fmt: skip
def test_where_phrases_and_sentences_end(made, routed, text, phrases, sentences):
    one = made(routed, (text,))
    for unit, expected in zip(UNITS[1:], (phrases, sentences), strict=True):
        grouped = in_units(one, unit)
        assert [piece.text for piece in grouped.words] == expected
        assert grouped.unit == unit
        assert grouped.word_positions == one.word_positions  # no token is lost, and none is moved
        for piece in grouped.words:
            assert text[slice(*piece.span)] == piece.text


def test_gradients_of_a_piece_are_the_sum_of_its_words(made, routed):
    one = made(routed, (TEXT,))
    grouped = in_units(one, "phrase")
    for method in (tokens.input_x_gradient, tokens.integrated_gradients):
        by_word, by_piece = method(one, 0), method(grouped, 0)
        assert by_piece.unit == "phrase"
        of = [
            next(i for i, p in enumerate(grouped.words) if p.span[0] <= w.span[0] < p.span[1])
            for w in one.words
        ]
        sums = np.bincount(of, by_word.scores, len(grouped.words))
        np.testing.assert_allclose(by_piece.scores, sums, atol=1e-6)
        assert by_piece.full == pytest.approx(by_word.full)


@pytest.mark.parametrize("replacement", tokens.REPLACEMENTS)
def test_a_piece_is_replaced_as_its_words_together(made, routed, replacement):
    one = made(routed, (TEXT,))
    grouped = in_units(one, "sentence")
    found = tokens.ablate_words(grouped, 1, replacement=replacement)
    whole = one.outputs(one.embeddings)[0, 1]
    for piece, score in zip(grouped.words, found.scores, strict=True):
        alone = tokens.ablated(one, (piece,), replacement)[0, 1]
        assert score == pytest.approx(float((whole - alone).detach()), abs=1e-6)
    frame = tokens.to_frame([found])
    assert frame["sentence"].tolist() == [piece.text for piece in grouped.words]
    assert "word" not in frame


@pytest.mark.parametrize(
    ("text", "most", "unit"),
    [
        ("w1", 128, "word"),
        (TEXT, 128, "word"),
        ("w1 " * 9, 8, "word"),  # nothing ends a phrase
        ("w1 w2 w3, " * 5, 8, "phrase"),
        ("w1, " * 5 + ". " + "w2, " * 5, 8, "sentence"),
        ("w1 w2. " * 9, 3, "phrase"),  # too many of all: as few as can be
    ],
)
def test_the_shortest_unit_that_is_quick_to_explain(made, routed, text, most, unit):
    assert fitting_unit(made(routed, (text,)), most) == unit
