import json
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.attribution import experts, flips, instance, tokens
from shrp.analysis.attribution.instance import against
from shrp.analysis.attribution.trust import Trust
from shrp.analysis.attribution.units import in_units
from shrp.analysis.explore import Exploration, explore
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS, custom_task
from tests.app.helpers import specs, texts_of, upload
from ui import expert_cells, loaders
from ui.attribution import experts as attribution_experts
from ui.attribution import figures
from ui.attribution import flips as attribution_flips
from ui.attribution import results as attribution_results
from ui.attribution import routes as attribution_routes
from ui.attribution import unit as attribution_unit
from ui.attribution import where as attribution_where
from ui.attribution import words as attribution_words
from ui.attribution.trust import verdict

TYPED = "w1 w20 w33 w4 w50"


def explain(at, text):
    at.text_area(key="sentences-explain").set_value(text)
    at.button[0].click()
    at.run()
    assert not at.exception
    return at


def tables(at):
    return [frame.value for frame in at.dataframe]


def words_table(at):
    return next(frame for frame in tables(at) if "word" in frame)


@pytest.fixture
def page(open_page, tiny_checkpoint):
    at = open_page("attribution", tiny_checkpoint, text=TYPED)
    assert not at.exception
    return at


def made(folder, text=(TYPED,)):
    loaded = checkpoints.load(folder)
    return instance.prepare(loaded.model, loaded.tokenizer, loaded.info.task, text)


def test_words_and_experts_are_attributed_to_as_the_library_does(page, tiny_checkpoint):
    assert page.title[0].value == "Attribution"
    assert not page.error
    one = made(tiny_checkpoint)
    output = int(one.outputs(one.embeddings)[0].argmax())
    frame = words_table(page)
    assert frame["word"].tolist() == TYPED.split()
    expected = {
        tokens.METHODS[0]: tokens.input_x_gradient(one, output),
        tokens.METHODS[1]: tokens.integrated_gradients(one, output),
        tokens.METHODS[2]: tokens.ablate_words(one, output),
    }
    for method, result in expected.items():
        np.testing.assert_allclose(frame[method], result.scores, atol=1e-5)
    found = next(frame for frame in tables(page) if experts.METHODS[2] in frame)
    exact = experts.shapley_values(experts.Coalitions(one, output))
    np.testing.assert_allclose(found[experts.METHODS[2]], exact.values[exact.fires], atol=1e-5)
    said = texts_of(page)
    assert "Completeness" in said
    assert "2 of 8 experts fire" in page.get("plotly_chart")[1].proto.spec
    assert "exact, from all 4 coalitions" in said
    assert len(page.get("plotly_chart")) == 2


def test_one_class_is_explained_rather_than_another(open_page, save_tiny):
    folder = save_tiny("mnli", task="mnli", num_labels=3)
    pair = "w1 w20 w33 ||| w4 w50"
    at = open_page("attribution", folder, text=pair, target="neutral", rather_than="contradiction")
    assert not at.exception
    assert not at.error
    task = TASKS["mnli"]
    one = made(folder, tuple(pair.split(" ||| ")))
    lead = against(one, task.label_names.index("neutral"), task.label_names.index("contradiction"))
    expected = tokens.ablate_words(lead, 0)
    np.testing.assert_allclose(words_table(at)[tokens.METHODS[2]], expected.scores, atol=1e-5)
    found = next(frame for frame in tables(at) if experts.METHODS[2] in frame)
    exact = experts.shapley_values(experts.Coalitions(lead, 0))
    np.testing.assert_allclose(found[experts.METHODS[2]], exact.values[exact.fires], atol=1e-5)
    said = texts_of(at)
    assert f"the logit of neutral leads that of contradiction: **{expected.full:+.3f}**" in said
    assert "raises the logit of neutral less that of contradiction" in said
    at.segmented_control(key="target").set_value("contradiction").run()
    assert not at.exception
    said = texts_of(at)
    assert "contradiction has no lead over itself, so its logit alone is explained" in said
    assert "raises the logit of contradiction. " in said
    at.segmented_control(key="target").set_value("entailment").run()
    assert "raises the logit of entailment less that of contradiction" in texts_of(at)


def test_the_label_of_an_input_of_the_data_is_told(open_page, tiny_checkpoint):
    data = load_probe("sst2")
    at = open_page("attribution", tiny_checkpoint, text=data.texts[0][0])
    label = data.task.label_names[data.labels[0]]
    (said,) = [caption.value for caption in at.caption if caption.value.startswith("Its label in")]
    assert said.endswith(f"sst2: **{label}**.")
    at = open_page("attribution", tiny_checkpoint, text=TYPED)
    assert "Its label" not in texts_of(at)


