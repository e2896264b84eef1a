import copy
import threading
from dataclasses import replace
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef
from tokenizers import normalizers

from shrp.attribution import experts, importance, instance, router, tokens, trust
from shrp.batching import collate, encode, longest_input
from shrp.convert import expert_layers, router_layers
from shrp.data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluate import batch_logits
from shrp.plan import make_plan
from shrp.prune import prune
from shrp.routing import knock_out, play_back, record_routing, use_gates
from shrp.tasks import TASKS

SST2, MRPC, STSB = TASKS["sst2"], TASKS["mrpc"], TASKS["stsb"]
TEXT = ("w1 w20 w33, w4 w50 w17",)


@pytest.fixture(scope="module")
def routed(tiny_routed):
    return tiny_routed("bert", layers=(0, 1, 2))


@pytest.fixture(scope="module")
def token_routed(tiny_routed):
    return tiny_routed("bert", layers=(0, 2), routing="token", top_k=2)


@pytest.fixture(scope="module")
def made(tiny_tokenizer):
    return lambda model, text=TEXT, task=SST2: instance.prepare(model, tiny_tokenizer, task, text)


def direct(model, tokenizer, text=TEXT, **changed):
    batch = collate(tokenizer, encode(tokenizer, [text]), [0]) | changed
    return batch_logits(model, batch)[0]


# Words


def test_every_token_of_a_text_belongs_to_one_word(made, routed):
    one = made(routed, ("I don't, well-made w1!!! 🎬❤️ 東京 [MASK] w2",))
    assert [word.text for word in one.words] == [
        "I", "don't", ",", "well-made", "w1", "!!!", "🎬❤️", "東京", "[MASK]", "w2",
    ]  # fmt: skip
    places = [place for word in one.words for place in word.positions]
    assert sorted(places) == list(range(1, len(one.tokens) - 1))
    assert "don't" in one.unknown
    assert not {"w1", "[MASK]", "w2"} & set(one.unknown)


def test_wordpieces_and_pairs_are_grouped(made, tiny_model):
    pair = made(tiny_model(num_labels=2), ("w1 w2", "w3"), MRPC)
    assert [(word.text, word.part) for word in pair.words] == [("w1", 0), ("w2", 0), ("w3", 1)]
    assert [pair.tokens[word.positions[0]] for word in pair.words] == ["w1", "w2", "w3"]
    total = torch.arange(float(len(pair.tokens)))
    np.testing.assert_allclose(pair.per_word(total), [w.positions[0] for w in pair.words])


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


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_a_padding_token_in_the_text_is_refused_where_positions_skip_it(made, tiny_routed, family):
    model = tiny_routed(family)
    if family == "roberta":
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


# Experts


def by_hand(model, one, output, gone):
    """The output with these `(layer, expert)` gates set to 0, all else as the input's own route."""
    with torch.no_grad(), record_routing() as record:
        model(**one.inputs)
    gates = {layer: g.clone() for layer, g in play_back(record).items()}
    for layer, expert in gone:
        gates[layer][..., expert] = 0
    with torch.no_grad(), use_gates(gates):
        return float(model(**one.inputs).logits[0, output])


@pytest.mark.parametrize("name", ["routed", "token_routed"])
def test_zeroed_experts_equal_zeroed_gates(made, request, name):
    model = request.getfixturevalue(name)
    one = made(model)
    coalitions = experts.Coalitions(one, 1)
    found = experts.zero_experts(coalitions)
    assert found.fires.sum() == len(coalitions.players) > len(coalitions.layers) - 1
    for row, layer in enumerate(found.layers):
        for expert in range(4):
            drop = found.full - by_hand(model, one, 1, [(layer, expert)])
            assert found.values[row, expert] == pytest.approx(drop, abs=1e-5)
            if not found.fires[row, expert]:
                assert found.values[row, expert] == 0.0


