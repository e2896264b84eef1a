import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
from streamlit.runtime.scriptrunner import StopException
from transformers import pipeline

from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.tasks import TASKS
from shrp.errors import ExportError
from shrp.evaluation.evaluate import evaluate
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.app.helpers import ONNX_REPORT as REPORT
from tests.app.helpers import texts_of
from ui.lab import onnx as lab_onnx
from ui.lab.onnx import OnnxExport
from ui.lab.save import checkpoint_zip
from ui.store import results

PLAN = make_plan({1: [0.6, 0.2, 0.1, 0.1], 2: [0.1, 0.4, 0.3, 0.2]}, counts={1: 1, 2: 2})


@pytest.fixture(autouse=True)
def nothing_built_yet():
    results.clear()
    yield
    results.clear()


@pytest.fixture
def builds(monkeypatch):
    """Instead of the build, of a minute: a list of what was asked for."""
    asked = []

    def build(checkpoint, plan, name, data, *, int8, tick):
        asked.append((plan and plan.budget, name, data.name, int8))
        tick()
        return OnnxExport(b"zip", REPORT | {"int8": int8})

    monkeypatch.setattr(lab_onnx, "build", build)
    return asked


def labels(at, kind):
    return [element.proto.label for element in at.get(kind)]


def tables(at):
    return [one.value for one in at.markdown if "| p50, ms |" in one.value]


class InThisProcess:
    """Stands for `subprocess.Popen` of the command line: a process of its own takes seconds to import."""

    def __init__(self, command, **_):
        self.arguments = command[3:]  # after `python -m shrp`

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def communicate(self, timeout):
        self.returncode, output, errors = self.shrp(*self.arguments)
        return output, errors

    def kill(self):
        pass


def test_a_build_is_the_pruned_models_export(
    tiny_checkpoint, tiny_data, tmp_path, monkeypatch, shrp, quick_graphs
):
    """Scored and timed, next to the dense model of the same base and task."""
    loaded, ticks, data = checkpoints.load(tiny_checkpoint), [], tiny_data(40)
    monkeypatch.setattr(InThisProcess, "shrp", staticmethod(shrp), raising=False)
    monkeypatch.setattr(
        lab_onnx, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": InThisProcess})
    )
    monkeypatch.setattr(lab_onnx, "dense_of", lambda _: tiny_checkpoint)
    made = lab_onnx.build(loaded, PLAN, "mine", data, int8=False, tick=ticks.append)
    assert ticks
    report = made.report
    assert report["max_difference"] < 1e-4
    assert (report["sentences"], report["label_agreement"]) == (40, 1)
    zipfile.ZipFile(io.BytesIO(made.archive)).extractall(tmp_path)
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["plan"] == PLAN.to_dict()
    same = evaluate(prune(loaded.model, PLAN), loaded.tokenizer, data)
    assert (report["score"], report["n"]) == (same.score, 40)
    (beside,) = report["beside"]
    assert beside["score"] == evaluate(loaded.model, loaded.tokenizer, data).score
    assert report["mb"] == (tmp_path / "mine" / "model.onnx").stat().st_size / 1e6
    assert lab_onnx.figures(report, "ONNX").count("\n") == 3


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


def test_a_build_that_is_left_ends_its_process(tiny_checkpoint, tiny_data, monkeypatch):
    started = []
    real = lab_onnx.subprocess.Popen
    monkeypatch.setattr(
        lab_onnx.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[0]
    )

    def leave(step):
        raise StopException  # as Streamlit ends a run

    with pytest.raises(StopException):
        lab_onnx.build(checkpoints.load(tiny_checkpoint), PLAN, "mine", tiny_data(40), int8=False, tick=leave)
    assert started[0].poll() is not None


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ValueError('a defect')", "ended unexpectedly"),
        ('print(\'{"made_from": "another"}\')', "replaced on disk"),
    ],
)
def test_a_build_that_crashes_or_of_another_checkpoint(
    tiny_checkpoint, tiny_data, monkeypatch, tmp_path, program, reason
):
    other = tmp_path / "other"
    other.write_text(f"#!{sys.executable}\n{program}\n")
    other.chmod(0o755)
    monkeypatch.setattr(lab_onnx.sys, "executable", str(other))
    with pytest.raises(ExportError, match=reason) as raised:
        lab_onnx.build(checkpoints.load(tiny_checkpoint), PLAN, "mine", tiny_data(40), int8=False)
    assert "a defect" not in str(raised.value)


