"""Which examples are minimal pairs, and the units that intervals resample."""

import numpy as np
import pytest

from shrp.data.sources import load_file
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData, pairs_of, units_of
from shrp.errors import DataError

SST2 = TASKS["sst2"]


def made(labels, pairs):
    texts = tuple((f"text {i}",) for i in range(len(labels)))
    return TextData(SST2, "made", texts, np.array(labels), None, pairs)


FOUR = made([1, 0, 0, 1, 0, 1, 1], ("a", "a", "b", "b", "c", "c", ""))


def test_pairs_are_two_inputs_with_different_labels():
    assert pairs_of(FOUR).tolist() == [[1, 0], [2, 3], [4, 5]]
    assert pairs_of(made([1, 1, 0, 0, 1], ("same", "same", "three", "three", "three"))).shape == (0, 2)
    assert pairs_of(made([1, 0], None)).shape == (0, 2)
    assert pairs_of(TextData(SST2, "made", (("a",), ("b",)), pairs=("x", "x"))).shape == (0, 2)
    with pytest.raises(DataError):
        made([1, 0], ("a",))


def test_units_are_pairs_and_all_other_inputs():
    assert units_of(7, pairs_of(FOUR)).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert units_of(3, None).tolist() == units_of(3, np.empty((0, 2), int)).tolist() == [0, 1, 2]


def test_pairs_are_read_from_a_file_and_change_no_fingerprint(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("sentence,label,twin\na,negative,1\nb,positive,1\nc,positive,\nd,so so,2\n")
    means = {"so so": None}
    data = load_file(path, "sst2", meanings=means, pair_column="twin")
    assert data.pairs == ("1", "1", "")
    assert pairs_of(data).tolist() == [[0, 1]]
    assert data.fingerprint == load_file(path, "sst2", meanings=means).fingerprint
    with pytest.raises(DataError):
        load_file(path, "sst2", meanings=means, pair_column="pair")
