"""The command line as a person uses it: results on stdout, errors in one sentence, exit codes."""

import copy
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from shrp import cli
from shrp.analysis import importance
from shrp.analysis.routes import shuffle_routes
from shrp.analysis.specialisation import specialisation, specialisation_frame
from shrp.analysis.usage import measure_usage, route_table
from shrp.checkpoints import checkpoint
from shrp.checkpoints import info as checkpoint_info
from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.score_rows import score_row
from shrp.cli.options import layer_list
from shrp.cli.output import TrainingBar, score_line, write_csv
from shrp.data.batching import token_counts
from shrp.data.slices import only, parse_slices, sliced_by_words
from shrp.data.sources import load_file, load_probe
from shrp.data.tasks import TASKS, TEXTS, custom_task
from shrp.errors import TrainingError
from shrp.evaluation import calibration
from shrp.evaluation.calibration import answer_shares
from shrp.evaluation.costs import cost, dense_cost, largest_budget
from shrp.evaluation.evaluate import evaluate, label_columns
from shrp.evaluation.minimal_pairs import pair_outcomes
from shrp.model.config import ShrpConfig
from shrp.model.convert import layer_kinds
from shrp.pruning import select
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import GateFit, plan_from
from shrp.training import recipe
from shrp.training.runs import run_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_tokenizer, tiny_data, tiny_routed, tiny_info):
    """A folder with a base encoder, CSV files, a teacher and a routed checkpoint of known usage."""
    root = tmp_path_factory.mktemp("cli")
    tiny_model(dropout=0.1).base_model.save_pretrained(root / "encoder")
    tiny_tokenizer.save_pretrained(root / "encoder")
    for name, n, seed in (("train", 48, 0), ("validation", 24, 1)):
        frame = tiny_data(n, seed).to_frame()
        frame.to_csv(root / f"{name}.csv", index=False)
        own = frame.rename(columns={"sentence": "review", "label": "mood"})
        own.to_csv(root / f"own-{name}.csv", index=False)
    data = load_file(root / "validation.csv", "sst2", slice_column="slice")
    model = tiny_routed()
    usage = measure_usage(model, tiny_tokenizer, data).shares()
    # As evaluated in the tests: with the slice column, and without.
    rows = tuple(
        {
            "model": model_name,
            "kind": kind,
            "data": "validation.csv",
            "data_fingerprint": known.fingerprint,
            "score": score,
            "n": 24,
        }
        for known in (data, load_file(root / "validation.csv", "sst2"))
        for model_name, kind, score in (("dense teacher", "teacher", 0.75), ("routed", "routed", 0.5))
    )
    info = tiny_info(usage={str(k): v.tolist() for k, v in usage.items()}, scores=rows)
    checkpoint.save(
        model,
        tiny_tokenizer,
        info,
        root / "routed",
        extra_files={"history.jsonl": '{"epoch": 0, "stage": 2}\n'},
    )
    return root


def failed(result, words):
    """The command ended with code 1 and one sentence on stderr, and said nothing on stdout."""
    code, out, err = result
    assert code == 1, err
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("error: ")
    text = " ".join(err.split())
    assert re.search(words, text), text
    assert text.count("error:") == 1
    return text


def test_help_of_everything(shrp):
    code, out, _ = shrp("--help")
    assert code == 0
    commands = get_command(cli.app).commands
    assert len(commands) > 10
    for command in commands:
        assert command in out
        code, text, _ = shrp(command, "--help")
        assert code == 0
        assert "Usage: python -m shrp " + command in text
        assert ("--json" in text) == (command != "card")  # which the README says
    assert shrp()[0] == 2
    assert shrp("nonsense")[0] == 2


