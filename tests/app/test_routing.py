import json
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from shrp.analysis.attention import layer_attention, model_attention
from shrp.analysis.explore import MAX_SENTENCES, Exploration, explore
from shrp.analysis.what_if import what_if
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import info as checkpoint_info
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.model.forcing import ForcedRoute
from shrp.pruning.plan import make_plan
from tests.app.helpers import report, specs, targets, texts_of, values
from ui import arrival
from ui.routing import attention as routing_attention
from ui.routing import force as routing_force
from ui.routing import views as routing_views
from ui.routing.sentences import LONGEST_LINK
from ui.routing.views import lengths


def route(at, text):
    at.text_area(key="sentences-route").set_value(text)
    at.button[0].click()
    at.run()
    assert not at.exception
    return at


def predictions(at):
    return at.dataframe[0].value


@pytest.fixture
def page(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint)
    assert not at.exception
    return at


def test_the_page_starts_with_examples_and_all_its_parts(page):
    assert page.title[0].value == "Routing"
    assert len(predictions(page)) >= 2
    assert len(page.get("plotly_chart")) == 4  # side by side, router probabilities, what-if, attention
    assert not page.error
    assert "text" not in page.query_params


def test_a_typed_sentence_gets_the_models_own_prediction(page, tiny_checkpoint):
    route(page, "w1 w2 w3\nw50 w51 w52 w53")
    loaded = checkpoints.load(tiny_checkpoint)
    found = explore(loaded.model, loaded.tokenizer, loaded.info.task, [("w1 w2 w3",), ("w50 w51 w52 w53",)])
    frame = predictions(page)
    assert frame["prediction"].tolist() == [e.answer for e in found]
    np.testing.assert_allclose(frame["p(positive)"], [100 * e.probabilities[1] for e in found], atol=1e-3)
    choices = page.dataframe[1].value
    assert choices["expert"].tolist() == [found[0].choice(layer) for layer in found[0].layers]
    assert page.query_params["text"] == "w1 w2 w3\nw50 w51 w52 w53"


def test_inputs_of_the_data_have_their_labels_beside_the_predictions(page):
    data = load_probe("sst2")
    picked = [int(np.flatnonzero(data.labels == label)[0]) for label in (0, 1)]
    route(page, "w1 w2 w3")
    assert "label" not in predictions(page)
    route(page, "w1 w2 w3\n" + "\n".join(f"  {data.texts[i][0]} " for i in picked))
    labels = predictions(page)["label"]
    assert labels.isna().tolist() == [True, False, False]
    assert labels[1:].tolist() == ["negative", "positive"]


def test_each_chosen_expert_leads_to_what_it_is_for(page, tiny_checkpoint):
    route(page, "w1 w2 w3")
    loaded = checkpoints.load(tiny_checkpoint)
    (found,) = explore(loaded.model, loaded.tokenizer, loaded.info.task, [("w1 w2 w3",)])
    links = {link.proto.label: link.proto for link in page.get("page_link")}
    for layer in found.layers:
        link = links[f"layer {layer}, expert {found.choice(layer)}"]
        assert link.page == "expert_usage"
        values = {"layer": str(layer), "expert": str(found.choice(layer))}
        asked = arrival.link(values) | {"checkpoint": "tiny", "source": "probe"}
        assert parse_qs(link.query_string) == {key: [value] for key, value in asked.items()}


