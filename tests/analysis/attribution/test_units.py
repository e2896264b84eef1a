import numpy as np
import pytest

from shrp.analysis.attribution import tokens
from shrp.analysis.attribution.instance import in_pieces
from tests.analysis.attribution.helpers import MRPC


def test_a_long_text_is_explained_in_pieces_of_equal_numbers_of_words(made, routed):
    one = made(routed, ("w1 w2, w3 w4 w5 w6",))
    assert in_pieces(one, 7) is one
    pieces = in_pieces(one, 3)
    assert [piece.text for piece in pieces.words] == ["w1 w2,", "w3 w4 w5", "w6"]
    assert pieces.unit == "piece"
    assert pieces.word_positions == one.word_positions  # no token is lost, and none is moved
    pair = in_pieces(made(routed, ("w1 w2 w3", "w4 w5"), MRPC), 2)
    assert [(piece.part, piece.text) for piece in pair.words] == [(0, "w1 w2 w3"), (1, "w4 w5")]


def test_gradients_of_a_piece_are_the_sum_of_its_words(made, routed):
    one = made(routed, ("w1 w2, w3 w4 w5 w6",))
    pieces = in_pieces(one, 4)
    for method in (tokens.input_x_gradient, tokens.integrated_gradients):
        by_word, by_piece = method(one, 0), method(pieces, 0)
        np.testing.assert_allclose(by_piece.scores, np.add.reduceat(by_word.scores, [0, 2, 4, 6]), atol=1e-6)
        assert by_piece.full == pytest.approx(by_word.full)
