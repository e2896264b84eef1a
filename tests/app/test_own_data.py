"""A person's own table and own checkpoint: read, refused in words, used on every page, and taken away again."""

import gc
import io
import json
import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st

from shrp import jobs as library
from shrp.checkpoints.checkpoint import load
from shrp.data.tasks import TASKS, custom_task
from shrp.errors import CheckpointError, DataError
from tests.app.helpers import opened, texts_of, upload
from ui import data_sources, jobs, loaders
from ui.own import checkpoints as own_checkpoints
from ui.own import data as own_data
from ui.own import guide
from ui.own import kept as own_kept
from ui.own import labels as own_labels
from ui.own import table as own_table
from ui.own.boxes import find
from ui.own.fit import Columns, fit, guess
from ui.own.table import clean_name, data_roots, read_file, read_upload
from ui.state import SOURCE

SST2, MRPC = TASKS["sst2"], TASKS["mrpc"]
PLAIN = "sentence\n" + "".join(f"w{i} w{i % 7} w{i % 5}\n" for i in range(12))
LABELLED = "words,mood,kind\n" + "".join(
    f"w{i} w{i % 7} w{i % 5},{'positive' if i % 2 else 'negative'},{'odd' if i % 3 else 'even'}\n"
    for i in range(12)
)


def box(at, label):
    return next(one for one in at.selectbox if one.label == label)


def own(at):
    return at.session_state[data_sources.OWN_DATA]


@pytest.fixture
def served(monkeypatch):
    """The app as others can reach it."""
    monkeypatch.setattr(own_checkpoints, "is_local", lambda: False)


def zip_of(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"{folder.name}/{path.name}")
    return buffer.getvalue()


def test_the_columns_that_were_chosen_come_back_with_their_task(open_page, tiny_checkpoint, save_tiny):
    save_tiny("pairs", task="mrpc")
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", LABELLED.encode())

    box(at, "Text column").set_value("kind")
    box(at, "Label column").set_value("mood").run()
    at.selectbox(key="checkpoint").set_value("pairs").run()
    assert box(at, "Label column").value == "none"  # the other task starts at its own guess
    at.switch_page("pages/routing.py").run()
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert (box(at, "Text column").value, box(at, "Label column").value) == ("kind", "mood")
    assert own(at).texts[0] == ("even",)


NUMBERED = "review,mood\nw1 w2,good\nw3,bad\nw4 w5,good\n,bad\n"
GAPS = "sentence,label\nw1 w2,positive\n,negative\nw3 w4,\n  ,positive\nw5 w6,negative\n"
STARS = "sentence,label\n" + "".join(f"w{i} w{i % 7},{i % 5 + 1}\n" for i in range(20))


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        *((label, "positive") for label in ("Positive", "pos", "good")),
        *((label, "negative") for label in (" NEG ", "Bad")),
        *((other, None) for other in ("po", "", "1", "negatively")),
    ],
)
def test_what_a_label_probably_means(label, meaning):
    assert own_labels.guess(label, SST2) == meaning


def test_data_of_a_task_of_ones_own_may_lie_in_the_data_folder(open_page, save_tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "moods", custom_task("moods", ("remark",), ("bad", "good")))
    folder, data = save_tiny("custom", task="moods"), tmp_path / "data"
    monkeypatch.delitem(TASKS, "moods")
    (data / "moods").mkdir(parents=True)
    rows = "w1 w2 w3,good,x\nw4 w5,bad,y\n" * 4
    (data / "moods" / "validation.csv").write_text(f"remark,label,slice\n{rows}")
    at = open_page("expert_usage", folder, data_dir=data)
    assert at.selectbox(key="source").value == "folder"
    assert "on validation.csv" in texts_of(at)
    assert {"class: good", "slice: x"} <= set(at.selectbox(key="group").options)
    upload(at, "table", "mine.csv", b"remark,label\nw1 w2,good\nw3,bad\n")
    assert "on mine.csv" in texts_of(at)
    at.selectbox(key="source").set_value("folder").run()
    assert "on validation.csv" in texts_of(at)


