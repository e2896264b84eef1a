"""Conversion on unlabelled texts: what learns and what stays, and that a task's model can take the layers over."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.tasks import TASKS, TEXTS
from shrp.errors import TrainingError
from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import expert_layers, layer_kinds
from shrp.model.gates import record_routing
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training.config import Recipe, TextConfig, TrainConfig
from shrp.training.losses import hidden_loss
from shrp.training.recipe import Datasets, RecipeRun
from shrp.training.text import graft, train_on_text, usage_on_text

SIZES = {"conversion_size": 40, "final_size": 80, "batch_size": 8}
SIZES |= {"learning_rate": 1e-3, "new_learning_rate": 3e-3}


@pytest.fixture(scope="module")
def texts(tiny_data):
    """Single texts and pairs."""
    single = tiny_data(40).texts
    return [text if i % 3 else (text[0], single[0][0]) for i, text in enumerate(single)]


@pytest.fixture
def converted(tiny_model, tiny_tokenizer, texts, tmp_path):
    """`converted(layers, start, **fields) -> (base, model, history)`."""
    base, numbers = tiny_model(dropout=0.1), itertools.count()

    def go(layers=(1, 2), start=None, out=None, convert=None, progress=None, **fields):
        config, shared = TextConfig(ShrpConfig(layers), **SIZES | fields), tmp_path / "outputs"
        options = {"model": start, "convert": convert, "progress": progress}
        out = out or tmp_path / f"out-{next(numbers)}"
        return base, *train_on_text(config, base, tiny_tokenizer, texts, out, shared, **options)

    return go


def error_of(base, model, inputs, layers):
    """Squared error of converted layers' outputs to the dense ones'."""
    with torch.no_grad(), record_routing(hidden_states=True) as record:
        model(**inputs)
        wanted = base(**inputs, output_hidden_states=True).hidden_states
    outputs = {layer: record.hidden_states[layer] for layer in layers}
    return float(hidden_loss(outputs, wanted, inputs["attention_mask"]))


def test_layers_learn_the_dense_ones_hidden_states_and_the_others_stay(converted, tiny_inputs):
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
    with pytest.raises(TrainingError, match="no texts to train on"):
        train_on_text(TextConfig(ShrpConfig((2,))), tiny_model(), tiny_tokenizer, [], tmp_path, tmp_path)


def hidden_states(model, inputs):
    """Outputs of the converted layers of a model and of its last one, for real tokens."""
    with torch.no_grad(), record_routing(hidden_states=True) as record:
        top = model.base_model(**inputs).last_hidden_state
    states, real = record.hidden_states | {model.config.num_hidden_layers - 1: top}, inputs["attention_mask"].bool()
    return {layer: outputs[real] for layer, outputs in states.items()}


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
    pairs = [hidden_states(one, inputs).items() for one in (model, trained)]
    before, after = (
        {i: (states - wanted[i][real]).square().mean() / wanted[i][real].var(0, correction=0).mean() for i, states in one}
        for one in pairs
    )
    assert after.keys() == {*layers, 2}
    assert after[2] < 0.9 * before[2]
    assert 0.8 * sum(after.values()) < rows[0]["distill_hidden_loss"] < 1.5 * sum(before.values())  # on other texts
    taken = graft(base, trained).state_dict()
    for name, value in trained.state_dict().items():
        assert ".layer." not in name or torch.equal(value, taken[name]), name


@pytest.fixture
def place(converted, tmp_path, tiny_tokenizer, save_model):
    """A folder with the base, `encoder`, its conversion, `routed`, and that pruned, `static`."""
    base, model, history = converted()
    save_model(base.base_model, tmp_path / "encoder")
    about = {"texts": 40, "config": TextConfig(ShrpConfig((1, 2)), **SIZES).to_dict()}
    info = CheckpointInfo(ShrpConfig((1, 2)), TEXTS, base_model="tiny", training=about)
    checkpoint.save(model, tiny_tokenizer, info, tmp_path / "routed", history=history)
    plan = make_plan(usage_on_text(history), per_layer=1)
    made = replace(info, plan=plan)
    checkpoint.save(prune(model, plan), tiny_tokenizer, made, tmp_path / "static", history=history)
    return tmp_path


def go_on(place, data, name, base="encoder", base_name="tiny", **fields):
    """A run of a recipe that goes on from a conversion."""
    shared = {"batch_size": 8, "precision": "fp32", "learning_rate": 1e-9, "new_learning_rate": 1e-9}
    config = TrainConfig(ShrpConfig((1, 2)), stage2_epochs=fields.pop("epochs", 1), **shared)
    teacher = TrainConfig(stage2_epochs=1, **shared)
    options = {"per_layer": (), "converted": str(place / name), "base_name": base_name} | fields
    recipe = Recipe(config, teacher=teacher, full_precision=True, **options)
    data = Datasets(data(24), data(12, seed=1))
    return RecipeRun(recipe, str(place / base), data, place / f"{name}-out")


@pytest.mark.parametrize("name", ["routed", "static"])
def test_a_run_goes_on_from_a_conversion_in_stage_2(place, tiny_data, name):
    info = go_on(place, tiny_data, name, per_layer=(1,) if name == "routed" else ())()
    made, source = checkpoint.load(place / f"{name}-out"), checkpoint.load(place / name)
    assert layer_kinds(made.model) == ["dense", name, name]
    assert made.info.plan == source.info.plan
    pairs = zip(encoder_layers(made.model)[1:], encoder_layers(source.model)[1:], strict=True)
    for mine, theirs in pairs:  # (its rates are next to nothing)
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert made.info.training["converted"] == source.info.training
    history = checkpoint.read_history(made.path)
    assert [(row["epoch"], row["stage"]) for row in history] == [(0, 1), (1, 1), (2, 1), (3, 2)]
    kinds = [row["kind"] for row in info.scores]
    wanted = ["teacher", "routed", "static", "control"] if name == "routed" else ["teacher", "static"]
    assert kinds == wanted


def test_only_what_fits_is_gone_on_from(place, tiny_data, tiny_model, save_model):
    def refused(match, name="routed", **options):
        with pytest.raises(TrainingError, match=match):
            go_on(place, tiny_data, name, **options)()
        assert not list(place.glob("*-out*"))  # nothing was trained

    refused("made of tiny, and the base here is called another", base_name="another")
    refused("give it an epoch or more", epochs=0)
    save_model(tiny_model(hidden_size=40).base_model, place / "wide")
    refused("has 24 hidden dimensions and the dense one 40", base="wide")
    found = checkpoint.load(place / "routed")
    checkpoint.save(found.model, found.tokenizer, replace(found.info, task=TASKS["sst2"]), place / "of-task")
    refused("is of the task sst2", "of-task")
