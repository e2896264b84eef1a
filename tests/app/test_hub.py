"""A task whose only known data are on the hub: nothing is loaded over the network until a person asks for it."""

import pytest

from shrp.errors import DataError
from tests.app.helpers import texts_of, upload
from ui import data_sources


@pytest.fixture
def asked(monkeypatch):
    """What was loaded from the hub, which does not answer."""
    names = []

    def load(task):
        names.append(task)
        raise DataError("the hub does not answer")

    monkeypatch.setattr(data_sources, "load_glue", load)
    return names


@pytest.fixture
def folder(save_tiny):
    return save_tiny("pairs", task="qnli")


@pytest.mark.parametrize("page", ["overview", "expert_usage", "routing", "pruning_lab", "compare"])
def test_the_hub_is_never_the_default(open_page, folder, asked, page):
    at = open_page(page, folder)
    assert not at.exception
    assert at.selectbox(key="source").options == ["hub"]
    assert at.selectbox(key="source").value is None
    assert not asked
    if page != "routing":  # which shows nothing of data
        assert "pick the hub in the sidebar" in texts_of(at)
        assert "SHRP_DATA_DIR" in texts_of(at)


@pytest.mark.parametrize("page", ["overview", "expert_usage"])
def test_a_picked_hub_is_asked_and_why_it_fails_is_shown(open_page, folder, asked, page):
    at = open_page(page, folder)
    at.selectbox(key="source").set_value("hub").run()
    assert not at.exception
    assert asked == ["qnli"]
    assert "the hub does not answer" in texts_of(at)
    linked = open_page(page, folder, source="hub")
    assert not linked.exception
    assert asked == ["qnli", "qnli"]
    assert "the hub does not answer" in texts_of(linked)


def test_ones_own_data_come_before_the_hub(open_page, folder, asked):
    at = open_page("overview", folder)
    upload(at, "table", "mine.csv", b"question,sentence\nw1 w2,w3\nw4,w5 w6\n")
    assert not at.exception
    assert at.selectbox(key="source").options == ["own", "hub"]
    assert at.selectbox(key="source").value == "own"
    assert not asked


def test_a_task_with_data_of_its_own_is_back_at_its_default(open_page, folder, tiny_checkpoint, asked):
    at = open_page("overview", folder)
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert at.selectbox(key="source").value == "probe"
    at.selectbox(key="checkpoint").set_value("pairs").run()
    assert at.selectbox(key="source").value is None
    assert not at.exception
    assert not asked