@pytest.mark.parametrize("name", ["..", "", ".", "../data", "a/b", "sst2", "moods\0", "\ud800"])
def test_no_tasks_name_leads_out_of_the_data_folder(name, tmp_path, monkeypatch):
    for place in (tmp_path, tmp_path / "data", tmp_path / "data" / "a" / "b", tmp_path / "data" / "sst2"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "validation.csv").write_text("sentence\nw1\n")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    task = replace(custom_task("moods", ("sentence",), ("bad", "good")), name=name)
    assert data_sources.available_sources(task) == {}


def test_checkpoints_are_uploaded_replaced_and_removed_and_only_the_last_ones_stay(
    served, open_page, tiny_checkpoint, save_tiny, tmp_path, monkeypatch
):
    made = []

    def noted(**options):
        folder = tempfile.TemporaryDirectory(**options)
        made.append(Path(folder.name))
        return folder

    monkeypatch.setattr(own_checkpoints, "TemporaryDirectory", noted)
    monkeypatch.setattr(own_checkpoints, "MOST_HELD", 2)
    at = open_page("overview", tiny_checkpoint)
    mine = save_tiny("static elsewhere", routing="token").rename(tmp_path / "mine")
    upload(at, "zip", "archive.zip", zip_of(mine))
    assert at.title[0].value.replace("\\", "") == "mine (yours)"
    assert at.selectbox(key="checkpoint").value == "mine (yours)"

    for content in (b"no zip", zip_of(mine)[:-40]):
        upload(at, "zip", "bad.zip", content)
        assert len(at.error) == 1
        assert at.selectbox(key="checkpoint").value == "mine (yours)"
    assert (made[0] / "config.json").is_file()
    assert not any(path.exists() for path in made[1:])

    upload(at, "zip", "again.zip", zip_of(mine))
    assert at.selectbox(key="checkpoint").value == "mine (yours)"
    assert not made[0].exists()
    kept = [made[-1]]
    for name in ("two", "three"):
        assert all(path.is_dir() for path in kept)
        mine = mine.rename(tmp_path / name)
        upload(at, "zip", "x.zip", zip_of(mine))
        kept.append(made[-1])
    assert [path.is_dir() for path in kept] == [False, True, True]
    names = [name for name in at.selectbox(key="checkpoint").options if "yours" in name]
    assert names == ["two (yours)", "three (yours)"]
    assert any("mine (yours)" in one.value.replace("\\", "") for one in at.caption)  # it is told

    at.query_params["checkpoint"] = "three (yours)"  # where the browser's address still is
    at.button(key="own-checkpoint-remove-three (yours)").click().run()
    assert at.selectbox(key="checkpoint").value == "tiny"
    assert not made[-1].exists()
    assert not at.main.warning  # the person took it away


def test_a_click_while_a_file_is_read_loses_nothing(
    open_page, tiny_checkpoint, save_tiny, monkeypatch, tmp_path, cache
):
    """Streamlit stops a run for the next one, wherever it is."""
    mine = save_tiny("mine", routing="token").rename(tmp_path / "mine")
    at = open_page("overview", tiny_checkpoint)
    opened(at)
    load, stopped = loaders.load_folder, []

    def stop_once(folder):
        if not stopped:
            stopped.append(folder)
            st.stop()
        return load(folder)

    monkeypatch.setattr(loaders, "load_folder", stop_once)
    upload(at, "zip", "mine.zip", zip_of(mine))
    assert len(stopped) == 1
    at.run()
    assert at.selectbox(key="checkpoint").value.startswith("mine")
    gc.collect()
    assert not stopped[0].exists()  # what was unpacked first is gone


