import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ui.expert import inputs as expert_profile_inputs
from ui.expert.together import successors, verdict

from shrp.analysis.attention import attention_roles, layer_attention
from shrp.analysis.knock_out import Joint
from shrp.analysis.routes import shuffle_routes
from shrp.analysis.specialisation import cells_frame, specialisation
from shrp.analysis.usage import measure_usage
from shrp.analysis.words import count_words, log_odds
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.batching import longest_input, token_counts
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.metrics import worth
from shrp.model.gates import knock_out, use_gates
from tests.app.helpers import HISTORY, specs, texts_of, upload, values
from ui import state
from ui.usage import exchanged_routes


def inputs_of(at):
    """The table of the inputs nearest to an expert."""
    return next(frame.value for frame in at.dataframe if "router probability" in frame.value)


def titled(at, start):
    return next(spec for spec in specs(at) if spec["layout"]["title"]["text"].startswith(start))


def heatmap(at):
    return values(specs(at)[0]["data"][0]["z"])


@pytest.fixture
def stats(tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    return measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2"))


@pytest.fixture
def page(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    assert not at.exception
    return at


def test_the_map_shows_the_measured_shares(page, stats):
    assert heatmap(page) == pytest.approx(np.stack([stats.share(1), stats.share(2)]))
    assert "probe/sst2" in texts_of(page)
    assert "shares count **inputs**" in texts_of(page)


def test_it_opens_on_the_most_used_expert_of_the_top_layer(page, stats):
    assert page.selectbox(key="layer").value == 2
    assert page.selectbox(key="expert").value == int(stats.share(2).argmax())


@pytest.mark.parametrize("expert", range(4))
def test_a_link_opens_its_expert(open_page, tiny_checkpoint, stats, expert):
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=expert)
    assert not at.exception
    assert f"Layer 1, expert {expert}" in [s.value for s in at.header]
    count, total = int(stats.counts(1)[expert]), int(stats.counts(1).sum())
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Top-1 share"] == f"{count / total:.1%}"
    assert shown["Mean router probability"] == f"{stats.mean_probs(1)[expert]:.1%}"
    said = texts_of(at)
    assert f"{count:,} of n = {total:,} inputs" in said
    assert ("nothing is routed to this expert" in said) == (count == 0)
    top = inputs_of(at)
    order = np.argsort(-stats.probs[1][:, expert], kind="stable")[:12]
    assert top["index"].tolist() == order.tolist()
    assert top["sentence"].tolist() == [load_probe("sst2").texts[i][0] for i in order]


def test_a_click_on_a_cell_sets_layer_and_expert(monkeypatch):
    clicked = {"selection": {"points": [{"customdata": {"0": 1, "1": 3}}]}}  # as Streamlit hands it over
    session = {"usage-map": clicked}
    monkeypatch.setattr(state.st, "session_state", session)
    state.pick_cell("usage-map")
    assert (session["layer"], session["expert"]) == (1, 3)
    session["usage-map"] = {"selection": {"points": []}}
    state.pick_cell("usage-map")  # a redrawn chart: nothing chosen, nothing changed
    assert (session["layer"], session["expert"]) == (1, 3)


def test_every_cell_carries_its_layer_and_expert(page):
    points = specs(page)[0]["data"][1]
    assert points["customdata"] == [[layer, expert] for layer in (1, 2) for expert in range(4)]
    assert points["marker"]["opacity"] == 0


def test_groups_and_their_difference(open_page, tiny_checkpoint, stats):
    at = open_page("expert_usage", tiny_checkpoint, group="class: positive", measure="mean probability")
    labels = load_probe("sst2").labels
    positive, negative = (labels == 1), (labels == 0)
    assert heatmap(at) == pytest.approx(np.stack([stats.mean_probs(i, positive) for i in (1, 2)]))
    at.selectbox(key="against").set_value("class: negative").run()
    assert not at.exception
    expected = np.stack([stats.mean_probs(i, positive) - stats.mean_probs(i, negative) for i in (1, 2)])
    assert heatmap(at) == pytest.approx(expected, abs=1e-6)
    assert "240" in specs(at)[0]["layout"]["title"]["subtitle"]["text"]
    (said,) = (c.value for c in at.caption if c.value.startswith("In bold: the"))
    assert "of 8 differences whose 95% interval" in said
    assert f"the {str(specs(at)[0]['data'][0]['text']).count('<b>')} of 8" in said
    at.selectbox(key="group").set_value("slice: negation").run()
    assert not at.exception


def test_wrong_answers_are_a_group_and_so_are_lengths(open_page, tiny_checkpoint, stats):
    at = open_page("expert_usage", tiny_checkpoint, group="outcome: wrong", against="outcome: right")
    assert not at.exception
    wrong = stats.logits.argmax(-1) != load_probe("sst2").labels
    expected = np.stack([stats.share(i, wrong) - stats.share(i, ~wrong) for i in (1, 2)])
    assert heatmap(at) == pytest.approx(expected, abs=1e-6)
    subtitle = specs(at)[0]["layout"]["title"]["subtitle"]["text"]
    assert f"outcome: wrong (n = {wrong.sum()}) minus outcome: right (n = {(~wrong).sum()})" in subtitle
    options = at.selectbox(key="group").options
    assert {name.partition(":")[0] for name in options} == {
        "all inputs",
        "class",
        "answer",
        "outcome",
        "slice",
        "length",
    }
    assert sum(name.startswith("length: ") for name in options) == 4


def test_usage_is_shown_though_the_outputs_are_no_numbers(open_page, save_tiny, monkeypatch):
    folder = save_tiny("spoilt")
    loaded = checkpoints.load(folder)
    with torch.no_grad():
        loaded.model.classifier.bias.fill_(float("nan"))
    checkpoints.save(loaded.model, loaded.tokenizer, loaded.info, folder.parent / "nan")
    at = open_page("expert_usage", folder.parent / "nan")
    assert not at.exception
    assert np.isfinite(heatmap(at)).all()
    by = {name.partition(":")[0] for name in at.selectbox(key="group").options}
    assert by == {"all inputs", "class", "slice", "length"}


def test_a_picked_group_is_told_of_beside_all_inputs(open_page, tiny_checkpoint, stats):
    at = open_page("expert_usage", tiny_checkpoint, group="class: positive", layer=2, expert=1)
    assert not at.exception
    positive = load_probe("sst2").labels == 1
    (bars,) = [spec for spec in specs(at) if "effective" in spec["layout"]["title"]["text"].lower()][:1]
    shown = sorted(values(bars["data"][0]["x"]))
    assert shown == pytest.approx(sorted(stats.effective_experts(i, positive) for i in (1, 2)))
    here = stats.counts(2, positive)[1]
    assert f"class: positive: **{here / 240:.1%}**, {here} of n = 240" in texts_of(at)
    assert f"{stats.counts(2)[1]} of n = 480 inputs" in texts_of(at)


@pytest.mark.parametrize(
    "params",
    [
        {"expert": "-1", "group": "class: <b>", "against": "?", "measure": "no"},
        {"layer": "x", "expert": "99"},
        {"layer": "0"},
    ],
)
def test_nonsense_in_the_link_falls_back(open_page, tiny_checkpoint, params):
    at = open_page("expert_usage", tiny_checkpoint, **params)
    assert not at.exception
    assert not at.error
    assert at.selectbox(key="layer").value in (1, 2)
    assert at.selectbox(key="expert").value in range(4)
    assert len(at.get("plotly_chart")) >= 2


def test_token_routing_counts_tokens(open_page, tiny_token_checkpoint):
    at = open_page("expert_usage", tiny_token_checkpoint, layer=2, expert=1)
    assert not at.exception
    loaded = checkpoints.load(tiny_token_checkpoint)
    stats = measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2"))
    said = texts_of(at)
    assert "shares count **tokens**" in said
    assert f"{int(stats.counts(2)[1]):,} of n = {int(stats.counts(2).sum()):,} real tokens" in said
    assert "tokens" in inputs_of(at)


def test_checkpoints_without_routers_say_what_to_do(open_page, tiny_static_checkpoint):
    at = open_page("expert_usage", tiny_static_checkpoint)
    assert not at.exception
    assert "no routers" in at.info[0].value
    assert not at.get("plotly_chart")
    assert at.dataframe[0].value["experts (weight)"].tolist() == ["0 (1.00)", "0 (0.62), 1 (0.37)"]


def test_usage_over_training_is_drawn_from_the_history(open_page, save_tiny):
    folder = save_tiny("taught", history="".join(json.dumps(line) + "\n" for line in HISTORY))
    at = open_page("expert_usage", folder)
    assert not at.exception
    by_title = {spec["layout"]["title"]["text"]: spec for spec in specs(at)}
    lines = {t["name"]: t for t in by_title["How even usage is, epoch by epoch"]["data"]}
    assert values(lines["layer 1"]["y"])[0] == pytest.approx(4)  # even when it is converted
    assert values(lines["layer 1"]["y"])[1] < 3
    assert "Top-1 share of every expert, epoch by epoch" in by_title


def test_without_a_history_it_says_so(page):
    assert any("No training history" in info.value for info in page.info)


def test_another_checkpoint_resets_a_layer_that_it_lacks(open_page, tiny_checkpoint, save_tiny):
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=2)
    save_tiny("tiny-last", layers=(2,))
    at.run()
    assert at.selectbox(key="layer").value == 1
    at.selectbox(key="checkpoint").set_value("tiny-last").run()
    assert not at.exception
    assert at.selectbox(key="layer").value == 2


