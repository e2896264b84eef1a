"""The benchmark of live what-ifs on a tiny checkpoint."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from shrp.checkpoints import checkpoint
from shrp.data.tasks import TASKS
from shrp.errors import CheckpointError, DataError
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from studies import live
from studies.speed_section import live_section

USAGE = {"1": [0.7, 0.1, 0.1, 0.1], "2": [0.1, 0.2, 0.3, 0.4]}
ROWS = 24


@pytest.fixture
def folder(tmp_path, tiny_routed, tiny_tokenizer, tiny_info, tiny_data, monkeypatch):
    """Checkpoints, of which one is routed, and data in GLUE's columns."""
    root, model = tmp_path / "all", tiny_routed()
    checkpoint.save(model, tiny_tokenizer, tiny_info(usage=USAGE), root / "tiny")
    plan = make_plan({int(layer): shares for layer, shares in USAGE.items()}, per_layer=1)
    checkpoint.save(prune(model, plan), tiny_tokenizer, tiny_info(usage=USAGE, plan=plan), root / "static")
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    tiny_data(ROWS, 1).to_frame().to_parquet(tmp_path / "data" / "sst2" / "validation.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    return root


def test_one_json_object_with_the_times_of_every_routed_checkpoint(folder):
    command = typer.Typer()
    command.command()(live.main)
    options = ["--checkpoints", str(folder), "--per-layer", "2", "--repeats", "1", "--json"]
    outcome = CliRunner().invoke(command, options, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    (row,) = found["checkpoints"]
    assert (row["checkpoint"], row["data"], row["n"]) == ("tiny", "glue/sst2 validation", ROWS)
    assert row["same_predictions"]
    assert row["largest_logit_difference"] < 1e-4
    assert row["exact_ratio"] == pytest.approx(row["plain_ms"] / row["exact_ms"])
    assert row["first_estimate_ratio"] == pytest.approx(row["plain_ms"] / row["first_estimate_ms"])
    assert (row["experts_a_layer"], row["repeats"]) == (2, 1)
    assert row["sweep_experts"] == row["wide_sweep_experts"] == "2 to 8"
    assert f"| tiny | glue/sst2 validation | {ROWS} |" in live_section(found)


def test_a_checkpoint_without_data_costs_the_others_nothing(
    folder, tiny_routed, tiny_tokenizer, tiny_info, monkeypatch, capsys
):
    other = replace(tiny_info(usage=USAGE), task=TASKS["cola"])
    checkpoint.save(tiny_routed(), tiny_tokenizer, other, folder / "other")
    monkeypatch.setattr(live, "_measure", lambda loaded, *_: {"task": loaded.info.task.name})
    live.main(folder, json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["checkpoints"] == [{"checkpoint": "tiny", "task": "sst2"}]
    assert "left out other: SHRP_DATA_DIR is set, but there is no" in " ".join(said.err.split())


def test_a_folder_without_anything_to_measure_is_no_success(folder, tmp_path):
    command = typer.Typer()
    command.command()(live.main)
    with pytest.raises(DataError, match="holds no checkpoint with routers"):
        CliRunner().invoke(command, ["--checkpoints", str(tmp_path)], catch_exceptions=False)
    (folder / "tiny" / "model.safetensors").write_bytes(b"")
    (folder / "tiny" / "config.json").write_text("{")
    with pytest.raises(CheckpointError):
        CliRunner().invoke(command, ["--checkpoints", str(folder)], catch_exceptions=False)
    assert CliRunner().invoke(command, ["--repeats", "0"]).exit_code == 2


def usage_of(layers, experts):
    rng = np.random.default_rng(layers)
    return {layer: rng.dirichlet(np.ones(experts)).tolist() for layer in range(layers)}


def test_new_plans_share_no_prefix_and_cost_the_same():
    plans = list(islice(live.new_plans(usage_of(3, 12), 2), 200))
    assert len({plan.key() for plan in plans}) == 200
    assert len({plan.layers[0] for plan in plans}) == 200
    assert {tuple(plan.keep_counts().items()) for plan in plans} == {((0, 2), (1, 2), (2, 2))}


@pytest.mark.parametrize("wide", [False, True])
def test_a_sweep_has_as_many_different_budgets_as_it_says(wide):
    budgets = [plan.budget for plan in live.sweep_plans(usage_of(11, 12), wide=wide)]
    assert len(set(budgets)) == len(budgets) == live.SWEEP
    assert budgets == (sorted(budgets) if wide else list(range(11, 83)))
    assert (min(budgets), max(budgets)) == (11, 132 if wide else 82)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("layers", "experts", "count"), [(6, 12, live.SWEEP), (2, 4, None)])
def test_where_budgets_are_few_no_plan_is_there_twice(layers, experts, count, wide):
    plans = live.sweep_plans(usage_of(layers, experts), wide=wide)
    assert len({plan.key() for plan in plans}) == len(plans)
    assert {plan.budget for plan in plans} == set(range(layers, layers * experts + 1))
    assert count is None or len(plans) == count
