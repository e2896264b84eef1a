"""How commands write tables and shares: nothing is cut, and intervals follow the scores'."""

import json
import math
import re

import pandas as pd
import pytest
from rich.console import Console

from shrp.cli import output
from shrp.cli.output import print_json, print_table, records, score_line, share_text, stderr

ROW = {
    "model": "static, 12 in all, shares matched",
    "data": "a-name-that-has-no-break",
    "n": 12345,
    "score": 0.5,
}


def letters(text):
    return re.sub(r"[^\w,.-]", "", text)


@pytest.mark.parametrize("columns", ["40", "80", None])
def test_no_cell_is_cut(capsys, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(output, "stdout", Console(**output._PLAIN))  # which looks for it when it is made
    print_table("what", [ROW])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns or 200)
    cells = [[part.strip() for part in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    whole = ["".join(parts) for parts in zip(*cells, strict=True)]
    assert [letters(cell) for cell in whole] == [
        letters(text) for text in (ROW["model"], ROW["data"], "12,345", "0.5000")
    ]
    assert (len(cells) == 1) == (columns is None)  # where nothing says how wide it may be


def test_a_long_line_is_left_to_the_terminal(capsys):
    said = "`python -m shrp compare one two` says what it lost " * 6
    stderr.print(said)
    assert capsys.readouterr().err == f"{said}\n"


def test_a_share_has_the_interval_of_its_score():
    row = {"model": "m", "data": "d", "metric": "accuracy", "score": 0.6, "n": 10, "interval": [0.44, 0.72]}
    assert share_text(row) == "-"
    row |= {"retained": 0.75, "interval_is": "95%"}  # of a teacher's 0.8
    assert share_text(row) == "75.0% (55.0 to 90.0)"
    assert score_line(row)["of teacher"] == share_text(row)
    assert share_text(row | {"interval": None}) == "75.0%"
    assert share_text(row | {"interval_is": "range of 3 draws"}) == "75.0%"
    assert share_text(row | {"kind": "teacher", "retained": 1.0}) == "100.0%"  # which counts as exact
    assert share_text(row | {"score": 0.0, "retained": 0.0, "interval": [-0.1, 0.1], "teacher": 0.8}) == (
        "0.0% (-12.5 to 12.5)"
    )


def test_rows_in_json_have_one_interval_for_two_ends(capsys):
    frame = pd.DataFrame(
        {
            "group": ["a"],
            **{"score": [0.5], "low": [0.4], "high": [0.6]},
            **{"reference": [1.0], "reference low": [math.nan], "reference high": [math.nan]},
            **{"lost_low": [-1.0], "lost_high": [1.0], "become wrong": [2]},
        }
    )
    row = {"group": "a", "score": 0.5, "interval": [0.4, 0.6], "first": 1.0, "first_interval": None}
    row |= {"lost_interval": [-1.0, 1.0], "become_wrong": 2}
    print_json({"rows": records(frame, renamed={"reference": "first"}), "ends": [math.nan, math.nan]})
    # A list that is no interval stays one.
    assert json.loads(capsys.readouterr().out) == {"rows": [row], "ends": [None, None]}
    (changed,) = records(frame[["low", "high"]], "change")
    assert changed == {"change_interval": [0.4, 0.6]}
