import json
import sys
import types
from dataclasses import replace
from decimal import Decimal
from functools import partial
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from shrp.data import sources, tabular
from shrp.data.batching import bucketed_batches
from shrp.data.sources import (
    foreign_labels,
    infer_task,
    load_data,
    load_file,
    load_glue,
    load_probe,
    parse_labels,
)
from shrp.data.tasks import TASKS, TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import ColumnError, DataError, RowError

SST2 = TASKS["sst2"]


def made(labels, task=SST2, **more):
    return TextData(task, "made", tuple((f"text {i}",) for i in range(len(labels))), np.array(labels), **more)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Text data


def test_every_prefix_of_the_order_is_class_balanced():
    labels = np.repeat([0, 1], [900, 100])
    order = made(labels).stratified_order(seed=3)
    assert sorted(order) == list(range(1000))
    positives = np.cumsum(labels[order])
    due = np.arange(1, 1001) * 0.1
    assert np.abs(positives - due).max() <= 2
    assert not np.array_equal(order, made(labels).stratified_order(seed=4))
    assert np.array_equal(order, made(labels).stratified_order(seed=3))


def test_fingerprint_is_of_the_content():
    data = made([0, 1, 1])
    assert data.fingerprint == made([0, 1, 1]).fingerprint
    others = [made([0, 1, 0]), made([0, 1]), made([0, 1, 1], slices=("a", "b", "c"))]
    others.append(TextData(SST2, "made", data.texts, None))
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


# GLUE and probes


def test_glue_from_a_folder_keeps_texts_exactly(tmp_path, monkeypatch):
    (tmp_path / "sst2").mkdir()
    frame = pd.DataFrame({"sentence": ["good , really ", "null"], "label": [1, 0], "idx": [0, 1]})
    frame.to_parquet(tmp_path / "sst2" / "validation.parquet")
    monkeypatch.setenv(sources.DATA_DIR, str(tmp_path))
    data = load_data("glue", SST2)
    assert data.texts == (("good , really ",), ("null",))
    assert (data.labels.tolist(), data.name) == ([1, 0], "glue/sst2 validation")
    for task, split in (("sst2", "train"), ("sst2", "test"), ("nope", "validation")):
        with pytest.raises(DataError):
            load_glue(task, split)


