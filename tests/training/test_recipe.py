"""The whole recipe on a tiny model folder and CSV files: stages, score rows, and going on after a kill."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import torch as safetensors

from shrp.checkpoints import checkpoint, reference
from shrp.checkpoints.base import load_base
from shrp.checkpoints.card_pruning import pruned
from shrp.checkpoints.info import CheckpointInfo, usage_in
from shrp.checkpoints.score_rows import score_row
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS, custom_task
from shrp.errors import CheckpointError, PlanError, ShrpError, TrainingError
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.model.config import ShrpConfig
from shrp.model.convert import layer_kinds, router_layers
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training import train as training
from shrp.training.config import TrainConfig
from shrp.training.recipe import Recipe, Run, _warn_of_a_bad_teacher
from shrp.training.run_results import stages_folder
from shrp.training.run_stages import Datasets
from shrp.training.run_state import RunState, run_folder
from shrp.training.teacher import CachedTeacher

SHARED = {"batch_size": 8, "precision": "fp32", "seed": 2}
RECIPE = Recipe(
    TrainConfig(
        ShrpConfig((1, 2)),
        stage2_epochs=1,
        learning_rate=1e-3,
        new_learning_rate=3e-3,
        distill_logits=0.5,
        distill_hidden=1.0,
        **SHARED,
    ),
    teacher=TrainConfig(stage2_epochs=2, learning_rate=3e-3, **SHARED),
    per_layer=(1, 2, 4),
    recover=(1,),
    recovery_epochs=1,
    controls=("random", "uniform", "dropped", "narrow"),
    random_seeds=2,
)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_tokenizer, tiny_data):
    """A folder with an encoder without a head, and CSV files."""
    root = tmp_path_factory.mktemp("recipe")
    tiny_model(dropout=0.1).base_model.save_pretrained(root / "encoder")
    tiny_tokenizer.save_pretrained(root / "encoder")
    for name, n, seed in (("train", 48, 0), ("validation", 24, 1), ("extra", 12, 2)):
        frame = tiny_data(n, seed).to_frame().rename(columns={"sentence": "text"})
        frame.to_csv(root / f"{name}.csv", index=False)
    return root


def datasets(place):
    train = load_file(place / "train.csv")
    others = [load_file(place / f"{name}.csv", train.task, ("text",)) for name in ("validation", "extra")]
    return Datasets(train, others[0], (others[1],))


def runner(place, out, recipe=RECIPE, run=Run, **options):
    return run(recipe, str(place / "encoder"), datasets(place), place / out, base_name="tiny", **options)


class Watched(Run):
    """A run that keeps what its scores are of."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.kinds, self.models, self.recovered, self.plans = {}, {}, {}, []
        """Row -> its model's layers and how many of them have a router; row -> that model; stage of a recovery -> what
        it keeps; plans in the order in which they are made."""

    def _score(self, label, kind, model, **facts):
        self.kinds[label] = layer_kinds(model), len(router_layers(model))
        self.models[label] = model
        return super()._score(label, kind, model, **facts)

    def _stage(self, name, config, start, info, teacher):
        self.recovered |= {name: info.plan} if info.plan else {}
        return super()._stage(name, config, start, info, teacher)

    def _plan(self, *args, **options):
        self.plans.append(super()._plan(*args, **options))
        return self.plans[-1]


@pytest.fixture(scope="module")
def watched(place):
    """An uninterrupted run: it, its info, and the stages that it announced."""
    stages = []
    run = runner(place, "whole", run=Watched, announce=stages.append)
    return run, run(), stages


@pytest.fixture(scope="module")
def finished(watched):
    """Of the uninterrupted run: its info, and the stages that it announced."""
    return watched[1:]


def rows_of(info, data="validation.csv"):
    return {row["model"]: row for row in info.scores if row["data"] == data}


def test_stages_and_what_is_left_behind(place, finished):
    info, stages = finished
    assert stages == [
        "teacher",
        "routed",
        "recovered-1",
        "recovered-random-1",
        "control-dropped",
        "control-uniform",
        "control-narrow-1",
    ]
    assert not run_folder(place / "whole").exists()
    loaded = checkpoint.load(place / "whole")
    assert loaded.info.config == RECIPE.config.shrp
    assert loaded.info.base_model == "tiny"
    assert loaded.info.task == datasets(place).train.task
    assert layer_kinds(loaded.model) == ["dense", "routed", "routed"]
    assert json.loads(json.dumps([dict(r) for r in info.scores])) == [dict(r) for r in loaded.info.scores]
    history = checkpoint.read_history(place / "whole")
    assert [row["converted_layer"] for row in history] == [2, 1, None]
    assert loaded.info.usage == history[-1]["usage"]
    assert loaded.info.training["config"] == RECIPE.config.to_dict()
    assert loaded.info.training["teacher"]["config"] == RECIPE.teacher.to_dict()