def test_zeroed_experts_equal_captums_feature_ablation(made, routed):
    from captum.attr import FeatureAblation

    one = made(routed)
    found = experts.zero_experts(experts.Coalitions(one, 1))
    with torch.no_grad(), record_routing() as record:
        routed(**one.inputs)
    own = torch.stack([record.last(layer).gates for layer in found.layers], 1)  # (1, L, H)

    def forward(gates):
        batch = {name: values.expand(len(gates), -1) for name, values in one.inputs.items()}
        with use_gates({layer: gates[:, i] for i, layer in enumerate(found.layers)}):
            return routed(**batch).logits[:, 1]

    expected = FeatureAblation(forward).attribute(own, baselines=0.0, perturbations_per_eval=16)
    np.testing.assert_allclose(found.values, expected[0].detach(), atol=1e-5)


@pytest.mark.parametrize("name", ["routed", "token_routed"])
def test_the_next_expert_equals_a_knock_out(made, request, name):
    model = request.getfixturevalue(name)
    top_k = next(iter(expert_layers(model).values())).top_k
    one = made(model)
    found = experts.next_experts(experts.Coalitions(one, 0))
    for row, layer in enumerate(found.layers):
        for expert in range(4):
            with torch.no_grad(), use_gates(knock_out({layer: expert}, top_k)):
                drop = found.full - float(model(**one.inputs).logits[0, 0])
            assert found.values[row, expert] == pytest.approx(drop, abs=1e-5)
            if not found.fires[row, expert]:
                assert found.values[row, expert] == 0.0


def brute_force_shapley(value, players):
    """By the definition, over all subsets."""
    k, shares = len(players), []
    for player in players:
        others = [p for p in players if p != player]
        share = 0.0
        for size in range(k):
            for there in combinations(others, size):
                share += (value({*there, player}) - value(set(there))) / (k * comb(k - 1, size))
        shares.append(share)
    return shares


@pytest.mark.parametrize("name", ["routed", "token_routed"])
def test_exact_shapley_values_follow_the_definition_and_are_efficient(made, request, name):
    model = request.getfixturevalue(name)
    one = made(model, ("w1 w7",) if name == "token_routed" else TEXT)
    coalitions = experts.Coalitions(one, 1)
    found = experts.shapley_values(coalitions, budget=4096)
    players, known = coalitions.players, {}

    def value(there):
        key = frozenset(there)
        if key not in known:
            known[key] = by_hand(model, one, 1, [p for p in players if p not in there])
        return known[key]

    np.testing.assert_allclose(found.values[found.fires], brute_force_shapley(value, players), atol=1e-5)
    assert found.errors is None
    assert found.permutations == 0
    assert found.values.sum() == pytest.approx(found.full - found.empty, abs=1e-5)
    assert found.empty == pytest.approx(value(set()), abs=1e-5)
    assert not found.values[~found.fires].any()


def test_sampled_shapley_values_are_efficient_and_near_the_exact_ones(made, token_routed):
    coalitions = experts.Coalitions(made(token_routed), 1)
    assert len(coalitions.players) > 5
    exact = experts.shapley_values(coalitions, budget=2 ** len(coalitions.players))
    sampled = experts.shapley_values(coalitions, budget=2 ** len(coalitions.players) - 1)
    assert sampled.permutations > 10
    assert sampled.values.sum() == pytest.approx(sampled.full - sampled.empty, abs=1e-5)
    away = np.abs(sampled.values - exact.values)[exact.fires]
    assert away.max() < 4 * sampled.errors.max() + 1e-5
    assert away.max() > 0
    again = experts.shapley_values(coalitions, budget=2 ** len(coalitions.players) - 1)
    np.testing.assert_array_equal(sampled.values, again.values)
    fewer = experts.shapley_values(coalitions, budget=30)
    assert fewer.errors.mean() > sampled.errors.mean()
    assert not fewer.errors[~fewer.fires].any()


