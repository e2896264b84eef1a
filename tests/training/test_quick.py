"""Quick conversion: a routed checkpoint of the dense model's own task, from unlabelled text."""

import json

import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.data.sources import load_file
from shrp.model.config import ShrpConfig
from shrp.training.config import QUICK, TextConfig
from shrp.training.quick import FEW, enough, estimate


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_tokenizer, tiny_data, tiny_info):
    """An untrained dense checkpoint, a base, and tables with labels."""
    folder = tmp_path_factory.mktemp("quick")
    tiny_model(dropout=0.1).base_model.save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    checkpoint.save(tiny_model(seed=3), tiny_tokenizer, tiny_info(layers=()), folder / "dense")
    for name, n in (("own", 64), ("texts", FEW)):
        tiny_data(n, 0).to_frame().drop(columns="slice").to_csv(folder / f"{name}.csv", index=False)
    (folder / "teacher.json").write_text('{"training": {"learning_rate": 0.003, "precision": "fp32"}}')
    (folder / "fast.json").write_text(
        '{"training": {"conversion_size": 500, "final_size": 10000, "precision": "fp32"}}'
    )
    return folder


def test_a_quick_conversion_is_a_scored_routed_checkpoint_of_the_same_task(place, shrp, tmp_path):
    texts, own = ("--text-column", "sentence"), place / "own.csv"
    task = ("--train-file", place / "texts.csv", "--validation-file", own, *texts)
    fast = ("--config", place / "teacher.json", "--epochs", "4")
    assert shrp("finetune", "--base", place / "base", *task, *fast, "--out", tmp_path / "dense")[0] == 0
    quick = ("--texts", place / "texts.csv", *texts, "--validation-file", own, "--quick", "--layers", "1,2")
    config = ("--config", place / "fast.json")
    code, out, _ = shrp(
        "convert", "--base", tmp_path / "dense", *quick, *config, "--out", tmp_path / "out", "--json"
    )
    assert code == 0
    found = json.loads(out)
    dense, routed = checkpoint.load(tmp_path / "dense"), checkpoint.load(tmp_path / "out")
    data = load_file(own, dense.info.task)
    assert routed.info.config.layers == (1, 2)
    assert routed.info.task == dense.info.task
    assert found["examples"] == FEW
    assert found["n"] == 64
    assert found["dense_score"] == dense.evaluate(data).score > 0.9
    assert found["routed_score"] == routed.evaluate(data).score > 0.9
    assert [row["score"] for row in routed.info.scores] == [found["dense_score"], found["routed_score"]]
    assert sorted(routed.info.usage) == ["1", "2"]
    # What is not converted stays as it is.
    assert torch.equal(dense.model.classifier.weight.half().float(), routed.model.classifier.weight)


def test_the_time_is_estimated_in_proportion_to_the_steps(place):
    dense = checkpoint.load(place / "dense")
    texts = [(f"w{i} w{i + 1} w{i + 2}",) for i in range(40)]
    short, long = (
        TextConfig(shrp=ShrpConfig((1, 2)), **QUICK | {"conversion_size": 100, "final_size": size})
        for size in (1_000, 100_000)
    )
    found = [estimate(dense, texts, config) for config in (short, long)]
    assert 0 < found[0] < found[1] / 5


def test_enough_texts_are_left_as_they_are():
    many = [("w1", "w2")] * FEW
    assert enough(many) == many
    assert enough(many[1:])[: FEW - 1] == many[1:]
    assert {len(row) for row in enough(many[1:])} == {2}


@pytest.mark.parametrize(
    "more",
    [["--per-layer", "1", "--quick"], ["--validation-file", "own.csv"]],
    ids=["pruned", "without quick"],
)
def test_what_quick_does_not_do_is_refused(place, shrp, tmp_path, more):
    code, _, err = shrp(
        "convert", "--base", place / "dense", "--texts", place / "own.csv", "--out", tmp_path / "o", *more
    )
    assert code == 1
    assert "--quick" in err
