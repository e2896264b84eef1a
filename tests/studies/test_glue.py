"""The studies that train, end to end, on a tiny encoder and a few made-up examples: rows, kill and resume."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from shrp.checkpoints import checkpoint
from shrp.data.tasks import TASKS
from shrp.errors import DataError, TrainingError
from shrp.training import loop
from shrp.training.text import load_conversion
from studies import glue, questions, trainings
from studies.glue import KEY, MODELS
from studies.rows import Rows
from tests.training.test_loop import Killed

ROWS, LAYERS = 40, 4
"""Examples of a split, of which a tenth, two of each class, scores what is tuned; and layers of the encoder."""


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_model, save_model, tiny_data):
    """An encoder of 4 layers and 4 heads, data in GLUE's columns, and trainings of a few steps."""
    save_model(tiny_model(num_hidden_layers=LAYERS).base_model, tmp_path / "encoder")
    monkeypatch.setattr(trainings, "SOURCES", ("rte", "cola"))
    for name in trainings.SOURCES:
        task = TASKS[name]
        for split, seed in (("train", 0), ("validation", 1)):
            texts = [text for (text,) in tiny_data(ROWS, seed).texts]
            frame = pd.DataFrame(dict.fromkeys(task.text_columns, texts))
            frame["label"] = np.arange(ROWS) % task.num_labels
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            frame.to_parquet(tmp_path / "data" / name / f"{split}.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(trainings, "TEXT_SIZES", dict.fromkeys(trainings.TEXT_SIZES, 8))
    monkeypatch.setattr(glue, "TUNED_EXAMPLES", 2 * ROWS)
    monkeypatch.setattr(glue, "TUNED_TOKENS", 0)
    monkeypatch.setattr(glue, "COPIES", 1)
    return tmp_path


def run(place, study, *options, out="rows.json"):
    command = study.typer.Typer()
    command.command()(study.main)
    shared = ["--base", place / "encoder", "--work", place / "work", "--out", place / out]
    found = CliRunner().invoke(command, [str(a) for a in (*shared, *options)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads((place / out).read_text())


@pytest.fixture
def trained(monkeypatch):
    """Counts the epochs that are trained."""
    counted = create_autospec(loop.Training._epoch, side_effect=loop.Training._epoch)
    monkeypatch.setattr(loop.Training, "_epoch", counted)
    return counted


def test_every_model_has_its_rows_and_a_second_call_trains_nothing(place, trained, monkeypatch):
    depths, configs = {"2of4": (2, 4), "3of4": (1, 2)}, {}
    options = ("--tasks", "rte", "--recipes", "retain", "--depths", ",".join(depths))
    whole = trainings.train

    def noted(config, *args, **others):
        configs[args[5].name] = config, len(args[3])
        return whole(config, *args, **others)

    monkeypatch.setattr(trainings, "train", noted)
    rows = run(place, glue, *options)
    shipped = json.loads((glue.DATA / "glue.json").read_text())[0]
    assert all(row.keys() == shipped.keys() for row in rows)
    assert len({tuple(row[name] for name in KEY) for row in rows}) == len(rows)
    for depth, keep in depths.items():
        mine = [row for row in rows if row["depth"] == depth]
        tuned = {(r["model"], r["experts_per_layer"]) for r in mine if r["fine_tuned_after_pruning"]}
        m = keep[0]
        controls = {("random", m), ("no_router", 4), ("no_router", m), ("dropped", None), ("width", None)}
        assert tuned == {("shrp", m), *controls}
        pruned = {r["experts_per_layer"] for r in mine if (r["model"], r["routed"]) == ("shrp", False)}
        assert pruned == set(keep)
        sizes = {r["model"]: r["encoder_params_share"] for r in mine if r["experts_per_layer"] in (m, None)}
        assert sizes["width"] == pytest.approx(sizes["shrp"], rel=0.05)
        assert sizes["dropped"] == {"2of4": 0.5, "3of4": 0.25}[depth]
    check_budgets(configs)
    epochs = trained.call_count
    assert run(place, glue, *options) == rows
    (place / "rows.json").unlink()
    assert run(place, glue, *options) == rows
    assert trained.call_count == epochs


def check_budgets(configs):
    """With `retain`, controls have the model's distillation and data, and as many epochs as it has in all."""
    facts = {
        name: (config.stage2_epochs, config.distill_logits, config.distill_hidden, examples)
        for name, (config, examples) in configs.items()
    }
    deep = {name: one for name, one in facts.items() if name.endswith("3of4-tuned")}
    assert len(deep) == 6
    assert set(deep.values()) == {(1, 1.0, 1.0, 2 * ROWS)}
    half = {name.split("-")[1]: one for name, one in facts.items() if name.endswith("2of4-tuned")}
    longer = (1 + glue.STAGE2_EPOCHS, 0.5, 1.0, ROWS)
    assert half == dict.fromkeys(("shrp", "random"), (1, *longer[1:])) | dict.fromkeys(MODELS[2:], longer)


def test_pieces_come_after_what_they_share_and_only_where_rows_are_lacking(place):
    base, rows = trainings.Base(str(place / "encoder"), place / "work"), Rows(place / "rows.json", KEY)
    wanted = (["rte", "cola"], [0, 1], ["retain", "paper"], ["2of4", "3of4"], MODELS)
    pieces = glue.pieces_of(base, rows, *wanted)
    order = list(pieces)
    assert all(order.index(one) < order.index(piece) for piece, before in pieces.items() for one in before)
    encoders = {(*piece.models, piece.depth, piece.seed) for piece in pieces if not piece.task}
    names = [("shrp", 0), ("dropped", 0), ("no_router", 0), ("no_router", 1)]
    assert encoders == {(name, depth, draw) for name, draw in names for depth in ("2of4", "3of4")}
    table = [piece for piece in pieces if piece.task and piece.recipe]
    assert len(table) == 2 * 2 * 2 * 2
    for piece in table:
        assert [one for one in pieces[piece] if one.task] == [glue.Piece(piece.task)]
        assert len(pieces[piece]) == (4 if piece.recipe == "retain" else 1)
    rows.add(*glue.Study(trainings.Trainings(base, "rte", 1)).keys("paper", glue.depths_of(4, 4)["3of4"], "shrp"))
    again = [piece for piece in glue.pieces_of(base, rows, *wanted) if piece not in pieces]
    assert again == [glue.Piece("rte", 1, "paper", "3of4", MODELS[1:])]


def test_a_killed_run_ends_as_one_that_was_not(place, trained, monkeypatch):
    options = ("--tasks", "rte", "--models", "shrp,width,no_router", "--depths", "3of4", "--recipes", "retain")
    whole = run(place, glue, *options)
    epochs, epoch = trained.call_count, loop.Training._epoch
    shutil.rmtree(place / "work")
    trained.reset_mock()
    for limit in (2, 7, 100):

        def fails(self, model, one, limit=limit):
            if trained.call_count >= limit:
                raise Killed
            return epoch(self, model, one)

        monkeypatch.setattr(loop.Training, "_epoch", fails)
        with pytest.raises(Killed) if limit < 100 else nullcontext():
            again = run(place, glue, *options, out="again.json")
    assert again == whole
    assert trained.call_count == epochs  # no epoch was trained twice


def test_rows_of_another_teacher_and_changed_data_are_refused(place):
    options = ("--tasks", "rte", "--recipes", "paper", "--depths", "2of4", "--models", "dropped")
    rows = run(place, glue, *options)
    path = place / "rows.json"
    path.write_text(json.dumps([row | {"teacher_score": 0.1, "seed": 7} for row in rows]))
    with pytest.raises(DataError):
        run(place, glue, *options)
    path.unlink()
    file = place / "data" / "rte" / "train.parquet"
    frame = pd.read_parquet(file)
    frame.assign(label=1 - frame["label"]).to_parquet(file)
    with pytest.raises(TrainingError, match="train"):
        run(place, glue, *options)


def test_the_models_of_the_table_are_those_of_its_data():
    assert {row["model"] for row in json.loads((glue.DATA / "glue.json").read_text())} == set(MODELS)
    known = {name: (one.keep, len(one.layers)) for name, one in glue.depths_of(12, 12).items()}
    assert known == {"6of12": ((2, 4, 8, 12), 6), "11of12": ((1, 2), 11)}


COUNTS = {"ablation": 6, "extensions": 2, "routing": 6, "topk": 12, "balance": 2, "schedule": 3, "longer": 16}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_smaller_studies_write_the_fields_of_their_data_once(place, trained, name, count, monkeypatch):
    monkeypatch.setattr(questions, "VARIANTS", {v: questions.VARIANTS[v] for v in ("paper", "retain without its hidden states")})
    both = ("self path alone", "3 experts, untied, self path")
    monkeypatch.setattr(questions, "EXTENSIONS", {v: questions.EXTENSIONS[v] for v in both})
    monkeypatch.setattr(questions, "SIZES", (1, 2))
    monkeypatch.setattr(questions, "TOP_K", (1, 3))
    monkeypatch.setattr(questions, "BUDGETS", (2, 5))
    monkeypatch.setattr(questions, "WEIGHTS", (0.0, 0.5))
    seeds = "0,1" if name == "topk" else "1"
    rows = run(place, questions, name, "--tasks", "rte", "--seeds", seeds)
    shipped = json.loads((glue.DATA / f"{name}.json").read_text())
    assert {frozenset(row) for row in rows} == {frozenset(row) for row in shipped}
    assert len(rows) == count
    epochs = trained.call_count
    assert run(place, questions, name, "--tasks", "rte", "--seeds", seeds) == rows
    assert trained.call_count == epochs
    if name == "extensions":
        kept = load_conversion(next((place / "work" / "encoders").iterdir()), str(place / "encoder"), "encoder")
        assert (kept.info.plan.untied, kept.info.config.self_path, kept.info.plan.budget) == (True, True, 3 * LAYERS)
    if name in ("balance", "schedule"):
        assert [questions.distance_from_uniform(share) for share in ([1, 0, 0, 0], [0.25] * 4)] == [0.75, 0]
        assert all(0 <= row["distance_stage2"] <= 0.75 for row in rows)
        assert all(row["largest_share_stage1"] >= 0.25 for row in rows)


@pytest.mark.parametrize(("name", "count"), [("selection", 2 * 5), ("routes", 3)])
def test_studies_of_checkpoints(place, name, count, monkeypatch, tiny_routed, tiny_info, tiny_tokenizer):
    monkeypatch.setattr(questions, "SIZES", (1, 2))
    info = replace(tiny_info(), task=TASKS["rte"])
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, info, place / "routed")
    rows = run(place, questions, name, folder)
    shipped = json.loads((glue.DATA / f"{name}.json").read_text())
    assert {frozenset(row) for row in rows} == {frozenset(row) for row in shipped}
    assert {row["checkpoint"] for row in rows} == {"rte-2of3"}
    assert len(rows) == count


def test_the_summary_prints_the_means_of_the_kept_rows(capsys):
    glue.main(means=True, json=True)
    assert capsys.readouterr().out == (glue.DATA / "summary.json").read_text()
