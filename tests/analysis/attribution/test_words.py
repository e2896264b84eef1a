import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from shrp.analysis.attribution import experts, instance, tokens
from shrp.data.batching import collate, encode, longest_input
from shrp.errors import DataError
from shrp.evaluation.evaluate import batch_logits
from shrp.model.gates import record_routing, use_gates
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.analysis.attribution.helpers import MRPC, SST2, STSB, TEXT, direct


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


def test_wordpieces_and_pairs_are_grouped(made, tiny_model):
    pair = made(tiny_model(num_labels=2), ("w1 w2", "w3"), MRPC)
    assert [(word.text, word.part) for word in pair.words] == [("w1", 0), ("w2", 0), ("w3", 1)]
    assert [pair.tokens[word.positions[0]] for word in pair.words] == ["w1", "w2", "w3"]
    total = torch.arange(float(len(pair.tokens)))
    np.testing.assert_allclose(pair.per_word(total), [w.positions[0] for w in pair.words])


def test_words_are_taken_out_of_their_texts(made, routed, tiny_model):
    one = made(routed, ("I don't, well-made w1!!! 東京 w2",))
    places = [place for place, word in enumerate(one.words) if word.text in ("don't", "!!!", "w2")]
    assert one.text_without(places) == ("I , well-made w1 東京 ",)
    assert one.text_without(places[::-1], "[MASK]") == (
        "I [MASK] [MASK] [MASK], well-made w1[MASK] 東京 [MASK]",
    )  # a mask a token
    assert one.text_without([]) == one.text
    pair = made(tiny_model(num_labels=2), ("w1 w2", "w1 w3"), MRPC)
    assert pair.text_without([1, 2]) == ("w1 ", " w3")


@pytest.mark.parametrize("text", [("",), ("  \n",)])
def test_a_text_without_words_is_refused(made, routed, text):
    with pytest.raises(DataError, match="no word"):
        made(routed, text)


def test_characters_without_a_width_are_words_only_to_a_tokenizer_that_keeps_them(
    made, routed, tiny_tokenizer
):
    text = ("\u200b \u200b",)
    assert made(routed, text).unknown == ("\u200b",)
    dropping = copy.deepcopy(tiny_tokenizer)
    dropping.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    with pytest.raises(DataError, match="no word"):
        instance.prepare(routed, dropping, SST2, text)
    one = instance.prepare(routed, dropping, SST2, ("w1\u200b \u200b w2",))
    assert [word.text for word in one.words] == ["w1", "w2"]


def test_a_long_text_is_cut_and_the_number_of_texts_checked(made, routed, tiny_tokenizer):
    long = made(routed, ("w1 " * 10_000,))
    assert long.truncated
    assert (len(long.tokens), long.full_length) == (longest_input(routed, tiny_tokenizer), 10_002)
    assert len(long.words) == len(long.tokens) - 2
    with pytest.raises(DataError, match="1 text"):
        made(routed, ("a", "b"))


def test_the_models_own_output_through_embeddings(made, tiny_routed, tiny_tokenizer, tiny_family):
    model = tiny_routed(tiny_family)
    # Words that this tokenizer knows: the id of its unknown one is padding to MPNet, which then has no position.
    text = (TEXT[0].replace(",", ""),)
    one = made(model, text)
    with torch.no_grad():
        logits = one.outputs(one.embeddings)[0]
    np.testing.assert_allclose(logits, direct(model, tiny_tokenizer, text), atol=1e-5)


# Words: attributions


@pytest.mark.parametrize("output", [0, 1])
def test_integrated_gradients_add_up_with_the_route_frozen_only(made, routed, output):
    one = made(routed)
    frozen = tokens.integrated_gradients(one, output, steps=200)
    live = tokens.integrated_gradients(one, output, steps=200, frozen=False)
    assert frozen.full - frozen.reference == pytest.approx(frozen.total, abs=2e-3)
    assert abs(frozen.error) < 2e-3
    assert abs(live.error) > 0.05
    assert frozen.full == pytest.approx(live.full, abs=1e-5)


