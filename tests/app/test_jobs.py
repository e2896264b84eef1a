"""Jobs in the app: the sidebar's list, and the dialog that converts a dense model. No process is started."""

import json
from functools import partial
from unittest.mock import Mock

import pandas as pd
import pytest

from shrp import jobs as library
from shrp.checkpoints import checkpoint as checkpoints
from shrp.cli.options import read_plan
from shrp.cli.train import TrainOptions
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.pruning.plan import make_plan
from shrp.training.config import read_config
from tests.app.helpers import accepted, button, only_job, press, specs, texts_of, values
from ui import jobs, training_data
from ui.lab import curve, view

STATUS = {"phase": "converting layer 2", "step": 5, "steps": 10, "epoch": 2, "epochs": 4, "stage": 1}
STATUS |= {"loss": 0.5, "seconds_left": 61.0}
SCORED = [{"epoch": n, "metric": "accuracy", "validation_score": score} for n, score in enumerate((0.6, 0.8))]


@pytest.fixture
def dense(save_tiny):
    return save_tiny("dense", layers=())


def submitted(name="made", **files):
    job = jobs.start(f"Make {name}", ["convert", "--quick"], name, about={"metric": "accuracy"})
    for file, content in files.items():
        (job.folder / f"{file}.json").write_text(json.dumps(content))
    return job


def test_a_running_job_shows_how_far_it_is_and_can_be_cancelled(asleep, open_page, dense, monkeypatch):
    about = {"status": STATUS, "losses": [0.9, 0.7, 0.5], "history": SCORED}
    job = submitted(status=about)
    submitted("other")
    monkeypatch.setattr(library, "_working", lambda root: job.name)
    at = open_page("overview", dense)
    running = next(one for one in library.jobs(jobs.root()) if one.state == "running")
    assert jobs.progress(running) == (0.375, "Converting layer 2, about 1 min left")
    (bar,) = at.sidebar.get("progress")
    assert bar.proto.value == 37
    curves = [(list(one.proto.chart_data), one.value) for one in at.sidebar.metric]
    assert curves == [([0.9, 0.7, 0.5], "0.5"), ([0.6, 0.8], "80.0%")]
    assert job.command in [code.value for code in at.sidebar.code]
    monkeypatch.setattr(library.os, "kill", lambda *_: None)
    press(at, f"job-{job.name}-act")
    assert (job.folder / "cancel").exists()


def test_a_job_that_is_done_is_opened_with_one_click(asleep, open_page, dense, save_tiny):
    found = {"n": 40, "dense_score": 0.9, "routed_score": 0.875}
    job = submitted(end={"state": "done"}, result=found)
    jobs.models().mkdir(parents=True, exist_ok=True)
    save_tiny("routed").rename(job.out)
    at = open_page("overview", dense)
    assert "Routed 87.5%, dense 90.0% (accuracy, n = 40)" in texts_of(at.sidebar)
    at = press(at, f"job-{job.name}-open", f"job-{job.name}-act")  # faster than a run
    assert at.query_params["checkpoint"] == "made"
    assert at.title[0].value == "made"
    assert not library.jobs(jobs.root())
    assert job.out.is_dir()
    assert button(at, f"job-{job.name}-act") is None


def test_a_free_name_is_of_nothing_made_or_left_unfinished(asleep):
    submitted()
    for left in ("made-2", "made-3.run"):
        (jobs.models() / left).mkdir(parents=True, exist_ok=True)
    assert jobs.free_name("made") == "made-4"


def test_a_job_that_failed_says_why_and_shows_its_log(asleep, open_page, monkeypatch):
    job = submitted(end={"state": "failed", "error": "no *room*."})
    (job.folder / "log.txt").write_text("line 1\n")
    at, read = open_page("results"), library._text
    files = []
    monkeypatch.setattr(library, "_text", lambda file: files.append(file) or read(file))
    at.run()
    assert len(files) == len(set(files)) > 1  # each once a run
    assert [one.value.replace("\\", "") for one in at.sidebar.error] == ["no *room*."]
    assert at.sidebar.code[-1].value.strip() == "line 1"
    monkeypatch.setenv(jobs.SWITCH, "0")  # a server that has jobs off draws none
    assert not at.run().sidebar.code


@pytest.mark.parametrize(
    ("address", "hosts", "site", "switch", "on"),
    [
        ("127.0.0.1", ["localhost", "::1"], "localhost", None, 1),
        ("127.0.0.1", ["localhost", "shrp.example.org"], "localhost", None, 0),  # behind a proxy
        ("127.0.0.1", ["localhost", "::1"], "shrp.example.org", None, 0),  # or one of another Host
        ("127.0.0.1", [], "localhost", None, 0),  # any host
        ("0.0.0.0", ["localhost"], "localhost", None, 0),
        (None, [], "localhost", "1", 1),
        ("::1", ["localhost"], "localhost", "0", 0),
    ],
)
def test_only_this_machine_has_jobs_unless_they_are_switched(monkeypatch, address, hosts, site, switch, on):
    monkeypatch.delenv(jobs.SWITCH, raising=False)
    if switch is not None:
        monkeypatch.setenv(jobs.SWITCH, switch)
    options = {"server.address": address, "server.allowedHosts": hosts, "browser.serverAddress": site}
    monkeypatch.setattr("ui.own.kept.st.get_option", options.get)
    assert jobs.allowed() == bool(on)


