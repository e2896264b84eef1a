"""Conversion on unlabelled texts: what learns and what stays, and that a task's model can take the layers over."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import card
from shrp.cli import converting
from shrp.data.sources import load_file
from shrp.errors import DataError, TrainingError
from shrp.evaluation.evaluate import evaluate
from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, expert_layers, layer_kinds
from shrp.model.gates import record_routing
from shrp.model.modules import without_dropout
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training import loop, losses
from shrp.training.config import RECOVERY_RATES, TextConfig
from shrp.training.losses import hidden_loss
from shrp.training.progress import Progress
from shrp.training.runs import Run, run_folder
from shrp.training.text import graft, train_on_text, usage_on_text

SIZES = {
    "conversion_size": 40,
    "final_size": 80,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "new_learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def texts(tiny_data):
    """Single texts and pairs."""
    single = tiny_data(40).texts
    return [text if i % 3 else (text[0], single[0][0]) for i, text in enumerate(single)]


@pytest.fixture
def converted(tiny_model, tiny_tokenizer, texts, tmp_path):
    """`converted(layers, start, **fields) -> (base, model, history)`."""
    base = tiny_model(dropout=0.1)

    def go(layers=(1, 2), start=None, run=None, convert=None, progress=None, **fields):
        config, said = TextConfig(ShrpConfig(layers), **SIZES | fields), tmp_path / "said"
        options = {"model": start, "run": run, "convert": convert, "progress": progress}
        return base, *train_on_text(config, base, tiny_tokenizer, texts, said, **options)

    return go


def error_of(base, model, inputs, layers):
    """Squared error of converted layers' outputs to the dense ones'."""
    with torch.no_grad(), record_routing(hidden_states=True) as record:
        model(**inputs)
        said = base(**inputs, output_hidden_states=True).hidden_states
    outputs = {layer: record.hidden_states[layer] for layer in layers}
    return float(hidden_loss(outputs, said, inputs["attention_mask"]))


def test_layers_learn_to_say_what_the_dense_ones_say_and_the_others_stay(converted, tiny_inputs):
    base, model, history = converted()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    assert layer_kinds(model) == ["dense", "routed", "routed"]
    assert layer_kinds(base) == ["dense"] * 3
    assert [row["converted_layer"] for row in history] == [2, 1, None]
    assert [row["texts"] for row in history] == [40, 40, 80]
    assert [sorted(row["usage"]) for row in history] == [["2"], ["1", "2"], ["1", "2"]]
    assert all(sum(share) == pytest.approx(1, abs=1e-4) for row in history for share in row["usage"].values())
    _, brief, _ = converted(conversion_size=8, final_size=8, learning_rate=1e-9, new_learning_rate=1e-9)
    inputs = tiny_inputs()
    assert error_of(base, model, inputs, (1, 2)) < 0.8 * error_of(base, brief, inputs, (1, 2))
    for name, value in model.state_dict().items():
        if ".layer.1." not in name and ".layer.2." not in name:
            assert torch.equal(value, before[name]), name
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_balance_loss_evens_usage_while_layers_are_converted(converted):
    """The more it weighs, the lower it is itself, and the nearer usage is to even."""
    found = {}
    for weight in (0.0, 5.0):
        _, _, history = converted(layers=(2,), balance=weight, conversion_size=400, final_size=8)
        found[weight] = (
            history[0]["balance_loss"],
            float(np.abs(np.array(history[0]["usage"]["2"]) - 1 / 4).sum()),
        )
    assert found[5.0][0] < 0.5 * found[0.0][0]
    assert found[5.0][1] < found[0.0][1]


def test_it_goes_on_from_converted_upper_layers_and_repeats_itself(converted):
    _, upper, _ = converted((2,))
    _, whole, _ = converted((1,), start=upper)
    assert layer_kinds(whole) == ["dense", "routed", "routed"]
    assert not torch.equal(expert_layers(whole)[2].qkv_weight, expert_layers(upper)[2].qkv_weight)
    _, again, _ = converted((1,), start=upper)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(TrainingError, match="layer 2 is converted already"):
        converted((2,), start=upper)
    _, lower, _ = converted((1,))
    with pytest.raises(TrainingError, match="layer 1 is converted already"):
        converted((1, 2), start=lower)


def test_a_tasks_model_keeps_its_own_dense_layers_and_head(converted, tiny_model):
    _, model, _ = converted()
    task = tiny_model(seed=7, num_labels=3)
    taken = graft(task, model)
    assert layer_kinds(taken) == ["dense", "routed", "routed"]
    assert layer_kinds(task) == ["dense"] * 3
    assert taken.config.num_labels == 3
    own = task.state_dict()
    given = model.state_dict()
    for name, value in taken.state_dict().items():
        source = given if ".layer.1." in name or ".layer.2." in name else own
        assert torch.equal(value, source[name]), name
    taken.requires_grad_(True)
    with torch.no_grad():
        expert_layers(taken)[1].qkv_weight.zero_()
    assert np.abs(expert_layers(model)[1].qkv_weight.detach().numpy()).sum() > 0  # copies, not shares


def test_a_conversion_needs_a_layer_and_texts(converted, tiny_model, tiny_tokenizer, tmp_path):
    with pytest.raises(TrainingError, match=r"balance must be a number from 0 on, not -0\.1"):
        converted(balance=-0.1)
    with pytest.raises(TrainingError, match="no texts to train on"):
        train_on_text(TextConfig(ShrpConfig((2,))), tiny_model(), tiny_tokenizer, [], tmp_path)


def hidden_states(model, inputs):
    """What the converted layers of a model, and its last one, hand on to the next, of real tokens."""
    with torch.no_grad(), record_routing(hidden_states=True) as record:
        top = model.base_model(**inputs).last_hidden_state
    last = model.config.num_hidden_layers - 1
    return {
        layer: states[inputs["attention_mask"].bool()]
        for layer, states in {**record.hidden_states, last: top}.items()
    }


@pytest.mark.parametrize("layers", [(1, 2), (0, 1)])  # the top layer among them, or still dense
def test_a_pruned_encoder_is_fine_tuned_and_the_one_given_stays(converted, tiny_inputs, layers):
    base, model, history = converted(layers)
    model = prune(model, make_plan(usage_on_text(history), per_layer=1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, trained, rows = converted((), model, final_size=240)
    assert layer_kinds(trained) == layer_kinds(model)
    assert [(row["converted_layer"], row["texts"], row["usage"]) for row in rows] == [(None, 240, {})]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    inputs = tiny_inputs()
    with torch.no_grad():
        wanted = base.base_model(**inputs, output_hidden_states=True).hidden_states[1:]
    real = inputs["attention_mask"].bool()
    before, after = (
        {
            layer: (states - wanted[layer][real]).square().mean()
            for layer, states in hidden_states(one, inputs).items()
        }
        for one in (model, trained)
    )
    assert after.keys() == {*layers, 2}
    assert after[2] < 0.9 * before[2]
    assert 0.8 * sum(after.values()) < rows[0]["distill_hidden_loss"] < 1.2 * sum(before.values())
    taken = graft(base, trained).state_dict()
    for name, value in trained.state_dict().items():
        assert ".layer." not in name or torch.equal(value, taken[name]), name


def test_another_conversion_can_be_given_and_a_model_of_fewer_layers_learns_as_a_whole(
    converted, tiny_inputs
):
    """A study's control, which drops layers: what is left learns the teacher's last hidden states."""

    def drop(model, layer):
        del encoder_layers(model)[layer]
        model.config.num_hidden_layers -= 1

    def error(model):
        with torch.no_grad():
            found, wanted = (one.base_model(**inputs).last_hidden_state for one in (model, base))
        return (found - wanted)[inputs["attention_mask"].bool()].square().mean()

    inputs = tiny_inputs()
    base, model, history = converted(convert=drop, final_size=240)
    _, untrained, _ = converted(convert=drop, learning_rate=1e-9)
    assert [row["converted_layer"] for row in history] == [2, 1, None]
    assert len(encoder_layers(model)) == 1
    assert error(model) < 0.9 * error(untrained)


def test_a_conversion_is_reported_clips_gradients_drops_nothing_and_counts_usage_of_the_last_quarter(
    converted, monkeypatch
):
    clipped, dropped, seen = [], [], []
    clip, ran = torch.nn.utils.clip_grad_norm_, losses.run_from

    class Watch(Progress):
        def step(self, status):
            if status.stage:
                seen.append((status.phase, status.step, status.steps, status.epoch, status.epochs))
                assert status.seconds_left >= 0

    def clipping(parameters, most):
        clipped.append(most)
        return clip(parameters, most)

    def running(model, *args):
        rates = [getattr(m, name, 0) for m in model.modules() for name in ("dropout", "attention_dropout")]
        rates += [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        dropped.append(max(rate for rate in rates if isinstance(rate, float)))
        return ran(model, *args)

    counted, count = [], losses.top1_counts
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipping)
    monkeypatch.setattr(losses, "run_from", running)
    monkeypatch.setattr(losses, "top1_counts", lambda probs: counted.append(count(probs)) or counted[-1])
    sizes = {"batch_size": 2, "conversion_size": 8, "final_size": 64}
    _, model, history = converted((2,), progress=Watch(), **sizes)
    first = "conversion on text: converting layer 2 (1 of 1)"
    assert seen[:4] == [(first, step, 4, 1, 2) for step in range(1, 5)]
    assert seen[4:] == [("conversion on text: all layers", step, 32, 2, 2) for step in range(1, 33)]
    assert clipped == [1.0] * 36
    assert dropped == [0.0] * 36
    assert expert_layers(model)[2].dropout == 0.1  # it has what it had
    assert len(counted) == 1 + 8
    last = np.sum(counted[1:], axis=0)
    assert history[-1]["usage"]["2"] == pytest.approx(last / last.sum(), abs=1e-6)


def test_a_killed_conversion_goes_on_and_ends_as_if_it_had_not_been(converted, tmp_path):
    class Killed(BaseException):
        pass

    class Kill(Progress):
        def epoch(self, row):
            if row["epoch"] == 1:
                raise Killed

    _, whole, history = converted(run=None)
    with pytest.raises(Killed), Run(tmp_path / "made.run") as run:
        converted(run=run, progress=Kill())
    with Run(tmp_path / "made.run") as run, pytest.raises(TrainingError, match="pass --resume"):
        converted(run=run)
    with Run(tmp_path / "made.run", resume=True) as run:
        with pytest.raises(TrainingError, match="its seed differ"):
            converted(run=run, seed=1)
        _, resumed, rows = converted(run=run)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in history]


def test_without_dropout_a_model_in_training_is_a_function_and_has_it_back_afterwards(
    tiny_model, tiny_inputs
):
    model = convert(tiny_model(dropout=0.5), ShrpConfig((1,))).train()
    inputs = tiny_inputs()
    kept = {name: getattr(module, "p", None) for name, module in model.named_modules()}
    layer = expert_layers(model)[1]
    rates = layer.dropout, layer.attention_dropout
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)
    with without_dropout(model):
        assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    assert {name: getattr(module, "p", None) for name, module in model.named_modules()} == kept
    assert (layer.dropout, layer.attention_dropout) == rates == (0.5, 0.5)


def test_layers_are_taken_over_only_within_one_geometry(converted, tiny_model):
    _, model, _ = converted()
    with pytest.raises(TrainingError, match="has 3 layers and the dense one 4"):
        graft(tiny_model(num_hidden_layers=4), model)
    with pytest.raises(TrainingError, match="has 4 heads and the dense one 2"):
        graft(tiny_model(num_attention_heads=2), model)


@pytest.fixture
def command(tmp_path, tiny_model, tiny_tokenizer, tiny_data):
    """Arguments of a base, of texts with small sizes, and of a task's files, all below `tmp_path`."""
    tiny_model(dropout=0.1).base_model.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    for name, seed in (("train", 0), ("dev", 1)):
        frame = tiny_data(24, seed).to_frame().rename(columns={"sentence": "text"})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    texts = ("--texts", tmp_path / "train.csv", "--texts", tmp_path / "dev.csv")
    sizes = ("--conversion-size", 16, "--final-size", 16, "--batch-size", 8)
    files = ("--train-file", tmp_path / "train.csv", "--validation-file", tmp_path / "dev.csv")
    options = ("--text-column", "text", "--batch-size", 8, "--teacher-epochs", 1, "--precision", "fp32")
    return ("--base", tmp_path / "encoder", "--base-name", "tiny"), texts + sizes, files + options


