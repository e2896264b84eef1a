import numpy as np
import pytest

from shrp import checkpoint as checkpoints
from shrp.explore import MAX_SENTENCES, explore
from ui.sentences import LONGEST_LINK

from .helpers import texts_of


def route(at, text):
    at.text_area(key="sentences").set_value(text)
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
    assert len(page.get("plotly_chart")) == 3  # side by side, router probabilities, what-if
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


def test_the_url_restores_text_input_and_comparison(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1\nw2\nw3", input="2", beside="3")
    assert not at.exception
    assert at.text_area(key="sentences").value == "w1\nw2\nw3"
    assert (at.selectbox(key="input").value, at.selectbox(key="beside").value) == (2, 3)
    assert len(at.get("plotly_chart")) == 5


def test_a_picked_class_is_the_one_shown(page):
    page.segmented_control(key="what_if_class").set_value("positive").run()
    assert not page.exception
    assert "Showing the predicted class" not in texts_of(page)
    assert "positive" in page.get("plotly_chart")[-1].proto.spec


@pytest.mark.parametrize("text", ["", "   \n \n\t", "\u200b".strip("\u200b")])
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


@pytest.mark.parametrize(
    "params", [{"input": "99"}, {"input": "x"}, {"beside": "-1"}, {"what_if_class": "no"}]
)
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
    assert len(at.get("plotly_chart")) == 3  # router probabilities, tokens, what-if
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
    assert not at.get("plotly_chart")
