"""The size check on a tiny encoder and tiny data files: all rows, their denominators, and going on after a kill."""

import json

import pytest
import typer
from typer.testing import CliRunner

from shrp.checkpoints.base import load_base
from shrp.data.tasks import TASKS
from shrp.evaluation.costs import cost, dense_cost
from shrp.training import run_stages
from studies import size_check

TRAINED, VALIDATED = 24, 16


@pytest.fixture
def place(tmp_path, tiny_model, tiny_tokenizer, tiny_data, monkeypatch):
    """A folder with an MPNet of four layers and MRPC's files in GLUE's columns."""
    tiny_model("mpnet", dropout=0.1, num_hidden_layers=4).base_model.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    (tmp_path / "data" / "mrpc").mkdir(parents=True)
    for split, n, seed in (("train", TRAINED, 0), ("validation", VALIDATED, 1)):
        frame = tiny_data(n, seed).to_frame()
        frame = frame.assign(sentence1=frame["sentence"], sentence2=frame["sentence"])
        frame["label"] = (frame["label"] == "positive").astype(int)
        frame[["sentence1", "sentence2", "label"]].to_parquet(tmp_path / "data" / "mrpc" / f"{split}.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def run(place):
    """Runs the command with short epochs; keywords are further options."""
    app = typer.Typer()
    app.command()(size_check.main)

    def call(**options):
        given = {"base": place / "encoder", "work": place / "work", "json-out": place / "size.json"}
        given |= {"epoch-size": 8, "stage2-epochs": 1, "max-length": 16} | options
        arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        return CliRunner().invoke(app, arguments)

    return call


def rows_of(place):
    return json.loads((place / "size.json").read_text())["rows"]


class Killed(BaseException):
    """Stands for the end of the process."""


def test_all_rows_come_with_what_they_are_measured_against_and_a_killed_run_goes_on(run, place, monkeypatch):
    add, added = size_check.Table.add, []

    def killed(self, row):
        added.append(row)
        if len(added) == 4:
            raise Killed
        add(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(size_check.Table, "add", killed)
        with pytest.raises(Killed):
            run()
    assert {row["model"] for row in rows_of(place)} == {"teacher", "routed", "static"}
    before = {folder.name for folder in (place / "work" / "mrpc-s0").iterdir()}
    assert run().exit_code == 0
    rows = rows_of(place)
    assert len(before) < len(list((place / "work" / "mrpc-s0").iterdir()))
    found = {(row["model"], row["per_layer"], row["recovered"]): row for row in rows}
    kinds = {(kind, m, again) for kind in ("static", "random") for m in (1, 2) for again in (False, True)}
    kinds |= {("teacher", None, False), ("routed", None, False), ("dropped", None, False)}
    assert found.keys() == kinds
    assert len(rows) == len(kinds)

    model, _, _ = load_base(str(place / "encoder"), TASKS["mrpc"])
    dense = dense_cost(model, size_check.TOKENS)
    assert dense == cost(model, size_check.TOKENS)
    for row in rows:
        assert row["n"] == VALIDATED
        assert row["interval"][0] <= row["score"] <= row["interval"][1]
        assert row["base"] == "encoder"  # and no path
        assert row["dense_counts"]["encoder_params"] == dense.encoder_params
        for name in ("encoder_params", "model_params", "encoder_flops", "model_flops"):
            assert row[name] == pytest.approx(row["counts"][name] / row["dense_counts"][name])
        assert row["encoder_params"] < row["model_params"] or row["model"] == "teacher"
        if "lead" in row:  # over SHRP's recovered model of as many experts, or the largest
            ours = found["static", row["per_layer"] or 2, True]
            assert row["lead"] * row["teacher"] == pytest.approx(ours["score"] - row["score"])
    assert {key for key, row in found.items() if "lead" in row} == {
        ("random", 1, True),
        ("random", 2, True),
        ("dropped", None, False),
    }
    assert any(row.get("lead") for row in rows)
    assert found["random", 1, False]["interval_is"] == "range of 3 draws"
    assert found["static", 1, False]["kept"] == 2
    assert found["dropped", None, False]["encoder_params"] == 0.5
    # The control trains for as many epochs as the models that it stands beside.
    assert found["dropped", None, False]["epochs"] == found["static", 1, True]["epochs"] == 2 + 1 + 1

    def never(*_, **__):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(run_stages, "train", never)
    assert run().exit_code == 0
    assert rows_of(place) == rows


def test_other_tasks_are_refused(run, place):
    outcome = run(task="sst2")
    assert outcome.exit_code == 2
    assert "rte and mrpc" in outcome.output
    assert not (place / "size.json").exists()
