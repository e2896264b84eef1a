"""Two-stage training on a tiny model: its schedule, its history, and that a killed run ends as if it had not been."""

import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from shrp.analysis.usage import measure_usage
from shrp.data.text_data import TextData
from shrp.errors import ShrpError, TrainingError
from shrp.evaluation.evaluate import evaluate
from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, layer_kinds
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training import loop, runs
from shrp.training.config import RECIPES, Epoch, Recipe, TextConfig, TrainConfig, read_config
from shrp.training.loop import train
from shrp.training.losses import parameter_groups, same_start, set_trainable
from shrp.training.progress import LogProgress, Progress, Status
from shrp.training.runs import finish, run_folder

RATES = {"learning_rate": 1e-3, "new_learning_rate": 3e-3, "distill_logits": 0.5, "distill_hidden": 1.0}
CONFIG = TrainConfig(ShrpConfig((1, 2)), stage2_epochs=2, batch_size=8, precision="fp32", seed=3, **RATES)


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours may catch it."""


class Watch(Progress):
    """A `Progress` that counts, and kills the run at a step or after an epoch."""

    def __init__(self, at_step=None, after_epoch=None):
        self.at_step, self.after_epoch = at_step, after_epoch
        self.steps, self.rows = [], []

    def step(self, status):
        if not status.stage:
            return
        self.steps.append((status.epoch - 1, status.step, status.steps, status.loss))
        if self.steps[-1][:2] == self.at_step:
            raise Killed

    def epoch(self, row):
        self.rows.append(row)
        if row["epoch"] == self.after_epoch:
            raise Killed


@pytest.fixture(scope="module")
def run_in(tiny_model, tiny_tokenizer, tiny_data, tiny_info):
    """`(folder, config, ...) -> model, info, history` of a run from the same dense model, with dropout."""

    def go(folder, config=CONFIG, out="out", model=None, info=None, **options):
        model = model if model is not None else tiny_model(dropout=0.1)
        options = {"train_data": tiny_data(40), "validation": tiny_data(20, seed=1)} | options
        return train(config, model, info or tiny_info(layers=()), tiny_tokenizer, out=folder / out, **options)

    return go


@pytest.fixture
def run(run_in, tmp_path):
    return partial(run_in, tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(run_in, tmp_path_factory):
    """Model, info and history of `run()`, which no test changes."""
    return run_in(tmp_path_factory.mktemp("whole"))


def assert_equal_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def without_times(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_stage_1_converts_a_layer_an_epoch_and_the_history_records_it(run, tiny_data, tiny_tokenizer, tmp_path):
    watch = Watch()
    model, info, history = run(progress=watch)
    rows = [(row["epoch"], row["stage"], row["converted_layer"]) for row in history]
    assert rows == [(0, 1, 2), (1, 1, 1), (2, 2, None), (3, 2, None)]
    assert layer_kinds(model) == ["dense", "routed", "routed"]
    assert not model.training
    assert [sorted(row["usage"]) for row in history] == [["2"], ["1", "2"], ["1", "2"], ["1", "2"]]
    for row in history:
        assert all(sum(share) == pytest.approx(1, abs=1e-5) for share in row["usage"].values())
        assert (row["balance_loss"] > 0) == (row["stage"] == 1)
        assert row["distill_logits_loss"] > 0
        assert row["distill_hidden_loss"] > 0
        expected = 0.5 * (row["task_loss"] + row["distill_logits_loss"]) + row["distill_hidden_loss"]
        assert row["loss"] == pytest.approx(expected + 0.1 * row["balance_loss"], abs=1e-4)
        assert row["metric"] == "accuracy"
        assert row["validation_n"] == 20
        assert row["validation_interval"][0] <= row["validation_score"] <= row["validation_interval"][1]
    assert history[-1]["distill_hidden_loss"] < history[1]["distill_hidden_loss"]  # it learns
    assert watch.rows == history
    assert [step[:3] for step in watch.steps] == [(e, s, 5) for e in range(4) for s in range(1, 6)]
    assert info.config == CONFIG.shrp
    assert info.usage == history[-1]["usage"]
    assert info.training["epochs"] == 4
    assert info.training["config"] == CONFIG.to_dict()
    assert info.training["train_examples"] == 40
    # The last row is about the very model that is returned.
    again = evaluate(model, tiny_tokenizer, tiny_data(20, seed=1))
    assert history[-1]["validation_score"] == again.score
    assert run_folder(tmp_path / "out").is_dir()
    finish(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_recorded_usage_is_how_often_experts_are_first_among_validation_inputs_or_their_tokens(
    run, tiny_data, tiny_tokenizer, routing
):
    config = replace(CONFIG, shrp=ShrpConfig((2,), routing), stage2_epochs=0, epoch_size=16)
    model, info, _ = run(config)
    counted = measure_usage(model, tiny_tokenizer, tiny_data(20, seed=1)).share(2)
    assert info.usage == {"2": pytest.approx(counted, abs=1e-6)}


def test_the_plain_recipe_learns_the_task(run, tiny_model):
    """Dense fine-tuning learns the labels, and frozen embeddings do not change."""
    config = TrainConfig(stage2_epochs=4, batch_size=4, learning_rate=3e-3, freeze_embeddings=True, seed=1)
    dense = tiny_model(seed=8)
    embeddings = {name: p.clone() for name, p in dense.base_model.embeddings.named_parameters()}
    rest = dense.classifier.weight.clone()
    model, info, history = run(replace(config, precision="fp32"), model=dense)
    assert history[-1]["validation_score"] >= 0.7
    assert history[-1]["usage"] == {}
    assert info.config.layers == ()
    for name, parameter in model.base_model.embeddings.named_parameters():
        assert torch.equal(parameter, embeddings[name])
    assert not torch.equal(model.classifier.weight, rest)


def test_distillation_uses_the_given_teacher(run, tiny_model):
    """With all of the loss from a teacher, labels do not matter but the teacher does."""
    config = replace(CONFIG, distill_logits=1.0, distill_hidden=0.0, balance=0.0, stage2_epochs=0)
    teacher = tiny_model(seed=21, dropout=0.1).train()
    before = copy.deepcopy(teacher.state_dict())
    first, _, history = run(config, out="a", teacher=teacher)
    assert all(row["distill_hidden_loss"] == 0 for row in history)
    assert all(row["loss"] == pytest.approx(row["distill_logits_loss"], abs=1e-5) for row in history)
    assert not teacher.training  # it runs without dropout
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.requires_grad for p in teacher.parameters())  # a control that starts from it must train
    second, _, _ = run(config, out="b")  # the model as it was at the start is the teacher
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


@pytest.mark.parametrize(
    ("options", "words"), [({"num_labels": 3}, "3 outputs"), ({"hidden_size": 32}, "32 dimensions")]
)
def test_a_teacher_of_another_shape_is_refused(run, tiny_model, options, words):
    with pytest.raises(TrainingError, match=f"the teacher has {words}"):
        run(teacher=tiny_model(**options))


def test_another_conversion_can_be_given_and_everything_trains_whatever_the_model_went_through(
    run, tiny_model
):
    """A study's control drops layers under the same schedule, the last one left learning the teacher's last states."""
    config = replace(CONFIG, shrp=ShrpConfig((1, 2)))

    def drop(model, layer):
        del encoder_layers(model)[layer]
        model.config.num_hidden_layers -= 1

    def go(**options):
        model = tiny_model(dropout=0.1).requires_grad_(False)
        return run(config, model=model, convert=drop, converts_by="dropped", **options)

    before = dict(tiny_model(dropout=0.1).named_parameters())
    with pytest.raises(Killed):
        go(progress=Watch(after_epoch=1))
    with pytest.raises(TrainingError, match="its conversion differ"):
        run(config, convert=drop, converts_by="another")
    made, _, history = go()
    assert len(encoder_layers(made)) == 1
    assert all(row["distill_hidden_loss"] > 0 and row["usage"] == {} for row in history)
    assert history[-1]["distill_hidden_loss"] < history[1]["distill_hidden_loss"]
    assert not {name for name, p in made.named_parameters() if torch.equal(p, before[name])}
    assert all(p.requires_grad for p in made.parameters())


@pytest.mark.parametrize("kill", [{"after_epoch": 2}, {"at_step": (1, 3)}], ids=str)
def test_a_killed_run_that_resumes_ends_bit_for_bit_as_if_it_had_not_been(run, uninterrupted, kill):
    whole, info, history = uninterrupted
    with pytest.raises(Killed):
        run(progress=Watch(**kill))
    torch.manual_seed(777)  # another process, another state of the generators
    watch = Watch()
    resumed, resumed_info, resumed_history = run(progress=watch)
    assert_equal_weights(resumed, whole)
    assert without_times(resumed_history) == without_times(history)
    assert resumed_info.usage == info.usage
    assert resumed_info.config == info.config
    done = kill["after_epoch"] + 1 if "after_epoch" in kill else kill["at_step"][0]
    assert [row["epoch"] for row in watch.rows] == list(range(done, 4))  # no finished epoch is done again


def test_what_ends_before_its_first_epoch_is_forgotten(run, tmp_path):
    with pytest.raises(TrainingError, match="lower the learning rates"):
        run(replace(CONFIG, learning_rate=1e30, new_learning_rate=1e30))
    assert not run_folder(tmp_path / "out").exists()
    with pytest.raises(Killed):
        run(replace(CONFIG, learning_rate=1e-4), progress=Watch(at_step=(0, 2)))
    assert len(run()[2]) == 4


def test_fine_tuning_after_pruning_resumes_as_well(run, tiny_model, tiny_routed, tiny_info):
    plan = make_plan({1: np.array([0.4, 0.3, 0.2, 0.1]), 2: np.ones(4) / 4}, per_layer=2)
    config = replace(CONFIG, shrp=ShrpConfig(()), stage2_epochs=2, distill_hidden=0.5)

    def go(out, **options):
        model = prune(tiny_routed(dropout=0.1), plan)
        options = {"teacher": tiny_model()} | options
        return run(config, out=out, model=model, info=tiny_info(plan=plan), **options)

    for wrong in (None, tiny_routed(), tiny_model(num_hidden_layers=2)):  # None: the static model itself
        with pytest.raises(TrainingError, match="dense teacher with as many layers"):
            go("wrong", teacher=wrong)

    whole, info, history = go("whole")
    assert layer_kinds(whole) == ["dense", "static", "static"]
    assert (info.plan, info.config.layers, info.usage) == (plan, (1, 2), {})
    assert all(row["balance_loss"] == 0 and row["usage"] == {} for row in history)
    with pytest.raises(Killed):
        go("killed", progress=Watch(at_step=(1, 2)))
    resumed, _, _ = go("killed")
    assert_equal_weights(resumed, whole)


@pytest.mark.parametrize("resumed", [False, True])
def test_on_an_accelerator_all_of_the_model_is_there_before_a_layer_is_taken_from_it(
    run, monkeypatch, resumed
):
    config = replace(CONFIG, distill_logits=0.0, distill_hidden=0.0, expander_init="least_squares")
    if resumed:
        with pytest.raises(Killed):
            run(config, progress=Watch(after_epoch=0))
    found, real = [], loop.convert_layer

    def take(model, index, config):
        found[:] = [(index, {parameter.device.type for parameter in model.parameters()})]
        if found[0][1] == {"meta"}:
            raise Killed  # nothing can be computed on a device that is not there
        real(model, index, config)  # of an earlier epoch, which is restored

    monkeypatch.setattr(loop, "convert_layer", take)
    monkeypatch.setattr(loop, "training_device", lambda: torch.device("meta"))
    with pytest.raises(Killed):
        run(config)
    assert found == [(1 if resumed else 2, {"meta"})]


def test_another_run_in_the_way_is_refused_in_words(run, tiny_data, tmp_path):
    with pytest.raises(Killed):
        run(progress=Watch(after_epoch=0))
    kept = (run_folder(tmp_path / "out") / "run.json").read_text()
    with pytest.raises(TrainingError, match=r"another run \(its learning rate differ\)"):
        run(replace(CONFIG, learning_rate=2e-3))
    with pytest.raises(TrainingError, match=r"another run \(its train differ\)"):
        run(train_data=tiny_data(41))
    with pytest.raises(TrainingError, match=r"another run \(its validation differ\)"):
        run(validation=tiny_data(20, seed=2))
    assert (run_folder(tmp_path / "out") / "run.json").read_text() == kept
    assert json.loads(kept)["precision"] == "fp32"
    run()


def test_a_run_that_cannot_start_leaves_nothing_in_the_way(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(TrainingError, match="cannot be written"):
        run(out="file/out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="2 processes were launched, and this runs in one"):
        run()
    assert not run_folder(tmp_path / "out").exists()


def test_bf16_leaves_a_plain_model_and_precisions_can_follow_each_other(run, tiny_inputs, tiny_logits):
    """Nothing of the training's precision stays on a model, which can so be copied and pruned."""
    short = replace(CONFIG, epoch_size=8)
    for out, precision in (("a", "bf16"), ("b", "fp32"), ("c", "bf16")):
        model, _, _ = run(replace(short, precision=precision), out=out)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert "forward" not in vars(model)
        assert tiny_logits(model, tiny_inputs()).dtype == torch.float32
    full, _, _ = run(short, out="d")
    assert not torch.equal(full.classifier.weight, model.classifier.weight)  # bf16 was really in effect