def test_scores_are_of_the_model_as_it_is_written(place, watched):
    scored, written = watched[0].models["routed"].state_dict(), checkpoint.load(place / "whole").model
    assert scored.keys() == written.state_dict().keys()
    assert all(torch.equal(scored[name], value) for name, value in written.state_dict().items())
    scored = watched[0].models["static, 1 a layer, recovered"].state_dict()
    written = checkpoint.load(stages_folder(place / "whole") / "recovered-1").model
    assert all(torch.equal(scored[name], value) for name, value in written.state_dict().items())
    trained = watched[0].models["layers dropped, 4 epochs"].state_dict()  # which is not written
    assert any(not torch.equal(value, value.half().float()) for value in trained.values())


def test_a_recovered_model_has_the_controls_of_its_size(place):
    recipe = replace(RECIPE, per_layer=(1,), recover=(1, 2), controls=("narrow", "dropped"))
    info = runner(place, "sizes", recipe)()
    names = [
        f"heads and neurons pruned to the size of {size}, 4 epochs" for size in ("1 expert", "2 experts")
    ]
    assert set(names) < {row["model"] for row in info.scores}
    for size, (own, other) in ((1, names), (2, names[::-1])):
        rows = checkpoint.load(stages_folder(place / "sizes") / f"recovered-{size}").info.scores
        beside = {row["model"] for row in rows if row["kind"] == "control"}
        assert beside == {own, "layers dropped, 4 epochs"}
        assert other not in beside
        (row,) = (row for row in rows if row["model"] == own and row["data"] == "validation.csv")
        assert (row["per_layer"], row["recovered"], "budget" in row) == (size, True, False)


def test_what_the_teacher_says_of_the_scored_data_stays_with_the_checkpoint(place, finished):
    info, loaded = finished[0], checkpoint.load(place / "whole")
    sets = datasets(place)
    assert loaded.teacher.keys() == {sets.validation.fingerprint, sets.also[0].fingerprint}
    for data in (sets.validation, *sets.also):
        kept = loaded.teacher[data.fingerprint]
        row = next(row for row in info.scores if row["kind"] == "teacher" and row["data"] == data.name)
        assert kept.evaluation(data).score == pytest.approx(row["score"])
        assert len(kept.teacher) == 64  # the teacher stage's fingerprint


def test_of_large_data_it_does_not(place, monkeypatch):
    monkeypatch.setattr(reference, "SET_BYTES", 12 * 2 * 4)  # as many as the smaller data have
    runner(place, "small", replace(RECIPE, per_layer=(1,), recover=(), controls=()))()
    kept = checkpoint.load(place / "small").teacher
    assert list(kept) == [datasets(place).also[0].fingerprint]


def test_every_model_has_a_row_for_every_data_set(finished):
    info, _ = finished
    expected = {
        "dense teacher": "teacher",
        "routed": "routed",
        "static, 1 a layer": "static",
        "static, 2 a layer": "static",
        "static, 4 a layer": "static",
        "random experts, 1 a layer": "control",
        "random experts, 2 a layer": "control",  # 4 of 4 leaves nothing to draw
        "static, 1 a layer, recovered": "static",
        "random experts, 1 a layer, recovered": "control",
        "layers dropped, 4 epochs": "control",
        "no router, all experts, 4 epochs": "control",
        "heads and neurons pruned to the size of 1 expert, 4 epochs": "control",
    }
    for data, n in (("validation.csv", 24), ("extra.csv", 12)):
        rows = rows_of(info, data)
        assert {name: row["kind"] for name, row in rows.items()} == expected
        for name, row in rows.items():
            assert row["n"] == n
            assert row["metric"] == "accuracy"
            low, high = row["interval"]
            assert low <= row["score"] <= high
            if row["interval_is"] == "95%":
                assert low < high
            if name != "dense teacher":
                assert row["retained"] == pytest.approx(row["score"] / rows["dense teacher"]["score"])
    assert rows["static, 2 a layer"]["budget"] == 4
    assert rows["random experts, 2 a layer"]["interval_is"] == "range of 2 draws"
    assert rows["static, 1 a layer, recovered"]["recovered"] is True
    assert rows["layers dropped, 4 epochs"]["epochs"] == 4  # with the recovery epochs that the static one got
    assert len(info.scores) == 2 * len(expected)


