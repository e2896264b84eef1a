import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import history_text
from shrp.data.sources import load_probe
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from tests.app.helpers import HISTORY, SCORES, headline, row, texts_of, upload
from ui import loaders, state
from ui.overview import first
from ui.text import percent

ROOT = Path(__file__).parent.parent.parent
TRAINING, CARD, LATENCY = (
    f"overview-{part}" for part in ("how-it-was-trained", "model-card", "latency-on-this-machine")
)


@pytest.fixture
def full(save_tiny):
    """A checkpoint with scores, controls and a history."""
    return save_tiny(
        "full",
        scores=SCORES,
        history=HISTORY,
        usage=HISTORY[-1]["usage"],
        training={"validation_data": "glue/sst2 validation", "epochs": 3, "config": {"learning_rate": 3e-5}},
    )


def opened(at, part):
    at.session_state[part] = True
    return at.run()


def test_the_headline_is_what_is_kept_of_the_dense_model_at_what_size(open_page, full):
    at = open_page("overview", full)
    loaded = checkpoints.load(full)
    share = cost(loaded.model, TOKENS).relative_to(dense_cost(loaded.model, TOKENS))["encoder_params"]
    kept = {percent(0.89 / 0.9), percent(0.87 / 0.9).rstrip("%"), percent(0.91 / 0.9).rstrip("%")}
    assert all(number in headline(at) for number in (*kept, percent(share, 0)))
    assert len(at.get("plotly_chart")) == 3
    upload(at, "table", "mine.csv", b"sentence,label\nw1 w2,positive\nw3,negative\nw4 w5,negative\n")
    assert "mine.csv" in headline(at)
    assert "n = 3" in headline(at)
    at.selectbox(key="source").set_value("probe").run()
    assert "mine.csv" not in headline(at)


def test_the_encoders_share_from_the_config_alone_is_that_of_the_model(
    tiny_checkpoint, tiny_token_checkpoint, tiny_static_checkpoint, save_tiny, tiny_routed, tiny_info
):
    plan = checkpoints.read_config(tiny_static_checkpoint)[1].plan
    plans = enumerate((None, plan, replace(plan, untied=True)))
    own = [save_tiny(f"self-path-{i}", self_path=True, plan=one) for i, one in plans]
    found = [(model := tiny_routed(kind), model.config.to_dict(), tiny_info()) for kind in ("mpnet", "electra")]
    for folder in (tiny_checkpoint, tiny_token_checkpoint, tiny_static_checkpoint, *own):
        found.append((checkpoints.load(folder).model, *checkpoints.read_config(folder)))
    for model, config, info in found:
        exact = cost(model, TOKENS).relative_to(dense_cost(model, TOKENS))["encoder_params"]
        assert first.encoder_share(config, info) == pytest.approx(exact, rel=1e-12)


def test_a_checkpoint_without_scores_is_measured_and_far_below_its_teacher_it_is_a_cliff(open_page, save_tiny):
    loaded = checkpoints.load(plain := save_tiny("plain"))
    own = evaluate(loaded.model, loaded.tokenizer, load_probe("sst2"))
    assert open_page("overview", plain).metric[0].value == percent(own.score)
    here = {"data": "probe/sst2", "n": 480, "data_fingerprint": load_probe("sst2").source_fingerprint}
    for name, best, warned in (("far", 1.0, True), ("near", own.score, False)):
        at = open_page("overview", save_tiny(name, scores=(row("dense teacher", "teacher", best, **here),)))
        assert any("cliff" in box.value for box in at.warning) == warned


def test_parts_below_are_computed_once_they_are_opened_and_all_has_a_text_alternative(open_page, full):
    at = open_page("overview", full)
    before = len(at.get("plotly_chart"))
    opened(at, TRAINING)
    assert len(at.get("plotly_chart")) == before + 1
    opened(at, CARD)
    assert "full" in texts_of(at)
    opened(at, LATENCY)
    assert at.button(key="measure-latency")
    assert all(len(element.proto.alt) > 20 for element in [*at.dataframe, *at.get("plotly_chart")])


def test_a_history_is_shown_or_refused_in_words(open_page, save_tiny):
    folder = save_tiny("least")
    (folder / "history.jsonl").write_text(history_text([{"epoch": 0, "stage": 1}]))
    at = opened(open_page("overview", folder), TRAINING)
    assert not at.error
    (folder / "history.jsonl").write_text(history_text([{"epoch": 0, "stage": 2, "validation_score": 0.5}]))
    at.run()
    assert len(at.error) == 1