@pytest.mark.parametrize("explain", ["the answer", "a layer's route"])
def test_longer_pieces_than_words_are_explained(open_page, tiny_checkpoint, explain):
    at = open_page("attribution", tiny_checkpoint, text="w1 w2, w3 w4. w5", unit="phrase", explain=explain)
    assert not at.exception
    assert not at.error
    frame = next(frame for frame in tables(at) if "phrase" in frame)
    assert frame["phrase"].tolist() == ["w1 w2,", "w3 w4.", "w5"]
    if explain == "the answer":
        one = in_units(made(tiny_checkpoint, ("w1 w2, w3 w4. w5",)), "phrase")
        expected = tokens.ablate_words(one, int(one.outputs(one.embeddings)[0].argmax()))
        np.testing.assert_allclose(frame[tokens.METHODS[2]], expected.scores, atol=1e-5)
    said = texts_of(at)
    assert "Each phrase in turn is replaced by the mask token" in said
    assert "3 phrases are few" in said
    assert "phrases sum to" in said
    assert at.header[0].value == "Phrases"


def test_a_long_input_of_few_pieces_is_searched_unasked(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(attribution_flips, "_SHORT", 4)
    text = "w1 w2 w9 w8, w3 w4. w5"
    assert open_page("attribution", tiny_checkpoint, text=text).toggle(key="flips").label == "Search"
    at = open_page("attribution", tiny_checkpoint, text=text, unit="sentence")
    loaded = checkpoints.load(tiny_checkpoint)
    task = loaded.info.task
    one = in_units(instance.prepare(loaded.model, loaded.tokenizer, task, (text,)), "sentence")
    said = attribution_flips.sentence(flips.fewest_words(one), task)
    assert said in [each.value for each in at.markdown]
    assert not any(one.key == "flips" for one in at.toggle)
    assert len({one.key for one in at.toggle}) > 0


def test_of_many_words_phrases_are_explained_unless_words_are_picked(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(attribution_unit, "fitting_unit", lambda one: "phrase")
    monkeypatch.setattr(attribution_unit, "MOST", 4)
    at = open_page("attribution", tiny_checkpoint, text="w1 w2, w3 w4. w5")
    said = texts_of(at)
    assert "The model reads 7 words and marks of this input" in said
    assert "its 3 phrases are explained; pick *word*" in said
    at = open_page("attribution", tiny_checkpoint, text="w1 w2, w3 w4. w5", unit="word")
    assert "7 words, each with passes of its own" in texts_of(at)
    assert len(words_table(at)) == 7


def test_a_link_restores_the_view(open_page, tiny_checkpoint):
    at = open_page(
        "attribution",
        tiny_checkpoint,
        text=f"w1 w2\n{TYPED}",
        input="2",
        target="negative",
        methods="word ablation",
        replaced_by="nothing",
    )
    assert not at.exception
    frame = words_table(at)
    assert frame["word"].tolist() == TYPED.split()
    assert tokens.METHODS[1] not in frame
    expected = tokens.ablate_words(made(tiny_checkpoint), 0, replacement="remove")
    np.testing.assert_allclose(frame[tokens.METHODS[2]], expected.scores, atol=1e-5)
    assert "the logit of negative" in at.get("plotly_chart")[0].proto.spec


def test_inputs_that_were_read_hold_no_more_models_than_are_kept(tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    read = [attribution_results.explained(loaded, (f"w{i}",)) for i in range(loaders.MODELS + 2)]
    again = attribution_results.explained(loaded, (f"w{loaders.MODELS + 1}",))
    assert again is read[-1]
    assert attribution_results.explained(loaded, ("w0",)) is not read[0]


def test_without_freezing_the_sum_is_off_and_it_says_why(page):
    page.toggle(key="freeze").set_value(False).run()
    assert not page.exception
    assert any("not frozen" in str(box.value) for box in page.warning)


@pytest.mark.parametrize(("frozen", "route"), [(True, True), (False, False)])
def test_scores_of_little_of_the_output_are_said_to_be(frozen, route):
    words = SimpleNamespace(full=2.945, reference=2.862, unit="word")
    said = attribution_words.little_explained(words, frozen)
    assert said.startswith(
        "Padding alone has +2.862 of the output's +2.945: these scores share out what is left, +0.083"
    )
    assert ("Freeze the route" in said) == route


@pytest.mark.parametrize(("part", "warned"), [(1e9, True), (0.0, False)])
def test_a_baseline_with_most_of_the_output_is_warned_of(
    open_page, tiny_checkpoint, monkeypatch, part, warned
):
    monkeypatch.setattr(attribution_words, "_LITTLE", part)
    at = open_page("attribution", tiny_checkpoint, text=TYPED, methods="integrated gradients")
    assert not at.exception
    assert any("Padding alone has" in str(box.value) for box in at.warning) == warned


def test_no_method_picked_says_what_to_do(page):
    page.button_group(key="methods").set_value([]).run()
    assert not page.exception
    assert "Pick at least one method" in texts_of(page)


def test_the_check_shows_the_controls_beside(page):
    page.toggle(key="trust").set_value(True).run()
    assert not page.exception
    frame = next(frame for frame in tables(page) if "infidelity" in frame)
    assert frame["method"].tolist() == [*tokens.METHODS, "every word alike (control)", "shuffled (control)"]
    assert "one score for every word predicts" in texts_of(page)
    assert texts_of(page).count("of what replaced words change; one score for every word") == len(
        tokens.METHODS
    )  # beside each


def test_what_the_check_found_stands_beside_each_attribution():
    checks = {"explained": 0.913, "shuffled": 0.402, "beaten": 20, "sensitivity": 0.1}
    above = {"above_alike": 0.413, "above_alike_low": 0.2, "above_alike_high": 0.6}
    found = Trust("word ablation", 0.5, 0.2, **checks, **above)
    good = verdict(found, 0.5)
    assert good.startswith(
        "Predicts **91.3%** of what replaced words change; one score for every word predicts 50.0%"
    )
    assert "the same scores shuffled 40.2% on average, less in all 20 shuffles" in good
    assert good.endswith(":green-badge[:material/check: above its shuffles]")
    worse = verdict(replace(found, beaten=7), 0.5)
    assert worse.endswith(":orange-badge[:material/warning: not above its shuffles]")
    assert "less in 7 of the 20 shuffles" in worse
    alike = replace(found, above_alike_low=-0.01)
    assert verdict(alike, 0.9).endswith(":material/warning: not told apart from one score for every word]")
    less = replace(alike, explained=-0.0001, above_alike=-0.95, above_alike_high=-0.4)
    assert verdict(less, 0.95).endswith(": worse than one score for every word]")
    none = verdict(replace(less, beaten=0), 0.95, "phrase")
    assert none.startswith("Predicts **0.0%** of what replaced phrases change")
    assert none.endswith("not above its shuffles, worse than one score for every phrase]")
    assert "less in none of the 20" in none
    assert verdict(replace(found, explained=float("nan")), 0.5) == ""
    assert verdict(replace(found, few=True), 0.5).endswith(":gray-badge[too few words to tell]")


def test_a_data_set_shows_usage_against_effect(page):
    page.toggle(key="on_data").set_value(True).run()
    assert not page.exception
    assert not page.error
    assert len(page.get("plotly_chart")) == 5
    said = texts_of(page)
    assert "by construction" in said
    assert "which is few" in said
    ranks = next(frame for frame in tables(page) if "Spearman ρ" in frame and "layer" in frame)
    assert ranks["layer"].tolist() == [1, 2]
    everything = next(frame for frame in tables(page) if "mean size where used" in frame)
    assert len(everything) == 8
    assert everything["its 95% interval where used"].str.contains(" to ").any()
    assert everything.groupby("layer")["usage"].sum().tolist() == pytest.approx([100, 100])
    assert "n = 128 of" in page.get("plotly_chart")[2].proto.spec


def test_of_few_inputs_there_is_no_number_to_pick(page):
    rows = "".join(f"w{i} w{i % 5},{'positive' if i % 2 else 'negative'}\n" for i in range(12))
    upload(page, "table", "few.csv", f"sentence,label\n{rows}".encode())
    page.toggle(key="on_data").set_value(True).run()
    assert not page.exception
    assert "On all of the 12 inputs" in texts_of(page)
    assert "data_inputs" not in [slider.key for slider in page.get("select_slider")]
    assert "n = 12" in page.get("plotly_chart")[2].proto.spec


def test_which_experts_matter_for_which_inputs(open_page, tiny_checkpoint):
    at = open_page("attribution", tiny_checkpoint, text=TYPED, on_data="true", data_inputs="32")
    picker = at.segmented_control(key="matters_by")
    assert picker.options == ["class", "slice", "length"]
    assert picker.value == "slice"

    def drawn(at):
        assert not at.exception
        return next(s for s in specs(at) if s["layout"]["title"]["text"].startswith("Mean margin"))

    by_slice = drawn(at)
    table = next(frame for frame in tables(at) if "elsewhere" in frame)
    assert table.groupby(["layer", "expert"])["uses"].sum().min() > 0
    assert table["difference"].abs().is_monotonic_decreasing
    assert "pairs of expert and group" in texts_of(at)
    by_class = drawn(picker.set_value("class").run())
    assert by_class["layout"]["title"]["text"].endswith("by class")
    assert by_class["data"][0]["y"] != by_slice["data"][0]["y"]
    assert {name.split(" (")[0] for name in by_class["data"][0]["y"]} == {"negative", "positive"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("knocked_out", "zeroed", "knocked out: zeroed"),
        ("rank_by", "effect where used", "not how much"),
        ("rank_by", "score lost", "many experts tie at 0"),
    ],
)
def test_the_other_ways_to_measure(open_page, tiny_checkpoint, key, value, said):
    at = open_page(
        "attribution", tiny_checkpoint, text=TYPED, on_data="true", data_inputs="32", **{key: value}
    )
    assert not at.exception
    assert not at.error
    drawn = "".join(chart.proto.spec for chart in at.get("plotly_chart"))
    assert "n = 32 of" in drawn
    assert said in drawn + texts_of(at)


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.arange(9) / 2, "a correlation over all inputs"), (1.5, "not defined on these inputs")],
)
def test_a_correlation_lost_is_not_of_flipped_answers(open_page, save_tiny, tmp_path, labels, said):
    frame = pd.DataFrame({"sentence1": [f"w{i} w2" for i in range(9)], "sentence2": "w3", "label": labels})
    (tmp_path / "data" / "stsb").mkdir(parents=True)
    frame.to_parquet(tmp_path / "data" / "stsb" / "validation.parquet")
    link = {"text": "w1 w2 ||| w3", "on_data": "true", "rank_by": "score lost", "source": "glue"}
    folder = save_tiny("numbers", task="stsb", num_labels=1)
    at = open_page("attribution", folder, data_dir=tmp_path / "data", **link)
    assert not at.exception
    assert said in texts_of(at)
    assert "flipped predictions" not in texts_of(at)
    assert "no labels" not in texts_of(at)


