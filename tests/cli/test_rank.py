"""`python -m shrp rank` scores many models as `evaluate` does, each held against one, and tells what it leaves out."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from shrp.checkpoints import checkpoint
from shrp.cli import ranking
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS, custom_task
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.paired import paired_difference
from shrp.export.onnx import export_folder
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

USAGE = {1: [0.1, 0.2, 0.3, 0.4], 2: [0.4, 0.3, 0.2, 0.1]}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_routed, tiny_tokenizer, tiny_data, tiny_info):
    """A folder of models: routed ones, prunings of one, and some that can't be ranked with them."""
    root = tmp_path_factory.mktemp("rank")
    frame = tiny_data(60, 1).to_frame()
    frame.to_csv(root / "data.csv", index=False)
    frame.drop(columns="label").to_csv(root / "unlabelled.csv", index=False)
    routed, info, models = tiny_routed(), tiny_info(), root / "models"
    checkpoint.save(routed, tiny_tokenizer, info, models / "routed")
    checkpoint.save(tiny_routed(seed=3), tiny_tokenizer, info, models / "other")
    for m in (1, 2):
        plan = make_plan(USAGE, per_layer=m)
        checkpoint.save(prune(routed, plan), tiny_tokenizer, tiny_info(plan=plan), models / f"kept{m}")
    moods = custom_task("moods", ("sentence",), ("bad", "good"))
    checkpoint.save(
        routed, tiny_tokenizer, type(info)(info.config, moods, base_model="tiny"), models / "moods"
    )
    cola = type(info)(info.config, TASKS["cola"], base_model="tiny")
    checkpoint.save(routed, tiny_tokenizer, cola, root / "cola")
    shutil.copytree(models / "other", models / "broken")
    (models / "broken" / "model.safetensors").write_bytes(b"x")
    return root


def ranked(shrp, place, *given):
    code, out, err = shrp("rank", *given, "--data", place / "data.csv", "--json")
    assert code == 0, err
    return json.loads(out)


def test_models_are_scored_best_first_and_held_against_the_first_named(shrp, place, tmp_path):
    file = tmp_path / "ranked.csv"
    told = ranked(shrp, place, place / "models" / "routed", place / "models", "--out", file)
    data = load_file(place / "data.csv", "sst2")
    names = ("routed", "other", "kept1", "kept2")
    loaded = {name: checkpoint.load(place / "models" / name) for name in names}
    found = {name: evaluate(one.model, one.tokenizer, data) for name, one in loaded.items()}
    rows = {row["checkpoint"].rsplit("/", 1)[1]: row for row in told["models"]}
    assert set(rows) == set(names)
    scores = [row["score"] for row in told["models"]]
    assert scores == sorted(scores, reverse=True)
    assert told["against"] == str(place / "models" / "routed")
    dense = dense_cost(loaded["routed"].model)
    for name, row in rows.items():
        assert row["score"] == pytest.approx(found[name].score)
        assert row["encoder_params"] == pytest.approx(
            cost(loaded[name].model).relative_to(dense)["encoder_params"]
        )
        assert row["bytes"] == (place / "models" / name / "model.safetensors").stat().st_size
        if name == "routed":
            assert row["lead"] is None
            continue
        lead, ends = paired_difference(found[name], found["routed"])
        assert row["lead"] == pytest.approx(lead)
        assert row["lead_interval"] == pytest.approx(ends)
    left = {name.rsplit("/", 1)[1]: why for name, why in told["left_out"].items()}
    assert set(left) == {"broken", "moods"}
    assert "truncated or not a safetensors file" in left["broken"]
    assert "it is for the task moods" in left["moods"]
    table = pd.read_csv(file)
    assert table["checkpoint"].tolist() == [row["checkpoint"] for row in told["models"]]
    assert {"low", "high", "lead", "lead_low", "lead_high"} <= set(table)


def test_another_one_may_be_what_all_are_held_against_and_stands_once(shrp, place):
    models = place / "models"
    told = ranked(shrp, place, models, "--against", models / "kept2")
    assert told["against"] == str(models / "kept2")
    assert [row["checkpoint"] for row in told["models"] if row["lead"] is None] == [str(models / "kept2")]
    assert len(told["models"]) == 4


def test_an_export_is_ranked_as_it_is_served(shrp, place, tmp_path):
    pytest.importorskip("onnxruntime")
    loaded = checkpoint.load(place / "models" / "kept1")
    (tmp_path / "exports").mkdir()
    export_folder(loaded.model, loaded.tokenizer, loaded.info, tmp_path / "exports" / "served", check=False)
    told = ranked(shrp, place, place / "models" / "kept1", tmp_path / "exports")
    first, second = (row["score"] for row in told["models"])
    assert first == pytest.approx(second)
    assert {row["checkpoint"] for row in told["models"]} == {
        str(place / "models" / "kept1"),
        str(tmp_path / "exports" / "served"),
    }


def test_a_task_of_ones_own_is_scored_by_the_metric_of_the_data(shrp, place, tmp_path, tiny_info):
    loaded = checkpoint.load(place / "cola")
    own = custom_task("grammar", ("sentence",), TASKS["cola"].label_names)
    info = type(loaded.info)(loaded.info.config, own, base_model="tiny")
    checkpoint.save(loaded.model, loaded.tokenizer, info, tmp_path / "own")
    told = ranked(
        shrp,
        place,
        place / "cola",
        tmp_path / "own",
        "--label-means",
        "1=acceptable",
        "--label-means",
        "0=unacceptable",
        "--label-means",
        "positive=acceptable",
        "--label-means",
        "negative=unacceptable",
    )
    first, second = told["models"]
    assert first["metric"] == second["metric"] == "matthews"
    assert first["score"] == pytest.approx(second["score"])


def test_a_score_that_is_not_defined_comes_last():
    rows = [
        ranking._Ranked(
            Path(str(score)),
            SimpleNamespace(score=score, metric="pearson", ends=lambda: None, n=3, constant=float("nan")),
            dict.fromkeys(ranking._COSTS, 1.0),
            1,
            1,
            {},
        )
        for score in (0.5, float("nan"), 0.9)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shrp.evaluation.paired.paired_difference", lambda a, b: (0.0, (0.0, 0.0)))
        assert [row["checkpoint"] for row in ranking._rows(rows)] == ["0.9", "0.5", "nan"]


def test_the_table_says_what_it_holds(shrp, place):
    code, out, err = shrp("rank", place / "models", "--data", place / "data.csv")
    assert code == 0, err
    assert "lead: over" in out
    said = " ".join(err.split())
    assert "left out" in said
    assert "4 models. Of 3 such intervals about 0.2 exclude 0 by chance alone. The best of several is" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("models/routed",), "fewer than two models can be scored"),
        (("models/routed", "cola"), "fewer than two models can be scored"),
        (("models/nothing",), "there is no checkpoint in"),
        (("models", "--against", "models/broken"), "truncated or not a safetensors file"),
        (("models", "--slice", "a: w1"), "--only says which of them to score"),
        (("models/routed", "--against", "models"), "--against takes one model, and"),
    ],
)
def test_what_can_not_be_ranked_gets_a_sentence(shrp, place, given, said):
    words = [one if one.startswith("-") or ":" in one else place / one for one in given]
    code, _, err = shrp("rank", *words, "--data", place / "data.csv")
    assert code == 1
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_without_labels_there_is_no_order(shrp, place):
    code, _, err = shrp("rank", place / "models", "--data", place / "unlabelled.csv")
    assert code == 1
    assert "has no labels, so there is nothing to rank by" in " ".join(err.split())