def test_a_reload_brings_the_table_and_its_columns_back(open_page, tiny_checkpoint, cache, monkeypatch):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", NUMBERED.encode())
    box(at, "Label column").set_value("mood").run()
    assert own(at).labels is not None
    assert at.selectbox(key=SOURCE).value == data_sources.OWN
    asked = {name: at.query_params[name] for name in (own_kept.PARAM, SOURCE)}
    again = open_page("expert_usage", tiny_checkpoint, **asked)
    assert own(again).fingerprint == own(at).fingerprint
    assert again.selectbox(key=SOURCE).value == data_sources.OWN
    opened(again).button(key="own-data-remove").click().run()
    assert own_kept.PARAM not in again.query_params
    for name in (asked[own_kept.PARAM], "../../etc", "0" * 16):  # of a session that begins
        monkeypatch.setattr(own_kept.st, "query_params", {own_kept.PARAM: name})
        monkeypatch.setattr(own_kept.st, "session_state", {})
        assert own_kept.kept_file() is None


def test_no_table_locks_a_session(open_page, tiny_checkpoint, monkeypatch):
    """Whatever goes wrong with its content, it can be removed, and the page goes on."""
    at, error = open_page("overview", tiny_checkpoint), UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "not allowed")
    monkeypatch.setattr(own_data, "complete", Mock(side_effect=error))
    upload(at, "table", "mine.csv", PLAIN.encode())
    assert len(at.error) == 1
    at.button(key="own-data-remove").click().run()
    assert not at.error


def test_other_hosts_names_are_refused():
    from streamlit import config
    from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

    config.get_config_options(force_reparse=True)
    assert all(is_host_allowed(f"{host}:8501") for host in ("localhost", "127.0.0.1", "[::1]"))
    assert not any(is_host_allowed(host) for host in ("evil.example", "127.0.0.1.evil.example", None))


