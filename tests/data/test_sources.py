import json
import re
import sys
import threading
import types
from dataclasses import replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import numpy as np
import pandas as pd
import pytest

import shrp.data.sources
from shrp.data import hub, tabular
from shrp.data.batching import bucketed_batches
from shrp.data.labels import foreign_labels, infer_task, parse_labels
from shrp.data.slices import parse_slices, sliced_by_words
from shrp.data.sources import complete_rows, from_frame, load_data, load_file, load_glue, load_probe
from shrp.data.tasks import TASKS, TEXTS, Task, custom_task
from shrp.data.text_data import TextData
from shrp.errors import DataError, IncompleteError

SST2 = TASKS["sst2"]


def made(labels, task=SST2, **more):
    return TextData(task, "made", tuple((f"text {i}",) for i in range(len(labels))), np.array(labels), **more)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def glue_folder(tmp_path, monkeypatch):
    (tmp_path / "sst2").mkdir()
    frame = pd.DataFrame({"sentence": ["good , really ", "null"], "label": [1, 0], "idx": [0, 1]})
    frame.to_parquet(tmp_path / "sst2" / "validation.parquet")
    monkeypatch.setenv(hub.DATA_DIR, str(tmp_path))
    return tmp_path


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


def test_regression_prefixes_follow_the_distribution():
    labels = np.random.default_rng(0).exponential(size=1000)
    order = made(labels, TASKS_TEXT_REGRESSION).stratified_order()
    assert sorted(order) == list(range(1000))
    assert labels[order[:100]].mean() == pytest.approx(labels.mean(), rel=0.1)
    assert made([], TASKS_TEXT_REGRESSION).stratified_order().tolist() == []


TASKS_TEXT_REGRESSION = custom_task("r", ["text"], regression=True)


def test_fingerprint_is_of_the_content():
    data = made([0, 1, 1])
    assert data.fingerprint == made([0, 1, 1]).fingerprint
    others = [made([0, 1, 0]), made([0, 1]), made([0, 1, 1], slices=("a", "b", "c"))]
    others.append(TextData(SST2, "made", data.texts, None))
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_subset_and_frame():
    part = made([0, 1, 1], slices=("a", "b", "c")).subset([2, 0])
    assert part.to_frame().to_dict("list") == {
        "sentence": ["text 2", "text 0"],
        "label": ["positive", "negative"],
        "slice": ["c", "a"],
    }
    assert part.name == "made (2 of 3)"


def test_a_text_column_called_label_keeps_its_texts():
    task = custom_task("mine", ["label", "slice"], ["a", "b"])
    data = TextData(task, "mine", (("one", "two"), ("three", "four")), np.array([1, 0]))
    frame = data.to_frame()
    assert frame.columns.tolist() == ["label (text)", "slice", "label"]
    assert frame["label (text)"].tolist() == ["one", "three"]
    assert frame["label"].tolist() == ["b", "a"]


@pytest.mark.parametrize("wrong", [0.2, 1.9, float("nan")])
def test_a_class_id_with_a_fraction_is_refused(wrong):
    with pytest.raises(DataError, match=f"labels of 'sst2' are class ids; {wrong:g} is none"):
        TextData(TASKS["sst2"], "mine", (("one",), ("two",)), np.array([1.0, wrong]))
    whole = TextData(TASKS["sst2"], "mine", (("one",), ("two",)), np.array([1.0, 0.0]))
    assert whole.labels.dtype == np.int64


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_number_to_predict_is_finite(wrong):
    with pytest.raises(DataError, match=f"labels of 'stsb' are numbers; {wrong:g} is none"):
        TextData(TASKS["stsb"], "mine", (("one", "two"), ("three", "four")), np.array([1.0, wrong]))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 texts but 1 slices"):
        made([0, 1], slices=("a",))
    with pytest.raises(DataError, match="go from 0 to 1"):
        made([0, -1])
    with pytest.raises(DataError, match=r"An input of 'mrpc' has 2 text\(s\)"):
        TextData(TASKS["mrpc"], "made", (("one",),))


