"""The lab's section on when answers change, against evaluations made without it."""

import numpy as np
import pytest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.statistics import wilson
from shrp.pruning.breaking import breaking
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import report, specs, texts_of
from ui.lab import breaking as lab_breaking

TITLE = "Answers that are not the routed model's"


@pytest.fixture
def page(cache, open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint)
    assert not at.exception
    return at


@pytest.fixture
def expected(tiny_checkpoint):
    """What a sweep of all sizes by usage finds."""
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    prunings = [
        (m, evaluate(prune(loaded.model, plan_from(stats, budget=m)), loaded.tokenizer, data))
        for m in range(2, 9)
    ]
    return breaking(evaluate(loaded.model, loaded.tokenizer, data), prunings)


def the_map(at):
    return [one for one in specs(at) if one["layout"]["title"]["text"].startswith(TITLE)]


def listed(at):
    return next(frame for frame in at.dataframe if "holds from" in frame.value)


def test_a_few_sizes_tell_little_and_say_how_to_go_on(page):
    assert "try at least 3 sizes with one selection" in texts_of(page)
    assert not the_map(page)
    for size in (3, 5):
        page.slider(key="budget").set_value(size).run()
    assert not page.exception
    assert the_map(page)[0]["data"][0]["x"] == ["3", "4", "5"]


def test_a_sweep_says_of_each_input_from_where_it_holds(page, expected):
    page.button(key="sweep").click().run()
    assert not page.exception
    (drawn,) = the_map(page)
    heat = drawn["data"][0]
    assert heat["x"] == [str(size) for size in range(2, 9)]
    assert heat["y"][0] == "all (n = 480)"
    assert len(heat["y"]) == 13  # and the probe's slices
    assert np.array(heat["z"])[0] == pytest.approx(expected.changed.mean(0))
    held = int((expected.changes == 0).sum())
    low, high = wilson(held, 480)
    assert (
        f"**{100 * held / 480:.1f}% (95% interval {100 * low:.1f}–{100 * high:.1f}%)** of n = 480 inputs of probe/sst2 "
        "are answered as by the routed model at each of 7"
    ) in texts_of(page)
    shown = listed(page).value
    whole = expected.to_frame(load_probe("sst2"))
    whole = whole[whole["changes"] > 0]
    assert shown["sentence"].tolist() == whole["sentence"].tolist()
    assert shown["changes at"].tolist() == whole["changes"].tolist()
    assert shown["holds from"].fillna(-1).tolist() == whole["holds from"].fillna(-1).tolist()
    first = whole.iloc[0]
    assert shown["routed → first other answer"].iloc[0] == f"{first['answer']} → {first['becomes']}"


def test_only_prunings_that_differ_in_size_alone_are_compared(page):
    for size in (3, 5):
        page.slider(key="budget").set_value(size).run()
    page.segmented_control(key="select").set_value("Random (control)").run()
    for size in (3, 4):
        page.slider(key="budget").set_value(size).run()
    assert "random (control) 0" in the_map(page)[0]["layout"]["title"]["subtitle"]["text"]
    page.segmented_control(key="select").set_value("Usage").run()
    assert "; usage, usage weights" in the_map(page)[0]["layout"]["title"]["subtitle"]["text"].replace(
        "<br>", " "
    )


def test_a_picked_input_leads_on(page, expected):
    page.button(key="sweep").click().run()
    table = listed(page)
    report(page, table.proto.id, {"selection": {"rows": [0], "columns": [], "cells": []}})
    assert not page.exception
    first = expected.to_frame(load_probe("sst2"))["index"].iloc[0]
    assert f"Row {first} (by tiny as it is):" in texts_of(page)


def test_with_shares_matched_answers_are_those_of_the_shifted_models(page):
    page.button(key="sweep").click().run()
    plain = np.array(the_map(page)[0]["data"][0]["z"])[0]
    page.checkbox(key="sweep_matched").check().run()
    assert not page.exception
    (drawn,) = the_map(page)
    assert "answer shares matched" in drawn["layout"]["title"]["subtitle"]["text"]
    assert np.array(drawn["data"][0]["z"])[0].tolist() != plain.tolist()


@pytest.mark.parametrize("name", ["all", "a_b"])
def test_a_slice_may_have_any_name(name):
    import pandas as pd

    rows = [
        (group, 4, kept, 1, share, 0.0, 1.0)
        for group, share in (("all", 0.25), (name, 0.5))
        for kept in (2, 3)
    ]
    frame = pd.DataFrame(rows, columns=["group", "n", "kept", "changed", "share", "low", "high"])
    heat = lab_breaking.changed_map(frame, "").data[0]
    assert len(set(heat.y)) == 2
    assert [list(row) for row in heat.z] == [[0.25, 0.25], [0.5, 0.5]]


def test_a_map_of_many_sizes_keeps_both_ends():
    import pandas as pd

    frame = pd.DataFrame({"group": "all", "kept": range(6, 73), "n": 9, "changed": 1, "share": 0.1})
    kept = lab_breaking._thinned(frame)["kept"].tolist()
    assert (kept[0], kept[-1], len(kept)) == (6, 72, 24)