def test_scores_are_those_of_the_models(place, finished):
    """The routed model, as it is stored, and its prunings score what the rows say."""
    info, _ = finished
    loaded, data = checkpoint.load(place / "whole"), datasets(place).validation
    rows = rows_of(info)
    found = evaluate(loaded.model, loaded.tokenizer, data)
    assert found.score == rows["routed"]["score"]
    for m in (1, 2, 4):
        model = prune(loaded.model, make_plan(usage_in(loaded.info), per_layer=m))
        score = evaluate(model, loaded.tokenizer, data).score
        assert score == rows[f"static, {m} a layer"]["score"]
    assert rows["dense teacher"]["score"] > 0.6  # the teacher learnt something


def test_controls_are_what_their_rows_say(watched):
    run, info, _ = watched
    plan = partial(make_plan, usage_in(info))
    assert run.kinds == {
        "dense teacher": (["dense"] * 3, 0),
        "routed": (["dense", "routed", "routed"], 2),
        "static, 1 a layer, recovered": (["dense", "static", "static"], 0),
        "random experts, 1 a layer, recovered": (["dense", "static", "static"], 0),
        "layers dropped, 4 epochs": (["dense", "dropped", "dropped"], 0),
        "no router, all experts, 4 epochs": (["dense", "routed", "routed"], 0),
        "heads and neurons pruned to the size of 1 expert, 4 epochs": (["dense", "narrow", "narrow"], 0),
    }
    by_usage, drawn = plan(per_layer=1), plan(per_layer=1, selection="random", seed=SHARED["seed"] % 2)
    assert by_usage.key() != drawn.key()
    assert run.recovered == {"recovered-1": by_usage, "recovered-random-1": drawn}
    random = [plan(per_layer=m, selection="random", seed=seed) for m in (1, 2) for seed in (0, 1)]
    assert [one for one in run.plans if one.selection == "random"] == [*random, drawn]


def test_a_killed_run_is_no_other_commands(place, tiny_model, tiny_tokenizer, tiny_info):
    """Neither one model's training nor a conversion takes the folder of a killed run of several stages, or the other
    way round: what it has done would be deleted with their own."""
    short = replace(RECIPE, per_layer=(1,), recover=(), controls=())
    with pytest.raises(Killed):
        runner(place, "busy", short, progress=KillAfter(4, mid=True))()
    folder, sets = run_folder(place / "busy"), datasets(place)
    kept = sorted(path.relative_to(folder) for path in folder.rglob("*"))

    def fine_tune(out, **options):
        config, data = (
            TrainConfig(stage2_epochs=1, batch_size=8, precision="fp32"),
            (sets.train, sets.validation),
        )
        start = tiny_model(), tiny_info(layers=()), tiny_tokenizer
        training.train(config, *start, *data, place / out, **options)

    with pytest.raises(TrainingError, match=r"unfinished run of several stages \(routed, teacher\)"):
        fine_tune("busy", resume=True)
    with pytest.raises(TrainingError, match="of several stages"), RunState(folder).only_if_begun():
        raise AssertionError("begun in another's folder")
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == kept
    assert runner(place, "busy", short, resume=True)().scores

    with pytest.raises(Killed):
        fine_tune("lone", progress=KillAfter(1))
    with pytest.raises(TrainingError, match="unfinished run of another command"):
        runner(place, "lone", resume=True)()
    assert (run_folder(place / "lone") / "epoch-001").is_dir()


