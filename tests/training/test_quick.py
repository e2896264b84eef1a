"""Quick conversion: a routed checkpoint of the dense model's own task, from unlabelled text."""

import json
from contextlib import contextmanager
from itertools import count

import pytest
import torch
from torch import nn

from shrp.checkpoints import checkpoint
from shrp.data.sources import load_file, load_probe
from shrp.model.config import ShrpConfig
from shrp.training import quick, runs
from shrp.training.config import TextConfig
from shrp.training.loop import evaluate_with_usage
from shrp.training.losses import TextLoss
from shrp.training.progress import STORING, Progress
from shrp.training.quick import FEW, convert_quickly, enough, estimate


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_tokenizer, save_model, tiny_data, tiny_info):
    """An untrained dense checkpoint, a base, and tables with labels."""
    folder = tmp_path_factory.mktemp("quick")
    save_model(tiny_model(dropout=0.1).base_model, folder / "base")
    checkpoint.save(tiny_model(seed=3, dropout=0.1), tiny_tokenizer, tiny_info(layers=()), folder / "dense")
    for name, n in (("own", 64), ("texts", FEW)):
        tiny_data(n, 0).to_frame().drop(columns="slice").to_csv(folder / f"{name}.csv", index=False)
    (folder / "teacher.json").write_text('{"training": {"learning_rate": 0.003, "precision": "fp32"}}')
    fast = {"conversion_size": 500, "final_size": 10000, "precision": "fp32"}
    (folder / "fast.json").write_text(json.dumps({"training": fast}))
    return folder


def test_a_quick_conversion_is_a_scored_routed_checkpoint_of_the_same_task(place, shrp, told, tmp_path):
    texts, own = ("--text-column", "sentence"), place / "own.csv"
    task = ("--train-file", place / "texts.csv", "--validation-file", own, *texts)
    fast = ("--config", place / "teacher.json", "--epochs", "4")
    assert shrp("finetune", "--base", place / "base", *task, *fast, "--out", tmp_path / "dense")[0] == 0
    quick = ("--texts", place / "texts.csv", *texts, "--validation-file", own, "--quick", "--layers", "1,2")
    quick += ("--config", place / "fast.json", "--out", tmp_path / "out")
    found = told("convert", "--base", tmp_path / "dense", *quick)
    dense, routed = checkpoint.load(tmp_path / "dense"), checkpoint.load(tmp_path / "out")
    data = load_file(own, dense.info.task)
    assert routed.info.config == ShrpConfig((1, 2), self_path=True)
    assert routed.info.task == dense.info.task
    assert found["examples"] == FEW
    assert found["n"] == 64
    assert found["dense_score"] == dense.evaluate(data).score > 0.9
    assert found["routed_score"] == routed.evaluate(data).score > 0.9
    assert [row["score"] for row in routed.info.scores] == [found["dense_score"], found["routed_score"]]
    _, usage = evaluate_with_usage(routed.model, routed.tokenizer, data, routed.info.max_length)
    assert routed.info.usage == usage
    assert sorted(usage) == ["1", "2"]
    # What is not converted stays as it is.
    assert torch.equal(dense.model.classifier.weight.half().float(), routed.model.classifier.weight)


