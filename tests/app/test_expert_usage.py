"""Expert usage: what is shown is what the library finds, of the cell, the data and the groups that are picked."""

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.attention import attention_roles, layer_attention
from shrp.analysis.importance import blocks, knock_outs
from shrp.analysis.routes import shuffle_routes
from shrp.analysis.specialisation import cells_frame, specialisation
from shrp.analysis.usage import measure_usage
from shrp.analysis.words import count_words, log_odds
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.batching import longest_input, token_counts
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.model.gates import knock_out, use_gates
from tests.app.helpers import figure, headline, specs, texts_of, values
from ui.text import points
from ui.usage import attention, profile
from ui.usage import importance as importance_tab
from ui.usage import map as usage_map

SST2 = load_probe("sst2")
DRIVING = "What drives routing"
DRAW = usage_map.usage_heatmap


def examples_of(at):
    """The table of the examples nearest to an expert."""
    return next(frame.value for frame in at.dataframe if "router probability" in frame.value)


def heatmap(at):
    return values(specs(at)[0]["data"][0]["z"])


def busiest(stats, layer=2):
    return int(stats.share(layer).argmax())


def used_by(stats, fewest, most):
    """The first layer and expert that so many examples are routed to."""
    for layer in (1, 2):
        for expert in range(4):
            if fewest <= (stats.top1[layer][:, expert] > 0).sum() <= most:
                return layer, expert
    pytest.fail("no such expert")


def test_it_opens_on_each_models_most_used_expert_of_the_top_layer(open_page, tiny_checkpoint, save_tiny, stats):
    save_tiny("other", layers=(1,))
    page = open_page("expert_usage", tiny_checkpoint, checkpoint="other")
    page.selectbox(key="checkpoint").set_value("tiny").run()
    assert heatmap(page) == pytest.approx(np.stack([stats.share(1), stats.share(2)]))
    assert (page.selectbox(key="layer").value, page.selectbox(key="expert").value) == (2, busiest(stats))
    points = specs(page)[0]["data"][1]
    assert points["customdata"] == [[layer, expert] for layer in (1, 2) for expert in range(4)]
    assert (page.session_state["view"], page.session_state[profile.TABS]) == ("Usage", profile.EXAMPLES)
    assert "training" not in texts_of(page).lower()  # closed tabs are not computed


def test_a_first_visit_opens_with_the_usage_that_the_checkpoint_carries(open_page, save_tiny, monkeypatch):
    drawn = []
    monkeypatch.setattr(usage_map, "usage_heatmap", lambda *given: drawn.append(given) or DRAW(*given))
    folder = save_tiny("carries", usage={"2": [0.0, 0.2, 0.7, 0.1], "1": [0.1, 0.9, 0.0, 0.0]})
    page = open_page("expert_usage", folder)
    stored, measured = drawn
    assert stored[0].tolist() == [[0.1, 0.9, 0.0, 0.0], [0.0, 0.2, 0.7, 0.1]]
    assert stored[2:3] + stored[-1:] == ([1, 2], (2, 2))
    assert heatmap(page) == pytest.approx(measured[0])  # the measured one stands in its place


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_the_headline_has_usage_and_the_knock_out_with_its_interval(open_page, save_tiny, routing):
    folder = save_tiny("gone", routing=routing)
    loaded = checkpoints.load(folder)
    stats = measure_usage(loaded.model, loaded.tokenizer, SST2)
    expert = busiest(stats)
    at = open_page("expert_usage", folder, layer=2, expert=expert, profile=profile.KNOCK_OUT)
    before = evaluate(loaded.model, loaded.tokenizer, SST2)
    with use_gates(knock_out({2: expert})):
        after = evaluate(loaded.model, loaded.tokenizer, SST2)
    lost = points(before.score - after.score, "accuracy")
    said = headline(at)
    assert f"{int(stats.counts(2)[expert]):,} of {int(stats.counts(2).sum()):,}" in said
    assert f"costs {lost} of" in said
    used, flipped = int((stats.top1[2][:, expert] > 0).sum()), (after.predictions != before.predictions).sum()
    assert [metric.value for metric in at.metric] == [lost, f"{used:,}", f"{flipped:,}"]
    slices = figure(at, "Margin of the true class lost")["data"][0]
    assert sum(int(name.split("(")[1].rstrip(")")) for name in slices["y"]) == used
    assert {name.split(" (")[0] for name in slices["y"]} == {name.replace("_", " ") for name in SST2.slices}


def test_a_link_opens_its_expert_used_or_not(open_page, tiny_checkpoint, stats):
    for layer, expert in (used_by(stats, 100, 480), used_by(stats, 0, 0)):
        at = open_page("expert_usage", tiny_checkpoint, layer=layer, expert=expert)
        assert next(s.value for s in at.subheader) == f"Layer {layer}, expert {expert}"
        count = int(stats.counts(layer)[expert])
        assert f"{count / 480:.1%}" in texts_of(at)
        assert bool(at.info) == (count == 0)
        order = np.argsort(-stats.probs[layer][:, expert], kind="stable")[:5]
        assert examples_of(at)["index"].tolist() == order.tolist()
        assert examples_of(at)["sentence"].tolist() == [SST2.texts[i][0] for i in order]
        drawn = [s for s in specs(at) if s["layout"]["title"]["text"].startswith("Its ")]
        assert len(drawn) == 2 * (count > 0)
    at.session_state[profile.TABS] = profile.KNOCK_OUT  # without an expert that is not used nothing changes
    at.run()
    assert not at.metric
    assert "none of 480" in headline(at)