def test_runs_that_cannot_start(run, tiny_routed, tiny_data):
    with pytest.raises(ShrpError, match="layers are 0 to 2"):
        run(replace(CONFIG, shrp=ShrpConfig((2, 5))))
    with pytest.raises(ShrpError, match="converted already"):
        run(replace(CONFIG, distill_hidden=0.0), model=tiny_routed(layers=(2,)), out="b")
    data = tiny_data(8)
    bare = TextData(data.task, "bare", data.texts)
    for which, what in (("train_data", "training"), ("validation", "validation")):
        for made, out in ((bare, "c"), (data.subset([]), "d")):
            with pytest.raises(TrainingError, match=f"the {what} data need labels"):
                run(**{which: made}, out=out)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"order": (1,)}, r"each of the layers \[1, 2\] once"),
        ({"precision": "fp8"}, "auto, fp32, bf16"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0"),
        ({"balance": -1}, "balance must be a number from 0 on"),
        ({"distill_logits": 1.5}, "between 0 and 1"),
        ({"seed": 2**32}, "seed must be between 0"),
        ({"epoch_size": 0}, "epoch_size must be 1 or more"),
        ({"shrp": ShrpConfig(()), "stage2_epochs": 0}, "nothing to do"),
    ],
)
def test_configs_that_are_refused(fields, words):
    with pytest.raises(TrainingError, match=words):
        replace(CONFIG, **fields)