def test_a_conversion_and_then_a_run_that_goes_on_from_it(shrp, tmp_path, command):
    base, texts, files = command
    made = tmp_path / "made"
    code, said, error = shrp(
        "convert", *base, *texts, "--layers", "upper:2", "--max-length", 4, "--out", made, "--json"
    )
    assert code == 0, error
    assert "24 of 24 inputs of train.csv are longer than 4 tokens" in " ".join(error.split())
    assert "of 24 inputs of dev.csv are longer than 4 tokens" in " ".join(error.split())
    assert json.loads(said)["texts"] == 48
    assert len(json.loads(said)["epochs"]) == 3
    code, _, error = shrp("convert", *base, *texts, "--out", made)
    assert code == 1
    assert "exists already" in error
    pairs = pd.read_csv(tmp_path / "train.csv")
    pairs.assign(other=pairs["text"].tolist()[::-1]).to_csv(tmp_path / "pairs.csv", index=False)
    given = ("--texts", tmp_path / "pairs.csv", "--text-column", "text", "--text-column", "other")
    sizes = ("--conversion-size", 16, "--final-size", 16, "--batch-size", 8)
    code, said, error = shrp("convert", *base, *given, *sizes, "--out", tmp_path / "of-pairs", "--json")
    assert code == 0, error
    assert json.loads(said)["texts"] == 24
    code, _, error = shrp(
        "train", *base, *files, "--converted", made, "--per-layer", 2, "--out", tmp_path / "out"
    )
    assert code == 0, error
    found = checkpoint.load(tmp_path / "out")
    assert layer_kinds(found.model) == ["dense", "routed", "routed"]
    history = checkpoint.read_history(tmp_path / "out")
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]
    assert [row["stage"] for row in history] == [1, 1, 1, 2, 2]
    assert {row["kind"] for row in found.info.scores} == {"teacher", "routed", "static", "control"}