def test_the_lab_builds_on_request_and_keeps_what_it_built(open_page, tiny_checkpoint, builds):
    at = open_page("pruning_lab", tiny_checkpoint, budget="3")
    assert not at.exception
    assert not builds
    at.segmented_control(key="precision").set_value("int8").run()
    assert not builds
    at.button(key="serve").click().run()
    assert not at.exception
    assert builds == [(3, "tiny-pruned-3-onnx-int8", "probe/sst2", True)]
    assert "ONNX folder, int8 (.zip)" in labels(at, "download_button")
    (table,) = tables(at)
    for number in ("91.7%", "4.2", "6.5", "1,234", "23.6", "8.1"):
        assert number in table.replace("\\", "")
    assert any("118 of 120" in caption.value for caption in at.caption)
    at.slider(key="budget").set_value(4).run()  # another plan is another model
    assert lab_onnx._OFFER in labels(at, "button")
    at.slider(key="budget").set_value(3).run()
    assert tables(at) == [table]
    at.segmented_control(key="precision").set_value("float32").run()
    assert not tables(at)
    at.button(key="serve").click().run()
    assert builds[1:] == [(3, "tiny-pruned-3-onnx-float32", "probe/sst2", False)]


@pytest.mark.parametrize("kind", ["tiny-static", "dense"])
def test_what_has_no_routers_is_exported_as_it_is(open_page, tiny_static_checkpoint, save_tiny, builds, kind):
    save_tiny("dense", layers=())
    at = open_page("pruning_lab", tiny_static_checkpoint.with_name(kind))
    at.button(key="serve").click().run()
    assert not at.exception
    assert builds == [(None, f"{kind}-onnx-float32", "probe/sst2", False)]
    assert {"Hugging Face folder (.zip)", "ONNX folder, float32 (.zip)"} <= set(labels(at, "download_button"))


def test_the_hugging_face_folder_opens_in_a_pipeline(tiny_checkpoint, tiny_data, tmp_path):
    loaded, data = checkpoints.load(tiny_checkpoint), tiny_data(40)
    loaded.model.config.id2label = {0: "negative", 1: "positive"}
    scored = evaluate(prune(loaded.model, PLAN), loaded.tokenizer, data)
    archive = checkpoint_zip("mine", loaded, PLAN, scored, data, data)
    zipfile.ZipFile(io.BytesIO(archive)).extractall(tmp_path)
    texts = [text for (text,) in data.texts]
    found = pipeline("text-classification", model=str(tmp_path / "mine"))(texts)
    expected = checkpoints.load(tmp_path / "mine").predict(texts)["prediction"]
    assert [row["label"] for row in found] == expected.tolist()


@pytest.mark.parametrize("plan", [None, PLAN])
def test_what_has_no_routers_is_built_without_a_plan(tiny_static_checkpoint, tiny_data, monkeypatch, plan):
    def start(command, **_):
        assert ("--plan" in command) == (plan is not None)
        assert str(loaded.path) in command
        raise ExportError("enough seen")

    monkeypatch.setattr(lab_onnx.subprocess, "Popen", start)
    loaded = checkpoints.load(tiny_static_checkpoint)
    with pytest.raises(ExportError, match="enough seen"):
        lab_onnx.build(loaded, plan, "mine", tiny_data(40), int8=False)


def test_an_error_is_shown_and_the_offer_stays(open_page, tiny_checkpoint, monkeypatch):
    def fail(*_, **__):
        raise ExportError("a reason")

    monkeypatch.setattr(lab_onnx, "build", fail)
    at = open_page("pruning_lab", tiny_checkpoint)
    at.button(key="serve").click().run()
    assert not at.exception
    assert "a reason" in texts_of(at)
    assert not [label for label in labels(at, "download_button") if "ONNX" in label]
    assert lab_onnx._OFFER in labels(at.run(), "button")