def test_usage_of_a_group(open_page, tiny_checkpoint, stats):
    at = open_page("expert_usage", tiny_checkpoint, group="class: positive")
    positive = SST2.labels == 1
    assert heatmap(at) == pytest.approx(np.stack([stats.share(i, positive) for i in (1, 2)]))
    options = {name.partition(":")[0] for name in at.selectbox(key="group").options}
    assert options == {"all examples", "class", "answer", "outcome", "slice", "length"}


@pytest.mark.parametrize(
    "params",
    [
        {"expert": "-1", "group": "class: <b>", "view": "?", "profile": "?"},
        {"layer": "x", "expert": "99", "profile": profile.ATTENTION, "example": "1e999", "hide_special": "so"},
        {"view": DRIVING, "driven_by": "nonsense"},
    ],
)
def test_nonsense_in_the_link_falls_back(open_page, tiny_checkpoint, params):
    at = open_page("expert_usage", tiny_checkpoint, **params)
    assert not at.error
    assert at.session_state["layer"] in (1, 2)
    assert at.session_state["expert"] in range(4)


def test_a_static_checkpoint_shows_what_it_keeps_and_where_to_go(open_page, tiny_static_checkpoint):
    at = open_page("expert_usage", tiny_static_checkpoint)
    assert at.dataframe[0].value["experts (weight)"].tolist() == ["0 (1.00)", "0 (0.62), 1 (0.37)"]
    assert {link.proto.page for link in at.main.get("page_link")} == {"routing", "compare"}


def test_pairs_with_numeric_labels_from_a_data_folder(open_page, save_tiny, tmp_path):
    rows = 20
    texts = {"sentence1": [f"w{i} *w1* <b>" for i in range(rows)], "sentence2": "w2 w3"}
    frame = pd.DataFrame(texts | {"label": np.linspace(0, 5, rows)})
    (tmp_path / "glue" / "stsb").mkdir(parents=True)
    frame.to_parquet(tmp_path / "glue" / "stsb" / "validation.parquet")
    folder = save_tiny("pairs", task="stsb", num_labels=1)
    at = open_page("expert_usage", folder, data_dir=tmp_path / "glue", profile=profile.EXAMPLES)
    assert not at.error
    assert examples_of(at)["sentence1"].str.startswith("w").all()
    assert "nan" not in headline(at).lower().split()
    drawn = figure(at, "Its examples by class")["data"][0]["y"]
    assert len(drawn) == 4  # numbers are grouped by quartiles
    at = open_page("expert_usage", folder, data_dir=tmp_path / "glue", view=DRIVING, exchange="true")
    assert not at.error


def test_words_of_an_expert(open_page, tiny_checkpoint, tiny_token_checkpoint, stats):
    expert, tab = busiest(stats), {"profile": profile.WORDS}
    at = open_page("expert_usage", tiny_checkpoint, layer=2, expert=expert, **tab)
    counted, mine = count_words(SST2.texts), stats.top1[2][:, expert] > 0
    found = log_odds(counted.words, counted.of(mine), counted.of(~mine))
    first, last = (table.value for table in at.dataframe if "word" in table.value)
    assert first["word"].tolist() == found.frame["term"].head(10).tolist()
    assert last["word"].tolist() == found.frame["term"].iloc[::-1].head(10).tolist()
    np.testing.assert_allclose(first["z"], found.frame["z"].head(10))
    assert not at.main.warning
    few, none = used_by(stats, 1, 29), used_by(stats, 0, 0)
    at = open_page("expert_usage", tiny_checkpoint, layer=few[0], expert=few[1], **tab)
    assert at.main.warning
    at = open_page("expert_usage", tiny_checkpoint, layer=none[0], expert=none[1], **tab)
    assert len(at.info) == 2
    at = open_page("expert_usage", tiny_token_checkpoint, layer=1, expert=0, **tab)
    assert [table for table in at.dataframe if "token" in table.value]


