"""What a checkpoint says of itself is checked when it is read, so that nobody who shows it trips over it."""

import json
from pathlib import Path

import pytest

from shrp.checkpoints import checkpoint, stored
from shrp.errors import CheckpointError

SHIPPED = Path(__file__).parents[2] / "checkpoints"
SHARES = [0.5, 0.25, 0.25, 0.0]


@pytest.mark.parametrize(
    "training",
    [
        {"train_examples": "many"},
        {"epochs": 2.5},
        {"epochs": True},
        {"config": [1]},
        {"config": {"epoch_size": "all"}},
        {"config": {"order": 3}},
        {"config": {"order": ["last"]}},
        {"config": {"shrp": [2]}},
        {"config": {"shrp": {"layers": 5}}},
        {"config": {"shrp": {"layers": [5, "six"]}}},
        {"config": {"shrp": {"layers": [True]}}},
        {"config": {"dropout": "no"}},
        {"config": {"batch_size": 2.5}},
        {"config": {"learning_rate": 10**400}},
        {"seconds": float("inf")},
        {"train_data": {}},
        {"chosen_on": "mine.csv"},
        {"chosen_on": {"data": "mine.csv", "n": 3}},
        {"recovery": "one epoch", "converted": {}},
        {"recovery": {"config": [1]}},
        {"recovery": {"config": {"max_length": "abc"}}},
    ],
)
def test_a_training_of_the_wrong_types_is_refused(training):
    with pytest.raises(CheckpointError, match=r"in the checkpoint, '\w+' of its training"):
        stored.check_training(training)


@pytest.mark.parametrize(
    "converted",
    [
        {"texts": "many"},
        {"texts": 5, "config": 3},
        {"texts": 5, "config": {"shrp": {"layers": 2}}},
        {"texts": 5, "earlier": []},
        {"texts": 5, "recovery": []},
        {"texts": 5, "recovery": {"final_size": "all"}},
        {"texts": 5, "recovery": {}},
        {"texts": 5, "sources": "a.csv"},
        {"texts": 5, "recovery_sources": ["a.csv", 3]},
    ],
)
def test_a_conversion_on_texts_of_the_wrong_types_is_refused_in_either_place(converted):
    for training in (converted, {"converted": converted}):
        with pytest.raises(CheckpointError, match=r"in the checkpoint, '\w+' of its"):
            stored.check_training(training)


def test_null_is_not_known():
    assert stored.check_training({"train_examples": None, "epochs": 3}) == {"epochs": 3}
    assert stored.check_scores([{"kind": "routed", "n": None, "interval_is": None}]) == ({"kind": "routed"},)


@pytest.mark.parametrize(
    "row",
    [
        7,
        {"model": "static"},
        {"kind": "static", "score": "high"},
        {"kind": "static", "interval": 0.5},
        {"kind": "static", "interval": [0.5]},
        {"kind": "static", "interval": [0.5, "more"]},
        {"kind": "static", "data": ["glue"]},
        {"kind": "static", "metric": "<b>"},
        {"kind": "static", "score": 10**400},
        {"kind": "static", "n": 10**400},
        {"kind": "static", "interval": [0, 10**400]},
    ],
)
def test_scores_of_the_wrong_types_are_refused(row):
    with pytest.raises(CheckpointError):
        stored.check_scores([row])


@pytest.mark.parametrize(
    "usage",
    [
        {"a": SHARES},
        {"-1": SHARES},
        {"1": 3},
        {"1": [0.5, None]},
        {"1": [0.5, float("nan")]},
        {"1": [0.5, 10**400]},
        {"1": SHARES, "2": SHARES[:3]},
        [SHARES],
    ],
)
def test_usage_that_is_none_is_refused(usage):
    with pytest.raises(CheckpointError, match="usage"):
        stored.check_usage(usage)


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        "{}",
        '{"epoch": 0}',
        '{"epoch": 0, "stage": null}',
        '{"epoch": "first", "stage": 1}',
        '{"epoch": 0, "stage": "one"}',
        '{"epoch": 0, "stage": 1, "task_loss": "low"}',
        '{"epoch": 0, "stage": 1, "usage": [1]}',
        '{"epoch": 0, "stage": 1, "usage": {"1": "x"}}',
        '{"epoch": 0, "stage": 1, "usage": {"1": []}}',
        '{"epoch": 0, "stage": 1, "validation_score": 0.5}',
        '{"epoch": 0, "stage": 1, "validation_score": 0.5, "metric": "f1"}',
        '{"epoch": 0, "stage": 1, "validation_score": 0.5, "validation_n": 9}',
        '{"epoch": 0, "stage": 1, "validation_score": 0.5, "validation_n": 9, "metric": 3}',
    ],
)
def test_a_history_that_is_none_is_refused(tmp_path, line):
    (tmp_path / "history.jsonl").write_text(line + "\n")
    with pytest.raises(CheckpointError):
        checkpoint.read_history(tmp_path)


@pytest.mark.parametrize("lacking", ["metric", "validation_n"])
def test_a_score_without_what_belongs_to_it_is_refused_in_words(lacking):
    row = {"epoch": 3, "stage": 2, "validation_score": 0.5, "metric": "f1", "validation_n": 9, lacking: None}
    with pytest.raises(CheckpointError, match=f"must have {lacking}"):
        stored.check_history([row])


def test_a_history_keeps_all_but_what_is_not_known():
    row = {
        "epoch": 0,
        "stage": 2,
        "converted_layer": None,
        "validation_score": None,
        "usage": None,
        "theirs": 1,
    }
    assert stored.check_history([row]) == [{"epoch": 0, "stage": 2, "converted_layer": None, "theirs": 1}]


def test_the_shipped_trainings_are_read_as_they_are():
    for file in SHIPPED.glob("*/config.json"):
        training = json.loads(file.read_text(encoding="utf-8"))["shrp"]["training"]
        assert stored.check_training(training) == training


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*/history.jsonl")), ids=lambda file: file.parent.name)
def test_the_shipped_histories_are_read_as_they_are(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert checkpoint.read_history(file.parent) == [json.loads(line) for line in lines]


def test_shares_of_other_experts_than_the_model_has_are_refused(
    tmp_path, tiny_routed, tiny_tokenizer, tiny_info
):
    folder = checkpoint.save(
        tiny_routed(), tiny_tokenizer, tiny_info(usage={"1": SHARES, "2": SHARES}), tmp_path / "c"
    )
    assert checkpoint.load(folder).info.usage["1"] == SHARES
    config = json.loads((folder / "config.json").read_text())
    config["shrp"]["usage"] = {"1": SHARES[:3], "2": SHARES[:3]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="usage is not of the 4 experts"):
        checkpoint.load(folder)