def test_pairs_with_numeric_labels_from_a_data_folder(open_page, save_tiny, monkeypatch, tmp_path):
    rows = 20
    frame = pd.DataFrame(
        {
            "sentence1": [f"w{i} *w1* <b>" for i in range(rows)],
            "sentence2": ["w2 w3"] * rows,
            "label": np.linspace(0, 5, rows),
        }
    )
    (tmp_path / "glue" / "stsb").mkdir(parents=True)
    frame.to_parquet(tmp_path / "glue" / "stsb" / "validation.parquet")
    folder = save_tiny("pairs", task="stsb", num_labels=1)
    for page in ("overview", "expert_usage"):
        at = open_page(page, folder, data_dir=tmp_path / "glue")
        assert not at.exception
        assert not at.error
        assert at.selectbox(key="source").value == "glue"
        assert "glue/stsb validation" in texts_of(at)
    assert inputs_of(at)["sentence1"].str.startswith("w").all()
    # Numbers are grouped by fourths, and where there are no slices the answers are drawn.
    drawn = [titled(at, f"Its inputs by {by}")["data"][0]["y"] for by in ("class", "answer")]
    assert len(drawn[0]) == 4
    assert drawn[0][0].startswith("0 to 1.05")


def busiest(stats, layer=2):
    return int(stats.share(layer).argmax())


