"""The sample of texts that a conversion trains on, of files that are read part by part."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shrp.data import tabular
from shrp.errors import DataError
from shrp.training import corpus


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """90 numbered texts in three files of parts of 7 rows, the last of which are other fields'; every tenth is missing."""
    monkeypatch.setattr(tabular, "PART", 7)
    monkeypatch.setattr(corpus, "PART", 7)
    monkeypatch.setattr(tabular, "MAX_BYTES", 10)  # of other readers
    rows = [{"text": f"w{i}" if i % 10 else None} for i in range(90)]
    pd.DataFrame(rows[:40]).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, [*rows[40:60], *[{"note": "none"}] * 9])))
    (tmp_path / "c.jsonl").write_text("\n\n".join(map(json.dumps, rows[60:])))
    return tmp_path


def test_the_sample_is_all_texts_in_order_or_a_seeded_part_of_them(folder):
    every = [(f"w{i}",) for i in range(90) if i % 10]
    files = corpus.shards([folder])
    assert files == corpus.shards([folder / "a.parquet", folder / "*.jsonl", folder / "c.jsonl"])
    assert corpus.sample(files, ["text"], 200, 0) == (every, 99, 81)
    chosen = [corpus.sample(files, ["text"], 20, seed)[0] for seed in range(60)]
    assert corpus.sample(files, ["text"], 20, 0) == (chosen[0], 99, 81)
    assert all(len(one) == 20 and one == [text for text in every if text in one] for one in chosen)
    times = pd.Series([text for one in chosen for text in one]).value_counts()
    assert len(times) == 81  # drawn 15 times each on average
    assert 3 <= times.min() <= times.max() <= 32


def test_a_corpus_that_cannot_be_read_is_named(folder):
    (folder / "d.jsonl").write_text('{"text": "a"}\n' * 9 + '{"text": 1}')
    with pytest.raises(DataError, match=r"'d\.jsonl', row 10, column 'text'"):
        corpus.sample([folder / "d.jsonl"], ["text"], 5, 0)
    (folder / "d.jsonl").write_text('{"text": "a"}\n{')
    with pytest.raises(DataError, match=r"'d\.jsonl' is not a well-formed JSONL file: line 2"):
        corpus.sample([folder / "d.jsonl"], ["text"], 5, 0)
    for name in ("a.parquet", "b.jsonl"):
        with pytest.raises(DataError, match=f"'{name}' has no column 'review'; its columns are text"):
            corpus.sample([folder / name], ["review"], 5, 0)
    pq.write_table(pa.Table.from_arrays([["a"], ["b"]], names=["text", "text"]), folder / "e.parquet")
    with pytest.raises(DataError, match=r"'e\.parquet' has two columns named 'text'"):
        corpus.sample([folder / "e.parquet"], ["text"], 5, 0)
    with pytest.raises(DataError, match="no Parquet or JSONL files"):
        corpus.shards([folder / "*.parquets"])
