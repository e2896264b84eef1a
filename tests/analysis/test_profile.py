from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.attention import layer_attention
from shrp.analysis.importance import Prefix, knock_out_effect
from shrp.analysis.usage import measure_usage
from shrp.analysis.words import PRIOR_TERMS, count_tokens, log_odds
from shrp.data.batching import collate, encode
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import evaluate
from shrp.model.convert import expert_layers
from shrp.model.gates import knock_out, record_routing, use_gates

# ---- words


def test_log_odds_are_those_of_the_paper():
    here, elsewhere = np.array([30, 10, 60]), np.array([5, 45, 150])
    found = log_odds(["a", "b", "c"], here, elsewhere, min_count=1)
    # Monroe et al.: delta = log((y+a)/(n+a0-y-a)) of one group minus that of the other; variance 1/(y+a) + 1/(x+a)
    prior = PRIOR_TERMS * 35 / 300
    first, second = ((y + prior) / (n + PRIOR_TERMS - y - prior) for y, n in ((30, 100), (5, 200)))
    delta = np.log(first) - np.log(second)
    z = delta / np.sqrt(1 / (30 + prior) + 1 / (5 + prior))
    row = found.frame.set_index("term").loc["a"]
    assert row["log-odds"] == pytest.approx(delta)
    assert row["z"] == pytest.approx(z)
    assert row["low"] < delta < row["high"]
    assert (row["here"], row["elsewhere"]) == (30, 5)
    assert row["per 1,000 here"] == pytest.approx(300)
    assert found.frame["term"].iloc[0] == "a"
    assert found.frame["z"].is_monotonic_decreasing
    assert (found.here, found.elsewhere, len(found.frame)) == (100, 200, 3)


def test_token_counts_agree_with_usage(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(routing="token"), tiny_data(30)
    calls = []
    counted = count_tokens(model, tiny_tokenizer, data, progress=lambda *call: calls.append(call))
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


# ---- attention


@pytest.mark.parametrize(("routing", "layers"), [("sequence", (1, 2)), ("token", (0, 1, 2))])
def test_attention_is_the_layers_own_on_its_real_input(tiny_routed, tiny_tokenizer, routing, layers):
    model, text = tiny_routed(routing=routing, layers=layers), ("w1 w2 nothing w4",)
    batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0])
    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, layer=layer: seen.update({layer: args[0]}))
        for layer, module in expert_layers(model).items()
    ]
    with torch.no_grad(), record_routing() as record:
        model(**batch)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        found = layer_attention(model, tiny_tokenizer, text, layer)
        module = expert_layers(model)[layer]
        with torch.no_grad():
            direct = module.attention_maps(seen[layer])[0].numpy()
            outputs = module.expert_outputs(seen[layer])[0].numpy()
            values = module.project(seen[layer])[2][0].numpy()
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


# ---- knocking an expert out


@pytest.mark.parametrize(
    ("routing", "top_k", "layers"), [("sequence", 1, (1, 2)), ("sequence", 2, (0, 1, 2)), ("token", 1, (1, 2))]
)
def test_knocking_out_equals_running_everything(tiny_routed, tiny_tokenizer, tiny_data, routing, top_k, layers):
    model, data = tiny_routed(routing=routing, top_k=top_k, layers=layers), tiny_data(40)
    before = evaluate(model, tiny_tokenizer, data)
    stats = measure_usage(model, tiny_tokenizer, data)
    changed, prefix = 0, Prefix(model, limit=20_000)  # room for some of the inputs
    for layer in layers:
        for expert in range(4):
            with use_gates(knock_out({layer: expert}, top_k)):
                direct = evaluate(model, tiny_tokenizer, data)
            chosen = stats.top1[layer][:, expert] > 0 if top_k == 1 else None
            options = {"chosen": chosen, "prefix": prefix}
            found = knock_out_effect(model, tiny_tokenizer, data, before, [(layer, expert)], **options)
            np.testing.assert_allclose(found.after.logits, direct.logits, atol=1e-5)
            assert found.after.score == pytest.approx(direct.score)
            others = np.setdiff1d(np.arange(40), found.affected)
            np.testing.assert_array_equal(found.after.logits[others], before.logits[others])
            if chosen is not None:
                assert found.affected.tolist() == np.flatnonzero(chosen).tolist()
            changed += len(found.affected)
    assert changed >= 40 * len(layers)  # every input uses some expert of every layer
    assert 10_000 < prefix.size <= 20_000


def test_the_loss_in_a_slice_is_held_against_all_other_inputs(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(60)
    before = evaluate(model, tiny_tokenizer, data)
    top = int(measure_usage(model, tiny_tokenizer, data).share(2).argmax())
    found = knock_out_effect(model, tiny_tokenizer, data, before, [(2, top)])
    frame = found.by_slice().set_index("slice")
    assert sorted(frame.index) == ["long", "short"]
    assert frame["n"].sum() == 60
    assert frame["affected"].sum() == len(found.affected)
    sign = np.where(data.labels == 1, 1, -1)
    margins = [(one.logits[:, 1] - one.logits[:, 0]) * sign for one in (found.before, found.after)]
    lost, short = margins[0] - margins[1], np.array(data.slices) == "short"
    row, means = frame.loc["short"], (lost[short].mean(), lost[~short].mean())
    assert row[["lost", "elsewhere"]].tolist() == pytest.approx(means, abs=1e-6)
    assert row["low"] < row["lost"] < row["high"]
    assert frame["p"].nunique() == frame["q"].nunique() == 1  # of two slices, each is the other's rest
    planted = replace(found, after=replace(found.after, logits=before.logits.copy()))
    planted.after.logits[short, data.labels[short]] -= np.linspace(1, 2, short.sum(), dtype=np.float32)
    rows = planted.by_slice().set_index("slice")
    assert rows.loc["short", "lost"] == pytest.approx(1.5, abs=1e-5)
    assert rows.loc["short", "q"] < 0.001
    assert replace(found, before=replace(before, slices=None)).by_slice().empty
    one = replace(before, slices=("all",) * 60)
    assert replace(found, before=one, after=one).by_slice()["q"].isna().all()  # nothing to hold it against


def test_what_cannot_be_knocked_out_is_refused(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(8)
    before = evaluate(model, tiny_tokenizer, data)
    for experts in ([(0, 0)], [(1, 4)], [(1, -1)], [], [(2, expert) for expert in range(4)]):
        with pytest.raises(PlanError):
            knock_out_effect(model, tiny_tokenizer, data, before, experts)
    with pytest.raises(DataError, match="not of all"):
        knock_out_effect(model, tiny_tokenizer, tiny_data(9), before, [(1, 0)])