def test_the_lowest_inputs_are_a_choice(open_page, tiny_checkpoint, stats):
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=0, ranked="lowest")
    assert not at.exception
    order = np.argsort(-stats.probs[1][:, 0], kind="stable")[::-1][:12]
    assert inputs_of(at)["index"].tolist() == order.tolist()
    assert "lowest router probability" in texts_of(at)


def test_characteristic_words_of_an_expert(open_page, tiny_checkpoint, stats):
    expert, data = busiest(stats), load_probe("sst2")
    at = open_page("expert_usage", tiny_checkpoint, layer=2, expert=expert, parts="words", min_count=3)
    assert not at.exception
    counted, mine = count_words(data.texts), stats.top1[2][:, expert] > 0
    found = log_odds(counted.words, counted.of(mine), counted.of(~mine), min_count=3)
    first, last = (table.value for table in at.dataframe if "example" not in table.value)
    assert first["word"].tolist() == found.frame["term"].head(10).tolist()
    assert last["word"].tolist() == found.frame["term"].iloc[::-1].head(10).tolist()
    np.testing.assert_allclose(first["z"], found.frame["z"].head(10))
    assert (first["inputs here"] <= first["here"]).all()
    said = texts_of(at)
    assert f"{found.here:,} words in the {mine.sum():,} inputs routed here" in said
    assert f"{found.tested:,} words with at least 3 occurrences" in said
    assert "Little is routed here" not in said


