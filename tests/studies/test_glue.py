"""The command behind the GLUE table, whole, on a tiny encoder and a few made-up examples of each task."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import usage_in
from shrp.data.sources import load_data
from shrp.data.tasks import TASKS
from shrp.errors import DataError, TrainingError
from shrp.families.families import encoder_layers
from shrp.model.convert import expert_layers, layer_kinds
from shrp.pruning.plan import make_plan
from shrp.studies import studies
from shrp.training import train as training
from studies import depths, general, glue
from studies.experiment_section import experiments_section
from studies.experiments import matching
from studies.experiments.__main__ import app as experiments_app
from studies.pipeline import Pipeline
from studies.stages import Stages, teacher_config

ROWS = 24
LAYERS = 5
"""Of the encoder here; the table's has 12."""
PARTS = {"6of12": ((3, 4),), "11of12": ((3, 4), (1, 2))}
"""What is converted of them at the depths of the table, as there the topmost first and all but one in the end."""
CONVERTED = {depth: len(sum(parts, ())) for depth, parts in PARTS.items()}


@pytest.fixture(scope="module")
def origin(tmp_path_factory, tiny_model, tiny_tokenizer, tiny_data):
    """An encoder of 5 layers x 12 heads, a folder of data in GLUE's columns, and what SHRP's rows of RTE by
    `retain` are made of, as one run of the command left it: `place` has the first two alone."""
    folder = tmp_path_factory.mktemp("origin")
    tiny_model(num_hidden_layers=LAYERS, num_attention_heads=12).base_model.save_pretrained(
        folder / "encoder"
    )
    tiny_tokenizer.save_pretrained(folder / "encoder")
    for name in general.SOURCES:
        task = TASKS[name]
        for split, seed in (("train", 0), ("validation", 1)):
            texts = [text for (text,) in tiny_data(ROWS, seed).texts]
            frame = pd.DataFrame(dict.fromkeys(task.text_columns, texts))
            frame["label"] = (
                np.arange(ROWS) % task.num_labels if task.label_names else np.linspace(0, 5, ROWS)
            )
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            frame.to_parquet(folder / "data" / name / f"{split}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, folder)
        run(folder, "--tasks", "rte", "--recipes", "retain", "--controls", "")
    return folder


def shorten(patch, folder):
    """Data of this folder, and trainings of a few steps on them."""
    patch.setenv("SHRP_DATA_DIR", str(folder / "data"))
    patch.setattr(general, "SIZES", {"conversion_size": 8, "final_size": 8, "further_size": 8})
    few = {"recovery_examples": 2 * ROWS, "recovery_tokens": 0}
    short = (replace(depth, parts=PARTS[depth.name], **few) for depth in depths.DEPTHS)
    patch.setattr(depths, "DEPTHS", tuple(short))
    patch.setattr(depths, "FEW", 0)  # so no copies


@pytest.fixture
def place(origin, tmp_path, monkeypatch):
    """The encoder and the data, of which nothing is made yet."""
    for name in ("encoder", "data"):
        shutil.copytree(origin / name, tmp_path / name)
    shorten(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def begun(origin, place):
    """The same with the teacher of RTE and the conversion on texts."""
    shutil.copytree(origin / "work" / "rte", place / "work" / "rte")
    for folder in (origin / "work").glob("general-*"):
        if not folder.name.startswith("general-further"):
            shutil.copytree(folder, place / "work" / folder.name)
    return place


@pytest.fixture
def done(origin, place):
    """The same with all that SHRP's own rows of RTE by `retain` are made of, seed 0, but not the rows."""
    shutil.copytree(origin / "work", place / "work")
    return place


def run(place, *options):
    command = glue.typer.Typer()
    command.command()(glue.main)
    arguments = [
        "--base",
        place / "encoder",
        "--base-name",
        "tiny",
        "--work",
        place / "work",
        "--out",
        place / "t.json",
    ]
    found = CliRunner().invoke(command, [str(a) for a in (*arguments, *options)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads((place / "t.json").read_text())["rows"]


def found_recovered(rows):
    """Recipe and depth -> the row of SHRP's recovered static model."""
    return {
        (row["recipe"], row["depth"]): row for row in rows if row["model"] == "static" and row["recovered"]
    }


def test_a_wide_bases_teacher_learns_at_a_lower_rate():
    rates = {size: teacher_config(3, size, 128).learning_rate for size in (24, 384, 512, 768, 1024)}
    assert rates == {24: 1e-4, 384: 1e-4, 512: 1e-4, 768: 5e-5, 1024: 5e-5}


def test_checkpoints_carry_the_controls_that_they_are_held_against(done):
    """At eleven layers what `retain` recovers is no pruning of the routed model; controls of its size are beside it."""
    for more, name in (((), "ship"), (("--no-control-texts",), "bare")):
        controls = "dropped,uniform,unrouted" + ("" if more else ",narrow")
        options = ("--tasks", "rte", "--recipes", "retain", "--controls", controls, "--depths", "11of12")
        run(done, *options, *more, "--ship", done / name)
        told = ", not trained on texts" if more else ""
        shared = {"dense teacher", f"layers dropped{told}", f"no router, all experts{told}"}
        routed, small = (
            {row["model"] for row in checkpoint.load(done / name / folder).info.scores}
            for folder in ("rte-11of12", "rte-11of12-recovered")
        )
        sizes = {f"{kind}, {m} a layer" for kind in ("static", "random experts") for m in (1, 2)}
        assert routed == shared | sizes | {"routed"}
        of_its_size = {"static, 1 a layer, recovered", "random experts, 1 a layer, recovered"}
        of_its_size |= {f"no router, then random experts{told}, 1 a layer, recovered"}
        of_its_size |= set() if more else {"heads and neurons pruned to the size of 1 expert"}
        assert small == shared | of_its_size


def test_the_table_is_filled_and_a_second_run_trains_nothing(begun):
    options = (
        "--tasks",
        "rte",
        "--recipes",
        "retain,paper",
        "--controls",
        "dropped",
        "--ship",
        begun / "ship",
    )
    rows = run(begun, *options)
    frame = studies.glue_frame(rows)
    for recipe in ("retain", "paper"):
        for depth in depths.DEPTHS:
            found = frame[(frame["recipe"] == recipe) & (frame["depth"] == depth.name)]
            assert set(found["model"]) == {"routed", "static", "random", "dropped"}
            assert set(found.loc[found["model"] == "static", "per_layer"]) == set(depth.keep)
            assert found.loc[found["model"] == "static", "recovered"].sum() == 1
            kept = found[found["model"] == "static"]
            assert (kept["kept"] == kept["per_layer"] * CONVERTED[depth.name]).all()
    assert all(row["n"] == ROWS for row in rows)
    trained = frame["model"].eq("dropped") | (frame["model"].eq("random") & frame["recovered"])
    assert frame["lead"].notna().equals(trained)  # the controls that SHRP's recovered model is held against
    ours = found_recovered(rows)
    leads = [row for row in rows if "lead" in row]
    for row in leads:
        gap = ours[row["recipe"], row["depth"]]["score"] - row["score"]
        assert row["lead"] * row["teacher"] == pytest.approx(gap)
    assert any(row["lead"] for row in leads)
    assert {row["constant"] for row in rows} == {0.5}
    dropped = next((begun / "work" / "rte-s0").glob("retain-dropped-11of12-*"))
    assert layer_kinds(checkpoint.load(dropped).model) == ["dense"] + ["dropped"] * 4
    trained = {
        path.parent.name.rsplit("-", 1)[0]: checkpoint.read_config(path.parent)[1].training
        for path in (begun / "work").glob("rte*/*/config.json")
    }
    assert len(trained) == 1 + 2 * 2 + 4 * 2 * 2  # the teacher, stage 1 of `paper`, and four at each depth
    for name, facts in trained.items():
        assert facts["config"]["freeze_embeddings"], name
        assert facts["config"]["freeze_dense"] == (name.startswith("retain") and "6of12" in name), name
    epochs = {name: facts["epochs"] for name, facts in trained.items()}
    for recipe, depth, m in (("retain", "6of12", 2), ("paper", "6of12", 2), ("paper", "11of12", 1)):
        stage2, recovery = epochs[f"{recipe}-none-{depth}"], epochs[f"{recipe}-static-{depth}-{m}"]
        assert epochs[f"{recipe}-random-{depth}-{m}"] == recovery == 2
        assert epochs[f"{recipe}-dropped-{depth}"] == stage2 + recovery == 4  # a control learns for as long
    made = {path: path.stat().st_mtime_ns for path in (begun / "work").rglob("model.safetensors")}
    assert run(begun, *options) == rows
    assert {p: p.stat().st_mtime_ns for p in (begun / "work").rglob("model.safetensors")} == made
    for depth, dense in (("6of12", 3), ("11of12", 1)):
        shipped = checkpoint.load(begun / "ship" / f"rte-{depth}")
        assert layer_kinds(shipped.model) == ["dense"] * dense + ["routed"] * (LAYERS - dense)
        assert {row["kind"] for row in shipped.info.scores} == {"teacher", "routed", "static", "control"}
        card = (shipped.path / "README.md").read_text(encoding="utf-8")
        assert card.count("8 for each of") == (1 if depth == "6of12" else 2)
        assert card.count("texts (of glue/mrpc train, glue/rte train, ") == 1  # the same at both depths
        assert not any(row.get("recovered") for row in shipped.info.scores if depth == "11of12")
        scored_on = {row["data_fingerprint"] for row in shipped.info.scores}
        assert set(shipped.teacher) == scored_on
    assert sorted(path.name for path in (begun / "ship").iterdir()) == [
        "rte-11of12",
        "rte-11of12-recovered",
        "rte-6of12",
    ]
    small = checkpoint.load(begun / "ship" / "rte-11of12-recovered")
    assert layer_kinds(small.model) == ["dense"] + ["static"] * 4
    by_name = {row["model"]: row for row in small.info.scores if row["data"].startswith("glue/")}
    assert sorted(by_name) == [
        "dense teacher",
        "layers dropped",
        "random experts, 1 a layer, recovered",
        "static, 1 a layer, recovered",
    ]
    assert by_name["static, 1 a layer, recovered"]["score"] == ours["retain", "11of12"]["score"]
    card = (small.path / "README.md").read_text(encoding="utf-8")
    assert "to the experts that a routed model of rte uses most" in card
    assert [row["stage"] for row in checkpoint.read_history(small.path)][-2:] == [2, 2]


def test_in_the_extreme_the_task_says_which_experts_learn_from_texts_and_controls_see_as_many(done):
    rows = run(done, "--tasks", "rte", "--recipes", "retain", "--controls", "dropped,uniform")
    deep = [row for row in rows if row["depth"] == "11of12" and row["model"] != "teacher"]
    conversion = 8 * (CONVERTED["11of12"] + len(depths.DEPTHS))
    texts = {(row["model"], row["recovered"]): row["texts"] for row in deep}
    assert texts == {
        ("routed", False): conversion,
        ("static", False): conversion,
        ("random", False): conversion,
        ("static", True): conversion + 8,
        ("random", True): conversion + 8,
        ("dropped", False): conversion + 8,
        ("uniform", False): conversion + 8,
    }
    work = done / "work"
    pruned, random = (
        checkpoint.load(next(work.glob(f"general-further-{kind}-*"))) for kind in ("static", "random")
    )
    assert layer_kinds(pruned.model) == ["dense"] + ["static"] * 4
    routed, recovered = (
        checkpoint.load(next((work / "rte-s0").glob(f"retain-{stage}-*")))
        for stage in ("none-11of12", "static-11of12-1")
    )
    plan = make_plan(usage_in(routed.info), per_layer=1)
    assert recovered.info.plan == pruned.info.plan == plan != random.info.plan
    assert {(row["model"], row["recovered"]) for row in deep if row["recovered_on_texts"]} == {
        ("static", True),
        ("random", True),
    }
    dropped = checkpoint.load(next((work / "rte-s0").glob("retain-dropped-11of12-*")))
    assert recovered.info.training["epochs"] == dropped.info.training["epochs"] == 2


def test_without_a_router_random_experts_learn_for_as_long_as_shrp(begun):
    rows = run(begun, "--tasks", "rte", "--seeds", "1", "--recipes", "retain,paper", "--controls", "unrouted")
    work = begun / "work"
    for recipe in ("retain", "paper"):
        for depth in depths.DEPTHS:
            here = [row for row in rows if (row["recipe"], row["depth"]) == (recipe, depth.name)]
            (row,) = (row for row in here if row["model"] == "unrouted")
            mine = found_recovered(rows)[recipe, depth.name]
            same = (
                "per_layer",
                "kept",
                "recovered",
                "recovered_on_texts",
                "texts",
                "copies",
                "encoder_params",
            )
            assert {name: row[name] for name in same} == {name: mine[name] for name in same}
            assert row["lead"] * row["teacher"] == pytest.approx(mine["score"] - row["score"])
            of = {
                kind: checkpoint.load(next((work / "rte-s1").glob(f"{recipe}-{kind}-{depth.name}-*")))
                for kind in ("unrouted", "random", "static", "none")
            }
            layers = CONVERTED[depth.name]
            assert layer_kinds(of["unrouted"].model) == ["dense"] * (LAYERS - layers) + ["static"] * layers
            plans = [dict(of[kind].info.plan.layers) for kind in ("unrouted", "random")]
            for layer, kept in plans[0].items():  # the same draw, of gates that are alike
                assert kept.experts == plans[1][layer].experts
                assert set(kept.weights) == {1 / depth.recover}
            epochs = {kind: made.info.training["epochs"] for kind, made in of.items()}
            stage2 = 0 if depth.texts_first(recipe) else epochs["none"]
            assert epochs["unrouted"] == stage2 + epochs["static"]
    alike = checkpoint.load(next(work.glob("general-uniform-*"))).model
    assert {layer.routing for layer in expert_layers(alike).values()} == {"uniform"}
    assert not list(work.glob("general-further-uniform-*"))  # it need not have learned whole
    names = set(studies.glue_frame(rows)["name"])
    assert "control: no router, then random experts, 1 a layer, recovered on texts and the task" in names


def test_pruned_heads_and_neurons_learn_for_as_long_as_shrp_in_layers_of_its_size(begun):
    rows = run(begun, "--tasks", "rte", "--seeds", "1", "--recipes", "paper", "--controls", "narrow")
    for depth in depths.DEPTHS:
        here = [row for row in rows if (row["recipe"], row["depth"]) == ("paper", depth.name)]
        (row,) = (row for row in here if row["model"] == "narrow")
        mine = found_recovered(rows)["paper", depth.name]
        layers = CONVERTED[depth.name]
        assert (row["per_layer"], row["kept"]) == (depth.recover, None)
        assert row["texts"] == 0
        assert row["lead"] * row["teacher"] == pytest.approx(mine["score"] - row["score"])
        more = row["encoder_params"] - mine["encoder_params"]
        assert more <= 0 if depth.recover > 1 else 0 < more < 0.1 * mine["encoder_params"]
        made, first, static, routed = (
            checkpoint.load(next((begun / "work" / "rte-s1").glob(f"paper-{kind}")))
            for kind in (
                f"narrow-{depth.name}-????????",
                f"narrow-{depth.name}-stage1-*",
                f"static-{depth.name}-*",
                f"none-{depth.name}-????????",
            )
        )
        assert layer_kinds(made.model) == ["dense"] * (LAYERS - layers) + ["narrow"] * layers
        assert made.info.config.narrow_to == depth.recover
        assert first.info.training["epochs"] == layers  # of its own size, each depth begins with the teacher
        assert made.info.training["epochs"] == sum(one.info.training["epochs"] for one in (routed, static))
    frame = studies.glue_frame(rows)
    assert "control: heads and neurons pruned to the size of 2 experts" in set(frame["name"])
    assert "no layer is converted" in studies.about_controls(frame)
    stages = Stages(str(begun / "encoder"), "tiny", begun / "work", "rte", 0)
    texts = general.General(str(begun / "encoder"), "tiny", begun / "work")
    deeper = Pipeline(stages, texts, control_texts=True, chosen=depths.DEPTHS[1:])
    assert len(list(deeper.conversions("paper", "narrow"))) == 1
    # Nothing goes on from the shallower one, so it is not trained.
    assert len(list((begun / "work" / "rte-s0").glob("paper-narrow-*"))) == 2


def test_pruned_heads_and_neurons_learn_from_texts_as_what_retain_converts_does(done):
    rows = run(done, "--tasks", "rte", "--recipes", "retain", "--controls", "narrow")
    work = done / "work"
    for depth in depths.DEPTHS:
        (row,) = (row for row in rows if (row["depth"], row["model"]) == (depth.name, "narrow"))
        mine = found_recovered(rows)["retain", depth.name]
        assert {name: row[name] for name in ("texts", "copies", "per_layer", "train_examples")} == {
            name: mine[name] for name in ("texts", "copies", "per_layer", "train_examples")
        }
        assert row["lead"] * row["teacher"] == pytest.approx(mine["score"] - row["score"])
        made = checkpoint.load(next((work / "rte-s0").glob(f"retain-narrow-{depth.name}-*")))
        layers = CONVERTED[depth.name]
        assert layer_kinds(made.model) == ["dense"] * (LAYERS - layers) + ["narrow"] * layers
    found = [checkpoint.load(path) for path in work.glob("general-narrow-*")]
    sizes = sorted((len(one.info.config.layers), one.info.config.narrow_to) for one in found)
    assert sizes == [(2, 1), (2, 2), (4, 1)]  # each depth's layers have a size of their own
    assert {one.info.training["measured_on"] for one in found} == {"glue/rte train"}
    assert len(list(work.glob("general-further-narrow-*"))) == 1
    first = [
        encoder_layers(checkpoint.load(path).model)[0].output.dense.weight
        for path in (work / "rte" / "teacher", next((work / "rte-s0").glob("retain-narrow-6of12-*")))
    ]
    assert torch.equal(*first)  # the task's own, as beside what is converted
    assert "not trained on texts" not in "".join(studies.glue_frame(rows)["name"])
    arguments = ("--base", done / "encoder", "--work", work, "--out", done / "t.json", "--tasks", "rte")
    command = glue.typer.Typer()
    command.command()(glue.main)
    refused = CliRunner().invoke(
        command, [str(a) for a in (*arguments, "--controls", "narrow", "--no-control-texts")]
    )
    assert isinstance(refused.exception, TrainingError)
    assert "learns from texts" in str(refused.exception)


def test_a_task_with_few_tokens_has_changed_copies_for_shrp_and_controls_alike(begun, monkeypatch):
    monkeypatch.setattr(depths, "FEW", 10**9)
    deep = replace(depths.DEPTHS[1], copies=3)
    monkeypatch.setattr(depths, "DEPTHS", (depths.DEPTHS[0], deep))
    rows = run(begun, "--tasks", "rte", "--recipes", "retain", "--controls", "dropped", "--depths", "11of12")
    copies = {(row["model"], row["recovered"]): row["copies"] for row in rows}
    assert {what for what, number in copies.items() if number == 3} == {
        ("static", True),
        ("random", True),
        ("dropped", False),
    }
    assert set(copies.values()) == {0, 3}
    assert {row["train_examples"] for row in rows} == {ROWS}
    for stage, more in (
        ("none-11of12", False),
        ("static-11of12-1", True),
        ("random-11of12-1", True),
        ("dropped", True),
    ):
        made = checkpoint.load(next((begun / "work" / "rte-s0").glob(f"retain-{stage}-*"))).info.training
        assert made["train_examples"] == ROWS * (4 if more else 1)
        assert made["train_data"].endswith("and 3 changed copies of each") == more
        assert made["config"]["distill_logits"] == (1.0 if more else 0.5)


def test_the_table_converts_the_upper_half_of_twelve_layers_and_then_all_but_the_first():
    half, most = depths.DEPTHS
    assert (half.parts, sorted(sum(most.parts, ()))) == ((depths.UPPER,), list(range(1, 12)))
    assert most.parts[0] == depths.UPPER == tuple(range(6, 12))


def test_a_depth_asks_for_whole_epochs_of_about_as_many_examples_or_tokens():
    deep = depths.DEPTHS[1]
    assert deep.recovery_epochs("retain", 5_000, 200_000) == 12  # 60,000 examples
    assert deep.recovery_epochs("retain", 3_668, 195_290) == 16  # 58,688 of them, which is nearer than 62,356
    assert deep.recovery_epochs("retain", 5_000, 50_000) == 30  # 1.5 million tokens
    assert deep.recovery_epochs("paper", 5_000, 50_000) == 12
    assert deep.recovery_epochs("retain", 80_000, 800_000) == 8  # an epoch has 20,000 examples at most
    assert depths.DEPTHS[0].recovery_epochs("retain", 5_000, 50_000) == 1
    assert (deep.copies_of("retain", 99_999), deep.copies_of("retain", 100_000)) == (15, 0)
    assert deep.copies_of("paper", 9) == depths.DEPTHS[0].copies_of("retain", 9) == 0


def test_seeds_share_the_teacher_and_the_conversion_on_texts(done):
    rows = run(done, "--tasks", "rte", "--recipes", "retain", "--controls", "", "--seeds", "0,1")
    assert len({row["teacher"] for row in rows}) == 1
    work = done / "work"
    assert len(list(work.glob("general-none-*"))) == len(depths.DEPTHS)
    routed = [checkpoint.load(next((work / f"rte-s{s}").glob("retain-none-6of12-*"))) for s in (0, 1)]
    assert routed[0].fingerprint != routed[1].fingerprint
    for seed in (0, 1):  # each has a draw of random experts of its own
        for depth in depths.DEPTHS:
            at, m = work / f"rte-s{seed}", depth.recover
            usage = usage_in(checkpoint.load(next(at.glob(f"retain-none-{depth.name}-*"))).info)
            plan = checkpoint.load(next(at.glob(f"retain-random-{depth.name}-{m}-*"))).info.plan
            assert plan == make_plan(usage, per_layer=m, selection="random", seed=seed)


@pytest.mark.parametrize("control", ["none", "uniform", "dropped"])
def test_a_killed_conversion_on_texts_goes_on(place, monkeypatch, control):
    def encoder(work):
        return general.General(str(place / "encoder"), "tiny", place / work)(control, ((3, 4),))

    class Killed(BaseException):
        pass

    def killed(row):
        raise Killed

    whole, told = encoder("whole"), []
    monkeypatch.setattr(general, "say_conversion", killed)
    with pytest.raises(Killed):
        encoder("work")
    monkeypatch.setattr(general, "say_conversion", lambda row: told.append(row["epoch"]))
    made = encoder("work")
    assert told == [1, 2]
    for one, other in zip(whole.model.parameters(), made.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert made.info == whole.info
    assert not list((place / "work").glob("*.run"))


def test_what_was_made_of_other_data_is_not_read_back(done):
    """As many rows under the same name: only their bytes tell."""
    options = ("--tasks", "rte", "--recipes", "retain", "--controls", "", "--depths", "6of12")
    run(done, *options)
    assert run(done, *options)
    for split, part in (("validation", "teacher is of another run .its validation"), ("train", "its train")):
        file = done / "data" / "rte" / f"{split}.parquet"
        frame = pd.read_parquet(file)
        frame.assign(label=1 - frame["label"]).to_parquet(file)
        with pytest.raises(TrainingError, match=part):
            run(done, *options)
        frame.to_parquet(file)
    file = done / "data" / "cola" / "train.parquet"  # other texts to convert on
    frame = pd.read_parquet(file)
    frame.assign(sentence="w1 w2").to_parquet(file)
    with pytest.raises(TrainingError, match=r"general-none-\S+ is of another run .its texts differ"):
        run(done, *options)
    frame.to_parquet(file)
    shutil.rmtree(done / "work" / "rte" / "teacher")
    (done / "t.json").unlink()  # whose rows stand beside another teacher
    model = checkpoint.load(next((done / "work" / "rte-s0").glob("retain-none-6of12-*"))).model
    other = AutoModelForSequenceClassification.from_config(model.config)
    other.base_model.save_pretrained(done / "encoder")
    with pytest.raises(TrainingError, match="its weights differ"):
        run(done, *options)


def test_controls_compute_in_the_format_of_shrp_whatever_process_trains_them(place, monkeypatch):
    for module in (training, general):
        monkeypatch.setattr(module, "resolve_precision", lambda wanted: {"auto": "bf16"}.get(wanted, wanted))
    options = ("--tasks", "rte", "--recipes", "retain", "--depths", "11of12")
    run(place, *options, "--controls", "")
    for module in (training, general):
        monkeypatch.setattr(module, "resolve_precision", lambda wanted: {"auto": "fp32"}.get(wanted, wanted))
    for folder in (place / "work").glob("general-further-*"):
        shutil.rmtree(folder)
    run(place, *options, "--controls", "dropped")
    made = [path.parent for path in (place / "work").glob("rte*/*/config.json")]
    assert any("dropped" in folder.name for folder in made)
    assert {checkpoint.read_config(folder)[1].training["precision"] for folder in made} == {"bf16"}
    texts = [checkpoint.read_history(folder) for folder in (place / "work").glob("general-*")]
    assert {row["precision"] for rows in texts for row in rows} == {"bf16"}


def test_controls_alone_come_beside_the_rows_that_there_are(begun):
    options = ("--tasks", "rte", "--recipes", "paper", "--depths", "6of12")
    first = run(begun, *options, "--controls", "")
    shutil.rmtree(begun / "work" / "rte-s0")  # SHRP's own models are gone, their rows stay
    rows = run(begun, *options, "--controls", "uniform", "--controls-alone")
    assert [row for row in rows if row["model"] != "uniform"] == first
    (control,) = (row for row in rows if row["model"] == "uniform")
    assert "lead" not in control
    assert not any("none" in folder.name for folder in (begun / "work" / "rte-s0").iterdir())


def test_controls_without_texts_are_read_back(done):
    """Their fresh layers are the same ones each time."""
    options = ("--tasks", "rte", "--recipes", "retain", "--depths", "6of12", "--no-control-texts")
    first = run(done, *options, "--controls", "uniform")
    torch.manual_seed(99)
    assert run(done, *options, "--controls", "uniform") == first


def test_what_was_finished_before_its_identity_was_kept_needs_neither_base_nor_texts(done, monkeypatch):
    options = ("--tasks", "rte", "--recipes", "retain", "--controls", "", "--depths", "6of12")
    first = run(done, *options)
    for file in (done / "work").rglob("run.json"):
        file.unlink()
    shutil.rmtree(done / "encoder")
    shutil.rmtree(done / "data" / "cola")
    assert run(done, *options) == first


def test_a_checkpoint_is_shipped_of_one_seed(place):
    with pytest.raises(TrainingError, match="--seeds with a single one"):
        run(place, "--seeds", "0,1", "--ship", place / "ship")


def test_controls_alone_are_some(place):
    with pytest.raises(TrainingError, match="--controls-alone needs --controls"):
        run(place, "--controls", "", "--controls-alone")


def test_controls_alone_stand_beside_something_and_take_no_lead(begun):
    options = ("--tasks", "rte", "--recipes", "paper", "--depths", "6of12", "--controls", "dropped")
    with pytest.raises(
        TrainingError, match=r"t\.json has no recovered rows of SHRP's for rte, seed 0, paper, 6of12"
    ):
        run(begun, *options, "--controls-alone")
    assert not (begun / "t.json").exists()
    rows = run(begun, *options)
    with pytest.raises(TrainingError, match=r"SHRP's lead over dropped .* would be lost"):
        run(begun, *options, "--controls-alone")
    assert json.loads((begun / "t.json").read_text())["rows"] == rows


def test_a_depth_alone_gets_the_same_rows_without_the_other_s_training_on_the_task(begun):
    options = ("--tasks", "rte", "--recipes", "paper", "--controls", "dropped")
    alone = run(begun, *options, "--depths", "11of12")
    assert {row["depth"] for row in alone} == {"11of12"}
    trained = {path.name for path in (begun / "work" / "rte-s0").iterdir()}
    assert {name.rsplit("-", 1)[0] for name in trained if "6of12" in name} == {
        "paper-none-6of12-stage1",
        "paper-dropped-6of12-stage1",
    }
    both = run(begun, *options)
    assert [row for row in both if row["depth"] == "11of12"] == alone
    assert {row["depth"] for row in both} == {"6of12", "11of12"}


def test_a_depth_that_there_is_not_is_refused():
    with pytest.raises(typer.BadParameter, match=r"'7of12' is none of 6of12, 11of12"):
        depths.named("6of12,7of12")


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--controls", "drop", "'drop' is none of dropped, uniform"),
        ("--recipes", "retain,papr", "'papr' is none of paper, retain"),
        ("--recipes", "", "name at least one of paper, retain"),
        ("--seeds", "0,a", "numbers are separated by commas"),
    ],
)
def test_an_option_is_refused_before_anything_is_trained(place, option, text, said):
    command = glue.typer.Typer()
    command.command()(glue.main)
    shared = ["--base", str(place / "encoder"), "--work", str(place / "work"), "--out", str(place / "t.json")]
    found = CliRunner().invoke(command, [*shared, option, text], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert said in " ".join(found.output.replace("│", " ").split())
    assert not (place / "work").exists()


def test_prunings_of_the_table_with_other_experts(done, monkeypatch):
    """The experiment `matching` reads the table's own trainings back, and exchanges what it says."""
    run(done, "--tasks", "rte", "--recipes", "retain", "--controls", "", "--depths", "11of12")
    # Expert 0 matches most, 11 least.
    shares = {layer: np.linspace(0.5, 0.0, 12) for layer in range(1, LAYERS)}
    monkeypatch.setattr(matching, "matching_shares", lambda found: shares)
    (of_table,) = (done / "work" / "rte-s0").glob("retain-random-11of12-1-*")
    plan = checkpoint.load(of_table).info.plan
    made = set((done / "work").rglob("model.safetensors"))
    options = ["--base", done / "encoder", "--base-name", "tiny", "--work", done / "work", "--seeds", "0"]
    out = done / "matching.json"
    arguments = [
        "matching",
        *options,
        "--task",
        "rte",
        "--layers",
        "1,2",
        "--origins",
        "random",
        "--out",
        out,
    ]
    found = CliRunner().invoke(experiments_app, [str(a) for a in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    rows = {row["exchange"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == ["as drawn", "put in", "another"]
    drawn = rows["as drawn"]["kept"]
    assert drawn == {str(layer): one.experts[0] for layer, one in plan.layers}
    assert 0 not in (drawn["1"], drawn["2"])
    for kind, expert in (("put in", {"1": 0, "2": 0}), ("another", {"1": 11, "2": 11})):
        other = {layer: 10 if drawn[layer] == 11 and kind == "another" else e for layer, e in expert.items()}
        assert rows[kind]["kept"] == drawn | other
        gap = rows[kind]["score"] - rows["as drawn"]["score"]
        assert rows[kind]["change"] * rows[kind]["teacher"] == pytest.approx(gap)
    assert len(set((done / "work").rglob("model.safetensors")) - made) == 4  # two on texts, two on the task
    text = experiments_section(done)
    assert "layer 1's expert 0 (matching: 50%)" in text
    refused = CliRunner().invoke(experiments_app, [str(a) for a in [*arguments, "--task", "sst2"]])
    assert isinstance(refused.exception, TrainingError)
    assert "no pairs of texts" in str(refused.exception)


def test_matching_experts_are_put_in_or_taken_out():
    shares = {1: np.array([0.0, 0.3, 0.1]), 2: np.array([0.2, 0.1, 0.0])}
    assert dict(matching.exchanges({1: 0, 2: 1}, (1, 2), shares)) == {
        "put in": {1: 1, 2: 0},
        "another": {1: 2, 2: 2},
    }
    assert dict(matching.exchanges({1: 1, 2: 1}, (1, 2), shares)) == {"taken out": {1: 0, 2: 1}}
    assert dict(matching.exchanges({1: 1, 2: 0}, (2,), shares)) == {"taken out": {1: 1, 2: 2}}


def test_exchanges_that_can_not_be_made_are_refused_before_anything_is_trained(place):
    options = ["matching", "--base", place / "encoder", "--work", place / "work", "--out", place / "m.json"]
    for more, said in (
        (["--layers", "0"], "layer 0 keeps no expert"),
        (["--layers", "2,12"], "layer 12 keeps no expert"),
        (["--kinds", "put"], "'put' is none of"),
        (["--origins", "usage"], "'usage' is none of"),
        (["--task", "sst2"], "no pairs of texts"),
    ):
        found = CliRunner().invoke(
            experiments_app, [str(a) for a in [*options, *more]], env={"COLUMNS": "200"}
        )
        assert found.exit_code != 0
        assert said in " ".join((found.output + str(found.exception)).replace("│", " ").split())
    assert not (place / "work").exists()


def test_controls_at_other_learning_rates(done):
    """The experiment `rates` reads the table's own trainings back, and trains the last of them at other rates."""
    run(done, "--tasks", "rte", "--recipes", "retain", "--controls", "dropped,narrow", "--depths", "11of12")
    made = set((done / "work").rglob("model.safetensors"))
    out = done / "rates.json"
    options = ["--base", done / "encoder", "--base-name", "tiny", "--work", done / "work", "--task", "rte"]
    models = ("dropped", "narrow", "random", "static")
    options += ["--models", ",".join(models), "--times", "1,2", "--out", out]
    found = CliRunner().invoke(experiments_app, ["rates", *map(str, options)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    file = json.loads(out.read_text())
    labels = load_data("glue", "rte").labels
    assert file["data"]["rte"]["constant"] == np.bincount(labels).max() / len(labels)
    rows = {(row["model"], row["times"]): row for row in file["rows"]}
    assert list(rows) == [(model, times) for model in models for times in (1, 2)]
    of_table = {row["model"]: row for row in json.loads((done / "t.json").read_text())["rows"]}
    for (model, times), row in rows.items():
        rates = depths.DEPTHS[-1].rates
        assert row["learning_rate"] == pytest.approx(times * rates["learning_rate"])
        assert row["new_learning_rate"] == pytest.approx(times * rates["new_learning_rate"])
        if times == 1 and model in ("dropped", "narrow"):
            assert row["score"] == of_table[model]["score"]
    new = [path.parent.name for path in set((done / "work").rglob("model.safetensors")) - made]
    of = ["retain-dropped-11of12", "retain-narrow-11of12", "retain-random-11of12-1", "retain-static-11of12-1"]
    assert sorted(name.rsplit("-", 1)[0] for name in new) == of
    # From another start: the task's teacher without texts, its layers dropped or none converted.
    made = set((done / "work").rglob("model.safetensors"))
    other = ["rates", *map(str, options), "--models", "taught,dense", "--times", "1"]
    assert CliRunner().invoke(experiments_app, other, catch_exceptions=False).exit_code == 0
    new = {path.parent for path in set((done / "work").rglob("model.safetensors")) - made}
    taught, dense = sorted(new, key=lambda path: "dense" in path.name)
    for folder, control, layers in ((taught, "dropped", tuple(range(1, LAYERS))), (dense, "none", ())):
        config = checkpoint.read_config(folder)[1].config
        assert (config.control, config.layers) == (control, layers)
        assert not any("texts" in row for row in checkpoint.read_history(folder))
    epochs = [len(checkpoint.read_history(folder)) for folder in (taught, dense)]
    assert epochs[0] == epochs[1]
    said = experiments_section(done)
    assert "layers dropped" in said
    assert "layers dropped from the task's teacher, without texts" in said
    assert "the dense teacher trained on for as long" in said
    # Rows of another depth may stand beside another teacher, those of one depth not.
    file = json.loads(out.read_text())
    elsewhere = [row | {"depth": "6of12", "teacher": row["teacher"] / 2} for row in file["rows"]]
    out.write_text(json.dumps(file | {"rows": file["rows"] + elsewhere}))
    again = ["rates", *map(str, options), "--models", "dropped", "--times", "1"]
    assert CliRunner().invoke(experiments_app, again, catch_exceptions=False).exit_code == 0
    assert len(json.loads(out.read_text())["rows"]) == 2 * len(file["rows"])
    out.write_text(
        json.dumps(file | {"rows": [row | {"teacher": row["teacher"] / 2} for row in file["rows"]]})
    )
    with pytest.raises(DataError, match="rows of rte, 11of12 beside a teacher that scores"):
        CliRunner().invoke(experiments_app, again, catch_exceptions=False, standalone_mode=False)
    for option, said in (
        (("--times", "0,1"), "numbers above 0"),
        (("--depth", "6of12,11of12"), "one depth at a time"),
    ):
        with pytest.raises(TrainingError, match=said):
            CliRunner().invoke(
                experiments_app,
                ["rates", *map(str, options), *option],
                catch_exceptions=False,
                standalone_mode=False,
            )
