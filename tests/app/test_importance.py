"""Importance of experts on a data set: every one knocked out, on Expert usage."""

import json

import numpy as np
import pandas as pd
import pytest
from ui.attribution import where

from tests.app.helpers import specs, texts_of, upload


def tables(at):
    return [frame.value for frame in at.dataframe]


@pytest.fixture
def page(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    assert not at.exception
    return at


def test_a_data_set_shows_usage_against_effect(page):
    page.toggle(key="on_data").set_value(True).run()
    assert not page.exception
    assert not page.error
    said = texts_of(page)
    assert "by construction" in said
    assert "which is few" in said
    ranks = next(frame for frame in tables(page) if "Spearman ρ" in frame and "layer" in frame)
    assert ranks["layer"].tolist() == [1, 2]
    everything = next(frame for frame in tables(page) if "mean size where used" in frame)
    assert len(everything) == 8
    assert everything["its 95% interval where used"].str.contains(" to ").any()
    assert everything.groupby("layer")["usage"].sum().tolist() == pytest.approx([100, 100])
    assert sum("n = 128 of" in chart.proto.spec for chart in page.get("plotly_chart")) == 3


def test_of_few_inputs_there_is_no_number_to_pick(page):
    rows = "".join(f"w{i} w{i % 5},{'positive' if i % 2 else 'negative'}\n" for i in range(12))
    upload(page, "table", "few.csv", f"sentence,label\n{rows}".encode())
    page.toggle(key="on_data").set_value(True).run()
    assert not page.exception
    assert "On all of the 12 inputs" in texts_of(page)
    assert "data_inputs" not in [slider.key for slider in page.get("select_slider")]


def test_which_experts_matter_for_which_inputs(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, on_data="true", data_inputs="32")
    picker = at.segmented_control(key="matters_by")
    assert picker.options == ["class", "slice", "length"]
    assert picker.value == "slice"

    def drawn(at):
        assert not at.exception
        return next(s for s in specs(at) if s["layout"]["title"]["text"].startswith("Mean margin"))

    by_slice = drawn(at)
    table = next(frame for frame in tables(at) if {"elsewhere", "uses"} <= {*frame})
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
    at = open_page("expert_usage", tiny_checkpoint, on_data="true", data_inputs="32", **{key: value})
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
    link = {"on_data": "true", "rank_by": "score lost", "source": "glue"}
    folder = save_tiny("numbers", task="stsb", num_labels=1)
    at = open_page("expert_usage", folder, data_dir=tmp_path / "data", **link)
    assert not at.exception
    assert said in texts_of(at)
    assert "flipped predictions" not in texts_of(at)
    assert "no labels" not in texts_of(at)


def test_a_lost_accuracy_is_in_points_with_its_interval(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, on_data="true", data_inputs="32")
    element = next(frame for frame in at.dataframe if "mean size where used" in frame.value)
    formats = json.loads(element.proto.columns)
    assert formats["accuracy lost (points)"]["type_config"]["format"] == "%+.2f"
    frame = element.value
    assert (frame["accuracy lost (points)"] * 0.32 % 1).round(6).isin([0, 1]).all()  # of 32 inputs
    assert frame["its interval (points)"].str.fullmatch(r"[+-]\d+\.\d\d to [+-]\d+\.\d\d").all()


@pytest.mark.parametrize("paired", [False, True])
def test_of_minimal_pairs_it_is_said_that_each_counts_once(paired):
    frame = pd.DataFrame({"group": ["a", "b"], "p": [np.nan, np.nan]})
    said = where._said(frame[:0], frame, "margin", paired)
    assert said.startswith("No expert is used by 5 of these inputs")
    assert ("(a minimal pair counts once)" in said) == paired
