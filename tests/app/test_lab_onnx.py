import io
import json
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from streamlit.runtime.scriptrunner import StopException

from shrp.checkpoints import checkpoint as checkpoints
from shrp.errors import ExportError
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.evaluation.paired import paired_difference
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.app.helpers import ONNX_REPORT as REPORT
from tests.app.helpers import texts_of
from ui.lab import onnx as lab_onnx
from ui.lab.onnx import OnnxExport
from ui.store import results
from ui.text import points_interval

PLAN = make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.5, 0.3, 0.1, 0.1]}, counts={1: 1, 2: 2})


@pytest.fixture(autouse=True)
def nothing_built_yet():
    results.clear()
    yield
    results.clear()


@pytest.fixture
def builds(monkeypatch):
    """Instead of the build, of a minute: a list of what was asked for."""
    asked = []

    def build(checkpoint, plan, name, *, int8, tick):
        asked.append((plan and plan.budget, name, int8))
        tick()
        return OnnxExport(b"zip", REPORT | {"int8": int8})

    monkeypatch.setattr(lab_onnx, "build", build)
    return asked


def labels(at, kind):
    return [element.proto.label for element in at.get(kind)]


def onnx_captions(at):
    return [caption.value for caption in at.caption if "PyTorch's" in caption.value]


def test_a_build_is_the_pruned_models_export(tiny_checkpoint, tiny_inputs, tiny_data, tmp_path):
    loaded, ticks = checkpoints.load(tiny_checkpoint), []
    made = lab_onnx.build(loaded, PLAN, "mine", int8=False, tick=lambda: ticks.append(1))
    assert ticks
    assert made.report["max_difference"] < 1e-4
    zipfile.ZipFile(io.BytesIO(made.archive)).extractall(tmp_path)
    files = {file.name for file in (tmp_path / "mine").iterdir()}
    assert files == {"config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"}
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert config["plan"] == PLAN.to_dict()
    inputs = tiny_inputs()
    session = onnxruntime.InferenceSession(tmp_path / "mine" / "model.onnx")
    (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = prune(loaded.model, PLAN)(**inputs).logits.numpy()
    assert np.abs(logits - expected).max() < 1e-4
    data, seen = tiny_data(40), []
    found = lab_onnx.run(made.archive, data, lambda done, n: seen.append((done, n)))
    same = evaluate(prune(loaded.model, PLAN), loaded.tokenizer, data)
    assert np.abs(found.logits - same.logits).max() < 1e-4
    assert seen == [(32, 40), (40, 40)]


def test_a_build_that_is_left_ends_its_process(tiny_checkpoint, monkeypatch):
    started = []
    real = lab_onnx.subprocess.Popen
    monkeypatch.setattr(
        lab_onnx.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[0]
    )

    def leave():
        raise StopException  # as Streamlit ends a run

    with pytest.raises(StopException):
        lab_onnx.build(checkpoints.load(tiny_checkpoint), PLAN, "mine", int8=False, tick=leave)
    assert started[0].poll() is not None


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ValueError('a defect')", "ended unexpectedly"),
        ('print(\'{"made_from": "another"}\')', "replaced on disk"),
    ],
)
def test_a_build_that_crashes_or_of_another_checkpoint(
    tiny_checkpoint, monkeypatch, tmp_path, program, reason
):
    other = tmp_path / "other"
    other.write_text(f"#!{sys.executable}\n{program}\n")
    other.chmod(0o755)
    monkeypatch.setattr(lab_onnx.sys, "executable", str(other))
    with pytest.raises(ExportError, match=reason) as raised:
        lab_onnx.build(checkpoints.load(tiny_checkpoint), PLAN, "mine", int8=False)
    assert "a defect" not in str(raised.value)


def test_who_waited_for_a_build_takes_it_as_it_is(tiny_checkpoint, monkeypatch):
    said, loaded, made = [], checkpoints.load(tiny_checkpoint), lab_onnx.OnnxExport(b"zip", {})
    place = SimpleNamespace(markdown=said.append)
    monkeypatch.setattr(lab_onnx, "build", lambda *_, **__: pytest.fail("it was built twice"))
    key = lab_onnx._key(loaded, PLAN, "mine", "float32")
    building = lab_onnx.results("onnx", lab_onnx.KEPT)
    with ThreadPoolExecutor(1) as pool:
        with building.making(lab_onnx.BUILD, lambda: None):  # somebody builds the same
            waiting = pool.submit(lab_onnx._build_once, loaded, PLAN, "mine", "float32", place)
            while not said:
                time.sleep(0.01)
            building.put(key, made)
        assert waiting.result(30) is made
    assert "Waiting for another export" in said[0]


