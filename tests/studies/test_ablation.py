"""The ablation's command, whole, on a tiny encoder and a few made-up examples."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from shrp.checkpoints import checkpoint
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from shrp.studies import ablations
from studies import ablation

ROWS, TASK = 24, TASKS["rte"]


@pytest.fixture
def place(tmp_path, tiny_model, tiny_tokenizer, tiny_data, monkeypatch):
    """An encoder of 4 layers, all but the first converted, and a folder of data in GLUE's columns."""
    layers = (1, 2, 3)
    monkeypatch.setattr(ablation, "LAYERS", layers)
    bottom_up = replace(ablation.VARIANTS["retain, bottom-up"], changes={"order": layers})
    monkeypatch.setitem(ablation.VARIANTS, "retain, bottom-up", bottom_up)
    tiny_model(num_hidden_layers=4).base_model.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    (tmp_path / "data" / TASK.name).mkdir(parents=True)
    for split, seed in (("train", 0), ("validation", 1)):
        texts = [text for (text,) in tiny_data(ROWS, seed).texts]
        frame = pd.DataFrame(dict.fromkeys(TASK.text_columns, texts))
        frame["label"] = np.arange(ROWS) % TASK.num_labels
        frame.to_parquet(tmp_path / "data" / TASK.name / f"{split}.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def run(place, *options):
    command = typer.Typer()
    command.command()(ablation.main)
    arguments = ["--base", place / "encoder", "--base-name", "tiny", "--work", place / "work"]
    arguments += ["--out", place / "ablation.json", "--tasks", TASK.name, "--variants", "paper", *options]
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_variant_is_measured_and_a_second_run_trains_nothing(place):
    options = ("--conversion-size", 8, "--stage2-epochs", 1)
    found = run(place, *options)
    assert found.exit_code == 0, found.output
    kept = json.loads((place / "ablation.json").read_text())
    assert (kept["base"], kept["layers"], kept["per_layer"]) == ("tiny", list(ablation.LAYERS), 1)
    (row,) = kept["rows"]
    assert (row["task"], row["variant"], row["depth"], row["n"]) == ("rte", "paper", "3of4", ROWS)
    assert (row["conversion_size"], row["stage2_epochs"]) == (8, 1)
    made = checkpoint.load(place / "work" / "rte-s0" / row["stage"])
    assert made.info.training["epochs"] == len(ablation.LAYERS) + 1
    (recovered,) = (place / "work" / "rte-s0").glob("ablation-recovered-*")
    info = checkpoint.load(recovered).info
    assert set(info.plan.keep_counts().values()) == {1}
    assert info.training["epochs"] == row["recovery_epochs"] == ablation.RECOVERY_EPOCHS
    frame = ablations.frame_of(kept["rows"])
    assert frame["recovered retained"].tolist() == [row["recovered"]["score"] / row["teacher"]]
    weights = {path: path.stat().st_mtime_ns for path in (place / "work").rglob("model.safetensors")}
    assert len(weights) == 3  # the teacher, the routed model and the recovered one
    assert run(place, *options).exit_code == 0
    assert json.loads((place / "ablation.json").read_text())["rows"] == [row]
    assert {p: p.stat().st_mtime_ns for p in (place / "work").rglob("model.safetensors")} == weights
    with pytest.raises(DataError, match="rows of another schedule"):
        run(place, "--conversion-size", 9, "--stage2-epochs", 1)


def test_variants_are_paired_with_retain_wherever_it_stands_among_them(place):
    options = ("--conversion-size", 8, "--stage2-epochs", 1)
    assert run(place, "--variants", "paper; retain; retain, bottom-up", *options).exit_code == 0
    rows = {row["variant"]: row for row in json.loads((place / "ablation.json").read_text())["rows"]}
    assert "change" not in rows["retain"]
    for name in ("paper", "retain, bottom-up"):
        row, of = rows[name], rows["retain"]
        assert row["against"] == of["stage"]
        assert row["change"] * row["teacher"] == pytest.approx(
            row["recovered"]["score"] - of["recovered"]["score"]
        )
    again = run(
        place, "--variants", "paper", *options
    )  # what was paired stays, where retain is not asked for
    assert again.exit_code == 0
    kept = {row["variant"]: row for row in json.loads((place / "ablation.json").read_text())["rows"]}
    assert kept == rows


def test_a_variant_that_there_is_not_is_refused_before_anything_is_trained(place):
    with pytest.raises(DataError, match="no variant 'thesis'; there are: paper; "):
        run(place, "--variants", "paper; thesis")
    assert not (place / "work").exists()


def test_nothing_is_retained_of_a_teacher_without_a_score():
    cell = {"score": 0.1, "interval": [0.0, 0.2]}
    row = {"task": "cola", "variant": "paper", "seed": 0, "metric": "matthews", "n": 9, "teacher": 0.0}
    with pytest.raises(DataError, match="scores that can't be read"):
        ablations.frame_of([row | dict.fromkeys(("routed", "static", "recovered"), cell)])
    assert ablations.about([]) == "Nothing was measured"