def test_a_lost_accuracy_is_in_points_with_its_interval(open_page, tiny_checkpoint):
    at = open_page("attribution", tiny_checkpoint, text=TYPED, on_data="true", data_inputs="32")
    element = next(frame for frame in at.dataframe if "mean size where used" in frame.value)
    formats = json.loads(element.proto.columns)
    assert formats["accuracy lost (points)"]["type_config"]["format"] == "%+.2f"
    frame = element.value
    assert (frame["accuracy lost (points)"] * 0.32 % 1).round(6).isin([0, 1]).all()  # of 32 inputs
    assert frame["its interval (points)"].str.fullmatch(r"[+-]\d+\.\d\d to [+-]\d+\.\d\d").all()


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_nothing_typed_says_what_to_do(page, text):
    explain(page, text)
    assert "Type at least one sentence" in texts_of(page)
    assert not page.get("plotly_chart")


@pytest.mark.parametrize(
    "text", ["🎬 ❤️‍🔥 !!!", "<script>alert(1)</script> **bold** $x$", "a|||b", "w1", "[MASK] [PAD]"]
)
def test_odd_text_is_answered(page, text):
    explain(page, text)
    assert not page.error
    assert len(words_table(page)) >= 1
    for chart in page.get("plotly_chart"):
        assert "<script>" not in chart.proto.spec