def test_the_lab_builds_on_request_and_keeps_what_it_built(open_page, tiny_checkpoint, builds):
    at = open_page("pruning_lab", tiny_checkpoint, budget="3")
    assert not at.exception
    assert {"Build ONNX (float32)", "Build ONNX (int8)"} <= set(labels(at, "button"))
    assert not [label for label in labels(at, "download_button") if "ONNX" in label]
    assert not builds
    at.button(key="build-onnx-int8").click().run()
    assert not at.exception
    assert builds == [(3, "tiny-pruned-3-onnx-int8", True)]
    assert "ONNX (int8) (.zip)" in labels(at, "download_button")
    assert "Build ONNX (int8)" not in labels(at, "button")
    (caption,) = onnx_captions(at)
    for number in ("23.6 MB", "0.6 on 138", "118 of 120", "2.21"):
        assert number in caption
    at.slider(key="budget").set_value(4).run()  # another plan is another model
    assert "Build ONNX (int8)" in labels(at, "button")
    at.slider(key="budget").set_value(3).run()
    assert "ONNX (int8) (.zip)" in labels(at, "download_button")
    at.button(key="build-onnx-float32").click().run()
    assert builds[1:] == [(3, "tiny-pruned-3-onnx-float32", False)]
    assert len(onnx_captions(at)) == 2
    assert "2.21" not in onnx_captions(at)[0]


def test_what_was_built_is_scored_on_request_beside_pytorch(open_page, tiny_checkpoint, builds, monkeypatch):
    ran = []

    def run(archive, data, progress):
        ran.append((archive, data.name))
        progress(len(data), len(data))
        model = prune(checkpoints.load(tiny_checkpoint).model, PLAN)
        return evaluate(model, checkpoints.load(tiny_checkpoint).tokenizer, data)

    monkeypatch.setattr(lab_onnx, "run", run)
    at = open_page("pruning_lab", tiny_checkpoint, budget="3")
    assert not [button for button in at.button if button.key.startswith("score-onnx")]
    at.button(key="build-onnx-int8").click().run()
    assert not ran
    at.button(key="score-onnx-int8").click().run()
    assert not at.exception
    assert ran == [(b"zip", "probe/sst2")]
    (said,) = [one.value for one in at.markdown if one.value.startswith("As served")]
    assert "of 480" in said
    at.run()  # it stays, and is not run anew
    assert len(ran) == 1
    assert [one.value for one in at.markdown if one.value.startswith("As served")] == [said]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_sentence_tells_the_difference(tiny_data, labelled):
    data = tiny_data(40)
    data = data if labelled else replace(data, labels=None)
    right = np.eye(2, dtype=np.float32)[tiny_data(40).labels]
    wrong = right.copy()
    wrong[:2] = wrong[:2, ::-1]
    same, found = (summarise(data, np.arange(40), logits, True) for logits in (right, wrong))
    said = lab_onnx.sentence(found, same, data)
    assert "2 of 40" in said
    ends = points_interval(paired_difference(found, same)[1], "accuracy")
    assert (f"−5.0 points (95% CI {ends})" in said) == labelled
    assert ("95\\.0\\%" in said) == labelled


def test_a_pruned_checkpoint_is_exported_as_it_is(open_page, tiny_static_checkpoint, builds):
    at = open_page("pruning_lab", tiny_static_checkpoint)
    at.button(key="build-onnx-float32").click().run()
    assert builds == [(None, "tiny-static-onnx-float32", False)]
    assert len(onnx_captions(at)) == 1
    at.button(key="score-onnx-float32").click().run()  # of a zip that is none
    assert not at.exception
    assert "can't be loaded" in texts_of(at)


@pytest.mark.parametrize("plan", [None, PLAN])
def test_what_has_no_routers_is_built_without_a_plan(tiny_static_checkpoint, monkeypatch, plan):
    def start(command, **_):
        assert ("--plan" in command) == (plan is not None)
        assert str(loaded.path) in command
        raise ExportError("enough seen")

    monkeypatch.setattr(lab_onnx.subprocess, "Popen", start)
    loaded = checkpoints.load(tiny_static_checkpoint)
    with pytest.raises(ExportError, match="enough seen"):
        lab_onnx.build(loaded, plan, "mine", int8=False)


def test_an_error_is_shown_in_words_and_the_offer_stays(open_page, tiny_checkpoint, monkeypatch):
    def fail(*_, **__):
        raise ExportError("this model can't be turned into ONNX: a reason")

    monkeypatch.setattr(lab_onnx, "build", fail)
    at = open_page("pruning_lab", tiny_checkpoint)
    at.button(key="build-onnx-float32").click().run()
    assert not at.exception
    assert "can't be turned into ONNX" in texts_of(at)
    assert not [label for label in labels(at, "download_button") if "ONNX" in label]
    at.run()
    assert "Build ONNX (float32)" in labels(at, "button")
