"""Commands that train: what they write, what their config files may say, and what they refuse."""

import json

import pandas as pd
import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.evaluation.calibration import answer_shares


@pytest.fixture
def files(place):
    """Options for the training and validation files."""
    tables = "--train-file", place / "train.csv", "--validation-file", place / "validation.csv"
    return (*tables, "--task", "sst2")


@pytest.fixture
def config(tmp_path):
    """Writes a config file."""

    def write(**fields):
        (tmp_path / "config.json").write_text(json.dumps(fields))
        return ("--config", tmp_path / "config.json")

    return write


def test_from_a_base_to_a_teacher_a_routed_and_a_fine_tuned_checkpoint(shrp, told, place, files, config, tmp_path):
    quick = {"max_length": 16, "batch_size": 16, "learning_rate": 1e-3}
    teach = ("finetune", "--base", place / "encoder", *files, "--out", tmp_path / "teacher")
    assert told(*teach, *config(training=quick | {"stage2_epochs": 1, "seed": 7}))["epoch"] == 0
    teacher = checkpoint.load(tmp_path / "teacher")
    assert [teacher.info.training["config"][name] for name in ("batch_size", "seed")] == [16, 7]
    options = config(training=quick | {"stage2_epochs": 1}, per_layer=[1], random_draws=1)
    train = ("train", "--base", tmp_path / "teacher", *files, "--layers", "1,2", *options)
    code, out, err = shrp(*train, "--out", tmp_path / "routed", "--json")
    assert code == 0, err
    kinds = [(row["model"], row["kind"]) for row in json.loads(out)["scores"]]
    assert {kind for _, kind in kinds} >= {"teacher", "routed", "static"}
    routed = checkpoint.load(tmp_path / "routed")
    assert routed.info.config.layers == (1, 2)
    assert "stage 1: converting layer 2" in err
    pruned = ("prune", tmp_path / "routed", "--per-layer", 1, "--out", tmp_path / "pruned", "--fine-tune", 1)
    pruned += ("--data", place / "unlabelled.csv")
    pruned += ("--teacher", tmp_path / "teacher", *files[:4], *config(training=quick), "--json")
    code, out, err = shrp(*pruned)
    assert code == 0, err
    made = checkpoint.load(tmp_path / "pruned")
    assert made.is_static
    assert [row["data"] for row in json.loads(out)["scores"]] == ["validation.csv"]
    assert "unlabelled.csv: they have no labels" in err
    assert made.info.training["recovery"]["config"]["distill_logits"] == 0.5
    assert "fine-tuning after pruning" in err


def test_prune_with_a_calibrated_threshold(told, place, known, tmp_path):
    loaded, data = known
    options = ("--per-layer", 1, "--data", place / "data.csv", "--calibrate", "--out", tmp_path / "out")
    told("prune", place / "routed", *options)
    made = checkpoint.load(tmp_path / "out")
    shares = [answer_shares(one.evaluate(data).logits).tolist() for one in (made, loaded)]
    assert shares[0] == pytest.approx(shares[1], abs=2 / 60)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("prune", "routed"), "exactly one"),
        (("prune", "routed", "--budget", 9), "to 8"),
        (("prune", "routed", "--plan", "data.csv"), "data.csv"),
        (("prune", "routed", "--per-layer", 1, "--train-file", "train.csv"), "--fine-tune"),
        (("prune", "routed", "--per-layer", 1, "--calibrate", "--fine-tune", 1), "threshold"),
        (("prune", "static1", "--per-layer", 1), "routed"),
        (("prune", "dense", "--per-layer", 1), "routed"),
        (("train", "--base", "encoder"), "--task"),
        (("train", "--base", "encoder", "--train-file", "train.csv"), "both"),
        (("train", "--base", "encoder", "FILES", "--layers", "6-11"), "0 to 2"),
        (("train", "--base", "encoder", "FILES", "--converted", "dense"), "`convert`"),
        (("train", "--base", "nowhere", "FILES"), "nowhere"),
        (("finetune", "--base", "nowhere", "FILES"), "nowhere"),
        (("finetune", "--base", "encoder", "FILES", "--epochs", 0), "trained head"),
        (("convert", "--base", "encoder", "--texts", "none.csv"), "none.csv"),
        (("convert", "--base", "dense", "--texts", "own.csv", "--validation-file", "own.csv"), "--quick"),
        (("convert", "--base", "dense", "--texts", "own.csv", "--label-column", "mood"), "--quick"),
    ],
)
def test_what_cannot_be_done_is_refused(shrp, place, monkeypatch, failed, files, tmp_path, args, words):
    monkeypatch.chdir(place)
    before = {path.name for path in place.iterdir()}
    filled = [part for one in args for part in (files if one == "FILES" else (one,))]
    failed(shrp(*filled, "--out", tmp_path / "x"), words)
    assert {path.name for path in place.iterdir()} == before
    assert not (tmp_path / "x").exists()


def test_nothing_is_destroyed(shrp, place, files, failed, tmp_path):
    before = checkpoint.fingerprint(place / "routed")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    for out in (place / "routed", tmp_path / "notes", tmp_path / "notes" / "thesis.txt"):
        failed(shrp("prune", place / "routed", "--budget", 3, "--out", out))
        failed(shrp("finetune", "--base", place / "encoder", *files, "--out", out))
        failed(shrp("train", "--base", place / "encoder", *files, "--out", out))
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"
    assert checkpoint.fingerprint(place / "routed") == before


def test_labels_of_another_task_are_refused(shrp, place, failed, tmp_path):
    frame = pd.read_csv(place / "train.csv").replace({"label": {"negative": "cat", "positive": "dog"}})
    frame.to_csv(tmp_path / "pets.csv", index=False)
    files = ("--train-file", tmp_path / "pets.csv", "--validation-file", tmp_path / "pets.csv")
    prune = ("prune", place / "routed", "--per-layer", 1, "--fine-tune", 1, "--out", tmp_path / "x")
    failed(shrp(*prune, *files))
    assert not (tmp_path / "x").exists()


def test_a_pruned_model_is_fine_tuned_without_labels(told, place, known, config, tmp_path, tiny_data):
    routed, data = known
    unlabelled = tmp_path / "unlabelled.csv"
    tiny_data(500, 3).to_frame()[["sentence"]].to_csv(unlabelled, index=False)
    training = {"learning_rate": 1e-3, "precision": "fp32", "temperature": 3.0, "weight_decay": 0.02}
    rows = told(
        *("prune", place / "routed", "--per-layer", 2, "--texts", unlabelled, "--fine-tune", 8),
        *("--validation-file", place / "data.csv", "--out", tmp_path / "out", *config(training=training)),
    )["scores"]
    made, before = checkpoint.load(tmp_path / "out"), checkpoint.load(place / "static2")
    assert [(row["score"], row["recovered"]) for row in rows] == [(made.evaluate(data).score, True)]
    wanted = routed.evaluate(data).logits
    far = [abs(one.evaluate(data).logits - wanted).mean() for one in (before, made)]
    assert far[1] < far[0]
    assert torch.equal(made.model.classifier.weight, before.model.classifier.weight.half().float())
    assert made.info.training["recovery_sources"] == ["unlabelled.csv"]
    used = made.info.training["recovery"]
    assert [used[name] for name in ("temperature", "weight_decay", "distill_logits")] == [3.0, 0.02, 1.0]
    assert "| after pruning | fine-tuned on 4,000 unlabelled texts (of unlabelled.csv) |" in made.card("made")
