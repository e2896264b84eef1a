"""The Experiments page: drawn from the studies' files, and what it says without them or with broken ones."""

import json

import pytest

from shrp import studies
from tests.app.helpers import specs, texts_of
from tests.test_studies import ROWS


@pytest.fixture
def page(open_page, tmp_path, monkeypatch):
    def go(files, **query):
        for name, text in files.items():
            (tmp_path / f"{name}.json").write_text(text)
        monkeypatch.setattr(studies.read_rows, "__defaults__", (tmp_path,))
        return open_page("experiments", **query)

    return go


def test_the_table_its_chart_and_the_findings(page):
    at = page({"glue": json.dumps({"rows": ROWS})})
    assert not at.exception
    text = texts_of(at)
    assert "keeps 94.0% of the teacher's score" in text
    assert "layers dropped" in text
    assert len(specs(at)) == 2
    names = {trace["name"] for trace in specs(at)[0]["data"]}
    assert {"SHRP, static, 2 a layer, recovered", "control: layers dropped"} <= names


def test_without_files_it_says_what_fills_it(page):
    at = page({})
    assert not at.exception
    assert "benchmarks.glue" in texts_of(at) + "".join(code.value for code in at.code)


@pytest.mark.parametrize("text", ["{", '{"rows": [{"task": "cola"}]}'])
def test_a_broken_file_is_named_in_words(page, text):
    at = page({"glue": text})
    assert not at.exception
    assert len(at.error) == 1
    assert "benchmarks.glue" in texts_of(at)