def test_blocks_of_coalitions_change_nothing(made, routed, monkeypatch):
    coalitions = experts.Coalitions(made(routed), 1)
    wanted = experts.shapley_values(coalitions)
    monkeypatch.setattr(experts, "_KEPT_BYTES", 4096)
    monkeypatch.setattr(instance, "TOKENS_AT_ONCE", 20)
    calls = []
    again = experts.shapley_values(coalitions, progress=lambda *call: calls.append(call))
    np.testing.assert_allclose(again.values, wanted.values, atol=1e-5)
    assert all(a[0] <= b[0] for a, b in pairwise(calls))
    assert calls[-1] == (2 ** len(coalitions.players),) * 2


def test_models_without_experts_or_routers_are_refused(made, tiny_model, tiny_routed):
    with pytest.raises(PlanError, match="no routed layer"):
        experts.Coalitions(made(tiny_model()), 0)
    uniform = experts.Coalitions(made(tiny_routed("bert", control="uniform")), 0)
    assert uniform.fires.all()
    assert np.abs(experts.zero_experts(uniform).values).min() > 0
    with pytest.raises(PlanError, match="no router"):
        experts.next_experts(uniform)


# Trust


def test_every_attribution_is_checked_and_a_random_one_last(made, routed):
    one = made(routed)
    results = [
        tokens.input_x_gradient(one, 1),
        tokens.integrated_gradients(one, 1),
        tokens.ablate_words(one, 1),
    ]
    calls = []
    found = trust.check(one, results, 1, progress=lambda *call: calls.append(call))
    assert [check.method for check in found] == [*tokens.METHODS, trust.RANDOM]
    assert calls[-1][0] == calls[-1][1]
    assert all(a[0] <= b[0] for a, b in pairwise(calls))
    assert found[-1].sensitivity > 0.5  # drawn anew for every copy
    assert len({check.sensitivity for check in found}) == 4
    for check in found:
        assert 0 <= check.scaled_infidelity <= check.infidelity + 1e-5
        assert check.explained <= 1 + 1e-6


def test_a_true_attribution_is_told_from_a_random_one(made, tiny_model, monkeypatch):
    """Of an output that is a sum over words: its terms foresee everything, random scores next to nothing."""
    one = made(tiny_model())
    terms = torch.linspace(-1, 2, len(one.words))
    direction = torch.ones(one.embeddings.shape[-1])
    gaps = ((one.embeddings - one.baseline("mask"))[0] @ direction)[one.word_positions]

    def additive(self, embeddings, **inputs):
        there = ((embeddings - one.baseline("mask")) @ direction)[:, one.word_positions] / gaps
        return (there @ terms)[:, None].expand(-1, 2)

    monkeypatch.setattr(instance.Instance, "outputs", additive)
    result = tokens.ablate_words(one, 0)
    np.testing.assert_allclose(result.scores, terms, atol=1e-4)
    controls = []
    for seed in range(5):
        true, control = trust.check(one, [result], 0, seed=seed)
        assert true.infidelity == pytest.approx(0, abs=1e-6)
        assert true.explained == pytest.approx(1, abs=1e-5)
        controls.append(control)
    assert np.mean([control.explained for control in controls]) < 0.7
    assert min(control.infidelity for control in controls) > 0.1


def test_a_turned_sign_is_not_forgiven_and_one_word_beats_nobody(made, routed):
    one = made(routed)
    result = tokens.ablate_words(one, 0)
    turned = replace(result, scores=-result.scores)
    right, wrong, _ = trust.check(one, [result, turned], 0)
    assert right.explained > 0
    assert wrong.explained <= 0 < wrong.infidelity
    assert wrong.beaten < right.beaten
    alone = made(routed, ("w3",))
    for seed in range(3):
        result = tokens.ablate_words(alone, 0)
        (single,) = trust.check(alone, [result], 0, seed=seed)[:1]
        assert single.explained == pytest.approx(1, abs=1e-5)
        draws = np.random.default_rng(seed).normal(size=(trust.DRAWS, 1))
        assert (
            single.beaten == (np.sign(draws) != np.sign(result.scores)).sum()
        )  # the others are as good, at any size


