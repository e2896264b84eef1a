"""`python -m shrp sweep` says what pruned models that are really built score, and refuses what can't be asked."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.data.sources import load_file
from shrp.data.text_data import halves
from shrp.errors import DataError, PlanError
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.pruning import sweep
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from shrp.pruning.sweep import budgets, cheapest_within, pareto_best, points

USAGE = {"1": [0.1, 0.2, 0.3, 0.4], "2": [0.4, 0.3, 0.2, 0.1]}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_routed, tiny_tokenizer, tiny_data, tiny_info):
    """A folder with a routed checkpoint, a static one and a CSV file.

    The labels are the routed model's answers, but for every sixth, and its prunings too are better than a constant
    answer: of others there is nothing to keep.
    """
    root = tmp_path_factory.mktemp("sweep")
    routed, data = tiny_routed(seed=4), tiny_data(60, 1)
    logits = evaluate(routed, tiny_tokenizer, data).logits
    shift = float(np.median(logits[:, 1] - logits[:, 0]))
    with torch.no_grad():
        routed.classifier.bias[1] -= shift
    answers = logits[:, 1] - logits[:, 0] > shift
    frame = replace(data, labels=np.where(np.arange(60) % 6, answers, ~answers).astype(np.int64)).to_frame()
    frame.to_csv(root / "data.csv", index=False)
    frame.drop(columns="label").to_csv(root / "unlabelled.csv", index=False)
    frame[:30].to_csv(root / "few.csv", index=False)
    checkpoint.save(routed, tiny_tokenizer, tiny_info(usage=USAGE), root / "routed")
    plan = make_plan({int(layer): share for layer, share in USAGE.items()}, per_layer=2)
    checkpoint.save(prune(routed, plan), tiny_tokenizer, tiny_info(plan=plan), root / "static")
    return root


@pytest.fixture
def known(place):
    loaded = checkpoint.load(place / "routed")
    data = load_file(place / "data.csv", "sst2")
    return loaded, data, measure_usage(loaded.model, loaded.tokenizer, data)


def score(loaded, data, plan):
    return evaluate(prune(loaded.model, plan), loaded.tokenizer, data).score


def test_every_size_scores_as_the_model_that_is_built(shrp, place, known, tmp_path):
    loaded, data, stats = known
    code, out, err = shrp(
        "sweep", place / "routed", "--data", place / "data.csv", "--out", tmp_path / "sweep.csv", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    routed = evaluate(loaded.model, loaded.tokenizer, data)
    assert told["routed"]["score"] == pytest.approx(routed.score)
    assert told["chosen_on"] == data.name
    rows = told["prunings"]
    assert [(row["per_layer"], row["seed"]) for row in rows] == [
        *((m, seed) for m in (1, 2, 3) for seed in (None, 0, 1, 2)),
        (4, None),
    ]
    dense = dense_cost(loaded.model)
    for row in rows:
        kind = "usage" if row["seed"] is None else "random"
        plan = plan_from(stats, selection=kind, per_layer=row["per_layer"], seed=row["seed"] or 0)
        assert row["score"] == pytest.approx(score(loaded, data, plan)), row
        assert row["of_routed"] == pytest.approx(row["score"] / routed.score)
        assert row["kept"] == plan.budget
        assert row["encoder_params"] == pytest.approx(
            cost(prune(loaded.model, plan)).encoder_params / dense.encoder_params
        )
    file = pd.read_csv(tmp_path / "sweep.csv")
    ends = file.pop("low"), file.pop("high")
    assert [row.pop("interval") for row in rows] == [pytest.approx(pair) for pair in zip(*ends, strict=True)]
    pd.testing.assert_frame_equal(file, pd.DataFrame(rows), check_dtype=False, rtol=1e-6)


def test_the_library_sweeps_as_the_command_does(shrp, place, tmp_path):
    loaded = checkpoint.load(place / "routed")
    data = load_file(place / "data.csv", "sst2")
    for allocation in ("per_layer", "budget"):
        file = tmp_path / f"{allocation}.csv"
        command = ("--data", place / "data.csv", "--allocation", allocation, "--draws", 2, "--out", file)
        assert shrp("sweep", place / "routed", *command)[0] == 0
        frame = loaded.sweep(data, allocation=allocation, draws=2)
        written = pd.read_csv(file).astype({"per_layer": "Int64", "seed": "Int64"})
        pd.testing.assert_frame_equal(written, frame, check_dtype=False, rtol=1e-6)
    known = replace(loaded, info=replace(loaded.info, usage=USAGE))
    plan = make_plan(USAGE, per_layer=1)
    assert known.sweep(data, selection="recorded")["score"][0] == pytest.approx(score(loaded, data, plan))
    for wrong, said in (
        ({"allocation": "all"}, "one of per_layer, budget"),
        ({"selection": "fitted"}, "usage or"),
    ):
        with pytest.raises(PlanError, match=said):
            loaded.sweep(data, **wrong)
    with pytest.raises(DataError, match="no labels"):
        loaded.sweep(replace(data, labels=None))


@pytest.mark.parametrize("matched", [False, True])
def test_as_few_experts_are_kept_as_a_loss_allows(shrp, place, known, tmp_path, matched, monkeypatch):
    monkeypatch.setattr(sweep, "_MOST_BUDGETS", 3)  # which a sweep leaves out are tried here too
    loaded, data, stats = known
    routed = evaluate(loaded.model, loaded.tokenizer, data)
    plans = {budget: plan_from(stats, budget=budget) for budget in range(2, 9)}
    scores = {}
    for budget, plan in plans.items():
        found = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
        if matched:
            found = shifted(found, data, matching_shift(found.logits, routed.logits))
        scores[budget] = found.score
    worst = routed.score - min(scores.values())
    options = ("--data", place / "data.csv", *(("--match-shares",) if matched else ()))
    kept = []
    for loss in (0.0, worst / 2, worst):
        near = [budget for budget, score in scores.items() if score >= routed.score - loss - 1e-12]
        near = [budget for budget in near if scores[budget] > routed.constant]
        out = tmp_path / f"{loss}"
        code, said, err = shrp(
            "prune", place / "routed", "--max-loss", loss, *options, "--out", out, "--json"
        )
        if not near:
            assert code == 1
            assert f"no pruning scores at most {loss:g} below the routed model's {routed.score:.4f}" in err
            continue
        assert code == 0, err
        assert json.loads(said)["experts_kept"] == min(near)
        assert checkpoint.read_config(out)[1].plan == plans[min(near)]
        kept.append(min(near))
    assert kept  # else nothing was seen
    bare = pd.read_csv(place / "data.csv")[["sentence"]]
    bare.to_csv(tmp_path / "bare.csv", index=False)
    command = ("--max-loss", 0.1, "--data", tmp_path / "bare.csv", "--out", tmp_path / "x")
    code, _, err = shrp("prune", place / "routed", *command)
    assert (code, "has no labels" in err) == (1, True)


def test_a_file_that_is_there_is_not_written_over(shrp, place):
    before = (place / "data.csv").read_text()
    code, _, err = shrp("sweep", place / "routed", "--data", place / "data.csv", "--out", place / "data.csv")
    assert code == 1
    assert "exists already" in err
    assert (place / "data.csv").read_text() == before


def test_the_cheapest_within_a_loss_is_of_the_selection_itself(shrp, place, monkeypatch):
    monkeypatch.setattr(sweep, "LOSSES", (0.01, 0.2, 0.3))
    _, out, _ = shrp("sweep", place / "routed", "--data", place / "data.csv", "--json")
    told = json.loads(out)
    own = [row for row in told["prunings"] if row["seed"] is None]
    for one in told["cheapest"]:
        near = [row for row in own if row["score"] >= told["routed"]["score"] - one["loss"] - 1e-12]
        near = [row for row in near if row["score"] > told["routed"]["constant"]]
        if near:
            assert one["kept"] == min(row["kept"] for row in near)
        else:
            assert one == dict.fromkeys(one) | {"loss": one["loss"]}
        assert set(one) == {"loss", *own[0]}
    assert any(one["kept"] is not None for one in told["cheapest"])  # else nothing was seen


def test_budgets_by_recorded_usage_without_controls(shrp, place, known):
    loaded, data, _ = known
    given = ("--allocation", "budget", "--selection", "recorded", "--draws", "0", "--json")
    code, out, err = shrp("sweep", place / "routed", "--data", place / "data.csv", *given)
    assert code == 0, err
    rows = json.loads(out)["prunings"]
    assert [row["kept"] for row in rows] == list(range(2, 9))
    usage = {int(layer): share for layer, share in USAGE.items()}
    for row in rows:
        assert row["score"] == pytest.approx(score(loaded, data, make_plan(usage, budget=row["kept"])))
        assert row["per_layer"] is None


def test_every_input_says_from_how_many_experts_on_it_holds(shrp, place, known, tmp_path):
    loaded, data, stats = known
    file = tmp_path / "inputs.csv"
    code, _, err = shrp(
        "sweep", place / "routed", "--data", place / "data.csv", "--draws", 0, "--inputs", file
    )
    assert code == 0, err
    routed = evaluate(loaded.model, loaded.tokenizer, data).predictions
    sizes = {2 * m: plan_from(stats, per_layer=m) for m in (1, 2, 3, 4)}
    answers = {
        n: evaluate(prune(loaded.model, p), loaded.tokenizer, data).predictions for n, p in sizes.items()
    }
    frame = pd.read_csv(file).set_index("index")
    assert sorted(frame.index) == list(range(60))
    assert frame["changes"].max() > 0
    for row in range(60):
        changed = [size for size in sizes if answers[size][row] != routed[row]]
        larger = [size for size in sizes if size > max(changed, default=0)]
        assert frame.loc[row, "changes"] == len(changed)
        assert frame.loc[row, "holds from"] == larger[0] if larger else np.isnan(frame.loc[row, "holds from"])
        assert frame.loc[row, "sentence"] == data.texts[row][0]
    half = tmp_path / "half.csv"
    args = "--data", place / "data.csv", "--draws", 0, "--held-out", "--inputs", half
    assert shrp("sweep", place / "routed", *args)[0] == 0
    scored = pd.read_csv(half).set_index("index")["sentence"]
    assert sorted(scored.index) == halves(data)[1].tolist()
    assert all(scored[row] == data.texts[row][0] for row in scored.index)
    code, _, err = shrp("sweep", place / "routed", "--inputs", half, "--draws", 0)
    assert code != 0
    assert "half.csv" in err


def test_two_files_are_not_written_to_one_place(shrp, place, tmp_path):
    files = "--out", tmp_path / "one.csv", "--inputs", tmp_path / "one.csv"
    code, _, err = shrp("sweep", place / "routed", "--data", place / "data.csv", *files)
    assert code == 1
    assert "--out and --inputs are the same file" in err


def test_on_a_held_out_half_the_other_chooses(shrp, place, known):
    loaded, data, _ = known
    code, out, err = shrp(
        "sweep", place / "routed", "--data", place / "data.csv", "--held-out", "--draws", 0, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    ranked, scored = (data.subset(rows) for rows in halves(data))
    stats = measure_usage(loaded.model, loaded.tokenizer, ranked)
    assert told["provenance"]["n"] == len(scored)
    for row in told["prunings"]:
        assert row["score"] == pytest.approx(
            score(loaded, scored, plan_from(stats, per_layer=row["per_layer"]))
        )


def test_shares_are_matched_to_the_routed_model_s(shrp, place, known):
    loaded, data, stats = known
    code, out, err = shrp(
        "sweep", place / "routed", "--data", place / "data.csv", "--match-shares", "--draws", 0, "--json"
    )
    assert code == 0, err
    routed = evaluate(loaded.model, loaded.tokenizer, data)
    for row in json.loads(out)["prunings"]:
        model = prune(loaded.model, plan_from(stats, per_layer=row["per_layer"]))
        found = evaluate(model, loaded.tokenizer, data)
        moved = shifted(found, data, matching_shift(found.logits, routed.logits))
        assert row["score"] == pytest.approx(moved.score)


def test_the_table_names_its_data_and_denominators(shrp, place):
    code, out, err = shrp("sweep", place / "routed", "--data", place / "data.csv")
    assert code == 0, err
    assert "n = 60" in out
    assert "of the dense encoder's, for one input of 128 tokens" in " ".join(out.split())
    assert "below the routed model's accuracy" in err
    assert "--held-out" in err
    code, _, err = shrp("sweep", place / "routed", "--data", place / "data.csv", "--held-out")
    assert code == 0, err
    assert "--held-out" not in err
    one = shrp("sweep", place / "routed", "--data", place / "data.csv", "--draws", "1")[1]
    cells = [line.split("│")[4].strip() for line in one.splitlines() if line.startswith("│")]
    assert all(re.fullmatch(r"0\.\d{3}", cell) for cell in cells[:-1])  # of one draw there is no range
    assert cells[-1] == ""


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("static", (), "no routed layer"),
        ("routed", ("--selection", "best"), "--selection is one of"),
        ("routed", ("--selection", "random"), "--draws"),
        ("routed", ("--allocation", "even"), "per_layer or budget"),
        ("routed", ("--data", "unlabelled.csv"), "has no labels"),
        ("routed", ("--data", "few.csv", "--held-out"), "takes 40 or more"),
        ("routed", ("--combination", "max"), "combination must be one of"),
        ("routed", ("--selection", "recorded", "--held-out"), "does nothing for recorded usage"),
    ],
)
def test_what_can_t_be_asked_is_refused(shrp, place, name, given, said):
    given = [place / one if one.endswith(".csv") else one for one in given]
    given = given if "--data" in given else [*given, "--data", place / "data.csv"]
    code, out, err = shrp("sweep", place / name, *given)
    assert code == 1
    assert said in " ".join(err.split())
    assert not out


def test_pareto_best_are_those_that_nothing_beats():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, scores = rng.integers(6, size=12), rng.integers(6, size=12)
        beaten = [
            any(
                c <= costs[i] and s >= scores[i] and (c < costs[i] or s > scores[i])
                for c, s in zip(costs, scores, strict=True)
            )
            for i in range(12)
        ]
        found = pareto_best(costs, scores)
        assert sorted(found) == [i for i in range(12) if not beaten[i]]
        assert list(costs[found]) == sorted(costs[found])


def test_random_experts_have_the_counts_of_what_they_control(known):
    _, _, stats = known
    every = points(stats, "budget", draws=(0, 1))
    by_size = {}
    for point in every:
        by_size.setdefault(point.plan.budget, []).append(point)
    assert sorted(by_size) == budgets(2, 4)
    for size, same in by_size.items():
        assert len({tuple(point.plan.keep_counts().items()) for point in same}) == 1
        assert [point.seed for point in same] == ([None, 0, 1] if size < 8 else [None])


def test_what_is_no_better_than_a_constant_answer_is_not_recommended(known):
    loaded, data, _ = known
    routed = replace(evaluate(loaded.model, loaded.tokenizer, data), score=0.45)
    seeds, scores, flops = pd.array([None, None, 0], dtype="Int64"), [0.4, 0.6, 0.9], [0.1, 0.2, 0.1]
    frame = pd.DataFrame({"seed": seeds, "score": scores, "encoder_flops": flops})

    def taken(positive):
        """With so many of the 60 labels positive, so that a constant answer has that share or the rest; None: none."""
        labels = None if positive is None else (np.arange(60) < positive).astype(int)
        return cheapest_within(frame, replace(routed, labels=labels), 0.05)

    assert taken(30)["score"] == 0.6
    assert taken(None)["score"] == 0.4
    assert taken(36) is None


def test_random_experts_beside_recorded_usage_weigh_by_it_too(known):
    _, _, stats = known
    recorded = {int(layer): np.array(share) for layer, share in USAGE.items()}
    every = points(replace(stats, recorded=recorded), selection="recorded", draws=(0,))
    for point in every:
        if point.seed is not None:
            assert point.plan == make_plan(recorded, per_layer=point.per_layer, selection="random", seed=0)
