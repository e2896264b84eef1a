import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shrp.analysis import knock_out as knockout
from shrp.analysis.attention import Pattern, layer_attention, model_attention
from shrp.analysis.knock_out import FEWEST, KnockOut, Prefix, joint, knock_out_effect
from shrp.analysis.usage import measure_usage
from shrp.analysis.words import count_tokens, count_words, log_odds
from shrp.checkpoints.info import EVALUATED_TOKENS
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import evaluate, evaluate_stream
from shrp.evaluation.statistics import of_mean
from shrp.families.families import encoder_layers
from shrp.model.convert import expert_layers, layer_kinds
from shrp.model.gates import knock_out, record_routing, use_gates
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

# ---- words


def test_words_are_counted_an_input():
    counted = count_words([("The cat, the CAT's hat!",), ("Ünïcode — 3 cats",), ("...",)])
    assert counted.words == ("the", "cat", "cat's", "hat", "ünïcode", "3", "cats")
    first = np.array([True, False, False])
    assert counted.of(first).tolist() == [2, 1, 1, 1, 0, 0, 0]
    assert counted.inputs(first).tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert counted.of(~first).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert count_words([("a b", "b c")]).of(np.array([True])).tolist() == [1, 2, 1]
    marked = "\u0939\u093f\u0928\u094d\u0926\u0940 nai\u0308ve \u05e9\u05b8\u05dc a_b"
    assert count_words([(marked,)]).words == tuple(marked.replace("_", " ").split())
    # Kana and Han have no spaces: each is a word, but for the dot between them, which is punctuation.
    assert count_words([("\u6771\u4eac\u30fb\u304b\u3099",)]).words == ("\u6771", "\u4eac", "\u304b\u3099")


def test_log_odds_are_those_of_the_paper():
    here, elsewhere = np.array([30, 10, 60]), np.array([5, 45, 150])
    found = log_odds(["a", "b", "c"], here, elsewhere, min_count=1, prior_terms=100)
    # Monroe et al.: delta = log((y+a)/(n+a0-y-a)) of one group minus that of the other; variance 1/(y+a) + 1/(x+a)
    prior = 100 * 35 / 300
    delta = np.log((30 + prior) / (100 + 100 - 30 - prior)) - np.log((5 + prior) / (200 + 100 - 5 - prior))
    z = delta / np.sqrt(1 / (30 + prior) + 1 / (5 + prior))
    row = found.frame.set_index("term").loc["a"]
    assert row["log-odds"] == pytest.approx(delta)
    assert row["z"] == pytest.approx(z)
    assert row["low"] < delta < row["high"]
    assert (row["here"], row["elsewhere"]) == (30, 5)
    assert row["per 1,000 here"] == pytest.approx(300)
    assert found.frame["term"].iloc[0] == "a"
    assert found.frame["z"].is_monotonic_decreasing
    assert (found.here, found.elsewhere, found.tested) == (100, 200, 3)


def test_a_rare_word_is_shrunk_and_ranked_by_z_and_the_minimum_leaves_it_out():
    terms = ["rare", "frequent", "even"]
    here, elsewhere = np.array([2, 60, 200]), np.array([0, 20, 300])
    weak = log_odds(terms, here, elsewhere, min_count=1, prior_terms=1).frame.set_index("term")
    strong = log_odds(terms, here, elsewhere, min_count=1, prior_terms=1000).frame.set_index("term")
    assert weak.loc["rare", "log-odds"] > weak.loc["frequent", "log-odds"]
    assert 0 < strong.loc["rare", "log-odds"] < 0.3 * weak.loc["rare", "log-odds"]
    assert strong.loc["frequent", "z"] > strong.loc["rare", "z"]
    assert log_odds(terms, here, elsewhere, min_count=3).frame["term"].tolist() == ["frequent", "even"]


def test_z_of_independent_words_dealt_at_random_is_about_standard_normal():
    rng = np.random.default_rng(0)
    here, elsewhere = rng.poisson(20, 300), rng.poisson(60, 300)
    found = log_odds([f"w{i}" for i in range(300)], here, elsewhere)
    assert 0 < (found.frame["z"].abs() > 1.96).mean() < 0.1


