"""Which examples are minimal pairs, and the units that intervals resample."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from shrp.data.sources import from_frame
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


def test_pairs_are_read_from_a_table_and_change_no_fingerprint():
    frame = pd.DataFrame({"sentence": [*"abcd"], "label": ["negative", "positive", "positive", "so so"]})
    frame["twin"] = ["1", "1", "", "2"]
    read = partial(from_frame, frame, SST2, "made", "label", None, meanings={"so so": None})
    data = read(pair_column="twin")
    assert data.pairs == ("1", "1", "")
    assert pairs_of(data).tolist() == [[0, 1]]
    assert data.fingerprint == read().fingerprint
    with pytest.raises(DataError):
        read(pair_column="pair")