def test_integrated_gradients_of_every_kind_of_model(made, tiny_model, tiny_routed, tiny_family):
    dense = tiny_model(tiny_family)
    routed = tiny_routed(tiny_family, layers=(1, 2))
    static = prune(routed, make_plan({1: np.ones(4), 2: np.ones(4)}, per_layer=2))
    for model in (dense, routed, static, tiny_routed(tiny_family, routing="token")):
        found = tokens.integrated_gradients(made(model), 1, steps=200)
        assert abs(found.error) < 5e-3 * max(1, abs(found.full - found.reference))
        assert np.abs(found.scores).max() > 1e-3


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


@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert"])
def test_a_padding_token_in_the_text_is_refused_where_positions_skip_it(made, tiny_routed, family):
    model = tiny_routed(family)
    if family != "bert":
        with pytest.raises(DataError, match="holds the padding token"):
            made(model, ("w1 [PAD] w2",))
    else:
        assert made(model, ("w1 [PAD] w2",)).words


@pytest.mark.parametrize("replacement", ["mask", "pad", "remove"])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_word_ablation_equals_doing_it_by_hand(made, tiny_routed, tiny_tokenizer, replacement, routing):
    model = tiny_routed("bert", layers=(1, 2), routing=routing)
    one = made(model)
    found = tokens.ablate_words(one, 1, replacement=replacement)
    encoded = encode(tiny_tokenizer, [TEXT])
    with record_routing() as own:
        whole = batch_logits(model, collate(tiny_tokenizer, encoded, [0]))[0, 1]
    for i, word in enumerate(one.words):
        ids = list(encoded[0]["input_ids"])
        (place,) = word.positions
        if replacement == "remove":
            del ids[place]
        else:
            ids[place] = {"mask": tiny_tokenizer.mask_token_id, "pad": tiny_tokenizer.pad_token_id}[
                replacement
            ]
        row = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        with record_routing() as record:
            changed = batch_logits(model, row)[0, 1]
        assert found.scores[i] == pytest.approx(whole - changed, abs=1e-5)
        moved = 0
        for layer in (1, 2):
            before, after = own.last(layer).gates[0], record.last(layer).gates[0]
            if routing == "token":
                before = before[[p for p in range(len(before)) if p != place]]
                if replacement != "remove":
                    after = after[[p for p in range(len(after)) if p != place]]
            moved += not torch.equal(before, after)
        assert found.rerouted[i] == moved
    assert found.full == pytest.approx(float(whole), abs=1e-5)


def test_a_dense_model_has_no_route_that_could_change(made, tiny_model):
    found = tokens.ablate_words(made(tiny_model()), 0)
    assert found.rerouted is None
    assert "layers routed anew" not in tokens.to_frame([found])


def test_batches_of_copies_change_nothing(made, routed, monkeypatch):
    one = made(routed)
    wanted = [tokens.ablate_words(one, 1).scores, tokens.integrated_gradients(one, 1).scores]
    monkeypatch.setattr(instance, "TOKENS_AT_ONCE", 20)
    calls = []
    again = tokens.ablate_words(one, 1, progress=lambda *call: calls.append(call))
    np.testing.assert_allclose(again.scores, wanted[0], atol=1e-5)
    assert calls[-1] == (len(one.words), len(one.words))
    assert len(calls) > 2
    calls.clear()
    again = tokens.integrated_gradients(one, 1, progress=lambda *call: calls.append(call))
    np.testing.assert_allclose(again.scores, wanted[1], atol=1e-5)
    assert calls[-1] == (32, 32)


def test_impossible_options_are_refused(made, routed):
    one = made(routed)
    with pytest.raises(DataError, match="mask, pad, remove"):
        tokens.ablate_words(one, 0, replacement="zebra")
    with pytest.raises(ValueError, match="512"):
        tokens.integrated_gradients(one, 0, steps=0)
    with pytest.raises(DataError, match="no token"):
        one.replacement("zebra")


