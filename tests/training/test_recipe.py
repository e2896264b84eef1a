"""The whole recipe on a tiny model folder and CSV files: stages, score rows, and going on after a kill."""

import json
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import usage_in
from shrp.data.sources import load_file
from shrp.errors import PlanError, TrainingError
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.model.config import ShrpConfig
from shrp.model.convert import layer_kinds
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training import loop
from shrp.training.config import Recipe, TrainConfig
from shrp.training.recipe import Datasets, RecipeRun, _warn_of_a_bad_teacher
from shrp.training.runs import MARK_FILE, alone_in, finish, run_folder
from tests.training.test_loop import Killed, Watch

SHARED = {"batch_size": 8, "precision": "fp32", "seed": 2}
RATES = {"learning_rate": 1e-3, "new_learning_rate": 3e-3, "distill_logits": 0.5, "distill_hidden": 1.0}
RECIPE = Recipe(
    TrainConfig(ShrpConfig((1, 2)), stage2_epochs=1, **RATES, **SHARED),
    teacher=TrainConfig(stage2_epochs=2, learning_rate=3e-3, **SHARED),
    per_layer=(1, 2, 4),
    random_draws=2,
    base_name="tiny",
)
SHORT = replace(RECIPE, per_layer=(1,), random_draws=0)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, save_model, tiny_data):
    """A folder with an encoder without a head, and CSV files."""
    root = tmp_path_factory.mktemp("recipe")
    save_model(tiny_model(dropout=0.1).base_model, root / "encoder")
    for name, n, seed in (("train", 48, 0), ("validation", 24, 1), ("extra", 12, 2)):
        frame = tiny_data(n, seed).to_frame().rename(columns={"sentence": "text"})
        frame.to_csv(root / f"{name}.csv", index=False)
    return root


def datasets(place):
    train = load_file(place / "train.csv")
    others = [load_file(place / f"{name}.csv", train.task, ("text",)) for name in ("validation", "extra")]
    return Datasets(train, others[0], (others[1],))


def runner(place, out, recipe=RECIPE, **options):
    return RecipeRun(recipe, str(place / "encoder"), datasets(place), place / out, **options)


@pytest.fixture(scope="module")
def finished(place):
    """The info of an uninterrupted run, and the stages that it announced."""
    stages = []
    return runner(place, "whole", announce=stages.append)(), stages


def rows_of(info, data="validation.csv"):
    return {row["model"]: row for row in info.scores if row["data"] == data}


def test_stages_and_what_is_left_behind(place, finished):
    info, stages = finished
    assert stages == ["teacher", "routed"]
    assert not run_folder(place / "whole").exists()
    loaded = checkpoint.load(place / "whole")
    assert loaded.info.config == RECIPE.training.shrp
    assert loaded.info.base_model == "tiny"
    assert loaded.info.task == datasets(place).train.task
    assert layer_kinds(loaded.model) == ["dense", "routed", "routed"]
    assert json.loads(json.dumps([dict(r) for r in info.scores])) == [dict(r) for r in loaded.info.scores]
    history = checkpoint.read_history(place / "whole")
    assert [row["converted_layer"] for row in history] == [2, 1, None]
    assert loaded.info.usage == history[-1]["usage"]
    assert loaded.info.training["config"] == RECIPE.training.to_dict()
    assert loaded.info.training["teacher"]["config"] == RECIPE.teacher.to_dict()


def test_the_teacher_s_outputs_on_the_scored_data_stay_with_the_checkpoint(place, finished):
    info, loaded = finished[0], checkpoint.load(place / "whole")
    sets = datasets(place)
    assert loaded.teacher.keys() == {sets.validation.fingerprint, sets.also[0].fingerprint}
    for data in (sets.validation, *sets.also):
        kept = loaded.teacher[data.fingerprint]
        row = next(row for row in info.scores if row["kind"] == "teacher" and row["data"] == data.name)
        assert kept.evaluation(data).score == pytest.approx(row["score"])
        assert len(kept.teacher) == 64  # a digest of its weights


