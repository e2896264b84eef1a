"""Exports are scored by what they answer: as PyTorch's float32, in the task's order of labels, with the same cut."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import discover
from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.errors import DataError, ExportError
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.export.exported import is_export, load_export
from shrp.export.onnx import export_folder
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.conftest import edit_json

pytestmark = pytest.mark.usefixtures("quick_graphs")
PLAN = make_plan({1: [0.6, 0.2, 0.1, 0.1], 2: [0.1, 0.4, 0.3, 0.2]}, counts={1: 1, 2: 2})


@pytest.fixture(scope="module")
def static(tiny_routed):
    """A static model that names its outputs the other way round than the task does."""
    model = prune(tiny_routed(), PLAN)
    model.config.id2label = {0: "positive", 1: "negative"}
    model.config.label2id = {"positive": 0, "negative": 1}
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory, static, tiny_tokenizer, tiny_info, tiny_data):
    """A folder with the static checkpoint, its export, and a CSV file."""
    root, info = tmp_path_factory.mktemp("served"), tiny_info(plan=PLAN)
    checkpoint.save(static, tiny_tokenizer, info, root / "static")
    export_folder(static, tiny_tokenizer, info, root / "exported", made_from="abc", check=False)
    tiny_data(60, 1).to_frame().to_csv(root / "data.csv", index=False)
    return root


@pytest.fixture
def copy(place, tmp_path):
    """A copy of the export, to break."""
    return shutil.copytree(place / "exported", tmp_path / "copy")


def test_it_knows_what_it_is(place, static):
    export = load_export(place / "exported")
    assert is_export(place / "exported")
    assert not is_export(place / "static")
    assert not is_export(place)
    assert list(discover(place)) == ["static"]
    assert export.task == TASKS["sst2"]
    assert export.labels == ("positive", "negative")
    assert (export.precision, export.made_from, export.plan) == ("float32", "abc", PLAN)
    assert export.costs == pytest.approx(cost(static).relative_to(dense_cost(static)))
    assert export.bytes == (place / "exported" / "model.onnx").stat().st_size
    assert len(export.fingerprint) == 64


def test_it_scores_as_pytorch_does(place, static, tiny_tokenizer, tiny_data):
    data = tiny_data(300, 2)  # more than the inputs that are encoded at once
    expected = evaluate(static, tiny_tokenizer, data)
    assert np.ptp(expected.logits) > 0.05  # so that equal outputs say something
    found = load_export(place / "exported").evaluate(data)
    assert np.array_equal(found.indices, expected.indices)
    assert np.abs(found.logits - expected.logits).max() < 1e-4
    assert found.score == pytest.approx(expected.score)
    assert found.interval == pytest.approx(expected.interval)
    assert found.slices == expected.slices


def test_long_texts_are_cut_where_the_export_was_made_to(place, static, tiny_tokenizer, tiny_data):
    export, (text,) = load_export(place / "exported"), tiny_data(1).texts[0]
    words = " ".join([text] * 400)
    assert export.lengths([(words,)])[0] > export.max_length
    data = TextData(TASKS["sst2"], "long", ((words,),), np.array([0]))
    expected = evaluate(static, tiny_tokenizer, data, max_length=export.max_length)
    assert np.abs(export.logits([(words,)]) - expected.logits).max() < 1e-4


@pytest.mark.parametrize(
    "task",
    [TASKS["mrpc"], TASKS["stsb"], custom_task("turned", ("sentence",), ("positive", "negative"))],
    ids=lambda task: task.name,
)
def test_data_of_another_task_are_refused(place, tiny_data, task):
    texts = tuple(text * len(task.text_columns) for text in tiny_data(4).texts)
    data = TextData(task, "others", texts, np.array([0, 1, 0, 1]))
    with pytest.raises(DataError, match=f"is data of {task.name}, and .* is for sst2"):
        load_export(place / "exported").evaluate(data)


def test_pairs_and_numbers_are_scored_too_in_int8(tiny_model, with_types, tiny_info, tiny_data, tmp_path):
    model, folder = tiny_model(num_hidden_layers=1, num_labels=1), tmp_path / "exported"
    info = replace(tiny_info(layers=()), task=TASKS["stsb"])
    export_folder(model, with_types, info, folder, int8=True, check=False)
    texts = tuple((a, b) for (a,), (b,) in zip(tiny_data(40).texts, tiny_data(40, 5).texts, strict=True))
    data = TextData(TASKS["stsb"], "pairs", texts, np.linspace(0, 5, 40))
    export = load_export(folder)
    assert (export.precision, export.labels) == ("int8", ())
    found, expected = export.evaluate(data), evaluate(model, with_types, data)
    assert found.logits.shape == (40, 1)
    gap = np.abs(found.logits - expected.logits).max()
    assert 0 < gap < 0.2 * np.ptp(expected.logits)
    assert found.metric == "pearson"


def test_no_examples_and_texts_of_another_number_are_refused(place, tiny_data):
    with pytest.raises(DataError, match="no examples"):
        load_export(place / "exported").evaluate(tiny_data(0))
    with pytest.raises(DataError, match="reads 1 text an input, not 2"):
        load_export(place / "exported").logits([("one", "another")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "another"}, "is no export"),
        ({"task_definition": ...}, r"not as this version writes it \('task_definition'\)"),
        ({"task_definition": {"name": "x"}}, "not as this version writes it"),
        ({"cost": 3}, "not as this version writes it"),
        ({"plan": {"layers": 1}}, "not as this version writes it"),
        ({"inputs": ["input_ids"]}, "not as this version writes it"),
        ({"labels": ["good", "bad"]}, "names other labels"),
    ],
)
def test_a_config_that_does_not_fit_says_why(copy, change, said):
    edit_json(copy / "config.json", **change)
    with pytest.raises(ExportError, match=said):
        load_export(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_broken_and_missing_files_say_so(copy, name):
    for break_it in (lambda: (copy / name).write_text("no such thing"), (copy / name).unlink):
        break_it()
        with pytest.raises(ExportError, match="can't be loaded"):
            load_export(copy)


THREE = custom_task("moods", ("sentence",), ("bad", "fair", "good"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_definition": THREE.to_dict(), "labels": THREE.label_names}, r"of shape \(1, 2\) .* 3 labels"),
        ({"inputs": {"input_ids": "ids", "something": "ids"}}, "can't be run"),
    ],
)
def test_a_graph_of_other_inputs_or_outputs_says_so(copy, change, said):
    edit_json(copy / "config.json", **change)
    with pytest.raises(ExportError, match=said):
        load_export(copy).logits([("a text",)])


def test_the_command_line_scores_it_and_compares_it_with_its_checkpoint(told, place, tmp_path):
    data, found = ("--data", place / "data.csv"), {}
    for name in ("static", "exported"):
        further = ("--slice-column", "slice", "--predictions", tmp_path / f"{name}.csv")
        found[name] = told("evaluate", place / name, *data, *further)
    for key in ("score", "interval", "n", "metrics"):
        assert found["exported"][key] == pytest.approx(found["static"][key], nan_ok=True)
    assert found["exported"]["slices"] == found["static"]["slices"]
    answers = [pd.read_csv(tmp_path / f"{name}.csv")["prediction"].tolist() for name in found]
    assert answers[0] == answers[1]
    came = found["exported"]["provenance"]
    assert (came["checkpoint_fingerprint"], came["precision"]) == ("abc", "float32")
    assert came["graph_fingerprint"] == load_export(place / "exported").fingerprint
    assert came["max_length"] == found["static"]["provenance"]["max_length"]
    assert list(came["versions"]) == ["onnxruntime", "tokenizers"]
    compared = told("compare", place / "static", place / "exported", *data)
    rows = {Path(row["checkpoint"]).name: row for row in compared["models"]}
    assert rows["exported"]["change"] == 0
    assert compared["flipped"] == {}
    assert rows["exported"]["encoder_params"] == pytest.approx(rows["static"]["encoder_params"])
    assert compared["provenance"][str(place / "exported")]["checkpoint_fingerprint"] == "abc"