def test_infidelity_equals_its_definition(made, routed):
    one = made(routed)
    result = tokens.ablate_words(one, 1)
    (found, _) = trust.check(one, [result], 1, replacement="mask")
    generator = torch.Generator().manual_seed(0)
    dropped = torch.rand(trust.SAMPLES, len(one.words), generator=generator) < trust.SHARE_REPLACED
    errors = []
    for row in dropped.numpy():
        embeddings = one.embeddings.clone()
        for gone, word in zip(row, one.words, strict=True):
            if gone:
                embeddings[:, list(word.positions)] = one.replacement("mask")
        with torch.no_grad():
            change = result.full - float(one.outputs(embeddings)[0, 1])
        errors.append(((row * result.scores).sum() - change) ** 2)
    assert found.infidelity == pytest.approx(np.mean(errors), rel=1e-4)


# Data sets


@pytest.mark.parametrize("name", ["routed", "token_routed"])
@pytest.mark.parametrize("meaning", importance.MEANINGS)
def test_knock_outs_on_data_equal_one_input_at_a_time(request, tiny_data, tiny_tokenizer, name, meaning):
    model, data = request.getfixturevalue(name), tiny_data(7)
    rows = np.array([3, 0, 6, 5])
    found = importance.knock_outs(model, tiny_tokenizer, data, rows, meaning=meaning)
    method = experts.zero_experts if meaning == "zeroed" else experts.next_experts
    for i, row in enumerate(rows):
        one = instance.prepare(model, tiny_tokenizer, SST2, data.texts[row])
        for output in (0, 1):
            alone = method(experts.Coalitions(one, output))
            np.testing.assert_allclose(found.effects(output)[i], alone.values, atol=2e-5)
        np.testing.assert_array_equal(found.fires[i], alone.fires)
    np.testing.assert_allclose(found.top1.sum(-1), 1)
    assert not found.effects(1)[~found.fires].any()


def test_the_table_of_a_data_set(routed, tiny_data, tiny_tokenizer):
    data = tiny_data(40)
    order = list(importance.blocks(data, 40))
    assert [len(block) for block in order] == [32, 8]
    found = importance.merge([importance.knock_outs(routed, tiny_tokenizer, data, block) for block in order])
    assert found.n == 40
    assert sorted(found.rows) == list(range(40))
    table = found.table(data, None)
    assert len(table) == 12
    own = found.base.argmax(1)
    labels = data.labels[found.rows]
    for row in table.itertuples():
        place = found.layers.index(row.layer)
        changed = found.knocked_out[:, place, row.expert]
        drop = found.base[np.arange(40), own] - changed[np.arange(40), own]
        assert row.signed == pytest.approx(drop.mean(), abs=1e-6)
        assert row.effect == pytest.approx(np.abs(drop).mean(), abs=1e-6)
        assert row.signed_low <= row.signed <= row.signed_high
        lost = (own == labels).mean() - (changed.argmax(1) == labels).mean()
        assert row.score_lost == pytest.approx(lost)
        assert row.score_lost_low <= row.score_lost <= row.score_lost_high
        assert row.flips == (changed.argmax(1) != own).sum()
        if row.uses:
            assert row.effect_per_use == pytest.approx(row.effect * 40 / row.uses, rel=1e-5)
        else:
            assert (row.effect, row.score_lost) == (0, 0)
            assert np.isnan(row.effect_per_use)
    assert table.groupby("layer")["usage"].sum().tolist() == pytest.approx([1, 1, 1])
    ranks = importance.correlations(table, "effect")
    for layer, rho in ranks.set_index("layer")["spearman"].items():
        group = table[(table["layer"] == layer) & (table["uses"] > 0)]  # the others tie at 0 by construction
        varied = len(group) > 2 and group["usage"].nunique() > 1
        expected = np.corrcoef(group["usage"].rank(), group["effect"].rank())[0, 1] if varied else np.nan
        assert rho == pytest.approx(expected, nan_ok=True)
    assert ranks["spearman"].notna().any()
    assert (importance.correlations(table, "effect_per_use")["n"] <= 4).all()


