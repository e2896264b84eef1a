"""Help fits a screen, errors are one sentence, nothing is destroyed, and exit codes are as documented."""

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    "args",
    [(), ("nonsense",), ("evaluate",), ("evaluate", "routed", "--max-length", 1)],
)
def test_wrong_usage_is_exit_code_2(shrp, args):
    code, out, _ = shrp(*args)
    assert code == 2
    assert not out or not args


def test_the_module_runs_by_itself(place):
    """A real process prints any character and ends without a traceback, also where the encoding lacks some."""
    env = os.environ | {"COLUMNS": "200", "PYTHONIOENCODING": "cp1252"}

    def run(*args):
        command = [sys.executable, "-m", "shrp", *map(str, args)]
        root = Path(cli.__file__).parents[2]
        return subprocess.run(command, cwd=root, env=env, capture_output=True, encoding="utf-8", check=False)

    text = "ʻōlelo → \U0001f600"
    done = run("explain", place / "dense", "--no-words", "--text", text)
    assert (done.returncode, text in done.stdout) == (0, True), done.stderr
    wrong = run("evaluate", place / text)
    assert (wrong.returncode, wrong.stdout, "Traceback" in wrong.stderr) == (1, "", False)


def test_interrupting_is_exit_code_130(shrp, place, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "load", interrupt)
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

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(type(frame), "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        write_csv(frame, tmp_path / "old.csv")
    assert (tmp_path / "old.csv").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
