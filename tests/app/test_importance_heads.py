"""Heads of dense layers on Expert usage: what is shown is what the library finds, and all of it is of heads."""

import json

import numpy as np
import pytest
from ui.attribution.data import KINDS

from shrp.analysis import importance
from shrp.analysis.importance import blocks, head_knock_outs
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from tests.app.helpers import specs, texts_of, upload, values
from ui.store import results

LINK = {"on_data": "true"}


def the_table(at):
    return next(frame.value for frame in at.dataframe if "mean size" in frame.value)


def the_map(at):
    return next(s for s in specs(at) if s["layout"]["title"]["text"].startswith("Mean effect of each"))


def section(at):
    """All that the section says, draws and offers, with the names of files and the words for those who can't see."""
    parts = [node for node in at.main if hasattr(node, "proto")]
    (start,) = [i for i, node in enumerate(parts) if "over many inputs" in str(getattr(node, "value", ""))]
    frames = [" ".join(node.value) for node in parts[start:] if node.type == "dataframe"]
    return "\n".join([*(str(node.proto) for node in parts[start:]), *frames])


@pytest.fixture
def dense(save_tiny):
    return save_tiny("plain", layers=())


def test_a_dense_checkpoint_is_about_heads_at_once(open_page, dense):
    at = open_page("expert_usage", dense, **LINK, data_inputs_heads="32")
    assert not at.exception
    assert not at.error
    assert "Heads over many inputs" in [header.value for header in at.header]
    assert "knock_out" not in [picker.key for picker in at.segmented_control]
    loaded = checkpoints.load(dense)
    data = load_probe("sst2")
    rows = next(blocks(data, 32))
    found = head_knock_outs(loaded.model, loaded.tokenizer, data, rows).table(data, None)
    shown = the_table(at)
    assert shown["head"].tolist() == [0, 1, 2, 3] * 3
    np.testing.assert_allclose(shown["mean effect"], found["signed"], atol=1e-5)
    np.testing.assert_allclose(shown["mean size"], found["effect"], atol=1e-5)
    assert (shown["its 95% interval"] != "not known").all()
    drawn = the_map(at)
    np.testing.assert_allclose(
        values(drawn["data"][0]["z"]), found["signed"].to_numpy().reshape(3, 4), atol=1e-5
    )
    assert "its output set to 0" in drawn["layout"]["title"]["subtitle"]["text"]
    assert drawn["layout"]["xaxis"]["title"]["text"] == "head"
    by = next(frame.value for frame in at.dataframe if "elsewhere" in frame.value)
    assert {"layer", "head", "group"} <= set(by)
    assert len(by.drop_duplicates(["layer", "head"])) == 12
    words = section(at)
    assert words.count("plain-heads-32-") == 2
    assert "Heatmap, layers by heads" in words
    assert "layer head group n lost elsewhere difference q" in words
    for no in ("expert", "Expert", "usage", "used by", "router"):
        assert no not in words


def test_without_a_number_64_inputs_are_taken_and_more_go_on_from_them(open_page, dense, monkeypatch):
    results.clear()
    runs = []

    def noting(model, tokenizer, data, rows, **options):
        runs.append(len(rows))
        return head_knock_outs(model, tokenizer, data, rows, **options)

    monkeypatch.setattr(importance, "head_knock_outs", noting)
    at = open_page("expert_usage", dense, **LINK)
    assert "n = 64 of" in json.dumps(the_map(at), ensure_ascii=False)
    assert runs == [32, 32]
    at.select_slider(key="data_inputs_heads").set_value(128).run()
    assert not at.exception
    assert runs == [32] * 4


def test_of_a_partly_converted_one_experts_or_heads_are_picked(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, **LINK, data_inputs="32", data_inputs_heads="32")
    picker = at.segmented_control(key="knock_out")
    assert (picker.label, picker.options, picker.value) == ("Knock out", list(KINDS), KINDS[0])
    assert "Experts over many inputs" in texts_of(at)
    experts = the_table(at)
    assert "usage" in experts
    picker.set_value(KINDS[1]).run()
    assert not at.exception
    assert "Is usage a good signal?" not in texts_of(at)
    assert "knocked_out" not in [one.key for one in at.segmented_control]
    assert the_table(at)[["layer", "head"]].to_numpy().tolist() == [[0, head] for head in range(4)]
    assert "Every head of the dense layers" in texts_of(at)
    at.segmented_control(key="knock_out").set_value(KINDS[0]).run()
    assert the_table(at).equals(experts)
    linked = open_page("expert_usage", tiny_checkpoint, **LINK, knock_out=KINDS[1], data_inputs_heads="32")
    assert "head" in the_table(linked)
    odd = open_page("expert_usage", tiny_checkpoint, **LINK, knock_out="zebra", data_inputs="32")
    assert not odd.exception
    assert "Experts over many inputs" in texts_of(odd)


def test_without_routers_the_dense_layers_still_have_heads(open_page, tiny_static_checkpoint, save_tiny):
    for folder in (tiny_static_checkpoint,):
        at = open_page("expert_usage", folder, **LINK, data_inputs_heads="32")
        assert not at.exception
        assert "no routers, so no expert can be knocked out, but heads of dense layers can" in texts_of(at)
        assert set(the_table(at)["layer"]) == {0}
    at = open_page("expert_usage", save_tiny("routed", layers=(0, 1, 2)), **LINK, knock_out=KINDS[1])
    assert not at.exception
    assert "Experts over many inputs" in texts_of(at)
    assert "usage" in the_table(at)


def test_few_inputs_and_no_labels(open_page, dense):
    at = open_page("expert_usage", dense)
    assert "n = " not in "".join(chart.proto.spec for chart in at.get("plotly_chart")[1:])
    rows = "".join(f"w{i} w{i % 5}\n" for i in range(4))
    upload(at, "table", "few.csv", f"sentence\n{rows}".encode())
    at.toggle(key="on_data").set_value(True).run()
    assert not at.exception
    said = texts_of(at)
    assert "On all of the 4 inputs" in said
    assert "what a head is worth to them can't be told" in said
    assert not any("lost" in column for column in the_table(at))


def test_regression(open_page, save_tiny):
    folder = save_tiny("numbers", layers=(), task="stsb", num_labels=1)
    at = open_page("expert_usage", folder)
    rows = "".join(f"w{i} w2,w{i + 1},{i / 3}\n" for i in range(12))
    upload(at, "table", "pairs.csv", f"sentence1,sentence2,label\n{rows}".encode())
    at.toggle(key="on_data").set_value(True).run()
    assert not at.exception
    assert not at.error
    assert the_map(at)["layout"]["title"]["text"] == "Mean effect of each head on the output"
    assert "flips" not in the_table(at)