def test_config_round_trip_and_schedule():
    config = replace(CONFIG, order=(1, 2), epoch_size=10)
    assert read_config(None, TrainConfig, overrides=json.loads(json.dumps(config.to_dict()))) == config
    epochs = list(config.schedule())
    assert [(e.stage, e.convert) for e in epochs] == [(1, 1), (1, 2), (2, None), (2, None)]
    assert [(e.start_factor, e.end_factor) for e in epochs] == [(1, 1), (1, 1), (1, 0.5), (0.5, 0)]


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_options_come_from_a_file_between_defaults_and_flags(tmp_path, kind):
    file = tmp_path / f"options.{kind}"
    training = {"learning_rate": "2e-4", "shrp": {"layers": [2, 1]}, "dropout": True}
    text = json.dumps({"training": training, "per_layer": [1]})
    file.write_text(text if kind == "json" else text.replace('"2e-4"', "2e-4"))
    defaults = {"training": RECIPES["retain"], "random_draws": 2}
    overrides = {"training": {"seed": 4}, "per_layer": (1, 2)}
    made = read_config(file, Recipe, defaults=defaults, overrides=overrides)
    wanted = RECIPES["retain"] | {"learning_rate": 2e-4, "dropout": True, "seed": 4}
    assert made == Recipe(TrainConfig(ShrpConfig((1, 2)), **wanted), per_layer=(1, 2), random_draws=2)
    assert read_config(None, TextConfig, overrides={"final_size": 9}) == TextConfig(final_size=9)
    file.write_text('{"training": null}' if kind == "json" else "training:\n")
    overrides["training"] |= {"shrp": {"layers": [1]}}
    made = read_config(file, Recipe, defaults=defaults, overrides=overrides)
    assert made.training.learning_rate == RECIPES["retain"]["learning_rate"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("batchsize: 8", "batch_size"),
        ("shrp: {layer: [1]}", "layers"),
        ("batch_size: many", "a whole number"),
        ("dropout: 1", "true or false"),
        ("order: 3", "a list"),
        ("shrp: 3", "a mapping"),
        ("learning_rate: -1", "above 0"),
        ("- 1", "must map options"),
        ("a: [", "not a YAML or JSON file"),
    ],
)
def test_options_in_a_file_are_checked_in_one_sentence(tmp_path, text, named):
    file = tmp_path / "options.yaml"
    file.write_text(text)
    with pytest.raises(TrainingError, match=named) as error:
        read_config(file, TrainConfig)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingError, match="can't be read"):
        read_config(tmp_path / "none.yaml", TrainConfig)