def test_a_conversion_that_fails_before_its_first_epoch_leaves_nothing_in_the_way(
    shrp, tmp_path, command, monkeypatch
):
    base, texts, _ = command
    ask = ("convert", *base, *texts, "--layers", "upper:2", "--precision", "fp32", "--out", tmp_path / "made")

    def diverges(*_):
        raise TrainingError("the loss is no number")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "finite", diverges)
        assert shrp(*ask)[0] == 1
    assert not run_folder(tmp_path / "made").exists()
    run_folder(tmp_path / "made").mkdir()
    (run_folder(tmp_path / "made") / "run.json").write_text('{"precision": "fp32"}')  # killed before it
    code, _, error = shrp(*ask)
    assert code == 0, error
    assert not run_folder(tmp_path / "made").exists()


def test_an_encoder_pruned_on_texts_becomes_a_tasks_static_checkpoint(shrp, tmp_path, command):
    base, texts, files = command
    made, out = tmp_path / "made", tmp_path / "out"
    code, _, error = shrp("convert", *base, *texts, "--layers", "1,2", "--per-layer", 9, "--out", made)
    assert code == 1
    assert "1 to 4 experts a layer, not 9" in error
    kept = ("--layers", "upper:2", "--per-layer", 1, "--further-size", 32)
    code, said, error = shrp("convert", *base, *texts, *kept, "--out", made, "--json")
    assert code == 0, error
    assert [row["texts"] for row in json.loads(said)["epochs"]] == [16, 16, 16, 32]
    encoder = checkpoint.load(made)
    assert layer_kinds(encoder.model) == ["dense", "static", "static"]
    assert set(encoder.info.plan.keep_counts().values()) == {1}
    usage = {int(layer): share for layer, share in json.loads(said)["epochs"][-2]["usage"].items()}
    assert encoder.info.plan == make_plan(usage, per_layer=1)

    assert encoder.info.training["recovery"]["learning_rate"] == RECOVERY_RATES["learning_rate"]
    # The same command without pruning repeats the conversion, so what was pruned can be had to compare with.
    code, _, error = shrp("convert", *base, *texts, "--layers", "upper:2", "--out", tmp_path / "routed")
    assert code == 0, error
    pruned = prune(checkpoint.load(tmp_path / "routed").model, encoder.info.plan)
    assert not same_layers(pruned, encoder.model)

    run = ("train", *base, *files, "--converted", made, "--out", out)
    run += ("--learning-rate", 1e-9, "--new-learning-rate", 1e-9)  # to see where it starts from
    for wrong in (
        ("--recover", 1),
        ("--per-layer", 1),
        ("--random-draws", 2),
        ("--freeze-dense",),
    ):
        code, _, error = shrp(*run, *wrong)
        assert code == 1
        assert "is pruned already" in error
    assert not out.exists()
    code, _, error = shrp(*run)
    assert code == 0, error
    found = checkpoint.load(out)
    assert layer_kinds(found.model) == ["dense", "static", "static"]
    assert found.info.plan == encoder.info.plan
    assert same_layers(found.model, encoder.model)
    rows = {row["model"]: row for row in found.info.scores}
    static = "static, 1 a layer, pruned on texts"
    assert list(rows) == ["dense teacher", static]
    assert (rows[static]["kind"], rows[static]["budget"], rows[static]["recovered"]) == ("static", 2, True)
    dev = load_file(tmp_path / "dev.csv", found.info.task, text_columns=["text"], label_column="label")
    again = evaluate(found.model, found.tokenizer, dev)
    assert abs(again.score - rows[static]["score"]) <= 1.5 / 24  # stored as float16
    history = checkpoint.read_history(out)
    assert [row["epoch"] for row in history] == list(range(6))
    assert [row["stage"] for row in history] == [1, 1, 1, 1, 2, 2]

    text = card(out.name, found)
    assert (
        "Converted on 48 unlabelled texts (of train.csv, dev.csv), 16 for each of 2 layers and 16 for" in text
    )
    assert "pruned there by usage on them, and trained on with 32 (seed 0)" in text
    assert "no validation data had a part in that" in text
    line = next(line for line in text.splitlines() if line.startswith(f"| {static} |"))
    assert line.count("%") == 4  # of the teacher, and three costs
    assert "trained on with 32" in card(made.name, encoder)