# GLUE and probes


def test_glue_from_a_folder_keeps_texts_exactly(glue_folder):
    data = load_data("glue", SST2)
    assert data.texts == (("good , really ",), ("null",))
    assert data.labels.tolist() == [1, 0]
    assert data.name == "glue/sst2 validation"
    with pytest.raises(DataError, match=r"there is no '.*train\.parquet'"):
        load_glue("sst2", "train")
    with pytest.raises(DataError, match="there is no 'test'"):
        load_glue("sst2", "test")
    with pytest.raises(DataError, match="no task 'nope'"):
        load_data("glue", "nope")


def test_without_a_network_the_error_is_plain_and_nobody_waits_for_it(monkeypatch):
    offline = []

    def load_dataset(*args, **options):
        offline.append(datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("offline")

    monkeypatch.delenv(hub.DATA_DIR, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(hub, "_reachable", lambda url: False)
    with pytest.raises(DataError, match=r"can't be read from the hub .* SHRP_DATA_DIR .* sst2/validation"):
        load_glue("sst2")
    assert offline == [True]  # the hub is not asked once more


def test_a_connection_that_breaks_midway_is_told_of_as_well(monkeypatch):
    class Broken(Exception):
        """As those of an HTTP client, which are of no kind that Python knows."""

    def load_dataset(*args, **options):
        raise Broken("peer closed connection")

    monkeypatch.delenv(hub.DATA_DIR, raising=False)
    monkeypatch.setattr(hub, "_reachable", lambda url: True)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(DataError, match="GLUE's 'sst2' can't be read from the hub"):
        load_glue("sst2")


@pytest.fixture
def answering():
    """`http://127.0.0.1:<port>` of a server that says 200 at `/there`, and 404 at any other path."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/there" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_reachable_is_about_any_answer(monkeypatch, answering):
    monkeypatch.setattr(hub, "_silent", {})  # or other tests would see who was silent here
    monkeypatch.setattr(hub, "TIMEOUT", 60)  # a busy machine may take its time
    monkeypatch.setenv("no_proxy", "*")  # a proxy would answer for those who don't
    assert hub._reachable(f"{answering}/there")
    assert hub._reachable(f"{answering}/gone")
    assert hub._silent == {}
    assert not hub._reachable("http://127.0.0.1:9")  # The discard port: nothing listens.
    assert not hub._reachable("not a url")
    assert set(hub._silent) == {"http://127.0.0.1:9", "not a url"}


def test_who_gave_no_answer_is_not_asked_again_at_once(monkeypatch):
    asked = []

    def refuse(request, timeout):
        asked.append(request.full_url)
        raise OSError

    monkeypatch.setattr(hub, "_silent", {})
    monkeypatch.setattr(hub.urllib.request, "urlopen", refuse)
    assert not hub._reachable("http://127.0.0.1:9/one")
    assert not hub._reachable("http://127.0.0.1:9/one")
    assert asked == ["http://127.0.0.1:9/one"]
    assert not hub._reachable("http://127.0.0.1:9/other")
    monkeypatch.setattr(hub, "RETRY", 0.0)
    assert not hub._reachable("http://127.0.0.1:9/one")
    assert [url[-3:] for url in asked] == ["one", "her", "one"]


@pytest.mark.parametrize(("online", "offline_seen"), [(True, False), (False, True)])
def test_hub_is_asked_for_the_matched_split_and_its_mode_restored(monkeypatch, online, offline_seen):
    calls = []
    config = types.SimpleNamespace(HF_HUB_OFFLINE=False, HF_ENDPOINT="x")

    def load_dataset(*args, split):
        calls.append((*args, split, config.HF_HUB_OFFLINE))
        frame = pd.DataFrame({"premise": ["a"], "hypothesis": [""], "label": [2]})
        return types.SimpleNamespace(to_pandas=lambda: frame)

    fake = types.SimpleNamespace(config=config, load_dataset=load_dataset, exceptions=None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.delenv(hub.DATA_DIR, raising=False)
    monkeypatch.setattr(hub, "_reachable", lambda url: online)
    data = load_glue("mnli")
    assert calls == [("nyu-mll/glue", "mnli", "validation_matched", offline_seen)]
    assert config.HF_HUB_OFFLINE is False
    assert data.texts == (("a", ""),)  # GLUE has a few empty texts of its own.


def test_probes(tmp_path, monkeypatch):
    monkeypatch.setattr(shrp.data.sources, "PROBES", tmp_path)
    with pytest.raises(DataError, match="no probe set for 'cola'; there is one for: no task"):
        load_probe("cola")
    write(tmp_path / "sst2.jsonl", '{"sentence": "Not bad.", "label": 1, "slice": "negation"}\n')
    data = load_data("probe", "sst2")
    assert (data.texts, data.labels.tolist(), data.slices) == ((("Not bad.",),), [1], ("negation",))
    assert data.name == "probe/sst2"
    with pytest.raises(DataError, match="there is one for: sst2"):
        load_probe("../sst2")
    with pytest.raises(DataError, match="'probe' needs a task"):
        load_data("probe", None)


# Files


def test_csv_texts_stay_as_they_are(tmp_path):
    texts = ["null", "NA", "nan", "007", ' "quoted", with comma ', "line\nbreak", "1e5", "ü\u2028😀"]
    frame = pd.DataFrame({"sentence": texts, "label": ["negative", "positive"] * 4})
    for suffix in ("csv", "parquet", "jsonl"):
        path = tmp_path / f"mine.{suffix}"
        writers = {"csv": frame.to_csv, "parquet": frame.to_parquet}
        if suffix == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            writers[suffix](path, index=False)
        data = load_data(path, "sst2")
        assert [text for (text,) in data.texts] == texts
        assert data.labels.tolist() == [0, 1] * 4
        assert data.name == path.name


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


def test_names_that_look_like_ids_are_names(tmp_path):
    task = custom_task("stars", ["text"], ["1", "2"])
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,2\n")
    assert load_file(path, task).labels.tolist() == [0, 1]


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


def test_what_can_be_no_label_is_said():
    for cell in ({"x": 1}, [1], float("inf")):
        with pytest.raises(DataError, match="row 2: a label is a word or a number"):
            infer_task(["a", cell], "own", ["text"], "a.jsonl")
    with pytest.raises(DataError, match="row 2: the label is missing"):
        infer_task([pd.Timestamp("2020-01-01"), pd.NaT], "own", ["text"], "a.parquet")


@pytest.mark.parametrize("odd", ["nan", "N/A", "None", "inf", "?"])
def test_what_says_that_it_is_missing_makes_no_classes_of_numbers(odd):
    for numbers in (["0.5", "1.25", "3"], ["1", "2", "3"]):
        with pytest.raises(
            DataError, match=r"row 4: the label .* is no number, as others are.*--label-means"
        ):
            infer_task([*numbers, odd], "own", ["text"], "a.csv")
    assert infer_task(["good", odd], "own", ["text"], "a.csv").num_labels == 2  # no number is among them


def test_decimals_of_a_parquet_file_are_whole_where_they_are(tmp_path):
    for labels, expected in ((["1.0", "0.0"], [1, 0]), (["1E+0", "0E-20"], [1, 0])):
        cells = [Decimal(label) for label in labels]
        pd.DataFrame({"sentence": ["a", "b"], "label": cells}).to_parquet(tmp_path / "a.parquet")
        assert load_file(tmp_path / "a.parquet", "sst2").labels.tolist() == expected
        own = load_file(tmp_path / "a.parquet", None, ["sentence"])
        assert own.task.label_names == ("0", "1")
    numbers = [Decimal("1.50"), Decimal("2.00")]
    assert parse_labels(numbers, TASKS_TEXT_REGRESSION, "a.parquet").tolist() == [1.5, 2.0]
    many = [
        Decimal(9007199254740992),
        Decimal(9007199254740993),
        Decimal("1" * 50 + ".0"),
    ]  # no float tells them apart
    assert infer_task(many, "own", ["text"], "a.parquet").num_labels == 3
    with pytest.raises(IncompleteError, match="row 2: the label is missing"):
        infer_task([Decimal("1.0"), Decimal("NaN")], "own", ["text"], "a.parquet")
    with pytest.raises(DataError, match="row 2: a label is a word or a number"):
        infer_task([Decimal("1.0"), Decimal("-Infinity")], "own", ["text"], "a.parquet")


def test_many_numbers_and_a_word_are_no_classes_but_few_may_be():
    many = [str(n / 8) for n in range(30)]
    with pytest.raises(DataError, match="row 31: the label 'broken' is no number"):
        infer_task([*many, "broken"], "own", ["text"], "a.csv")
    assert infer_task(["0", "1", "other"], "own", ["text"], "a.csv").num_labels == 3
    codes = [*map(str, range(100, 130)), "7B"]
    assert infer_task(codes, "own", ["text"], "a.csv").num_labels == 31


def test_a_long_list_of_classes_is_cut_in_errors():
    task = infer_task([str(n) for n in range(50)], "own", ["text"], "a.csv")
    with pytest.raises(DataError, match=r"18, 19 and 30 more \(or their ids, 0 to 49\)"):
        parse_labels(["x"], task, "b.csv")


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


def test_a_number_has_no_underscores():
    assert infer_task(["0.5", "1_0"], "own", ["text"], "a.csv").label_names == ("0.5", "1_0")
    with pytest.raises(DataError, match="is a number, not '1_0'"):
        parse_labels(["0.5", "1_0"], TASKS_TEXT_REGRESSION, "a.csv")


def test_labels_are_optional_with_a_task(tmp_path):
    path = write(tmp_path / "a.csv", "sentence\nfine\n")
    assert load_file(path, "sst2").labels is None
    path = write(tmp_path / "b.csv", "sentence,label\nfine,who knows\n")
    assert load_file(path, "sst2", label_column=None).labels is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nx,1\n", r"no column 'sentence'; its columns are text, label"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "sentence,label\n", "holds no rows"),
        ("a.jsonl", "\n\n", "holds no rows"),
        ("a.csv", "sentence,label\nx,1\n  ,1\n", "row 2, column 'sentence': the text is empty"),
        (
            "a.csv",
            "sentence,label\nx,happy\n",
            "row 1: the label 'happy' is not among those of 'sst2': negative",
        ),
        ("a.csv", "sentence,label\nx,1\ny,2\n", "row 2: the label '2' is not among"),
        ("a.csv", "sentence,label\nx,1\ny,\n", "row 2: the label is missing"),
        ("a.csv", "sentence,label\nx,y,1\nz,w,0\n", "more fields than its header"),
        ("a.csv", "sentence,label\nx,1\ny,z,1\n", "not a well-formed CSV"),
        ("a.csv", "sentence,label\nПлохой фильм,1\n".encode("cp1251"), "not in UTF-8"),
        ("a.jsonl", '{"sentence": "とても良い"}'.encode("shift_jis"), "not in UTF-8"),
        ("a.jsonl", '{"sentence": "x"}\n{"sentence": ', "line 2 is not JSON"),
        ("a.jsonl", "[1, 2]\n", "line 1 is not an object"),
        ("a.jsonl", '{"sentence": "x"}\n{"sentence": null}', "row 2, column 'sentence': the text is missing"),
        ("a.jsonl", '{"sentence": 5}', "a text is needed, not 5"),
        ("a.jsonl", '{"sentence": ["x"]}', "a text is needed"),
        ("a.jsonl", '{"sentence": "\\ud83d"}', "not valid Unicode"),
        ("a.parquet", "not parquet", "not a well-formed Parquet file"),
        ("a.xlsx", "x", "not a kind of table that is read here: .csv, .tsv"),
    ],
)
def test_bad_files_are_explained(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        load_file(write(tmp_path / name, content), "sst2")


def test_other_mistakes_are_explained(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", "text,label\nx,1\ny,1\n")
    with pytest.raises(DataError, match="There is no file"):
        load_file(tmp_path / "none.csv", "sst2")
    with pytest.raises(DataError, match="one label alone, '1'"):
        load_file(path)
    with pytest.raises(DataError, match="no column 'gold'"):
        load_file(path, "sst2", ["text"], label_column="gold")
    with pytest.raises(DataError, match="no column 'kind'"):
        load_file(path, "sst2", ["text"], slice_column="kind")
    with pytest.raises(DataError, match=r"'mrpc' reads 2 text column\(s\), not 1"):
        load_file(path, "mrpc", ["text"])
    with pytest.raises(DataError, match="no labels to tell the task from"):
        load_file(write(tmp_path / "b.csv", "text\nx\n"))
    monkeypatch.setattr(tabular, "MAX_BYTES", 3)
    with pytest.raises(DataError, match="MB are read here"):
        load_file(path, "sst2", ["text"])


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


@pytest.mark.parametrize(
    ("task", "meanings", "said"),
    [
        (
            "sst2",
            {"good": "positive"},
            "row 2: nothing says what the label 'bad' means in 'sst2': negative, pos",
        ),
        (
            "sst2",
            {"good": "fine", "bad": "negative"},
            "'good' can't mean 'fine': the classes of 'sst2' are neg",
        ),
        ("sst2", {"good": None, "bad": None}, "of 'mine.csv' no row is left"),
        ("sst2", {"1": "positive", "1.0": "negative"}, "the label '1' has two meanings; give it one"),
        ("stsb", {"good": "5"}, "'stsb' has numbers for labels and no classes"),
        (None, {"good": None, "bad": None}, "of 'mine.csv' no row is left"),
    ],
)
def test_a_meaning_that_can_not_be_is_refused(tmp_path, task, meanings, said):
    path = write(tmp_path / "mine.csv", "sentence,sentence1,sentence2,label\na,a,a,good\nb,b,b,bad\n")
    with pytest.raises(DataError, match=re.escape(said)):
        load_file(path, task, text_columns=("sentence",) if task is None else None, meanings=meanings)


def test_what_is_left_out_may_lack_a_text_or_be_no_number(tmp_path):
    path = write(tmp_path / "mine.csv", "sentence,label\na,1.5\n,skip\nb,N/A\nc,2\n")
    data = load_file(path, text_columns=("sentence",), meanings={"skip": None, "N/A": None})
    assert data.task.is_regression
    assert (data.texts, data.labels.tolist()) == ((("a",), ("c",)), [1.5, 2.0])
    path = write(tmp_path / "mine.csv", "sentence,label\na,1.5\n,skip\n,2\n")
    with pytest.raises(DataError, match="row 3, column 'sentence'"):
        load_file(path, text_columns=("sentence",), meanings={"skip": None})


def test_a_file_that_is_named_as_a_known_task_is_a_task_of_its_own(tmp_path):
    path = write(tmp_path / "sst2.csv", "sentence,label\na,negative\nb,positive\n")
    assert load_file(path, text_columns=("sentence",)).task.name == "sst2.csv"
    assert load_file(path, "sst2").task == TASKS["sst2"]


def test_scores_of_a_table_are_found_whether_its_slices_are_read_or_not(tmp_path):
    path = write(tmp_path / "mine.csv", "sentence,kind,label\na,x,negative\nb,y,positive\n")
    plain, sliced = load_file(path, "sst2"), load_file(path, "sst2", slice_column="kind")
    assert sliced.slices == ("x", "y")
    assert sliced.fingerprint != plain.fingerprint
    assert sliced.source_fingerprint == plain.source_fingerprint == plain.fingerprint
    assert sliced.subset([1]).source_fingerprint == plain.subset([1]).source_fingerprint
    assert sliced_by_words(sliced, parse_slices("a: a")).source_fingerprint == plain.fingerprint
    probe = load_probe("sst2")  # whose scores were stored with its slices
    assert probe.source_fingerprint == probe.fingerprint


def test_semicolons_part_cells_where_a_header_has_these_alone(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('\nsentence;label\nFine, mostly;positive\n"Dull; slow";negative\n', encoding="utf-8-sig")
    data = load_file(path, "sst2")
    assert data.texts == (("Fine, mostly",), ("Dull; slow",))
    assert data.labels.tolist() == [1, 0]
    assert tabular.header_size(path) == 2
    path.write_text("sentence,label\nFine; mostly,positive\n")
    assert load_file(path, "sst2").texts == (("Fine; mostly",),)


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_blank_line_between_rows_of_one_column_is_a_row(tmp_path, name, end):
    path = write(
        tmp_path / name, end.join(["\ufeff", " ", "sentence", "one", "", "three", "  ", "five", "", " ", ""])
    )
    cells = ["one", "", "three", "  ", "five"]  # what comes before the header and after the last row is none
    assert tabular.read_table(path)["sentence"].tolist() == cells
    with pytest.raises(IncompleteError, match="row 2, column 'sentence': the text is empty"):
        load_file(path, "sst2")
    assert load_file(path, "sst2", skip_incomplete=True).texts == (("one",), ("three",), ("five",))


def test_blank_lines_make_no_other_rows(tmp_path):
    two = write(tmp_path / "two.csv", "sentence,label\none,1\n\ntwo,0\n\n")
    assert load_file(two, "sst2").texts == (("one",), ("two",))
    path = write(tmp_path / "mine.csv", 'sentence\n"one\n\nand more"\n""\n\n')
    assert tabular.read_table(path)["sentence"].tolist() == ["one\n\nand more", ""]
    for text, wrong in (
        ("\nsentence\n\n \n", "holds no rows"),
        ("sentence\none\n\ntwo, three\n", "row 4 .* has 2 cells, those before it 1"),
    ):
        with pytest.raises(DataError, match=wrong):
            tabular.read_table(write(path, text))


def without_gaps(frame, task, name, label, piece, **options):
    with complete_rows(frame, task.text_columns, label, name) as whole:
        return from_frame(whole, task, name, label, piece, **options)


def gaps(**columns):
    frame = pd.DataFrame(
        {
            "sentence": ["one", None, "three", " ", "five"],
            "label": ["positive", "positive", None, "negative", "negative"],
            "slice": list("abcde"),
        }
    )
    return frame.assign(**columns)


def test_incomplete_rows_are_left_out_where_asked():
    found = without_gaps(gaps(), TASKS["sst2"], "mine", "label", "slice")
    assert found.texts == (("one",), ("five",))
    assert found.labels.tolist() == [1, 0]
    assert found.slices == ("a", "e")
    unlabelled = without_gaps(gaps(), TASKS["sst2"], "mine", None, None)
    assert unlabelled.texts == (("one",), ("three",), ("five",))
    assert unlabelled.labels is None
    with pytest.raises(DataError, match="row 2, column 'sentence': the text is missing"):
        from_frame(gaps(), TASKS["sst2"], "mine", "label", "slice")


def test_rows_are_counted_as_in_the_file_beside_incomplete_ones():
    odd = gaps(label=["positive", "positive", None, "negative", "up"])
    with pytest.raises(DataError, match="'mine', row 5: the label 'up'"):
        without_gaps(odd, TASKS["sst2"], "mine", "label", None)
    broken = gaps(sentence=["one", None, "three", " ", 5])
    with pytest.raises(DataError, match="'mine', row 5, column 'sentence': a text is needed"):
        without_gaps(broken, TASKS["sst2"], "mine", "label", None)


def test_incomplete_rows_go_beside_labels_that_are_left_out():
    odd = gaps(label=["up", "up", None, "down", "maybe"])
    meanings = {"up": "positive", "down": "negative", "maybe": None}
    found = without_gaps(odd, TASKS["sst2"], "mine", "label", "slice", meanings=meanings)
    assert found.texts == (("one",),)
    assert found.labels.tolist() == [1]
    assert found.slices == ("a",)


def test_a_file_is_read_without_its_incomplete_rows(tmp_path):
    path = tmp_path / "mine.csv"
    gaps().to_csv(path, index=False)
    found = load_file(path, "sst2", slice_column="slice", skip_incomplete=True)
    assert (found.texts, found.slices) == ((("one",), ("five",)), ("a", "e"))
    own = load_file(path, None, ["sentence"], skip_incomplete=True)  # a task is made of what is left
    assert own.task.label_names == ("negative", "positive")
    assert own.labels.tolist() == [1, 0]
    for task in ("sst2", None):
        with pytest.raises(IncompleteError, match=r"row [23]"):
            load_file(path, task, ["sentence"])
    gaps(label=["1.5", "2", None, "x", "nan"]).to_csv(path, index=False)
    with pytest.raises(DataError, match="row 5: the label 'nan' is no number"):  # counted as in the file
        load_file(path, None, ["sentence"], skip_incomplete=True)


def test_rows_after_incomplete_ones_are_counted_as_in_the_file(tmp_path):
    path = tmp_path / "mine.csv"
    for label, task, wrong in (
        (["", "", "N/A", "1.5", "2.5"], None, "row 3: the label 'N/A' is no number"),
        (["", "wat", "positive", "negative", "positive"], "sst2", "row 2: the label 'wat' is not among"),
    ):
        pd.DataFrame({"sentence": list("abcde"), "label": label}).to_csv(path, index=False)
        with pytest.raises(DataError, match=wrong):
            load_file(path, task, ["sentence"], skip_incomplete=True)


def test_rows_after_labels_that_are_left_out_are_counted_as_in_the_file(tmp_path):
    path = write(tmp_path / "mine.csv", "text,label\na,neutral\nb,1.5\nc,2.5\nd,N/A\ne,3\n")
    with pytest.raises(DataError, match="row 4: the label 'N/A' is no number"):
        load_file(path, meanings={"neutral": None})
    write(path, "text,label\n,1\na,neutral\nb,1.5\nc,2.5\nd,N/A\ne,3\n")
    with pytest.raises(DataError, match="row 5: the label 'N/A' is no number"):
        load_file(path, meanings={"neutral": None}, skip_incomplete=True)
    write(path, "text,label\na,neutral\nb,up\nc,\nd,down\n")
    with pytest.raises(IncompleteError, match="row 3: the label is missing"):
        load_file(path, meanings={"neutral": None})


@pytest.mark.parametrize("column", ["sentence", "label"])
def test_nothing_but_incomplete_rows_is_an_error(column):
    with pytest.raises(DataError, match="no row is left: each lacks a text or a label"):
        without_gaps(gaps(**{column: None}), TASKS["sst2"], "mine", "label", None)


def test_the_first_of_each_ten_numbers_are_one_of_each_tenth():
    labels = np.random.default_rng(1).exponential(size=1000)
    order = made(labels, TASKS_TEXT_REGRESSION).stratified_order()
    tenth = np.argsort(np.argsort(labels)) // 100
    first = np.bincount(tenth[order[:100]], minlength=10)
    assert (np.abs(first - 10) <= 1).all()  # a plain shuffle is off by about 3


def test_blanks_around_a_label_make_no_other_class(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na, pos\nb,pos \nc,neg\n")
    made = load_file(tmp_path / "t.csv")
    assert made.task.label_names == ("neg", "pos")
    assert made.labels.tolist() == [1, 1, 0]
    padded = replace(made.task, label_names=(" neg", " pos"))  # as an earlier version called them
    assert load_file(tmp_path / "t.csv", padded).labels.tolist() == [1, 1, 0]
    assert foreign_labels([" pos", "neg"], padded, "t") == []


def test_unlabelled_texts_have_no_label_column(tmp_path):
    (tmp_path / "t.csv").write_text("text,label,mood\na,pos,1\nb,neg,2\n")
    assert load_file(tmp_path / "t.csv", TEXTS).labels is None
    for given in ({"label_column": "mood"}, {"meanings": {"pos": "1"}}):
        with pytest.raises(DataError, match="read for its texts alone"):
            load_file(tmp_path / "t.csv", TEXTS, **given)