def test_every_model_has_a_row_for_every_data_set(finished):
    info, _ = finished
    expected = {"dense teacher": "teacher", "routed": "routed"}
    expected |= {f"static, {m} a layer": "static" for m in (1, 2, 4)}
    expected |= {f"random experts, {m} a layer": "control" for m in (1, 2)}  # 4 of 4 leaves nothing to draw
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


def test_a_killed_run_is_no_other_commands(place, tiny_model, tiny_tokenizer, tiny_info):
    """What another command has done in a folder would be deleted with a run's own."""
    folder, sets = run_folder(place / "busy"), datasets(place)
    with pytest.raises(Killed):
        runner(place, "busy", SHORT, progress=Watch(at_step=(2, 3)))()
    kept = sorted(path.relative_to(folder) for path in folder.rglob("*"))

    def fine_tune(out, **options):
        config = TrainConfig(stage2_epochs=1, batch_size=8, precision="fp32")
        start = tiny_model(), tiny_info(layers=()), tiny_tokenizer
        loop.train(config, *start, sets.train, sets.validation, place / out, **options)

    with pytest.raises(TrainingError, match=r"unfinished run of another command \(train\)"):
        fine_tune("busy")
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == kept
    assert runner(place, "busy", SHORT)().scores
    with pytest.raises(Killed):
        fine_tune("lone", progress=Watch(after_epoch=0))
    with pytest.raises(TrainingError, match="unfinished run of another command"):
        runner(place, "lone")()
    assert (run_folder(place / "lone") / "state.safetensors").is_file()
    (run_folder(place / "notes")).mkdir()
    (run_folder(place / "notes") / "notes.txt").write_text("mine")
    for attempt in (lambda: fine_tune("notes"), runner(place, "notes")):
        with pytest.raises(TrainingError, match="holds other things"):
            attempt()
    assert (run_folder(place / "notes") / "notes.txt").read_text() == "mine"


def test_a_process_that_ends_leaves_the_folder_of_the_next_one_alone(tmp_path):
    folder, other = run_folder(tmp_path / "out"), ExitStack()
    with alone_in(folder, "one"):
        finish(tmp_path / "out")
        other.enter_context(alone_in(folder, "other"))
    with other:
        assert (folder / MARK_FILE).read_text() == "other"
        with pytest.raises(TrainingError, match="another process"), alone_in(folder, "third"):
            pass
    assert not folder.exists()


@pytest.mark.parametrize(("done", "kill"), [(1, {"after_epoch": 0}), (4, {"at_step": (2, 3)})], ids=str)
def test_a_killed_run_resumes_to_the_same_end(place, finished, done, kill):
    out = f"killed-{done}"
    with pytest.raises(Killed):
        runner(place, out, progress=Watch(**kill))()
    assert run_folder(place / out).is_dir()
    torch.manual_seed(31)
    watch = Watch()
    info = runner(place, out, progress=watch)()
    assert info.scores == finished[0].scores
    a, b = (checkpoint.load(place / name).model.state_dict() for name in ("whole", out))
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Finished epochs are not run again: 2 of the teacher, 3 routed.
    assert len(watch.rows) == 2 + 3 - done
    assert not run_folder(place / out).exists()