def test_a_dense_model_is_converted_by_a_job(asleep, open_page, dense):
    at = press(open_page("pruning_lab", dense, source="probe"), "convert")
    at.slider[-1].set_value(2)
    at = press(at.run(), "job-start")  # a run of the whole app, as when a job ends, does not close it
    assert button(at, "job-start") is None
    job = only_job()
    given = accepted(job)
    assert (job.out, given["layers"], given["quick"]) == (jobs.models() / "dense-2of3", "upper:2", True)
    assert given["base"] == str(dense.resolve())
    rows = pd.read_json(given["texts"][0], lines=True)
    scored = pd.read_json(given["validation_file"], lines=True)
    assert list(rows.columns) == given["text_column"] == ["sentence"]
    assert len(rows) == len(scored) == 480
    assert set(scored["label"]) == set(TASKS["sst2"].label_names)


def test_a_full_conversion_takes_labelled_data_and_its_options(asleep, open_page, dense):
    at = press(open_page("overview", dense, source="probe"), "convert")
    at = at.segmented_control[-1].set_value("full").run()
    at.number_input[0].set_value(3)
    press(at, "job-start")
    given = accepted(only_job())
    counts = [len(pd.read_json(given[name], lines=True)) for name in ("train_file", "validation_file")]
    assert counts == [384, 96]
    layers = {"training": {"shrp": {"layers": [2]}}}
    config = read_config(given["config"], TrainOptions, overrides=layers)
    assert (config.training.stage2_epochs, config.training.freeze_dense) == (3, True)
    assert given["task"] == "sst2"


PICKED = load_probe("sst2").to_frame()[["sentence", "label"]].to_csv(index=False).encode()


@pytest.mark.parametrize(
    ("file", "counts"),
    [(None, (480, 480)), (PICKED, (384, 96)), (PICKED + b"a,positive\n", (1, 480))],
)
def test_a_plan_is_fine_tuned_by_a_job(asleep, open_page, tiny_checkpoint, monkeypatch, file, counts):
    made = []
    for name in ("read_upload", "fit", "exported"):
        work = getattr(training_data, name)
        noted = partial(lambda name, work, *given: made.append(name) or work(*given), name, work)
        monkeypatch.setattr(training_data, name, noted)
    at = press(open_page("pruning_lab", tiny_checkpoint, source="probe", budget=3), "fine-tune")
    if file:
        at = at.segmented_control[-1].set_value(True).run()
        at = at.file_uploader[-1].set_value(("train.csv", file, "text/csv")).run()
    at = press(at.run(), "job-start")
    assert button(at, "job-start") is None
    assert made == ["read_upload", "fit"] * bool(file) + ["exported"]
    job = only_job()
    given = accepted(job)
    assert job.out == jobs.models() / "tiny-pruned-3-finetuned"
    assert given["fine_tune"] == 3
    assert read_plan(given["plan"]).budget == 3
    trained_on = pd.read_json(given["train_file" if file else "texts"], lines=True)
    validation = pd.read_json(given["validation_file"], lines=True)
    assert list(trained_on.columns) == ["sentence", "label"][: 1 + bool(file)]
    assert (len(trained_on), len(validation)) == counts
    if file:
        assert not set(trained_on["sentence"]) & set(validation["sentence"])


def test_training_data_that_can_not_be_read_are_refused(asleep, open_page, dense, monkeypatch):
    monkeypatch.setattr(training_data, "read_upload", Mock(side_effect=OSError("no disk")))
    at = press(open_page("overview", dense, source="probe"), "convert")
    at = at.selectbox(key="convert-quick-source").set_value(training_data.FILE).run()
    at = at.file_uploader[-1].set_value(("texts.csv", b"sentence\na\n", "text/csv")).run()
    assert "no disk" in [one.value for one in at.error]


def test_what_was_fine_tuned_after_pruning_is_a_point_of_the_curve(
    asleep, open_page, tiny_checkpoint, save_tiny, monkeypatch
):
    routed = checkpoints.load(tiny_checkpoint)
    plan = make_plan({layer: [0.4, 0.3, 0.2, 0.1] for layer in (1, 2)}, budget=3)
    how = {"pruned_from": routed.fingerprint, "recovery": {"final_size": 8}}
    save_tiny("tuned", plan=plan, training=how)
    save_tiny("before", plan=plan, training=how)  # is one too many
    monkeypatch.setattr(curve, "_MOST_TUNED", 1)
    done, scored, drawn = [], curve._tuned, view.Lab._draw_verdict
    monkeypatch.setattr(curve, "_tuned", lambda name, data: done.append(name) or scored(name, data))
    monkeypatch.setattr(
        view.Lab, "_draw_verdict", lambda lab, found: done.append(found.complete) or drawn(lab, found)
    )
    save_tiny("other", plan=plan, training=how | {"pruned_from": "another"})
    at = open_page("pruning_lab", tiny_checkpoint, source="probe", budget=4)
    assert done[-2:] == [True, "tuned"]
    assert "before" not in done
    points = [trace for spec in specs(at) for trace in spec["data"] if trace.get("name") == "fine-tuned"]
    score = checkpoints.load(tiny_checkpoint.parent / "tuned").evaluate(load_probe("sst2")).score
    assert values(points[-1]["y"]) == pytest.approx([100 * score])
