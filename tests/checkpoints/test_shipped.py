"""The checkpoints that are shipped: small enough, loadable, and as good as they say on the probe sets."""

import json
import math
from pathlib import Path

import pytest

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import CheckpointInfo, discover, usage_in
from shrp.data.sources import PROBES, load_probe
from shrp.data.tasks import TASKS
from shrp.evaluation.evaluate import evaluate

ROOT = Path(__file__).parents[2] / "checkpoints"
FOLDERS = sorted(path.parent for path in ROOT.glob("[!.]*/config.json"))
LARGEST = 95_000_000
QUICK = {"sst2-11of12", "sst2-11of12-recovered"}
"""Those that are scored on all of a probe set; the others, of six dense layers or more, on every fourth example."""


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    """Of each checkpoint in turn; the tests of one come one after another, and are skipped where none is shipped."""
    return request.param


@pytest.fixture(scope="module")
def loaded(folder):
    return checkpoint.load(folder)


def on_probe(loaded):
    """The probe set of a checkpoint's task, and the rows of scores on it; skips where there is none."""
    if loaded.info.task.name not in TASKS or not (PROBES / f"{loaded.info.task.name}.jsonl").is_file():
        pytest.skip("there is no probe set for its task")
    probe = load_probe(loaded.info.task.name)
    return probe, loaded.info.scores_on(probe.fingerprint)


def test_files_are_small_and_safe(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert all(path.stat().st_size < LARGEST for path in files)
    suffixes = {path.suffix for path in files}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".txt", ".md"}, "only weights and text are shipped"
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_rows_of_scores_name_all_kinds_with_their_uncertainty(folder):
    _, info = checkpoint.read_config(folder)
    if info.config.layers:
        routed = {"routed"} if info.plan is None else set()
        assert {row["kind"] for row in info.scores} == {"teacher", "static", "control"} | routed
    assert any(row["kind"] == "teacher" for row in info.scores)
    for row in info.scores:
        assert row["n"] > 0
        low, high = row["interval"]
        assert low <= row["score"] <= high
        assert all(math.isfinite(value) for value in (low, row["score"], high))
        assert row["metric"] == info.task.metric


def test_it_loads_and_carries_what_pruning_needs(folder, loaded):
    assert loaded.info.base_model
    stored = json.loads((folder / "config.json").read_text())
    assert loaded.info.training == stored["shrp"]["training"] != {}
    assert not str(loaded.info.base_model).startswith(("/", "~"))  # no path of somebody's machine
    if not loaded.is_static and loaded.info.config.layers:
        usage = usage_in(loaded.info)
        assert sorted(usage) == list(loaded.info.config.layers)
        assert all(sum(share) == pytest.approx(1, abs=1e-3) for share in usage.values())
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert checkpoint.read_history(folder) == [json.loads(line) for line in lines] != []


def test_the_teachers_outputs_on_the_probe_set_score_as_recorded(folder, loaded):
    probe, rows = on_probe(loaded)
    assert not loaded.problem
    if not loaded.info.config.layers:
        pytest.skip("dense: its own teacher")
    outputs = loaded.teacher[probe.fingerprint].evaluation(probe)
    recorded = next(row["score"] for row in rows if row["kind"] == "teacher")
    assert outputs.score == pytest.approx(recorded, abs=0.005)  # scored at another batch size
    assert (folder / "teacher.safetensors").stat().st_size < 100_000
    if loaded.info.task.name == "sst2":  # which the tour looks at on GLUE's data too
        assert set(loaded.teacher) == {row["data_fingerprint"] for row in loaded.info.scores}


def test_it_scores_on_the_probe_set_as_recorded(folder, loaded):
    probe, rows = on_probe(loaded)
    kind = "static" if loaded.is_static else "routed" if loaded.info.config.layers else "teacher"
    (recorded,) = [row for row in rows if row["kind"] == kind and (kind != "static" or row.get("recovered"))]
    assert recorded["n"] == len(probe)
    some = probe if folder.name in QUICK else probe.subset(probe.stratified_order()[: len(probe) // 4])
    found = evaluate(loaded.model, loaded.tokenizer, some, max_length=loaded.info.max_length)
    # Scored at another batch size, in another process: an answer or two may change.
    apart = 4 / found.n if some is probe else 0.1
    assert found.score == pytest.approx(recorded["score"], abs=apart)


def test_those_that_the_readme_promises_are_there():
    found = discover(ROOT)
    routed = ["cola-6of12", "mrpc-6of12", "sst2-11of12", "sst2-6of12", "sst2-base-6of12"]
    assert sorted(found) == sorted([*routed, "sst2-11of12-recovered", "sst2-dense"])
    assert [name for name, info in found.items() if info.plan is not None] == ["sst2-11of12-recovered"]
    assert all(isinstance(info, CheckpointInfo) for info in found.values())
