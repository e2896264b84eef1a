"""A person's own table and own checkpoint: read, refused in words, used on every page, and taken away again."""

import gc
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st

from shrp.data.tasks import TASKS, custom_task
from shrp.errors import CheckpointError, DataError
from tests.app.helpers import texts_of, upload
from ui import data_sources, loaders
from ui.own import checkpoints as own_checkpoints
from ui.own import data as own_data
from ui.own import fit as own_fit
from ui.own import kept as own_kept
from ui.own import labels as own_labels
from ui.own import table as own_table
from ui.own.fit import Columns, fit, guess
from ui.own.table import clean_name, read_path, read_upload
from ui.state import SOURCE

SST2, MRPC = TASKS["sst2"], TASKS["mrpc"]
PLAIN = "sentence\n" + "".join(f"w{i} w{i % 7} w{i % 5}\n" for i in range(12))
LABELLED = "words,mood,kind\n" + "".join(
    f"w{i} w{i % 7} w{i % 5},{'positive' if i % 2 else 'negative'},{'odd' if i % 3 else 'even'}\n"
    for i in range(12)
)


def zip_of(folder, **extra):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"{folder.name}/{path.name}")
        for name, content in extra.items():
            archive.writestr(f"{folder.name}/{name}", content)
    return buffer.getvalue()


def said_on_reading(name, content):
    with pytest.raises(DataError) as caught:
        read_upload(name, content)
    return str(caught.value)


# ---- reading ----


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_is_read(tmp_path, suffix):
    frame = pd.DataFrame({"sentence": ["a, b", "c"], "label": ["positive", "negative"]})
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    table = read_upload(f"t.{suffix}", path.read_bytes())
    data = fit(table, SST2, guess(table, SST2))
    assert data.texts == (("a, b",), ("c",))
    assert data.labels.tolist() == [1, 0]


def test_sizes_are_checked_here_and_not_only_in_the_browser(monkeypatch, tmp_path):
    monkeypatch.setattr(own_table, "MAX_BYTES", 100)
    assert "at most" in said_on_reading("t.csv", b"sentence\n" + b"a b c\n" * 40)
    monkeypatch.undo()
    monkeypatch.setattr(own_table, "MAX_ROWS", 5)
    assert "more than 5 rows" in said_on_reading("t.csv", b"sentence\n" + b"a\n" * 6)
    for end in (b"\n", b"\r", b"\r\n"):  # each ends a line
        assert "more than 5 rows" in said_on_reading("t.jsonl", (b'{"sentence": "a"}' + end) * 6)
    assert "columns; at most" in said_on_reading(
        "t.csv", b",".join(b"c%d" % i for i in range(300)) + b"\n" + b"," * 299
    )
    monkeypatch.setattr(own_table, "_MAX_PARQUET", 1000)
    pd.DataFrame({"sentence": ["x" * 400] * 5}).to_parquet(
        tmp_path / "t.parquet"
    )  # small on disk, 2,000 in memory
    assert "unpacks to" in said_on_reading("t.parquet", (tmp_path / "t.parquet").read_bytes())
    texts = pa.array(["x" * 400] * 5)
    for column in (texts.cast(pa.large_string()), texts.dictionary_encode(), texts.cast(pa.string_view())):
        pq.write_table(pa.table({"sentence": column}), tmp_path / "t.parquet")
        assert "unpacks to" in said_on_reading("t.parquet", (tmp_path / "t.parquet").read_bytes())
    pd.DataFrame({"sentence": [["x"]]}).to_parquet(tmp_path / "t.parquet")
    assert "nested" in said_on_reading("t.parquet", (tmp_path / "t.parquet").read_bytes())