def used_by(stats, fewest, most):
    """The first layer and expert that so many inputs are routed to."""
    found = [
        (layer, expert)
        for layer in (1, 2)
        for expert in range(4)
        if fewest <= (stats.top1[layer][:, expert] > 0).sum() <= most
    ]
    assert found  # or the test that asks would show nothing
    return found[0]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((1, 29), "Little is routed here"),
        ((0, 0), "No words are in what is routed to this expert on these data, so"),
    ],
)
def test_words_of_few_inputs_or_none_come_with_a_warning(open_page, tiny_checkpoint, stats, inputs, words):
    layer, expert = used_by(stats, *inputs)
    at = open_page("expert_usage", tiny_checkpoint, layer=layer, expert=expert, parts="words")
    assert not at.exception
    assert words in texts_of(at)


def test_where_no_word_is_frequent_enough_it_says_what_to_do(open_page, tiny_checkpoint, stats):
    at = open_page(
        "expert_usage", tiny_checkpoint, layer=2, expert=busiest(stats), parts="words", min_count=9999
    )
    assert "lower the fewest occurrences" in texts_of(at)


def test_tokens_are_the_words_of_token_routing(open_page, tiny_token_checkpoint):
    at = open_page("expert_usage", tiny_token_checkpoint, layer=1, expert=0, parts="words", min_count=1)
    assert not at.exception
    assert "Characteristic tokens" in texts_of(at)
    assert "special ones left out" in texts_of(at)


def test_attention_of_the_first_a_numbered_and_a_typed_input(open_page, tiny_checkpoint, stats):
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    at = open_page("expert_usage", tiny_checkpoint, layer=2, expert=1, parts="attention")

    def shown(text, hide=False):
        assert not at.exception
        found = layer_attention(loaded.model, loaded.tokenizer, text, 2).pattern(1, without_special=hide)
        spec = titled(at, "Attention of layer 2")
        np.testing.assert_allclose(values(spec["data"][0]["z"]), found.weights, atol=1e-5)
        assert len(spec["layout"]["xaxis"]["ticktext"]) == len(found.tokens)
        return found

    shown(data.texts[int(np.argmax(stats.probs[2][:, 1]))])
    at.number_input(key="example").set_value(7).run()
    shown(data.texts[7])
    assert "row 7 of probe/sst2" in titled(at, "Attention")["layout"]["title"]["subtitle"]["text"]
    at.text_input(key="example_text").set_value("w1 <b>w2</b> w3").run()
    shown(("w1 <b>w2</b> w3",))
    assert "<b>" not in str(titled(at, "Attention")["layout"]["xaxis"]["ticktext"])
    at.toggle(key="hide_special").set_value(True).run()
    pattern = shown(("w1 <b>w2</b> w3",), hide=True)
    assert f"{pattern.hidden:.1%} of the attention went" in texts_of(at)
    at = open_page(
        "expert_usage", tiny_checkpoint, layer=2, expert=1, example=7, hide_special="true", parts="attention"
    )
    shown(data.texts[7], hide=True)  # a link holds all of it