def test_attention_of_the_first_and_a_numbered_example_and_roles(open_page, tiny_checkpoint, stats, loaded):
    link = {"layer": 2, "expert": 1, "profile": profile.ATTENTION}
    at = open_page("expert_usage", tiny_checkpoint, **link)

    def shown(text, hide=False):
        found = layer_attention(loaded.model, loaded.tokenizer, text, 2).pattern(1, without_special=hide)
        spec = figure(at, "Attention of layer 2")
        np.testing.assert_allclose(values(spec["data"][0]["z"]), found.weights, atol=1e-5)
        assert len(spec["layout"]["xaxis"]["ticktext"]) == len(found.tokens)

    shown(SST2.texts[int(np.argmax(stats.probs[2][:, 1]))])
    found = attention_roles(loaded.model, loaded.tokenizer, SST2)
    bars = figure(at, "Where the attention of layer 2's experts goes")
    assert [trace["name"] for trace in bars["data"]] == list(found.roles)
    shares = np.stack([values(trace["x"]) for trace in bars["data"]], axis=1)
    assert shares == pytest.approx(100 * found.mean(2), abs=1e-3)
    at.number_input(key="example").set_value(7).run()
    shown(SST2.texts[7])
    at = open_page("expert_usage", tiny_checkpoint, **link, example=7, hide_special="true")
    shown(SST2.texts[7], hide=True)  # a link holds all of it


def test_a_picked_row_is_the_example(monkeypatch):
    session = {"table": {"selection": {"rows": [2]}}, "none": {"selection": {"rows": []}}}
    monkeypatch.setattr(profile.st, "session_state", session)
    profile._pick("table", [5, 9, 40])
    profile._pick("none", [1, 2, 3])
    assert session[attention.EXAMPLE] == 40


def test_what_drives_routing_is_measured(open_page, tiny_checkpoint, stats, loaded):
    longest = longest_input(loaded.model, loaded.tokenizer)  # the tiny model reads no further
    lengths = np.minimum(token_counts(loaded.tokenizer, SST2.texts), longest)
    found = specialisation(stats, SST2, lengths, stats.logits.argmax(1))
    at = open_page("expert_usage", tiny_checkpoint, view=DRIVING, driven_by="length")
    marks = [one for one in figure(at, "Mutual information")["data"] if one.get("hovertext")]
    for mark, one in zip(marks, found, strict=True):
        assert values(mark["x"]) == pytest.approx(100 * one.explained)
    sure = cells_frame(found[-1]).query("p <= 0.05")
    (listed,) = (d.value for d in at.dataframe if "share of all" in d.value)
    first = sure.iloc[int(sure["difference"].abs().argmax())]
    assert (listed["layer"][0], listed["expert"][0]) == (first["layer"], first["expert"])
    assert listed["share"][0] == f"{first['share']:.1%}"
    assert not [one for one in specs(at) if one["layout"]["title"]["text"] == "Change of accuracy"]
    at.toggle(key="exchange").set_value(True).run()
    frame = shuffle_routes(loaded.model, loaded.tokenizer, SST2, stats).frame
    exchanged = values(figure(at, "Change of accuracy")["data"][0]["x"])
    assert exchanged == pytest.approx(100 * frame["change"])
    share = frame.set_index("layer").loc["mixture", "share"]
    assert f"{share:.1%} of answers change" in texts_of(at)


# Importance: every expert, or every head of the dense layers, knocked out on a data set


IMPORTANCE = {"view": "Importance", "data_inputs": "32", "data_inputs_heads": "32"}


def groups(at):
    """Those of the chart of mean margins, without their counts."""
    return {name.split(" (")[0] for name in figure(at, "Mean margin")["data"][0]["y"]}


def test_every_expert_is_knocked_out_by_slice_or_class(open_page, tiny_checkpoint, loaded):
    at = open_page("expert_usage", tiny_checkpoint, **IMPORTANCE)
    assert not at.error
    found = knock_outs(loaded.model, loaded.tokenizer, SST2, next(blocks(SST2, 32)))
    table = found.table(SST2, None)
    drawn = values(figure(at, "Mean effect")["data"][0]["z"])
    used = table["uses"].to_numpy().reshape(2, 4) > 0
    np.testing.assert_allclose(drawn[used], table["signed"].to_numpy().reshape(2, 4)[used], atol=1e-5)
    assert np.isnan(drawn[~used]).all()
    picker = at.segmented_control(key=importance_tab.BY)
    assert (picker.options, picker.value) == (["class", "slice", "length"], "slice")
    assert groups(at) <= {name.replace("_", " ") for name in SST2.slices}
    picker.set_value("class").run()
    assert groups(at) == {"negative", "positive"}


def test_a_dense_checkpoint_has_heads_and_no_dead_end(open_page, save_tiny):
    dense = save_tiny("plain", layers=())
    at = open_page("expert_usage", dense, **IMPORTANCE)
    assert not at.get("plotly_chart")  # until it is asked for
    assert at.main.get("page_link")
    links = at.sidebar.get("page_link")
    assert not [link for link in links if link.proto.page == "expert_usage" and link.proto.disabled]
    at.toggle(key=importance_tab.ON).set_value(True).run()
    assert not at.error
    loaded = checkpoints.load(dense)
    found = knock_outs(loaded.model, loaded.tokenizer, SST2, next(blocks(SST2, 32)), heads=True)
    drawn = values(figure(at, "Mean effect")["data"][0]["z"])
    expected = found.table(SST2, None)["signed"].to_numpy().reshape(3, 4)
    np.testing.assert_allclose(drawn, expected, atol=1e-5)