def test_only_the_texts_that_are_trained_on_are_run_and_counted(place, tmp_path, monkeypatch):
    dense, stored, measured = checkpoint.load(place / "dense"), [], []
    texts = [(f"w{i} w{i + 1} w{i + 2}",) for i in range(90)]
    config = TextConfig(shrp=ShrpConfig((1, 2)), conversion_size=8, final_size=16, precision="fp32")

    class Watched(Progress):
        def step(self, status):
            if status.phase == STORING:
                stored.append(status.steps)

    options = {"sources": ["a.csv"], "progress": Watched()}
    found = convert_quickly(dense, texts, config, tmp_path / "out", **options)
    assert found["examples"] == 32
    assert {*stored} == {32}
    history = checkpoint.read_history(tmp_path / "out")
    assert checkpoint.load(tmp_path / "out").info.usage == history[-1]["usage"]

    # With a clock that ticks once a look, a batch of the teacher and a step take a second each.
    ticks, before = count(), {name: value.clone() for name, value in dense.model.state_dict().items()}
    monkeypatch.setattr(quick.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(quick, "resolve_precision", lambda wanted: "bf16")
    step = TextLoss.__call__

    def watched(self, model, batch):
        dropout = {one.p for one in model.modules() if isinstance(one, nn.Dropout)}
        measured.append((torch.is_autocast_enabled("cpu"), dropout))
        return step(self, model, batch)

    monkeypatch.setattr(TextLoss, "__call__", watched)
    assert estimate(dense, texts, config) == pytest.approx((32 + 1.5 * 8 + 16) / 32)
    assert all(one == (True, {0.0}) for one in measured)
    assert all(torch.equal(value, before[name]) for name, value in dense.model.state_dict().items())


@pytest.mark.parametrize(("width", "rates"), [(512, (2e-4, 1e-3)), (516, (4e-5, 2e-4))])
def test_wide_encoders_are_converted_at_lower_rates(place, told, tiny_model, save_model, tmp_path, width, rates):
    save_model(tiny_model(hidden_size=width).base_model, tmp_path / "base")
    (tmp_path / "config.json").write_text('{"training": {"conversion_size": 8, "final_size": 8}}')
    run = ("--texts", place / "own.csv", "--text-column", "sentence", "--layers", "2", "--config", tmp_path / "config.json")
    told("convert", "--base", tmp_path / "base", *run, "--out", tmp_path / "out")
    config = checkpoint.load(tmp_path / "out").info.training["config"]
    assert (config["learning_rate"], config["new_learning_rate"]) == rates


def test_few_texts_are_completed_by_shipped_sentences_which_are_named(place, shrp, told, tmp_path, monkeypatch):
    many = [("w1", f"w{i}") for i in range(FEW)]
    assert enough(many) == (many, [])
    found, sources = enough(many[1:], load_probe("mrpc").texts[:10])
    assert found[: FEW - 1] == many[1:]
    assert found[FEW - 1 :] == list(load_probe("mrpc").texts[10:])
    assert sources == ["probe/mrpc"]

    (tmp_path / "config.json").write_text('{"training": {"conversion_size": 8, "final_size": 8}}')
    run = ("convert", "--base", place / "dense", "--texts", place / "own.csv", "--text-column", "sentence")
    run += ("--quick", "--layers", "2", "--config", tmp_path / "config.json")
    code, _, err = shrp(*run, "--out", tmp_path / "out")
    assert code == 0, err
    assert "probe/sst2, probe/cola" in err
    made = tmp_path / "out"
    assert checkpoint.load(made).info.training["sources"] == ["own.csv", "probe/sst2", "probe/cola"]
    # Pruned, it is not scored on the sentences that it was trained on; fine-tuned on labels it can be loaded.
    assert told("prune", made, "--per-layer", 1, "--out", tmp_path / "pruned")["scores"] == []
    own = ("--train-file", place / "own.csv", "--validation-file", place / "own.csv", "--fine-tune", 1)
    told("prune", made, "--per-layer", 1, *own, "--out", tmp_path / "tuned")
    assert "converted on" in checkpoint.load(tmp_path / "tuned").card("tuned")

    @contextmanager
    def late(folder, kind):  # another command is done between the first look and the lock
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "notes.txt").write_text("mine")
        yield

    monkeypatch.setattr(runs, "alone_in", late)
    monkeypatch.setattr(quick, "convert_quickly", lambda *_, **__: pytest.fail("trained for nothing"))
    code, _, err = shrp(*run, "--out", tmp_path / "late")
    assert code == 1
    assert "exists already" in err