def test_a_picked_row_is_the_example(monkeypatch):
    session = {"table": {"selection": {"rows": [2]}}, "example_text": "typed before"}
    monkeypatch.setattr(expert_profile_inputs.st, "session_state", session)
    expert_profile_inputs._pick("table", [5, 9, 40])
    assert (session["example"], session["example_text"]) == (40, "")
    session["table"] = {"selection": {"rows": []}}
    expert_profile_inputs._pick("table", [1, 2, 3])
    assert session["example"] == 40


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_knocking_an_expert_out(open_page, save_tiny, routing):
    folder = save_tiny("gone", routing=routing)
    loaded, data = checkpoints.load(folder), load_probe("sst2")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    expert = busiest(stats)
    at = open_page("expert_usage", folder, layer=2, expert=expert, parts="knocked out")
    assert not at.exception
    before = evaluate(loaded.model, loaded.tokenizer, data)
    with use_gates(knock_out({2: expert})):
        after = evaluate(loaded.model, loaded.tokenizer, data)
    shown = {metric.label: metric.value for metric in at.metric}
    used = int((stats.top1[2][:, expert] > 0).sum())
    assert shown["Inputs that use it"] == f"{used:,}"
    assert shown["Change of accuracy"] == f"{100 * (after.score - before.score):+.1f} points".replace(
        "-", "−"
    )
    assert shown["Predictions that change"] == f"{(after.predictions != before.predictions).sum():,}"
    change = (after.logits - before.logits).mean(0)
    assert next(f.value for f in at.dataframe if "change" in f.value)["change"].tolist() == [
        f"{c:+.4f}".replace("-", "−") for c in change
    ]
    assert "95% intervals of the change over all inputs" in texts_of(at)
    slices = next(f.value for f in at.dataframe if "elsewhere" in f.value)
    assert slices["slice"].tolist() == [name.replace("_", " ") for name in sorted(set(data.slices))]
    assert slices["affected"].sum() == used
    assert "**By slice**: without the expert the margin of the true class" in texts_of(at)


def test_knocking_several_experts_out_together(open_page, tiny_checkpoint, stats):
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    one, other = busiest(stats), int(stats.share(1).argmax())
    at = open_page("expert_usage", tiny_checkpoint, layer=2, expert=one, parts="knocked out")
    picker = at.multiselect(key="along")
    assert f"layer 2, expert {one}" not in picker.options
    at = picker.set_value([f"layer 1, expert {other}"]).run()
    assert not at.exception
    before = evaluate(loaded.model, loaded.tokenizer, data)
    with use_gates(knock_out({1: other, 2: one})):
        after = evaluate(loaded.model, loaded.tokenizer, data)
    shown = {metric.label: metric.value for metric in at.metric}
    taken = int(((stats.top1[1][:, other] > 0) | (stats.top1[2][:, one] > 0)).sum())
    assert shown["Inputs that use any of them"] == f"{taken:,}"
    assert shown["Predictions that change"] == f"{(after.predictions != before.predictions).sum():,}"
    table = next(f.value for f in at.dataframe if "without" in f.value)
    assert table["without"].tolist() == [
        f"layer 1, expert {other}",
        f"layer 2, expert {one}",
        "the sum of these",
        "together",
    ]
    change = worth(data.task, after.logits, data.labels) - worth(data.task, before.logits, data.labels)
    shown = [float(text.replace("−", "-")) for text in table["change"]]
    assert shown[-1] == pytest.approx(change.mean(), abs=6e-5)
    assert shown[2] == pytest.approx(sum(shown[:2]), abs=2e-4)
    assert "without these experts the margin of the true class" in texts_of(at)
    everyone = [name for name in picker.options if name.startswith("layer 2,")]
    assert len(everyone) == 3
    at = at.multiselect(key="along").set_value(everyone).run()
    assert "all experts of layer 2 can't be taken away" in texts_of(at)
    at = at.selectbox(key="layer").set_value(1).run().selectbox(key="expert").set_value(other).run()
    assert not at.exception
    assert f"layer 1, expert {other}" not in at.multiselect(key="along").value