def test_ten_thousand_words_are_cut_and_it_says_so(page):
    explain(page, "w1 " * 10_000)
    said = texts_of(page)
    assert "10,002 tokens" in said
    assert len(words_table(page)) == 30


def test_nonsense_in_the_url_falls_back(open_page, tiny_checkpoint):
    params = {"target": "no", "ig_steps": "7", "coalitions": "x", "methods": "zebra", "input": "99"}
    at = open_page("attribution", tiny_checkpoint, text=f"{TYPED}\nw2 w3", **params)
    assert not at.exception
    assert not at.error
    assert len(words_table(at)) == 5  # of the first of the two


def test_static_checkpoints_have_words_and_say_why_no_experts(open_page, tiny_static_checkpoint):
    at = open_page("attribution", tiny_static_checkpoint, text=TYPED)
    assert not at.exception
    assert len(words_table(at)) == 5
    assert len(at.get("plotly_chart")) == 1
    assert "This checkpoint is pruned" in texts_of(at)
    assert "This checkpoint has no routers" in texts_of(at)
    assert not any(toggle.key == "freeze" for toggle in at.toggle)


def test_token_routing_and_the_uniform_control(open_page, tiny_token_checkpoint, save_tiny):
    at = open_page("attribution", tiny_token_checkpoint, text=TYPED, on_data="true", data_inputs="32")
    assert not at.exception
    assert not at.error
    assert len(at.get("plotly_chart")) == 5
    assert (
        "is the share of inputs in which it computes for some token times its effect where used"
        in texts_of(at)
    )
    assert not any("layers routed anew" in one.value for one in at.dataframe)


