"""Help fits a screen, errors are one sentence, nothing is destroyed, and exit codes are as documented."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.main import get_command

from shrp import cli
from shrp.checkpoints import checkpoint
from shrp.cli.options import layer_list
from shrp.cli.output import write_csv
from shrp.errors import TrainingError

COMMANDS = get_command(cli.app).commands


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_fits_a_screen(shrp, name):
    assert len(COMMANDS) <= 12
    flags = [one for one in COMMANDS[name].params if one.param_type_name == "option" and one.name != "help"]
    assert len(flags) <= 15
    code, out, _ = shrp(name, "--help")
    assert code == 0
    assert len(out.splitlines()) <= 50  # in 80 columns; 40 in 100
    assert "--json" in out
    assert f"python -m shrp {name} " in out


@pytest.mark.parametrize("args", [(), ("nonsense",), ("evaluate",), ("evaluate", "routed", "--max-length", 1)])
def test_wrong_usage_is_exit_code_2(shrp, args):
    code, out, _ = shrp(*args)
    assert code == 2
    assert not out or not args


ALONE = """
import json, runpy, sys
from transformers import AutoConfig
commands, folder = json.loads(sys.argv[1]), sys.argv[2]
try:
    AutoConfig.from_pretrained(folder)
except ValueError as error:
    print("without shrp:", "shrp-bert" in str(error))
for arguments in commands:
    sys.argv = ["shrp", *arguments]
    try:
        runpy.run_module("shrp", run_name="__main__")
    except SystemExit as end:
        print(f"ends with {end.code}")
print(type(AutoConfig.from_pretrained(folder)).__name__)
"""
"""Commands one after the other in a process, as importing takes seconds; transformers reads a checkpoint before and after."""


def test_the_module_runs_by_itself_and_transformers_knows_its_checkpoints_from_then_on(place):
    """A real process prints any character and ends without a traceback, also where the encoding lacks some."""
    text = "ʻōlelo → \U0001f600"
    commands = [["evaluate", str(place / text)], ["explain", str(place / "routed"), "--text", text]]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(commands), str(place / "routed")],
        cwd=Path(cli.__file__).parents[2],
        env=os.environ | {"COLUMNS": "200", "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    refused, explained = done.stdout.split("ends with 1\n")
    assert (refused, "error: " in done.stderr, "Traceback" in done.stderr) == ("without shrp: True\n", True, False)
    assert text in explained
    assert explained.splitlines()[-1] == "ShrpBertConfig"


def test_interrupting_is_exit_code_130(shrp, place, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", Mock(side_effect=KeyboardInterrupt))
    assert shrp("evaluate", place / "routed")[:2] == (130, "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("evaluate", "nowhere"), "nowhere"),
        (("evaluate", "routed", "--data", "no.csv"), r"no\.csv"),
        (("evaluate", "routed", "--data", "data.csv", "--text-column", "words"), "words.*sentence"),
        (("evaluate", "routed", "--data", "unlabelled.csv"), "--label-column"),
        (("evaluate", "routed", "--text-column", "a"), "--text-column"),
        (("evaluate", "routed", "--data", "data.csv", "--label-means", "good"), "LABEL=CLASS"),
        (("evaluate", "routed", "--predictions", "data.csv"), "exists already"),
        (("evaluate", "routed", "--predictions", "no/p.csv"), "does not exist"),
        (("evaluate", "routed", "--predictions", "p.zip"), "archive"),
        (("evaluate", "routed", "--json", "--data", "probe", "--data", "glue"), "2 times"),
        (("usage", "static1"), "routed"),
        (("usage", "routed", "--by", "author"), "class, answer, outcome, slice or length"),
        (("knock-out", "static1"), "routed"),
        (("knock-out", "routed", "--expert", "9"), "LAYER.EXPERT"),
        (("knock-out", "routed", "--expert", "1.9"), "0 to 3"),
        (("knock-out", "routed", "--expert", "1.1", "--heads"), "--expert"),
        (("knock-out", "routed", "--by", "author"), "class, slice or length"),
        (("explain", "routed", "--text", " "), "no example"),
        (("sweep", "static1", "--data", "data.csv"), "routed"),
        (("sweep", "routed", "--data", "unlabelled.csv"), "labels"),
        (("compare", "routed"), "two models"),
        (("compare", "routed", "routed"), "two models"),
        (("trim-vocabulary", "static1", "--texts", "data.csv", "--out", "x"), "WordPiece"),
        (("export", "routed", "--out", "x"), "--per-layer"),
        (("export", "static1", "--per-layer", 1, "--out", "x"), "no routers"),
        (("export", "routed", "--per-layer", 1, "--budget", 2, "--out", "x"), "one of"),
        (("export", "routed", "--plan", "data.csv", "--out", "x"), "data.csv"),
    ],
)
def test_errors_are_one_sentence(shrp, place, monkeypatch, failed, args, words):
    monkeypatch.chdir(place)
    before = {path.name for path in place.iterdir()}
    failed(shrp(*args), words)
    assert {path.name for path in place.iterdir()} == before  # nothing begun is left behind


def test_layer_lists():
    assert layer_list("upper:2", 4) == (2, 3)
    assert layer_list("0-2,3", 4) == (0, 1, 2, 3)
    for wrong in ("upper:5", "2-1", "4", "top", "0-99999999999"):
        with pytest.raises(TrainingError):
            layer_list(wrong, 4)


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch, tiny_data):
    frame = tiny_data(3).to_frame()
    (tmp_path / "old.csv").write_text("kept")
    monkeypatch.setattr(type(frame), "to_csv", Mock(side_effect=OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_csv(frame, tmp_path / "old.csv")
    assert (tmp_path / "old.csv").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
