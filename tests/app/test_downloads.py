"""Every file that a page offers can be had: it is made as a click would make it, and read back."""

import csv
import io
import json
import zipfile

import pandas as pd
import pytest
import streamlit

from shrp.pruning.plan import PruningPlan
from tests.app.helpers import HISTORY, SCORES
from ui.usage import profile

CELL = {"layer": 2, "expert": 3}


@pytest.fixture
def offered(monkeypatch):
    """What a page's runs have offered: key of the button -> its MIME type and its data, made or still to be made."""
    found, real = {}, streamlit.download_button

    def record(label, data, file_name=None, mime=None, **options):
        found[options["key"]] = mime, data
        return real(label, data, file_name, mime, **options)

    monkeypatch.setattr(streamlit, "download_button", record)
    return found


@pytest.fixture
def folder(save_tiny, tiny_token_checkpoint):
    """A checkpoint with all that can be drawn of one, and another beside it."""
    return save_tiny("full", scores=SCORES, history=HISTORY)


def read_csv(content):
    """Lines of cells, the header first; it is whole, with names that differ and at least one line under them."""
    header, *lines = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
    assert all(header)
    assert len(set(header)) == len(header)
    assert lines
    assert {len(line) for line in lines} == {len(header)}
    assert any(cell for line in lines for cell in line)


def read_html(content):
    assert content.startswith(b"<!doctype html>")
    assert content.count(b"Plotly.newPlot(") == 1


def read_zip(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()


READ = {
    "text/csv": read_csv,
    "text/html": read_html,
    "application/zip": read_zip,
    "application/json": lambda content: PruningPlan.from_dict(json.loads(content)),
}


def read_all(at, offered, wanted):
    """Read all that is offered, among it the `wanted` data and a file of each chart."""
    assert not at.error
    assert {f"{key}-csv" for key in wanted} <= set(offered)
    # On a slow machine a run draws the curve several times, each with a key of its own.
    assert {f"{chart.key}-html" for chart in at.get("plotly_chart")} <= set(offered)
    for mime, data in offered.values():
        READ[mime](data() if callable(data) else data)


@pytest.mark.parametrize(
    ("page", "query", "wanted"),
    [
        ("overview", {}, ("layers", "costs", "scores")),
        ("routing", {"text": "w1 w2\nw3 w4 w5"}, ("predictions", "what-if")),
        ("pruning_lab", {"budget": 3}, ("kept-map", "curve-1")),
        ("pruning_lab", {"budget": 3, "lab_tab": "Where accuracy is lost"}, ("by-slice",)),
        ("pruning_lab", {"budget": 3, "lab_tab": "Changed predictions"}, ("flips",)),
        ("compare", {"b": "tiny-token", "compare_tab": "Where accuracy is lost"}, ("ranked", "by-slice")),
        ("expert_usage", CELL, ("usage-map", "mix-class", "mix-slice", "top-inputs")),
        ("expert_usage", CELL | {"profile": profile.WORDS}, ("words",)),
        ("expert_usage", CELL | {"profile": profile.ATTENTION}, ("attention", "roles")),
        ("expert_usage", CELL | {"profile": profile.KNOCK_OUT}, ("knock-out-slices",)),
        ("expert_usage", {"view": "Importance", "data_inputs": 32}, ("effect-map", "where-map")),
        ("expert_usage", {"view": "What drives routing", "exchange": "true"}, ("drives-routing", "exchanged")),
        ("expert_usage", {"view": "Over training"}, ("usage-history",)),
    ],
)
def test_every_file_of_a_page_can_be_read(open_page, folder, offered, page, query, wanted):
    at = open_page(page, folder, **query)
    if page == "pruning_lab":  # of two prunings one may be the better
        at.slider(key="budget").set_value(5).run()
        offered.clear()  # on a busy machine an estimate was drawn first, of which a table may have no rows
        at.run()
    read_all(at, offered, wanted)


def test_files_about_heads_are_of_heads(open_page, folder, offered):
    link = {"view": "Importance", "on_data": "true", "data_inputs_heads": 32}
    link["knock_out"] = "heads of dense layers"
    at = open_page("expert_usage", folder, **link)
    tables = ("effect-map", "where-map")
    read_all(at, offered, tables)
    for key in tables:
        _, data = offered[f"{key}-csv"]
        header = pd.read_csv(io.StringIO(data().decode("utf-8-sig"))).columns
        assert "head" in header
        assert not {"expert", "usage", "uses"} & {*header}


def test_what_is_narrowed_down_is_what_its_file_holds(open_page, folder, offered):
    at = open_page("overview", folder, answers="wrong", answers_with="the")
    shown = next(frame.value for frame in at.dataframe if "the text" in frame.value)
    _, data = offered["answers-table-csv"]
    rows = pd.read_csv(io.StringIO(data().decode("utf-8-sig")))
    assert rows["index"].tolist() == shown["index"].tolist()
    assert not rows["correct"].any()
    assert 0 < len(rows) < 480
