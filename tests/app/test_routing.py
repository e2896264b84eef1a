"""The Routing page on tiny checkpoints: it shows what the library computes."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from shrp.analysis.attention import layer_attention
from shrp.analysis.attribution import experts, instance, tokens
from shrp.analysis.explore import explore, what_if
from shrp.analysis.patching import patch
from shrp.checkpoints import checkpoint as checkpoints
from shrp.model.forcing import ForcedRoute
from tests.app.helpers import figure, targets, texts_of, values
from ui import bound
from ui.routing import compare, results, sentences, words
from ui.routing.sentences import ATTENTION, COMPARE, EXPERTS, LONGEST_LINK, ROUTE, TAB, WORDS

TYPED = "w1 w20 w33 w4 w50"


def type_in(at, text):
    at.text_area(key=sentences.BOX).set_value(text).run()
    return at


def html_of(at):
    """The tables and coloured words of the page."""
    return [one.proto.body for one in at.get("html") if "<style" not in one.proto.body]


def headline(at):
    """The first text of the main part that has a probability or a number in bold."""
    return next(one.value for one in at.main.markdown if "**" in one.value)


def loaded(folder):
    one = checkpoints.load(folder)
    return one.model, one.tokenizer, one.info.task


@pytest.fixture
def page(open_page, tiny_checkpoint):
    return open_page("routing", tiny_checkpoint)


def test_the_first_screen_is_what_the_library_finds(page, tiny_checkpoint):
    assert not page.error
    assert len(page.get("plotly_chart")) == len(html_of(page)) == 1
    assert html_of(page)[0].count("<tr>") == 3 + 2  # three examples below two rows of heads
    assert [tab.label for tab in page.tabs] == [ROUTE, WORDS, EXPERTS, ATTENTION, COMPARE]
    assert "text" not in page.query_params
    type_in(page, f"{TYPED}\nw50 w51")
    parts = loaded(tiny_checkpoint)
    one, two = explore(*parts, [(TYPED,), ("w50 w51",)])
    said = headline(page)
    assert said.startswith(f"Sentence 1: **{one.answer}** ({100 * one.probabilities[one.prediction]:.1f}%)")
    ablated = tokens.ablate_words(instance.prepare(*parts, (TYPED,)), one.prediction)
    word = ablated.words[int(ablated.scores.argmax())].text
    assert f"**{word}**" in said
    change = np.abs(what_if(*parts, (TYPED,)).change(one.prediction))
    assert f"layer {one.layers[int(change.max(1).argmax())]}" in said
    for e in (one, two):
        assert f" {100 * e.probabilities[e.prediction]:.1f}%<" in html_of(page)[0]
        for layer in e.layers:
            assert f'title="layer {layer}: expert {e.choice(layer)},' in html_of(page)[0]
    page.selectbox(key="input").set_value(2).run()
    assert headline(page).startswith(
        f"Sentence 2: **{two.answer}** ({100 * two.probabilities[two.prediction]:.1f}%)"
    )
    assert page.query_params["text"] == f"{TYPED}\nw50 w51"
    assert "text" in type_in(page, "w1 " * (LONGEST_LINK // 5)).query_params
    assert "text" not in type_in(page, "w1 " * LONGEST_LINK).query_params


def test_with_nothing_typed_nothing_old_stays(page):
    for text in ("   \n \n\t", "\u200b \u200b\n\u200d"):
        type_in(page, text)
        assert page.info
        assert not page.get("plotly_chart")
        assert not html_of(page)


@pytest.mark.parametrize("tab", [ROUTE, WORDS])
def test_odd_text_is_shown_as_text(open_page, tiny_checkpoint, tab):
    odd = ("<script>alert(1)</script> $x^2$ *so* [b](javascript:x) :smile:", "é 你好 🙂 \u202eabc", "." * 300)
    at = open_page("routing", tiny_checkpoint, text="\n".join(odd), tab=tab)
    for number in range(1, len(odd) + 1):
        at.selectbox(key="input").set_value(number).run()
    assert not any("<script" in html for html in html_of(at))


def test_a_long_text_is_cut_answered_at_once_and_computed_on_request(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(results, "QUICK", 8)
    at = type_in(open_page("routing", tiny_checkpoint), " ".join(f"w{i % 50}" for i in range(3000)))
    assert not at.get("plotly_chart")
    assert headline(at).startswith("**")
    assert "text" not in at.query_params  # which is too long for an address
    at.toggle(key="everything").set_value(True).run(timeout=120)
    assert figure(at, "With another expert")


@pytest.mark.parametrize(
    "params",
    [
        {"force": "1.1_" * 900, "tab": "zebra", "what_if_class": "no"},
        {"force": "9.1"},
        {"method": "magic", "tab": WORDS},
        {"beside": "-1", "tab": COMPARE, "input": "99"},
        {"attention_layer": "77", "tab": ATTENTION},
        {"expert_method": "magic", "tab": EXPERTS},
    ],
)
def test_nonsense_in_the_address_is_said_and_left_out(open_page, tiny_checkpoint, params):
    at = open_page("routing", tiny_checkpoint, text=f"{TYPED}\nw2", **params)
    assert not at.error
    said = at.warning or [one for one in at.caption if ":material/info:" in one.value]
    assert len(said) >= len({*params} - {"tab"} or params)
    assert at.run().query_params.get("force") is None


@pytest.mark.parametrize(
    ("made", "tabs"),
    [
        ({"layers": ()}, [WORDS, ATTENTION, COMPARE]),
        ({"task": "stsb", "num_labels": 1}, [ROUTE, WORDS, EXPERTS, ATTENTION, COMPARE]),
        ({"routing": "token", "top_k": 2}, [ROUTE, WORDS, EXPERTS, ATTENTION, COMPARE]),
    ],
    ids=("dense", "regression", "two experts a token"),
)
def test_every_tab_of_every_kind_of_model(open_page, save_tiny, made, tabs):
    folder = save_tiny("other", **made)
    pair = made.get("task") is not None
    text = "w1 w2 ||| w3 w4 w5\nw1 w2 ||| w3" if pair else "w1 w2 w3\nw4 w5"
    at = open_page("routing", folder, text=text)
    for tab in tabs:
        at.session_state[TAB] = tab
        at.run()
        assert [tab.label for tab in at.tabs] == tabs
        assert not at.error
        assert not at.warning
        assert at.get("plotly_chart") or html_of(at)[1:]


def test_a_pruned_model_has_all_but_routes_and_experts(open_page, tiny_static_checkpoint):
    at = open_page("routing", tiny_static_checkpoint, text=f"{TYPED}\nw3 w4", tab=EXPERTS)
    assert [tab.label for tab in at.tabs] == [WORDS, ATTENTION, COMPARE]
    assert "**" in headline(at)


# The route and what-if


def force(at, layer, expert):
    at.selectbox(key="force_layer").set_value(layer)
    at.selectbox(key="force_expert").set_value(expert)
    at.run()
    at.button(key="force-button").click().run()
    return at


def test_experts_are_forced_and_released_without_a_mouse(page, tiny_checkpoint):
    type_in(page, "w1 w2 w3")
    force(force(page, 1, 2), 2, 3)
    assert page.query_params["force"] == "1.2_2.3"
    parts = loaded(tiny_checkpoint)
    (after,) = explore(*parts, [("w1 w2 w3",)], route=ForcedRoute.parse("1.2_2.3"))
    forced = html_of(page)[1]
    assert f"{100 * after.probabilities[after.prediction]:.1f}%" in forced
    assert 'title="layer 1: expert 2,' in forced
    assert 'title="layer 2: expert 3,' in forced
    force(page, 1, 0)  # another expert of the same layer takes its place
    assert page.query_params["force"] == "1.0_2.3"
    force(page, 1, 0)  # once more releases it
    assert page.query_params["force"] == "2.3"
    page.button(key="force-clear").click().run()
    assert "force" not in page.query_params
    assert len(html_of(page)) == 1


def test_a_link_restores_the_route_and_the_grid_is_relative_to_it(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1 w2", force="1.3_2.0", what_if_class="positive")
    assert (at.selectbox(key="force_layer").value, at.selectbox(key="force_expert").value) == (2, 0)
    parts = *loaded(tiny_checkpoint), [("w1 w2",)]
    (base,), (other,) = (explore(*parts, route=ForcedRoute.parse(f"1.3_2.{n}")) for n in (0, 1))
    cells = targets(figure(at, "With another expert"))
    assert cells["customdata"] == [[layer, expert] for layer in (1, 2) for expert in range(4)]
    assert f"{other.logits[1] - base.logits[1]:+.3f}" in cells["hovertext"][5]


def test_back_takes_a_forced_route_back(open_page, tiny_checkpoint, monkeypatch):
    """Streamlit marks a run that the browser's Back asked for; the address leads then, and only then."""
    at = force(open_page("routing", tiny_checkpoint, text="w1 w2"), 1, 2)
    at.query_params["force"] = ""  # what a request that was under way still carries
    at.run()
    assert at.query_params["force"] in ("1.2", ["1.2"])
    monkeypatch.setattr(bound, "went_back", lambda: True)
    del at.query_params["force"]
    at.run()
    assert len(html_of(at)) == 1
    at.query_params["force"] = "2.1"
    at.run()
    assert (at.selectbox(key="force_layer").value, at.selectbox(key="force_expert").value) == (2, 1)