def test_where_inputs_go_without_their_expert(stats):
    layer, mine = 2, busiest(stats)
    probs = stats.probs[layer][stats.top1[layer][:, mine] > 0]
    second = np.argsort(-probs, axis=1)[:, 1]
    expert, count = max(((e, int((second == e).sum())) for e in set(second.tolist())), key=lambda x: x[1])
    said = successors(stats, layer, [mine])
    assert f"for {len(probs):,} inputs, expert {expert} ({count / len(probs):.0%})" in said


def test_where_inputs_go_names_those_that_come_in_and_none_that_is_gone_too():
    probs = np.array([[0.5, 0.3, 0.15, 0.05], [0.4, 0.35, 0.05, 0.2], [0.1, 0.2, 0.3, 0.4]])
    routed = SimpleNamespace(unit="inputs", probs={0: probs})
    assert "for 2 inputs, expert 1 (100%)." in successors(routed, 0, [0])
    assert "for 2 inputs, expert 2 (50%), 3 (50%)." in successors(routed, 0, [0, 1])
    assert "for 2 inputs, expert 2 (50%), 3 (50%)." in successors(
        routed, 0, [0], top_k=2
    )  # 1 was there before
    assert "expert" not in successors(SimpleNamespace(unit="tokens"), 0, [0])
    assert (
        successors(routed, 0, [2]) == "The router picks the next one in its layer."
    )  # nobody's first choice


@pytest.mark.parametrize(
    ("together", "alone", "ends", "said"),
    [
        (-0.3, -0.1, (-0.3, -0.1), "**More is lost together**"),
        (-0.1, -0.3, (0.1, 0.3), "**Less is lost together**"),
        (0.3, 0.1, (0.1, 0.3), "**More is gained together**"),
        (0.1, 0.3, (-0.3, -0.1), "**Less is gained together**"),
        (-0.1, 0.1, (-0.3, -0.1), "−0.100 without all of them"),
        (-0.3, -0.2, (-0.3, 0.1), "no more than chance may be"),
        (-0.3, -0.2, (float("nan"),) * 2, "too few to tell"),
    ],
)
def test_what_several_lose_or_gain_together_in_words(together, alone, ends, said):
    found = verdict(Joint(together, alone, together - alone, ends), "margin")
    assert said in found
    assert found.count("**") == 2 * ("**" in said)


def test_an_unused_expert_changes_nothing_and_says_so(open_page, tiny_checkpoint, stats):
    layer, expert = used_by(stats, 0, 0)
    at = open_page("expert_usage", tiny_checkpoint, layer=layer, expert=expert, parts="knocked out")
    assert not at.exception
    assert "without it every output is the same" in texts_of(at)


@pytest.mark.parametrize(
    "params",
    [
        {"parts": "no", "example": "-3", "min_count": "0", "ranked": "?", "hide_special": "perhaps"},
        {"example": "99999999", "min_count": "inf"},
        {"example": "x"},
        {"example": "1e999"},
        {"example_text": "\u202e {} ||| " * 400},
        {"example_text": "\u200b"},
    ],
)
def test_nonsense_about_the_profile_falls_back(open_page, tiny_checkpoint, params):
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=0, **params)
    assert not at.exception
    assert not at.error


def test_the_cell_has_the_same_default_in_every_run(open_page, tiny_checkpoint):
    """The address leaves out a default, so the one of a moved box must still be the cell that the page starts at."""
    at = open_page("expert_usage", tiny_checkpoint)
    before = [at.selectbox(key=key).proto.default for key in ("layer", "expert")]
    assert at.selectbox(key="layer").value == 2
    at.selectbox(key="layer").set_value(1).run()
    assert at.selectbox(key="layer").value == 1
    assert [at.selectbox(key=key).proto.default for key in ("layer", "expert")] == before


