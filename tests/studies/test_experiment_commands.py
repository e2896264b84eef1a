"""Each experiment's command from end to end, on a tiny base and tiny data; what a second run finds done."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import usage_in
from shrp.data.sources import load_data
from shrp.data.tasks import TASKS
from shrp.errors import DataError, ShrpError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.timing import model_inputs
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.model.gates import record_routing
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.studies.stability import overlaps
from shrp.training.run_state import weights_digest
from studies.experiments import overhead, results_file
from studies.experiments.__main__ import app
from studies.experiments.layer import Watch, moments
from studies.experiments.overhead import spread
from studies.experiments.results_file import ResultsFile
from studies.experiments.study import Options, Study

N = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_tokenizer, tiny_data):
    """A folder with a base of 3 layers x 4 heads, CoLA-shaped data, and work that the tests share."""
    root = tmp_path_factory.mktemp("experiments")
    tiny_model(dropout=0.1).save_pretrained(root / "base")
    tiny_tokenizer.save_pretrained(root / "base")
    for split, n in (("train", 40), ("validation", N)):
        data = tiny_data(n, seed=n, task=TASKS["cola"], sliced=False)
        path = root / "data" / "cola" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame({"sentence": [text for (text,) in data.texts], "label": data.labels})
        frame.to_parquet(path)
    return root


@pytest.fixture
def run(place, monkeypatch, tmp_path):
    """`run("layer", ...) -> file` of a command, with the options that all trainings share."""
    monkeypatch.setenv("SHRP_DATA_DIR", str(place / "data"))

    def go(name, *options, out=None, fails=False):
        out = out or tmp_path / f"{name}.json"
        shared = ("--base", place / "base", "--work", place / "work", "--conversion-size", 32)
        shared = () if name == "overhead" else (*shared, "--epoch-size", 32, "--stage2-epochs", 1)
        outcome = CliRunner().invoke(app, [str(o) for o in (name, *shared, "--out", out, *options)])
        if fails:
            return outcome
        if outcome.exception and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        assert outcome.exit_code == 0, outcome.output
        return json.loads(out.read_text())

    return go


def assert_says_what_it_is(found, name, place):
    assert found["command"] == f"python -m studies.experiments {name} --base base"
    assert {"python", "torch"} <= set(found["versions"])
    assert found["machine"]["threads"] >= 1
    assert found["data"]["cola"]["n"] == N
    assert found["data"]["cola"]["validation"] == "glue/cola validation"
    assert found["settings"]["cola"]["conversion_size"] == 32
    assert str(place) not in json.dumps(found)


def conversion(place, folder, seed, balance=0.1):
    """The conversion of both upper layers that experiments of one work folder share."""
    for path in (place / "work" / folder).glob("experiment-*/config.json"):
        made = checkpoint.load(path.parent)
        config = made.info.training["config"]
        shrp = made.info.config
        if (shrp.layers, shrp.top_k, config["seed"], config["balance"]) == ((1, 2), 1, seed, balance):
            return made
    raise AssertionError("no such conversion")


def test_layer_measures_within_stage_1_and_after_stage_2(run, place):
    found = run("layer", "--layer", 1, "--seeds", "0", "--times", 3)
    assert_says_what_it_is(found, "layer", place)
    rows = found["rows"]
    assert [row["stage"] for row in rows] == [1, 2]  # of one step an epoch there is one moment
    found = run("layer", "--layer", 1, "--seeds", "1", "--times", 3, "--usage-size", 12, fails=True)
    assert isinstance(found.exception, DataError)  # the file is of other inputs


def test_layer_measures_at_several_steps(run, place, tmp_path):
    options = ("--layer", 1, "--times", 4, "--conversion-size", 40, "--usage-size", 12)
    found = run("layer", *options, "--seeds", "0")
    assert [row["stage"] for row in found["rows"]] == [1, 1, 2]
    assert [row["examples"] for row in found["rows"]] == [20, 40, 72]
    for row in found["rows"]:
        assert sum(row["share"]) == pytest.approx(1, abs=1e-4)
        assert 0 <= row["distance"] <= 0.75
        assert 0 <= row["mean_distance"] <= 0.75
        assert 1 <= row["effective"] <= 4
        assert row["n"] == 12
        assert row["even_distance"] > 0
    again = run("layer", *options, "--seeds", "0,1")
    assert again["seeds"] == [0, 1]
    assert again["rows"][:3] == found["rows"]


def test_watching_does_not_change_what_is_trained(run, place):
    """The same training with and without a watch ends with the same weights: with dropout, over several steps."""
    run("layer", "--layer", 1, "--seeds", "5", "--times", 2, "--conversion-size", 40)
    sizes = {"conversion_size": 40, "epoch_size": 32, "stage2_epochs": 1}
    study = Study(Options(str(place / "base"), work=place / "work-unwatched", seeds="5", **sizes), "cola")
    made = study.convert(study.config(5, (1,)))
    watched = checkpoint.load(place / "work" / "cola-s0" / made.path.name)
    assert weights_digest(watched.model) == weights_digest(made.model)


def test_a_run_killed_in_stage_2_keeps_what_was_measured_in_stage_1(run, place, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, row):
        raise Killed

    options = ("--layer", 1, "--seeds", "6", "--times", 2, "--conversion-size", 40)

    def noted():
        return {*(place / "work" / "cola-s0").glob("experiment-usage-*.json")}

    before = noted()
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "epoch", die)
        with pytest.raises(Killed):
            run("layer", *options)
    assert noted() - before  # or there were nothing to keep
    rows = run("layer", *options)["rows"]
    assert [(row["stage"], row["step"]) for row in rows] == [(1, 1), (1, 2), (2, None)]


def test_moments_go_from_the_first_step_to_the_last():
    assert moments(1, 9) == {1}
    assert moments(100, 3) == {1, 26, 100}
    assert {1, 267} <= moments(267, 9)
    assert len(moments(267, 9)) == 9


def test_topk_scores_prunings_and_names_what_is_kept(run, place):
    found = run("topk", "--layers", "1,2", "--top-k", "1,3", "--budgets", "2,4,8", "--seeds", "0,1")
    assert_says_what_it_is(found, "topk", place)
    rows = found["rows"]
    assert len(rows) == 2 * 2 * (1 + 3)
    assert {(row["top_k"], row["seed"]) for row in rows} == {(1, 0), (1, 1), (3, 0), (3, 1)}
    for row in rows:
        assert row["n"] == N
        assert row["interval"][0] <= row["score"] <= row["interval"][1]
        if row["model"] == "static":
            assert sum(map(len, row["kept"].values())) == row["budget"]
            assert all(set(row["used"][layer]) <= set(row["kept"][layer]) for layer in row["kept"])
            if row["change_interval"] is None:  # it answers as the routed model does
                assert row["change"] == 0
                continue
            low, high = row["change_interval"]
            assert low <= row["change"] <= high
    routed = {(row["top_k"], row["seed"]): row["score"] for row in rows if row["model"] == "routed"}
    pruned = [row for row in rows if row["model"] == "static"]
    for row in pruned:
        assert row["change"] == pytest.approx(row["score"] - routed[row["top_k"], row["seed"]])
    assert any(row["change"] for row in pruned)
    sets = [
        {int(k): v for k, v in row["used"].items()} for row in rows if (row["top_k"], row["budget"]) == (1, 4)
    ]
    assert list(overlaps(sets, 4)["layer"]) == ["1", "2", "all"]


def test_an_impossible_budget_is_said_before_anything_is_trained(run, place):
    outcome = run("topk", "--layers", "1,2", "--budgets", "2,99", "--seeds", "77", "--top-k", "1", fails=True)
    assert "2 (one expert a layer) to 8" in str(outcome.exception)


def test_sweep_has_every_budget_and_the_control(run, place):
    found = run("sweep", "--layers", "1,2", "--draws", 2, "--seeds", "0")
    assert_says_what_it_is(found, "sweep", place)
    by = {
        model: [r for r in found["rows"] if r["model"] == model] for model in ("routed", "static", "random")
    }
    assert len(by["routed"]) == 1
    assert [row["budget"] for row in by["static"]] == [2, 3, 4, 5, 6, 7, 8]
    assert [row["budget"] for row in by["random"]] == [2, 3, 4, 5, 6, 7]
    flops = [row["encoder_flops"] for row in by["static"]]
    assert flops == sorted(flops)
    assert by["random"][0]["interval_is"] == "range of 2 draws"
    made, data = conversion(place, "cola-s0", 0), load_data("glue", "cola")
    assert by["routed"][0]["score"] == evaluate(made.model, made.tokenizer, data).score

    def score(budget, **options):
        plan = make_plan(usage_in(made.info), budget=budget, **options)
        return evaluate(prune(made.model, plan), made.tokenizer, data).score

    for used, random in zip(by["static"], by["random"], strict=False):
        assert used["score"] == pytest.approx(score(used["budget"]))
        drawn = [score(random["budget"], selection="random", seed=draw) for draw in range(2)]
        assert random["score"] == pytest.approx(np.mean(drawn))
    assert any(a["score"] != b["score"] for a, b in zip(by["static"], by["random"], strict=False))


def test_balance_tells_usage_by_epoch_and_both_scores(run, place):
    found = run("balance", "--layers", "1,2", "--weights", "0,0.1", "--seeds", "0,1,2", "--per-layer", 1)
    assert_says_what_it_is(found, "balance", place)
    assert [row["balance"] for row in found["rows"]] == [0, 0.1] * 3
    for row in found["rows"]:
        assert {(u["epoch"], u["stage"], u["layer"]) for u in row["usage"]} == {
            *((0, 1, 2), (1, 1, 1), (1, 1, 2)),
            *((2, 2, 1), (2, 2, 2)),
        }
        assert row["per_layer"] == 1
        assert {"score", "interval", "n"} <= set(row["routed"]) & set(row["static"])
        made, data = conversion(place, "cola-s0", row["seed"], row["balance"]), load_data("glue", "cola")
        assert row["routed"]["score"] == evaluate(made.model, made.tokenizer, data).score
        static = prune(made.model, make_plan(usage_in(made.info), per_layer=1))
        assert row["static"]["score"] == evaluate(static, made.tokenizer, data).score
    assert any(row["routed"]["score"] != row["static"]["score"] for row in found["rows"])


def test_experiments_share_a_training(run, place):
    run("balance", "--layers", "1,2", "--weights", "0.1", "--seeds", "0")
    before = {path.name for path in (place / "work" / "cola-s0").iterdir()}
    run("sweep", "--layers", "1,2", "--draws", 0, "--seeds", "0")
    run("topk", "--layers", "1,2", "--top-k", "1", "--budgets", "2", "--seeds", "0")
    assert {path.name for path in (place / "work" / "cola-s0").iterdir()} == before


def test_overhead_times_routed_against_static(
    run, tmp_path, tiny_routed, tiny_tokenizer, tiny_info, monkeypatch
):
    def timed(calls, repeats, warmup, seed=0):
        """Stands for the clock: routed takes three times as long, and each round is slower than the one before."""
        times = {"routed": 6.0 + 3 * seed, "static": 2.0 + seed}
        return pd.DataFrame([{"name": name, "median_ms": times[name]} for name in calls])

    monkeypatch.setattr(overhead, "latency", timed)
    usage = {"1": [0.7, 0.1, 0.1, 0.1], "2": [0.1, 0.2, 0.3, 0.4]}
    checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(usage=usage), tmp_path / "all" / "tiny")
    options = ("--checkpoints", tmp_path / "all", "--geometry", "tiny", "--tokens", "4", "--rounds", 3)
    found = run("overhead", *options, "--batch", "1,3")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(results_file, "machine", lambda: {"cpu": "another", "threads": 9})
        refused = run("overhead", *options, "--batch", "3", fails=True)
    assert "has times of another machine or number of threads" in str(refused.exception)
    assert "here cpu another, threads 9)" in str(refused.exception)
    found = run("overhead", *options, "--batch", "3,5")
    assert [(row["batch"], row["depth"]) for row in found["rows"]] == [(1, "2of3"), (3, "2of3"), (5, "2of3")]
    for row in found["rows"]:
        assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == (3, 3, 3)
        assert (row["routed_ms_low"], row["routed_ms"], row["routed_ms_high"]) == (7.5, 9, 10.5)
        assert row["static_ms"] == 3
        assert row["flop_ratio"] > 1
        assert 1 <= row["experts_chosen"] <= min(row["batch"], 4)


def test_fresh_routers_are_made_to_spread_inputs(tiny_model):
    model = tiny_model()
    convert(model, ShrpConfig((1, 2))).eval()
    spread(model, 16)
    with torch.no_grad(), record_routing() as record:
        model(**model_inputs(model, 64, 16))
    assert all(len(record.probs(layer).argmax(-1).unique()) > 2 for layer in (1, 2))


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "topk.json"
    path.write_text("{}")
    with pytest.raises(DataError, match="not a file of results"):
        ResultsFile(path, "python -m studies.experiments topk --base x")
    file = ResultsFile(tmp_path / "new.json", "python -m studies.experiments topk --base x")
    file.describe("cola", {"n": 3}, {"layers": (1, 2)})
    file.put([{"score": np.float64(0.5).item()}], task="cola", seed=0)
    with pytest.raises(DataError, match="written by"):
        ResultsFile(tmp_path / "new.json", "python -m studies.experiments sweep --base x")
    again = ResultsFile(tmp_path / "new.json", "python -m studies.experiments topk --base x")
    again.describe("cola", {"n": 3}, {"layers": (1, 2)})
    with pytest.raises(DataError, match="another layers"):
        again.describe("cola", {"n": 3}, {"layers": (1,)})
    names = tmp_path / "late.json", "python -m studies.experiments topk --base x"
    late = [ResultsFile(*names), ResultsFile(*names)]  # both before there are rows
    for one, layers in zip(late, ((1, 2), (1,)), strict=True):
        one.describe("cola", {"n": 3}, {"layers": layers})
    late[0].put([{"score": 0.5}], task="cola", seed=0)
    with pytest.raises(DataError, match="another layers"):
        late[1].put([{"score": 0.6}], task="cola", seed=0)
    assert [row["score"] for row in ResultsFile(*names).rows] == [0.5]


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("topk", ("--layers", "upper:6"), "upper:N is for N from 1 to 3 on this encoder, not 6"),
        ("topk", ("--layers", "1,2", "--top-k", "1,99"), "top_k is 99"),
        ("sweep", ("--layers", "1,9"), "9"),
        ("balance", ("--layers", "1,2", "--weights", "0,-1"), "--weights takes numbers from 0 on, not 0,-1"),
        ("balance", ("--layers", "1,2", "--per-layer", 99), "99"),
        ("layer", ("--seeds", "x"), "separated by commas"),
        ("layer", ("--recipe", "paper,retain"), "'paper,retain' is none of"),
        ("layer", ("--task", "cola,typo"), "'typo' is none of"),
        ("layer", ("--recipe", "foo"), "'foo' is none of"),
        ("layer", ("--seeds", "-1"), "seed must be between 0 and"),
        ("layer", ("--conversion-size", 0), "conversion-size"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(run, tmp_path, command, options, said):
    outcome = run(command, "--work", tmp_path / "fresh", *options, fails=True)
    assert isinstance(outcome.exception, (ShrpError, SystemExit))
    assert said in f"{outcome.exception} {outcome.output}"
    assert not (tmp_path / "fresh").exists()


def test_rows_of_other_data_or_another_teacher_are_not_added_to(tmp_path):
    def file():
        return ResultsFile(tmp_path / "topk.json", "python -m studies.experiments topk --base base")

    data, made = (
        {"n": 20, "teacher": {"score": 0.5, "interval": [0.4, 0.6]}, "constant": None},
        {"base": "base"},
    )
    begun = file()
    begun.describe("cola", data, made)
    begun.put([{"score": 0.5}], task="cola", seed=0)
    file().describe("cola", data | {"teacher": {"score": 0.500001, "interval": [0.41, 0.6]}}, made)
    file().describe("rte", data | {"n": 9}, made)
    for change, name in (({"n": 19}, "n"), ({"teacher": {"score": 0.51, "interval": [0.4, 0.6]}}, "teacher")):
        with pytest.raises(DataError, match=f"has rows of cola with another {name}; name another"):
            file().describe("cola", data | change, made)
    with pytest.raises(DataError, match="with another base; repeat those options"):
        file().describe("cola", data, {"base": "another"})


def test_another_base_is_refused_before_its_teacher_is_trained(run, place, tmp_path):
    file = ResultsFile(tmp_path / "layer.json", "python -m studies.experiments layer --base other")
    file.describe("cola", {"n": 3}, {"base": "other"})
    file.put([{"score": 0.5}], task="cola", seed=0)
    outcome = run("layer", "--work", tmp_path / "fresh", "--layer", 1, fails=True)
    assert isinstance(outcome.exception, DataError)
    assert "has rows of the base other, not base; name another --out" in str(outcome.exception)
    assert not (tmp_path / "fresh").exists()