# Words and experts


def scored(at):
    return values(figure(at, "What each")["data"][0]["x"])


@pytest.mark.parametrize("method", tokens.METHODS[1:])
def test_words_are_scored_as_the_library_does(open_page, tiny_checkpoint, method):
    at = open_page("routing", tiny_checkpoint, text=TYPED, tab=WORDS, method=method)
    one = instance.prepare(*loaded(tiny_checkpoint), (TYPED,))
    output = int(one.outputs(one.embeddings)[0].argmax())
    ways = tokens.input_x_gradient, tokens.integrated_gradients, tokens.ablate_words
    made = ways[tokens.METHODS.index(method)](one, output)
    np.testing.assert_allclose(scored(at), made.scores, atol=1e-5)


def test_another_class_is_explained(open_page, save_tiny):
    folder = save_tiny("three", task="mnli", num_labels=3)
    at = open_page("routing", folder, tab=WORDS, text="w1 w2 ||| w3 w4 w5", target="neutral")
    one = instance.prepare(*loaded(folder), ("w1 w2", "w3 w4 w5"))
    np.testing.assert_allclose(scored(at), tokens.ablate_words(one, 1).scores, atol=1e-5)


def test_agreement_and_faithfulness_are_computed_once_opened(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text=TYPED, tab=WORDS)
    before = len(at.dataframe)
    at.session_state[words.AGREE] = at.session_state[words.TRUST] = True
    at.run()
    scores, agree, faithful = (one.value for one in at.dataframe[before:])
    assert {*tokens.METHODS} <= {*scores}
    assert len(agree) == 3
    assert len(faithful) == 3 + 2  # with the two controls