def test_pairs_and_regression(open_page, save_tiny):
    at = open_page("attribution", save_tiny("pairs", task="qnli"), text="w1 w2 ||| w3 w4 w5")
    assert not at.exception
    frame = words_table(at)
    assert frame["text"].tolist() == [1, 1, 2, 2, 2]
    at = open_page("attribution", save_tiny("numbers", task="stsb", num_labels=1), text="w1 w2 ||| w3")
    assert not at.exception
    assert not at.error
    assert "regression" in texts_of(at)


def test_colored_words_are_escaped_and_signed():
    words = (instance.Word("<b>&", 0, (1,)), instance.Word("good", 1, (2,)), instance.Word("meh", 1, (3,)))
    made = tokens.WordScores("word ablation", words, np.array([-2.0, 1.0, 0.01]), 0.0)
    html = figures.colored_words(made, ("premise", "hypothesis"), "Word ablation")
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;: -2.000" in html
    assert html.count("dotted") == html.count("solid") == 1
    assert html.index("premise") < html.index("&lt;b&gt;") < html.index("hypothesis") < html.index("good")
    assert html.count('<div dir="auto"') == 2  # each text runs as its own words do
    assert html.count('<span dir="auto"') == 2  # in which the names, read first, have no say


def test_a_route_is_explained_as_the_library_does(open_page, tiny_checkpoint):
    at = open_page("attribution", tiny_checkpoint, text=TYPED, explain="a layer's route")
    assert not at.exception
    assert not at.error
    layer = at.selectbox(key="route_layer").value
    loaded = checkpoints.load(tiny_checkpoint)
    (routed,) = explore(loaded.model, loaded.tokenizer, loaded.info.task, [(TYPED,)])
    assert layer == routed.layers[-1]
    row = routed.choices().set_index("layer").loc[layer]
    one = instance.prefer(made(tiny_checkpoint), layer, int(row["expert"]), int(row["runner-up"]))
    frame = words_table(at)
    for method, result in {
        tokens.METHODS[1]: tokens.converged_gradients(one, 0),
        tokens.METHODS[2]: tokens.ablate_words(one, 0),
    }.items():
        np.testing.assert_allclose(frame[method], result.scores, atol=1e-4)
    found = tokens.routes_without(made(tiny_checkpoint))
    taken, without = found.own[-1], found.without[-1]
    said = texts_of(at)
    assert f"Layer {layer} takes expert {taken}" in said
    for word, other in zip(TYPED.split(), without, strict=True):
        assert (f"**{word}** (then expert {other})" in said) == (other != taken)
    assert "Experts taken without a word" in "".join(chart.proto.spec for chart in at.get("plotly_chart"))
    assert f"layer {layer}'s log-odds of expert {taken} over expert {int(row['runner-up'])}" in said


def test_below_the_lowest_routed_layer_there_is_no_route_to_freeze(open_page, tiny_checkpoint):
    layers = checkpoints.load(tiny_checkpoint).info.config.layers
    link = {"text": TYPED, "explain": "a layer's route", "methods": "integrated gradients"}
    for layer, may in ((layers[0], False), (layers[-1], True)):
        at = open_page("attribution", tiny_checkpoint, **link, route_layer=str(layer), freeze="false")
        assert not at.exception
        assert any(one.key == "freeze" for one in at.toggle) == may
        assert instance.prefer(made(tiny_checkpoint), layer, 1, 3).reroutes == may
        assert any("not frozen" in str(box.value) for box in at.warning) == may


def test_a_link_restores_the_explained_route(open_page, tiny_checkpoint):
    link = {"explain": "a layer's route", "route_layer": "0", "route_expert": "1", "route_other": "3"}
    layers = checkpoints.load(tiny_checkpoint).info.config.layers
    link["route_layer"] = str(layers[0])
    at = open_page("attribution", tiny_checkpoint, text=TYPED, methods="word ablation", **link)
    assert not at.exception
    one = instance.prefer(made(tiny_checkpoint), layers[0], 1, 3)
    np.testing.assert_allclose(
        words_table(at)["word ablation"], tokens.ablate_words(one, 0).scores, atol=1e-4
    )


def test_an_expert_is_not_preferred_to_itself(open_page, tiny_checkpoint):
    at = open_page(
        "attribution",
        tiny_checkpoint,
        text=TYPED,
        explain="a layer's route",
        route_expert="2",
        route_other="2",
    )
    assert not at.exception
    assert "be preferred to itself" in at.error[0].value