def test_one_sided_and_empty_groups_give_numbers():
    found = log_odds(["a", "b"], np.array([0, 0]), np.array([9, 9]))
    assert np.isfinite(found.frame["z"]).all()
    assert log_odds([], np.zeros(0, int), np.zeros(0, int)).tested == 0
    assert np.isfinite(log_odds(["a"], np.array([9]), np.array([0])).frame["z"]).all()


def test_token_counts_agree_with_usage(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(routing="token"), tiny_data(30)
    calls = []
    counted = count_tokens(
        model, tiny_tokenizer, data, batch_size=8, progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (30, 30)
    stats = measure_usage(model, tiny_tokenizer, data)
    assert "[CLS]" not in counted.tokens
    special = 0
    for layer in (1, 2):
        with torch.no_grad(), record_routing() as record:
            for text in data.texts:
                model(**collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0]))
        gates = [trace.gates[0].argmax(-1) for trace in record.traces[layer]]
        special = np.bincount([int(g[i]) for g in gates for i in (0, -1)], minlength=4)
        np.testing.assert_array_equal(counted.counts[layer].sum(0), stats.counts(layer) - special)
    word = data.texts[0][0].split()[0]
    total = sum(text.split().count(word) for (text,) in data.texts)
    assert counted.counts[1][counted.tokens.index(word)].sum() == total


def test_tokens_that_read_alike_count_as_one(tiny_routed, tiny_data):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "w1", "\N{LOWER ONE EIGHTH BLOCK}w1", "w2"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    texts = (("w1 \N{LOWER ONE EIGHTH BLOCK}w1 w2",), ("w2 w1",))
    counted = count_tokens(
        tiny_routed(routing="token"), tokenizer, replace(tiny_data(2), texts=texts, slices=None)
    )
    assert counted.tokens == ("w1", "w2")
    assert counted.counts[1].sum(1).tolist() == [3, 2]


# ---- attention


@pytest.mark.parametrize("layers", [(1, 2), (0, 1, 2)])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_attention_is_the_layers_own_on_its_real_input(tiny_routed, tiny_tokenizer, routing, layers):
    model, text = tiny_routed(routing=routing, layers=layers), ("w1 w2 nothing w4",)
    batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0])
    for layer in layers:
        module, seen = expert_layers(model)[layer], []
        hook = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad(), record_routing() as record:
            model(**batch)
        hook.remove()
        found = layer_attention(model, tiny_tokenizer, text, layer)
        with torch.no_grad():
            direct = module.attention_maps(seen[0])[0].numpy()
            outputs = module.expert_outputs(seen[0])[0].numpy()
            values = module.qkv(seen[0])[2][0].numpy()
        np.testing.assert_allclose(found.weights, direct, atol=1e-6)
        np.testing.assert_allclose(found.weights @ values, outputs, atol=1e-5)  # what attention really mixes
        np.testing.assert_allclose(found.probs, record.last(layer).probs[0], atol=1e-6)
        assert found.tokens == ("[CLS]", "w1", "w2", "[UNK]", "w4", "[SEP]")
        assert found.special.tolist() == [True, False, False, False, False, True]  # unknown words are words


def test_hiding_special_tokens_renormalises_and_says_how_much_went(tiny_routed, tiny_tokenizer):
    found = layer_attention(tiny_routed(), tiny_tokenizer, ("w1 w2 w3",), 2)
    for expert in range(4):
        whole = found.pattern(expert)
        assert whole.hidden == 0
        np.testing.assert_allclose(whole.weights.sum(1), 1, atol=1e-5)
        part = found.pattern(expert, without_special=True)
        assert part.tokens == ("w1", "w2", "w3")
        np.testing.assert_allclose(part.weights.sum(1), 1, atol=1e-5)
        inner = found.weights[expert][1:4, 1:4]
        assert part.hidden == pytest.approx(1 - inner.sum(1).mean(), abs=1e-6)
        np.testing.assert_allclose(part.weights[0] / part.weights[0, 0], inner[0] / inner[0, 0], rtol=1e-5)