def test_data_without_labels_and_models_without_routers(routed, tiny_model, tiny_data, tiny_tokenizer):
    data = tiny_data(4)
    bare = TextData(SST2, "bare", data.texts)
    table = importance.knock_outs(routed, tiny_tokenizer, bare, range(4)).table(bare, 1)
    assert table["score_lost"].isna().all()
    assert table["effect"].max() > 0
    with pytest.raises(PlanError, match="no routed layer"):
        importance.knock_outs(tiny_model(), tiny_tokenizer, data, range(4))
    with pytest.raises(PlanError, match="not as"):
        importance.knock_outs(routed, tiny_tokenizer, data, range(4), meaning="zebra")
    with pytest.raises(DataError, match="empty"):
        importance.knock_outs(routed, tiny_tokenizer, data, [])


def test_another_metric_than_accuracy_falls_as_far_as_the_scores_are_apart(
    tiny_routed, tiny_tokenizer, tiny_data
):
    data = tiny_data(32, task=TASKS["cola"])
    found = importance.knock_outs(tiny_routed("bert"), tiny_tokenizer, data, range(32))
    table = found.table(data, 0)
    before = matthews_corrcoef(data.labels, found.base.argmax(1))
    lost = [
        before - matthews_corrcoef(data.labels, found.knocked_out[:, place, expert].argmax(1))
        for place in range(len(found.layers))
        for expert in range(4)
    ]
    assert table["score_lost"].tolist() == pytest.approx(lost, abs=1e-9)
    assert max(map(abs, lost)) > 0.1  # or a turned sign could go unseen
    low, high = table["score_lost_low"], table["score_lost_high"]
    unknown = (table["flips"] == 0) & (table["uses"] > 0)  # a bootstrap would be certain of no difference
    assert unknown.any()
    assert low[unknown].isna().all()
    assert high[unknown].isna().all()
    assert (low <= table["score_lost"] + 1e-9)[~unknown].all()
    assert (table["score_lost"] <= high + 1e-9)[~unknown].all()
    assert (low < high)[table["flips"] > 0].all()


# A shared model


def everything(one, data, tokenizer):
    results = [
        tokens.input_x_gradient(one, 1),
        tokens.integrated_gradients(one, 1, steps=16),
        tokens.ablate_words(one, 1),
    ]
    coalitions = experts.Coalitions(one, 1)
    checks = trust.check(one, results[1:2], 1, steps=8)
    return [
        *(result.scores for result in results),
        experts.zero_experts(coalitions).values,
        experts.next_experts(coalitions).values,
        experts.shapley_values(coalitions).values,
        np.array([[c.infidelity, c.sensitivity] for c in checks]),
        importance.knock_outs(one.model, tokenizer, data, range(4)).knocked_out,
    ]


def test_a_shared_model_is_left_as_it_was_and_threads_do_not_mix(routed, made, tiny_data, tiny_tokenizer):
    for parameter in routed.parameters():
        assert parameter.requires_grad
    before = {name: value.clone() for name, value in routed.state_dict().items()}
    data = tiny_data(4)
    texts = [("w1 w2 w3",), ("w50 w40 w30 w20",), ("w9",), ("w11 w12 w13 w14 w15 w16",)]
    alone = {text: everything(made(routed, text), data, tiny_tokenizer) for text in texts}
    wrong, errors = [], []

    def work(text):
        try:
            for _ in range(2):
                now = everything(made(routed, text), data, tiny_tokenizer)
                if not all(np.allclose(a, b, atol=1e-4) for a, b in zip(now, alone[text], strict=True)):
                    wrong.append(text)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not wrong
    assert all(parameter.grad is None for parameter in routed.parameters())
    assert not routed.training
    for name, value in routed.state_dict().items():
        assert torch.equal(value, before[name])


