"""Commands that look at a model print what the library computes."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.attribution.instance import prepare
from shrp.analysis.attribution.tokens import ablate_words
from shrp.analysis.explore import explore
from shrp.analysis.importance import in_turn, knock_out_effect, worth_by_group
from shrp.analysis.specialisation import specialisation, specialisation_frame
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.cli import subjects
from shrp.data.batching import token_counts
from shrp.data.slices import groups_by
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS
from shrp.evaluation import calibration
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.paired import agreement, by_group, flip_table, paired_difference
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from


def test_evaluate(told, place, known, on_data, tmp_path):
    loaded, data = known
    found = told("evaluate", place / "routed", *on_data, "--predictions", tmp_path / "p.csv", "--costs")
    expected = evaluate(loaded.model, loaded.tokenizer, data)
    assert (found["metric"], found["n"]) == ("accuracy", 60)
    assert found["score"] == expected.score
    assert found["interval"] == pytest.approx(list(expected.interval))
    assert (found["teacher"], found["retained"]) == (0.75, pytest.approx(expected.score / 0.75))
    assert {row["slice"]: row["n"] for row in found["slices"]} == Counter(data.slices)
    assert found["calibration"]["ece"] == pytest.approx(calibration.ece(expected).value, abs=1e-6)
    assert found["calibration"]["brier"] == pytest.approx(calibration.brier(expected), abs=1e-6)
    ours, dense = cost(loaded.model), dense_cost(loaded.model)
    assert found["costs"]["encoder_params"]["model"] == ours.encoder_params
    assert found["costs"]["encoder_flops"]["share"] == pytest.approx(ours.encoder_flops / dense.encoder_flops)
    frame = pd.read_csv(tmp_path / "p.csv")
    assert frame["prediction"].tolist() == np.array(data.task.label_names)[expected.predictions].tolist()
    assert frame["sentence"].tolist() == [text for (text,) in data.texts]


def test_own_columns_labels_and_slices(told, place, known):
    loaded, data = known
    columns = ("--text-column", "review", "--label-column", "mood", "--slice-column", "slice")
    own = told("evaluate", place / "routed", "--data", place / "own.csv", *columns)
    assert own["score"] == evaluate(loaded.model, loaded.tokenizer, data).score
    means = ("--label-means", "negative=positive", "--label-means", "positive=")
    swapped = told("evaluate", place / "routed", "--data", place / "own.csv", *columns, *means)
    assert swapped["n"] == int((data.labels == 0).sum())


def test_rows_without_a_text_or_label_are_left_out_and_counted(shrp, place, tmp_path):
    frame = pd.read_csv(place / "data.csv")
    frame.loc[0, "sentence"] = None
    frame.loc[1, "label"] = None
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    code, out, err = shrp("evaluate", place / "routed", "--data", tmp_path / "gaps.csv", "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == 58
    assert "2 of 60" in err


def test_usage(shrp, told, place, known, on_data):
    loaded, data = known
    found = told("usage", place / "routed", *on_data, "--by", "class", "--drivers")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    shares = [row["share"] for row in found["experts"]]
    assert shares == pytest.approx(stats.to_frame()["share"].tolist())
    group = found["by"]["positive"]
    assert group["n"] == int((data.labels == 1).sum())
    np.testing.assert_allclose(group["shares"]["1"], stats.shares(data.labels == 1)[1])
    lengths = token_counts(loaded.tokenizer, data.texts)
    answers = evaluate(loaded.model, loaded.tokenizer, data).predictions
    drivers = specialisation_frame(specialisation(stats, data, lengths, answers))
    explained = [row["explained"] for row in found["drivers"]]
    assert explained == pytest.approx(drivers["explained"].tolist(), abs=1e-6)
    assert shrp("usage", place / "routed", *on_data, "--by", "slice")[0] == 0


def test_knock_out_of_experts_together(shrp, told, place, known, on_data):
    loaded, data = known
    found = told("knock-out", place / "routed", *on_data, "--expert", "2.1", "--expert", "1.0")
    before = evaluate(loaded.model, loaded.tokenizer, data)
    both = knock_out_effect(loaded.model, loaded.tokenizer, data, before, [(2, 1), (1, 0)])
    assert found["affected"] == len(both.affected)
    assert (found["score"], found["without"]) == (before.score, both.after.score)
    assert [row["lost"] for row in found["slices"]] == pytest.approx(both.by_slice()["lost"].tolist(), abs=1e-6)
    assert shrp("knock-out", place / "routed", *on_data, "--expert", "2.1", "--expert", "1.0")[0] == 0


@pytest.mark.parametrize("heads", [False, True])
def test_knock_out_of_each_in_turn(shrp, told, place, known, on_data, heads):
    loaded, data = known
    options = (*(("--heads",) if heads else ()), "--by", "slice", "--examples", 32)
    found = told("knock-out", place / "routed", *on_data, *options)
    assert (found["n"], found["of"]) == (32, 60)
    merged = in_turn(loaded.model, loaded.tokenizer, data, 32, heads=heads)
    effects = [row["effect"] for row in found["heads" if heads else "experts"]]
    np.testing.assert_allclose(effects, merged.table(data, None)["effect"], atol=1e-6)
    by_slice = worth_by_group(merged, data, groups_by("slice", data))
    np.testing.assert_allclose([row["lost"] for row in found["groups"]], by_slice["lost"], atol=1e-6)
    assert len(found["significant"]) == (by_slice["q"].fillna(1) <= 0.05).sum()
    assert shrp("knock-out", place / "routed", *on_data, *options)[0] == 0


def test_explain(shrp, told, place, known):
    loaded, _ = known
    task, texts = loaded.info.task, ("w1 w2 w3", "w9 w4")
    asked = ("--text", texts[0], "--text", texts[1])
    found = told("explain", place / "routed", *asked)
    wanted = explore(loaded.model, loaded.tokenizer, task, [(t,) for t in texts])
    for one, expected in zip(found["inputs"], wanted, strict=True):
        assert one["answer"] == expected.answer
        assert list(one["probabilities"].values()) == pytest.approx(expected.probabilities.tolist())
        assert [row["expert"] for row in one["route"]] == [expected.choice(layer) for layer in expected.layers]
        instance = prepare(loaded.model, loaded.tokenizer, task, expected.text)
        scores = ablate_words(instance, expected.prediction).scores
        np.testing.assert_allclose([row["score"] for row in one["words"]["scores"]], scores, atol=1e-5)
    code, out, _ = shrp("explain", place / "routed", *asked)
    assert code == 0
    assert texts[0] in out


def test_sweep_scores_models_that_are_really_built(told, place, known, tmp_path):
    loaded, data = known
    options = ("--data", place / "data.csv", "--draws", 1, "--out", tmp_path / "sweep.csv")
    found = told("sweep", place / "routed", *options)
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    assert [row["kept"] for row in found["prunings"]] == [2, 2, 4, 4, 6, 6, 8]
    for row in found["prunings"]:
        kind = "usage" if row["seed"] is None else "random"
        plan = plan_from(stats, selection=kind, per_layer=row["per_layer"], seed=row["seed"] or 0)
        rebuilt = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
        assert row["score"] == pytest.approx(rebuilt.score)
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 7
    own = [(row["score"], row["pareto"]) for row in found["prunings"] if row["seed"] is None]
    assert all(best == all(score > less for less, _ in own[:i]) for i, (score, best) in enumerate(own))
    for one in found["cheapest"]:
        least = max(found["routed"]["score"] - one["loss"] - 1e-12, found["routed"]["constant"] + 1e-12)
        near = [row["kept"] for row in found["prunings"] if row["seed"] is None and row["score"] >= least]
        assert one["kept"] == min(near, default=None)


@pytest.mark.parametrize("options", [("--held-out",), ("--allocation", "budget"), ("--selection", "ablation")])
def test_sweep_has_other_ways(told, place, options):
    found = told("sweep", place / "routed", "--data", place / "data.csv", "--draws", 0, *options)
    assert all(row["seed"] is None for row in found["prunings"])
    assert found["routed"]["n"] == (30 if "--held-out" in options else 60)


def test_compare_two(shrp, told, place, known, on_data, tmp_path):
    loaded, data = known
    found = told("compare", place / "routed", place / "other", *on_data, "--flips", tmp_path / "f.csv")
    other = checkpoint.load(place / "other")
    before, after = (evaluate(one.model, one.tokenizer, data) for one in (loaded, other))
    change, ends = paired_difference(after, before)
    rows = {row["checkpoint"]: row for row in found["models"]}
    second = rows[str(place / "other")]
    assert second["change"] == pytest.approx(change)
    assert second["change_interval"] == pytest.approx(list(ends))
    assert rows[str(place / "routed")]["change"] is None
    assert found["mcnemar_p"] == pytest.approx(agreement(before, after).p_value)
    for by in ("class", "slice"):
        frame = by_group(before, after, by)
        sides = [(row["change"], *row["first_interval"], row["second"]) for row in found[f"by_{by}"]]
        np.testing.assert_allclose(sides, frame[["change", "reference low", "reference high", "other"]])
    flips = flip_table(before, after, data)
    assert pd.read_csv(tmp_path / "f.csv")["index"].tolist() == flips["index"].tolist()
    assert shrp("compare", place / "routed", place / "other", *on_data)[0] == 0


def test_compare_many_ranks_them(told, place, on_data):
    names = ("routed", "other", "static1", "dense")
    found = told("compare", *(place / name for name in names), *on_data)
    scores = [row["score"] for row in found["models"]]
    assert scores == sorted(scores, reverse=True)
    assert "by_class" not in found


def test_export_and_what_it_scores(
    shrp, told, failed, place, tmp_path, quick_graphs, monkeypatch, tiny_model, tiny_info, tiny_tokenizer
):
    usage = {1: [0.6, 0.2, 0.1, 0.1], 2: [0.1, 0.4, 0.3, 0.2]}
    plan = make_plan(usage, counts={1: 1, 2: 2})  # as in tests of exports, so that it is traced once for all
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    common = ("export", place / "other", "--plan", tmp_path / "plan.json", "--out", tmp_path / "exported")
    code, _, err = shrp(*common, "--beside", place / "dense")
    assert (code, "--data" in err) == (1, True)
    info = replace(tiny_info(layers=()), task=TASKS["cola"])
    checkpoint.save(tiny_model(), tiny_tokenizer, info, tmp_path / "grammar")
    failed(shrp(*common, "--data", place / "data.csv", "--beside", tmp_path / "grammar"), "grammar")
    shutil.rmtree(tmp_path / "grammar")
    measured = (*common, "--data", place / "data.csv", "--beside", place / "dense")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(subjects, "served", Mock(side_effect=KeyboardInterrupt))
        assert shrp(*measured)[0] == 130
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    found = told(*measured)
    assert found["max_difference"] < 1e-3
    assert found["mb"] == found["bytes"] / 1e6
    assert [Path(row["model"]).name for row in found["beside"]] == ["dense"]
    other, dense = (checkpoint.load(place / name) for name in ("other", "dense"))
    scores = [one.evaluate(load_file(place / "data.csv", "sst2")).score for one in (other.prune(plan), dense)]
    assert [row["score"] for row in (found, *found["beside"])] == scores
    for row in (found, *found["beside"]):
        assert row["n"] == 60
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert min(row["texts_per_s"], row["mb"]) > 0