@pytest.mark.parametrize(
    "nonsense",
    [
        {"route_layer": "77"},
        {"route_expert": "x", "route_other": "9"},
        {"explain": "<b>"},
        {"route_layer": ""},
    ],
)
def test_nonsense_in_a_routes_link_falls_back(open_page, tiny_checkpoint, nonsense):
    at = open_page("attribution", tiny_checkpoint, text=TYPED, **{"explain": "a layer's route"} | nonsense)
    assert not at.exception
    assert not at.error


@pytest.mark.parametrize(
    "made_with",
    [
        {"routing": "token"},
        {"task": "stsb", "num_labels": 1},
        {"task": "mrpc"},
    ],
)
def test_routes_of_other_models(open_page, save_tiny, made_with):
    pair = made_with.get("task") in ("stsb", "mrpc")
    text = "w1 w2 ||| w3 w4" if pair else TYPED
    at = open_page("attribution", save_tiny("other", **made_with), text=text, explain="a layer's route")
    assert not at.exception
    assert not at.error
    said = texts_of(at)
    if made_with.get("control"):
        assert "log-odds" not in said  # there is no router, and so the answer is explained
        return
    assert "log-odds of expert" in said
    if made_with.get("routing"):
        assert "In layer 2 most tokens take expert" in said
        assert "Every token has a route of its own here; in how many layers a word changes any" in said
    else:
        assert "Which words decide a route" in said


def test_no_table_is_named_for_what_no_method_counts(open_page, tiny_token_checkpoint):
    link = {"explain": "a layer's route", "methods": "input × gradient"}
    at = open_page("attribution", tiny_token_checkpoint, text=TYPED, **link)
    assert not at.exception
    said = texts_of(at)
    assert "Every token has a route of its own here." in said
    assert "table of all values" not in said


WORDS = tuple(
    instance.Word(text, part, (place + 1,))
    for place, (text, part) in enumerate([("firm", 0), ("is", 0), ("firm", 0), ("firm", 1)])
)


@pytest.mark.parametrize(
    ("without", "top_k", "said"),
    [
        ([3, 3, 3, 3], 1, "No word decides alone: without any one of them layer 6 still takes expert 3."),
        (
            [3, 3, 3, 3],
            2,
            "No word decides alone: without any one of them the expert with the largest gate in layer 6 is still "
            "expert 3.",
        ),
        (
            [3, 1, 4, 5],
            1,
            "Words without which layer 6 takes another expert than 3: **is** (sentence1, then expert 1), **firm** "
            "(sentence1, place 3, then expert 4), **firm** (sentence2, then expert 5). Without any other word it "
            "still takes expert 3.",
        ),
        (
            [3, 3, 4, 3],
            2,
            "Words without which the expert with the largest gate in layer 6 is another one than 3: **firm** "
            "(sentence1, place 3, then expert 4). Without any other word it is still expert 3.",
        ),
    ],
)
def test_words_that_decide_a_route_are_told_apart(without, top_k, said):
    found = tokens.RoutesWithout((6,), 12, top_k, np.array([3]), np.array([without]))
    assert attribution_routes._sentence(found, WORDS, 6, TASKS["mrpc"]).replace("\\", "") == said


def test_of_a_long_text_that_is_cut_both_lengths_are_told(monkeypatch):
    said = []
    monkeypatch.setattr(attribution_words.st, "caption", said.append)
    monkeypatch.setattr(attribution_words, "answer_as_scored", lambda one: "positive (61.0%)")
    parts = {"unit": "word", "words": range(490), "tokens": range(512), "unknown": ("x" * 900,)}
    for truncated in (True, False):
        read = SimpleNamespace(**parts, truncated=truncated, full_length=900 if truncated else 512)
        info = SimpleNamespace(info=SimpleNamespace(max_length=128))
        attribution_words.reading_notes(SimpleNamespace(instance=read, checkpoint=info))
    cut, some, unknown, whole, _ = said
    assert "900 tokens and the model reads at most 512" in cut
    assert "This page reads 512 tokens of the text; usage and scores" in some
    assert "read 128 of them, which give **positive" in some
    assert "This page reads all 512 tokens of the text" in whole
    assert len(unknown) < 150


def test_the_coalitions_go_with_the_input_unless_they_are_picked(open_page, tiny_checkpoint, monkeypatch):
    asked, scores = [], attribution_experts.expert_scores

    def noting(one, output, budget):
        asked.append(budget)
        return scores(one, output, budget)

    monkeypatch.setattr(attribution_experts, "expert_scores", noting)
    at = open_page("attribution", tiny_checkpoint, text=TYPED)
    assert at.select_slider(key="coalitions").value == "automatic"
    monkeypatch.setattr(experts, "enough", lambda k: 1024)  # as of an input that takes more experts
    assert not at.run().exception
    assert asked == [256, 1024]
    at = open_page("attribution", tiny_checkpoint, text=TYPED, coalitions="64")
    assert not at.exception
    assert asked[-1] == 64