@pytest.mark.parametrize(("online", "offline_seen"), [(True, False), (False, True)])
def test_hub_is_asked_for_the_matched_split_and_its_mode_restored(monkeypatch, online, offline_seen):
    """Without a network it is asked for what it has on this disk, so that nobody waits."""
    calls = []
    config = types.SimpleNamespace(HF_HUB_OFFLINE=False, HF_ENDPOINT="x")

    def load_dataset(*args, split):
        calls.append((*args, split, config.HF_HUB_OFFLINE))
        if args[1] == "rte":
            raise ConnectionError("offline")
        frame = pd.DataFrame({"premise": ["a"], "hypothesis": [""], "label": [2]})
        return types.SimpleNamespace(to_pandas=lambda: frame)

    fake = types.SimpleNamespace(config=config, load_dataset=load_dataset, exceptions=None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.delenv(sources.DATA_DIR, raising=False)
    monkeypatch.setattr(sources, "_reachable", lambda url: online)
    data = load_glue("mnli")
    assert calls == [("nyu-mll/glue", "mnli", "validation_matched", offline_seen)]
    assert config.HF_HUB_OFFLINE is False
    assert data.texts == (("a", ""),)  # GLUE has a few empty texts of its own.
    with pytest.raises(DataError):
        load_glue("rte")


def test_probes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PROBES", tmp_path)
    with pytest.raises(DataError):
        load_probe("cola")
    write(tmp_path / "sst2.jsonl", '{"sentence": "Not bad.", "label": 1, "slice": "negation"}\n')
    data = load_data("probe", "sst2")
    assert (data.texts, data.labels.tolist(), data.slices) == ((("Not bad.",),), [1], ("negation",))
    assert data.name == "probe/sst2"
    for task in ("../sst2", None):
        with pytest.raises(DataError):
            load_data("probe", task)


# Files


def test_tsv_is_read_without_quoting_and_a_byte_order_mark_is_no_text(tmp_path):
    path = write(tmp_path / "a.tsv", b'\xef\xbb\xbfsentence\tlabel\nan "open quote\t1\n"all quoted"\t0\n')
    assert load_file(path, "sst2").texts == (('an "open quote',), ('"all quoted"',))


def test_task_is_made_of_the_labels(tmp_path):
    path = write(tmp_path / "moods.csv", "text,label,kind\na,sad,x\nb,happy,y\nc,sad,x\n")
    data = load_file(path, slice_column="kind")
    assert data.task.label_names == ("happy", "sad")
    assert data.task.name == "moods"
    assert (data.labels.tolist(), data.slices) == ([1, 0, 1], ("x", "y", "x"))
    write(path, "text,label,kind\na,sad,x\nb,happy,\n")
    assert load_file(path, slice_column="kind").slices == ("x", "(no name)")
    path = write(tmp_path / "stars.csv", "text,label\na,10\nb,2\nc,2.0\n")
    assert load_file(path).task.label_names == ("2", "10")
    path = write(tmp_path / "scores.csv", "left,right,y\na,x,0.5\nb,y,2\n")
    data = load_file(path, text_columns=["left", "right"], label_column="y")
    assert data.task.is_regression
    assert data.labels.tolist() == [0.5, 2.0]
    assert data.texts == (("a", "x"), ("b", "y"))


def test_ids_names_and_json_kinds_of_labels_agree(tmp_path):
    lines = [{"sentence": "a", "label": label} for label in (1, "0", 1.0, True)]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert load_file(path, "sst2").labels.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["9007199254740993", "9007199254740992"], ("9007199254740992", "9007199254740993")),
        (["1e3", "1000"], ("1000", "1e3")),
        (["1_0", "10"], ("10", "1_0")),
        (["2", "+2.00", " 2", "-0", "007"], ("0", "2", "7")),
        (["1" * 5000, "2"], ("1" * 5000, "2")),
        ([2**53, 2**53 + 1, 2.0, True], ("1", "2", str(2**53), str(2**53 + 1))),
        ([10**400, 3], (f"1{'0' * 400}", "3")),
    ],
)
def test_labels_that_differ_stay_apart_and_whole_numbers_agree(cells, names):
    task = infer_task(cells, "own", ["text"], "a.csv")
    assert task.label_names == names
    assert len(set(parse_labels(cells, task, "a.csv").tolist())) == len(names)


@pytest.mark.parametrize("cell", [{"x": 1}, [1], float("inf"), pd.NaT])
def test_what_can_be_no_label_is_refused(cell):
    with pytest.raises(DataError):
        infer_task(["a", cell], "own", ["text"], "a.jsonl")


@pytest.mark.parametrize("odd", ["nan", "N/A", "None", "inf", "?"])
def test_what_says_that_it_is_missing_makes_no_classes_of_numbers(odd):
    for numbers in (["0.5", "1.25", "3"], ["1", "2", "3"]):
        with pytest.raises(DataError, match="row 4"):
            infer_task([*numbers, odd], "own", ["text"], "a.csv")
    assert infer_task(["good", odd], "own", ["text"], "a.csv").num_labels == 2  # no number is among them


def test_many_numbers_and_a_word_are_no_classes_but_few_may_be():
    many = [str(n / 8) for n in range(30)]
    with pytest.raises(DataError):
        infer_task([*many, "broken"], "own", ["text"], "a.csv")
    assert infer_task(["0", "1", "other"], "own", ["text"], "a.csv").num_labels == 3
    codes = [*map(str, range(100, 130)), "7B"]
    assert infer_task(codes, "own", ["text"], "a.csv").num_labels == 31