def test_the_spread_of_attention_is_an_effective_number_of_tokens():
    even, one = np.full((3, 4), 0.25), np.eye(3, 4)
    assert Pattern(even, ("a",) * 4, 0.0).spread == pytest.approx(4)
    assert Pattern(one, ("a",) * 4, 0.0).spread == pytest.approx(1)
    half = np.array(
        [[0.5, 0.5, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    )  # a row whose attention is all hidden is left out
    assert Pattern(half, ("a",) * 4, 0.5).spread == pytest.approx(1.5)
    assert np.isnan(Pattern(np.zeros((2, 2)), ("a", "b"), 1.0).spread)


def test_attention_of_odd_inputs(tiny_routed, tiny_tokenizer):
    model = tiny_routed()
    empty = layer_attention(model, tiny_tokenizer, ("",), 1)
    assert empty.pattern(0, without_special=True).tokens == ("[CLS]", "[SEP]")  # nothing else is there
    long = layer_attention(model, tiny_tokenizer, ("w1 " * 500,), 1)
    assert (len(long.tokens), long.full_length) == (32, 502)
    for layer in (-1, 3):
        with pytest.raises(PlanError, match=f"no layer {layer}: they are 0 to 2"):
            layer_attention(model, tiny_tokenizer, ("w1",), layer)
    with pytest.raises(PlanError, match="layer 1 was dropped"):
        layer_attention(tiny_routed(control="dropped"), tiny_tokenizer, ("w1",), 1)


def test_attention_of_dense_heads_is_what_transformers_returns(tiny_family, tiny_model, tiny_tokenizer):
    model, text = tiny_model(tiny_family), ("w1 w2 nothing w4",)
    model.set_attn_implementation("eager")
    batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0])
    with torch.no_grad():
        wanted = model(**batch, output_attentions=True).attentions
    for layer, maps in enumerate(wanted):
        found = layer_attention(model, tiny_tokenizer, text, layer)
        assert (found.kind, found.heads, found.probs) == ("dense", (0, 1, 2, 3), None)
        np.testing.assert_allclose(found.weights, maps[0].numpy(), atol=1e-6)


def test_attention_of_kept_experts_goes_by_their_numbers(tiny_family, tiny_routed, tiny_tokenizer):
    model, text = tiny_routed(tiny_family, layers=(0, 2)), ("w1 w2 nothing w4",)
    static = prune(model, make_plan({0: [0.1, 0.2, 0.3, 0.4], 2: [1, 0, 0, 0]}, counts={0: 2, 2: 1}))
    routed, kept = (layer_attention(one, tiny_tokenizer, text, 0) for one in (model, static))
    assert (kept.kind, kept.probs) == ("static", None)
    assert sorted(kept.heads) == [2, 3]
    for expert in (2, 3):
        np.testing.assert_allclose(kept.pattern(expert).weights, routed.pattern(expert).weights, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"routing": "token"},
        {"control": "uniform"},
        {"control": "dropped"},
        {"control": "narrow"},
        {"layers": (0, 1, 2)},
    ],
)
def test_all_layers_at_once_are_each_as_alone(tiny_family, tiny_routed, tiny_tokenizer, kind):
    model, text = tiny_routed(tiny_family, **kind), ("w1 w2 nothing w4",)
    found = model_attention(model, tiny_tokenizer, text)
    kinds = layer_kinds(model)
    assert [one.layer for one in found] == [layer for layer, each in enumerate(kinds) if each != "dropped"]
    assert [one.kind for one in found] == [each for each in kinds if each != "dropped"]
    for one in found:
        alone = layer_attention(model, tiny_tokenizer, text, one.layer)
        assert (one.heads, one.tokens, one.routed_to) == (alone.heads, alone.tokens, alone.routed_to)
        np.testing.assert_allclose(one.weights, alone.weights, atol=1e-6)
        if one.probs is not None:
            np.testing.assert_allclose(one.probs, alone.probs, atol=1e-6)


def test_all_experts_that_fire_are_told(tiny_routed, tiny_tokenizer):
    model, text = tiny_routed(top_k=2, layers=(0, 2)), ("w1 w2 w3",)
    with torch.no_grad(), record_routing() as record:
        model(**collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0]))
    for one in model_attention(model, tiny_tokenizer, text):
        if one.layer in (0, 2):
            assert set(one.firing) == set(np.flatnonzero(record.last(one.layer).gates[0]).tolist())
            assert one.routed_to == one.firing[0] == int(one.probs.argmax())
        else:
            assert (one.firing, one.routed_to) == ((), None)