def test_a_tasks_usage_says_which_experts_learn_on_from_texts(shrp, tmp_path, command):
    base, texts, files = command
    corpora = (*texts[:4], *texts[-2:])  # without the sizes of a conversion, which is not made anew
    routed, task, small, out = (tmp_path / name for name in ("routed", "task", "small", "out"))
    assert shrp("convert", *base, *texts, "--layers", "upper:2", "--out", routed)[0] == 0
    run = ("train", *base, *files, "--random-draws", 0)
    assert shrp(*run, "--converted", routed, "--per-layer", 1, "--out", task)[0] == 0
    found = checkpoint.load(task)
    # The task is made to use most what the texts use least, so the two can't be taken for one another.
    on_texts = usage_on_text(checkpoint.read_history(routed))
    usage = {str(layer): np.eye(4)[int(np.argmin(share))].tolist() for layer, share in on_texts.items()}
    checkpoint.save(found.model, found.tokenizer, replace(found.info, usage=usage), task)
    pruning = ("convert", *base, *corpora, "--further-size", 32, "--per-layer", 1)
    code, _, error = shrp(*pruning, "--converted", routed, "--usage-of", task, "--out", small)
    assert code == 0, error
    encoder = checkpoint.load(small)
    plan = make_plan({int(layer): share for layer, share in usage.items()}, per_layer=1)
    assert encoder.info.plan == plan
    assert [row["texts"] for row in checkpoint.read_history(small)] == [16, 16, 16, 32]
    # The converted encoder was pruned, and not the task's model; in one step it comes to the same.
    one_step = ("convert", *base, *texts, "--layers", "upper:2", "--per-layer", 1, "--further-size", 32)
    assert shrp(*one_step, "--usage-of", task, "--out", tmp_path / "one-step")[0] == 0
    assert same_layers(checkpoint.load(tmp_path / "one-step").model, encoder.model)
    code, _, error = shrp(*pruning, "--converted", routed, "--out", tmp_path / "by-texts")
    assert code == 0, error
    assert checkpoint.load(tmp_path / "by-texts").info.plan == make_plan(on_texts, per_layer=1) != plan

    assert shrp(*run, "--converted", small, "--out", out)[0] == 0
    made = checkpoint.load(out)
    assert made.info.plan == plan
    assert "static, 1 a layer, recovered on texts and the task" in {row["model"] for row in made.info.scores}
    name = found.info.task.name
    text = card(out.name, made)
    assert (
        f"pruned to the experts that a routed model of {name} uses most, and trained on with 32 (seed 0)"
        in text
    )
    assert "comes from the same validation data" in text
    assert f"chosen by their usage on validation data of {name}." in card(small.name, encoder)