def test_a_log_has_a_line_a_phase_and_one_every_30_seconds():
    lines, now = [], [0.0]
    log = LogProgress(lines.append, lambda: now[0])
    for step in range(1, 8):
        now[0] += 10
        log.step(Status("stage 2", step, 7, 3, 4, 2, 0.5, 10.0 * (7 - step)))
    assert [line.split(", ")[1] for line in lines] == ["step 1 of 7", "step 4 of 7", "step 7 of 7"]
    log.step(Status("scoring", 0, 0))
    log.step(Status("scoring", 0, 0))
    assert lines[3:] == ["scoring"]


def test_rates_rise_over_the_warm_up_and_move_linearly():
    epoch = Epoch(0, 2, None, 1.0, 0.5, None, "")
    rising = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    wanted = [rise * (1 - 0.5 * step / 8) for step, rise in enumerate(rising)]
    assert [epoch.rate(step, 8, 0.5) for step in range(8)] == pytest.approx(wanted)
    assert epoch.rate(0, 8, 0.0) == 1.0


def test_learning_rates_of_old_and_new_weights(tiny_routed):
    model = tiny_routed()
    model.base_model.embeddings.requires_grad_(False)
    groups = parameter_groups(model, CONFIG.learning_rate, CONFIG.new_learning_rate, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    prefix = "bert.encoder.layer.1."
    assert rates[prefix + "router.dense.weight"] == (3e-3, 0.05)
    assert rates[prefix + "expander.dense.bias"] == (3e-3, 0.0)
    assert rates[prefix + "qkv_weight"] == (1e-3, 0.05)
    assert rates[prefix + "qkv_bias"] == (1e-3, 0.0)
    assert rates["bert.encoder.layer.0.attention.self.query.weight"] == (1e-3, 0.05)
    frozen = {name for name in names.values() if name.startswith("bert.embeddings.")}
    assert frozen
    assert set(rates) == set(names.values()) - frozen


def test_frozen_embeddings_are_all_that_comes_before_the_layers(tiny_model, tiny_family):
    model = tiny_model(tiny_family)
    set_trainable(model, TrainConfig(freeze_embeddings=True))
    learns = {name for name, parameter in model.base_model.named_parameters() if parameter.requires_grad}
    assert learns
    assert not any(name.startswith("embeddings") for name in learns)  # ELECTRA's have a projection too


def test_with_dense_layers_frozen_only_the_converted_ones_and_the_head_learn(run, tiny_model):
    dense = tiny_model(dropout=0.1)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    model, _, _ = run(replace(CONFIG, freeze_dense=True), model=copy.deepcopy(dense))
    after = model.state_dict()
    learnt = {name for name in before.keys() & after.keys() if not torch.equal(after[name], before[name])}
    assert learnt
    assert all(".layer.1." in name or ".layer.2." in name or "layer." not in name for name in learnt)
    assert not any("embeddings" in name or ".layer.0." in name for name in learnt)
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= learnt  # the pooler is a part of the head


def test_where_the_lower_layers_are_not_the_teachers_a_step_starts_at_the_bottom(tiny_model):
    teacher = tiny_model()
    model = convert(copy.deepcopy(teacher), ShrpConfig((2,)))
    assert same_start(model, teacher) == 0  # all of it learns
    set_trainable(model, replace(CONFIG, freeze_dense=True))
    assert same_start(model, teacher) == 2
    assert same_start(model, tiny_model(num_hidden_layers=2)) == 0  # another teacher altogether
    with torch.no_grad():
        encoder_layers(model)[1].output.dense.bias += 1
    assert same_start(model, teacher) == 1
    with torch.no_grad():
        model.base_model.embeddings.LayerNorm.bias += 1
    assert same_start(model, teacher) == 0


def test_a_disk_that_is_full_keeps_the_epoch_before_and_the_run_goes_on_from_it(run, uninterrupted, monkeypatch):
    real, written = runs.save_file, []

    def full(weights, file, **options):
        written.append(file)
        if len(written) == 3:
            file.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(weights, file, **options)

    monkeypatch.setattr(runs, "save_file", full)
    with pytest.raises(TrainingError, match="No space left"):
        run()
    assert not written[-1].exists()
    monkeypatch.setattr(runs, "save_file", real)
    watch = Watch()
    resumed, _, _ = run(progress=watch)
    assert [row["epoch"] for row in watch.rows] == [2, 3]
    assert_equal_weights(resumed, uninterrupted[0])
