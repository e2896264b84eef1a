"""Figures of Expert usage and of Overview, and the numbers in cells, of numbers made by hand."""

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.colors import hex_to_rgb, sample_colorscale, unlabel_rgb

from shrp.evaluation.statistics import mix_frame
from shrp.pruning.plan import LayerPlan, PruningPlan
from ui.lab.kept import expert_map
from ui.overview.score_figures import history_alt, history_frame, readable, training_history
from ui.theme import BACKGROUND, BLACK, DIVERGING, FOREGROUND, SEQUENTIAL, write_numbers
from ui.usage.figures import mix_bars
from ui.usage.map import usage_heatmap
from ui.usage.training import counted_on, training_frame, usage_over_training

VALUES = np.array([[0.5, 0.3, 0.2], [0.0, 1.0, np.nan]])
COUNTS = np.array([[5, 3, 2], [0, 9, 0]])


def draw(values=VALUES, layers=(4, 7), selected=(7, 1)):
    return usage_heatmap(values, COUNTS[: len(values)], layers, "n = 9", "examples", selected)


def test_an_invisible_marker_lies_over_every_cell():
    heat, points, *_ = draw().data
    assert heat.hoverinfo == "skip"
    assert points.marker.opacity == points.unselected.marker.opacity == 0
    assert [tuple(cell) for cell in points.customdata] == [(la, e) for la in (4, 7) for e in range(3)]
    assert list(zip(points.y, points.x)) == [(str(la), e) for la in (4, 7) for e in range(3)]
    assert "50.0%" in points.hovertext[0]
    assert "5 examples" in points.hovertext[0]
    assert "not known" in points.hovertext[-1]


def test_the_chosen_cell_is_outlined():
    edge, box = draw().layout.shapes
    assert (box.x0, box.x1, box.y0, box.y1) == (edge.x0, edge.x1, edge.y0, edge.y1) == (0.5, 1.5, 0.5, 1.5)
    assert edge.line.color == "white"  # around it: red alone is lost without red and green
    assert edge.line.width > box.line.width


def test_all_nan_and_all_zero_maps_can_be_drawn():
    for values in (np.full((1, 3), np.nan), np.zeros((1, 3))):
        assert draw(values, (0,), (0, 1)).data[0].zmax > 0


def test_mixes_compare_with_the_base_rate():
    mine, everything = np.array([1, 0, 1, 1]), np.ones(4, dtype=int)
    groups = {"a": np.array([True, True, False, False]), "b": np.array([False, False, True, True])}
    fig = mix_bars(mix_frame(mine, everything, groups), what="class", unit="examples", total=3)
    assert list(fig.data[0].x) == pytest.approx([100 / 3, 200 / 3])
    assert list(fig.data[1].x) == [50, 50]
    assert "33.3% of this expert's examples (1 of 3)" in fig.data[0].hovertext[0]
    assert fig.layout.yaxis.type == "category"  # groups called 1 and 2 are no numbers


HISTORY = [
    {"epoch": 0, "stage": 1, "usage": {"2": [0.5, 0.5]}},
    {"epoch": 1, "stage": 2, "usage": {"2": [1.0, 0.0], "11": [0.9, 0.1]}},
    {"epoch": 2, "stage": 2, "usage": {}},
]


def test_training_usage_is_one_row_a_layer_expert_and_epoch():
    frame = training_frame(HISTORY)
    assert len(frame) == 6
    assert sorted(frame["layer"].unique()) == [2, 11]  # numbers, not names in the order of letters
    panels = usage_over_training(frame, subtitle="")
    assert len(panels.data) == 2
    assert [a.text for a in panels.layout.annotations] == ["layer 2", "layer 11"]
    assert training_frame([]).empty
    frame = training_frame([*HISTORY, {"epoch": 1, "stage": 2, "usage": {"2": [0.25, 0.75]}}])
    assert len(frame) == 6  # of an epoch that is stored twice the later usage counts
    assert frame.loc[(frame["epoch"] == 1) & (frame["layer"] == 2), "share"].tolist() == [0.25, 0.75]


