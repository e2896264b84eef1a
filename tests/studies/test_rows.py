"""Files of rows: kept whole, sorted, replaced by key, refused if they hold something else."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import typer

from shrp.errors import DataError
from studies.rows import Rows, as_json, names, numbers, read_rows


def test_a_row_replaces_the_one_with_its_key(tmp_path):
    rows = Rows(tmp_path / "new" / "rows.json", ("task", "seed"))
    rows.add({"task": "rte", "seed": 1, "score": 0.5}, {"task": "cola", "seed": 0, "score": 0.25})
    rows.add({"task": "rte", "seed": 1, "score": 0.75})
    assert [(row["task"], row["score"]) for row in read_rows(rows.path)] == [("cola", 0.25), ("rte", 0.75)]
    assert {"task": "rte", "seed": 1} in rows
    assert {"task": "rte", "seed": 2} not in rows
    assert len(rows.path.read_text().splitlines()) == 4  # one row per line


def test_rows_added_at_once_are_all_kept(tmp_path):
    path = tmp_path / "rows.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: Rows(path, ("seed",)).add({"seed": seed}), range(24)))
    assert sorted(row["seed"] for row in read_rows(path)) == list(range(24))


def test_numbers_are_rounded_and_nan_is_null():
    found = json.loads(as_json([{"a": 1 / 3, "b": float("nan"), "c": [0.1234567]}]))
    assert found == [{"a": 0.333333, "b": None, "c": [0.123457]}]


@pytest.mark.parametrize("content", ["{", "3", '["text"]'])
def test_what_is_not_a_file_of_rows_is_refused(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(DataError):
        Rows(path, ("seed",))
    assert path.read_text() == content


def test_options_are_read_or_refused():
    assert names("cola, rte", ("cola", "rte"), "--tasks") == ["cola", "rte"]
    assert numbers("0,2", "--seeds") == [0, 2]
    for read, *wrong in ((names, "sst3", ("sst2",), "--tasks"), (names, "", ("a",), "-a"), (numbers, "x", "-b")):
        with pytest.raises(typer.BadParameter):
            read(*wrong)
