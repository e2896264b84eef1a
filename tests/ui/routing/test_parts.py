"""What the Routing page says and draws, of results that are made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.analysis.attribution import instance, tokens
from shrp.analysis.explore import Exploration, WhatIf
from shrp.analysis.patching import Patched
from shrp.data.tasks import TASKS, TEXTS
from shrp.model.forcing import AS_ROUTED, ForcedRoute
from ui.routing import compare, figures, table, verdict, what_if

SST2, STSB = TASKS["sst2"], TASKS["stsb"]


def exploration(text="a <b>bold</b> film", token=False, seed=0, task=SST2, layers=(6, 9)):
    rng = np.random.default_rng(seed)
    read = ("[CLS]", *text.split(), "[SEP]")
    shape = (len(read), 4) if token else (4,)
    probs = {layer: rng.dirichlet(np.ones(4), size=shape[:-1] or None).astype(np.float32) for layer in layers}
    logits = rng.normal(size=task.num_labels)
    return Exploration(task, (text,), read, len(read), logits, probs)


def top_two(e):
    """The same with two experts a layer."""
    least = {layer: np.sort(p, axis=-1)[..., -2, None] for layer, p in e.probs.items()}
    return replace(e, gates={layer: np.where(p >= least[layer], p, 0) for layer, p in e.probs.items()})


def grid(change, base=(0.0, 1.0), task=SST2, route=AS_ROUTED):
    """A grid of two layers of four experts, of which one changes the last logit."""
    logits = np.tile(np.array(base), (2, 4, 1))
    for (layer, expert), value in change.items():
        logits[layer, expert, -1] += value
    return WhatIf(task, (6, 9), np.array(base), logits, route)


def without(outputs, texts=("good", "film"), full=(0.0, 2.0)):
    made = tuple(instance.Word(text, 0, (i,), (5 * i, 5 * i + 4)) for i, text in enumerate(texts))
    return tokens.Without(made, "word", np.array(full), np.array(outputs), None)


# The verdict


def test_the_verdict_names_the_word_and_the_layer_that_decide():
    e = replace(exploration(), logits=np.array([0.0, 2.0]))
    flipped = without([[1.0, 0.0], [0.0, 1.9]])
    assert flipped.decisive == 0
    said = verdict.headline(e, flipped, grid({(1, 2): -0.5}), routed=True)
    assert said.startswith("**positive** (88.1%)")
    assert "**good**" in said
    assert "**negative**" in said
    assert "layer 9" in said
    surer = without([[0.0, 2.1], [0.0, 2.4]])
    assert not surer.weakened
    assert "**good**" not in verdict.headline(e, surer, None, routed=False)
    changed = verdict.headline(e, None, grid({(0, 3): -4.0}), routed=True)
    assert "expert 3" in changed  # in layer 6 it gives another prediction
    assert "**negative**" in changed
    said = verdict.headline(e, without([[0.0, 1.0], [0.0, 1.9]]), None, routed=False)
    assert "**negative**" not in said  # no word changes it by itself
    assert "73.1%" in said  # what is left without one
    assert "layer" not in said


@pytest.mark.parametrize(("task", "named"), [(STSB, True), (TEXTS, False)])
def test_of_a_number_the_word_that_moves_it_most_is_named(task, named):
    e = replace(exploration(task=STSB), task=task, logits=np.array([3.2]))
    said = verdict.headline(e, without([[3.1], [0.4]], full=[3.2]), None, routed=False)
    assert ("**film**" in said) == named
    assert ("3.2" in said.replace("\\", "")) == named


# The table


def test_strips_are_coloured_within_each_layer_and_texts_are_escaped():
    one, other = exploration(seed=0), exploration("another <i>one</i>", seed=1)
    html = table.routes_html([("1", one.text[0], one), ("2", other.text[0], other)], one, first="", alt="x")
    assert "<i>" not in html
    assert "&lt;i&gt;" in html
    rows = html.split("<tbody>")[1].split("</tr>")
    orange = [cell.count("font-weight:700") for cell in rows[:2]]
    differ = sum(one.choice(layer) != other.choice(layer) for layer in one.layers)
    assert orange == [0, differ]
    assert differ  # else these two are no test of it
    assert f"{differ} of 2" in table.agreement([one, other])
    assert "all 2" in table.agreement([one, one])


@pytest.mark.parametrize(("token", "k"), [(False, 1), (False, 2), (True, 1)])
def test_a_strip_names_all_experts_that_an_input_takes(token, k):
    e = exploration(token=token)
    e = top_two(e) if k == 2 else e
    html = table._box(e, e, 6)
    shown = html.split(">")[1].split("<")[0].split(", ")
    assert int(shown[0]) == e.choice(6)
    assert len(shown) == k
    assert len(table.taken(e, 6)) == k


def test_what_is_not_read_is_said():
    def notes(*sizes, trained):
        made = [Exploration(SST2, ("t",), ("a",) * read, full, np.zeros(2), {}) for read, full in sizes]
        return table.reading_notes(made, trained)

    assert notes((128, 128), trained=128) == []
    (longer,) = notes((10, 10), (129, 129), trained=128)
    assert all(number in longer for number in ("128", "sentence 2"))
    cut, _ = notes((512, 900), (512, 513), trained=200)
    assert all(number in cut for number in ("512", "sentences 1, 2"))


# What if


def test_the_what_if_map_is_symmetric_and_blank_where_nothing_changes():
    e = exploration()
    fig = what_if.what_if_heatmap(grid({(0, 1): -2.0, (1, 3): 0.5}), e, 1)
    heat = fig.data[0]
    assert (heat.zmin, heat.zmax) == (-2, 2)
    assert heat.text[0][1] == "−2.0"
    assert heat.text[1][0] == ""
    crosses = [trace for trace in fig.data if trace.type == "scatter" and trace.marker.symbol == "x"]
    assert len(crosses[0].x) == 1  # of the one that flips
    cells = [trace for trace in fig.data if trace.customdata is not None][-1].customdata
    assert [tuple(cell) for cell in cells] == [(layer, expert) for layer in (6, 9) for expert in range(4)]
    forced = what_if.what_if_heatmap(grid({(0, 1): -2.0}, route=ForcedRoute.parse("6.2")), e, 1)
    assert any(trace.type == "scatter" and trace.marker.symbol == "diamond" for trace in forced.data)


def test_the_token_map_colours_within_a_layer_and_moves_through_long_texts():
    e = exploration(token=True)
    fig = what_if.token_map(e)
    signs = np.sign(np.asarray(fig.data[0].z))
    for row, layer in enumerate(e.layers):
        assert ((e.taken(layer) == e.choice(layer)) == (signs[row] < 0)).all()
    assert fig.layout.xaxis.ticktext[2] == "&lt;b&gt;bold&lt;/b&gt;"
    long = what_if.token_map(exploration("word " * 100, token=True))
    assert tuple(long.layout.xaxis.range) == (-0.5, 39.5)
    assert long.layout.dragmode == "pan"


@pytest.fixture
def session(monkeypatch):
    """A session of its own for callbacks that are called by hand."""
    state, params = {}, {}
    monkeypatch.setattr(what_if.st, "session_state", state)
    monkeypatch.setattr(what_if, "set_param", lambda name, value: params.update({name: value}))
    return state, params


def test_a_click_forces_the_pickers_follow_and_a_second_click_releases(session):
    state, params = session
    found = what_if.Forcing()

    def click(layer, expert):
        point = {"customdata": {"0": layer, "1": expert}}
        state[what_if.GRID] = {"selection": {"points": [point]}}
        what_if.click_cell(found)
        return params[what_if.URL], state[what_if.LAYER], state[what_if.EXPERT]

    assert click(2, 3) == ("2.3", 2, 3)
    assert click(1, 0) == ("1.0_2.3", 1, 0)
    assert click(2, 3) == ("1.0", 2, 3)
    state[what_if.GRID] = {"selection": {"points": []}}
    what_if.click_cell(found)
    assert found.route.text == "1.0"


def test_what_does_not_fit_the_model_is_released_and_it_says_so(session):
    found = what_if.Forcing(ForcedRoute.parse("6.0_9.3"))
    found.meet(exploration(), 4)
    assert (found.route.text, found.notice) == ("6.0_9.3", "")
    found.meet(exploration(layers=(9,)), 4)
    assert found.route.text == session[1][what_if.URL] == "9.3"
    assert found.notice


# Words


def test_colored_words_are_escaped_and_signed():
    made = (instance.Word("<b>&", 0, (1,)), instance.Word("good", 1, (2,)), instance.Word("meh", 1, (3,)))
    scores = tokens.WordScores("word ablation", made, np.array([-2.0, 1.0, 0.01]), 0.0)
    html = figures.colored_words(scores, ("premise", "hypothesis"))
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;: −2.000" in html
    assert html.count("dotted") == html.count("solid") == 1
    assert html.index("premise") < html.index("&lt;b&gt;") < html.index("hypothesis") < html.index("good")
    assert html.count('dir="auto"') == 4  # each text, and each name, runs as its own words do


# Two sentences


def patched(own, other, logits, task=SST2, donors=None, rerouted=None, left=()):
    logits = np.array(logits, dtype=float)
    names = tuple(f"t{i}" for i in range(logits.shape[1]))
    return Patched(task, names, donors or names, left, np.array(own), np.array(other), logits, rerouted)


def lead(*moved):
    """Logits of two classes, starting from a lead of -2, of one layer."""
    return [[-2.0 + each, 0.0] for each in moved]


def test_runs_of_layers_are_named_by_the_token_that_moves_most():
    layers = [lead(0, 4, 0), lead(0, 3, 1), lead(0.1, 0.2, 0.1), lead(2, 0.5, 0)]
    said = compare.in_words(patched([-2.0, 0.0], [2.0, 0.0], layers, donors=("t0", "x", "t2")), 2)
    assert "layers 0 to 1: at **t1**" in said
    assert "**x**" in said
    assert "layer 2: none" in said
    assert "layer 3: at **t0** (token 0, 50%" in said
    none = compare.in_words(patched([-2.0, 0.0], [2.0, 0.0], [lead(0.1, -3)]), 2)
    assert "**t" not in none
    close = patched([1.0], [1.01], [[[1.5], [0.2]]], STSB)
    assert "−0.800" in compare.in_words(close, 2)
    assert "%" not in compare.heatmap(close, 1, 2).data[0].hovertext[0][0]


def test_cells_say_what_happens_there():
    layers = [[[0.5, 0.0], [-2.0, 0.0], [np.nan, np.nan]]]
    found = patched(
        [-2.0, 0.0], [2.0, 0.0], layers, donors=("t0", "<b>", None), rerouted=np.array([[3, 0, 0]])
    )
    fig = compare.heatmap(found, 1, 2)
    first, second, third = fig.data[0].hovertext[0]
    assert "+2.500, to +0.500 (62%" in first
    assert "negative" in first
    assert first.endswith("3")
    assert "<b>&lt;b&gt;</b>" in second
    assert third == ""
    assert list(fig.layout.xaxis.ticktext) == ["t0", "t1 (&lt;b&gt;)", "t2"]
    assert len(fig.data) == 2  # the map, and a cross where the prediction changes