def test_integrated_gradients_take_more_steps_until_they_add_up(monkeypatch):
    asked = []

    def fake(instance, output, *, steps, frozen, progress):
        asked.append(steps)
        off = 1.0 if steps < 50 else 0.0
        return tokens.WordScores(tokens.METHODS[1], (), np.array([2.0 + off]), 2.0, 0.0, steps=steps)

    monkeypatch.setattr(tokens, "integrated_gradients", fake)
    found = tokens.converged_gradients(None, 0, steps=16)
    assert (asked, found.steps, found.error_part) == ([16, 32, 64], 64, 0.0)
    asked.clear()
    assert tokens.converged_gradients(None, 0, steps=16, most=40).error_part == pytest.approx(0.5)
    assert asked == [16, 32, 40]
    asked.clear()
    tokens.converged_gradients(None, 0, steps=16, frozen=False)
    assert asked == [16]  # jumps of the route are no matter of steps


# Why a layer took an expert


def own_odds(model, tokenizer, layer, first, second, text=TEXT):
    with torch.no_grad(), record_routing() as record:
        model(**collate(tokenizer, encode(tokenizer, [text]), [0]))
    logs = record.last(layer).probs[0].log()
    return float((logs[..., first] - logs[..., second]).mean())


def test_a_routers_preference_is_its_log_odds(made, tiny_routed, tiny_tokenizer, tiny_family):
    model = tiny_routed(tiny_family)
    layer = sorted(router_layers(model))[-1]
    text = (TEXT[0].replace(",", ""),)
    one = router.prefer(made(model, text), layer, 2, 0)
    with torch.no_grad():
        odds = one.outputs(one.embeddings.repeat(3, 1, 1))
    assert odds.shape == (3, 1)
    np.testing.assert_allclose(odds, own_odds(model, tiny_tokenizer, layer, 2, 0, text), atol=1e-5)


def test_under_token_routing_a_preference_is_the_mean_over_tokens(made, token_routed, tiny_tokenizer):
    one = router.prefer(made(token_routed), 2, 1, 3)
    with torch.no_grad():
        alone = float(one.outputs(one.embeddings))
        padded = torch.cat([one.embeddings, torch.randn(1, 4, one.embeddings.shape[-1])], 1)
        longer = {
            name: torch.cat([values, torch.zeros(1, 4, dtype=values.dtype)], 1)
            for name, values in one.inputs.items()
            if name != "input_ids"
        }
        beside_padding = float(one.outputs(padded, **longer))
    assert alone == pytest.approx(own_odds(token_routed, tiny_tokenizer, 2, 1, 3), abs=1e-5)
    assert beside_padding == pytest.approx(alone, abs=1e-5)


def test_the_words_add_up_to_a_preference(made, routed):
    one = router.prefer(made(routed), 2, 3, 1)
    found = tokens.integrated_gradients(one, 0, steps=200)
    with torch.no_grad(), use_gates(one.route()):
        full, reference = (float(one.outputs(x)) for x in (one.embeddings, one.baseline()))
    assert found.full == pytest.approx(full, abs=1e-4)
    assert found.total == pytest.approx(full - reference, abs=2e-3)
    assert abs(found.total) > 0.1
    back = tokens.integrated_gradients(router.prefer(made(routed), 2, 1, 3), 0, steps=200)
    np.testing.assert_allclose(found.scores, -back.scores, atol=1e-5)


def test_what_a_word_adds_to_a_preference_is_what_its_loss_takes(made, routed, tiny_tokenizer):
    one = router.prefer(made(routed), 2, 3, 1)
    found = tokens.ablate_words(one, 0, replacement="remove")
    without = ("w1 w20 w33, w4 w50",)  # the last word is gone
    expected = own_odds(routed, tiny_tokenizer, 2, 3, 1) - own_odds(routed, tiny_tokenizer, 2, 3, 1, without)
    assert found.words[-1].text == "w17"
    assert found.scores[-1] == pytest.approx(expected, abs=1e-5)
    assert found.rerouted.max() <= 3