def test_what_could_be_huge_once_it_is_read_is_refused_by_its_type(tmp_path):
    """Bytes are packed as texts are, and a few hundred bytes of a file may unpack to terabytes of them."""
    large = pa.array([b"\0" * 1000] * 50, pa.binary())
    for kind in (pa.binary(), pa.large_binary(), pa.binary(1000)):
        table = pa.table({"sentence": ["a"] * 50, "picture": large.cast(kind)})
        pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
        said = said_on_reading("t.parquet", (tmp_path / "t.parquet").read_bytes())
        assert "The column 'picture' of 't.parquet' holds values of type" in said
    plain = {"sentence": ["a"], "n": [1], "x": [0.5], "yes": [True], "on": [pd.Timestamp("2020-01-01")]}
    pq.write_table(pa.table(plain), tmp_path / "t.parquet")
    assert list(read_upload("t.parquet", (tmp_path / "t.parquet").read_bytes()).frame) == list(plain)


def test_a_table_with_slices_has_the_scores_of_the_same_one_without():
    table = read_upload("t.csv", b"sentence,slice,label\na,x,1\nb,y,0\n")
    sliced = fit(table, SST2, Columns(("sentence",), "label", "slice"))
    plain = fit(table, SST2, Columns(("sentence",), "label", None))
    assert sliced.slices == ("x", "y")
    assert sliced.source_fingerprint == plain.fingerprint != sliced.fingerprint


def test_a_folder_that_cannot_be_looked_into_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setenv(own_table.DATA_ROOTS, str(tmp_path))

    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(DataError, match=r"'shut/t\.csv' can't be read: Permission denied"):
        own_table.read_path("shut/t.csv")


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("../../etc/x.csv", "x.csv"),
        ("C:\\me\\x.csv", "x.csv"),
        ("a\nb\0.csv", "ab.csv"),
        ("é" * 300 + ".csv", "é" * 50 + ".csv"),
    ],
)
def test_an_uploads_name_is_cleaned(name, clean):
    assert clean_name(name) == clean


def test_a_path_is_read_below_the_allowed_folders_only(tmp_path, monkeypatch):
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed, other):
        folder.mkdir()
        (folder / "t.csv").write_text(PLAIN)
    (allowed / "out.csv").symlink_to(other / "t.csv")
    monkeypatch.delenv("SHRP_DATA_DIR", raising=False)
    monkeypatch.setenv("SHRP_DATA_ROOTS", str(allowed))
    assert len(read_path("t.csv").frame) == len(read_path(str(allowed / "t.csv")).frame) == 12
    for outside in ("../other/t.csv", str(other / "t.csv"), "out.csv", "/etc/passwd", "a\0b"):
        with pytest.raises(DataError, match="is not under"):
            read_path(outside)
    with pytest.raises(DataError, match="no file"):
        read_path("u.csv")
    monkeypatch.setenv("SHRP_DATA_DIR", str(other))
    assert len(read_path(str(other / "t.csv")).frame) == 12


# ---- what the columns are for ----


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ("review,mood\nSo good.,positive\nSo bad.,negative\n", "mood"),
        ("review,mood\nSo good.,positive\nSo bad.,mixed\n", None),  # not a class
        ("review,a,b\nSo good.,positive,negative\nSo bad.,negative,negative\n", None),  # either may be meant
        ("review,mood,label\nSo good.,positive,1\nSo bad.,negative,0\n", "label"),
        ("review,seen\nSo good.,1\nSo bad.,0\n", None),  # ids may be anything
    ],
)
def test_a_column_of_class_names_is_guessed_to_be_the_label(rows, label):
    assert guess(read_upload("t.csv", rows.encode()), SST2) == Columns(("review",), label, None)


def test_columns_are_guessed():
    table = read_upload("t.csv", b"id,label,remark,review\n1,0,no,a long one\n2,1,yes,another long one\n")
    assert guess(table, SST2) == Columns(("review",), "label", None)
    assert guess(read_upload("t.csv", b"n,a,b,slice\n1,some words,more words,x\n"), MRPC).texts == ("a", "b")
    assert guess(read_upload("t.csv", PLAIN.encode()), SST2) == Columns(("sentence",), None, None)
    rated = read_upload("t.csv", b"sentence,label,mood\na,x,1.5\nb,y,2\n")
    numbers = replace(TASKS["stsb"], name="rated", text_columns=("sentence",))
    assert guess(rated, numbers).label == "label"
    assert guess(rated, replace(numbers, label_column="mood")).label == "label"  # as the command line has it
    own = read_upload("t.csv", b"sentence,slice,mood\na,1,1.5\nb,2,2\n")
    assert guess(own, replace(numbers, label_column="mood")).label == "mood"  # as in the training's file
    found = guess(own, replace(numbers, label_column="slice"))
    assert (found.label, found.slice) == ("slice", None)