def test_large_tables_are_refused_here_and_not_only_in_the_browser(monkeypatch, tmp_path):
    def refused(name, content, why):
        with pytest.raises(DataError, match=why):
            read_upload(name, content)

    lines = [(b'{"sentence": "a"}' + end) * 6 for end in (b"\n", b"\r", b"\r\n")]  # each ends a line
    for limit, most, why, files in (
        ("MAX_BYTES", 100, "MB", {"t.csv": [b"sentence\n" + b"a b c\n" * 40]}),
        ("MAX_ROWS", 5, "rows", {"t.csv": [b"sentence\n" + b"a\n" * 6], "t.jsonl": lines}),
        ("MAX_COLUMNS", 2, "columns", {"t.csv": [b"a,b,c\n1,2,3\n"]}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(own_table, limit, most)
            for name, contents in files.items():
                for content in contents:
                    refused(name, content, why)
    monkeypatch.setattr(own_table, "_MAX_PARQUET", 1000)
    path, texts = tmp_path / "t.parquet", pa.array(["x" * 400] * 5)  # small on disk, 2,000 bytes in memory
    kinds = (texts.cast(pa.large_string()), texts.dictionary_encode(), texts.cast(pa.string_view()))
    for column in (texts, *kinds):
        pq.write_table(pa.table({"sentence": column}), path)
        refused("t.parquet", path.read_bytes(), "unpacks")
    pd.DataFrame({"tokens": [["x" * 400] * 5]}).to_parquet(path)  # lists of words are read, and counted too
    refused("t.parquet", path.read_bytes(), "unpacks")
    with monkeypatch.context() as patch:
        patch.setattr(own_table, "MAX_VALUES", 4)
        refused("t.parquet", path.read_bytes(), "values")
    pd.DataFrame({"sentence": [[1]]}).to_parquet(path)
    refused("t.parquet", path.read_bytes(), "type")
    large = pa.array([b"\0" * 1000] * 5, pa.binary())  # a few bytes may unpack to terabytes of these
    for kind in (pa.binary(), pa.large_binary(), pa.binary(1000)):
        pq.write_table(pa.table({"sentence": ["a"] * 5, "p": large.cast(kind)}), path, compression="zstd")
        refused("t.parquet", path.read_bytes(), "type")


def test_an_uploads_name_is_cleaned():
    assert clean_name("../../etc/x.csv") == clean_name("C:\\me\\x.csv") == "x.csv"
    assert clean_name("a\nb\0.csv") == "ab.csv"
    assert clean_name("é" * 300 + ".csv") == "é" * 50 + ".csv"


def test_a_path_is_read_below_the_allowed_folders_only(tmp_path, monkeypatch):
    def read(path):
        return len(read_file(find(path, data_roots(), "file", DataError)).frame)

    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed, other):
        folder.mkdir()
        (folder / "t.csv").write_text(PLAIN)
    (allowed / "out.csv").symlink_to(other / "t.csv")
    monkeypatch.delenv("SHRP_DATA_DIR", raising=False)
    monkeypatch.setenv("SHRP_DATA_ROOTS", str(allowed))
    assert read("t.csv") == read(str(allowed / "t.csv")) == 12
    for outside in ("../other/t.csv", str(other / "t.csv"), "out.csv", "/etc/passwd", "a\0b", "u.csv"):
        with pytest.raises(DataError):
            read(outside)
    monkeypatch.setenv("SHRP_DATA_DIR", str(other))
    assert read(str(other / "t.csv")) == 12


@pytest.mark.parametrize("local", [True, False])
def test_on_localhost_alone_any_table_is_read_by_its_path_and_kept(
    open_page, tiny_checkpoint, tmp_path, monkeypatch, cache, local
):
    (tmp_path / "mine.csv").write_text(PLAIN)
    monkeypatch.setattr(own_kept, "is_local", lambda: local)
    at = opened(open_page("overview", tiny_checkpoint, data_dir=tmp_path / "none"))
    at.text_input(key="own-data-path").set_value(str(tmp_path / "mine.csv")).run()
    assert (data_sources.OWN_DATA in at.session_state) == local
    assert bool(at.error) != local
    upload(at, "table", "mine.csv", PLAIN.encode())
    assert (own_kept.PARAM in at.query_params) == local


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ("review,mood\nSo good.,positive\nSo bad.,negative\n", (("review",), "mood", None)),
        ("review,mood\nSo good.,pos\nSo bad.,NEG\n", (("review",), "mood", None)),
        ("review,mood\nSo good.,positive\nSo bad.,mixed\n", (("review",), None, None)),  # not a class
        ("review,a,b\nSo good.,positive,negative\nBad.,negative,negative\n", (("review",), None, None)),
        ("review,mood,label\nSo good.,positive,1\nSo bad.,negative,0\n", (("review",), "label", None)),
        ("review,seen\nSo good.,1\nSo bad.,0\n", (("review",), None, None)),  # ids may be anything
        ("id,label,remark,review\n1,0,no,a long one\n2,1,yes,another\n", (("review",), "label", None)),
        ("sentence,slice\na,x\n", (("sentence",), None, "slice")),
    ],
)
def test_columns_are_guessed(rows, columns):
    assert guess(read_upload("t.csv", rows.encode()), SST2) == Columns(*columns)
    assert guess(read_upload("t.csv", b"n,a,b,slice\n1,some words,more words,x\n"), MRPC).texts == ("a", "b")
    rated = replace(TASKS["stsb"], name="rated", text_columns=("sentence",), label_column="mood")
    assert guess(read_upload("t.csv", b"sentence,slice,mood\na,1,1.5\nb,2,2\n"), rated).label == "mood"


@pytest.mark.parametrize(
    ("rows", "task", "columns", "said"),
    [
        ("sentence,label\na,positive\nb,great\n", SST2, (("sentence",), "label", None), "row 2"),
        ("sentence,label\na,positive\n", SST2, (("sentence",), "sentence", None), "can't be a text"),
        ("sentence,label\na,positive\n", SST2, (("other",), None, None), "'other'"),
        ("sentence,label\na,positive\n", MRPC, (("sentence", "sentence"), None, None), "different columns"),
        ("sentence,x\na,1\n ,2\n", SST2, (("sentence",), None, None), "row 2"),
        (f"sentence,slice\na,x\nb,{'y' * 201}\n", SST2, (("sentence",), None, "slice"), "201 characters"),
        (f"sentence\n{'a' * 20_001}\n", SST2, (("sentence",), None, None), "row 1"),
    ],
)
def test_what_does_not_fit_is_refused(rows, task, columns, said):
    with pytest.raises(DataError, match=said):
        fit(read_upload("t.csv", rows.encode()), task, Columns(*columns))