def test_a_folder_of_other_things_is_no_runs(place, tiny_model, tiny_tokenizer, tiny_info):
    """What is called as a run's folder would be, such as a study's `glue.run`, is left alone, also with --resume."""
    folder, sets = run_folder(place / "study"), datasets(place)
    (folder / "mrpc" / "teacher").mkdir(parents=True)
    (folder / "mrpc" / "teacher" / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"study\.run .* holds other things \(mrpc\)"):
        runner(place, "study", resume=True)()
    config = TrainConfig(stage2_epochs=1, batch_size=8, precision="fp32")
    start = tiny_model(), tiny_info(layers=()), tiny_tokenizer
    with pytest.raises(TrainingError, match="choose another folder"):
        training.train(config, *start, sets.train, sets.validation, place / "study")
    assert [path.name for path in folder.rglob("*")] == ["mrpc", "teacher", "config.json"]
    folder = run_folder(place / "models")
    (folder / "control-group").mkdir(parents=True)
    tiny_model().save_pretrained(folder / "bert-small")
    with pytest.raises(TrainingError, match=r"\(bert-small, control-group\)"):
        runner(place, "models", resume=True)()
    folder = run_folder(place / "notes")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"\(notes\.txt\)"):
        training.train(config, *start, sets.train, sets.validation, place / "notes")
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_others_add_to_a_result_while_it_is_made_stays(place, monkeypatch):
    """It can be looked at as soon as the routed model is there; later rows of scores replace no card, or a pruning."""
    recipe, out = replace(RECIPE, per_layer=(1,), controls=()), place / "shared"
    saved, save = [], checkpoint.save

    def watched(model, tokenizer, info, folder, **options):
        made = save(model, tokenizer, info, folder, **options)
        if Path(folder) == out:
            saved.append(len(info.scores))
            if len(saved) == 1:
                (out / "README.md").write_text("a card")
                (out / "pruned").mkdir()
                (out / "pruned" / "config.json").write_text("{}")
                added = next(iter(checkpoint.load(out).teacher.values()))
                reference.write(out, {**checkpoint.load(out).teacher, "0" * 64: added})
        return made

    monkeypatch.setattr(checkpoint, "save", watched)
    runner(place, "shared", recipe)()
    assert len(saved) > 1
    assert saved[-1] > saved[0]
    assert (out / "README.md").read_text() == "a card"
    assert (out / "pruned" / "config.json").read_text() == "{}"
    assert "0" * 64 in checkpoint.load(out).teacher
    (out / reference.FILE).write_bytes(
        b"broken"
    )  # by whoever adds to it; the trainings are not lost for that
    made = checkpoint.load(out)
    for teacher in (made.teacher, None):
        checkpoint.save(made.model, made.tokenizer, made.info, out, teacher=teacher, keep_others=True)
        assert (out / "README.md").read_text() == "a card"
        assert (out / f"{reference.FILE}.unreadable").read_bytes() == b"broken"
        assert not (out / reference.FILE).exists()
    assert len(checkpoint.load(out).info.scores) == saved[-1]
    assert not [path.name for path in place.iterdir() if path.name.startswith(".shared")]


def test_what_another_process_has_written_meanwhile_is_not_replaced(place, monkeypatch):
    recipe, out = replace(RECIPE, per_layer=(1,), controls=(), recover=()), place / "taken"
    other = checkpoint.load(runner(place, "first", recipe)() and place / "first")

    def announce(stage):
        if stage == "routed":
            shutil.copytree(other.path, out)

    with pytest.raises(CheckpointError, match="taken exists already"):
        runner(place, "taken", recipe, announce=announce)()
    assert checkpoint.load(out).fingerprint == other.fingerprint


def test_what_else_was_trained_stays_where_that_is_asked_for(place, finished):
    info, _ = finished
    recipe = replace(RECIPE, per_layer=(1,), controls=("random", "dropped"))
    again = runner(place, "kept", recipe=recipe, keep_stages=True)()
    folder = place / "kept-stages"
    found = {path.name: checkpoint.load(path) for path in sorted(folder.iterdir())}
    assert {name: layer_kinds(one.model) for name, one in found.items()} == {
        "control-dropped": ["dense", "dropped", "dropped"],
        "recovered-1": ["dense", "static", "static"],
        "recovered-random-1": ["dense", "static", "static"],
        "teacher": ["dense"] * 3,
    }
    data = datasets(place).validation
    assert evaluate(found["teacher"].model, found["teacher"].tokenizer, data).score == pytest.approx(
        rows_of(again)["dense teacher"]["score"]
    )
    assert rows_of(again)["dense teacher"] == rows_of(info)["dense teacher"]
    assert not run_folder(place / "kept").exists()
    shutil.rmtree(place / "kept")
    with pytest.raises(TrainingError, match="kept-stages exists already"):
        runner(place, "kept", recipe=recipe, keep_stages=True)()


def test_what_was_recovered_stays_as_it_is_served(place, finished):
    """Static, rounded as the result is, with its own scores and its teacher's, and what it was pruned from."""
    recipe = replace(RECIPE, per_layer=(1,), controls=("random", "dropped"))
    again = runner(place, "served", recipe=recipe)()
    (path,) = (place / "served-stages").iterdir()
    made = checkpoint.load(path)
    assert path.name == "recovered-1"
    assert made.is_static
    assert layer_kinds(made.model) == ["dense", "static", "static"]
    label = "static, 1 a layer, recovered"
    beside = {"dense teacher", label, "random experts, 1 a layer, recovered", "layers dropped, 4 epochs"}
    assert list(made.info.scores) == [row for row in again.scores if row["model"] in beside]
    assert {row["model"] for row in made.info.scores} == beside
    data = datasets(place).validation
    assert made.evaluate(data).score == rows_of(made.info)[label]["score"]  # as it is stored
    assert made.info.training["pruned_from"] == checkpoint.fingerprint(place / "served")
    assert made.teacher.keys() == checkpoint.load(place / "served").teacher.keys()
    said = pruned(made.info)
    assert "Pruned to 1 expert in each of 2 layers (2 in all), picked by usage" in said
    assert "After pruning trained on" in said
    stages = [row["stage"] for row in checkpoint.read_history(path)]
    assert stages == [row["stage"] for row in checkpoint.read_history(place / "served")] + [2]
    assert not run_folder(place / "served").exists()