def test_the_label_column_of_one_s_own_task_is_remembered(tmp_path):
    path = write(tmp_path / "a.csv", "text,mood\nx,bad\ny,good\n")
    task = load_file(path, label_column="mood").task
    assert task.label_column == "mood"
    assert Task.from_dict(task.to_dict()) == task
    assert Task.from_dict(task.to_dict()).label_column == "mood"
    assert load_file(path, task).labels.tolist() == [0, 1]
    assert load_file(write(tmp_path / "b.csv", "text,label\nx,good\n"), task).labels.tolist() == [1]
    assert load_file(write(tmp_path / "c.csv", "text\nx\n"), task).labels is None
    assert "label_column" not in TASKS["sst2"].to_dict()


# Batches


def test_training_batches_are_a_permutation_set_by_the_seed_alone():
    lengths = np.random.default_rng(0).integers(3, 100, size=1003)
    batches = bucketed_batches(lengths, 8, shuffle_seed=(1, 0))
    assert sorted(i for batch in batches for i in batch) == list(range(1003))
    assert sorted(len(batch) for batch in batches) == [3] + [8] * 125
    assert batches == bucketed_batches(lengths, 8, shuffle_seed=(1, 0))
    assert batches != bucketed_batches(lengths, 8, shuffle_seed=(1, 1))
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 5  # Unsorted batches of 8 spread over about 75.


def test_evaluation_batches_are_sorted_by_length():
    assert bucketed_batches([5, 1, 3, 1], 3) == [[1, 3, 2], [0]]
    assert bucketed_batches([], 3) == []


# Labels of another vocabulary


def test_labels_of_another_vocabulary_get_a_meaning(tmp_path):
    path = write(tmp_path / "mine.csv", "sentence,label,kind\na,good,x\nb,so so,y\nc,bad,z\nd,positive,x\n")
    meanings = {"good": "positive", "bad": "negative", "so so": None}
    data = load_file(path, "sst2", slice_column="kind", meanings=meanings)
    assert data.texts == (("a",), ("c",), ("d",))
    assert data.labels.tolist() == [1, 0, 1]
    assert data.slices == ("x", "z", "x")
    assert data.name == "mine.csv"


def test_numbers_mean_what_is_said_and_not_ids(tmp_path):
    path = write(tmp_path / "mine.csv", "sentence,label\na,1\nb,2.0\nc,1\n")
    assert load_file(path, "sst2", meanings={"1": "negative", "2": "positive"}).labels.tolist() == [0, 1, 0]
    cells = pd.read_csv(path)["label"].tolist()
    assert foreign_labels(cells, SST2, "mine.csv") == ["1", "2"]
    assert foreign_labels([0, 1, "1"], SST2, "mine.csv") == []
    assert foreign_labels(["negative"], SST2, "mine.csv") == []
    assert foreign_labels(["negative", "1"], SST2, "mine.csv") == ["negative", "1"]
    assert foreign_labels([3.5], TASKS["stsb"], "mine.csv") == []


def test_what_is_left_out_may_lack_a_text_or_be_no_number(tmp_path):
    path = write(tmp_path / "mine.csv", "sentence,label\na,1.5\n,skip\nb,N/A\nc,2\n")
    data = load_file(path, text_columns=("sentence",), meanings={"skip": None, "N/A": None})
    assert data.task.is_regression
    assert (data.texts, data.labels.tolist()) == ((("a",), ("c",)), [1.5, 2.0])
    path = write(tmp_path / "mine.csv", "sentence,label\na,1.5\n,skip\n,2\n")
    with pytest.raises(DataError):
        load_file(path, text_columns=("sentence",), meanings={"skip": None})


def test_scores_of_a_table_are_found_whether_its_slices_are_read_or_not(tmp_path):
    path = write(tmp_path / "mine.csv", "sentence,kind,label\na,x,negative\nb,y,positive\n")
    plain, sliced = load_file(path, "sst2"), load_file(path, "sst2", slice_column="kind")
    assert sliced.slices == ("x", "y")
    assert sliced.fingerprint != plain.fingerprint
    assert sliced.source_fingerprint == plain.source_fingerprint == plain.fingerprint
    assert sliced.subset([1]).source_fingerprint == plain.subset([1]).source_fingerprint
    probe = load_probe("sst2")  # whose scores were stored with its slices
    assert probe.source_fingerprint == probe.fingerprint


