"""What a checkpoint's config.json states is checked when it is read, so that no page that shows it fails."""

import json

import pytest

from shrp.checkpoints import checkpoint, info
from shrp.errors import CheckpointError

SHARES = [0.5, 0.25, 0.25, 0.0]


@pytest.mark.parametrize(
    "training",
    [
        *({"train_examples": "many"}, {"epochs": 2.5}, {"epochs": True}, {"train_data": {}}),
        *({"seconds": float("inf")}, {"chosen_on": "mine.csv"}, {"chosen_on": {"data": "mine.csv", "n": 3}}),
        *({"recovery": "one epoch", "converted": {}}, {"recovery": {"config": [1]}}),
        *({"recovery": {"config": {"max_length": "abc"}}}, {"pruning": {"budget": True}}),
        *(
            {"config": config}
            for config in (
                *([1], {"epoch_size": "all"}, {"order": 3}, {"order": ["last"]}, {"shrp": [2]}),
                *({"shrp": {"layers": 5}}, {"shrp": {"layers": [5, "six"]}}, {"shrp": {"layers": [True]}}),
                *({"dropout": "no"}, {"batch_size": 2.5}, {"learning_rate": 10**400}),
            )
        ),
        *(
            one
            for converted in (
                *({"texts": "many"}, {"texts": 5, "config": 3}, {"texts": 5, "config": {"shrp": {"layers": 2}}}),
                *({"texts": 5, "earlier": []}, {"texts": 5, "recovery": []}, {"texts": 5, "recovery": {}}),
                *({"texts": 5, "recovery": {"final_size": "all"}}, {"texts": 5, "sources": "a.csv"}),
                {"texts": 5, "recovery_sources": ["a.csv", 3]},
            )
            for one in (converted, {"converted": converted})
        ),
    ],
    ids=str,
)
def test_a_training_of_the_wrong_types_is_refused(training):
    with pytest.raises(CheckpointError, match=r"in the checkpoint, '\w+' of its training"):
        info.check_training(training)


SCORE = {"kind": "static", "model": "static", "data": "made", "metric": "accuracy", "n": 4}
WRONG_SCORES = (
    *({"score": "high"}, {"interval": 0.5}, {"interval": [0.5]}, {"interval": [0.5, "more"]}, {"data": ["glue"]}),
    *({"metric": "<b>"}, {"score": 10**400}),
)
WRONG_USAGE = (
    *({"a": SHARES}, {"-1": SHARES}, {"1": 3}, {"1": [0.5, None]}, {"1": [0.5, float("nan")]}, {"1": "x"}),
    *({"1": [0.5, 10**400]}, {"1": []}, {"1": SHARES, "2": SHARES[:3]}, [SHARES]),
)
EPOCH = {"epoch": 0, "stage": 1}
WRONG_EPOCHS = (
    *([1], {}, {"epoch": 0}, EPOCH | {"stage": None}, EPOCH | {"epoch": "first"}, EPOCH | {"stage": "one"}),
    *(EPOCH | {"task_loss": "low"}, *(EPOCH | {"usage": usage} for usage in WRONG_USAGE)),
    *(EPOCH | {"validation_score": 0.5, "metric": "f1"}, EPOCH | {"validation_score": 0.5, "validation_n": 9}),
    EPOCH | {"validation_score": 0.5, "validation_n": 9, "metric": 3},
)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        *((info.check_scores, [row]) for row in (7, *(SCORE | {name: None} for name in SCORE))),
        *((info.check_scores, [SCORE | row]) for row in WRONG_SCORES),
        *((info.check_usage, usage) for usage in WRONG_USAGE),
        *((info.check_history, [row]) for row in WRONG_EPOCHS),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_rows_of_the_wrong_types_are_refused(check, wrong):
    with pytest.raises(CheckpointError):
        check(wrong)


def test_a_history_keeps_all_but_what_is_not_known():
    row = {"epoch": 0, "stage": 2, "converted_layer": None, "theirs": 1}
    assert info.check_history([row | {"validation_score": None, "usage": None}]) == [row]
    assert info.check_training({"train_examples": None, "epochs": 3}) == {"epochs": 3}
    assert info.check_scores([SCORE | {"score": None, "interval_is": None}]) == (SCORE,)


def test_shares_of_other_experts_than_the_model_has_are_refused(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    info = tiny_info(usage={"1": SHARES, "2": SHARES})
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "c")
    assert checkpoint.load(folder).info.usage["1"] == SHARES
    config = json.loads((folder / "config.json").read_text())
    config["shrp"]["usage"] = {"1": SHARES[:3], "2": SHARES[:3]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="usage is not of the 4 experts"):
        checkpoint.load(folder)