@pytest.mark.parametrize("method", experts.METHODS[1:])
def test_experts_are_scored_as_the_library_does(open_page, tiny_checkpoint, method):
    at = open_page("routing", tiny_checkpoint, text=TYPED, tab=EXPERTS, expert_method=method)
    one = instance.prepare(*loaded(tiny_checkpoint), (TYPED,))
    predicted = int(one.outputs(one.embeddings)[0].argmax())
    if method == experts.METHODS[2]:
        expected = experts.shapley_values(experts.Coalitions(one, predicted))
    else:
        expected = experts.knock_out_scores(one, predicted, method)
    bars = figure(at, "What each expert adds")["data"][0]
    np.testing.assert_allclose(values(bars["x"]), expected.values[expected.fires], atol=1e-5)


# Attention, and two sentences


def test_where_any_layers_heads_look(open_page, tiny_checkpoint):
    asked = {"tab": ATTENTION, "attention_layer": 2, "attention_head": 3}
    at = open_page("routing", tiny_checkpoint, text="w1 w2 w3", **asked)
    model, tokenizer, _ = loaded(tiny_checkpoint)
    expected = layer_attention(model, tokenizer, ("w1 w2 w3",), 2)
    drawn = figure(at, "Attention of layer 2, expert 3")
    np.testing.assert_allclose(values(drawn["data"][0]["z"]), expected.pattern(3).weights, atol=1e-5)
    at.selectbox(key="attention_head").set_value("automatic").run()
    assert figure(at, f"Attention of layer 2, expert {expected.firing[0]}")
    at.toggle(key="hide_special").set_value(True).run()
    assert len(figure(at, "Attention of")["data"][0]["z"]["shape"].split(",")) == 2


