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


@pytest.mark.parametrize("page", ["overview", "routing", "pruning_lab"])
def test_the_hub_is_never_the_default(open_page, folder, asked, page):
    at = open_page(page, folder)
    assert at.selectbox(key="source").options == ["hub"]
    assert at.selectbox(key="source").value is None
    assert not asked
    if page != "routing":  # which shows nothing of data
        assert "SHRP_DATA_DIR" in texts_of(at)
        at.selectbox(key="source").set_value("hub").run()
        assert asked == ["qnli"]
        assert "the hub does not answer" in texts_of(at)


def test_own_data_come_before_it_and_a_task_with_other_data_at_its_own(
    open_page, folder, tiny_checkpoint, asked
):
    at = open_page("overview", folder)
    upload(at, "table", "mine.csv", b"question,sentence\nw1 w2,w3\nw4,w5 w6\n")
    assert at.selectbox(key="source").options == ["own", "hub"]
    assert at.selectbox(key="source").value == "own"
    at.button(key="own-data-remove").click().run()
    for checkpoint, source in (("tiny", "probe"), ("pairs", None)):
        at.selectbox(key="checkpoint").set_value(checkpoint).run()
        assert at.selectbox(key="source").value == source
    assert not asked
