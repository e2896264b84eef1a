"""A person's own fine-tuned model: its head is taken as it is, whatever its labels are called and however ordered."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base, name_of, refuse_unclear
from shrp.checkpoints.info import CheckpointInfo
from shrp.cli.options import own_name
from shrp.data.sources import load_file
from shrp.data.tasks import custom_task
from shrp.errors import DataError, TrainingError
from shrp.evaluation.evaluate import evaluate
from shrp.model.config import ShrpConfig

MOODS = custom_task("mood", ("text",), ("bad", "good"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_data):
    root = tmp_path_factory.mktemp("own")
    for name, n, seed in (("train", 32, 0), ("dev", 24, 1)):
        frame = tiny_data(n, seed).to_frame().rename(columns={"sentence": "text"})
        frame["label"] = frame["label"].map({"negative": "bad", "positive": "good"})
        frame.to_csv(root / f"{name}.csv", index=False)
    return root


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2", "ours"])
def test_a_head_of_the_same_labels_in_another_order_gives_its_outputs_in_the_tasks(
    tmp_path, tiny_model, tiny_tokenizer, save_model, family
):
    model = tiny_model(*[family] * (family != "ours"), seed=4).eval()
    if family == "ours":
        info = CheckpointInfo(ShrpConfig(()), replace(MOODS, label_names=("good", "bad")))
        checkpoint.save(model, tiny_tokenizer, info, tmp_path / "ours")
    else:
        save_model(model, tmp_path / "ours", "Good", "Bad")
    loaded, _, trained = load_base(str(tmp_path / "ours"), MOODS)
    assert trained
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits[:, [1, 0]])


def test_what_a_heads_outputs_stand_for_can_be_said(tmp_path, tiny_model, save_model):
    base = save_model(tiny_model(seed=4), tmp_path, "LABEL_0", "LABEL_1")
    plain, _, trained = load_base(base, MOODS)
    assert not trained
    named, _, trained = load_base(base, MOODS, head_labels=("bad", "good"))
    turned, _, _ = load_base(base, MOODS, head_labels=("good", "bad"))
    assert trained
    assert torch.equal(named.classifier.weight, plain.classifier.weight)
    assert torch.equal(turned.classifier.weight, plain.classifier.weight.flip(0))
    assert torch.equal(turned.classifier.bias, plain.classifier.bias.flip(0))
    with pytest.raises(TrainingError, match="the head's labels, a, b, are not those of mood: bad, good"):
        load_base(base, MOODS, head_labels=("a", "b"))
    three = replace(MOODS, label_names=("bad", "good", "mixed"))
    with pytest.raises(TrainingError, match="has no trained head of 3 outputs"):
        load_base(base, three, head_labels=three.label_names)


def test_a_fine_tuned_model_becomes_a_dense_checkpoint_as_it_is(
    told, place, tmp_path, tiny_model, tiny_tokenizer, save_model
):
    model = tiny_model(seed=4).eval()
    base = save_model(model, tmp_path / "base", "good", "bad")
    files = ("--train-file", place / "train.csv", "--validation-file", place / "dev.csv")
    options = ("--epochs", 0, "--task-name", "mood", "--out", tmp_path / "out")
    found = told("finetune", "--base", base, *files, *options)
    made = checkpoint.load(tmp_path / "out")
    assert (made.info.task.name, made.info.config.layers) == ("mood", ())
    data = load_file(place / "dev.csv", made.info.task)
    score = evaluate(made.model, made.tokenizer, data).score
    assert found["validation_score"] == pytest.approx(score)
    assert made.info.training["adopted"]
    turned = load_file(place / "dev.csv", replace(made.info.task, label_names=("good", "bad")))
    assert score == evaluate(model, tiny_tokenizer, turned).score


def test_the_one_output_of_a_regression_can_be_named(told, place, tmp_path, tiny_model, save_model):
    frame = pd.read_csv(place / "dev.csv").assign(label=[0.5 * i for i in range(24)])
    frame.to_csv(tmp_path / "rated.csv", index=False)
    rated = load_file(tmp_path / "rated.csv").task
    base = save_model(tiny_model(num_labels=1), tmp_path / "base", "LABEL_0")
    assert not load_base(base, rated)[2]
    files = ("--validation-file", tmp_path / "rated.csv", "--out", tmp_path / "adopted")
    told("finetune", "--base", base, *files, "--epochs", 0, "--head-labels", "number")
    made = checkpoint.load(tmp_path / "adopted").info
    assert (made.task, made.training["head_labels"]) == (rated, ["number"])
    assert load_base(str(tmp_path / "adopted"), rated, head_labels=("number",))[2]
    with pytest.raises(TrainingError, match="--head-labels number"):
        refuse_unclear(save_model(tiny_model(num_labels=1), tmp_path / "named", "score"), rated)
    model, _, trained = load_base(base, rated, head_labels=("number",))
    assert (trained, model.config.problem_type) == (True, "regression")
    two = save_model(tiny_model(), tmp_path / "two", "bad", "good")
    for folder, names in ((base, ("stars",)), (two, ("number",))):
        with pytest.raises(TrainingError, match=r"number|1 outputs"):
            load_base(folder, rated, head_labels=names)


def test_pickled_weights_are_told_from_no_model(tmp_path, tiny_model, save_model):
    base = save_model(tiny_model(), tmp_path, "bad", "good")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(TrainingError, match="no weights in safetensors, and other formats, which may run code"):
        load_base(base, MOODS)


def test_labels_that_differ_by_their_case_alone_are_not_put_in_order(tmp_path, tiny_model, save_model):
    base = save_model(tiny_model(num_labels=3), tmp_path, "bad", "good", "Good")
    with pytest.raises(TrainingError, match="differ by their case alone: Good, good, bad"):
        load_base(base, replace(MOODS, label_names=("Good", "good", "bad")))


@pytest.mark.parametrize("name", ["", "  ", "sst2", "texts"])
def test_names_that_mean_something_else_are_none_for_ones_own_task(name):
    with pytest.raises(DataError, match="another name"):
        own_name(name)


def test_a_base_is_called_by_its_name_and_never_by_where_it_lies(
    tmp_path, monkeypatch, tiny_model, tiny_tokenizer, tiny_info
):
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir(tmp_path)
    for base in ("bert", "./bert", str(tmp_path / "bert"), str(tmp_path / "gone" / "bert")):
        assert name_of(base, None) == "bert"
    assert name_of("org/bert", None) == "org/bert"
    assert name_of(str(tmp_path), "mine") == "mine"
    monkeypatch.chdir(tmp_path / "bert")
    assert name_of(".", None) == "bert"
    info = replace(tiny_info(layers=()), base_model="org/theirs")
    ours = checkpoint.save(tiny_model(), tiny_tokenizer, info, tmp_path / "ours")
    assert name_of(str(ours), None) == "org/theirs"  # what it calls its own base