def test_attention_of_kept_heads_goes_by_their_numbers(tiny_family, tiny_model, tiny_routed, tiny_tokenizer):
    text = ("w1 w2 nothing w4",)
    dense, kept = (
        layer_attention(model, tiny_tokenizer, text, 1)
        for model in (tiny_model(tiny_family), tiny_routed(tiny_family, control="narrow"))
    )
    assert (kept.kind, kept.probs, len(kept.heads)) == ("narrow", None, 1)
    np.testing.assert_allclose(kept.weights[0], dense.weights[kept.heads[0]], atol=1e-6)


def test_nothing_attends_where_all_layers_are_dropped(tiny_routed, tiny_tokenizer):
    model = tiny_routed(control="dropped", layers=(0, 1, 2))
    assert model_attention(model, tiny_tokenizer, ("w1",)) == []


# ---- knocking an expert out


@pytest.mark.parametrize(("routing", "top_k"), [("sequence", 1), ("sequence", 2), ("token", 1)])
@pytest.mark.parametrize("layers", [(1, 2), (0, 1, 2)])
def test_knocking_out_equals_running_everything(
    tiny_routed, tiny_tokenizer, tiny_data, routing, top_k, layers
):
    model, data = tiny_routed(routing=routing, top_k=top_k, layers=layers), tiny_data(40)
    before = evaluate(model, tiny_tokenizer, data)
    stats = measure_usage(model, tiny_tokenizer, data)
    changed, prefix = 0, Prefix(model, limit=20_000)  # room for some of the inputs
    for layer in layers:
        for expert in range(4):
            with use_gates(knock_out({layer: expert}, top_k)):
                direct = evaluate(model, tiny_tokenizer, data)
            chosen = stats.top1[layer][:, expert] > 0 if top_k == 1 else None
            calls = []
            found = knock_out_effect(
                model,
                tiny_tokenizer,
                data,
                before,
                [(layer, expert)],
                chosen=chosen,
                prefix=prefix,
                batch_size=7,
                progress=lambda *call, calls=calls: calls.append(call),
            )
            np.testing.assert_allclose(found.after.logits, direct.logits, atol=1e-5)
            assert found.after.score == pytest.approx(direct.score)
            others = np.setdiff1d(np.arange(40), found.affected)
            np.testing.assert_array_equal(found.after.logits[others], before.logits[others])
            if chosen is not None:
                assert found.affected.tolist() == np.flatnonzero(chosen).tolist()
                assert calls == [] or calls[-1] == (chosen.sum(), chosen.sum())
            changed += len(found.affected)
    assert changed >= 40 * len(layers)  # every input uses some expert of every layer
    assert 10_000 < prefix.size <= 20_000


@pytest.mark.parametrize(("routing", "top_k"), [("sequence", 1), ("sequence", 2), ("token", 1)])
@pytest.mark.parametrize("experts", [[(1, 0), (1, 3)], [(2, 1), (1, 2)], [(0, 0), (0, 1), (0, 2), (2, 3)]])
def test_several_experts_at_once(tiny_routed, tiny_tokenizer, tiny_data, routing, top_k, experts):
    model, data = tiny_routed(routing=routing, top_k=top_k, layers=(0, 1, 2)), tiny_data(40)
    before, stats = evaluate(model, tiny_tokenizer, data), measure_usage(model, tiny_tokenizer, data)
    removed = {layer: [e for at, e in experts if at == layer] for layer, _ in experts}
    with use_gates(knock_out(removed, top_k)), record_routing() as record:
        direct = evaluate(model, tiny_tokenizer, data)
    for layer, taken in removed.items():
        assert not any(trace.gates[..., taken].any() for trace in record.traces[layer])
    mine = np.any([stats.top1[layer][:, expert] > 0 for layer, expert in experts], axis=0)
    for chosen in (None, mine) if top_k == 1 else (None,):
        found = knock_out_effect(model, tiny_tokenizer, data, before, experts, chosen=chosen, batch_size=7)
        np.testing.assert_allclose(found.after.logits, direct.logits, atol=1e-5)
        assert found.experts == tuple(sorted(experts))
        if top_k == 1:
            assert found.affected.tolist() == np.flatnonzero(mine).tolist()
        else:  # a second choice counts too
            assert set(np.flatnonzero(mine)) <= set(found.affected)