def test_blanks_around_a_label_make_no_other_class(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na, pos\nb,pos \nc,neg\n")
    made = load_file(tmp_path / "t.csv")
    assert made.task.label_names == ("neg", "pos")
    assert made.labels.tolist() == [1, 1, 0]
    padded = replace(made.task, label_names=(" neg", " pos"))  # as an earlier version called them
    assert load_file(tmp_path / "t.csv", padded).labels.tolist() == [1, 1, 0]
    assert foreign_labels([" pos", "neg"], padded, "t") == []


@pytest.mark.parametrize(
    ("task", "labels", "more"),
    [
        ("sst2", [1.0, 0.2], {}),
        ("sst2", [1.0, float("nan")], {}),
        ("stsb", [1.0, float("inf")], {}),
        ("sst2", [0, -1], {}),
        ("sst2", [0, 1], {"slices": ("a",)}),
        ("mrpc", [0, 1], {"texts": (("one",), ("two",))}),
    ],
)
def test_parts_that_do_not_fit_are_refused(task, labels, more):
    task = TASKS[task]
    texts = ((("a", "b")[: len(task.text_columns)]),) * 2
    with pytest.raises(DataError):
        TextData(**{"task": task, "name": "made", "texts": texts, "labels": np.array(labels)} | more)


def test_a_silent_hub_is_not_asked_again_at_once(monkeypatch):
    asked = Mock(side_effect=OSError)
    monkeypatch.setattr(sources, "_silent", {})
    monkeypatch.setattr(sources.urllib.request, "urlopen", asked)
    for path in ("one", "one", "two"):
        assert not sources._reachable(f"http://127.0.0.1:9/{path}")
    monkeypatch.setattr(sources, "RETRY", 0.0)
    assert not sources._reachable("http://127.0.0.1:9/one")
    assert [call.args[0].full_url[-3:] for call in asked.call_args_list] == ["one", "two", "one"]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_texts_stay_as_they_are(tmp_path, suffix):
    texts = ["null", "NA", "nan", "007", ' "quoted", with comma ', "line\nbreak", "1e5", "ü\u2028😀"]
    frame = pd.DataFrame({"sentence": texts, "label": ["negative", "positive"] * 4})
    path, jsonl = tmp_path / f"mine.{suffix}", partial(frame.to_json, orient="records", lines=True)
    write = {"csv": partial(frame.to_csv, index=False), "parquet": frame.to_parquet, "jsonl": jsonl}[suffix]
    write(path)
    data = load_file(path, "sst2")
    assert ([text for (text,) in data.texts], data.name) == (texts, path.name)
    assert data.labels.tolist() == [0, 1] * 4


def test_decimals_of_a_parquet_file_are_whole_where_they_are(tmp_path):
    frame = pd.DataFrame({"sentence": ["a", "b"], "label": [Decimal("1E+0"), Decimal("0E-20")]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert load_file(tmp_path / "a.parquet", "sst2").labels.tolist() == [1, 0]
    big = [Decimal(9007199254740992), Decimal(9007199254740993)]  # no float tells them apart
    assert infer_task(big, "own", ["text"], "a.parquet").num_labels == 2
    for odd in ("NaN", "-Infinity"):
        with pytest.raises(RowError):
            infer_task([Decimal("1.0"), Decimal(odd)], "own", ["text"], "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", "text,label\nx,1\n", ColumnError),
        ("a.csv", "", DataError),
        ("a.csv", "sentence,label\n", DataError),
        ("a.jsonl", "\n\n", DataError),
        ("a.csv", "sentence,label\nx,happy\n", RowError),
        ("a.csv", "sentence,label\nx,1\ny,2\n", RowError),
        ("a.csv", "sentence,label\nx,1\ny,\n", RowError),
        ("a.csv", "sentence,label\nx,y,1\nz,w,0\n", DataError),
        ("a.jsonl", '{"sentence": "x"}\n{"sentence": ', DataError),
        ("a.jsonl", "[1, 2]\n", DataError),
        ("a.jsonl", '{"sentence": "x"}\n{"sentence": null}', RowError),
        ("a.jsonl", '{"sentence": 5}', RowError),
        ("a.parquet", "not parquet", DataError),
        ("a.xlsx", "x", DataError),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, kind):
    with pytest.raises(DataError) as error:
        load_file(write(tmp_path / name, content), "sst2")
    assert type(error.value) is kind


def test_other_mistakes_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", "text,label\nx,1\ny,1\n")
    wrong = [
        (tmp_path / "none.csv", "sst2", {}),
        (path, None, {}),  # one label alone
        (path, "sst2", {"text_columns": ["text"], "label_column": "gold"}),
        (path, "sst2", {"text_columns": ["text"], "slice_column": "kind"}),
        (path, "mrpc", {"text_columns": ["text"]}),
        (write(tmp_path / "b.csv", "text\nx\n"), None, {}),  # no labels to tell the task from
        (path, TEXTS, {"label_column": "mood"}),
        (path, TEXTS, {"meanings": {"1": "2"}}),
    ]
    for file, task, options in wrong:
        with pytest.raises(DataError):
            load_file(file, task, **options)
    assert load_file(path, TEXTS).labels is None
    monkeypatch.setattr(tabular, "MAX_BYTES", 3)
    with pytest.raises(DataError):
        load_file(path, "sst2", ["text"])


@pytest.mark.parametrize(
    ("task", "meanings"),
    [
        ("sst2", {"good": "positive"}),
        ("sst2", {"good": "fine", "bad": "negative"}),
        ("sst2", {"good": None, "bad": None}),
        ("sst2", {"good": "positive", "bad": None, "1": "positive", "1.0": "negative"}),
        ("stsb", {"good": "5"}),
        (None, {"good": None, "bad": None}),
    ],
)
def test_a_meaning_that_can_not_be_is_refused(tmp_path, task, meanings):
    path = write(tmp_path / "mine.csv", "sentence,sentence1,sentence2,label\na,a,a,good\nb,b,b,bad\n")
    with pytest.raises(DataError):
        load_file(path, task, text_columns=("sentence",) if task is None else None, meanings=meanings)


GAPS = "sentence,label,slice\none,positive,a\n,positive,b\nthree,,c\n   ,negative,d\nfive,negative,e\n"


def test_incomplete_rows_are_left_out_where_asked(tmp_path):
    path = write(tmp_path / "mine.csv", GAPS)
    found = load_file(path, "sst2", slice_column="slice", skip_incomplete=True)
    assert (found.texts, found.labels.tolist(), found.slices) == ((("one",), ("five",)), [1, 0], ("a", "e"))
    own = load_file(path, None, ["sentence"], skip_incomplete=True)  # a task is made of what is left
    assert (own.task.label_names, own.labels.tolist()) == (("negative", "positive"), [1, 0])
    unlabelled = load_file(path, "sst2", label_column=None, skip_incomplete=True)
    assert unlabelled.texts == (("one",), ("three",), ("five",))
    for task in ("sst2", None):
        with pytest.raises(RowError):
            load_file(path, task, ["sentence"])
    with pytest.raises(DataError):
        load_file(write(path, "sentence,label\n,positive\na,\n"), "sst2", skip_incomplete=True)


@pytest.mark.parametrize(
    ("labels", "task", "meanings", "skip", "row"),
    [
        (["", "", "N/A", "1.5", "2.5"], None, {}, True, 3),
        (["", "wat", "positive", "negative"], "sst2", {}, True, 2),
        (["neutral", "1.5", "2.5", "N/A", "3"], None, {"neutral": None}, False, 4),
        (["", "neutral", "1.5", "N/A", "3"], None, {"neutral": None}, True, 4),
        (["neutral", "up", "", "down"], None, {"neutral": None}, False, 3),
    ],
)
def test_errors_count_rows_as_the_file_does(tmp_path, labels, task, meanings, skip, row):
    frame = pd.DataFrame({"sentence": list("abcde")[: len(labels)], "label": labels})
    frame.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(RowError) as error:
        load_file(tmp_path / "mine.csv", task, ["sentence"], meanings=meanings, skip_incomplete=skip)
    assert error.value.row == row
