"""Texts of files that may be larger than memory: those that a conversion trains on, a random sample, read part by part.

Each row has a random key, which depends on the seed and its place alone; the rows with the smallest keys are kept. So
the sample is uniform over all files, the same at each start, and the same in any number of processes, each of which reads
its part of the files.
"""

from __future__ import annotations

import glob
import heapq
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from shrp.data.sources import counted_in_the_whole
from shrp.data.tabular import PART, incomplete, read_parts, text_rows
from shrp.errors import DataError
from shrp.training.processes import count, gather, rank


def shards(paths: Iterable[Path]) -> list[Path]:
    """The files that paths stand for: a file itself, a folder's Parquet and JSONL files, a pattern's matches; each once.

    Raises:
        DataError: a folder or a pattern has none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".parquet", ".jsonl"))
        elif glob.has_magic(str(path)) and not path.exists():
            files = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not files:
            raise DataError(f"there are no Parquet or JSONL files at '{path}'.")
        found |= dict.fromkeys(files)
    return list(found)


def sample(
    files: Sequence[Path], columns: Sequence[str], most: int, seed: int
) -> tuple[list[tuple[str, ...]], int, int]:
    """At most so many texts of some files, or all of them, in the files' order.

    Memory is bounded by `most`, and the files' parts (`read_parts`).

    Returns:
        The texts, how many rows there are, and how many of them have a text (in each column).

    Raises:
        DataError: as `read_parts`; or a column is missing, or a cell is not a text.
    """
    kept: list[tuple[float, int, int, tuple[str, ...]]] = []
    bound, rows, complete = 1.0, 0, 0
    for shard in range(rank(), len(files), count()):
        name, start, random = files[shard].name, 0, np.random.default_rng((seed, shard))
        for frame in read_parts(files[shard], columns):
            keys, there = random.random(len(frame)), np.flatnonzero(~incomplete(frame, columns, None, name))
            with counted_in_the_whole(there + start):
                texts = text_rows(frame.iloc[there], columns, name)
            places = zip(there.tolist(), texts, strict=True)
            kept += [(keys[row], shard, start + row, text) for row, text in places if keys[row] <= bound]
            if len(kept) > 2 * most + PART:
                kept = heapq.nsmallest(most, kept)
                bound = kept[-1][0]
            start, complete = start + len(frame), complete + len(there)
        rows += start
    smallest = heapq.nsmallest(most, itertools.chain(*gather([one[:3] for one in kept])))
    chosen = {one[1:] for one in smallest}
    found = sorted(itertools.chain(*gather([one[1:] for one in kept if one[1:3] in chosen])))
    totals = [sum(all_of) for all_of in zip(*gather((rows, complete)), strict=True)]
    return [text for _, _, text in found], *totals