def test_usage_over_training_says_what_it_was_counted_on():
    on_texts = {"epoch": 0, "stage": 1, "texts": 2500, "usage": {"2": [0.5, 0.5]}}
    after = {"epoch": 2, "stage": 2, "validation_n": 1043, "usage": {"2": [0.1, 0.9]}}
    said = counted_on(training_frame([on_texts, on_texts | {"epoch": 1, "texts": 20_000}, after]), "mine")
    assert all(part in said for part in ("epoch 1", "2,500 to 20,000", "mine, n = 1,043"))
    assert counted_on(training_frame([after]), "mine") == "on mine, n = 1,043"
    assert "mine" not in counted_on(training_frame([on_texts]), "mine")


# Overview: the history of a training


@pytest.mark.parametrize(
    ("metric", "score", "interval", "said"),
    [
        ("accuracy", 0.907, [0.886, 0.924], "90.7% (95%: 88.6–92.4%)"),
        ("matthews", 0.35, [0.285, 0.414], "0.350 (95%: 0.285–0.414)"),
        ("matthews", 0.35, None, "0.350"),
    ],
)
def test_an_epochs_hover_has_the_digits_of_its_metric(metric, score, interval, said):
    epoch = {"epoch": 0, "stage": 1, "converted_layer": 2, "loss": 0.5, "metric": metric}
    scored = {"validation_score": score, "validation_interval": interval, "validation_n": 872}
    fig = training_history(history_frame([epoch | scored]), data="glue/x validation", teacher_score=None)
    assert fig.data[0].hovertext == (f"epoch 0, stage 1, layer 2 converted<br>{said}",)


@pytest.mark.parametrize("unscored", [[], [{"epoch": 1, "stage": 2}]])
def test_a_history_is_drawn_with_the_scores_that_it_has(unscored):
    scored = {"epoch": 0, "stage": 2, "metric": "f1", "validation_score": 0.5, "validation_n": 872}
    history = [scored, *unscored]
    fig = training_history(history_frame(history), data="glue/x validation", teacher_score=None)
    assert "n = 872" in fig.layout.title.text + str(fig.layout.title.subtitle.text)
    assert history_alt(history).endswith("epochs; the last score is 50.0%.")


def test_epochs_of_which_nothing_else_is_known_are_drawn():
    history = [{"epoch": 0, "stage": 1}, {"epoch": 1, "stage": 2}]
    fig = training_history(history_frame(history), data="mine", teacher_score=None)
    assert [note.text for note in fig.layout.annotations] == ["stage 1", "stage 2"]
    assert "without a validation score" in history_alt(history)


def test_stored_labels_are_read_in_the_words_of_the_app():
    assert readable("static, 2 a layer, recovered") == "pruned, 2 a layer, fine-tuned"
    assert readable("layers dropped, 5 epochs") == "layer dropping, 5 epochs"
    assert readable("random experts, 2 a layer") == "random experts, 2 a layer"


# Numbers in cells: they stand out from every colour of every scale, once each, and nothing else changes


def contrast(one, two):
    """After WCAG 2.2, of two colours of 0 to 255."""
    lights = []
    for color in (one, two):
        parts = np.asarray(color) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize(("scale", "ink"), [(SEQUENTIAL, FOREGROUND), (DIVERGING, BLACK)])
def test_every_number_stands_out(scale, ink):
    z = np.linspace(-3, 3, 60).reshape(6, 10)
    fig = go.Figure(go.Heatmap(z=z, colorscale=scale, zmin=-3, zmax=3, texttemplate="%{z}"))
    write_numbers(fig)
    cells, *both = fig.data
    assert cells.texttemplate is None
    colors = [(p, "#ffffff" if c == BACKGROUND else c) for p, c in cells.colorscale]  # as in the light theme
    stops = [[p, "rgb({}, {}, {})".format(*hex_to_rgb(c))] for p, c in colors]
    written = 0
    for numbers, painted in zip(both, ((0, 0, 0), (255, 255, 255)), strict=True):
        shown = numbers.z[np.isfinite(numbers.z)]
        written += len(shown)
        for mixed in sample_colorscale(stops, ((shown + 3) / 6).tolist()):
            assert contrast(unlabel_rgb(mixed), painted) >= 4.5
    assert written == z.size
    assert both[0].textfont.color == ink


def test_every_kept_expert_of_a_map_has_a_number():
    fig = expert_map(PruningPlan(((1, LayerPlan((0, 1, 2), (0.0, 0.004, 0.996))),)), 4, "")
    written = {text for trace in fig.data if trace.text is not None for text in np.ravel(trace.text)}
    assert written == {"", "0", "<1", "100"}