@pytest.mark.parametrize("when", ["recovered-1", "finish"])
def test_a_run_that_is_killed_while_it_leaves_its_models_goes_on(place, monkeypatch, when):
    """What was trained stays until all of it is written: nothing half done is taken for the whole."""
    recipe, name = replace(RECIPE, per_layer=(1,), controls=()), f"left-{when}"
    save = checkpoint.save

    def killed(model, tokenizer, info, folder, **options):
        if Path(folder).parent.name == f".{name}-stages":
            raise Killed
        return save(model, tokenizer, info, folder, **options)

    def never(out):
        raise Killed

    with monkeypatch.context() as patch:
        if when == "finish":
            patch.setattr("shrp.training.recipe.finish", never)
        else:
            patch.setattr(checkpoint, "save", killed)
        with pytest.raises(Killed):
            runner(place, name, recipe)()
    stages = stages_folder(place / name)
    assert stages.exists() == (when == "finish")
    (stages / "mine").mkdir(parents=True)  # nothing of anybody else's is deleted
    with pytest.raises(TrainingError, match=r"has not made \(mine\)"):
        runner(place, name, recipe, resume=True)()
    (stages / "mine").rmdir()
    runner(place, name, recipe, resume=True)()
    (path,) = stages.iterdir()
    assert {row["kind"] for row in checkpoint.read_config(path)[1].scores} == {"teacher", "static"}
    assert not run_folder(place / name).exists()
    assert not [path for path in place.iterdir() if path.name.startswith(f".{name}")]


class KillAfter:
    """Ends the run at the n-th epoch of all its stages together, or in the middle of it."""

    def __init__(self, epochs, mid=False):
        self.left, self.mid = epochs, mid

    def step(self, epoch, epochs, step, steps, loss):
        if self.mid and self.left == 1 and step == 3:
            raise Killed

    def epoch(self, row):
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize(("epochs", "mid"), [(1, False), (9, True)])
def test_a_killed_run_resumes_to_the_same_end(place, finished, epochs, mid):
    out = f"killed-{epochs}"
    with pytest.raises(Killed):
        runner(place, out, progress=KillAfter(epochs, mid))()
    assert run_folder(place / out).is_dir()
    torch.manual_seed(31)
    stages = []
    info = runner(place, out, resume=True, announce=stages.append)()
    assert info.scores == finished[0].scores
    a, b = (checkpoint.load(place / name).model.state_dict() for name in ("whole", out))
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Finished stages are not done again: 2 teacher epochs, 3 routed, 1 + 1 recovery, 4 and 4 controls.
    ends = np.cumsum([2, 3, 1, 1, 4, 4])
    assert stages == finished[1][int((ends < epochs).sum()) :]
    assert not run_folder(place / out).exists()


def test_a_resumed_run_with_other_options_is_refused(place, finished):
    with pytest.raises(Killed):
        runner(place, "other", progress=KillAfter(6))()  # teacher and routed are done
    with pytest.raises(TrainingError, match="unfinished run: pass --resume"):
        runner(place, "other")()
    longer = replace(RECIPE, config=replace(RECIPE.config, learning_rate=5e-3))
    with pytest.raises(TrainingError, match=r"routed is of another run \(its learning rate differ\)"):
        runner(place, "other", longer, resume=True)()
    teacher = replace(RECIPE, teacher=replace(RECIPE.teacher, stage2_epochs=3))
    with pytest.raises(TrainingError, match=r"teacher is of another run \(its stage2 epochs differ\)"):
        runner(place, "other", teacher, resume=True)()
    run = runner(place, "other", resume=True)
    run.data = run.stages.data = Datasets(run.data.train.subset(range(40)), run.data.validation)
    with pytest.raises(TrainingError, match="its train differ"):
        run()
    run = runner(place, "other", resume=True)
    run.base_name = run.stages.base_name = "another"
    with pytest.raises(TrainingError, match="its base differ"):
        run()