@pytest.fixture
def pruning(shrp, tmp_path, command):
    """The command that prunes by a task's usage, and folders: `routed`, a conversion, and `task`, which came of it."""
    base, texts, files = command
    assert shrp("convert", *base, *texts, "--layers", "upper:2", "--out", tmp_path / "routed")[0] == 0
    run = ("train", *base, *files, "--random-draws", 0, "--per-layer", 1, "--converted", tmp_path / "routed")
    assert shrp(*run, "--out", tmp_path / "task")[0] == 0
    command = ("convert", *base, *texts[:4], *texts[-2:], "--further-size", 32, "--out", tmp_path / "wrong")
    return command, tmp_path / "routed", tmp_path / "task"


def test_usage_that_does_not_fit_is_refused_before_anything_is_trained(shrp, tmp_path, pruning):
    command, routed, task = pruning
    found = checkpoint.load(task)

    def like(name, **changes):
        info = replace(found.info, **changes)
        return checkpoint.save(found.model, found.tokenizer, info, tmp_path / name)

    config = found.info.config
    static = replace(found.info, plan=make_plan({1: [1, 0, 0, 0], 2: [1, 0, 0, 0]}, per_layer=1))
    static = checkpoint.save(prune(found.model, static.plan), found.tokenizer, static, tmp_path / "static")
    cases = (
        (routed, "has seen no task"),
        (static, "is pruned already"),
        (like("foreign", base_model="another"), "has base another, and the encoder to prune tiny"),
        (like("top-2", config=replace(config, top_k=2)), "has Top-k 2, and the encoder to prune 1"),
        (like("part", usage={"1": [0.25] * 4}), "usage of 4 experts in each converted layer"),
        (like("wide", usage=dict.fromkeys("12", [0.125] * 8)), "usage of 4 experts in each converted layer"),
        (like("none", usage={}), "carries no usage"),
    )
    for usage_of, said in cases:
        code, _, error = shrp(*command, "--per-layer", 1, "--converted", routed, "--usage-of", usage_of)
        assert code == 1
        assert said in error
    code, _, error = shrp(*command, "--per-layer", 1, "--layers", "2", "--usage-of", task)
    assert code == 1
    assert "has converted layers [1, 2], and the encoder to prune [2]" in error
    assert not (tmp_path / "wrong").exists()


