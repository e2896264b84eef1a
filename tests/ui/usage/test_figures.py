import numpy as np
import pytest

from shrp.evaluation.statistics import mix_frame
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