def test_finished_stages_of_other_labels_or_another_base_of_the_same_names_are_refused(
    place, finished, tiny_model, tiny_tokenizer
):
    with pytest.raises(Killed):
        runner(place, "same-names", progress=KillAfter(6))()  # teacher and routed are done
    folder = run_folder(place / "same-names")
    for part in ("train", "validation"):
        run = runner(place, "same-names", resume=True)
        data = getattr(run.data, part)
        run.data = run.stages.data = replace(run.data, **{part: replace(data, labels=1 - data.labels)})
        with pytest.raises(TrainingError, match=rf"teacher is of another run \(its {part} differ\)"):
            run()
    tiny_model(seed=9).base_model.save_pretrained(place / "another-encoder")
    tiny_tokenizer.save_pretrained(place / "another-encoder")
    run = runner(place, "same-names", resume=True)
    run.base = str(place / "another-encoder")
    with pytest.raises(TrainingError, match=r"teacher is of another run \(its weights differ\)"):
        run()
    for stage in ("teacher", "routed"):  # as they were before a stage kept what it is
        (folder / stage / "run.json").unlink()
    with pytest.raises(Killed):
        runner(place, "same-names", resume=True, progress=KillAfter(1))()
    assert (folder / "recovered-1").is_dir()


def test_a_second_process_is_told_of_the_first(place, finished):
    def second(stage):
        if stage == "routed":  # stands for another process, which comes between two stages
            with pytest.raises(TrainingError, match="another process is at work in"):
                runner(place, "twice", resume=True)()
            raise Killed

    with pytest.raises(Killed):
        runner(place, "twice", announce=second)()
    assert (run_folder(place / "twice") / "teacher").is_dir()


def test_all_stages_compute_in_the_format_of_the_first_whatever_process_makes_them(place, monkeypatch):
    auto = {"precision": "auto"}
    recipe = replace(
        RECIPE,
        config=replace(RECIPE.config, **auto),
        teacher=replace(RECIPE.teacher, **auto),
        per_layer=(),
        recover=(),
        controls=("dropped",),
    )
    monkeypatch.setattr(training, "resolve_precision", lambda wanted: {"auto": "bf16"}.get(wanted, wanted))
    with pytest.raises(Killed):
        runner(place, "settled", recipe, progress=KillAfter(6))()  # in the control
    monkeypatch.setattr(training, "resolve_precision", lambda wanted: {"auto": "fp32"}.get(wanted, wanted))
    folder = run_folder(place / "settled")
    shutil.rmtree(folder / "control-dropped.run")  # as if it had not begun
    found = []
    save = checkpoint.save

    def watched(model, tokenizer, info, *rest, **options):
        found.append(info.training["precision"])
        return save(model, tokenizer, info, *rest, **options)

    monkeypatch.setattr(checkpoint, "save", watched)
    runner(place, "settled", recipe, resume=True)()
    assert set(found) == {"bf16"}


@pytest.mark.parametrize(
    ("epoch_size", "expected"),
    [
        (None, [48]),
        (8, [24, 8, 32]),  # else each asks about those that it comes by: in 3, in 1, and in 4 epochs
        (16, [48]),  # of which the stage of one epoch reads a third
    ],
)
def test_the_teacher_is_asked_once_in_a_recipe_whose_stages_come_by_all_examples(
    place, monkeypatch, epoch_size, expected
):
    asked, ask = [], CachedTeacher._ask

    def watched(self, *args):
        asked.append(len(self.rows))
        ask(self, *args)

    monkeypatch.setattr(CachedTeacher, "_ask", watched)
    config = replace(RECIPE.config, epoch_size=epoch_size)
    recipe = replace(RECIPE, config=config, per_layer=(), controls=("dropped",))
    runner(place, f"asked-{epoch_size}", recipe)()
    assert asked == expected
    assert not run_folder(place / f"asked-{epoch_size}").exists()


def test_existing_results_are_not_overwritten(place, finished):
    (place / "file").write_text("text")
    for name in ("whole", "file"):
        with pytest.raises(TrainingError, match="exists already"):
            runner(place, name)()
        assert not run_folder(place / name).exists()


@pytest.fixture(scope="module")
def classifier(place, tiny_model, tiny_tokenizer):
    """A folder of a classifier with the task's labels in capitals."""
    names = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    tiny_model(seed=4, **names).save_pretrained(place / "classifier")
    tiny_tokenizer.save_pretrained(place / "classifier")
    return place / "classifier"


def test_a_base_with_a_trained_head_is_its_own_teacher(
    place, tiny_model, tiny_tokenizer, finished, classifier
):
    recipe = replace(RECIPE, per_layer=(), recover=(), controls=())
    stages = []
    run = Run(recipe, str(classifier), datasets(place), place / "own", announce=stages.append)
    info = run()
    assert stages == [f"teacher, which is {classifier} with its own head", "routed"]
    asked = ("--teacher-epochs", "--teacher-learning-rate")
    run = Run(recipe, str(classifier), datasets(place), place / "tuned", tune_by=asked)
    with pytest.raises(TrainingError, match="leave --teacher-epochs and --teacher-learning-rate out"):
        run()
    assert not run_folder(place / "tuned").exists()
    score = evaluate(tiny_model(seed=4), tiny_tokenizer, datasets(place).validation).score
    assert rows_of(info)["dense teacher"]["score"] == score
    assert {row["kind"] for row in info.scores} == {"teacher", "routed"}