def test_a_damaged_checkpoint_is_told_in_words(open_page, tiny_checkpoint):
    with open(tiny_checkpoint / "model.safetensors", "r+b") as file:
        file.truncate(500)
    at = open_page("overview", tiny_checkpoint)
    assert len(at.error) == 1
    assert not at.metric


def test_the_picked_data_set_of_the_scores_is_in_the_link_and_stays_with_its_checkpoint(open_page, save_tiny):
    def both(name):
        return save_tiny(name, scores=(*SCORES, *(line | {"data": "probe/sst2"} for line in SCORES)))

    folder = both("one")
    both("two")
    at = open_page("overview", folder, scored_on="probe/sst2")
    assert at.selectbox(key="scored_on").value == "probe/sst2"
    at.selectbox(key="checkpoint").set_value("two").run()
    assert at.selectbox(key="scored_on").value == "glue/sst2 validation"


def test_no_checkpoint_at_all_has_a_command_to_copy(open_page):
    at = open_page("overview")
    assert any("python -m shrp" in block.value for block in at.code)


def test_checkpoints_change_on_disk_and_are_told_apart_by_folder(monkeypatch, tmp_path, tiny_checkpoint):
    other = tmp_path / "elsewhere" / "tiny"
    other.parent.mkdir()
    os.symlink(tiny_checkpoint, other)
    monkeypatch.setattr(loaders, "SHIPPED", tiny_checkpoint.parent)
    monkeypatch.setenv("SHRP_CHECKPOINTS", os.pathsep.join(map(str, (other.parent, tiny_checkpoint.parent))))
    assert list(loaders.discover_all()) == ["tiny", "tiny (elsewhere)"]
    assert loaders.path_of("tiny (elsewhere)") == other


def test_broken_checkpoints_come_last_and_others_as_people_count(open_page, save_tiny):
    first_one = save_tiny("11of12")
    for name in ("6of12", state.START, "_a_ [b](c) <b>d"):
        save_tiny(name)
    (first_one.parent / "0-broken").mkdir()
    (first_one.parent / "0-broken" / "config.json").write_text("{")
    at = open_page("overview", first_one.with_name("_a_ [b](c) <b>d"))
    assert "\\[b\\]" in at.title[0].value
    options = [state.START, "6of12", "11of12", "_a_ [b](c) <b>d", "0-broken"]
    assert at.selectbox(key="checkpoint").options == options


ALONE = """
import sys
import streamlit as st
import ui.state, ui.overview.first, ui.loaders
assert ui.loaders.discover_all()
def wait():
    raise StopIteration
ui.state.through_app, ui.loaders.libraries, waited, titles = (lambda: None), wait, 0, []
st.title = st.container().__class__.title = lambda *said, **_: titles.append(said[-1])
for page in ("compare", "expert_usage", "overview", "pruning_lab", "routing", "results"):
    try:
        exec(open(f"pages/{page}.py").read(), {"__name__": "__main__"})
    except StopIteration:
        waited += 1
print(len(titles), waited, [m for m in ("torch", "transformers", "sklearn", "captum") if m in sys.modules])
"""
"""Each page up to where it waits for the libraries; Results does not."""
POOLS = """
import ctypes, threading
from ui import loaders
loaders._LIBRARIES = ()
loaders._importing().join()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
def pools():
    libc.malloc_info(0, file := ctypes.c_void_p(libc.fopen(b"pools", b"w")))
    libc.fclose(file)
    return open("pools").read().count("<heap ")
before, together = pools(), threading.Barrier(8)
threads = [threading.Thread(target=lambda: (libc.malloc(1000), together.wait())) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(pools() - before)
"""
"""By how many glibc's pools of memory grow with eight threads at once."""
STARTED = """
import app, gc, sys, threading
from starlette.testclient import TestClient
with TestClient(app.app):
    next(thread for thread in threading.enumerate() if thread.name == "imports").join()
    print("transformers" in sys.modules, len(gc.get_objects()) < gc.get_freeze_count())
"""


def printed(program, folder=ROOT):
    run = [sys.executable, "-c", program]
    told = subprocess.run(run, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    return told.stdout.strip().splitlines()[-1]


def test_no_session_imports_torch_by_itself():
    assert printed(ALONE) == "6 5 []"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_get_no_pools_of_memory_of_their_own(tmp_path):
    assert printed(POOLS, tmp_path) == "0"


def test_a_server_imports_from_its_start_what_takes_seconds_and_collects_no_garbage_of_it():
    assert printed(STARTED) == "True True"