def test_experts_that_stand_in_for_each_other_lose_more_together(tiny_routed, tiny_tokenizer, tiny_data):
    """Planted: without either of two nothing is lost, without both all answers get worse by one."""
    data = tiny_data(40)
    before = evaluate(tiny_routed(), tiny_tokenizer, data)
    logits = before.logits.copy()
    logits[np.arange(40), data.labels] -= np.random.default_rng(0).normal(1, 0.2, 40).astype(np.float32)
    alone = [KnockOut((cell,), before, before, np.arange(40)) for cell in ((1, 0), (1, 1))]
    both = KnockOut(((1, 0), (1, 1)), before, replace(before, logits=logits), np.arange(40))
    found = joint(both, alone)
    assert found.together == found.beyond == pytest.approx(-1, abs=0.1)
    assert found.sum == 0
    assert -1.15 < found.interval[0] < found.together < found.interval[1] < -0.85
    pairs = np.arange(40).reshape(20, 2)
    assert joint(both, alone, pairs).interval != found.interval
    few = replace(
        both, after=replace(before, logits=np.where(np.arange(40)[:, None] < 9, logits, before.logits))
    )
    assert joint(few, alone).beyond < -0.1
    assert np.isnan(joint(few, alone).interval).all()
    noise = replace(both, after=replace(before, logits=before.logits + np.float32(1e-7) * np.arange(2)))
    assert joint(noise, alone).beyond == 0
    same = joint(both, [both])
    assert same.beyond == 0
    assert np.isnan(same.interval).all()


