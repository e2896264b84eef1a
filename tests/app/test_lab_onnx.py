import io
import json
import zipfile
from dataclasses import replace

import pandas as pd
import pytest

from shrp import jobs as library
from shrp.checkpoints import checkpoint as checkpoints
from shrp.cli.options import read_plan
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.errors import ExportError
from shrp.evaluation.evaluate import evaluate
from shrp.model.config import ShrpConfig
from shrp.pruning.prune import prune
from tests.app.helpers import accepted, button, only_job, press, texts_of
from ui import jobs
from ui.lab import onnx as lab_onnx

REPORT = {
    **{"max_difference": 0.6312, "label_agreement": 118 / 120, "sentences": 120},
    **{"metric": "accuracy", "score": 0.9171, "interval": [0.9, 0.93], "n": 480, "mb": 23.6},
    **{"p50_ms": 4.21, "p95_ms": 6.5, "texts_per_s": 1234.0},
    "beside": [
        {"model": "/x/dense", "metric": "accuracy", "score": None, "interval": None, "n": 480, "mb": 44.0}
        | {"p50_ms": 8.1, "p95_ms": 9.0, "texts_per_s": 400.0}
    ],
}


def downloads(at):
    return [one.proto.label for one in at.get("download_button")]


def tables(at):
    return [one.value.replace("\\", "") for one in at.markdown if "| p50, ms |" in one.value]


def end(job, state="done", **result):
    """A job as it is when its process has ended so."""
    (job.folder / "end.json").write_text(json.dumps({"state": state, "error": "a reason"}))
    (job.folder / "result.json").write_text(json.dumps(result))
    job.out.mkdir(parents=True, exist_ok=True)


def test_a_plan_is_exported_by_a_job_whose_result_the_lab_shows(
    asleep, open_page, tiny_checkpoint, save_tiny, shrp, quick_graphs
):
    dense = save_tiny("dense", layers=())
    at = press(open_page("pruning_lab", tiny_checkpoint, source="probe", budget=3), "serve")
    job, given = only_job(), accepted(only_job())
    assert button(at, "serve") is None  # while it waits
    assert (job.out, given["int8"]) == (jobs.models() / "tiny-pruned-3-onnx-float32", False)
    assert (given["checkpoint"], given["beside"]) == (tiny_checkpoint.resolve(), [dense.resolve()])
    plan, scored = read_plan(given["plan"]), pd.read_json(given["data"], lines=True)
    assert plan.budget == 3
    assert list(scored.columns) == ["sentence", "label"]
    code, printed, _ = shrp(*job.arguments, "--json")
    report = json.loads(printed)
    end(job, **report)
    loaded, probe = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    assert (code, report["label_agreement"]) == (0, 1)
    assert report["score"] == evaluate(prune(loaded.model, plan), loaded.tokenizer, probe).score
    made = zipfile.ZipFile(io.BytesIO(lab_onnx.zipped(job.out.iterdir(), "mine")))
    assert json.loads(made.read("mine/config.json"))["plan"] == plan.to_dict()
    at = open_page("pruning_lab", tiny_checkpoint, source="probe", budget=3)  # as after a reload
    assert "ONNX folder, float32 (.zip)" in downloads(at)
    (table,) = tables(at)
    assert table.count("\n") == 3
    assert f"{report['score']:.1%}" in table
    assert f"p50 {report['p50_ms']:.1f} ms" in texts_of(at.sidebar)
    assert button(at, f"job-{job.name}-open") is None  # it is no checkpoint


def test_an_export_is_of_one_plan_one_precision_and_one_checkpoint(asleep, open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint, source="probe", budget="3")
    at.segmented_control(key="precision").set_value("int8").run()
    job = only_job() if press(at, "serve") else None
    assert accepted(job)["int8"]
    end(job, made_from=checkpoints.load(tiny_checkpoint).fingerprint, **REPORT)
    (table,) = tables(at.run())
    for number in ("91.7%", "4.2", "6.5", "1,234", "23.6", "8.1"):
        assert number in table
    assert any("118 of 120" in caption.value for caption in at.caption)
    at.slider(key="budget").set_value(4).run()
    assert not tables(at)
    assert button(at, "serve")
    at.slider(key="budget").set_value(3).run()
    assert tables(at) == [table]
    assert not tables(at.segmented_control(key="precision").set_value("float32").run())
    at.segmented_control(key="precision").set_value("int8")
    end(job, made_from="what was there before", **REPORT)
    assert not tables(at.run())
    end(job, made_from=checkpoints.load(tiny_checkpoint).fingerprint, **REPORT)
    job.out.rmdir()
    assert not tables(at.run())


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
def test_an_export_that_came_to_nothing_is_offered_again(asleep, open_page, tiny_checkpoint, ended):
    at = press(open_page("pruning_lab", tiny_checkpoint, source="probe"), "serve")
    end(only_job(), ended)
    assert ("a reason" in [one.value for one in at.run().sidebar.error]) == (ended == "failed")
    press(at, "serve")
    assert [job.state for job in library.jobs(jobs.root())] == [ended, "waiting"]


@pytest.mark.parametrize("kind", ["tiny-static", "dense"])
def test_what_has_no_routers_is_exported_as_it_is(asleep, open_page, tiny_static_checkpoint, save_tiny, kind):
    dense = save_tiny("dense", layers=())
    at = press(open_page("pruning_lab", tiny_static_checkpoint.with_name(kind), source="probe"), "serve")
    given = accepted(only_job())
    assert (given["checkpoint"].name, given["plan"], given["beside"]) == (kind, None, [dense.resolve()])
    assert "Hugging Face folder (.zip)" in downloads(at)


def test_where_jobs_are_off_the_command_is_shown(asleep, open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setenv(jobs.SWITCH, "0")
    at = open_page("pruning_lab", tiny_checkpoint, source="probe")
    assert button(at, "serve") is None
    (command,) = [one.value for one in at.code if "shrp export" in one.value]
    assert f"export {tiny_checkpoint.name} --plan plan.json --data data.jsonl" in command


def test_the_dense_model_is_that_of_the_same_base_and_task(tiny_checkpoint, monkeypatch):
    loaded = checkpoints.load(tiny_checkpoint)
    dense = replace(loaded.info, config=ShrpConfig(()))
    listed = {
        "broken": ExportError("x"),
        "routed": loaded.info,
        "of another base": replace(dense, base_model="another"),
        "of another task": replace(dense, task=TASKS["cola"]),
        "mine": dense,
    }
    monkeypatch.setattr(lab_onnx.loaders, "discover_all", lambda: listed)
    monkeypatch.setattr(lab_onnx.loaders, "path_of", lambda name: name)
    assert lab_onnx.dense_of(loaded) == "mine"
    assert lab_onnx.dense_of(replace(loaded, info=dense)) == tiny_checkpoint
    listed.pop("mine")
    assert lab_onnx.dense_of(loaded) is None
