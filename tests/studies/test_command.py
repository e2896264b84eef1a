"""What the commands under studies/ share: their table of rows, and how they end."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer

from shrp.errors import DataError, TrainingError
from studies import rows_file
from studies.command import names, numbers, run, seeds_of
from studies.table import Table


def test_what_the_library_refuses_ends_in_a_sentence(monkeypatch, capsys):
    def main() -> None:
        raise DataError("there is no [such] data.")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: there is no [such] data.\n"


def test_a_full_disk_ends_in_a_sentence(monkeypatch, capsys):
    def main() -> None:
        raise OSError(28, "No space left on device", "rows.json")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr().err == "error: rows.json: No space left on device.\n"


def test_lists_of_options():
    assert numbers("1,3") == [1, 3]
    assert names(" b,a", "abc", "--x") == ["b", "a"]
    assert names("", "abc", "--x", none=True) == []
    for refused in (
        lambda: numbers("1;3"),
        lambda: names("d", "abc", "--x"),
        lambda: names(",", "abc", "--x"),
    ):
        with pytest.raises(typer.BadParameter):
            refused()


def test_seeds_are_in_their_range():
    assert seeds_of("0,7") == [0, 7]
    with pytest.raises(TrainingError, match="seed must be between 0 and 4294967295, not -1"):
        seeds_of("0,-1")


def test_commands_that_add_rows_at_once_lose_none(tmp_path):
    path = tmp_path / "rows.json"

    def add(task):
        table = Table(path, "a command", ("task", "model"))
        for number in range(15):
            table.add(row(task, model=str(number)))

    with ThreadPoolExecutor() as pool:
        list(pool.map(add, ("cola", "rte", "mrpc")))
    assert len(json.loads(path.read_text())["rows"]) == 45


def test_a_file_that_another_command_begins_meanwhile_is_no_fault(tmp_path, monkeypatch):
    path = tmp_path / "rows.json"

    def exists(one):
        if not path.is_file():  # just after it was not found
            path.write_text('{"rows": [], "command": "another"}')
        return os.path.exists(one)

    monkeypatch.setattr(Path, "exists", exists)
    assert rows_file.read(path) == {}
    assert rows_file.read(path) == {"rows": [], "command": "another"}


def row(task="cola", model="routed", teacher=0.4, score=0.3, **more):
    return {"task": task, "model": model, "teacher": teacher, "score": score, **more}


def test_a_row_takes_the_place_of_the_same_and_stands_beside_others(tmp_path):
    path = tmp_path / "rows.json"
    table = Table(path, "a command", ("task", "model"))
    table.add(row())
    table.add(row(model="static"))
    table.add(row(score=0.35))
    table.add(row(task="rte", teacher=0.6))
    again = Table(path, "a command", ("task", "model"))
    assert again.rows == json.loads(path.read_text())["rows"]
    assert [(r["task"], r["model"], r["score"]) for r in again.rows] == [
        ("cola", "routed", 0.35),
        ("cola", "static", 0.3),
        ("rte", "routed", 0.3),
    ]


def test_two_commands_on_one_file_keep_each_others_rows(tmp_path):
    path, key = tmp_path / "rows.json", ("task", "model")
    first, second = Table(path, "a command", key), Table(path, "a command", key)
    first.add(row())
    second.add(row(task="rte", teacher=0.6))
    first.add(row(model="static"))
    found = [(r["task"], r["model"]) for r in json.loads(path.read_text())["rows"]]
    assert found == [("cola", "routed"), ("cola", "static"), ("rte", "routed")]


def test_shares_of_two_teachers_do_not_stand_in_one_table(tmp_path):
    table = Table(tmp_path / "rows.json", "a command", ("task", "recipe", "model"))
    table.add(row())
    with pytest.raises(DataError, match=r"cola beside a teacher that scores 0\.4, this one scores 0\.5"):
        table.add(row(model="static", teacher=0.5))
    assert [r["model"] for r in Table(tmp_path / "rows.json", "", ("task", "model")).rows] == ["routed"]
    table.add(row(recipe="paper", teacher=0.5))  # a recipe's rows are compared among themselves
    with pytest.raises(DataError, match=r"teacher that scores 0\.5, this one scores 0\.6"):
        table.add(row(recipe="paper", model="static", teacher=0.6))
    table.add(row(recipe="paper", depth="11of12", teacher=0.6))  # and so are a depth's


def test_rows_are_added_all_or_none(tmp_path):
    path = tmp_path / "rows.json"
    table = Table(path, "a command", ("task", "depth", "model"))
    table.add(row(depth="11of12"))
    before = path.read_bytes()
    teachers = [row(depth=depth, model="teacher", teacher=0.5) for depth in ("6of12", "11of12")]
    with pytest.raises(DataError, match=r"teacher that scores 0\.4, this one scores 0\.5"):
        table.add(*teachers)
    assert path.read_bytes() == before
    assert [one["model"] for one in table.rows] == ["routed"]
    table.add(*(one | {"teacher": 0.4} for one in teachers))
    assert len(table.rows) == 3


def test_rows_of_another_base_are_not_added_to(tmp_path):
    path, key = tmp_path / "rows.json", ("task", "model")
    Table(path, "a command", key, base="one").add(row())
    Table(path, "a command", key, base="one").add(row(model="static"))
    with pytest.raises(DataError, match="rows with base one, not another"):
        Table(path, "a command", key, base="another")
    late = tmp_path / "late.json"
    one, other = (Table(late, "a command", key, base=base) for base in ("one", "another"))
    one.add(row())
    with pytest.raises(DataError, match="rows with base one, not another"):
        other.add(row(model="static"))
    assert len(Table(late, "a command", key, base="one").rows) == 1


def test_a_teacher_that_another_processor_rounds_otherwise_is_the_same(tmp_path):
    table = Table(tmp_path / "rows.json", "a command", ("task", "model"))
    table.add(row(teacher=0.878))
    table.add(row(model="static", teacher=0.878 + 1e-7))
    assert len(table.rows) == 2


def test_where_no_file_can_be_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file" / "x.json"):
        with pytest.raises(DataError, match="can't be written"):
            rows_file.read(place)
    assert rows_file.read(tmp_path / "new" / "x.json") == {}


def test_what_is_no_file_of_rows_is_left_as_it_is(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"mine": 1}')
    with pytest.raises(DataError, match="not a file of results"):
        Table(path, "a command", ("task",))
    assert path.read_text() == '{"mine": 1}'
