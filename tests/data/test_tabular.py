"""Files that people bring: encodings, delimiters, and what must be refused early and in one bounded sentence."""

import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shrp.data.sources import load_file
from shrp.data.tabular import MAX_FIELDS, Format, csv_options, detect, distinct, read_table
from shrp.data.tasks import TASKS
from shrp.errors import MOST, DataError, RowError, ShrpError

ROWS = "sentence{0}label\nUn café à la plage{0}1\nDie Straße ist “schön”{0}0\n"


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ";"), ("utf-8-sig", "|"), ("cp1252", ","), ("utf-16", "\t")]
)
def test_encoding_and_delimiter_are_detected(tmp_path, encoding, delimiter):
    file = tmp_path / "mine.csv"
    file.write_bytes(ROWS.format(delimiter).encode(encoding))
    assert detect(file) == Format("CSV", encoding, delimiter)
    data = load_file(file, "sst2")
    assert data.texts == (("Un café à la plage",), ("Die Straße ist “schön”",))
    assert data.labels.tolist() == [1, 0]
    assert read_table(file).attrs["format"] == detect(file)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize("text", ["naïve", "5 °C", "à la carte"])
def test_json_and_tab_separated_files_are_read_in_any_of_them(tmp_path, encoding, text):
    row = json.dumps({"text": text, "label": 1}, ensure_ascii=False)
    for name, content in (("a.jsonl", row), ("a.tsv", f"text\tlabel\n{text}\t1")):
        (tmp_path / name).write_bytes(f"{content}\n".encode(encoding))
        assert read_table(tmp_path / name)["text"].tolist() == [text]


@pytest.mark.parametrize("text", ["a, b; c", "one | two", "a;b"])
def test_delimiters_inside_of_texts_do_not_count(tmp_path, text):
    file = tmp_path / "a.csv"
    pd.DataFrame({"sentence": [text, "x"], "label": [1, 0]}).to_csv(file, index=False)
    assert detect(file).delimiter == ","
    assert read_table(file)["sentence"].tolist() == [text, "x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cyrillic.csv", "sentence,label\nПлохой фильм,1\n".encode("cp1251")),
        ("japanese.jsonl", '{"sentence": "とても良い"}'.encode("shift_jis")),
        ("spoilt.csv", "sentence,label\nun été, naïf,1\n".encode() + b"\xff\n"),
        ("no_mark.csv", "sentence,label\nx,1\n".encode("utf-16-le")),
        ("two.csv", b"a,b;c\nx,y;z\n"),
        ("zip.csv", b"PK\x03\x04\x00\x00"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_table(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["\ud83d", ["\ud83d"], {"a": {"b": "x\udc00"}}])
def test_half_a_surrogate_in_any_column_is_refused(tmp_path, value):
    file = tmp_path / "mine.jsonl"
    rows = [{"sentence": "a", "label": 1}, {"sentence": "\U0001f600", "label": 0, "mood": value}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"line 2.*mood"):
        load_file(file, "sst2")
    file.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1] | {"mood": "\U0001f600"}) + "\n")
    assert load_file(file, "sst2").texts == (("a",), ("\U0001f600",))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_carriage_return_inside_of_a_text_splits_no_row(tmp_path, name):
    file, delimiter = tmp_path / name, "\t" if name.endswith("tsv") else ","
    file.write_bytes(f"sentence{delimiter}label\nso{delimiter}1\ngood\rbad{delimiter}0\n".encode())
    with pytest.raises(DataError, match="line 3"):
        read_table(file)
    file.write_bytes(b'sentence,label\n"good\rbad",0\n')
    if name == "a.csv":
        assert read_table(file)["sentence"].tolist() == ["good\rbad"]
    file.write_bytes(f"sentence{delimiter}label\r\nso{delimiter}1\r\n".encode())
    assert len(read_table(file)) == 1


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_many_columns_are_refused_before_they_are_read(tmp_path, monkeypatch, kind):
    names, file = [f"c{i}" for i in range(20_000)], tmp_path / f"wide.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({name: ["x"] for name in names[: MAX_FIELDS + 1]}), file)
    else:
        file.write_text("\n".join([("\t" if kind == "tsv" else ",").join(names)] * 20))
    for reader in ("read_csv", "read_table"):
        monkeypatch.setattr(pd, reader, None)
    monkeypatch.setattr(pq, "read_table", None)
    with pytest.raises(DataError, match=f"{MAX_FIELDS:,}"):
        read_table(file)


def test_a_parquet_file_whose_text_is_not_utf8_is_refused(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffw")])
    pq.write_table(pa.table({"sentence": broken, "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not a well-formed Parquet file"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("noted", [b"not json", b"{}", b'{"index_columns": [{"kind": 5}]}', b'{"columns": 1}'])
def test_what_pandas_noted_in_a_parquet_file_is_not_read(tmp_path, noted):
    table = pa.table({"sentence": ["a", "b"], "label": [1, 0]}).replace_schema_metadata({b"pandas": noted})
    pq.write_table(table, tmp_path / "a.parquet")
    assert load_file(tmp_path / "a.parquet", "sst2").labels.tolist() == [1, 0]


def test_errors_are_one_bounded_line(tmp_path):
    for error in (ShrpError("a\nb\r\n\x1b[31m" + "x" * 50_000), RowError("mine", 1, "\n" * 5000)):
        assert len(str(error)) <= MOST
        assert str(error).isprintable()
    file = tmp_path / "a.csv"
    names = ",".join(f"{'name' * 20}{i}" for i in range(MAX_FIELDS))
    file.write_text(f"{names}\n{',' * (MAX_FIELDS - 1)}\n")
    with pytest.raises(DataError) as error:
        load_file(file, "sst2")
    assert len(str(error.value)) <= MOST
    wide = [f"class {i} of many" for i in range(3000)]
    with pytest.raises(DataError) as error:
        type(TASKS["sst2"])("own", ("text",), (*wide, wide[0]), "accuracy", ("accuracy",))
    assert len(str(error.value)) <= MOST


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["sentence"], ["sentence"]),
        (["input"], ["input (text)"]),
        (["input", "input (text)"], ["input (text)", "input (text) (text)"]),
        (["a", "a", "a"], ["a", "a (text)", "a (text 2)"]),
    ],
)
def test_names_are_told_apart_from_reserved_ones_and_each_other(names, found):
    assert distinct(names, ("input", "index")) == found


@pytest.mark.parametrize("text", ["a\rb", 'a\r\nb,"c"', "a\nb", "plain"])
def test_any_text_comes_back_from_a_csv(text):
    frame = pd.DataFrame({"text": [text, "x"], "label": ["y", "z"], "n": [1, 2]})
    written = frame.to_csv(index=False, **csv_options(frame))
    assert pd.read_csv(io.StringIO(written, newline="")).equals(frame)
    assert written.startswith('"') == ("\r" in text)