def test_a_head_is_taken_for_the_tasks_by_its_labels(place, tiny_model, tiny_tokenizer, finished, classifier):
    task = datasets(place).train.task
    assert load_base(str(classifier), task)[2]
    assert not load_base(str(place / "encoder"), task)[2]
    # Labels that stand for any say nothing of somebody's own classes, or numbers.
    tiny_model().save_pretrained(place / "generic")
    tiny_tokenizer.save_pretrained(place / "generic")
    assert not load_base(str(place / "generic"), task)[2]
    assert load_base(str(place / "generic"), replace(task, label_names=("0", "1")))[2]
    assert load_base(str(place / "generic"), TASKS["sst2"])[2]
    tiny_model(num_labels=1).save_pretrained(place / "scorer")
    tiny_tokenizer.save_pretrained(place / "scorer")
    assert not load_base(str(place / "scorer"), custom_task("stars", ("sentence",), regression=True))[2]
    assert load_base(str(place / "scorer"), TASKS["stsb"])[2]


def constant_answer(data):
    """An evaluation of the most frequent class for every input."""
    logits = np.zeros((len(data), 2), np.float32)
    logits[:, np.bincount(data.labels).argmax()] = 1
    return summarise(data, np.arange(len(data)), logits, True)


def test_a_teacher_that_knows_nothing_is_told_of(place, caplog):
    found = constant_answer(datasets(place).validation)
    _warn_of_a_bad_teacher(found, "some-base")
    assert f"the dense teacher has accuracy {found.score:.4f}" in caplog.text
    assert "no more than a constant answer" in caplog.text
    assert "Is some-base's head of this task" in caplog.text
    caplog.clear()
    _warn_of_a_bad_teacher(found, "")
    assert "head" not in caplog.text
    caplog.clear()
    _warn_of_a_bad_teacher(replace(found, score=found.score + 0.1), "some-base")
    assert not caplog.text


@pytest.mark.parametrize("named", [True, False])
def test_a_classifier_of_another_task_is_no_trained_teacher(place, tiny_model, tiny_tokenizer, named, caplog):
    """It is fine-tuned first, and whoever named it is told."""
    base = place / f"another-{named}"
    if named:  # of the hub, by the names of its labels
        names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
        tiny_model(seed=4, **names).save_pretrained(base)
        tiny_tokenizer.save_pretrained(base)
    else:  # ours, by the names of its labels too
        another = replace(datasets(place).train.task, name="another", label_names=("bad", "good"))
        checkpoint.save(tiny_model(seed=4), tiny_tokenizer, CheckpointInfo(ShrpConfig(()), another), base)
    task = datasets(place).train.task
    model, _, trained = load_base(str(base), task)
    assert not trained
    assert model.config.id2label == dict(enumerate(task.label_names))
    stages = []
    recipe = replace(RECIPE, per_layer=(), recover=(), controls=())
    Run(recipe, str(base), datasets(place), place / f"{named}-out", announce=stages.append)()
    assert stages == ["teacher", "routed"]
    assert "a teacher is fine-tuned from it first" in caplog.text
    caplog.clear()
    Run(recipe, str(place / "encoder"), datasets(place), place / f"{named}-plain")()
    assert "a teacher is fine-tuned" not in caplog.text  # a bare encoder has no head to speak of


def test_a_teacher_of_one_file_is_one_of_another_but_not_of_another_task_of_glue(
    place, tiny_model, tiny_tokenizer
):
    def teacher_of(name, task):
        checkpoint.save(
            tiny_model(seed=4), tiny_tokenizer, CheckpointInfo(ShrpConfig(()), task), place / name
        )
        return str(place / name)

    task = custom_task("train", ("review",), ("bad", "good"))  # a file's task is named after the file
    of_file = teacher_of("teacher of a file", task)
    assert load_base(of_file, replace(task, name="more"))[2]
    assert not load_base(of_file, replace(task, label_names=("no", "yes")))[2]
    assert not load_base(of_file, replace(task, text_columns=("question", "answer")))[2]
    assert load_base(of_file, custom_task("scores", ("review",), regression=True))[2] is False
    of_qnli = teacher_of("teacher of qnli", TASKS["qnli"])  # whose labels are called as those of RTE
    assert load_base(of_qnli, TASKS["qnli"])[2]
    assert not load_base(of_qnli, TASKS["rte"])[2]