def test_slices_are_told_by_an_example_of_each_class(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    assert not at.exception
    data = load_probe("sst2")
    table = next(
        frame.value for frame in at.dataframe if list(frame.value) == ["slice", "label", "n", "example"]
    )
    assert table["n"].sum() == len(data)
    for row in table.itertuples():
        label = data.task.label_names.index(row.label)
        first = next(
            text
            for (text,), name, given in zip(data.texts, data.slices, data.labels, strict=True)
            if name.replace("_", " ") == row.slice and given == label
        )
        assert row.example == first


def test_the_roles_of_attention_are_those_that_were_measured(open_page, tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    found = attention_roles(loaded.model, loaded.tokenizer, load_probe("sst2"))
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=2, parts="roles", role="itself")
    assert not at.exception
    bars = titled(at, "Where the attention of layer 1's experts goes")
    assert [trace["name"] for trace in bars["data"]] == list(found.roles)
    assert bars["layout"]["legend"]["traceorder"] == "normal"  # as the bars' parts stand
    shown = np.stack([values(trace["x"]) for trace in bars["data"]], axis=1)
    assert shown == pytest.approx(100 * found.mean(1), abs=1e-3)
    assert "n = 96 of the 480 inputs of probe/sst2" in bars["layout"]["title"]["subtitle"]["text"].replace(
        "<br>", " "
    )
    mine = found.mean(1)[2]
    said = texts_of(at)
    assert f"gives most of its attention, {mine.max():.1%}" in said
    assert found.roles[int(mine.argmax())] in said
    over = titled(at, "Attention to: itself")
    place = found.roles.index("itself")
    assert values(over["data"][0]["z"]) == pytest.approx(np.stack([found.mean(i)[:, place] for i in (1, 2)]))
    assert "rest of other text" not in found.roles  # of single sentences
    at = open_page("expert_usage", tiny_checkpoint, parts="roles", role="rest of other text")
    assert not at.exception
    assert titled(at, "Attention to: rest of its text")


def test_what_routing_goes_by_is_measured_and_a_layers_experts_stand_by_group(page, tiny_checkpoint, stats):
    data = load_probe("sst2")
    loaded = checkpoints.load(tiny_checkpoint)
    longest = longest_input(loaded.model, loaded.tokenizer)  # which the tiny model reads no further than
    lengths = np.minimum(token_counts(loaded.tokenizer, data.texts), longest)
    answers = stats.logits.argmax(1)
    (layers,) = [
        one for one in specs(page) if one["layout"]["title"]["text"].startswith("How much groups tell")
    ]
    marks = [trace for trace in layers["data"] if trace.get("hovertext")]
    assert [trace["name"] for trace in marks] == ["class", "answer", "slice", "length"]
    _, _, by_slice, by_length = specialisation(stats, data, lengths, answers)
    assert values(marks[2]["x"]) == pytest.approx(100 * by_slice.explained)
    assert page.segmented_control(key="goes_by").value == "slice"
    cells = titled(page, "Layer 2: experts by slice")["data"][0]
    whole, *rows = np.array(cells["text"])
    shares = [[str(text).removeprefix("<b>").removesuffix("</b>") for text in row] for row in rows]
    assert np.array(shares, dtype=float) == pytest.approx(100 * by_slice.shares(2), abs=0.51)
    assert np.array(whole, dtype=float) == pytest.approx(100 * stats.share(2), abs=0.51)
    assert "**Slice** (12 groups) tells the expert better than chance in" in texts_of(page)
    assert cells_frame(by_slice)["p"].min() > 0.05
    assert (
        "tested pairs of slice and expert (probe/sst2, 2 layers) differs from all inputs beyond chance"
        in texts_of(page)
    )
    page.segmented_control(key="goes_by").set_value("length").run()
    assert not page.exception
    assert len(values(titled(page, "Layer 2: experts by length")["data"][0]["z"])) == 5
    sure = cells_frame(by_length).query("p <= 0.05")
    assert f"**Experts by length**: {len(sure)} of {len(cells_frame(by_length))} tested pairs" in texts_of(
        page
    )
    (listed,) = (d.value for d in page.dataframe if "takes it" in d.value)
    assert sorted(listed["difference, points"].abs(), reverse=True) == list(
        listed["difference, points"].abs()
    )
    first = sure.iloc[int(sure["difference"].abs().argmax())]
    assert (listed["layer"][0], listed["expert"][0]) == (first["layer"], first["expert"])
    assert listed["takes it"][0] == f"{first['share']:.1%}"


def test_of_two_inputs_there_is_nothing_to_tell_and_no_empty_chart(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    upload(at, "table", "two.csv", b"sentence,label\nw1 w2,1\nw3,0\n")
    assert not at.exception
    assert "nothing to tell, since" in texts_of(at)
    titles = [one["layout"]["title"]["text"] for one in specs(at)]
    assert not [title for title in titles if title.startswith("How much groups tell")]
    assert [title for title in titles if title.startswith("Layer 2: experts by")]


def test_a_grouping_that_these_data_lack_falls_back(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, goes_by="nonsense")
    assert not at.exception
    assert titled(at, "Layer 2: experts by slice")


def test_routes_exchanged_among_inputs_are_scored_where_asked_for(open_page, tiny_checkpoint, stats):
    at = open_page("expert_usage", tiny_checkpoint)
    assert not [one for one in specs(at) if one["layout"]["title"]["text"] == "Answers that change"]
    at.toggle(key="exchange").set_value(True).run()
    assert not at.exception
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    frame = shuffle_routes(loaded.model, loaded.tokenizer, data, stats).frame
    assert values(titled(at, "Answers that change")["data"][0]["x"]) == pytest.approx(100 * frame["share"])
    assert values(titled(at, "Change of accuracy")["data"][0]["x"]) == pytest.approx(100 * frame["change"])
    wrong, alike, none = (frame.set_index("layer").loc[case] for case in ("all", "alike", "mixture"))
    assert "**No routes**: with the mixture of all experts in their place, accuracy goes" in texts_of(at)
    assert (
        "**Other routes of the same answer**: with those of all layers exchanged among inputs that"
        in texts_of(at)
    )
    assert f"{int(none['flipped'])} of n = 480 answers changed" in texts_of(at)
    for row in (wrong, alike):
        least, most = int(row["flipped_min"]), int(row["flipped_max"])
        assert f"{row['flipped']:.1f} ({least} to {most} by draw) of n = 480 answers changed" in texts_of(at)
        assert f"where {row['moved']:.0%} of the choices fall on another expert" in texts_of(at)
    assert "*All* and *alike* are means of 5 draws" in texts_of(at)


def test_what_routes_of_the_same_answer_say_where_there_is_nothing_to_say(
    tiny_routed, tiny_tokenizer, tiny_data
):
    def line(model, data):
        stats = measure_usage(model, tiny_tokenizer, data)
        found = shuffle_routes(model, tiny_tokenizer, data, stats, draws=2)
        return exchanged_routes.said(found)[-1].removeprefix("**Other routes of the same answer**: ")

    model, data = tiny_routed("bert"), tiny_data(24)
    answers = measure_usage(model, tiny_tokenizer, data).logits.argmax(1)
    one_each = data.subset(np.array([np.flatnonzero(answers == answer)[0] for answer in (0, 1)]))
    assert line(model, one_each) == (
        "exchanged among inputs that the model answers alike, they change no output, so there is nothing to tell."
    )
    of_one = data.subset(np.flatnonzero(answers == 0))
    assert (
        line(model, of_one)
        == "the model gives all inputs one answer, so these are the wrong routes once more."
    )
    task = replace(TASKS["stsb"], text_columns=("sentence",))
    numbers = TextData(task, "made", data.texts, np.linspace(0, 5, 24))
    said = line(tiny_routed("bert", num_labels=1), numbers)
    assert said.startswith(
        "with those of all layers exchanged among inputs whose outputs are in the same quartile, where"
    )
    assert "answers" not in said