@pytest.mark.parametrize("paired", [False, True])
def test_of_minimal_pairs_it_is_said_that_each_counts_once(paired):
    frame = pd.DataFrame({"group": ["a", "b"], "p": [np.nan, np.nan]})
    said = attribution_where._said(frame[:0], frame, "margin", paired)
    assert said.startswith("No expert is used by 5 of these inputs")
    assert ("(a minimal pair counts once)" in said) == paired


def test_a_picked_rival_gives_way_where_another_layer_takes_it(open_page, tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    (routed,) = explore(loaded.model, loaded.tokenizer, loaded.info.task, [(TYPED,)])
    taken = str(routed.choice(routed.layers[-1]))
    at = open_page("attribution", tiny_checkpoint, text=TYPED, explain="a layer's route", route_other=taken)
    assert not at.exception
    assert not at.error


def exploration(probs, gates):
    return Exploration(
        TASKS["sst2"], ("t",), ("a",), 1, np.zeros(2), {3: np.array(probs)}, gates={3: np.array(gates)}
    )


@pytest.mark.parametrize(
    ("probs", "gates", "expert", "rival"),
    [
        ([0.1, 0.5, 0.3, 0.1], [0, 1, 0, 0], 1, 2),  # what is taken, against the next
        ([0.1, 0.5, 0.3, 0.1], [0, 1, 0, 0], 3, 1),  # another one, against what is taken
        ([0.1, 0.5, 0.3, 0.1], [0, 0.6, 0.4, 0], 1, 0),  # two fire: not against the other of them
        ([0.6, 0.4], [0.6, 0.4], 0, 1),  # all fire
        ([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]], [[1, 0, 0], [0, 1, 0]], 0, 1),  # each token its own
    ],
)
def test_the_best_rival(probs, gates, expert, rival):
    assert exploration(probs, gates).runner_up(3, expert) == rival


def test_a_very_long_word_does_not_fill_the_memory_or_the_chart():
    words = [instance.Word("a", 0, (i,)) for i in range(199)] + [instance.Word("b" * 50_000, 0, (199,))]
    found = tokens.RoutesWithout(tuple(range(12)), 12, 1, np.zeros(12, int), np.ones((12, 200), int))
    expert_cells.routes_without_words(
        found, words[:2], "padding"
    )  # what plotly reads at its first figure is not ours
    tracemalloc.start()
    try:
        fig = expert_cells.routes_without_words(found, words, "padding")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert max(map(len, fig.layout.xaxis.ticktext)) < 40


# ---- the fewest words that change the answer


def test_the_fewest_words_that_change_the_answer_are_named(open_page, save_tiny, tiny_model):
    folder = save_tiny("tiny")
    found = flips.fewest_words(made(folder))
    at = open_page("attribution", folder, text=TYPED)
    assert not at.exception
    assert "Fewest words that change the answer" in [header.value for header in at.header]
    said = texts_of(at)
    assert attribution_flips.sentence(found, TASKS["sst2"]).replace("\\", "") in said
    assert attribution_flips.tried(found, "mask", routed=True) in said


@pytest.mark.parametrize("replaced", ["mask token", "padding", "nothing"])
def test_a_link_leads_to_both_routes(open_page, tiny_checkpoint, replaced):
    at = open_page("attribution", tiny_checkpoint, text=TYPED, replaced_by=replaced)
    assert not at.exception
    word = attribution_words.REPLACEMENTS[replaced]
    found = flips.fewest_words(made(tiny_checkpoint), replacement=word)
    links = [one.proto for one in at.get("page_link") if one.proto.label.startswith("Both routes")]
    loaded = checkpoints.load(tiny_checkpoint)
    assert bool(links) == bool(found.found)
    assert found.found  # else this checkpoint is no test of it
    (lines,) = parse_qs(links[0].query_string)["text"]
    asked, left = lines.split("\n")
    assert asked == TYPED
    (e,) = explore(loaded.model, loaded.tokenizer, loaded.info.task, [(left,)])
    assert e.prediction == found.found[0].answer
    np.testing.assert_allclose(e.probabilities[e.prediction], found.found[0].probability, atol=1e-5)


def a_flip(*places, answer=1, margin=-0.5):
    return flips.Flip(places, answer, 0.622, margin, 2)


