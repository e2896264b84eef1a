"""Every page with a model that labels words or marks answers: scores, usage, the lab, and what can't be shown is said."""

import json
from io import StringIO

import pandas as pd
import pytest

from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.sources import from_table
from shrp.model.config import ShrpConfig
from tests import test_spans, test_words
from tests.app.helpers import specs, texts_of, upload
from ui import data_sources
from ui.overview import answers_table
from ui.pair_tabs import CHANGED, LOST, THRESHOLD
from ui.training_data import exported


@pytest.fixture
def saved(tmp_path, tiny_routed, tiny_tokenizer):
    """A factory of folders of routed models: `saved("words")` labels words, `saved("spans")` marks answers."""

    def save(kind, routing="sequence"):
        routed = tiny_routed(routing=routing)
        model = test_spans.marker(routed) if kind == "spans" else test_words.tagger(routed)
        task = test_spans.TASK if kind == "spans" else test_words.TASK
        info = CheckpointInfo(ShrpConfig((1, 2), routing, 1, expander_gain=1.0), task, base_model="a tiny one")
        return checkpoints.save(model, tiny_tokenizer, info, tmp_path / "checkpoints" / kind)

    return save


@pytest.mark.parametrize(
    ("kind", "rows", "metric"),
    [("words", test_words.made(60), "entity F1"), ("spans", test_spans.made(60), "answer F1")],
    ids=("words", "spans"),
)
def test_overview_usage_and_lab_work_on_a_table(open_page, saved, kind, rows, metric):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    at = upload(open_page("overview", saved(kind)), "table", "mine.jsonl", content)
    at = at.button(key="own-look").click().run()
    assert not at.error
    data = at.session_state[data_sources.OWN_DATA]
    assert data.task.on_tokens
    assert len(data) == 60
    assert any(metric in one.label for one in at.metric)
    at.session_state[answers_table.WHICH] = answers_table.WRONG
    assert not at.run().error
    at.switch_page("pages/expert_usage.py").run()
    assert not at.error
    assert specs(at)
    assert metric in texts_of(at)  # without the expert
    for tab in ("What drives routing", "Importance"):
        at.session_state["view"] = tab
        assert not at.run().error
        assert at.info
    at.switch_page("pages/pruning_lab.py").run()
    at.slider[0].set_value(3).run()
    assert not at.error
    assert "3 of 8 experts" in texts_of(at)
    for tab in (LOST, CHANGED, THRESHOLD):
        at.session_state["lab_tab"] = tab
        assert not at.run().error
    assert at.info  # no threshold
    again = from_table(pd.read_json(StringIO(exported({"own": data})["own"]), lines=True), "own", data.task)
    assert len(again) == 60
    if kind == "spans":
        assert again.labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("routing", ["sequence", "token"])
@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [("words", "w1 w2 w40\nw3", ("w1", "w2", "w40")), ("spans", "w1 w12 ||| w11 <i> w12 w13", ("<mark",))],
    ids=("words", "spans"),
)
def test_routing_marks_words_in_the_text(open_page, saved, routing, kind, text, shown):
    at = open_page("routing", saved(kind, routing), text=text)
    assert not at.error
    (table,) = [one.proto.body for one in at.get("html") if "<table" in one.proto.body]
    assert all(part in table for part in shown)
    assert "<i>" not in table
    assert [tab.label for tab in at.tabs] == ["Route and what-if"] * (routing == "token") + ["Attention"]
    if routing == "token":
        assert len(specs(at)) == 1
