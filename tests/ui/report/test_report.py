"""The report's own pieces: HTML that escapes, loads nothing, and shows the right examples."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from ui.report import report
from ui.report.examples import example_frame, groups
from ui.report.page import body, file_size, page
from ui.report.parts import Section

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & "quoted"'


VOID = {"meta", "img", "br", "link", "input", "hr"}


class Elements(HTMLParser):
    """The tags with their attributes, the text outside scripts, and whether every element was closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open, self.ids = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def evaluation(task, logits, labels, slices=None):
    n = len(logits)
    labels = None if labels is None else np.array(labels)
    return Evaluation(
        task, "made", task.metric, 0.5, (0.1, 0.9), n, n, {}, np.arange(n), np.array(logits), labels, slices
    )


def test_a_page_escapes_all_it_is_given_and_loads_nothing():
    part = Section("one", EVIL)
    part.heading(EVIL)
    part.words(EVIL)
    part.warning(EVIL)
    part.bullets([EVIL])
    part.code(EVIL)
    part.facts([(EVIL, EVIL)], EVIL)
    part.table(pd.DataFrame({EVIL: [EVIL, None]}), EVIL, texts=(EVIL,), folded=True)
    # Figures take HTML-safe labels, but whatever is in them must not end the script that draws them.
    part.figure(go.Figure(go.Bar(x=["</script><b>"], y=[1])), EVIL, EVIL)
    file = page(EVIL, body(EVIL, EVIL, [part])).decode()
    found = Elements(file)
    assert not found.open
    assert not [tag for tag, _ in found.tags if tag in ("img", "link", "iframe", "b")]
    assert not [attrs for _, attrs in found.tags if "src" in attrs or any(a.startswith("on") for a in attrs)]
    assert {attrs["href"] for tag, attrs in found.tags if tag == "a"} == {"#one"}
    assert "".join(found.text).count(EVIL) == 19
    assert "default-src 'none'" in file
    assert file.count("plotly.js v") == 1
    assert len(found.ids) == len(set(found.ids))


def test_charts_follow_the_scheme_and_paper_is_light():
    file = page("t", body("t", "", [])).decode()
    assert "@media (prefers-color-scheme:dark)" in file
    assert "@media print" in file
    assert '"beforeprint"' in file


def test_examples_of_classes_are_the_surest_right_and_the_surest_wrong():
    logits = [[0.0, 3.0], [2.0, 0.0], [0.0, 1.0], [4.0, 0.0], [0.2, 0.0]]
    found = groups(evaluation(TASKS["sst2"], logits, [1, 1, 1, 1, 0]), size=2)
    assert found["Most confident and right"].tolist() == [0, 2]
    assert found["Most wrong"].tolist() == [3, 1]


def test_examples_without_labels_and_of_numbers():
    sure = groups(evaluation(TASKS["sst2"], [[0.0, 3.0], [0.1, 0.0], [2.0, 0.0]], None), size=1)
    assert {name: rows.tolist() for name, rows in sure.items()} == {
        "Most confident": [0],
        "Least confident": [1],
    }
    numbers = groups(evaluation(TASKS["stsb"], [[1.0], [4.0], [2.5]], [1.1, 0.0, 2.0]), size=2)
    assert numbers["Closest to the label"].tolist() == [0, 2]
    assert numbers["Most wrong"].tolist() == [1, 2]


def test_an_example_carries_its_label_output_and_probability():
    task = TASKS["sst2"]
    data = TextData(task, "made", ((EVIL,), ("b",)), np.array([0, 1]), ("first_kind", "other"))
    found = evaluation(task, [[0.0, 1.0], [0.0, 1.0]], [0, 1], data.slices)
    row = example_frame(found, np.array([0]), data, None).iloc[0]
    assert (row["sentence"], row["label"], row["output"]) == (EVIL, *task.label_names)
    assert row["probability"] == "73.1%"
    assert row["slice"] == "first kind"


@pytest.mark.parametrize("column", ["input", "output", "route"])
def test_an_example_keeps_a_text_whose_column_is_named_as_one_of_its_own(column):
    task = custom_task("mine", (column,), ("bad", "good"))
    data = TextData(task, "made", (("a",), ("b",)), np.array([0, 1]))
    row = example_frame(evaluation(task, [[0.0, 1.0], [1.0, 0.0]], [0, 1]), np.array([1]), data, None).iloc[0]
    assert (row["input"], row["output"]) == ("1", "bad")
    assert row[f"{column} (text)"] == "b"


@pytest.mark.parametrize(("number", "text"), [(4_912_345, "4.9 MB"), (1_500, "2 kB")])
def test_sizes_are_short(number, text):
    assert file_size(number) == text


def test_a_report_is_of_data_with_their_name_pairs_and_slices():
    data = TextData(TASKS["sst2"], "mine", (("a",), ("b",)), None)
    others = [
        replace(data, name="yours"),
        replace(data, pairs=("p", "p")),
        replace(data, texts=(("a",), ("c",))),
        None,
    ]
    assert len({report._of(one) for one in (data, *others)}) == 5