def test_what_a_conversion_made_before_decides_is_not_asked_for_again(shrp, tmp_path, pruning):
    command, routed, task = pruning
    for options, said in (
        (("--layers", "upper:2"), "are those of --converted"),
        (("--top-k", 2), "are those of --converted"),
        (("--final-size", 9), "are those of --converted"),
    ):
        code, _, error = shrp(*command, "--per-layer", 1, "--converted", routed, *options)
        assert code == 1
        assert said in error
    for converted, said in ((task, "is of the task"), (tmp_path / "no", "name a checkpoint's folder")):
        code, _, error = shrp(*command, "--per-layer", 1, "--converted", converted)
        assert code == 1
        assert said in error
    code, _, error = shrp(*command, "--usage-of", task)
    assert code == 1
    assert "--further-size is for a pruned encoder: give --per-layer too" in error
    (routed / checkpoint.HISTORY).unlink()
    code, _, error = shrp(*command, "--per-layer", 1, "--converted", routed)
    assert code == 1
    assert "history does not record how its experts were used" in error
    assert not (tmp_path / "wrong").exists()


def same_layers(one, other):
    """Whether the encoder layers of two models are equal, to within float16."""
    pairs = zip(encoder_layers(one), encoder_layers(other), strict=True)
    values = [(a, b) for x, y in pairs for a, b in zip(x.parameters(), y.parameters(), strict=True)]
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in values)