def test_what_does_not_fit_is_refused(monkeypatch):
    table = read_upload("t.csv", b"sentence,label\na,positive\nb,great\n")
    for columns, said in (
        (Columns(("sentence",), "label", None), "row 2: the label 'great'"),
        (Columns(("sentence",), "sentence", None), "can't be a text"),
        (Columns(("other",), None, None), "no column 'other'"),
    ):
        with pytest.raises(DataError, match=said):
            fit(table, SST2, columns)
    with pytest.raises(DataError, match="as many different columns"):
        fit(table, MRPC, Columns(("sentence", "sentence"), None, None))
    with pytest.raises(DataError, match="row 2, column 'sentence': the text is empty"):
        fit(read_upload("t.csv", b"sentence,x\na,1\n ,2\n"), SST2, Columns(("sentence",), None, None))
    long = read_upload("t.csv", b"sentence,slice\na,x\nb," + b"y" * 201 + b"\n")
    with pytest.raises(DataError, match="a value of 201 characters; names of slices have 200 at most"):
        fit(long, SST2, Columns(("sentence",), None, "slice"))
    monkeypatch.setattr(own_fit, "MAX_CHARACTERS", 3)
    with pytest.raises(DataError, match="row 1: a text has 4 characters"):
        fit(read_upload("t.csv", b"sentence\nabcd\n"), SST2, Columns(("sentence",), None, None))


# ---- in the app ----