def test_the_module_runs_by_itself(place):
    """Real processes: a result on stdout, an error without a traceback, and the exit codes; and any character, as on
    Windows, whose code page lacks the arrow between answers.
    """
    env = os.environ | {"COLUMNS": "200", "PYTHONIOENCODING": "cp1252"}
    root = Path(cli.__file__).parents[2]

    def start(*args):
        command = [sys.executable, "-m", "shrp", *map(str, args)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        return subprocess.Popen(command, cwd=root, env=env, **pipes)

    text = "ʻōlelo → \U0001f600"
    done, wrong = start("explain", place / "routed", "--text", text), start("evaluate", place / text)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert text in out
    out, err = wrong.communicate()
    assert wrong.returncode == 1
    assert err.startswith("error: ")
    assert text in err
    assert "Traceback" not in err
    assert out == ""


def test_evaluate_prints_one_json_object(shrp, place, tmp_path):
    code, out, err = shrp(
        "evaluate",
        place / "routed",
        *("--data", place / "validation.csv", "--slice-column", "slice", "--batch-size", 5),
        *("--predictions", tmp_path / "predictions.csv", "--json"),
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    loaded = checkpoint.load(place / "routed")
    data = load_file(place / "validation.csv", "sst2", slice_column="slice")
    expected = evaluate(loaded.model, loaded.tokenizer, data)
    assert result["task"] == "sst2"
    assert result["data"] == "validation.csv"
    assert result["metric"] == "accuracy"
    assert result["score"] == expected.score
    assert result["n"] == 24
    assert result["interval"] == pytest.approx(list(expected.interval))
    assert result["interval_is"] == "95%, Wilson"
    assert result["teacher"] == 0.75
    assert result["retained"] == pytest.approx(expected.score / 0.75)
    assert result["retained_interval"] == pytest.approx([end / 0.75 for end in expected.interval])
    assert {row["slice"]: row["n"] for row in result["slices"]} == pd.Series(
        data.slices
    ).value_counts().to_dict()
    frame = pd.read_csv(tmp_path / "predictions.csv")
    names = np.array(data.task.label_names)
    assert frame["prediction"].tolist() == names[expected.predictions].tolist()
    assert frame["sentence"].tolist() == [text for (text,) in data.texts]


def test_evaluate_for_people(shrp, place):
    code, out, _ = shrp("evaluate", place / "routed", "--data", place / "validation.csv")
    assert code == 0
    for words in ("accuracy", "validation.csv", "0.7500", "24", "95%"):
        assert words in out
    code, out, _ = shrp(
        "evaluate", place / "routed", "--json"
    )  # the shipped probe set, where no teacher is known
    assert code == 0
    result = json.loads(out)
    assert result["data"] == "probe/sst2"
    assert result["teacher"] is None
    assert result["retained"] is None


def test_evaluate_says_how_far_probabilities_can_be_trusted(shrp, place, tmp_path):
    options = ("--data", place / "validation.csv")
    code, out, err = shrp("evaluate", place / "routed", *options, "--json")
    assert code == 0, err
    loaded, data = checkpoint.load(place / "routed"), load_file(place / "validation.csv", "sst2")
    expected = evaluate(loaded.model, loaded.tokenizer, data)
    found, told = calibration.ece(expected), json.loads(out)["calibration"]
    assert list(told) == ["ece", "ece_interval", "ece_by_chance", "ece_by_chance_most", "brier"]
    assert told["ece"] == pytest.approx(found.value, abs=1e-6)
    assert told["ece_interval"] == pytest.approx(found.interval, abs=1e-6)
    assert told["ece_by_chance"] == pytest.approx(found.by_chance, abs=1e-6)
    assert told["ece_by_chance_most"] == pytest.approx(found.chance_most, abs=1e-6)
    assert told["brier"] == pytest.approx(calibration.brier(expected), abs=1e-6)
    code, out, _ = shrp("evaluate", place / "routed", *options)
    assert f"{found.value:.4f}" in out
    assert all(words in out for words in ("calibration", "ECE", "by chance", "5% over", "Brier"))
    pd.read_csv(place / "validation.csv").drop(columns="label").to_csv(tmp_path / "bare.csv", index=False)
    code, out, err = shrp(
        *("evaluate", place / "routed", "--data", tmp_path / "bare.csv"),
        *("--predictions", tmp_path / "answers.csv", "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["calibration"] is None


def test_evaluate_says_nothing_of_probabilities_of_numbers(shrp, tiny_routed, tiny_tokenizer, tmp_path):
    model = tiny_routed(num_labels=1)
    info = CheckpointInfo(ShrpConfig((1, 2), "sequence", expander_gain=1.0), TASKS["stsb"], base_model="tiny")
    checkpoint.save(model, tiny_tokenizer, info, tmp_path / "numbers")
    frame = pd.DataFrame(
        {"sentence1": [f"w{i}" for i in range(9)], "sentence2": "w3", "label": np.arange(9.0) / 2}
    )
    frame.to_csv(tmp_path / "rated.csv", index=False)
    options = ("evaluate", tmp_path / "numbers", "--data", tmp_path / "rated.csv")
    code, out, err = shrp(*options, "--json")
    assert code == 0, err
    assert json.loads(out)["calibration"] is None
    code, out, _ = shrp(*options)
    assert code == 0
    assert "calibration" not in out


def test_inputs_are_cut_where_the_checkpoint_s_training_did(shrp, place, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_info, "EVALUATED_TOKENS", 4)
    loaded, data = checkpoint.load(place / "routed"), load_file(place / "validation.csv", "sst2")
    assert max(token_counts(loaded.tokenizer, data.texts)) > 6
    info = replace(loaded.info, training={"config": {"max_length": 6}})
    checkpoint.save(loaded.model, loaded.tokenizer, info, tmp_path / "trained-at-6")
    for options, length, teacher in (((), 6, 0.75), (("--max-length", 5), 5, None)):
        code, out, _ = shrp(
            "evaluate", tmp_path / "trained-at-6", "--data", place / "validation.csv", "--json", *options
        )
        assert code == 0
        expected = evaluate(loaded.model, loaded.tokenizer, data, max_length=length)
        assert json.loads(out)["score"] == expected.score
        assert json.loads(out)["teacher"] == teacher  # whose score is of inputs cut at 6
    checkpoint.save(
        loaded.model, loaded.tokenizer, replace(info, training={"config": {"max_length": 64}}), tmp_path / "a"
    )
    code, out, _ = shrp(
        "evaluate", tmp_path / "a", "--data", place / "validation.csv", "--json", "--max-length", 50
    )
    assert json.loads(out)["teacher"] == 0.75  # no input is so long


def test_evaluate_counts_minimal_pairs_in_order(shrp, place, tmp_path):
    frame = pd.read_csv(place / "validation.csv").sort_values("label")
    frame["twin"] = [*range(12)] * 2  # a negative and a positive one each
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    options = ("--data", tmp_path / "pairs.csv", "--slice-column", "slice", "--pair-column", "twin")
    code, out, err = shrp("evaluate", place / "routed", *options, "--json")
    assert code == 0, err
    data = load_file(tmp_path / "pairs.csv", "sst2", slice_column="slice", pair_column="twin")
    loaded = checkpoint.load(place / "routed")
    expected = pair_outcomes(data, evaluate(loaded.model, loaded.tokenizer, data))
    assert expected.n == 12
    ends = {"low": "share_interval", "high": "share_interval"}
    for told, row in zip(json.loads(out)["pairs"], expected.by_slice().to_dict("records"), strict=True):
        assert told == {ends.get(name, name): value for name, value in row.items()} | {
            "share_interval": [row["low"], row["high"]]
        }
    code, out, err = shrp("evaluate", place / "routed", *options)
    assert "minimal pairs: in order" in out
    assert "left out" not in err
    frame.loc[frame["twin"] == 1, "twin"] = 0  # now of four inputs
    frame.to_csv(tmp_path / "four.csv", index=False)
    code, out, err = shrp("evaluate", place / "routed", "--data", tmp_path / "four.csv", *options[2:])
    assert "1 name in column 'twin' of four.csv left out: not of two inputs with different labels" in err
    code, out, err = shrp("evaluate", place / "routed", *options[:4])
    assert code == 0, err
    assert "minimal pairs" not in out


def test_prune_to_a_budget_then_evaluate(shrp, place, tmp_path, tiny_inputs, tiny_logits):
    code, out, err = shrp(
        "prune", place / "routed", "--budget", 3, "--out", tmp_path / "static", "--full-precision", "--json"
    )
    assert code == 0, err
    result = json.loads(out)
    routed, static = checkpoint.load(place / "routed"), checkpoint.load(tmp_path / "static")
    plan = make_plan({int(k): v for k, v in routed.info.usage.items()}, budget=3)
    assert result["experts_kept"] == 3
    assert result["plan"] == plan.to_dict()
    assert static.info.plan == plan
    assert static.is_static
    assert static.info.training["pruned_from"] == routed.fingerprint
    kinds = [row["kind"] for row in static.info.scores]
    assert kinds == ["teacher", "teacher", "static"]  # others' scores are not its own
    assert checkpoint.read_history(tmp_path / "static") == [{"epoch": 0, "stage": 2}]
    expected = tiny_logits(prune(routed.model, plan), tiny_inputs())
    torch.testing.assert_close(tiny_logits(static.model, tiny_inputs()), expected, atol=1e-6, rtol=1e-5)
    code, out, _ = shrp("evaluate", tmp_path / "static", "--data", place / "validation.csv", "--json")
    assert code == 0
    data = load_file(place / "validation.csv", "sst2")
    assert json.loads(out)["score"] == evaluate(static.model, static.tokenizer, data).score
    assert json.loads(out)["teacher"] == 0.75


def test_prune_by_a_plan_by_fresh_usage_and_at_random(shrp, place, tmp_path, monkeypatch):
    monkeypatch.setattr(select, "WARM_UP", 4)
    monkeypatch.setattr(select, "STEPS", 24)
    routed = checkpoint.load(place / "routed")
    usage = {int(k): v for k, v in routed.info.usage.items()}
    plan = make_plan(usage, per_layer=2, selection="random", seed=3)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    assert shrp("prune", place / "routed", "--plan", tmp_path / "plan.json", "--out", tmp_path / "a")[0] == 0
    assert checkpoint.load(tmp_path / "a").info.plan == plan
    random = ("--per-layer", 2, "--selection", "random", "--seed", 3)
    assert shrp("prune", place / "routed", *random, "--out", tmp_path / "b")[0] == 0
    assert checkpoint.load(tmp_path / "b").info.plan == plan
    fresh = ("--per-layer", 2, "--data", place / "train.csv", "--selection", "gate_norm")
    assert shrp("prune", place / "routed", *fresh, "--out", tmp_path / "c")[0] == 0
    assert checkpoint.load(tmp_path / "c").info.training["chosen_on"]["n"] > 0
    assert "chosen_on" not in checkpoint.load(tmp_path / "b").info.training
    data = load_file(place / "train.csv", "sst2")
    stats = measure_usage(routed.model, routed.tokenizer, data, output_norms=True)
    expected = make_plan(stats.shares(), per_layer=2, scores=stats.gate_norm(), selection="gate_norm")
    assert checkpoint.load(tmp_path / "c").info.plan == expected
    ablated = ("--per-layer", 1, "--data", place / "train.csv", "--selection", "ablation")
    assert shrp("prune", place / "routed", *ablated, "--out", tmp_path / "e")[0] == 0
    scores = importance.ablation(routed.model, routed.tokenizer, data)
    expected = make_plan(stats.shares(), per_layer=1, scores=scores, selection="ablation")
    assert checkpoint.load(tmp_path / "e").info.plan == expected
    fitted = ("--budget", 3, "--data", place / "train.csv", "--selection", "fitted", "--seed", 1)
    assert shrp("prune", place / "routed", *fitted, "--out", tmp_path / "d")[0] == 0
    gates = GateFit(routed.model, routed.tokenizer, data, stats.shares(), seed=1).finish()
    options = {"selection": "fitted", "combination": "fitted", "fitted": gates}
    assert checkpoint.load(tmp_path / "d").info.plan == make_plan(stats.shares(), budget=3, **options)
    outcome = shrp(
        "prune", place / "routed", "--per-layer", 1, "--combination", "fitted", "--out", tmp_path / "f"
    )
    assert outcome[0]
    assert "fitted" in outcome[2]


def test_prune_with_recovery(shrp, place, tmp_path):
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    code, _, err = shrp(
        "prune", place / "routed", "--per-layer", 1, "--recover", 2, *files, "--out", tmp_path / "r"
    )
    assert code == 0, err
    assert "epoch 2" in err
    loaded = checkpoint.load(tmp_path / "r")
    assert layer_kinds(loaded.model) == ["dense", "static", "static"]
    assert loaded.info.training["recovery"]["epochs"] == 2
    assert [row["epoch"] for row in checkpoint.read_history(tmp_path / "r")] == [0, 1, 2]
    assert loaded.info.training["recovery"]["config"]["dropout"]
    assert not run_folder(tmp_path / "r").exists()


def test_recovery_with_a_teacher_is_as_in_retain(
    shrp, place, tmp_path, tiny_model, tiny_tokenizer, tiny_info
):
    dense = replace(tiny_info(), config=ShrpConfig(()))
    checkpoint.save(tiny_model(), tiny_tokenizer, dense, tmp_path / "teacher")
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    options = ("--per-layer", 1, "--recover", 1, "--teacher", tmp_path / "teacher", "--out", tmp_path / "r")
    code, _, err = shrp("prune", place / "routed", *options, *files)
    assert code == 0, err
    config = checkpoint.load(tmp_path / "r").info.training["recovery"]["config"]
    assert (config["dropout"], config["distill_logits"], config["distill_hidden"]) == (False, 0.5, 1.0)


def test_recovery_reads_labels_as_the_checkpoint_does(
    shrp, place, tmp_path, tiny_tokenizer, tiny_routed, tiny_info
):
    """Names of classes in an order that is not the alphabet's: a file's labels are the checkpoint's ids."""
    task = custom_task("moods", ("sentence",), ("sunny", "bleak"))
    info = replace(tiny_info(usage={"1": [0.25] * 4, "2": [0.25] * 4}), task=task)
    checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "moods")
    names = {"negative": "sunny", "positive": "bleak"}
    for name in ("train", "validation"):
        frame = pd.read_csv(place / f"{name}.csv")
        frame.assign(label=frame["label"].map(names)).to_csv(tmp_path / f"{name}.csv", index=False)
    files = ("--train-file", tmp_path / "train.csv", "--validation-file", tmp_path / "validation.csv")
    rates = ("--learning-rate", 1e-9, "--new-learning-rate", 1e-9)  # it stays what it was
    out = ("--per-layer", 4, "--out", tmp_path / "r")
    code, _, err = shrp("prune", tmp_path / "moods", *out, "--recover", 1, *files, *rates)
    assert code == 0, err
    recovered = checkpoint.load(tmp_path / "r")
    data = load_file(tmp_path / "validation.csv", task)
    expected = evaluate(recovered.model, recovered.tokenizer, data).score
    assert checkpoint.read_history(tmp_path / "r")[-1]["validation_score"] == pytest.approx(
        expected, abs=0.05
    )
    assert abs(expected - 0.5) > 0.06  # so that exchanged labels would show


def glue_of(place, folder, task):
    """A data folder that holds the place's files as a GLUE task."""
    (folder / task).mkdir(parents=True)
    for split in ("train", "validation"):
        frame = pd.read_csv(place / f"{split}.csv")
        rows = {"sentence": frame["sentence"], "label": (frame["label"] == "positive").astype(int)}
        pd.DataFrame(rows | {"idx": range(len(frame))}).to_parquet(folder / task / f"{split}.parquet")
    return str(folder)


def test_recovery_takes_neither_data_nor_a_teacher_of_other_labels(
    shrp, place, tmp_path, tiny_tokenizer, tiny_routed, tiny_model, tiny_info, monkeypatch
):
    """Outputs are taken by their place, so that names in another order would be learned the wrong way round."""
    usage = {"1": [0.25] * 4, "2": [0.25] * 4}
    turned = custom_task("cola", ("sentence",), ("acceptable", "unacceptable"))
    checkpoint.save(
        tiny_routed(), tiny_tokenizer, replace(tiny_info(usage=usage), task=turned), tmp_path / "mine"
    )
    monkeypatch.setenv("SHRP_DATA_DIR", glue_of(place, tmp_path / "glue", "cola"))
    out = ("--per-layer", 1, "--out", tmp_path / "r", "--recover", 1)
    said = (
        "glue/cola train are unacceptable, acceptable, in this order, and the checkpoint's are acceptable, un"
    )
    said += "acceptable, in this order: outputs are taken by their place"
    failed(shrp("prune", tmp_path / "mine", *out, "--task", "cola"), said)
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    dense = replace(tiny_info(), config=ShrpConfig(()))
    checkpoint.save(tiny_model(), tiny_tokenizer, replace(dense, task=turned), tmp_path / "turned")
    said = "the labels of .*turned are acceptable, unacceptable, in this order, and the checkpoint's are negative"
    failed(shrp("prune", place / "routed", *out, *files, "--teacher", tmp_path / "turned"), said)
    number = custom_task("grade", ("sentence",), regression=True)
    checkpoint.save(
        tiny_model(num_labels=1), tiny_tokenizer, replace(dense, task=number), tmp_path / "number"
    )
    said = "the labels of .*number are numbers, the checkpoint's are negative, positive, in this order. Give"
    failed(shrp("prune", place / "routed", *out, *files, "--teacher", tmp_path / "number"), said)
    said = "routed is converted, and a dense teacher is distilled: name the dense model that"
    failed(shrp("prune", place / "routed", *out, *files, "--teacher", place / "routed"), said)
    three = custom_task("three", ("sentence",), ("a", "b", "c"))
    checkpoint.save(tiny_model(num_labels=3), tiny_tokenizer, replace(dense, task=three), tmp_path / "three")
    said = "of .*three are a, b, c, in this order, and the checkpoint's are negative, positive, in this order. Give"
    failed(shrp("prune", place / "routed", *out, *files, "--teacher", tmp_path / "three"), said)
    alike = replace(TASKS["cola"], label_names=TASKS["sst2"].label_names)  # as QNLI's and RTE's are
    checkpoint.save(tiny_model(), tiny_tokenizer, replace(dense, task=alike), tmp_path / "alike")
    said = "of the task cola, the checkpoint of sst2: their labels have the same names, but they are not one task"
    failed(shrp("prune", place / "routed", *out, *files, "--teacher", tmp_path / "alike"), said)
    by_id = custom_task("ids", ("sentence",), ("0", "1"))
    checkpoint.save(tiny_model(), tiny_tokenizer, replace(dense, task=by_id), tmp_path / "ids")
    ids = ("--per-layer", 1, "--out", tmp_path / "by-ids", "--recover", 1, "--teacher", tmp_path / "ids")
    code, _, err = shrp("prune", place / "routed", *ids, *files)
    assert code == 0, err
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["new"])
    model = tiny_model()
    model.resize_token_embeddings(len(other))
    checkpoint.save(model, other, dense, tmp_path / "more")
    failed(
        shrp("prune", place / "routed", *out, *files, "--teacher", tmp_path / "more"),
        "more reads other tokens",
    )
    assert not (tmp_path / "r").exists()


def test_recovery_beside_data_of_another_vocabulary(shrp, place, tmp_path, monkeypatch):
    """Meanings are of the file that usage is counted on; GLUE's labels, learned from, need none."""
    monkeypatch.setenv("SHRP_DATA_DIR", glue_of(place, tmp_path / "glue", "sst2"))
    frame = pd.read_csv(place / "validation.csv")
    frame.assign(label=frame["label"].map({"negative": "bad", "positive": "good"})).to_csv(
        tmp_path / "mine.csv", index=False
    )
    means = ("--label-means", "bad=negative", "--label-means", "good=positive")
    options = ("--data", tmp_path / "mine.csv", *means, "--recover", 1, "--out", tmp_path / "r")
    code, _, err = shrp("prune", place / "routed", "--per-layer", 1, *options)
    assert code == 0, err
    assert checkpoint.load(tmp_path / "r").info.training["recovery"]["train_data"] == "glue/sst2 train"


def test_labels_of_another_vocabulary(shrp, place, tmp_path):
    frame = pd.read_csv(place / "validation.csv")
    words = {"negative": "bad", "positive": "a=b"}
    frame.assign(label=[words[name] for name in frame["label"][:-1]] + ["so so"]).to_csv(
        tmp_path / "mine.csv", index=False
    )
    frame[:-1].to_csv(tmp_path / "ours.csv", index=False)
    means = ("--label-means", "bad=negative", "--label-means", "a=b=positive", "--label-means", "so so=")
    mine = ("--data", tmp_path / "mine.csv")
    found = []
    for options in ((*mine, *means), ("--data", tmp_path / "ours.csv")):
        code, out, err = shrp("evaluate", place / "routed", *options, "--json")
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["n"] == 23
    assert found[0]["score"] == found[1]["score"]
    code, out, err = shrp("usage", place / "routed", *mine, *means, "--by", "class", "--json")
    assert code == 0, err
    assert set(json.loads(out)["by"]) == {"negative", "positive"}
    failed(shrp("evaluate", place / "routed", *mine), "'so so' is not among|'bad' is not among|'a=b' is not")
    failed(shrp("evaluate", place / "routed", *mine, *means[:2]), "nothing says what the label")
    failed(shrp("evaluate", place / "routed", *mine, "--label-means", "bad"), "takes a label and a class")
    failed(shrp("evaluate", place / "routed", *mine, *means, "--label-means", "bad=positive"), "two meanings")
    failed(shrp("evaluate", place / "routed", *means), "for a file of your own")
    out = ("--per-layer", 1, "--out", tmp_path / "pruned")
    failed(shrp("prune", place / "routed", *out, *means), "for a file of your own")
    code, _, err = shrp("prune", place / "routed", *out, *mine, *means)
    assert code == 0, err


def test_rows_that_lack_a_text_or_a_label_are_left_out_where_asked(shrp, place, tmp_path):
    frame = pd.read_csv(place / "validation.csv")
    frame[3:].to_csv(tmp_path / "ours.csv", index=False)
    frame.loc[0, "label"], frame.loc[1:2, "sentence"] = "", " "
    frame.to_csv(tmp_path / "mine.csv", index=False)
    mine, skip = ("--data", tmp_path / "mine.csv"), "--skip-incomplete"
    left = f"left out 3 of {len(frame)} rows of mine.csv, without a text or a label"
    out = ("--per-layer", 1, "--out", tmp_path / "pruned")
    for command in (("evaluate",), ("usage",), ("knock-out",), ("sweep",), ("prune", *out)):
        asked = (command[0], place / "routed", *command[1:], *mine)
        failed(shrp(*asked), "row [12].*--skip-incomplete leaves out all rows that lack a text or a label")
        code, _, err = shrp(*asked, skip)
        assert code == 0, err
        assert left in " ".join(err.split())
    found = []
    for options in ((*mine, skip), ("--data", tmp_path / "ours.csv")):
        code, out, err = shrp("evaluate", place / "routed", *options, "--json")
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["n"] == found[1]["n"] == len(frame) - 3
    assert found[0]["score"] == found[1]["score"]
    failed(shrp("evaluate", place / "routed", skip), "--skip-incomplete is for a file of your own")
    teacher = ("reference", place / "routed", "--teacher", place / "teacher", "--data", "probe")
    failed(shrp(*teacher, skip), "--skip-incomplete is for a file of your own")


def test_own_training_files_without_their_incomplete_rows(shrp, place, tmp_path):
    frame = pd.read_csv(place / "train.csv")
    frame.loc[0, "label"] = ""
    frame.to_csv(tmp_path / "train.csv", index=False)
    files = ("--train-file", tmp_path / "train.csv", "--validation-file", place / "validation.csv")
    asked = ("finetune", "--base", place / "encoder", *files, "--text-column", "sentence", "--epochs", 1)
    failed(shrp(*asked, "--out", tmp_path / "a"), "label is missing.*--skip-incomplete leaves out")
    code, _, err = shrp(*asked, "--out", tmp_path / "b", "--skip-incomplete")
    assert code == 0, err
    assert f"left out 1 of {len(frame)} rows of train.csv" in " ".join(err.split())
    glue = (
        "finetune",
        "--base",
        place / "encoder",
        "--task",
        "sst2",
        "--out",
        tmp_path / "c",
        "--skip-incomplete",
    )
    failed(shrp(*glue), "--skip-incomplete is for files of your own")


def test_prune_with_matched_answer_shares(shrp, place, tmp_path):
    on = ("--data", place / "validation.csv", "--per-layer", 1, "--full-precision")
    for name, more in (("plain", ()), ("matched", ("--match-shares",))):
        code, _, err = shrp("prune", place / "routed", *on, "--out", tmp_path / name, *more)
        assert code == 0, err
    data = load_file(place / "validation.csv", "sst2")
    routed, plain, moved = (
        checkpoint.load(folder) for folder in (place / "routed", tmp_path / "plain", tmp_path / "matched")
    )
    found = [evaluate(one.model, one.tokenizer, data).logits for one in (routed, plain, moved)]
    wanted, _, shares = (answer_shares(logits) for logits in found)
    assert abs(shares - wanted).max() <= 1 / 24 + 1e-9
    said = moved.info.training["shares_matched"]
    assert (said["data"], said["n"]) == ("validation.csv", 24)
    np.testing.assert_allclose(found[2] - found[1], [said["shift"]] * 24, atol=1e-5)
    assert "shares_matched" not in plain.info.training
    assert shrp("card", tmp_path / "matched")[0] == 0
    card = (tmp_path / "matched" / "README.md").read_text()
    assert "Its output bias was shifted so that it gives each class as often as the routed model" in card
    out = ("--out", tmp_path / "no", "--match-shares", "--recover", 1)
    failed(shrp("prune", place / "routed", *on, *out), "with --recover the training finds the bias")


def test_a_table_that_could_not_be_written_whole_is_not_there(tmp_path, monkeypatch):
    frame, file = pd.DataFrame({"text": ["one", "two"]}), tmp_path / "p.csv"

    def full(self, path, **_):
        Path(path).write_text("text\none")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", full)
        with pytest.raises(OSError, match="No space left"):
            write_csv(frame, file)
    assert list(tmp_path.iterdir()) == []
    write_csv(frame, file)
    assert file.read_text() == "text\none\ntwo\n"
    assert list(tmp_path.iterdir()) == [file]
    write_csv(frame, tmp_path / "p.csv.gz")
    assert gzip.decompress((tmp_path / "p.csv.gz").read_bytes()) == file.read_bytes()
    (tmp_path / "link.csv").symlink_to(tmp_path / "behind.csv")
    write_csv(frame, tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "behind.csv").read_text() == file.read_text()
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit((tmp_path / "pipe").read_text)
        write_csv(frame, tmp_path / "pipe")
    assert read.result() == file.read_text()


def test_train_on_files_of_ones_own(shrp, place, tmp_path):
    """From an encoder without a head and two CSV files to a checkpoint that loads and is evaluated."""
    files = ("--train-file", place / "own-train.csv", "--validation-file", place / "own-validation.csv")
    columns = ("--text-column", "review", "--label-column", "mood")
    code, out, err = shrp(
        *("train", "--base", place / "encoder", "--out", tmp_path / "own", *files, *columns),
        *("--layers", "upper:2", "--order", "bottom-up", "--stage2-epochs", 1, "--teacher-epochs", 2),
        *("--teacher-learning-rate", 3e-3, "--learning-rate", 1e-3, "--batch-size", 8, "--recover", "1"),
        *("--random-draws", 2, "--precision", "fp32", "--base-name", "a tiny one", "--json"),
        *("--freeze-dense", "--dropout"),
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["out"] == str(tmp_path / "own")
    assert {row["kind"] for row in result["scores"]} == {"teacher", "routed", "static", "control"}
    assert "static, 4 a layer" in {row["model"] for row in result["scores"]}  # 12 of 4 is not asked for
    assert "stage: teacher" in err
    loaded = checkpoint.load(tmp_path / "own")
    assert layer_kinds(loaded.model) == ["dense", "routed", "routed"]
    assert loaded.info.base_model == "a tiny one"
    config = loaded.info.training["config"]
    assert (config["freeze_dense"], config["dropout"]) == (True, True)  # not what the recipe says
    assert loaded.info.task.text_columns == ("review",)
    assert loaded.info.task.label_names == ("negative", "positive")
    assert [row["converted_layer"] for row in checkpoint.read_history(tmp_path / "own")] == [1, 2, None]
    code, out, _ = shrp(
        "evaluate", tmp_path / "own", "--data", place / "own-validation.csv", *columns, "--json"
    )
    assert code == 0
    again, rows = json.loads(out), {r["model"]: r for r in result["scores"]}
    assert again["teacher"] == rows["dense teacher"]["score"]
    assert again["score"] == rows["routed"]["score"]  # of the weights as they are stored
    failed(shrp("evaluate", tmp_path / "own"), "one of your own.*give a file with --data")


def test_finetune_then_train_from_it(shrp, place, tmp_path):
    files = (
        "--task",
        "sst2",
        "--train-file",
        place / "train.csv",
        "--validation-file",
        place / "validation.csv",
    )
    common = ("--batch-size", 8, "--precision", "fp32")
    code, out, err = shrp(
        "finetune",
        "--base",
        place / "encoder",
        "--out",
        tmp_path / "t",
        "--epochs",
        1,
        *files,
        *common,
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["task"] == "sst2"
    assert json.loads(out)["validation_n"] == 24
    teacher = checkpoint.load(tmp_path / "t")
    assert layer_kinds(teacher.model) == ["dense"] * 3
    layers = ("--layers", "2", "--stage2-epochs", 0, "--per-layer", "1", "--random-draws", 0)
    code, out, err = shrp(
        "train", "--base", tmp_path / "t", "--out", tmp_path / "r", *layers, *files, *common
    )
    assert code == 0, err
    assert f"stage: teacher, which is {tmp_path / 't'} with its own head" in " ".join(err.split())
    assert "dense teacher" in out
    loaded = checkpoint.load(tmp_path / "r")
    assert loaded.info.config.layers == (2,)
    assert {row["data"] for row in loaded.info.scores} == {"validation.csv", "probe/sst2"}
    files = (*files, "--recover", 1, "--per-layer", 2)
    code, _, err = shrp("prune", tmp_path / "r", "--teacher", tmp_path / "t", *files, "--out", tmp_path / "p")
    assert code == 0, err
    assert checkpoint.read_history(tmp_path / "p")[-1]["distill_hidden_loss"] > 0
    (tmp_path / "p2").mkdir()
    result = shrp("prune", tmp_path / "r", "--teacher", tmp_path / "r", *files, "--out", tmp_path / "p2")
    failed(result, "dense teacher")


def test_usage_json(shrp, place):
    code, out, _ = shrp(
        *("usage", place / "routed", "--data", place / "validation.csv", "--slice-column", "slice"),
        *("--by", "class", "--output-norms", "--explained", "--exchanged", "--json"),
    )
    assert code == 0
    result = json.loads(out)
    told = {(row["by"], row["layer"]): row for row in result["explained"]}
    assert {by for by, _ in told} == {"class", "answer", "slice", "length"}
    assert told["length", 1]["beyond_length"] is None
    assert [row["layer"] for row in result["exchanged"]] == [1, 2, "all", "alike", "mixture"]
    loaded = checkpoint.load(place / "routed")
    data = load_file(place / "validation.csv", "sst2", slice_column="slice")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    lengths = token_counts(loaded.tokenizer, data.texts)
    found = specialisation_frame(specialisation(stats, data, lengths, stats.logits.argmax(-1)))
    for row in found.to_dict("records"):
        assert told[row["by"], row["layer"]]["explained"] == pytest.approx(row["explained"], nan_ok=True)
    found = shuffle_routes(loaded.model, loaded.tokenizer, data, stats, max_length=loaded.info.max_length)
    assert [row["flipped"] for row in result["exchanged"]] == found.frame["flipped"].tolist()
    assert (result["task"], result["n"], result["unit"]) == ("sst2", 24, "inputs")
    for layer in (1, 2):
        shares = [row["share"] for row in result["experts"] if row["layer"] == layer]
        assert shares == pytest.approx(stats.share(layer).tolist())
        assert shares == pytest.approx(loaded.info.usage[str(layer)])
    assert [row["effective_experts"] for row in result["layers"]] == pytest.approx(
        [stats.effective_experts(layer) for layer in (1, 2)]
    )
    assert {name: group["n"] for name, group in result["by"].items()} == {"negative": 12, "positive": 12}
    assert result["by"]["positive"]["shares"]["1"] == pytest.approx(stats.share(1, data.labels == 1).tolist())
    assert len(result["gate_norm"]["2"]) == 4
    plain = shrp("usage", place / "routed", "--data", place / "validation.csv", "--output-norms")[1]
    norms = plain[plain.index("gate times norm of the output") :]
    assert all(f"{value:.4f}" in norms for values in result["gate_norm"].values() for value in values)
    assert (result["warnings"], result["too_few"]) == ([], 50)


def test_slices_of_ones_own(shrp, place):
    words = ("--slice", "some: w1, w2", "--slice", "w3")
    for command in (("evaluate",), ("usage", "--by", "slice")):
        code, out, _ = shrp(*command[:1], place / "routed", *command[1:], *words, "--json")
        assert code == 0
        result = json.loads(out)
        data = sliced_by_words(load_probe("sst2"), parse_slices("some: w1, w2\nw3"))
        assert result["provenance"]["data_fingerprint"] == load_probe("sst2").fingerprint
        by = result.get("by") or {row["slice"]: row for row in result["slices"]}
        assert {name: row["n"] for name, row in by.items()} == dict(Counter(data.slices))
    code, out, _ = shrp("evaluate", place / "routed", "--data", place / "validation.csv", *words, "--json")
    assert {row["slice"] for row in json.loads(out)["slices"]} >= {"some"}
    code, out, _ = shrp("knock-out", place / "routed", "--expert", "2.1", *words, "--json")
    assert code == 0
    assert {row["slice"] for row in json.loads(out)["slices"]} == {*data.slices}
    for command in ("evaluate", "usage", "knock-out"):
        failed(shrp(command, place / "routed", "--slice", "x:"), "'x:' is no slice; write a name, a colon")
    own = ("--data", place / "validation.csv", "--slice-column", "slice", *words)
    failed(
        shrp("evaluate", place / "routed", *own), "--slice and --slice-column each say what the slices are"
    )


def test_only_some_slices(shrp, place, tmp_path):
    """Every command that runs data takes the same inputs, and what it says is of these."""
    some, n = ("--only", "negation", "--only", "idiom"), 80
    part = only(load_probe("sst2"), ["negation", "idiom"])[0]
    for command in (("evaluate",), ("usage",), ("knock-out", "--expert", "2.1"), ("sweep", "--draws", 0)):
        code, out, err = shrp(command[0], place / "routed", *command[1:], *some, "--json")
        assert code == 0, err
        made = json.loads(out)["provenance"]
        assert (made["data"], made["n"], made["data_fingerprint"]) == (part.name, n, part.source_fingerprint)
    loaded = checkpoint.load(place / "routed")
    expected = evaluate(loaded.model, loaded.tokenizer, part, max_length=loaded.info.max_length)
    assert json.loads(shrp("evaluate", place / "routed", *some, "--json")[1])["score"] == expected.score
    code, out, _ = shrp("compare", place / "routed", place / "routed", *some, "--json")
    assert json.loads(out)["provenance"]["first"]["n"] == n
    written = tmp_path / "p.csv"
    assert shrp("evaluate", place / "routed", *some, "--predictions", written)[0] == 0
    assert (
        pd.read_csv(written)["index"].tolist() == only(load_probe("sst2"), ["negation", "idiom"])[1].tolist()
    )
    first = load_probe("sst2").texts[pd.read_csv(written)["index"][0]][0]
    assert pd.read_csv(written)["sentence"][0] == first  # in the whole, as `--slice "odd: #40"` counts
    words = ("--slice", "some: the", "--only", "some")
    code, out, _ = shrp("evaluate", place / "routed", *words, "--json")
    mine = only(sliced_by_words(load_probe("sst2"), parse_slices("some: the")), ["some"])[0]
    assert json.loads(out)["n"] == len(mine) > 0
    out = tmp_path / "pruned"
    assert shrp("prune", place / "routed", "--budget", 3, "--data", "probe", *some, "--out", out)[0] == 0
    usage = measure_usage(loaded.model, loaded.tokenizer, part, max_length=loaded.info.max_length)
    assert checkpoint.load(out).info.plan.key() == plan_from(usage, budget=3).key()
    sliced = ("--data", place / "validation.csv", "--slice-column", "slice", "--only", "short")
    n = int((pd.read_csv(place / "validation.csv")["slice"] == "short").sum())
    for command in ("evaluate", "usage", "sweep"):
        code, out, err = shrp(command, place / "routed", *sliced, "--json")
        assert code == 0, err
        assert json.loads(out)["provenance"]["n"] == n > 0
    where = ("--budget", 3, "--out", tmp_path / "own")
    code, _, err = shrp("prune", place / "routed", *where, *sliced)
    assert code == 0, err
    vain = ("--data", "probe", "--slice", "a: the")
    failed(shrp("sweep", place / "routed", *vain), "--only says which of them")
    failed(
        shrp("prune", place / "routed", "--budget", 3, "--out", tmp_path / "no", *vain),
        "--only says which of them",
    )
    failed(
        shrp("evaluate", place / "routed", "--only", "nothing"), "probe/sst2 has no slice 'nothing'; it has"
    )
    own = ("--data", place / "validation.csv", "--only", "negation")
    failed(shrp("usage", place / "routed", *own), "has no slices of which some could be looked at alone")
    failed(
        shrp("prune", place / "routed", "--budget", 3, "--only", "negation", "--out", tmp_path / "two"),
        "--only is for what usage is measured on: name that with --data",
    )


def test_usage_for_people(shrp, place):
    code, out, _ = shrp("usage", place / "routed", "--by", "slice", "--explained", "--exchanged")
    assert code == 0
    assert "beyond length" in out
    assert "routes exchanged, by layer, in all" in out
    assert "probe/sst2" in out
    assert "effective experts" in out
    assert "negation" in out


def test_measure_json(shrp, place):
    code, out, _ = shrp("measure", place / "routed", "--tokens", 16, "--json")
    assert json.loads(out)["checkpoint_fingerprint"] == checkpoint.load(place / "routed").fingerprint
    assert code == 0
    result, model = json.loads(out), checkpoint.load(place / "routed").model
    ours, dense = cost(model, 16), dense_cost(model, 16)
    assert result["model"] == vars(ours)
    assert result["dense"] == vars(dense)
    assert result["model"]["model_params"] == sum(p.numel() for p in model.parameters())
    assert result["kept"]["encoder_params"] == pytest.approx(ours.encoder_params / dense.encoder_params)
    assert "latency" not in result
    code, out, _ = shrp("measure", place / "routed", "--tokens", 8, "--latency", "--repeats", 2, "--json")
    assert code == 0
    rows = json.loads(out)["latency"]["rows"]
    assert [row["name"] for row in rows] == ["dense", "checkpoint"]
    assert all(row["median_ms"] > 0 for row in rows)
    code, out, _ = shrp("measure", place / "routed")
    assert code == 0
    assert "encoder_flops" in out


def test_as_many_experts_are_kept_as_a_share_of_the_dense_model_allows(shrp, place, tmp_path):
    routed = checkpoint.load(place / "routed").model
    for option, share in (("--encoder-params", "60%"), ("--encoder-flops", "0.55")):
        most = float(share.rstrip("%")) / (100 if "%" in share else 1)
        budget = largest_budget(routed, most, option.strip("-").replace("-", "_"))
        assert 2 < budget < 8
        code, out, err = shrp("prune", place / "routed", option, share, "--out", tmp_path / option, "--json")
        assert code == 0, err
        assert json.loads(out)["experts_kept"] == budget
        by_hand = ("--budget", budget, "--out", tmp_path / f"{option}-by-hand", "--json")
        assert json.loads(out)["plan"] == json.loads(shrp("prune", place / "routed", *by_hand)[1])["plan"]


def test_experts_that_add_nothing_are_told(shrp, place, tmp_path):
    """Usage weighs an expert that nothing was routed to by 0."""
    loaded = checkpoint.load(place / "routed")
    usage = {str(layer): [1.0, 0.0, 0.0, 0.0] for layer in loaded.info.config.layers}
    info = replace(loaded.info, usage=usage)
    checkpoint.save(loaded.model, loaded.tokenizer, info, tmp_path / "one")
    said = r"2 of these experts have a weight of 0, as no input's first choice, .* --combination mean"
    code, _, err = shrp("prune", tmp_path / "one", "--per-layer", 2, "--out", tmp_path / "two")
    assert (code, bool(re.search(said, err))) == (0, True), err
    mean = ("--per-layer", 2, "--combination", "mean", "--out", tmp_path / "mean")
    code, _, err = shrp("prune", tmp_path / "one", *mean)
    assert (code, bool(re.search(said, err))) == (0, False), err


def test_json_has_no_nan(shrp, place, tmp_path):
    """A file without labels has no score: null, as JSON knows no nan."""
    pd.read_csv(place / "validation.csv")[["sentence"]].to_csv(tmp_path / "bare.csv", index=False)
    bare = ("evaluate", place / "routed", "--data", tmp_path / "bare.csv")
    failed(shrp(*bare, "--json"), "bare.csv has no column 'label' to score by; name it with --label-column")
    written = ("--predictions", tmp_path / "p.csv")
    code, out, _ = shrp(*bare, "--json", *written)
    assert code == 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == 24
    failed(shrp(*bare, *written), "p.csv exists already; choose another --predictions file")
    failed(
        shrp(*bare, "--predictions", tmp_path / "p.csv.zst"),
        "would be compressed by zstd, which is not to be had",
    )
    failed(
        shrp(*bare, "--predictions", tmp_path / "p.csv.zip"),
        "would be an archive; .gz, .bz2 and .xz compress",
    )
    assert shrp(*bare, "--predictions", tmp_path / "p.zip.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "p.zip.csv")) == 24
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)  # nobody waits for anybody
    assert shrp(*bare, "--json", "--predictions", tmp_path / "pipe")[0] == 0
    assert os.read(pipe, 2**16).decode() == (tmp_path / "p.csv").read_text()
    os.close(pipe)
    result = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert result["score"] is None
    assert result["n"] == 24


def test_errors_of_every_command_are_one_sentence(shrp, place, tmp_path, monkeypatch):
    monkeypatch.delenv("SHRP_DATA_DIR", raising=False)
    routed, csv = place / "routed", place / "validation.csv"
    for command in ("evaluate", "usage", "measure"):
        failed(shrp(command, tmp_path / "nowhere", "--json"), r"there is no .*nowhere")
        failed(shrp(command, place / "encoder"), "without a trained classification head")
    failed(shrp("evaluate", routed, "--data", tmp_path / "no.csv"), r"There is no file .*no\.csv")
    failed(shrp("evaluate", routed, "--data", csv, "--text-column", "words"), "no column 'words'.*sentence")
    failed(shrp("usage", routed, "--by", "author"), "class, answer, outcome, slice or length")
    failed(shrp("measure", routed, "--tokens", 0), "tokens must be 1 or more, not 0")
    failed(shrp("measure", routed, "--latency", "--tokens", 500), "reads at most 40 tokens, not 500")
    out = ("--out", tmp_path / "x")
    failed(
        shrp("prune", routed, *out),
        "exactly one of --budget, --per-layer, --encoder-params, --enc.* and --plan",
    )
    failed(shrp("prune", routed, *out, "--max-loss", "-1"), "--max-loss is 0 or more")
    failed(
        shrp("prune", routed, *out, "--max-loss", 1, "--selection", "random"),
        "--max-loss counts what experts",
    )
    failed(shrp("prune", routed, *out, "--encoder-params", "half"), "written as 52.5% or 0.525, not 'half'")
    failed(
        shrp("prune", routed, *out, "--encoder-flops", "1%"),
        "smallest pruning, one expert a layer, has .*FLOPs",
    )
    failed(shrp("prune", routed, *out, "--budget", 3, "--per-layer", 1), "exactly one")
    failed(shrp("prune", routed, *out, "--budget", 9), "to 8")
    failed(
        shrp("prune", routed, *out, "--per-layer", 1, "--selection", "best"),
        "usage, gate_norm, ablation, fitted, random, recorded",
    )
    failed(shrp("prune", routed, *out, "--plan", csv), "not a readable JSON file")
    (tmp_path / "plan.json").write_text("[1, 2]")
    failed(shrp("prune", routed, *out, "--plan", tmp_path / "plan.json"), "not a pruning plan")
    base = ("train", "--base", place / "encoder", *out)
    failed(shrp(*base), "GLUE task.*sst2.*--train-file")
    failed(shrp(*base, "--train-file", csv), "both --train-file and --validation-file")
    files = ("--task", "sst2", "--train-file", csv, "--validation-file", csv)
    failed(shrp(*base, *files, "--layers", "6-11"), "layers are 0 to 2")
    failed(shrp(*base, *files, "--layers", "top"), r'"6-11", "1,3,5" or "upper:6"')
    failed(shrp(*base, *files, "--layers", "1,2", "--order", "1"), "each of the layers")
    failed(shrp(*base, *files, "--layers", "1,2", "--routing", "magic"), '"sequence" or "token"')
    failed(shrp(*base, *files, "--layers", "1,2", "--recover", "5"), "1 to 4 experts")
    failed(shrp(*base, *files, "--layers", "1,2", "--recovery-epochs", 2), "that --recover names")
    failed(shrp(*base, *files, "--layers", "1,2", "--per-layer", "one"), '"1,2,4"')
    failed(
        shrp(*base, *files, "--layers", "1,2", "--learning-rate", 0), "learning_rate must be a number above 0"
    )
    missing = ("train", "--base", tmp_path / "no-model", *out, *files)
    failed(shrp(*missing), "neither a folder with a model")
    failed(shrp("finetune", *missing[1:]), "neither a folder with a model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]  # nothing begun is left behind


def test_what_would_destroy_is_refused(shrp, place, tmp_path):
    before = checkpoint.fingerprint(place / "routed")
    failed(shrp("prune", place / "routed", "--budget", 3, "--out", place / "routed"), "itself")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    failed(shrp("prune", place / "routed", "--budget", 3, "--out", tmp_path / "notes"), "exists already")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"
    files = (
        "--task",
        "sst2",
        "--train-file",
        place / "train.csv",
        "--validation-file",
        place / "validation.csv",
    )
    train = ("train", "--base", place / "encoder", "--layers", "2", *files, "--out", place / "routed")
    failed(shrp(*train), "exists already")
    tune = ("finetune", "--base", place / "encoder", *files, "--out")
    failed(shrp(*tune, place / "encoder"), "the base itself")
    failed(shrp(*tune, tmp_path / "notes"), "exists already")
    failed(
        shrp("prune", place / "routed", "--budget", 3, "--out", tmp_path / "notes" / "thesis.txt"),
        "exists already",
    )
    failed(shrp("finetune", "--base", place / "routed", *files, "--out", place / "routed"), "the base itself")
    assert checkpoint.fingerprint(place / "routed") == before


def test_options_that_would_do_nothing_are_refused(shrp, place, tmp_path):
    prune = ("prune", place / "routed", "--per-layer", 1, "--out", tmp_path / "x")
    failed(shrp(*prune, "--teacher", place / "teacher"), "--teacher is for training on after pruning")
    failed(shrp(*prune, "--selection", "random", "--seed", -1), "seed must be between 0 and")
    for option in (("--task", "cola"), ("--epoch-size", 9), ("--learning-rate", 1e-3), ("--resume",)):
        failed(shrp(*prune, *option), f"{option[0]} is for training on after pruning")
    (tmp_path / "plan.json").write_text(json.dumps(make_plan({1: [1], 2: [1]}, per_layer=1).to_dict()))
    by_plan = ("prune", place / "routed", "--plan", tmp_path / "plan.json", "--out", tmp_path / "x")
    for option in (("--selection", "random"), ("--combination", "mean"), ("--data", "probe")):
        failed(shrp(*by_plan, *option), f"{option[0]} does nothing beside --plan")
    for option in ("--text-column", "--slice-column", "--pair-column"):
        failed(
            shrp("evaluate", place / "routed", option, "tag"),
            f"{option} is for a file of your own; what probe",
        )
    failed(shrp(*prune, "--text-column", "a"), "--text-column is for a file of your own; give one with")
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    text = ("--text-column", "sentence")
    train = ("train", "--base", place / "encoder", *files, *text, "--out", tmp_path / "y")
    failed(
        shrp(*train, "--layers", "2", "--per-layer", "1,9"),
        "--per-layer is for 1 to 4 experts a layer, not 9",
    )
    failed(shrp(*train, "--layers", "2-1"), "'2-1' goes backwards; write the lower layer first, 1-2")
    adopt = ("finetune", "--base", place / "encoder", *files, *text, "--epochs", 0, "--out", tmp_path / "y")
    idle = (("--learning-rate", 1e-3), ("--batch-size", 8), ("--epoch-size", 9), ("--precision", "fp32"))
    for option in (*idle, ("--freeze-embeddings",), ("--resume",), ("--seed", 1)):
        failed(shrp(*adopt, *option), f"{option[0]} does nothing with --epochs 0")
    converted = ("--converted", place / "routed")
    for option in (("--layers", 2), ("--routing", "token"), ("--top-k", 2)):
        failed(shrp(*train, *converted, *option), f"{option[0]}: .* has its own already")
    for option in (("--order", "bottom-up"), ("--balance", 1), ("--swap", 0.5), ("--conversion-size", 9)):
        failed(shrp(*train, *converted, *option), f"{option[0]} is for stage 1, which .* has behind it")
    assert not (tmp_path / "x").exists()


def test_a_result_needs_a_name(shrp, place, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    files = (*files, "--text-column", "sentence")
    for out in (".", ".."):
        failed(shrp("prune", place / "routed", "--budget", 3, "--out", out), "is no name for a result")
        failed(shrp("finetune", "--base", place / "encoder", *files, "--out", out), "is no name for a result")
        failed(shrp("train", "--base", place / "encoder", *files, "--out", out), "is no name for a result")
    assert not list((tmp_path / "empty").iterdir())


def test_a_pruned_checkpoint_is_not_pruned_or_counted(shrp, place, tmp_path):
    assert shrp("prune", place / "routed", "--budget", 2, "--out", tmp_path / "s")[0] == 0
    failed(shrp("prune", tmp_path / "s", "--budget", 2, "--out", tmp_path / "t"), "pruned already")
    failed(shrp("usage", tmp_path / "s"), "no routed layer")


def test_places_that_cannot_be_written_are_named(shrp, place, tmp_path):
    (tmp_path / "file").write_text("text")
    result = shrp("evaluate", place / "routed", "--predictions", tmp_path / "no" / "p.csv")
    failed(result, rf"{re.escape(str(tmp_path / 'no'))} is no folder; make it first")
    result = shrp("prune", place / "routed", "--budget", 2, "--out", tmp_path / "file" / "x")
    failed(result, rf"{re.escape(str(tmp_path / 'file' / 'x'))}\b.*cannot be written")


def test_wrong_usage_is_exit_code_2(shrp, place):
    assert shrp("evaluate", place / "routed", "--batch-size", 0)[0] == 2
    assert shrp("evaluate", place / "routed", "--max-length", 1)[0] == 2
    assert shrp("evaluate")[0] == 2
    assert shrp("prune", place / "routed", "--budget", "many", "--out", "x")[0] == 2


def test_interrupting_is_exit_code_130(shrp, place, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "load", interrupt)
    code, out, err = shrp("evaluate", place / "routed")
    assert code == 130
    assert out == ""
    assert "Traceback" not in err


def test_brackets_in_messages_are_not_markup(shrp, tmp_path):
    text = failed(shrp("evaluate", tmp_path / "[bold]odd[/]"), "there is no")
    assert "[bold]odd[/]" in text


def test_names_of_ones_own_are_not_markup(shrp, place, tmp_path):
    data = tmp_path / "[b]mine :fire:.csv"
    data.write_text("sentence,label,slice\nw1 w2,0,[/x]\nw40 w41,1,[red]\n")
    code, out, err = shrp("evaluate", place / "routed", "--data", data, "--slice-column", "slice")
    assert code == 0, err
    for name in ("[/x]", "[red]", data.name):
        assert name in out
    (tmp_path / "[v2]").mkdir()
    code, _, err = shrp("prune", place / "routed", "--budget", 3, "--out", tmp_path / "[v2]" / "out")
    assert code == 0
    assert f"wrote {tmp_path}/[v2]/out" in err


def test_a_constant_model_is_scored_without_an_interval(
    shrp, tmp_path, tiny_model, tiny_tokenizer, tiny_data
):
    """Its Matthews correlation is 0 in every resample: no ground for certainty, so files hold null."""
    data, model = replace(tiny_data(24, 0, sliced=False), task=TASKS["cola"]), tiny_model()
    torch.nn.init.constant_(model.classifier.weight, 0.0)
    model.classifier.bias.data = torch.tensor([-1.0, 1.0])
    data.to_frame().to_csv(tmp_path / "texts.csv", index=False)
    found = evaluate(model, tiny_tokenizer, data)
    assert (found.score, found.ends()) == (0.0, None)
    row = score_row("routed", "routed", [found], 0.5)
    assert json.loads(json.dumps(row, allow_nan=False))["interval"] is None
    assert score_line(row)["interval"] == "-"
    epoch = {
        "epoch": 0,
        "stage": 2,
        "converted_layer": None,
        "loss": 0.1,
        "balance_loss": 0.0,
        "seconds": 1.0,
    }
    epoch |= {"metric": "matthews", "validation_score": 0.0, "validation_n": 24}
    TrainingBar().epoch(epoch | {"validation_interval": found.ends()})
    info = CheckpointInfo(ShrpConfig(()), data.task, base_model="tiny", scores=(row,))
    checkpoint.save(model, tiny_tokenizer, info, tmp_path / "constant")
    command = ("evaluate", tmp_path / "constant", "--data", tmp_path / "texts.csv")
    code, out, err = shrp(*command)
    assert code == 0, err
    assert "matthews 0.0000 (n = 24)" in err  # the epoch's line
    assert "nan" not in out
    result = json.loads(shrp(*command, "--json")[1], parse_constant=pytest.fail)
    assert (result["score"], result["interval"], result["retained_interval"]) == (0.0, None, None)


def test_layer_lists():
    assert layer_list("6-8", 12) == (6, 7, 8)
    assert layer_list("1,3,5-6", 12) == (1, 3, 5, 6)
    assert layer_list("upper:2", 12) == (10, 11)
    for text in ("", "a", "1-b", "upper:", "1;2", "6-", "-6"):
        with pytest.raises(TrainingError, match="layers must look like"):
            layer_list(text, 12)
    for text in ("upper:13", "upper:0", "upper:-1"):
        with pytest.raises(TrainingError, match="1 to 12 on this encoder"):
            layer_list(text, 12)
    for text in ("12", "3,0-99999999999"):
        with pytest.raises(TrainingError, match="0 to 11 on this encoder"):
            layer_list(text, 12)


def test_a_conversion_without_a_task_is_not_scored(shrp, place, tiny_routed, tiny_tokenizer, tmp_path):
    usage = {str(layer): [0.4, 0.3, 0.2, 0.1] for layer in (1, 2)}
    info = CheckpointInfo(ShrpConfig((1, 2), expander_gain=1.0), TEXTS, base_model="tiny", usage=usage)
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "texts")
    own = tmp_path / "own.csv"
    own.write_text("text,label\nw1 w2,pos\nw3,neg\n")  # whose labels are of some task, not of texts
    code, _, err = shrp("usage", folder, "--data", own)
    assert code == 0, err
    for command in (("evaluate",), ("export", "--out", tmp_path / "onnx", "--per-layer", 1), ("sweep",)):
        name, *options = command
        code, out, err = shrp(name, folder, *options)
        assert (code, out) == (1, "")
        assert "has no task yet" in " ".join(err.split())


def test_measure_tells_the_speed_up_and_how_it_was_timed(shrp, place):
    given = ("measure", place / "routed", "--tokens", 8, "--batch", 2, "--latency", "--repeats", 2)
    code, out, _ = shrp(*given, "--json")
    assert code == 0
    told = json.loads(out)["latency"]
    assert (told["batch"], told["tokens"]) == (2, 8)
    assert {row["runtime"] for row in told["rows"]} == {"PyTorch, float32"}
    assert told["threads"] >= 1
    dense, ours = told["rows"]
    assert dense["speedup"] == 1
    assert ours["speedup"] == pytest.approx(dense["median_ms"] / ours["median_ms"])
    assert ours["inputs_per_s"] == pytest.approx(2000 / ours["median_ms"])
    code, out, _ = shrp(*given)
    assert code == 0
    assert "times dense" in out
    assert "PyTorch, float32" in " ".join(out.split())


def test_checkpoints_and_exports_are_timed_beside_each_other(shrp, place, tmp_path, monkeypatch):
    pruned, exported = tmp_path / "pruned", tmp_path / "exported"
    assert shrp("prune", place / "routed", "--per-layer", 1, "--out", pruned)[0] == 0
    assert shrp("export", pruned, "--int8", "--out", exported)[0] == 0
    timed = ("measure", pruned, "--tokens", 8, "--batch", 2, "--repeats", 2)
    both = ("--beside", place / "routed", "--beside", exported)
    code, out, err = shrp(*timed, "--latency", *both, "--json")
    assert code == 0, err
    rows = json.loads(out)["latency"]["rows"]
    assert [row["name"] for row in rows] == ["dense", "checkpoint", str(place / "routed"), str(exported)]
    assert [row["runtime"] for row in rows] == ["PyTorch, float32"] * 3 + ["onnxruntime, int8"]
    for row in rows:
        assert row["speedup"] == pytest.approx(rows[0]["median_ms"] / row["median_ms"])
    failed(shrp(*timed, *both), "--beside is for what is to be timed: give --latency with it")
    for option in ("--batch", "--repeats"):
        said = f"{option} is for what is to be timed: give --latency with it"
        failed(shrp("measure", pruned, option, 3), said)
    failed(shrp(*timed, "--latency", *both, *both[:2]), "is timed already")
    failed(shrp(*timed, "--latency", "--beside", pruned / ".." / "pruned"), "is timed already")
    named = tmp_path / "dense"
    shutil.copytree(pruned, named)
    monkeypatch.chdir(tmp_path)
    code, out, err = shrp(*timed, "--latency", "--beside", "dense", "--json")
    assert code == 0, err
    assert [row["name"] for row in json.loads(out)["latency"]["rows"]] == ["dense", "checkpoint", "./dense"]
    failed(shrp("measure", exported), "is an export: time it beside the checkpoint")
    failed(shrp(*timed, "--latency", "--beside", tmp_path / "no"), "there is no .*no")
    long = ("measure", pruned, "--latency", "--tokens", 32, "--beside", exported)
    cut = json.loads((exported / "config.json").read_text()) | {"max_length": 16}
    (exported / "config.json").write_text(json.dumps(cut))
    failed(shrp(*long), "reads at most 16 tokens, not 32; give --tokens")


def test_measure_counts_nothing_that_the_model_can_t_read(shrp, place):
    failed(shrp("measure", place / "routed", "--tokens", 100_000), "reads at most")


def test_a_plan_is_taken_from_a_static_checkpoint_s_folder(shrp, place, tmp_path):
    assert shrp("prune", place / "routed", "--per-layer", 2, "--out", tmp_path / "first")[0] == 0
    for number, plan in enumerate((tmp_path / "first", tmp_path / "first" / "config.json")):
        out = tmp_path / f"again{number}"
        code, _, err = shrp("prune", place / "routed", "--plan", plan, "--out", out)
        assert code == 0, err
        assert checkpoint.load(out).info.plan.layers == checkpoint.load(tmp_path / "first").info.plan.layers
    failed(
        shrp("prune", place / "routed", "--plan", place / "routed", "--out", tmp_path / "x"),
        "carries no plan",
    )


def test_help_cuts_nothing_in_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    group = get_command(cli.app)
    shown = CliRunner().invoke(cli.app, ["--help"], prog_name="shrp").output
    for name, command in group.commands.items():
        assert re.search(rf"^  {name} +{re.escape(command.short_help)}$", shown, re.MULTILINE), name
        out = CliRunner().invoke(cli.app, [name, "--help"], prog_name="shrp").output
        for option in (
            option for param in command.params for option in param.opts if option.startswith("--")
        ):
            assert re.search(rf"^  (-h, )?{option}\b", out, re.MULTILINE), (name, option)


def test_every_command_s_help_ends_with_an_example(shrp):
    code, out, _ = shrp("--help")
    assert code == 0
    names = re.findall(r"^  ([a-z][a-z-]+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert {"train", "prune", "sweep", "compare", "knock-out"} <= set(names)
    for name in names:
        code, out, _ = shrp(name, "--help")
        assert code == 0
        assert re.search(rf"^  Example:\n\n    python -m shrp {name} .*[^.\n]\n\n  \w", out, re.MULTILINE), (
            name
        )


def test_every_option_of_a_training_reaches_its_recipe(shrp, place, tmp_path, monkeypatch):
    seen = {}

    def run(steps, *_, **options):
        seen.update(steps=steps, **options)
        raise TrainingError("seen")

    monkeypatch.setattr(recipe, "RecipeRun", run)
    of_config = {
        **{"balance": 0.2, "learning_rate": 1e-4, "new_learning_rate": 1e-3, "stage2_epochs": 3},
        **{"distill_logits": 0.7, "distill_hidden": 0.4, "expander_init": "least_squares", "swap": 0.3},
        **{"exploration": 0.6, "conversion_size": 40, "epoch_size": 30, "batch_size": 8, "max_length": 20},
        **{"precision": "fp32", "seed": 5},
    }
    others = {"teacher_learning_rate": 2e-4, "recovery_epochs": 6}
    texts = {"order": "bottom-up", "layers": "1,2", "routing": "token", "top_k": 2, "recipe": "paper"}
    texts |= {"per_layer": "1,3", "recover": "2,4", "random_draws": 5, "head_labels": "a,b"}
    options = [(f"--{name.replace('_', '-')}", value) for name, value in (of_config | others | texts).items()]
    flags = ("--no-dropout", "--freeze-dense", "--freeze-embeddings", "--keep-stages", "--full-precision")
    files = [part for name in ("train", "validation") for part in (f"--{name}-file", place / f"{name}.csv")]
    command = ("train", "--base", place / "encoder", "--out", tmp_path / "out", "--task", "sst2", *files)
    failed(shrp(*command, *(part for option in options for part in option), *flags), "seen")
    steps, config = seen["steps"], seen["steps"].config
    assert {name: getattr(config, name) for name in of_config} == of_config
    assert (config.order, config.dropout) == ((1, 2), False)
    assert config.freeze_dense
    assert config.freeze_embeddings
    assert config.shrp == ShrpConfig((1, 2), "token", 2, expander_gain=config.shrp.expander_gain)
    assert (steps.per_layer, steps.recover, steps.recovery_epochs) == ((1, 3), (2, 4), 6)
    assert steps.random_draws == 5
    assert (steps.teacher.stage2_epochs, steps.teacher.learning_rate) == (3, 2e-4)
    shared = ("epoch_size", "batch_size", "max_length", "freeze_embeddings", "precision", "seed")
    assert [getattr(steps.teacher, name) for name in shared] == [getattr(config, name) for name in shared]
    assert seen["head_labels"] == ("a", "b")
    assert (seen["keep_stages"], seen["dtype"], seen["resume"]) == (True, None, False)
    failed(shrp(*command, "--teacher-epochs", 4), "seen")
    assert seen["steps"].teacher.stage2_epochs == 4


def test_every_inputs_route_is_written(shrp, place, tmp_path):
    file, data = tmp_path / "routes.csv", load_file(place / "validation.csv", "sst2")
    command = ("usage", place / "routed", "--data", place / "validation.csv", "--routes", file)
    code, _, err = shrp(*command)
    assert code == 0, err
    assert f"wrote {file}" in "".join(err.split("\n"))
    loaded = checkpoint.load(place / "routed")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    answers = evaluate(loaded.model, loaded.tokenizer, data).predictions
    expected = route_table(stats, data, answers, token_counts(loaded.tokenizer, data.texts))
    pd.testing.assert_frame_equal(pd.read_csv(file), expected, check_dtype=False)
    failed(shrp(*command), "routes.csv exists already; choose another --routes file")


def test_numbers_have_no_answer_shares_to_match(shrp, tiny_routed, tiny_tokenizer, tmp_path):
    usage = {str(layer): [0.4, 0.3, 0.2, 0.1] for layer in (1, 2)}
    config = ShrpConfig((1, 2), expander_gain=1.0)
    info = CheckpointInfo(config, TASKS["stsb"], base_model="tiny", usage=usage)
    folder = checkpoint.save(tiny_routed(num_labels=1), tiny_tokenizer, info, tmp_path / "numbers")
    for command in (
        ("prune", folder, "--per-layer", 1, "--out", tmp_path / "p", "--match-shares"),
        ("sweep", folder, "--match-shares"),
    ):
        failed(shrp(*command), "--match-shares is for classes")


def test_a_run_that_there_is_not_can_not_go_on_and_pairs_must_be_some(shrp, place, tmp_path):
    files = [part for name in ("train", "validation") for part in (f"--{name}-file", place / f"{name}.csv")]
    out = ("--per-layer", 1, "--recover", 1, "--task", "sst2", "--out", tmp_path / "p", "--resume")
    code, _, err = shrp("prune", place / "routed", *files, *out)
    assert code == 0, err
    assert "no run to resume in" in " ".join(err.split())
    frame = pd.read_csv(place / "validation.csv").assign(twin=range(24))
    frame.to_csv(tmp_path / "single.csv", index=False)
    command = ("evaluate", place / "routed", "--data", tmp_path / "single.csv", "--pair-column", "twin")
    failed(shrp(*command), "no name in column 'twin' .* so there are no minimal pairs")


def test_an_option_of_one_value_is_given_once(shrp, place):
    """The last one would win, and nobody would know."""
    own = ("--data", place / "validation.csv", f"--data={place / 'train.csv'}")
    failed(shrp("evaluate", place / "routed", *own), "--data is given 2 times, and takes one value")
    twice = ("--only", "negation", "--only", "idiom", "--json")
    assert shrp("evaluate", place / "routed", *twice)[0] == 0


def test_prune_says_by_what_it_chose_and_what_a_score_is_not_above(shrp, place, tmp_path):
    def pruned(name, *more):
        code, _, err = shrp("prune", place / "routed", "--budget", 3, *more, "--out", tmp_path / name)
        assert code == 0, err
        return " ".join(err.split()), checkpoint.load(tmp_path / name).info

    said, plain = pruned("plain")
    assert "experts were chosen by the usage that the checkpoint carries" in said
    recorded = pruned("recorded", "--selection", "recorded")[1]
    assert recorded.plan.key() == plain.plan.key()
    said, measured = pruned("measured", "--data", "probe")
    assert "that the checkpoint carries" not in said
    assert "experts were chosen on probe/sst2" in said
    # Which is what a sweep of these data has, and what it says to make one of its rows by.
    _, out, _ = shrp("sweep", place / "routed", "--allocation", "budget", "--draws", 0, "--json")
    loaded = checkpoint.load(place / "routed")
    usage = measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2"))
    assert measured.plan.key() == plan_from(usage, budget=3).key()
    score = next(row["score"] for row in json.loads(out)["prunings"] if row["kept"] == 3)
    assert next(row["score"] for row in measured.scores if row["kind"] == "static") == pytest.approx(
        score, abs=0.01
    )
    _, _, err = shrp("sweep", place / "routed", "--draws", 0, "--only", "negation")
    command = (
        "shrp prune " + f"{place / 'routed'} --per-layer N --selection usage --data probe --only negation"
    )
    assert command in " ".join(err.split())
    both = ("--selection", "recorded", "--data", "probe", "--out", tmp_path / "none")
    failed(
        shrp("prune", place / "routed", "--budget", 3, *both), "goes by the usage that the checkpoint carries"
    )
    _, out, _ = shrp(
        "prune", place / "routed", "--budget", 3, "--match-shares", "--out", tmp_path / "matched", "--json"
    )
    shift = checkpoint.load(tmp_path / "matched").info.training["shares_matched"]["shift"]
    assert json.loads(out)["shares_matched"]["shift"] == shift
    assert json.loads(out)["pruned_from"] == checkpoint.load(place / "routed").fingerprint


def test_what_is_given_of_a_table_is_used_or_refused(shrp, place, tmp_path):
    failed(
        shrp("evaluate", place / "routed", "--label-column", "mood"),
        "--label-column is for a file of your own",
    )
    _, _, err = shrp("evaluate", place / "routed", "--slice", "rare: qqqq", "--slice", "some: the")
    assert "no input of probe/sst2 is in the slice rare" in err
    frame = pd.read_csv(place / "validation.csv").rename(columns={"sentence": "review"})
    frame.to_csv(tmp_path / "mine.csv", index=False)
    own = ("--data", tmp_path / "mine.csv")
    failed(shrp("evaluate", place / "routed", *own), "has no column 'sentence'")
    assert "Name yours with --text-column." in " ".join(shrp("evaluate", place / "routed", *own)[2].split())
    assert shrp("evaluate", place / "routed", *own, "--text-column", "review", "--json")[0] == 0
    failed(shrp("evaluate", place / "routed", *own, "--text-column", "x"), "has no column 'x'")
    assert "--text-column" not in shrp("evaluate", place / "routed", *own, "--text-column", "x")[2]


def test_usage_counts_minimal_pairs_as_one(shrp, place, tmp_path):
    frame = pd.read_csv(place / "validation.csv")
    frame.assign(label=[0, 1] * (len(frame) // 2), twin=[i // 2 for i in range(len(frame))]).to_csv(
        tmp_path / "pairs.csv", index=False
    )
    own = ("--data", tmp_path / "pairs.csv", "--explained", "--json")
    code, out, err = shrp("usage", place / "routed", *own, "--pair-column", "twin")
    assert code == 0, err
    data = load_file(tmp_path / "pairs.csv", "sst2", pair_column="twin")
    loaded = checkpoint.load(place / "routed")
    stats = measure_usage(loaded.model, loaded.tokenizer, data, max_length=loaded.info.max_length)
    answers = stats.logits[:, label_columns(loaded.model, data.task)].argmax(-1)
    wanted = specialisation_frame(
        specialisation(stats, data, token_counts(loaded.tokenizer, data.texts), answers)
    )
    told = json.loads(out)["explained"]
    assert [row["p"] for row in told] == pytest.approx(wanted["p"].tolist(), abs=0.01)
    single = json.loads(shrp("usage", place / "routed", *own)[1])["explained"]
    assert told != single