def some_flips(*found, size=1, smallest=True, random=(1, 5), words=5):
    words = tuple(instance.Word(f"w{i}", i % 2, (i + 1,)) for i in range(words))
    return flips.Flips(words, 0, size, found, smallest, 25, random)


GOOD = custom_task("good", ("sentence",), ("bad", "good", "fine"))


@pytest.mark.parametrize(
    ("found", "said", "how"),
    [
        (
            some_flips(a_flip(1)),
            "Without **w1** the answer is **good** (62.2%) instead of bad.",
            "25 sets were tried. Of n = 5 words, 1 changes it alone.",
        ),
        (
            some_flips(a_flip(1), a_flip(0, answer=2), a_flip(4), random=(3, 5)),
            "Without **w1** the answer is **good** (62.2%) instead of bad. 2 other words change it too.",
            "Of n = 5 words, 3 change it alone.",
        ),
        (
            some_flips(a_flip(1, 3), a_flip(0, 3), size=2, random=(2, 10)),
            "No word alone changes the answer. Without **w1** and **w3** together the answer is **good** (62.2%) "
            "instead of bad. 1 other set of as many, of those tried, also does.",
            "All single words were tried, then all pairs. Of all n = 10 sets of 2 words, 2 change it.",
        ),
        (
            some_flips(a_flip(0, 1, 2), size=3, smallest=False, random=(1, 100), words=20),
            "Without **w0**, **w1** and **w2** together",
            "pairs and triples, of the 12 words whose loss alone leaves the smallest margins. A smaller set may exist. "
            "Control: of n = 100 random sets of 3 words, 1 changes it.",
        ),
        (
            some_flips(size=5, smallest=False, random=(0, 1)),
            "No word alone changes the answer. Nothing that was tried does: even without 5 of its 5 words it is still "
            "**bad**.",
            "grew from the best one before, a word at a time. Of all n = 1 sets of 5 words, 0 change it.",
        ),
        (
            some_flips(size=12, smallest=False, random=(3, 100), words=20),
            "The search found nothing that does: even without 12 of its 20 words it is still **bad**. Random "
            "sets say that there is something (below).",
            "Control: of n = 100 random sets of 12 words, 3 change it.",
        ),
        (
            some_flips(words=1, random=(0, 1)),
            "Without its one word the answer is still **bad**.",
            "Of n = 1 word, 0",
        ),
    ],
)
def test_what_is_said_of_them(found, said, how):
    assert said in attribution_flips.sentence(found, GOOD)
    told = attribution_flips.tried(found, "mask", routed=True)
    assert how in told
    assert "the model routes anew" in told
    assert "routes" not in attribution_flips.tried(found, "mask", routed=False)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (2, "All single words were tried, then all pairs. Of all n = 78 sets"),
        (
            3,
            "then all pairs, then all triples, of the 12 words whose loss alone leaves the smallest margins.",
        ),
    ],
)
def test_all_pairs_of_13_words_are_tried(size, said):
    random = (1, 78) if size == 2 else (1, 100)
    found = some_flips(a_flip(*range(size)), size=size, random=random, words=13)
    assert said in attribution_flips.tried(found, "mask", routed=True)


def test_a_word_of_a_pair_is_named_with_its_text():
    said = attribution_flips.sentence(some_flips(a_flip(0, 1), size=2, random=(1, 10)), TASKS["mrpc"])
    assert "Without **w0** (sentence1) and **w1** (sentence2) together" in said


def test_sets_that_do_as_well_stand_in_a_table(open_page, tiny_checkpoint, monkeypatch):
    found = some_flips(a_flip(1, 3), a_flip(0, 3, margin=-0.1), size=2, random=(2, 10))
    monkeypatch.setattr("ui.attribution.flips.fewest_words", lambda *_: found)
    monkeypatch.setattr(flips, "left_text", lambda *_: None)
    at = open_page("attribution", tiny_checkpoint, text=TYPED)
    assert not at.exception
    table = next(frame for frame in tables(at) if "places" in frame)
    assert table["words"].tolist() == ["w1 + w3", "w0 + w3"]
    assert table["places"].tolist() == ["2, 4", "1, 4"]
    assert table["layers routed anew"].tolist() == [2, 2]


def test_a_long_input_is_searched_on_request(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(attribution_flips, "_SHORT", 4)
    monkeypatch.setattr(attribution_flips, "_FEW", 4)
    at = open_page("attribution", tiny_checkpoint, text=TYPED)
    assert not at.exception
    assert "sets were tried" not in texts_of(at)
    at.toggle(key="flips").set_value(True).run()
    assert not at.exception
    assert "sets were tried" in texts_of(at)