def test_a_table_is_uploaded_used_replaced_and_removed(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", LABELLED.encode())
    assert not at.exception
    assert at.selectbox(key="source").value == "own"
    assert "mine.csv" in at.markdown[0].value.replace("\\", "")

    def boxes():
        return {box.label: box for box in at.sidebar.selectbox}

    assert boxes()["Text column"].value == "words"
    assert boxes()["Label column"].value == "mood"  # it holds nothing but names of the classes
    boxes()["Label column"].set_value("none").run()
    assert at.session_state[data_sources.OWN_DATA].labels is None
    assert not at.metric
    assert any("the text" in frame.value for frame in at.dataframe)  # answered all the same
    boxes()["Label column"].set_value("mood")
    boxes()["Slice column"].set_value("kind")
    at.run()
    assert "12 inputs, with labels" in texts_of(at)
    data = at.session_state[data_sources.OWN_DATA]
    assert data.labels.tolist() == [i % 2 for i in range(12)]
    assert set(data.slices) == {"odd", "even"}
    assert "n = 12" in texts_of(at)

    at.selectbox(key="source").set_value("probe").run()
    upload(at, "table", "again.csv", LABELLED.encode())  # the same under another name
    assert at.selectbox(key="source").value == "own"
    assert at.session_state[data_sources.OWN_DATA].name == "again.csv"
    upload(at, "table", "mine.csv", LABELLED.encode())
    data = at.session_state[data_sources.OWN_DATA]

    upload(at, "table", "broken.csv", b"\xff\xfe")
    assert len(at.sidebar.error) == 1
    assert at.session_state[data_sources.OWN_DATA] is data
    assert at.selectbox(key="source").value == "own"

    upload(at, "table", "unfit.csv", b"sentence,label\na b,\n")
    assert len(at.sidebar.error) == 1
    assert at.session_state[data_sources.OWN_DATA] is data

    at.button(key="own-data-remove").click().run()
    assert not at.exception
    assert data_sources.OWN_DATA not in at.session_state
    assert at.selectbox(key="source").value == "probe"
    assert at.selectbox(key="source").options == ["probe", "hub"]
    assert "The address asks" not in texts_of(at)  # whoever removes a thing knows that it is gone


def test_the_columns_that_were_chosen_come_back_with_their_task(open_page, tiny_checkpoint, save_tiny):
    save_tiny("pairs", task="mrpc")
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", LABELLED.encode())

    def box(label):
        return next(box for box in at.sidebar.selectbox if box.label == label)

    box("Text column").set_value("kind")
    box("Label column").set_value("mood").run()
    at.selectbox(key="checkpoint").set_value("pairs").run()
    assert box("Label column").value == "none"  # the other task starts at its own guess
    at.switch_page("pages/routing.py").run()
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert not at.exception
    assert (box("Text column").value, box("Label column").value) == ("kind", "mood")
    assert at.session_state[data_sources.OWN_DATA].texts[0] == ("even",)


def test_labels_that_are_numbers_are_said_to_be_the_ids_of_which_classes(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "named.csv", b"sentence,label\na b,positive\nc d,negative\n")
    assert "class ids" not in texts_of(at)
    upload(at, "table", "numbered.csv", b"sentence,label\na b,1\nc d,0\n")
    assert not at.exception
    assert "Its labels are taken for class ids: 0 is negative, 1 is positive." in texts_of(at)
    next(box for box in at.sidebar.selectbox if box.label == "Label column").set_value("none").run()
    assert "class ids" not in texts_of(at)


GAPS = "sentence,label,slice\nw1 w2,positive,a\n,negative,b\nw3 w4,,c\n  ,positive,d\nw5 w6,negative,e\n"
GAPS += "w7 w8,positive,f\n"


def test_rows_without_a_text_or_a_label_can_be_left_out(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "gaps.csv", GAPS.encode())
    assert not at.exception
    data = at.session_state[data_sources.OWN_DATA]
    assert data.texts == (("w1 w2",), ("w5 w6",), ("w7 w8",))
    assert data.labels.tolist() == [1, 0, 1]
    assert data.slices == ("a", "e", "f")
    (box,) = [box for box in at.sidebar.checkbox if box.key.endswith("-incomplete")]
    box.uncheck().run()
    assert len(at.sidebar.error) == 1
    box.check().run()
    box = next(box for box in at.sidebar.selectbox if box.label == "Label column")
    box.set_value("none").run()  # a label is no longer needed
    assert [box.label for box in at.sidebar.checkbox] == ["Leave out 2 rows without a text"]
    assert len(at.session_state[data_sources.OWN_DATA]) == 4


STARS = "sentence,label\n" + "".join(f"w{i} w{i % 7},{i % 5 + 1}\n" for i in range(20))


def test_labels_of_another_vocabulary_are_asked_about(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", LABELLED.encode())
    before = at.session_state[data_sources.OWN_DATA]
    upload(at, "table", "stars.csv", STARS.encode())
    assert not at.exception
    assert "say what each label means, or take no label column. Until then 'mine.csv' stays" in texts_of(at)
    assert at.session_state[data_sources.OWN_DATA] is before

    def box(label):
        return next(box for box in at.sidebar.selectbox if box.label == f"'{label}' means")

    for label, meaning in ("1", "negative"), ("2", "negative"), ("3", "rows left out"), ("4", "positive"):
        box(label).set_value(meaning).run()
        assert at.session_state[data_sources.OWN_DATA] is before
    box("5").set_value("positive").run()
    assert not at.exception
    data = at.session_state[data_sources.OWN_DATA]
    assert data.name == "stars.csv"
    assert data.labels.tolist() == [0, 0, 1, 1] * 4
    assert [texts[0] for texts in data.texts[:3]] == ["w0 w0", "w1 w1", "w3 w3"]
    assert at.selectbox(key="source").value == "own"
    assert "4 of 20 rows are left out" in texts_of(at)
    assert "n = 16" in texts_of(at)
    at.switch_page("pages/routing.py").run()
    assert box("3").value == "rows left out"

    for label in "12345":
        box(label).set_value("rows left out")
    at.run()
    assert "no row is left: every label is to be left out" in texts_of(at)
    assert at.session_state[data_sources.OWN_DATA] is data


def test_another_spelling_of_the_classes_is_guessed(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", b"sentence,label\n" + b"w1 w2,Pos\nw3,NEGATIVE\n" * 3)
    assert not at.exception
    assert at.session_state[data_sources.OWN_DATA].labels.tolist() == [1, 0] * 3
    assert at.selectbox(key="source").value == "own"


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("Positive", "positive"),
        ("pos", "positive"),
        (" NEG ", "negative"),
        *((other, None) for other in ("po", "", "1", "negatively")),
        ("good", "positive"),
        ("Bad", "negative"),
    ],
)
def test_what_a_label_probably_means(label, meaning):
    assert own_labels.guess(label, SST2) == meaning


def test_a_column_of_many_labels_is_refused_and_not_asked_about():
    table = read_upload("t.csv", b"sentence,label\n" + b"".join(b"w,l%d\n" % i for i in range(13)))
    assert own_labels.unknown(table.frame["label"].tolist(), SST2, "t.csv") == []
    with pytest.raises(DataError, match="row 1: the label 'l0' is not among"):
        fit(table, SST2, Columns(("sentence",), "label", None))


def test_another_session_sees_nothing_of_it(open_page, tiny_checkpoint):
    upload(open_page("overview", tiny_checkpoint), "table", "mine.csv", PLAIN.encode())
    other = open_page("overview", tiny_checkpoint, source="own")
    assert "asks for the data source own, which is not here" in texts_of(other).replace("**", "")
    assert other.selectbox(key="source").options == ["probe", "hub"]
    assert "mine.csv" not in texts_of(other)


@pytest.mark.parametrize("page", ["expert_usage", "routing", "pruning_lab", "compare"])
def test_every_page_works_without_labels(open_page, tiny_checkpoint, page):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", PLAIN.encode())
    at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    assert at.session_state["source"] == "own"
    said = texts_of(at)
    assert "nan" not in said.lower().split()
    if page in ("pruning_lab", "compare"):
        assert "no labels" in said
    if page == "pruning_lab":
        assert re.search(r"for \d+ of \d+ examples", said)


@pytest.fixture
def moods(save_tiny, monkeypatch, tmp_path):
    """Folders of a checkpoint of a task of one's own, and of data."""
    monkeypatch.setitem(TASKS, "moods", custom_task("moods", ("remark",), ("bad", "good")))
    folder = save_tiny("custom", task="moods")
    monkeypatch.delitem(TASKS, "moods")
    (tmp_path / "data" / "moods").mkdir(parents=True)
    return folder, tmp_path / "data"


def test_data_of_a_task_of_ones_own_may_lie_in_the_data_folder(open_page, moods):
    folder, data = moods
    rows = "w1 w2 w3,good,x\nw4 w5,bad,y\n" * 4
    (data / "moods" / "validation.csv").write_text(f"remark,label,slice\n{rows}")
    at = open_page("expert_usage", folder, data_dir=data)
    assert not at.exception
    assert at.selectbox(key="source").value == "folder"
    assert "on validation.csv" in texts_of(at)
    assert {"class: good", "slice: x"} <= set(at.selectbox(key="group").options)
    upload(at, "table", "mine.csv", b"remark,label\nw1 w2,good\nw3,bad\n")
    assert "on mine.csv" in texts_of(at)
    at.selectbox(key="source").set_value("folder").run()
    assert "on validation.csv" in texts_of(at)


def test_the_label_column_of_data_in_the_folder_may_have_another_name(open_page, moods):
    folder, data = moods
    (data / "moods" / "validation.csv").write_text("remark,mood,pair\nw1 w2,good,a\nw3,bad,a\nw4 w5,bad,\n")
    at = open_page("expert_usage", folder, data_dir=data)
    assert not at.exception
    assert {"class: good", "outcome: right"} <= set(at.selectbox(key="group").options)
    assert "class: bad" in at.selectbox(key="group").options


@pytest.mark.parametrize("name", ["..", "", ".", "../data", "a/b", "sst2", "moods\0", "\ud800"])
def test_no_tasks_name_leads_out_of_the_data_folder(name, tmp_path, monkeypatch):
    for place in (tmp_path, tmp_path / "data", tmp_path / "data" / "a" / "b", tmp_path / "data" / "sst2"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "validation.csv").write_text("sentence\nw1\n")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    task = replace(custom_task("moods", ("sentence",), ("bad", "good")), name=name)
    assert data_sources.available_sources(task) == {}
    assert not data_sources.may_lie_in_folder(task)


def test_a_checkpoint_is_uploaded_replaced_and_removed(
    open_page, tiny_checkpoint, save_tiny, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(
        own_checkpoints.TemporaryFolder, "__init__", _noting(own_checkpoints.TemporaryFolder.__init__, made)
    )
    at = open_page("overview", tiny_checkpoint)
    elsewhere = save_tiny("static elsewhere", routing="token").rename(tmp_path / "mine")
    upload(at, "zip", "archive.zip", zip_of(elsewhere))
    assert not at.exception
    assert at.title[0].value.replace("\\", "") == "mine (yours)"
    assert at.selectbox(key="checkpoint").value == "mine (yours)"
    assert (made[0] / "config.json").is_file()

    for content in (
        b"no zip",
        zip_of(elsewhere)[:-40],
    ):
        upload(at, "zip", "bad.zip", content)
        assert len(at.sidebar.error) == 1
        assert at.selectbox(key="checkpoint").value == "mine (yours)"
    assert (made[0] / "config.json").is_file()
    assert not any(path.exists() for path in made[1:])

    upload(at, "zip", "again.zip", zip_of(elsewhere))
    assert at.selectbox(key="checkpoint").value == "mine (yours)"
    assert not made[0].exists()
    assert made[-1].is_dir()

    at.query_params["checkpoint"] = "mine (yours)"  # where the browser's address still is
    at.button(key="own-checkpoint-remove-mine (yours)").click().run()
    assert not at.exception
    assert at.selectbox(key="checkpoint").value == "tiny"
    assert not made[-1].exists()
    assert "is not here" not in texts_of(at)  # the person took it away


@pytest.mark.parametrize("given", ["an upload", "a path"])
def test_whoever_touches_something_while_it_is_read_loses_nothing(
    open_page, tiny_checkpoint, save_tiny, monkeypatch, given
):
    """Streamlit stops a run for the next one, wherever it is."""
    (tiny_checkpoint.parent / "group").mkdir()
    mine = save_tiny("mine", routing="token").rename(tiny_checkpoint.parent / "group" / "mine")
    at = open_page("overview", tiny_checkpoint)
    load, stopped = loaders.load_folder, []

    def stop_once(folder):
        if not stopped:
            stopped.append(folder)
            st.stop()
        return load(folder)

    monkeypatch.setattr(loaders, "load_folder", stop_once)
    if given == "a path":
        at.text_input(key="own-checkpoint-path").set_value("group/mine").run()
    else:
        upload(at, "zip", "mine.zip", zip_of(mine))
    assert len(stopped) == 1
    at.run()
    assert not at.exception
    assert at.selectbox(key="checkpoint").value.startswith("mine")
    if given == "an upload":  # what was unpacked first is gone
        gc.collect()
        assert not stopped[0].exists()


def test_several_uploads_stay_beside_each_other_up_to_a_number(
    open_page, tiny_checkpoint, save_tiny, monkeypatch
):
    made = []
    monkeypatch.setattr(
        own_checkpoints.TemporaryFolder, "__init__", _noting(own_checkpoints.TemporaryFolder.__init__, made)
    )
    at = open_page("overview", tiny_checkpoint)
    for name in ("one", "two", "three"):
        upload(at, "zip", "x.zip", zip_of(save_tiny(name, routing="token")))
    names = [f"{name} (yours)" for name in ("one", "two", "three")]
    assert [name for name in at.selectbox(key="checkpoint").options if "yours" in name] == names
    assert all(path.is_dir() for path in made)
    upload(at, "zip", "x.zip", zip_of(save_tiny("four", routing="token")))
    assert not at.exception
    assert at.selectbox(key="checkpoint").value == "four (yours)"
    assert [path.is_dir() for path in made] == [False, True, True, True]
    assert "one (yours)" not in at.selectbox(key="checkpoint").options
    assert "one (yours) was let go: the last 3 stay loaded." in texts_of(at)


def _noting(init, made):
    def wrapped(self):
        init(self)
        made.append(self.path)

    return wrapped


def test_a_temporary_folder_goes_with_whoever_holds_it():
    folder = own_checkpoints.TemporaryFolder()
    path = folder.path
    assert path.is_dir()
    del folder
    gc.collect()
    assert not path.exists()


def test_what_an_upload_does_not_load_leaves_nothing_behind(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    for change, said in (
        ({"shrp": None}, 'no "shrp" section'),
        ({"num_hidden_layers": 10**8}, "num_hidden_layers that is not a number from 0 to 256"),
        ({"num_hidden_layers": 5}, "does not fit its config.json"),
    ):
        (tiny_checkpoint / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError) as caught:
            own_checkpoints.open_upload("x.zip", io.BytesIO(zip_of(tiny_checkpoint)))
        assert said in str(caught.value)
        assert "shrp-checkpoint-" not in str(
            caught.value
        )  # the temporary folder is not the reader's business
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(own_checkpoints, "MAX_UPLOAD_MB", 0)
    with pytest.raises(CheckpointError, match="at most 0 MB"):
        own_checkpoints.open_upload("x.zip", io.BytesIO(zip_of(tiny_checkpoint)))


def test_a_checkpoint_below_an_allowed_root_is_opened_by_its_path(
    open_page, tiny_checkpoint, save_tiny, tmp_path
):
    deep = save_tiny("deep")
    (tiny_checkpoint.parent / "group").mkdir()
    deep = deep.rename(tiny_checkpoint.parent / "group" / "deep")
    outside = save_tiny("outside").rename(tmp_path / "outside")
    at = open_page("overview", tiny_checkpoint)
    at.text_input(key="own-checkpoint-path").set_value("group/deep").run()
    assert not at.exception
    assert at.selectbox(key="checkpoint").value == "deep (yours)"
    at.text_input(key="own-checkpoint-path").set_value(str(outside)).run()
    assert "is not under" in texts_of(at)
    assert at.selectbox(key="checkpoint").value == "deep (yours)"
    at.text_input(key="own-checkpoint-path").set_value("tiny").run()  # one that is listed anyway
    assert at.selectbox(key="checkpoint").value == "tiny"
    at.button(key="own-checkpoint-remove-deep (yours)").click().run()
    assert deep.is_dir()  # only what was unpacked is deleted
    assert "deep (yours)" not in at.selectbox(key="checkpoint").options
    assert at.text_input(key="own-checkpoint-path").value == ""
    at.text_input(key="own-checkpoint-path").set_value("group/deep").run()  # the same path once more
    assert at.selectbox(key="checkpoint").value == "deep (yours)"
    assert (
        at.button(key="own-checkpoint-remove-deep (yours)").label.replace("\\", "") == "Remove deep (yours)"
    )


def test_own_data_come_back_with_a_checkpoint_of_their_task(
    open_page, tiny_checkpoint, save_tiny, monkeypatch
):
    save_tiny("other", task="cola")
    save_tiny("with the hub alone", task="rte")
    sources_of = data_sources.available_sources
    monkeypatch.setattr(
        data_sources,
        "available_sources",
        lambda task: {data_sources.HUB: "hub"} if task.name == "rte" else sources_of(task),
    )
    at = open_page("overview", tiny_checkpoint)
    rows = "".join(f"w{i} w1,{'positive' if i % 2 else 'negative'}\n" for i in range(12))
    upload(at, "table", "mine.csv", f"sentence,label\n{rows}".encode())

    def switch(checkpoint, pick=None):
        at.selectbox(key="checkpoint").set_value(checkpoint).run()
        if pick is not None:
            at.selectbox(key="source").set_value(pick).run()
        assert not at.exception
        return at.selectbox(key="source").value

    assert switch("tiny") == "own"
    assert switch("other") == "probe"  # where their labels name no classes
    assert switch("tiny") == "own"
    assert switch("with the hub alone") is None
    assert switch("other") == "probe"
    assert switch("tiny") == "own"
    assert switch("tiny", "probe") == "probe"
    switch("other")
    assert switch("tiny") == "probe"  # which was picked
    assert switch("tiny", "own") == "own"
    assert switch("other", "hub") == "hub"
    assert switch("tiny") != "own"  # likewise


NUMBERED = "review,mood\nw1 w2,good\nw3,bad\nw4 w5,good\n,bad\n"


def test_an_upload_is_used_at_once_with_labels_and_gaps_as_guessed(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", NUMBERED.replace("review,mood", "review,label").encode())
    assert not at.exception
    data = at.session_state[data_sources.OWN_DATA]
    assert len(data) == 3
    assert [data.task.label_names[label] for label in data.labels] == ["positive", "negative", "positive"]
    assert at.selectbox(key=SOURCE).value == data_sources.OWN


def test_a_reload_brings_the_table_and_its_columns_back(open_page, tiny_checkpoint, cache):
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", NUMBERED.encode())
    (label,) = (box for box in at.sidebar.selectbox if box.key.endswith("-label"))
    label.set_value("mood").run()
    assert not at.exception
    asked = {name: at.query_params[name] for name in (own_kept.PARAM, SOURCE)}
    again = open_page("expert_usage", tiny_checkpoint, **asked)
    assert not again.exception
    found, before = (one.session_state[data_sources.OWN_DATA] for one in (again, at))
    assert found.fingerprint == before.fingerprint
    assert again.selectbox(key=SOURCE).value == data_sources.OWN
    own_remove = again.button(key="own-data-remove")
    own_remove.click().run()
    assert own_kept.PARAM not in again.query_params
    assert data_sources.OWN_DATA not in open_page("overview", tiny_checkpoint, **asked).session_state


@pytest.mark.parametrize("asked", ["../../etc", "0" * 16, "ABCDEF0123456789"])
def test_an_address_names_no_other_file(open_page, tiny_checkpoint, cache, asked):
    at = open_page("overview", tiny_checkpoint, own=asked)
    assert not at.exception
    assert data_sources.OWN_DATA not in at.session_state


def test_nothing_is_kept_where_others_are_served(open_page, tiny_checkpoint, cache, monkeypatch):
    monkeypatch.setattr(own_kept, "is_local", lambda: False)
    at = open_page("overview", tiny_checkpoint)
    upload(at, "table", "mine.csv", PLAIN.encode())
    assert not at.exception
    assert own_kept.PARAM not in at.query_params


def test_no_table_locks_a_session(open_page, tiny_checkpoint, monkeypatch):
    """Whatever goes wrong with its content, it can be removed, and the page goes on."""

    def fail(*_):
        raise UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed")

    at = open_page("overview", tiny_checkpoint)
    monkeypatch.setattr(own_data, "complete", fail)
    upload(at, "table", "mine.csv", PLAIN.encode())
    assert not at.exception
    assert len(at.sidebar.error) == 1
    at.button(key="own-data-remove").click().run()
    assert not at.exception
    assert not at.sidebar.error


def test_other_hosts_names_are_refused():
    from streamlit import config
    from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

    config.get_config_options(force_reparse=True)
    assert all(is_host_allowed(f"{host}:8501") for host in ("localhost", "127.0.0.1", "[::1]"))
    assert not any(is_host_allowed(host) for host in ("evil.example", "127.0.0.1.evil.example", None))