def test_regression_and_labels_in_another_order(made, tiny_routed, tiny_tokenizer):
    pair = ("w1 w2 w3", "w4 w5")
    one = made(tiny_routed("bert", num_labels=1), pair, STSB)
    assert abs(tokens.integrated_gradients(one, 0, steps=200).error) < 5e-3
    swapped = tiny_routed("bert")
    swapped.config.id2label = {0: "positive", 1: "negative"}
    try:
        found = tokens.ablate_words(made(swapped), 0)
        coalitions = experts.Coalitions(made(swapped), 0)
        assert found.full == pytest.approx(direct(swapped, tiny_tokenizer)[1], abs=1e-5)
        assert coalitions.full == pytest.approx(found.full, abs=1e-5)
    finally:
        swapped.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}


def test_agreement_is_the_rank_correlation_over_words(made, routed):
    one = made(routed)
    words = one.words
    order = np.arange(len(words), dtype=float)
    results = [
        tokens.WordScores(name, words, s, 0.0)
        for name, s in (("up", order), ("cubed", order**3), ("down", -order))
    ]
    frame = tokens.agreement(results).set_index(["a", "b"])
    assert frame.loc[("up", "cubed"), ["spearman", "kendall"]].tolist() == pytest.approx([1, 1])
    assert frame.loc[("up", "down"), ["spearman", "kendall"]].tolist() == pytest.approx([-1, -1])
    assert (frame["n"] == len(words)).all()
    flat = tokens.WordScores("flat", words, np.zeros(len(words)), 0.0)
    assert tokens.agreement([results[0], flat])["spearman"].isna().all()


def test_integrated_gradients_take_more_steps_until_they_add_up(monkeypatch):
    asked = []

    def fake(instance, output, *, steps, frozen, progress):
        asked.append(steps)
        off = 1.0 if steps < 50 else 0.0
        return tokens.WordScores(tokens.METHODS[1], (), np.array([2.0 + off]), 2.0, 0.0, steps=steps)

    monkeypatch.setattr(tokens, "integrated_gradients", fake)
    routed, fixed = SimpleNamespace(reroutes=True), SimpleNamespace(reroutes=False)
    found = tokens.converged_gradients(routed, 0, steps=16)
    assert (asked, found.steps, found.error_part) == ([16, 32, 64], 64, 0.0)
    asked.clear()
    assert tokens.converged_gradients(routed, 0, steps=16, most=40).error_part == pytest.approx(0.5)
    assert asked == [16, 32, 40]
    asked.clear()
    tokens.converged_gradients(routed, 0, steps=16, frozen=False)
    assert asked == [16]  # jumps of the route are no matter of steps
    asked.clear()
    tokens.converged_gradients(fixed, 0, steps=16, frozen=False)
    assert asked == [16, 32, 64]  # where nothing can jump


def test_what_is_left_without_a_word_is_compared_token_by_token(made, tiny_routed, tiny_tokenizer):
    """Under token routing, with the word taken out, a later token's route is the one at its new place."""
    model = tiny_routed("bert", layers=(0, 1, 2), routing="token")
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.mul_(0.2)  # or else every move changes some route
    one = made(model)
    found = tokens.ablate_words(one, 0, replacement="remove").rerouted

    def gates(text):
        with torch.no_grad(), record_routing() as record:
            direct(model, tiny_tokenizer, text)
        return {layer: record.last(layer).gates[0] != 0 for layer in record.layers}

    whole, expected = gates(TEXT), []
    for place, word in enumerate(one.words):
        left = gates(one.text_without([place]))
        kept = [position for position in range(len(one.tokens)) if position not in word.positions]
        expected.append(sum(bool((left[layer] != whole[layer][kept]).any()) for layer in whole))
    assert found.tolist() == expected
    assert len(set(expected)) > 1
