import numpy as np
import pytest
import torch

from shrp.analysis.attribution import experts, instance, tokens
from shrp.analysis.attribution.instance import in_pieces
from shrp.data.batching import collate, encode
from shrp.evaluation.evaluate import batch_logits
from shrp.model.gates import record_routing, use_gates
from tests.analysis.attribution.conftest import MRPC, STSB, TEXT


def test_every_token_of_a_text_belongs_to_one_word(made, routed):
    one = made(routed, ("I don't, well-made w1!!! 🎬❤️ 東京 [MASK] w2",))
    assert [word.text for word in one.words] == [
        "I", "don't", ",", "well-made", "w1", "!!!", "🎬❤️", "東京", "[MASK]", "w2",
    ]  # fmt: skip
    places = [place for word in one.words for place in word.positions]
    assert sorted(places) == list(range(1, len(one.tokens) - 1))
    assert "don't" in one.unknown
    assert not {"w1", "[MASK]", "w2"} & set(one.unknown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902", 2),  # Hindi, with vowel signs
        ("\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd!", 2),  # Hebrew, with points
        ("\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627", 1),  # Arabic, with vowels
        ("nai\u0308ve don\u2019t co\u00adop", 3),  # accents of their own, soft hyphens
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", 1),  # Persian, with a joiner
        ("\u304b\u3099\u6771", 2),  # kana and Han: each a word, with its mark
        ("\u0e2a\u0e27\u0e31\u0e2a", 3),  # Thai, which has no spaces either
        ("\U0001e922\U0001e944\U0001e922", 1),  # letters and marks of Adlam, beyond 16 bits
        ("1\ufe0f\u20e3 \u2764\ufe0f\u200d\U0001f525", 2),  # a keycap, and an emoji of several
        ("\u0301a", 2),  # a mark that has no letter before it
    ],
)
def test_marks_and_joiners_do_not_end_a_word(text, words):
    spans = [(0, place, place + 1) for place, character in enumerate(text) if not character.isspace()]
    found, _ = instance._words((text,), list(range(len(spans))), spans, None)
    assert len(found) == words
    assert "".join(word.text for word in found) == "".join(text.split())


def test_a_long_text_is_explained_in_pieces_of_equal_numbers_of_words(made, routed):
    one = made(routed, ("w1 w2, w3 w4 w5 w6",))
    assert in_pieces(one, 7) is one
    pieces = in_pieces(one, 3)
    assert [piece.text for piece in pieces.words] == ["w1 w2,", "w3 w4 w5", "w6"]
    assert pieces.unit == "piece"
    assert pieces.word_positions == one.word_positions  # no token is lost, and none is moved
    pair = in_pieces(made(routed, ("w1 w2 w3", "w4 w5"), MRPC), 2)
    assert [(piece.part, piece.text) for piece in pair.words] == [(0, "w1 w2 w3"), (1, "w4 w5")]


# Words: attributions


@pytest.mark.parametrize("output", [0, 1])
def test_integrated_gradients_add_up(made, routed, output):
    one = made(routed)
    frozen = tokens.integrated_gradients(one, output, steps=200)
    assert frozen.full - frozen.reference == pytest.approx(frozen.total, abs=2e-3)
    assert abs(frozen.error) < 2e-3


def test_input_x_gradient_is_the_first_order_term(made, routed):
    """Its sum over all tokens is the derivative of the output by a common factor of all embeddings."""
    one = made(routed)
    found = tokens.input_x_gradient(one, 1)
    step, route = 1e-3, one.route()
    scaled = one.embeddings.repeat(2, 1, 1)
    scaled[:, one.word_positions] *= torch.tensor([1 - step, 1 + step])[:, None, None]
    with torch.no_grad(), use_gates(route):
        below, above = one.outputs(scaled)[:, 1].double().tolist()
    assert found.total == pytest.approx((above - below) / (2 * step), rel=2e-2)
    assert found.reference is None
    assert found.error is None


def test_gradients_hold_the_gates_of_several_experts(made, tiny_routed):
    one = made(tiny_routed(top_k=2))
    embeddings = one.embeddings.clone().requires_grad_()
    with use_gates(one.route()):
        (frozen,) = torch.autograd.grad(one.outputs(embeddings)[0, 0], embeddings)
    (live,) = torch.autograd.grad(one.outputs(embeddings)[0, 0], embeddings)
    by_word = [one.per_word((one.embeddings * g).sum(-1)[0]).detach().numpy() for g in (frozen, live)]
    np.testing.assert_allclose(tokens.input_x_gradient(one, 0).scores, by_word[0], atol=1e-5)
    assert np.abs(by_word[0] - by_word[1]).max() > 1e-2  # the routers' part


@pytest.mark.parametrize("replacement", ["mask", "pad"])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_word_ablation_equals_doing_it_by_hand(made, tiny_routed, tiny_tokenizer, replacement, routing):
    model = tiny_routed("bert", layers=(1, 2), routing=routing)
    one = made(model)
    if replacement == "pad":
        del one.replacements["mask"]
    found = tokens.ablate_words(one, 1)
    encoded = encode(tiny_tokenizer, [TEXT])
    with record_routing() as own:
        whole = batch_logits(model, collate(tiny_tokenizer, encoded, [0]))[0, 1]
    for i, word in enumerate(one.words):
        ids = list(encoded[0]["input_ids"])
        (place,) = word.positions
        ids[place] = getattr(tiny_tokenizer, f"{replacement}_token_id")
        row = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        with record_routing() as record:
            changed = batch_logits(model, row)[0, 1]
        assert found.scores[i] == pytest.approx(whole - changed, abs=1e-5)
        moved = 0
        for layer in (1, 2):
            before, after = own.last(layer).gates[0], record.last(layer).gates[0]
            if routing == "token":
                before = before[[p for p in range(len(before)) if p != place]]
                after = after[[p for p in range(len(after)) if p != place]]
            moved += not torch.equal(before, after)
        assert found.rerouted[i] == moved
    assert found.full == pytest.approx(float(whole), abs=1e-5)


def test_regression_and_labels_in_another_order(made, tiny_routed, tiny_tokenizer):
    pair = ("w1 w2 w3", "w4 w5")
    one = made(tiny_routed("bert", num_labels=1), pair, STSB)
    assert abs(tokens.integrated_gradients(one, 0, steps=200).error) < 5e-3
    swapped = tiny_routed("bert")
    swapped.config.id2label = {0: "positive", 1: "negative"}
    try:
        found = tokens.ablate_words(made(swapped), 0)
        coalitions = experts.Coalitions(made(swapped), 0)
        batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [TEXT]), [0])
        assert found.full == pytest.approx(batch_logits(swapped, batch)[0, 1], abs=1e-5)
        assert coalitions.full == pytest.approx(found.full, abs=1e-5)
    finally:
        swapped.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}


def test_gradients_of_a_piece_are_the_sum_of_its_words(made, routed):
    one = made(routed, ("w1 w2, w3 w4 w5 w6",))
    pieces = in_pieces(one, 4)
    for method in (tokens.input_x_gradient, tokens.integrated_gradients):
        by_word, by_piece = method(one, 0), method(pieces, 0)
        np.testing.assert_allclose(by_piece.scores, np.add.reduceat(by_word.scores, [0, 2, 4, 6]), atol=1e-6)
        assert by_piece.full == pytest.approx(by_word.full)