def test_the_url_restores_text_input_and_comparison(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1\nw2\nw3", input="2", beside="3")
    assert not at.exception
    assert at.text_area(key="sentences-route").value == "w1\nw2\nw3"
    assert (at.selectbox(key="input").value, at.selectbox(key="beside").value) == (2, 3)
    assert (
        len(at.get("plotly_chart")) == 8
    )  # side by side; probabilities, what-if and attention of both; states put in
    assert at.selectbox(key="beside").options == ["1", "3"]  # no input stands beside itself
    assert "Showing the predicted class of input 2" in texts_of(at)
    maps = [
        trace
        for spec in specs(at)
        if "Attention of" in spec["layout"]["title"]["text"]
        for trace in spec["data"]
    ]
    assert len({(trace["zmin"], trace["zmax"]) for trace in maps}) == 1  # both on one scale


def test_a_picked_class_is_the_one_shown(page):
    page.segmented_control(key="what_if_class").set_value("positive").run()
    assert not page.exception
    assert "Showing the predicted class" not in texts_of(page)
    spec = next(s for s in specs(page) if s["layout"]["title"]["text"].startswith("What if"))
    assert "positive" in json.dumps(spec)


def test_examples_replace_what_is_being_typed_also_where_they_were_handed_in_last(page):
    """What is typed stays in the browser until it is handed in, so the box has to be told its text anew."""
    box = page.text_area(key="sentences-route")
    page.selectbox(key="sentences-preset").select("Near opposites").run()
    assert page.text_area(key="sentences-route").value == box.value
    assert page.text_area(key="sentences-route").proto.set_value


@pytest.mark.parametrize("text", ["", "   \n \n\t", "\u200b \u200b\n\u200d"])
def test_nothing_typed_says_what_to_do(page, text):
    route(page, text)
    assert "Type at least one sentence" in texts_of(page)
    assert not page.get("plotly_chart")


@pytest.mark.parametrize(
    "text",
    [
        "🎬 ❤️‍🔥 !!!",
        "<script>alert(1)</script> **bold** [link](http://x) $x^2$ :material/home:",
        "\x00 \u202e weird",
        "a|||b",
        "word",
    ],
)
def test_odd_text_is_shown_as_text(page, text):
    route(page, text)
    assert not page.error
    assert predictions(page)["sentence"].tolist() == [text.strip()]
    for chart in page.get("plotly_chart"):
        assert "<script>" not in chart.proto.spec


def test_ten_thousand_words_are_cut_and_it_says_so(page):
    route(page, "w1 " * 10_000)
    assert "of 10,002" in predictions(page)["tokens read"][0]
    assert "tokens can be read" in texts_of(page)
    assert "too long to be part" in texts_of(page)
    assert "text" not in page.query_params
    assert LONGEST_LINK < 30_000


def test_more_inputs_than_allowed_are_left_out(page):
    route(page, "\n".join(f"w{i}" for i in range(40)))
    assert len(predictions(page)) == MAX_SENTENCES
    assert f"Only the first {MAX_SENTENCES} of 40 inputs" in texts_of(page)


def test_fewer_inputs_than_the_picked_number(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1\nw2\nw3", input="3", beside="2")
    route(at, "w5")
    assert len(predictions(at)) == 1
    assert not at.error


@pytest.mark.parametrize("params", [{"input": "99", "what_if_class": "no"}, {"input": "x", "beside": "-1"}])
def test_nonsense_in_the_url_falls_back(open_page, tiny_checkpoint, params):
    at = open_page("routing", tiny_checkpoint, **params)
    assert not at.exception
    assert not at.error
    assert len(at.get("plotly_chart")) >= 3


def test_examples_replace_what_was_typed(page):
    route(page, "w1")
    box = page.selectbox(key="sentences-preset")
    box.set_value(box.options[-1]).run()
    assert not page.exception
    assert len(predictions(page)) > 1
    assert page.selectbox(key="sentences-preset").value is None


def test_token_routing_has_a_map_of_tokens(open_page, tiny_token_checkpoint):
    at = open_page("routing", tiny_token_checkpoint, text="w1 w2 w3")
    assert not at.exception
    assert len(at.get("plotly_chart")) == 4  # router probabilities, tokens, what-if, attention
    assert "share of tokens" in at.dataframe[1].value
    assert "for all tokens" in texts_of(at)


def test_a_static_checkpoint_still_predicts(open_page, tiny_static_checkpoint):
    at = open_page("routing", tiny_static_checkpoint, text="w1 w2")
    assert not at.exception
    assert len(predictions(at)) == 1
    assert "routers are gone" in texts_of(at)
    assert at.dataframe[1].value["experts kept"].tolist() == [
        len(plan.experts) for _, plan in checkpoints.load(tiny_static_checkpoint).info.plan.layers
    ]


def click(monkeypatch, forcing, key, layer, expert, token=None):
    """A click on a matrix's cell, as Streamlit hands it to the callback."""
    session = {key: {"selection": {"points": [{"customdata": {"0": layer, "1": expert}}]}}}
    with monkeypatch.context() as patch:
        patch.setattr(routing_force.st, "session_state", session)
        patch.setattr(routing_force.st, "query_params", {})
        routing_force.click_cell(forcing, key, token)


def chips(at):
    return [b.label for b in at.button if (b.key or "").startswith("force-chip")]


def force(at, layer, expert):
    at.selectbox(key="force_layer").set_value(layer)
    at.selectbox(key="force_expert").set_value(expert)
    at.button(key="force-button").click()
    at.run()
    assert not at.exception
    return at


def test_experts_are_forced_released_and_restored_without_a_mouse(page, tiny_checkpoint):
    route(page, "w1 w2 w3")
    force(force(page, 1, 2), 2, 3)
    assert chips(page) == ["layer 1 → expert 2", "layer 2 → expert 3"]
    assert page.query_params["force"] == "1.2_2.3"
    loaded = checkpoints.load(tiny_checkpoint)
    parts = loaded.model, loaded.tokenizer, loaded.info.task, [("w1 w2 w3",)]
    (before,) = explore(*parts)
    (after,) = explore(*parts, route=ForcedRoute.parse("1.2_2.3"))
    table = next(d.value for d in page.dataframe if "forced" in d.value)
    assert table["logit"].tolist() == [f"{x:.3f}".replace("-", "−") for x in before.logits]
    assert table["forced"].tolist() == [f"{x:.3f}".replace("-", "−") for x in after.logits]
    both = next(d.value for d in page.dataframe if "forced route" in d.value)
    assert both["forced route"].tolist() == [2, 3]
    assert both["as routed"].tolist() == [before.choice(1), before.choice(2)]
    assert "As routed and forced" in texts_of(page)
    force(page, 1, 0)  # another expert in the same layer takes its place
    assert page.query_params["force"] == "1.0_2.3"
    page.button(key="force-undo").click().run()
    assert page.query_params["force"] == "1.2_2.3"
    page.button(key="force-chip-0").click().run()
    assert chips(page) == ["layer 2 → expert 3"]
    page.button(key="force-clear").click().run()
    assert chips(page) == []
    assert "force" not in page.query_params
    assert "As routed and forced" not in texts_of(page)
    page.button(key="force-undo").click().run()
    assert chips(page) == ["layer 2 → expert 3"]
    assert not page.exception


def test_a_link_restores_the_forced_route_and_the_matrix_is_relative_to_it(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1 w2", force="1.3_2.0", what_if_class="positive")
    assert not at.exception
    assert chips(at) == ["layer 1 → expert 3", "layer 2 → expert 0"]
    spec = next(s for s in specs(at) if s["layout"]["title"]["text"].startswith("What if"))
    loaded = checkpoints.load(tiny_checkpoint)
    parts = loaded.model, loaded.tokenizer, loaded.info.task, [("w1 w2",)]
    (base,) = explore(*parts, route=ForcedRoute.parse("1.3_2.0"))
    assert f"under the forced route {base.logits[1]:+.3f}" in spec["layout"]["title"]["subtitle"]["text"]
    cells = targets(spec)
    assert cells["customdata"] == [[layer, expert] for layer in (1, 2) for expert in range(4)]
    assert "click to release it" in cells["hovertext"][3]
    (other,) = explore(*parts, route=ForcedRoute.parse("1.3_2.1"))
    assert f"change {other.logits[1] - base.logits[1]:+.3f}" in cells["hovertext"][5]


def test_a_click_forces_and_a_second_one_releases(monkeypatch):
    forcing = routing_force.Forcing((1, 2), 4)
    click(monkeypatch, forcing, "what-if-0", 2, 3)
    assert forcing.route.text == "2.3"
    click(monkeypatch, forcing, "what-if-0", 1, 0)
    assert forcing.route.text == "1.0_2.3"
    click(monkeypatch, forcing, "what-if-0", 2, 3)
    assert forcing.route.text == "1.0"
    click(monkeypatch, forcing, "what-if-0", 9, 3)  # a chart of another checkpoint, still on the screen
    assert forcing.route.text == "1.0"
    session = {"what-if-0": {"selection": {"points": []}}}
    monkeypatch.setattr(routing_force.st, "session_state", session)
    routing_force.click_cell(forcing, "what-if-0", None)
    assert forcing.route.text == "1.0"


def test_undo_brings_no_tokens_force_to_another_input(monkeypatch):
    monkeypatch.setattr(routing_force.Forcing, "to_url", lambda self: None)
    forcing = routing_force.Forcing((1, 2), 4)
    forcing.meet(("w1 w2 w3",), 5)
    forcing.toggle(2, 3, token=3)
    forcing.toggle(2, 3, token=3)  # released
    assert forcing.past[-1].text == "2.3t3"
    forcing.meet(("w4 w5 w6",), 5)
    assert not forcing.past  # there is nothing to take back
    forcing.undo()
    assert forcing.route.text == ""


def test_a_tokens_force_is_released_where_another_input_is_shown_and_it_says_so(monkeypatch):
    monkeypatch.setattr(routing_force.Forcing, "to_url", lambda self: None)
    forcing = routing_force.Forcing((1, 2), 4)
    forcing.meet(("w1 w2 w3",), 5)
    forcing.toggle(1, 0)
    forcing.toggle(2, 3, token=3)
    assert not forcing.notice
    forcing.meet(("w1 w2 w3",), 5)
    assert (forcing.route.text, forcing.notice) == ("1.0_2.3t3", "")
    forcing.meet(("w4 w5 w6",), 5)
    assert forcing.route.text == "1.0"
    assert "released, since another input is shown" in forcing.notice


def test_two_inputs_have_a_matrix_and_a_comparison_each(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1 w2\nw30 w31", input="2", beside="1", force="2.1")
    assert not at.exception
    titles = [spec["layout"]["title"]["text"] for spec in specs(at)]
    assert sum(title.startswith("What if") for title in titles) == 2
    assert [title for title in titles if "both routes" in title] == [
        "Input 2, both routes",
        "Input 1, both routes",
    ]


@pytest.mark.parametrize("forced", ["x", "9.1", "1.99", "1.2t3", "1.1_" * 900])
def test_a_broken_forced_route_in_the_link_is_left_out_and_it_says_so(open_page, tiny_checkpoint, forced):
    at = open_page("routing", tiny_checkpoint, text="w1", force=forced)
    assert not at.exception
    assert not at.error
    assert chips(at) == []
    assert "left out" in texts_of(at)
    assert "force" not in at.query_params


def test_one_token_is_forced_in_the_first_input_only(open_page, tiny_token_checkpoint):
    at = open_page(
        "routing", tiny_token_checkpoint, text="w1 w2 w3\nw4 w5", input="1", beside="2", force="1.0"
    )
    at.selectbox(key="force_token").set_value("2: w2").run()
    assert not at.exception
    titles = [spec["layout"]["title"]["text"] for spec in specs(at)]
    assert sum(title.startswith("What if") for title in titles) == 1
    assert "the matrix is of that input alone" in texts_of(at)
    force(at, 2, 3)
    assert at.query_params["force"] == "1.0_2.3t2"
    assert chips(at) == ["layer 1 → expert 0", "layer 2, token 2 (w2) → expert 3"]
    assert "applies to input 1 alone" in texts_of(at)
    loaded = checkpoints.load(tiny_token_checkpoint)
    parts = loaded.model, loaded.tokenizer, loaded.info.task
    tables = [d.value for d in at.dataframe if "forced" in d.value]
    for table, text, own in zip(tables, ("w1 w2 w3", "w4 w5"), ("1.0_2.3t2", "1.0"), strict=True):
        (after,) = explore(*parts, [(text,)], route=ForcedRoute.parse(own))
        assert table["forced"].tolist() == [f"{x:.3f}".replace("-", "−") for x in after.logits]
    route(at, "w7 w8 w9")  # its tokens are not those that were meant
    assert chips(at) == ["layer 1 → expert 0"]
    assert "another input is shown" in texts_of(at)


def test_a_click_in_the_map_of_tokens_picks_one(monkeypatch, open_page, tiny_token_checkpoint):
    at = open_page("routing", tiny_token_checkpoint, text="w1 w2 w3")
    spec = next(s for s in specs(at) if s["layout"]["title"]["text"] == "Expert of every token")
    assert targets(spec)["customdata"] == [[layer, token] for layer in (1, 2) for token in range(5)]
    loaded = checkpoints.load(tiny_token_checkpoint)
    (shown,) = explore(loaded.model, loaded.tokenizer, loaded.info.task, [("w1 w2 w3",)])
    session = {"tokens-1": {"selection": {"points": [{"customdata": [2, 3]}]}}}
    monkeypatch.setattr(routing_force.st, "session_state", session)
    routing_force.click_token("tokens-1", shown)
    assert session["force_token"] == "3: w3"
    assert routing_force.picked_token(shown) == 3


def test_a_link_frames_its_token_in_the_map_at_once(open_page, tiny_token_checkpoint):
    def marks(at):
        spec = next(s for s in specs(at) if s["layout"]["title"]["text"] == "Expert of every token")
        return spec["layout"].get("shapes")

    at = open_page("routing", tiny_token_checkpoint, text="w1 w2 w3", force_token="3: w3")
    assert marks(at)
    assert marks(at) == marks(at.run())
    assert not marks(open_page("routing", tiny_token_checkpoint, text="w1 w2 w3"))


def test_lengths_that_other_pages_would_cut_are_told():
    def made(tokens, full):
        return Exploration(TASKS["sst2"], ("t",), ("a",) * tokens, full, np.zeros(2), {})

    assert lengths([made(128, 128)], 128) == []
    (long,) = lengths([made(10, 10), made(129, 129)], 128)
    assert "128 tokens" in long
    assert "input 2" in long
    cut, long = lengths([made(512, 900), made(512, 513)], 200)
    assert "At most 512 tokens" in cut
    assert "inputs 1, 2" in cut
    assert "200 tokens" in long


def test_typed_text_goes_along_or_waits_for_its_task():
    def script():
        import streamlit as st

        from shrp.data.tasks import TASKS
        from ui.routing.sentences import sentence_form

        sentence_form(TASKS[st.session_state.get("task", "sst2")], None)

    def switch(task):
        at.session_state["task"] = task
        at.run()
        assert not at.exception
        return at.text_area[0].value

    at = AppTest.from_function(script, default_timeout=120).run()
    examples = at.text_area[0].value
    assert switch("cola") not in ("", examples)  # nothing was typed yet
    at.text_area[0].set_value("Mine is this one.")
    at.button[0].click().run()
    assert switch("sst2") == "Mine is this one."  # single sentences both
    assert "|" in switch("mrpc")
    at.text_area[0].set_value("One of two. ||| Two of two.")
    at.button[0].click().run()
    assert switch("cola") == "Mine is this one."
    assert switch("mrpc") == "One of two. ||| Two of two."


def test_the_datas_first_inputs_are_those_of_the_data_until_something_is_typed():
    def script():
        import streamlit as st

        from shrp.data.tasks import custom_task
        from shrp.data.text_data import TextData
        from ui.routing.sentences import sentence_form

        task, name = custom_task("mine", ["text"], ["a", "b"]), st.session_state.get("name", "first")
        sentence_form(task, TextData(task, name, ((f"One of {name}.",), (f"Two of {name}.",))))

    at = AppTest.from_function(script, default_timeout=120).run()
    assert at.text_area[0].value == "One of first.\nTwo of first."
    at.session_state["name"] = "second"
    assert at.run().text_area[0].value == "One of second.\nTwo of second."
    assert "text" not in at.query_params
    at.text_area[0].set_value("Mine is this one.")
    at.button[0].click().run()
    at.session_state["name"] = "third"
    assert at.run().text_area[0].value == "Mine is this one."


def test_words_that_the_model_does_not_know_are_told(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1 w2\nw1 unheard w2")
    assert not at.exception
    assert "Input 2 has words that the model's vocabulary lacks" in texts_of(at)
    known = open_page("routing", tiny_checkpoint, text="w1 w2\nw3 w4")
    assert "vocabulary" not in texts_of(known)


# ---- attention


def attention_specs(page):
    """Heatmaps of attention, by title."""
    drawn = {spec["layout"]["title"]["text"]: spec for spec in specs(page)}
    return {
        title: spec["data"]
        for title, spec in drawn.items()
        if "Attention" in title or title.startswith("All ")
    }


def test_where_any_layers_heads_look(page, tiny_checkpoint, monkeypatch):
    route(page, "w1 w2 w3")
    loaded = checkpoints.load(tiny_checkpoint)
    top = layer_attention(loaded.model, loaded.tokenizer, ("w1 w2 w3",), 2)
    best = int(top.probs.argmax())
    assert (page.selectbox(key="attention_layer").value, page.selectbox(key="attention_head").value) == (
        2,
        None,
    )
    ((title, (drawn,)),) = attention_specs(page).items()
    assert title == f"Attention of layer 2, expert {best}"  # which follows the route
    np.testing.assert_allclose(values(drawn["z"]), top.weights[best], atol=1e-6)
    assert "The router sends this input here" in texts_of(page)
    other = (best + 1) % 4
    page.selectbox(key="attention_head").set_value(other).run()
    assert list(attention_specs(page)) == [f"Attention of layer 2, expert {other}"]
    assert "what this expert would attend to" in texts_of(page)
    page.selectbox(key="attention_layer").set_value(0).run()
    page.toggle(key="attention_all").set_value(True).run()
    assert not page.exception
    dense = layer_attention(loaded.model, loaded.tokenizer, ("w1 w2 w3",), 0)
    drawn = attention_specs(page)
    assert list(drawn) == [f"Attention of layer 0, head {other}", "All 4 heads of layer 0"]
    for map_, weights in zip(drawn["All 4 heads of layer 0"], dense.weights, strict=True):
        np.testing.assert_allclose(values(map_["z"]), weights, atol=1e-6)
    assert "This layer is dense" in texts_of(page)
    monkeypatch.setattr(routing_attention, "MOST", 4)
    route(page, "w1 w2 w3")
    assert list(attention_specs(page)) == [f"Attention of layer 0, head {other}"]
    assert "side by side for inputs of 4 tokens at most; this one has 5" in texts_of(page)


def test_all_layers_are_drawn_small_and_a_click_shows_one_large(page, tiny_checkpoint):
    route(page, "w1 w2 w3")
    page.toggle(key="attention_layers").set_value(True).run()
    assert not page.exception
    loaded = checkpoints.load(tiny_checkpoint)
    layers = model_attention(loaded.model, loaded.tokenizer, ("w1 w2 w3",))
    spec = next(spec for spec in specs(page) if spec["layout"]["title"]["text"] == "All layers")
    drawn = np.array(values(spec["data"][0]["z"]), dtype=float)
    for row, one in enumerate(layers):  # five tokens and a gap each
        for head in range(4):
            tile = drawn[6 * row : 6 * row + 5, 6 * head : 6 * head + 5]
            np.testing.assert_allclose(tile**2, one.weights[head], atol=1e-5)
    assert np.isnan(drawn[5]).all()
    assert np.isnan(drawn[:, 5]).all()
    assert targets(spec)["customdata"] == [[layer, head] for layer in range(3) for head in range(4)]
    circles = spec["data"][1]
    assert [x // 6 for x in circles["x"]] == [one.routed_to for one in layers[1:]]
    assert [y // 6 for y in circles["y"]] == [1, 2]  # the dense layer sends nothing anywhere
    assert spec["layout"]["yaxis"]["ticktext"] == ["layer 0, dense", "layer 1, routed", "layer 2, routed"]
    chart = next(one for one in page.get("plotly_chart") if "All layers" in one.proto.spec)
    assert "Layer 0, dense, head" in chart.proto.alt
    spread = np.mean([layers[2].pattern(head).spread for head in range(4)])
    assert f"layer 2 {spread:.1f}. n = 1 input" in texts_of(page)
    assert "in effect.<br><i>click" in targets(spec)["hovertext"][0]
    point = {"customdata": {"0": 1, "1": 3}, "curve_number": 2, "point_index": 7}
    selection = {"points": [point], "point_indices": [7], "box": [], "lasso": []}
    report(page, chart.proto.id, {"selection": selection})
    assert not page.exception
    assert page.selectbox(key="attention_layer").value == 1
    assert page.selectbox(key="attention_head").value == 3
    assert "Attention of layer 1, expert 3" in attention_specs(page)


@pytest.mark.parametrize(
    ("kind", "circles", "missing"),
    [
        ({"top_k": 2}, 4, 0),
        ({"routing": "token"}, 0, 0),
        ({"plan": make_plan({1: [1, 0, 0, 0], 2: [0, 0, 3, 1]}, counts={1: 1, 2: 2})}, 0, 5),
    ],
)
def test_all_layers_of_other_models(open_page, save_tiny, kind, circles, missing):
    page = open_page(
        "routing", save_tiny("other", **kind), text="w1 w2 w3", attention_layers="true", hide_special="true"
    )
    assert not page.exception
    spec = next(spec for spec in specs(page) if spec["layout"]["title"]["text"] == "All layers")
    drawn = np.array(values(spec["data"][0]["z"]), dtype=float)
    tiles = [drawn[4 * row : 4 * row + 3, 4 * head : 4 * head + 3] for row in range(3) for head in range(4)]
    assert sum(bool(np.isnan(tile).all()) for tile in tiles) == missing  # experts that were not kept
    kept = [tile for tile in tiles if not np.isnan(tile).all()]
    np.testing.assert_allclose([(tile**2).sum(1) for tile in kept], 1, atol=1e-5)  # special tokens are hidden
    assert len(targets(spec)["x"]) == 12 - missing
    marked = [trace for trace in spec["data"] if trace["type"] == "scatter"][:-1]
    assert sum(len(trace["x"]) for trace in marked) == circles


def test_the_attention_pickers_have_the_same_default_in_every_run(page):
    """Else a link would leave out what is picked, or bring back something else."""

    def defaults():
        boxes = [page.selectbox(key=key).proto for key in ("attention_layer", "attention_head")]
        return [box.default if box.HasField("default") else None for box in boxes]

    first = defaults()
    assert first[1] is None
    page.selectbox(key="attention_head").set_value(3).run()
    page.selectbox(key="attention_layer").set_value(1).run()
    assert defaults() == first


def test_attention_reads_typed_text_as_far_as_the_page_does(open_page, save_tiny, monkeypatch):
    monkeypatch.setattr(checkpoint_info, "EVALUATED_TOKENS", 6)
    page = open_page("routing", save_tiny("tiny"), text="w1 w2 w3 w4 w5 w6 w7 w8")
    assert not page.exception
    ((_, (drawn,)),) = attention_specs(page).items()
    assert np.shape(values(drawn["z"])) == (10, 10)


@pytest.mark.parametrize(
    ("kind", "layer", "said"),
    [
        (
            {"plan": make_plan({1: [1, 0, 0, 0], 2: [0, 0, 3, 1]}, counts={1: 1, 2: 2})},
            2,
            "A kept expert of a pruned",
        ),
    ],
)
def test_attention_of_models_that_route_nothing(open_page, save_tiny, kind, layer, said):
    page = open_page("routing", save_tiny("other", **kind), text="w1 w2")
    assert not page.exception
    assert page.selectbox(key="attention_layer").value == layer
    assert said in texts_of(page)
    if "plan" in kind:
        assert page.selectbox(key="attention_head").options == ["2", "3"]
        page.selectbox(key="attention_layer").set_value(1).run()
        assert page.toggle(key="attention_all").label == "The kept expert side by side"
        assert page.toggle(key="attention_all").disabled
    assert len(attention_specs(page)) == 1


def test_the_largest_move_is_named(open_page, tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    at = open_page("routing", tiny_checkpoint, text="w1 w2")
    found = what_if(loaded.model, loaded.tokenizer, loaded.info.task, ("w1 w2",))
    output = int(found.base.argmax())
    change = found.change(output)
    row, expert = divmod(int(abs(change).argmax()), change.shape[1])
    said = f"moves most with layer {found.layers[row]}'s expert {expert}: {change[row, expert]:+.2f}"
    assert said.replace("-", "\u2212") in texts_of(at).replace("-", "\u2212")


@pytest.mark.parametrize("name", ["routing", "attribution", "pruning_lab"])
def test_a_page_names_its_checkpoint(open_page, tiny_checkpoint, name):
    at = open_page(name, tiny_checkpoint)
    assert "Checkpoint **tiny**, task sst2" in [caption.value for caption in at.main.caption]


def walk(choices, margins):
    return SimpleNamespace(
        layers=sorted(choices),
        by_token=False,
        choice=choices.__getitem__,
        margin=margins.__getitem__,
        several=lambda layer: 1,
        fires=lambda layer: np.arange(8)[None] == choices[layer],
    )


def test_where_routes_differ_says_which_of_them_are_close_calls():
    one = walk({6: 1, 8: 2, 10: 3}, {6: 0.01, 8: 0.0, 10: 0.4})
    other = walk({6: 5, 8: 2, 10: 4}, {6: 0.5, 8: 0.0, 10: 0.3})
    said = routing_views.agreement([one, other])
    assert said.startswith(
        "Both inputs take the same expert in 1 of 3 routed layers; they differ in layers 6, 10. In "
    )
    assert "In layer 6 that is a close call" in said
    assert "less than 10% apart" in said
    sure = walk({6: 5, 8: 2, 10: 4}, {6: 0.5, 8: 0.0, 10: 0.3})
    clear = walk({6: 1, 8: 2, 10: 3}, dict.fromkeys((6, 8, 10), 0.2))
    assert "close call" not in routing_views.agreement([clear, sure])
    all_near = walk({6: 0, 8: 1, 10: 2}, dict.fromkeys((6, 8, 10), 0.05))
    assert routing_views.agreement([all_near, sure]).startswith("In none of the 3 routed layers")
    probs = {6: np.array([0.5, 0.3, 0.15, 0.05])}
    two = [
        Exploration(TASKS["sst2"], ("t",), ("a",), 1, np.zeros(2), probs, gates={6: np.array(gates)})
        for gates in ([0.6, 0.4, 0, 0], [0.7, 0, 0.3, 0])
    ]
    assert "do they all take the same 2 experts." in routing_views.agreement(two)  # though both have 0 first
    assert "take the same 2 experts in every one" in routing_views.agreement(two[:1] * 2)
    assert "In layers 6, 8, 10 that is a close call" in routing_views.agreement([all_near, sure])
