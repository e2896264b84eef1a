"""Hidden states of one typed input put into another, on the Routing page."""

import numpy as np
import pytest

from shrp.analysis.patching import Patched, patch
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.tasks import TASKS
from tests.app.helpers import specs, texts_of, values
from ui.routing import pair_patching

TYPED = "w1 w20 w33 w4\nw1 w20 w7 w4"


def maps(at):
    return [spec for spec in specs(at) if spec["layout"]["title"]["text"].startswith("How far each hidden")]


def test_the_map_is_what_the_library_finds(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text=TYPED, beside=2)
    assert not at.exception
    assert not at.error
    (fig,) = maps(at)
    assert "of input 2 moves input 1" in fig["layout"]["title"]["text"]
    one = checkpoints.load(tiny_checkpoint)
    texts = [(line,) for line in TYPED.splitlines()]
    expected = patch(one.model, one.tokenizer, one.info.task, *texts)
    np.testing.assert_allclose(values(fig["data"][0]["z"]), expected.moved, atol=1e-5)
    assert "w33 (w7)" in fig["layout"]["xaxis"]["ticktext"]
    assert pair_patching.in_words(expected, 1, 2).replace("\\", "") in texts_of(at)
    at = open_page("routing", tiny_checkpoint, text=TYPED, input=2, beside=1)
    assert "of input 1 moves input 2" in maps(at)[0]["layout"]["title"]["text"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [(TYPED, "Pick a second input Beside it above"), ("w1 w2", "Type a second input above and pick both")],
)
def test_with_one_input_it_says_what_to_do(open_page, tiny_checkpoint, typed, said):
    at = open_page("routing", tiny_checkpoint, text=typed)
    assert not at.exception
    assert not maps(at)
    assert said in texts_of(at).replace("*", "")


def test_models_without_routers_have_it_too(open_page, tiny_static_checkpoint):
    at = open_page("routing", tiny_static_checkpoint, text=TYPED)
    assert not maps(at)
    at.selectbox(key="beside").set_value(2).run()
    assert not at.exception
    (fig,) = maps(at)
    assert "other experts" not in fig["data"][0]["customdata"][0][0]
    assert "routes too" not in texts_of(at)


def test_long_inputs_are_patched_on_request(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(pair_patching, "_SOON", 1)
    at = open_page("routing", tiny_checkpoint, text=TYPED, beside=2)
    assert not maps(at)
    at.toggle(key=pair_patching.PATCH).set_value(True).run()
    assert not at.exception
    assert maps(at)


def test_too_long_ones_are_refused(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(pair_patching, "MOST", 4)
    at = open_page("routing", tiny_checkpoint, text="w5 w6 w7\nw5 w6 w8", beside=2)
    assert not at.exception
    assert not maps(at)
    assert "of 4 tokens at most; the longer of these has 5" in texts_of(at)


def test_what_goes_nowhere_is_told(open_page, tiny_checkpoint):
    at = open_page("routing", tiny_checkpoint, text="w1 w2\nw1 w9 w2", beside=2)
    assert not at.exception
    assert "Not put in, as input 1 has no place for it: **w9** of input 2" in texts_of(at)
    at = open_page("routing", tiny_checkpoint, text=TYPED, beside=2)
    assert "Not put in" not in texts_of(at)


def made(own, other, logits, task="sst2", donors=None, rerouted=None, left=()):
    logits = np.array(logits, dtype=float)
    tokens = tuple(f"t{i}" for i in range(logits.shape[1]))
    return Patched(
        TASKS[task], tokens, donors or tokens, left, np.array(own), np.array(other), logits, rerouted
    )


def lead(*moved):
    """Logits of two classes, starting from a lead of -2, of one layer."""
    return [[-2.0 + each, 0.0] for each in moved]


def test_runs_of_layers_are_told_of():
    layers = [lead(0, 4, 0), lead(0, 3, 1), lead(0.1, 0.2, 0.1), lead(2, 0.5, 0)]
    found = made([-2.0, 0.0], [2.0, 0.0], layers, donors=("t0", "x", "t2"))
    assert pair_patching.in_words(found, 1, 2) == (
        "Which single state brings the logit of negative less that of positive furthest from input 1 towards input 2: "
        "entering layers 0 to 1 at **t1** that of **x** (token 1, up to 100% of the way); layer 2 none; layer 3 at "
        "**t0** (token 0, 50% of the way). Less than 10% of the way counts as none; parts need not add up."
    )
    none = made([-2.0, 0.0], [2.0, 0.0], [lead(0.1, -3)])
    assert (
        "No single state brings the logit of negative less that of positive 10% of the way from input 1"
        in (pair_patching.in_words(none, 1, 2))
    )
    many = made([-2.0, 0.0], [2.0, 0.0], [lead(4, 0) if i % 2 else lead(0, 4) for i in range(8)])
    assert "; and so on, 8 stretches in all." in pair_patching.in_words(many, 1, 2)


def test_outputs_that_are_alike_have_no_way_between_them():
    found = made([1.0], [1.01], [[[1.5], [0.2]]], "stsb")
    assert pair_patching.in_words(found, 1, 2) == (
        "The output is nearly the same in both inputs (0.010 apart), so there is no way between them to go. Most of "
        "all, one state moves it by −0.800: entering layer 0, at **t1** (token 1)."
    )
    fig = pair_patching.heatmap(found, 1, 2)
    assert "of the way" not in fig.data[0].customdata[0][0]


def test_cells_say_what_happens_there():
    layers = [[[0.5, 0.0], [-2.0, 0.0], [np.nan, np.nan]]]
    found = made([-2.0, 0.0], [2.0, 0.0], layers, donors=("t0", "<b>", None), rerouted=np.array([[3, 0, 0]]))
    fig = pair_patching.heatmap(found, 1, 2)
    first, second, third = fig.data[0].customdata[0]
    assert "change +2.500, to +0.500 (62% of the way)" in first
    assert "answer: negative" in first
    assert first.endswith("routed layers in which others take other experts: 3")
    assert "change −" not in second
    assert "change 0.000, to −2.000 (0% of the way)" in second
    assert "<b>&lt;b&gt;</b>" in second
    assert third == ""
    assert list(fig.layout.xaxis.ticktext) == ["t0", "t1 (&lt;b&gt;)", "t2"]
    assert len(fig.data) == 2  # the map, and a cross where the answer changes
    said = fig.layout.title.subtitle.text
    assert "logits, negative less positive: −2.000 (input 1), +2.000 (input 2)" in said.replace("<br>", " ")
    assert "blank: input 2 has no token there (1 of 3)" in said