def test_a_table_is_uploaded_used_replaced_and_removed(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", LABELLED.encode())
    assert at.selectbox(key="source").value == "own"
    assert "mine.csv" in at.markdown[0].value.replace("\\", "")
    other = open_page("overview", tiny_checkpoint, source="own")  # another session sees nothing of it
    assert len(other.main.warning) == 1
    assert other.selectbox(key="source").options == ["probe", "hub"]
    assert (box(at, "Text column").value, box(at, "Label column").value) == ("words", "mood")
    box(at, "Label column").set_value("none").run()
    assert own(at).labels is None
    assert not at.metric
    assert any("the text" in frame.value for frame in at.dataframe)  # answered all the same
    box(at, "Label column").set_value("mood")
    box(at, "Slice column").set_value("kind").run()
    data = own(at)
    assert data.labels.tolist() == [i % 2 for i in range(12)]
    assert set(data.slices) == {"odd", "even"}
    for name, content in (("broken.csv", b"\xff\xfe"), ("unfit.csv", b"sentence,label\na b,\n")):
        upload(at, "table", name, content)
        assert len(at.error) == 1
        assert own(at) is data
        assert at.selectbox(key="source").value == "own"
    upload(at, "table", "gaps.csv", GAPS.encode())
    assert (own(at).texts, own(at).labels.tolist()) == ((("w1 w2",), ("w5 w6",)), [1, 0])
    (leave_out,) = [one for one in at.checkbox if one.key.endswith("incomplete")]
    leave_out.uncheck().run()
    assert len(at.error) == 1
    at.button(key="own-data-remove").click().run()
    assert data_sources.OWN_DATA not in at.session_state
    assert at.selectbox(key="source").value == "probe"
    assert at.selectbox(key="source").options == ["probe", "hub"]
    assert not at.main.warning  # the person who removes a thing knows that it is gone


def test_a_first_row_that_is_no_header_is_told(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    rows = "a fine film,positive\na dull film,negative\nanother fine one,positive\n"
    for header, told in (("", True), ("text,mood\n", False)):
        upload(at, "table", "mine.csv", (header + rows).encode())
        assert ("'positive' is a label" in texts_of(at)) is told


def test_labels_of_another_vocabulary_are_asked_about(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", LABELLED.encode())
    before = own(at)
    upload(at, "table", "stars.csv", STARS.encode())
    for label, meaning in ("1", "negative"), ("2", "negative"), ("3", "rows left out"), ("4", "positive"):
        assert own(at) is before
        box(at, f"'{label}' means").set_value(meaning).run()
    box(at, "'5' means").set_value("positive").run()
    data = own(at)
    assert (data.name, data.labels.tolist()) == ("stars.csv", [0, 0, 1, 1] * 4)
    assert [texts[0] for texts in data.texts[:3]] == ["w0 w0", "w1 w1", "w3 w3"]
    assert at.selectbox(key="source").value == "own"
    at.switch_page("pages/routing.py").run()
    assert box(at, "'3' means").value == "rows left out"
    for label in "12345":
        box(at, f"'{label}' means").set_value("rows left out")
    at.run()
    assert len(at.error) == 1  # no row is left
    assert own(at) is data


def test_numbers_are_not_taken_for_the_labels_of_another_task(open_page, tiny_checkpoint, save_tiny):
    save_tiny("other", task="cola")
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", b"sentence,label\nw1 w2,1\nw3,0\n")
    assert own(at).labels.tolist() == [1, 0]
    at.selectbox(key="checkpoint").set_value("other").run()
    assert box(at, "Label column").value == "none"
    assert own(at).labels is None


def test_pages_work_without_labels(open_page, tiny_checkpoint):
    """The lab and Compare in tests of their own."""
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", PLAIN.encode())
    for page in ("expert_usage", "routing"):
        at.switch_page(f"pages/{page}.py").run()
        assert at.session_state["source"] == "own"
        assert "nan" not in texts_of(at).lower().split()


def test_what_an_upload_does_not_load_leaves_nothing_behind(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    for change in ({"shrp": None}, {"num_hidden_layers": 10**8}, {"num_hidden_layers": 5}):
        (tiny_checkpoint / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError) as caught:
            own_checkpoints.open_upload("x.zip", io.BytesIO(zip_of(tiny_checkpoint)))
        assert "shrp-checkpoint-" not in str(caught.value)  # the temporary folder's name
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(own_checkpoints, "MAX_UPLOAD_MB", 0)
    with pytest.raises(CheckpointError, match="at most 0 MB"):
        own_checkpoints.open_upload("x.zip", io.BytesIO(zip_of(tiny_checkpoint)))


def test_a_checkpoint_below_an_allowed_root_is_opened_by_its_path(served, open_page, tiny_checkpoint, save_tiny, tmp_path):
    (tiny_checkpoint.parent / "group").mkdir()
    deep = save_tiny("deep").rename(tiny_checkpoint.parent / "group" / "deep")
    outside = save_tiny("outside").rename(tmp_path / "outside")
    at = open_page("overview", tiny_checkpoint)
    for path, picked in (
        ("group/deep", "deep (yours)"),
        (outside, "deep (yours)"),  # refused
        ("tiny", "tiny"),  # one that is listed anyway
    ):
        opened(at).text_input(key="own-checkpoint-path").set_value(str(path)).run()
        assert at.selectbox(key="checkpoint").value == picked
        assert len(at.error) == (path == outside)
    at.selectbox(key="checkpoint").set_value("deep (yours)").run()
    at.button(key="own-checkpoint-remove-deep (yours)").click().run()
    assert deep.is_dir()  # only what was unpacked is deleted
    assert "deep (yours)" not in at.selectbox(key="checkpoint").options
    at.text_input(key="own-checkpoint-path").set_value("group/deep").run()  # the same path once more
    assert at.selectbox(key="checkpoint").value == "deep (yours)"


def test_on_localhost_any_folder_opens_as_links_and_its_labels_can_be_named(
    open_page, tiny_checkpoint, tiny_model, save_model, tmp_path, cache, monkeypatch
):
    mine = tmp_path / "mine"
    save_model(tiny_model(seed=4), mine)
    for name in ("training_args.bin", "answers.csv"):
        (mine / name).touch()
    config = mine / "config.json"
    before = config.read_text()
    at = open_page("overview", tiny_checkpoint)
    opened(at).text_input(key="own-checkpoint-path").set_value(str(mine)).run()
    assert at.selectbox(key="checkpoint").value == "mine"
    for typed, wrong in (("bad", True), ("bad, bad", True), ("negative, positive", False)):
        at.text_input(key="own-labels-mine").set_value(typed)
        at.button(key="own-labels-use").click().run()
        assert bool(at.error) == wrong
    kept = cache.parent / "models" / "mine"
    assert load(kept).info.task == SST2
    assert config.read_text() == before
    assert (kept / "model.safetensors").is_symlink()
    assert not {"training_args.bin", "answers.csv"} & {one.name for one in kept.iterdir()}
    again = open_page("overview", tiny_checkpoint, checkpoint="mine")  # after a reload
    assert again.title[0].value == "mine"
    monkeypatch.setattr(library, "wake", lambda root, **_: None)
    job = jobs.start("Convert", ["convert", "--base", str(kept.resolve())], "made")
    opened(again).button(key="own-checkpoint-remove-mine").click().run()
    assert len(again.error) == 1  # the job needs it
    assert kept.exists()
    (job.folder / "end.json").write_text('{"state": "failed"}')
    again.button(key="own-checkpoint-remove-mine").click().run()
    assert not kept.exists()
    assert (mine / "model.safetensors").is_file()


def test_a_folder_that_can_not_be_kept_leaves_nothing_behind_and_stays(tiny_checkpoint, cache):
    def full(source, target):
        if source.name == "model.safetensors":
            raise OSError(28, "No space left on device")
        shutil.copyfile(source, target)

    before = sorted(tiny_checkpoint.iterdir())
    with pytest.raises(CheckpointError, match="No space left"):
        own_checkpoints._bring(tiny_checkpoint, "mine", full)
    assert not list((cache.parent / "models").iterdir())
    assert sorted(tiny_checkpoint.iterdir()) == before


def test_no_job_is_started_on_a_model_that_goes_with_its_session(served, open_page, save_tiny, cache, monkeypatch):
    dense = save_tiny("dense", layers=())
    monkeypatch.setenv(jobs.SWITCH, "1")
    at = open_page("overview", dense)
    assert not at.button(key="convert").disabled
    upload(at, "zip", "mine.zip", zip_of(dense))
    assert at.selectbox(key="checkpoint").value == "dense (yours)"
    assert at.button(key="convert").disabled


def test_the_guide_leads_from_step_to_step_and_needs_jobs(open_page, save_tiny, cache, monkeypatch):
    example = save_tiny(guide.EXAMPLE, layers=())
    at = open_page("overview", save_tiny("mine"))
    at.button(key="guide-begin").click().run()
    assert at.selectbox(key="checkpoint").value == guide.EXAMPLE
    at.button(key="guide-end").click().run()
    assert at.selectbox(key="checkpoint").value == "mine"
    at.button(key="guide-begin").click().run()
    assert [at.button(key=f"guide-{n}").disabled for n in range(1, 6)] == [False, *[True] * 4]
    made = save_tiny("made")
    (cache.parent / "models").mkdir(parents=True)
    made.rename(cache.parent / "models" / "made")
    at.run()
    at.button(key="guide-2").click().run()
    assert at.selectbox(key="checkpoint").value == "made"
    done = [at.button(key=f"guide-{n}").proto.icon == ":material/check_circle:" for n in range(1, 6)]
    assert done == [True, True, False, False, False]
    assert at.query_params[guide.PARAM] == "on.routing"
    at.switch_page("pages/overview.py").run()
    at.button(key="guide-end").click().run()
    assert guide.PARAM not in at.query_params
    at.switch_page("pages/routing.py").run()  # which was left with the guide on
    assert guide.PARAM not in at.query_params
    assert "guide-end" not in [one.key for one in at.button]
    monkeypatch.setattr(jobs, "cache_folder", lambda: None)  # so there are no jobs
    at = open_page("overview", example, guide="on")
    assert not [one for one in at.button if one.key.startswith("guide-")]


# A task whose only known data are on the hub: nothing is loaded over the network until a person asks for it


@pytest.fixture
def asked(monkeypatch):
    """What loads from the hub, which does not answer."""
    load = Mock(side_effect=DataError("the hub does not answer"))
    monkeypatch.setattr(data_sources, "load_glue", load)
    return load


@pytest.fixture
def of_the_hub(save_tiny):
    return save_tiny("pairs", task="qnli")


@pytest.mark.parametrize("page", ["overview", "routing", "pruning_lab"])
def test_the_hub_is_never_the_default(open_page, of_the_hub, asked, page):
    at = open_page(page, of_the_hub)
    assert at.selectbox(key="source").options == ["hub"]
    assert at.selectbox(key="source").value is None
    assert not asked.called
    if page != "routing":  # which shows nothing of data
        assert "SHRP_DATA_DIR" in texts_of(at)
        at.selectbox(key="source").set_value("hub").run()
        asked.assert_called_once_with("qnli")
        assert "the hub does not answer" in texts_of(at)


def test_own_data_come_before_it_and_a_task_with_other_data_at_its_own(open_page, of_the_hub, tiny_checkpoint, asked):
    at = open_page("overview", of_the_hub)
    upload(at, "table", "mine.csv", b"question,sentence\nw1 w2,w3\nw4,w5 w6\n")
    assert at.selectbox(key="source").options == ["own", "hub"]
    assert at.selectbox(key="source").value == "own"
    at.button(key="own-data-remove").click().run()
    for checkpoint, source in (("tiny", "probe"), ("pairs", None)):
        at.selectbox(key="checkpoint").set_value(checkpoint).run()
        assert at.selectbox(key="source").value == source
    assert not asked.called
