"""What else answers the task, end to end on tiny encoders: rows, and what a second call does again."""

import json
from dataclasses import replace
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from shrp.checkpoints import checkpoint
from shrp.data.tasks import TEXTS
from shrp.evaluation import timing
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from studies import alternatives, glue, results, rows, trainings

N = 24


@pytest.fixture
def study(tmp_path, monkeypatch, tiny_model, save_model, tiny_data, quick_graphs):
    """The study on made-up files and tiny encoders, half of the layers converted, as a function of more options."""
    for name, layers in (("base", 2), ("minilm", 1)):
        save_model(tiny_model(num_hidden_layers=layers).base_model, tmp_path / name)
    for name, seed in (("train", 0), ("validation", 1)):
        frame = tiny_data(N, seed).to_frame()
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    monkeypatch.setattr(trainings, "TEXT_SIZES", dict.fromkeys(trainings.TEXT_SIZES, 8))
    for name, value in {"TUNED_EXAMPLES": N, "TUNED_TOKENS": 0, "COPIES": 1}.items():
        monkeypatch.setattr(glue, name, value)
    monkeypatch.setattr(timing, "SINGLE", 5)
    monkeypatch.setattr(timing, "BATCHES", 2)
    half = glue.Depth("1of2", ((1,),), (2, 4), 2, False)
    monkeypatch.setattr(alternatives, "depths_of", lambda layers, experts: {"1of2": half})
    command = alternatives.typer.Typer()
    command.command()(alternatives.main)

    def run(*options):
        given = ["--out", tmp_path / "out", "--json", "--task-name", "made"]
        for name in ("train-file", "validation-file"):
            given += [f"--{name}", tmp_path / f"{name.removesuffix('-file')}.csv"]
        given += ["--base", tmp_path / "base", "--minilm", tmp_path / "minilm", "--text-column", "sentence"]
        found = CliRunner().invoke(command, [str(a) for a in (*given, *options)], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return json.loads((tmp_path / "out" / "rows.json").read_text())

    return run


def test_every_alternative_is_scored_as_served_and_made_once(
    study, tmp_path, monkeypatch, tiny_model, tiny_routed, tiny_info, tiny_tokenizer
):
    layers = {"layers": (0, 1), "self_path": True}
    plan = replace(make_plan({0: [1, 0, 0, 0], 1: [0, 1, 0, 0]}, per_layer=1), untied=True)
    encoder = prune(tiny_routed(num_hidden_layers=2, **layers), plan)
    checkpoint.save(encoder, tiny_tokenizer, replace(tiny_info(**layers, plan=plan), task=TEXTS), tmp_path / "encoder")
    found = study("--encoder", tmp_path / "encoder")
    forms = {}
    for row in found:
        forms.setdefault(row["model"], []).append((row["runtime"], row["precision"]))
    shrp = ["SHRP, 1 of 2 layers, routed", "SHRP, 1 of 2 layers, 2 experts a layer"]
    others = ["layer dropping, 1 layer left", "SHRP, 2 of 2 layers, 1 expert a layer, trained on more text", "MiniLM-L6"]
    assert list(forms) == ["dense", *shrp, *others, "TF-IDF, logistic regression"]
    graph = [("PyTorch", "float32"), ("ONNX Runtime", "float32"), ("ONNX Runtime", "int8")]
    assert list(forms.values()) == [graph, graph[:1], graph, graph, graph, graph, [("scikit-learn", "float64")]]
    by_form = {(row["model"], row["runtime"], row["precision"]): row for row in found}
    for row in found:
        assert (row["data"], row["n"]) == ("made", N)
        assert row["interval"][0] <= row["score"] <= row["interval"][1]
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["texts_per_s"] > 0
        if row["precision"] == "float32" and row["runtime"] != "PyTorch":
            assert row["score"] == by_form[row["model"], "PyTorch", "float32"]["score"]
    small = by_form["MiniLM-L6", "ONNX Runtime", "int8"]
    assert small["lead"] == 0
    folder = tmp_path / "out" / "served" / "minilm-l6" / "int8"
    assert small["mb"] == pytest.approx(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, abs=1e-6)
    assert {"model.onnx", "tokenizer.json"} <= {file.name for file in folder.iterdir()}

    (folder / "model.onnx").write_bytes(b"cut off")
    exported = Mock(wraps=alternatives.export_folder)
    monkeypatch.setattr(alternatives, "export_folder", exported)
    monkeypatch.setattr("shrp.training.loop.Training._epoch", lambda *_: pytest.fail("trained again"))
    assert [row["score"] for row in study("--encoder", tmp_path / "encoder")] == [row["score"] for row in found]
    assert [call.args[3] for call in exported.call_args_list] == [folder]  # the broken one


def test_the_table_is_made_of_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "DATA", tmp_path)
    assert results.alternatives() == ""
    row = {"data": "made", "n": 24, "machine": "a machine, 1 thread", "model": "dense", "runtime": "PyTorch"}
    row |= {"precision": "int8", "metric": "accuracy", "score": 0.5, "interval": [0.25, 0.75], "lead": -0.1}
    row |= {"lead_interval": [-0.2, 0.1], "mb": 12.34, "p50_ms": 1.04, "p95_ms": 2.0, "texts_per_s": 1234.5}
    row["effort"] = 0.2
    (tmp_path / "alternatives.json").write_text(rows.as_json([row]))
    about, _, table = results.alternatives().partition("\n\n")
    assert about == "made, n = 24; a machine, 1 thread; SHRP has 20% of the steps of `retain`."
    cells = [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]
    assert cells[2:] == ["50.0 (25.0–75.0)", "−10.0 (−20.0 to +10.0)", "12.3", "1.0", "2.0", "1,234"]
