"""Every page with a model that answers questions: scores, usage and the lab work, and the answer is marked in the text."""

import json
from io import StringIO

import pandas as pd
import pytest

from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.sources import from_table
from shrp.model.config import ShrpConfig
from tests.app.helpers import specs, texts_of, upload
from tests.app.test_words import sound
from tests.test_spans import TASK, made, marker
from ui import data_sources
from ui.overview import answers_table
from ui.pair_tabs import CHANGED, LOST, THRESHOLD
from ui.training_data import exported


@pytest.fixture
def answering(tmp_path, tiny_routed, tiny_tokenizer):
    def save(routing="sequence"):
        info = CheckpointInfo(ShrpConfig((1, 2), routing, 1, expander_gain=1.0), TASK, base_model="a tiny one")
        model = marker(tiny_routed(routing=routing))
        return checkpoints.save(model, tiny_tokenizer, info, tmp_path / "checkpoints" / "answering")

    return save


def with_data(at):
    content = "".join(json.dumps(row) + "\n" for row in made(60)).encode()
    return upload(at, "table", "questions.jsonl", content).button(key="own-look").click().run()


def test_overview_usage_and_lab_work_on_a_table_of_questions(open_page, answering):
    at = with_data(open_page("overview", answering()))
    assert sound(at)
    data = at.session_state[data_sources.OWN_DATA]
    assert data.task.on_spans
    assert any("answer F1" in one.label for one in at.metric)
    at.session_state[answers_table.WHICH] = answers_table.WRONG
    assert sound(at.run())
    at.switch_page("pages/expert_usage.py").run()
    assert sound(at)
    assert specs(at)
    for tab in ("What drives routing", "Importance"):
        at.session_state["view"] = tab
        assert sound(at.run())
        assert at.info
    at.switch_page("pages/pruning_lab.py").run()
    at.slider[0].set_value(3).run()
    assert sound(at)
    assert "3 of 8 experts" in texts_of(at)
    for tab in (LOST, CHANGED, THRESHOLD):
        at.session_state["lab_tab"] = tab
        assert sound(at.run())
    assert at.info  # no threshold
    again = from_table(pd.read_json(StringIO(exported({"own": data})["own"]), lines=True), "own", TASK)
    assert again.labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_routing_marks_the_answer_in_the_text(open_page, answering, routing):
    at = open_page("routing", answering(routing), text="w1 w12 ||| w11 <i> w12 w13")
    assert sound(at)
    (table,) = [one.proto.body for one in at.get("html") if "<table" in one.proto.body]
    assert "<mark" in table
    assert "<i>" not in table
    assert [tab.label for tab in at.tabs] == ["Route and what-if"] * (routing == "token") + ["Attention"]