def test_what_lies_above_a_router_is_not_run(made, routed):
    one = router.prefer(made(routed), 0, 1, 2)
    with torch.no_grad(), record_routing() as record:
        one.outputs(one.embeddings)
    assert record.layers == [0]
    assert sorted(router_layers(routed)) == [0, 1, 2]


def test_a_saturated_router_has_a_finite_preference(made, tiny_routed):
    model = copy.deepcopy(tiny_routed("bert", layers=(1,)))
    for parameter in router_layers(model)[1].router.parameters():
        parameter.data *= 1e6
    with torch.no_grad(), record_routing() as record:
        model(**made(model).inputs)
    probs = record.last(1).probs[0]
    sure, never = int(probs.argmax()), int(probs.argmin())
    assert probs[never] == 0
    one = router.prefer(made(model), 1, sure, never)
    floor = -float(np.log(np.finfo(np.float32).tiny))
    found = tokens.ablate_words(one, 0)
    assert found.full == pytest.approx(floor, rel=1e-4)
    assert np.isfinite(found.scores).all()
    assert np.isfinite(tokens.input_x_gradient(one, 0).scores).all()


@pytest.mark.parametrize(
    ("layer", "expert", "other", "what"),
    [
        (1, 0, 1, r"routed layers are \[0, 2\]"),
        (0, 2, 2, "two different"),
        (0, 0, 4, "0 to 3"),
        (0, -1, 1, "0 to 3"),
    ],
)
def test_a_preference_of_no_router_or_no_experts_is_refused(made, tiny_routed, layer, expert, other, what):
    with pytest.raises(DataError, match=what):
        router.prefer(made(tiny_routed("bert", layers=(0, 2))), layer, expert, other)


def test_a_preference_can_be_checked_for_trust(made, routed):
    one = router.prefer(made(routed), 1, 0, 2)
    found = [tokens.ablate_words(one, 0)]
    real, control = trust.check(one, found, 0)
    assert real.method == tokens.METHODS[2]
    assert real.infidelity < control.infidelity


@pytest.mark.parametrize("replacement", tokens.REPLACEMENTS)
def test_the_route_without_a_word_is_that_of_the_text_without_it(made, routed, tiny_tokenizer, replacement):
    one = made(routed)
    found = router.routes_without(one, replacement)
    assert found.layers == (0, 1, 2)

    def routes(inputs):
        with torch.no_grad(), record_routing() as record:
            routed(**inputs)
        return [int(record.last(layer).gates.argmax()) for layer in found.layers]

    assert found.own.tolist() == routes(one.inputs)
    changed = tokens.ablate_words(one, 0, replacement=replacement)
    np.testing.assert_array_equal((found.without != found.own[:, None]).sum(0), changed.rerouted)
    if replacement == "remove":
        without_the_last = encode(tiny_tokenizer, [("w1 w20 w33, w4 w50",)])
        assert found.without[:, -1].tolist() == routes(collate(tiny_tokenizer, without_the_last, [0]))


def test_of_several_experts_the_one_with_the_largest_gate_is_taken(made, tiny_routed):
    model = tiny_routed("bert", layers=(1, 2), top_k=2)
    one = made(model)
    found = router.routes_without(one, "pad")
    with torch.no_grad(), record_routing() as record:
        model(**one.inputs)
    assert (found.top_k, found.experts) == (2, 4)
    assert found.own.tolist() == [int(record.last(layer).probs.argmax()) for layer in (1, 2)]


def test_without_a_router_no_word_changes_a_route(made, tiny_model):
    with pytest.raises(DataError, match="no router"):
        router.routes_without(made(tiny_model()))


def test_where_tokens_are_routed_there_is_no_one_route(made, token_routed):
    with pytest.raises(DataError, match="every token has a route of its own"):
        router.routes_without(made(token_routed))