def test_only_what_convert_made_of_this_base_is_gone_on_from(shrp, tmp_path, command, tiny_model):
    base, texts, files = command
    made, run = tmp_path / "made", ("train", *files, "--out", tmp_path / "out")
    code, _, error = shrp("convert", *base, *texts, "--layers", "upper:2", "--further-size", 9, "--out", made)
    assert code == 1
    assert "give --per-layer too" in error
    code, _, error = shrp("convert", *base, *texts, "--layers", "upper:2", "--out", made)
    assert code == 0, error
    tiny_model(hidden_size=40).base_model.save_pretrained(tmp_path / "narrow")
    checkpoint.load(made).tokenizer.save_pretrained(tmp_path / "narrow")
    for options, said in (
        ((*base[:2], "--base-name", "another"), "made of tiny, and the base here is called another"),
        (
            ("--base", tmp_path / "narrow", "--base-name", "tiny"),
            "has 24 hidden dimensions and the dense one 40",
        ),
        ((*base, "--stage2-epochs", 0), "give it an epoch or more"),
    ):
        code, _, error = shrp(*run, *options, "--converted", made)
        assert code == 1
        assert said in error
    assert not list(tmp_path.glob("out*"))  # nothing was trained
    code, _, error = shrp(*run, *base, "--converted", made, "--per-layer", 1)
    assert code == 0, error
    code, _, error = shrp("train", *base, *files, "--converted", tmp_path / "out", "--out", tmp_path / "next")
    assert code == 1
    assert "is of the task" in error


def test_rows_without_a_text_are_left_out_and_counted_and_errors_count_them(tmp_path, capsys):
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("text\none\n\ntwo\n   \nthree\n")
    assert converting._texts(corpus, ["text"]) == (("one",), ("two",), ("three",))
    assert "left out 2 of 5 rows of corpus.csv, without a text" in " ".join(capsys.readouterr().err.split())
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n{"text": ""}\n{"text": 3}\n')
    with pytest.raises(DataError, match="row 3"):
        converting._texts(rows, ["text"])
    rows.write_text('{"text": ""}\n{"text": " "}\n')
    with pytest.raises(DataError, match="no row is left"):
        converting._texts(rows, ["text"])