def test_two_sentences_are_compared_as_the_library_does(open_page, tiny_checkpoint):
    text = "w1 w20 w33 w4\nw1 w20 w7 w4\nw2"
    at = open_page("routing", tiny_checkpoint, text=text, tab=COMPARE)
    assert at.selectbox(key="beside").options == ["2", "3"]
    one, other = [(line,) for line in text.splitlines()[:2]]
    expected = patch(*loaded(tiny_checkpoint), one, other)
    drawn = figure(at, "How far states of sentence 2")
    np.testing.assert_allclose(values(drawn["data"][0]["z"]), expected.moved, atol=1e-5)
    assert compare.in_words(expected, 2).replace("\\", "") in texts_of(at)
    assert len(html_of(at)) == 1  # the table of the first screen is there once
    at.selectbox(key="input").set_value(2).run()
    assert figure(at, "How far states of sentence 1 move sentence 2")
    type_in(at, "w1 w2")  # one sentence alone
    assert at.info
    assert not figure(at, "How far")


@pytest.mark.parametrize(("limit", "value", "offered"), [("_SOON", 1, True), ("MOST", 4, False)])
def test_long_sentences_are_compared_on_request_or_refused(open_page, tiny_checkpoint, monkeypatch, limit, value, offered):
    monkeypatch.setattr(compare, limit, value)
    at = open_page("routing", tiny_checkpoint, text="w5 w6 w7\nw5 w6 w8", tab=COMPARE)
    assert not figure(at, "How far")
    assert (compare.PATCH in [one.key for one in at.toggle]) == offered
    if offered:
        at.toggle(key=compare.PATCH).set_value(True).run()
        assert figure(at, "How far")


# The box


def box():
    import streamlit as st

    from shrp.data.tasks import TASKS, custom_task
    from shrp.data.text_data import TextData
    from ui.routing.sentences import sentence_box

    name = st.session_state.get("task", "sst2")
    task, texts = custom_task("mine", ["text"], ["a", "b"]), ((f"One of {name}.",), (f"Two of {name}.",))
    sentence_box(*(TASKS[name], None) if name in TASKS else (task, TextData(task, name, texts)))


def test_typed_text_goes_along_or_waits_for_its_task():
    def switch(task):
        at.session_state["task"] = task
        at.run()
        return at.text_area[0].value

    at = AppTest.from_function(box, default_timeout=120).run()
    examples = at.text_area[0].value
    assert switch("cola") != examples  # nothing was typed yet
    at.text_area[0].set_value("Mine is this one.").run()
    assert switch("sst2") == "Mine is this one."  # single sentences both
    assert switch("mrpc") == ""
    at.text_area[0].set_value("One of two. ||| Two of two.").run()
    assert switch("cola") == "Mine is this one."
    assert switch("mrpc") == "One of two. ||| Two of two."


def test_the_datas_first_examples_are_those_of_the_data_until_something_is_typed():
    at = AppTest.from_function(box, default_timeout=120)
    for name in ("first", "second"):
        at.session_state["task"] = name
        assert at.run().text_area[0].value == f"One of {name}.\nTwo of {name}."
    assert "text" not in at.query_params
    at.text_area[0].set_value("Mine is this one.").run()
    at.session_state["task"] = "third"
    assert at.run().text_area[0].value == "Mine is this one."


def test_back_brings_the_text_before_back(open_page, tiny_checkpoint, monkeypatch):
    at = type_in(open_page("routing", tiny_checkpoint, text="w1 w2"), "w3 w4")
    at.query_params["text"] = "w1 w2"
    assert at.run().text_area(key=sentences.BOX).value == "w1 w2"
    monkeypatch.setattr(sentences, "went_back", lambda: True)
    del at.query_params["text"]
    assert "\n" in at.run().text_area(key=sentences.BOX).value  # the examples