@pytest.mark.parametrize("ours", [True, False])
def test_truncated_weights_of_a_base_are_said(place, tiny_model, tiny_tokenizer, tiny_info, ours):
    base, task = place / f"truncated-{ours}", datasets(place).train.task
    if ours:
        checkpoint.save(tiny_model(), tiny_tokenizer, CheckpointInfo(ShrpConfig(()), task), base)
    else:
        tiny_model().save_pretrained(base)
        tiny_tokenizer.save_pretrained(base)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ShrpError, match="truncated or not a safetensors file"):
        load_base(str(base), task)


def test_impossible_recipes():
    with pytest.raises(TrainingError, match="random, uniform, dropped"):
        replace(RECIPE, controls=("none",))
    with pytest.raises(TrainingError, match="at least one layer"):
        replace(RECIPE, config=replace(RECIPE.config, shrp=ShrpConfig(())))


@pytest.mark.parametrize("change", ["fewer layers", "another prefix", "fewer positions"])
def test_weights_that_lack_a_part_of_the_encoder_are_refused(place, tiny_model, tiny_tokenizer, change):
    """Else a random encoder would be fine-tuned, or converted, without a word."""
    base, task = place / f"lacking {change}", datasets(place).train.task
    tiny_model().save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    weights = safetensors.load_file(base / "model.safetensors")
    if change == "fewer layers":
        config["num_hidden_layers"] += 1
    elif change == "fewer positions":
        config["max_position_embeddings"] += 8
    else:
        weights = {f"wrapped.{name}": value for name, value in weights.items()}
    (base / "config.json").write_text(json.dumps(config))
    safetensors.save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="a part of the encoder would be untrained"):
        load_base(str(base), task)


def test_sizes_that_a_base_does_not_have(place):
    assert replace(RECIPE, per_layer=None).sizes(4) == (1, 2, 4)
    assert replace(RECIPE, per_layer=(3,)).sizes(4) == (3,)
    with pytest.raises(PlanError, match="keep 1 to 4 experts a layer, not 8"):
        replace(RECIPE, recover=(8,)).sizes(4)
    with pytest.raises(PlanError, match="not 5"):  # before a teacher is trained
        Run(replace(RECIPE, per_layer=(1, 5)), str(place / "encoder"), datasets(place), place / "too many")()
    assert not run_folder(place / "too many").exists()


def test_bases_that_do_not_serve(place, finished, tiny_tokenizer):
    def refuse(base, error, words):
        with pytest.raises(error, match=words):
            Run(RECIPE, str(base), datasets(place), place / "refused")()
        assert not run_folder(place / "refused").exists()  # or the next attempt would be told to resume it

    refuse(place / "nowhere", TrainingError, "neither a folder with a model")
    refuse(place / "whole", TrainingError, "converted already")
    bare = place / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((place / "encoder" / name).read_bytes())
    refuse(bare, TrainingError, "no tokenizer")
    (bare / "tokenizer.json").write_text("{}")  # of which the tokenizers library raises no error of a kind
    refuse(bare, TrainingError, "bare has no usable tokenizer: ")
    tiny_tokenizer.save_pretrained(bare)
    config = json.loads((place / "whole" / "config.json").read_text())
    config["shrp"]["format_version"] = 99
    (bare / "config.json").write_text(json.dumps(config))
    refuse(bare, CheckpointError, "version 99 is not 1")


def test_score_rows_of_several_draws(place, finished):
    loaded, data = checkpoint.load(place / "whole"), datasets(place)
    found = [evaluate(loaded.model, loaded.tokenizer, d) for d in (data.validation, data.also[0])]
    row = score_row("x", "control", found, 0.5)
    scores = [e.score for e in found]
    assert row["score"] == pytest.approx(sum(scores) / 2)
    assert row["interval"] == [min(scores), max(scores)]
    assert row["retained"] == pytest.approx(row["score"] / 0.5)
    assert "retained" not in score_row("x", "teacher", found[:1], None)
    labels = found[0].labels
    assert row["constant"] == max(np.mean(labels == c) for c in (0, 1))
    assert "constant" not in score_row("x", "teacher", [replace(found[0], labels=None)], None)


def test_usage_in_a_checkpoint(tiny_info):
    assert usage_in(tiny_info(usage={"2": [1.0, 0.0], "1": [0.5, 0.5]})) == {2: [1.0, 0.0], 1: [0.5, 0.5]}
    with pytest.raises(CheckpointError, match="carries no usage"):
        usage_in(tiny_info())
    with pytest.raises(PlanError):
        make_plan(usage_in(tiny_info(usage={"1": [0.5, 0.5]})), per_layer=3)
