"""Every page with a model that labels words: scores, usage and the lab work, and what can't be shown is said."""

import json

import pytest
import torch
from transformers import AutoModelForTokenClassification

from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.tasks import WORDS, custom_task
from shrp.model.config import ShrpConfig
from tests.app.helpers import specs, texts_of, upload
from tests.test_words import TAGS, made
from ui import data_sources
from ui.pair_tabs import CHANGED, LOST, THRESHOLD


@pytest.fixture
def tagger(tmp_path, tiny_routed, tiny_tokenizer):
    """A factory of folders of routed taggers."""

    def save(routing="sequence"):
        encoder = tiny_routed(routing=routing).base_model
        encoder.config.num_labels, encoder.pooler = 5, None
        torch.manual_seed(0)
        model = AutoModelForTokenClassification.from_config(encoder.config)
        model.bert = encoder
        config = ShrpConfig((1, 2), routing, 1, expander_gain=1.0)
        info = CheckpointInfo(config, custom_task("ner", ("tokens",), TAGS, kind=WORDS), base_model="a tiny one")
        return checkpoints.save(model, tiny_tokenizer, info, tmp_path / "checkpoints" / "tagger")

    return save


def with_data(at, n=60):
    content = "".join(json.dumps(row) + "\n" for row in made(n)).encode()
    return upload(at, "table", "sentences.jsonl", content).button(key="own-look").click().run()


def sound(at):
    return not at.exception and not at.error


def test_overview_scores_a_table_of_words(open_page, tagger):
    at = with_data(open_page("overview", tagger()))
    assert sound(at)
    data = at.session_state[data_sources.OWN_DATA]
    assert data.task.on_words
    assert len(data) == 60
    assert any("entity F1" in one.label for one in at.metric)


def test_expert_usage_counts_and_knocks_out(open_page, tagger):
    at = with_data(open_page("overview", tagger())).switch_page("pages/expert_usage.py").run()
    assert sound(at)
    assert specs(at)
    assert "entity F1" in texts_of(at)  # without the expert


def test_the_lab_scores_prunings_and_says_what_it_cannot(open_page, tagger):
    at = with_data(open_page("overview", tagger())).switch_page("pages/pruning_lab.py").run()
    assert sound(at)
    at.slider[0].set_value(3).run()
    assert sound(at)
    assert "entity F1" in texts_of(at)
    for tab in (LOST, CHANGED, THRESHOLD):
        at.session_state["lab_tab"] = tab
        at.run()
        assert sound(at)
    assert at.info  # no threshold


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_routing_marks_the_labelled_words(open_page, tagger, routing):
    at = open_page("routing", tagger(routing), text="w1 w2 w40\nw3")
    assert sound(at)
    (table,) = [one.proto.body for one in at.get("html") if "<table" in one.proto.body]
    assert all(word in table for word in ("w1", "w2", "w40"))
    assert [tab.label for tab in at.tabs] == ["Route and what-if"] * (routing == "token") + ["Attention"]
    if routing == "token":
        assert len(specs(at)) == 1