def test_a_resumed_run_of_other_options_data_or_base_is_refused(place, tiny_model, save_model):
    with pytest.raises(Killed):
        runner(place, "other", progress=Watch(at_step=(2, 3)))()  # the teacher is done

    def refused(match, recipe=RECIPE, options=(), **changed):
        run = runner(place, "other", replace(recipe, **dict(options)))
        for name, value in changed.items():
            setattr(run, name, value)
        with pytest.raises(TrainingError, match=match):
            run()

    longer = replace(RECIPE, training=replace(RECIPE.training, learning_rate=5e-3))
    refused(r"routed.run is of another run \(its learning rate differ\)", longer)
    teacher = replace(RECIPE, teacher=replace(RECIPE.teacher, stage2_epochs=3))
    refused(r"teacher.run is of another run \(its stage2 epochs differ\)", teacher)
    sets = datasets(place)
    refused("its train differ", data=Datasets(sets.train.subset(range(40)), sets.validation))
    for part in ("train", "validation"):
        data = getattr(sets, part)
        other = replace(sets, **{part: replace(data, labels=1 - data.labels)})  # under the same name
        refused(rf"teacher.run is of another run \(its {part} differ\)", data=other)
    refused("its base model differ", options={"base_name": "another"})
    another = save_model(tiny_model(seed=9).base_model, place / "another-encoder")
    refused(r"teacher.run is of another run \(its weights differ\)", base=another)


def test_a_base_with_a_trained_head_is_its_own_teacher(place, tiny_model, tiny_tokenizer, save_model):
    classifier = save_model(tiny_model(seed=4), place / "classifier", "NEGATIVE", "POSITIVE")
    recipe = replace(RECIPE, per_layer=(), teacher=None)
    stages = []
    run = RecipeRun(recipe, classifier, datasets(place), place / "own", announce=stages.append)
    info = run()
    assert stages == [f"teacher, which is {classifier} with its own head", "routed"]
    with pytest.raises(TrainingError, match="leave `teacher` out"):
        RecipeRun(RECIPE, classifier, datasets(place), place / "tuned")()
    assert not run_folder(place / "tuned").exists()
    score = evaluate(tiny_model(seed=4), tiny_tokenizer, datasets(place).validation).score
    assert rows_of(info)["dense teacher"]["score"] == score
    assert {row["kind"] for row in info.scores} == {"teacher", "routed"}


def test_a_teacher_no_better_than_the_baseline_is_warned_about(place, caplog):
    data = datasets(place).validation
    constant = np.eye(2, dtype=np.float32)[np.full(len(data), np.bincount(data.labels).argmax())]
    right = np.eye(2, dtype=np.float32)[data.labels]
    found, perfect = (summarise(data, np.arange(len(data)), logits, True) for logits in (constant, right))
    _warn_of_a_bad_teacher(found, "some-base")
    assert f"the dense teacher has accuracy {found.score:.4f}" in caplog.text
    assert "Is some-base's head of this task" in caplog.text
    caplog.clear()
    _warn_of_a_bad_teacher(found, "")
    assert caplog.text
    assert "head" not in caplog.text
    caplog.clear()
    _warn_of_a_bad_teacher(perfect, "some-base")
    assert not caplog.text


def test_sizes_that_a_base_does_not_have(place):
    assert replace(RECIPE, per_layer=None).sizes(4) == (1, 2, 4)
    assert replace(RECIPE, per_layer=(3,)).sizes(4) == (3,)
    with pytest.raises(PlanError, match="1 to 4 experts per layer, not 8"):
        replace(RECIPE, per_layer=(8,)).sizes(4)
    with pytest.raises(PlanError, match="not 5"):  # before a teacher is trained
        runner(place, "too many", replace(RECIPE, per_layer=(1, 5)))()
    assert not run_folder(place / "too many").exists()


def test_bases_that_are_refused(place, finished):
    def refuse(base, error, words):
        with pytest.raises(error, match=words):
            RecipeRun(RECIPE, str(base), datasets(place), place / "refused")()
        assert not run_folder(place / "refused").exists()

    refuse(place / "nowhere", TrainingError, "neither a folder with a model")
    refuse(place / "whole", TrainingError, "converted already")
    (bare := place / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((place / "encoder" / name).read_bytes())
    refuse(bare, TrainingError, "no tokenizer")
    (bare / "tokenizer.json").write_text("{}")  # of which the tokenizers library raises no error of a kind
    refuse(bare, TrainingError, "bare has no usable tokenizer: ")