def test_effects_have_paired_intervals(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(60)
    *_, shuffled = evaluate_stream(model, tiny_tokenizer, data)  # rows in another order than the data's
    top = int(measure_usage(model, tiny_tokenizer, data).share(2).argmax())
    found = knock_out_effect(model, tiny_tokenizer, data, shuffled, [(2, top)])
    change, (low, high) = found.score_change()
    assert change == pytest.approx(found.after.score - found.before.score)
    assert low < change < high
    frame = found.logit_changes()
    difference = found.after.logits - found.before.logits
    np.testing.assert_allclose(frame["change"], difference.mean(0), atol=1e-6)
    np.testing.assert_allclose(frame["among its inputs"], difference[found.affected].mean(0), atol=1e-6)
    assert (frame["low"] <= frame["change"]).all()
    assert (frame["change"] <= frame["high"]).all()
    half = t.ppf(0.975, 59) * difference.std(0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose((frame["high"] - frame["low"]) / 2, half, rtol=1e-5)
    assert found.flipped == (found.before.predictions != found.after.predictions).sum()


def test_the_loss_in_a_slice_is_held_against_all_other_inputs(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(60)
    before = evaluate(model, tiny_tokenizer, data)
    top = int(measure_usage(model, tiny_tokenizer, data).share(2).argmax())
    found = knock_out_effect(model, tiny_tokenizer, data, before, [(2, top)])
    frame = found.by_slice().set_index("slice")
    assert sorted(frame.index) == ["long", "short"]
    assert frame["n"].sum() == 60
    assert frame["affected"].sum() == len(found.affected)
    counts = found.agreement()
    assert frame["become wrong"].sum() == counts.only_b
    assert frame["become right"].sum() == counts.only_a
    sign = np.where(data.labels == 1, 1, -1)
    margins = [(one.logits[:, 1] - one.logits[:, 0]) * sign for one in (found.before, found.after)]
    change, short = margins[1] - margins[0], np.array(data.slices) == "short"
    row = frame.loc["short"]
    assert row["change"] == pytest.approx(change[short].mean(), abs=1e-6)
    assert row["elsewhere"] == pytest.approx(change[~short].mean(), abs=1e-6)
    assert row["difference"] == pytest.approx(row["change"] - row["elsewhere"])
    assert row["low"] < row["change"] < row["high"]
    assert frame["p"].nunique() == frame["q"].nunique() == 1  # of two slices, each is the other's rest
    planted = replace(found, after=replace(found.after, logits=before.logits.copy()))
    planted.after.logits[short, data.labels[short]] -= np.linspace(1, 2, short.sum(), dtype=np.float32)
    rows = planted.by_slice().set_index("slice")
    assert rows.loc["short", "change"] == pytest.approx(-1.5, abs=1e-5)
    assert rows.loc["short", "q"] < 0.001
    assert replace(found, before=replace(before, slices=None)).by_slice().empty
    one = replace(before, slices=("all",) * 60)
    assert replace(found, before=one, after=one).by_slice()["q"].isna().all()  # nothing to hold it against


def test_changes_of_minimal_pairs_are_dealt_and_drawn_as_one(tiny_routed, tiny_tokenizer, tiny_data):
    """Both of a pair change alike: a test of inputs names far too many slices, one of pairs not."""
    model, data = tiny_routed(), tiny_data(120)
    before = replace(
        evaluate(model, tiny_tokenizer, data), slices=tuple(f"slice {i // 30}" for i in range(120))
    )
    pairs, named, width = np.arange(120).reshape(60, 2), {"inputs": 0, "pairs": 0}, {}
    for seed in range(30):
        rng, logits = np.random.default_rng(seed), before.logits.copy()
        logits[np.arange(120), data.labels] += np.repeat(rng.normal(0, 1, 60), 2).astype(np.float32)
        found = KnockOut(((2, 0),), before, replace(before, logits=logits), np.arange(120))
        for which, given in (("inputs", None), ("pairs", pairs)):
            frame = found.by_slice(given)
            named[which] += (frame["q"] <= 0.05).any()
            width[which] = (frame["high"] - frame["low"]).mean()
    assert named["pairs"] <= 4
    assert named["inputs"] > 5
    assert width["pairs"] > 1.25 * width["inputs"]
    logits = before.logits + np.repeat(rng.normal(0, 1, 60), 2).astype(np.float32)[:, None]
    found = replace(found, after=replace(before, logits=logits))
    alone, together = (found.logit_changes(pairs=given)[["low", "high"]] for given in (None, pairs))
    assert (together["high"] - together["low"]).mean() > 1.25 * (alone["high"] - alone["low"]).mean()


@pytest.mark.parametrize("affected", [(5, 7), (8, 12)])
def test_few_affected_inputs_are_not_too_sure_of_others(affected):
    """Effects of mean 0: their intervals leave 0 out about once in 20 times, which the percentile bootstrap's do in 8
    to 12%."""
    rng, out, seen = np.random.default_rng(0), 0, 0
    while seen < 2000:
        values = np.where(rng.random(40) < np.mean(affected) / 40, rng.normal(size=40), 0.0)
        if affected[0] <= (values != 0).sum() <= affected[1]:
            low, high = of_mean(values)
            out, seen = out + (low > 0 or high < 0), seen + 1
    assert 0.02 <= out / seen <= 0.065


def test_values_that_belong_together_count_as_one():
    values = np.repeat(np.random.default_rng(0).normal(size=50), 2)
    low, high = of_mean(values, np.repeat(np.arange(50), 2))
    once = of_mean(values[::2])
    assert (low, high) == pytest.approx(once)
    assert of_mean(values)[1] - of_mean(values)[0] < 0.75 * (high - low)
    for none in (np.empty(0), np.ones(1), np.ones(9), np.zeros(9)):
        assert np.isnan(of_mean(none)).all()


def test_slices_that_an_expert_hardly_serves_are_not_found_to_differ(tiny_routed, tiny_tokenizer, tiny_data):
    """Most inputs can't change, so a slice may have no change at all by chance: no reason to name it."""
    model, data = tiny_routed(), tiny_data(240)
    before = replace(
        evaluate(model, tiny_tokenizer, data), slices=tuple(f"slice {i % 12}" for i in range(240))
    )
    found = KnockOut(((2, 0),), before, before, np.arange(0))
    assert found.by_slice()["q"].min() == 1  # nothing changes anywhere
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        affected = np.flatnonzero(rng.random(240) < 0.06)
        logits = before.logits.copy()
        logits[affected, data.labels[affected]] += rng.normal(-1, 1, len(affected)).astype(np.float32)
        frame = KnockOut(((2, 0),), before, replace(before, logits=logits), affected).by_slice()
        assert frame.loc[frame["affected"] < FEWEST, "low"].isna().all()
        alarms += (frame["q"] <= 0.05).any()
    assert alarms <= 3


def test_data_without_labels_and_regression(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(12)
    bare = TextData(data.task, "bare", data.texts)
    before = evaluate(model, tiny_tokenizer, bare)
    found = knock_out_effect(model, tiny_tokenizer, bare, before, [(1, 0)])
    assert np.isnan(found.score_change()[0])
    assert np.isfinite(found.logit_changes()["change"]).all()
    pairs = tuple((text[0], "w1 w2") for text in data.texts)
    numbers = TextData(TASKS["stsb"], "numbers", pairs, np.linspace(0, 5, 12))
    model = tiny_routed(num_labels=1)
    before = evaluate(model, tiny_tokenizer, numbers)
    top = int(measure_usage(model, tiny_tokenizer, numbers).share(2).argmax())
    found = knock_out_effect(model, tiny_tokenizer, numbers, before, [(2, top)])
    assert len(found.affected) > 0
    assert found.flipped == 0
    assert found.logit_changes()["class"].tolist() == ["the prediction"]
    change, (low, high) = found.score_change()
    without, whole = (
        np.corrcoef(numbers.labels, one.predictions)[0, 1] for one in (found.after, found.before)
    )
    assert change == pytest.approx(without - whole)
    assert change != 0
    assert low <= change <= high


def test_what_cannot_be_knocked_out_is_refused(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(8)
    before = evaluate(model, tiny_tokenizer, data)
    for layer, expert in ((0, 0), (1, 4), (1, -1)):
        with pytest.raises(PlanError, match="no router"):
            knock_out_effect(model, tiny_tokenizer, data, before, [(layer, expert)])
    with pytest.raises(PlanError, match="at least one expert"):
        knock_out_effect(model, tiny_tokenizer, data, before, [])
    with pytest.raises(PlanError, match="all experts of layer 2"):
        knock_out_effect(model, tiny_tokenizer, data, before, [(2, expert) for expert in range(4)])
    with pytest.raises(DataError, match="not of all"):
        knock_out_effect(model, tiny_tokenizer, tiny_data(9), before, [(1, 0)])
    uniform = tiny_routed(control="uniform")
    with pytest.raises(PlanError):
        knock_out_effect(uniform, tiny_tokenizer, data, before, [(1, 0)])


def test_what_lies_below_the_experts_runs_once(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(16)
    before, prefix, ran = evaluate(model, tiny_tokenizer, data), Prefix(model), []
    first = encoder_layers(model)[0]
    hook = first.register_forward_pre_hook(lambda _, args: ran.append(len(args[0])))
    for layer, expert in ((1, 0), (2, 1), (2, 3), (1, 2)):
        knock_out_effect(model, tiny_tokenizer, data, before, [(layer, expert)], prefix=prefix)
    hook.remove()
    assert sum(ran) == 16


def test_threads_profile_one_model_without_mixing(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(24)
    before, text, prefix = evaluate(model, tiny_tokenizer, data), data.texts[0], Prefix(model)

    def profile(layer, expert):
        effect = knock_out_effect(model, tiny_tokenizer, data, before, [(layer, expert)], prefix=prefix)
        return effect.after.logits, layer_attention(model, tiny_tokenizer, text, layer).weights[expert]

    cells = [(layer, expert) for layer in (1, 2) for expert in range(4)]
    alone = {cell: profile(*cell) for cell in cells}
    wrong = []

    def work(cell):
        for _ in range(3):
            if not all(np.allclose(a, b, atol=1e-5) for a, b in zip(profile(*cell), alone[cell])):
                wrong.append(cell)

    with ThreadPoolExecutor(len(cells)) as threads:
        list(threads.map(work, cells))  # raises what one of them raised
    assert not wrong


def test_the_length_that_pages_name_is_the_one_that_is_measured():
    for function in (measure_usage, evaluate_stream, knock_out_effect, layer_attention, count_tokens):
        assert inspect.signature(function).parameters["max_length"].default == EVALUATED_TOKENS


def test_an_input_is_not_affected_by_its_padding(tiny_routed, tiny_inputs):
    model = tiny_routed("bert", layers=(1,), routing="token").eval()
    inputs = tiny_inputs((9, 2), seed=3)
    with torch.no_grad(), record_routing() as record:
        entering = model(**inputs, output_hidden_states=True).hidden_states[1]
    gates, mask = record.last(1).gates, inputs["attention_mask"].bool()
    for expert in range(gates.shape[-1]):
        found = knockout._uses(model, inputs, entering, {1: (expert,)})
        assert found.tolist() == ((gates[..., expert] > 0) & mask).any(1).tolist()
    padded = (gates > 0) & ~mask.unsqueeze(-1)
    assert (padded.any(1) & ~((gates > 0) & mask.unsqueeze(-1)).any(1)).any()  # else it is no test
