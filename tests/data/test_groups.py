"""Groups of inputs, none of them empty or made up; and minimal pairs, which intervals resample as one unit."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from shrp.data.slices import GROUPINGS, groups_by, input_groups
from shrp.data.sources import from_frame
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData, pairs_of, units_of
from shrp.errors import DataError

SST2, STSB = TASKS["sst2"], TASKS["stsb"]
LABELS = np.array([1, 0, 0, 1])
DATA = TextData(SST2, "made", tuple((text,) for text in "abcd"), LABELS, ("x", "y", "y", "x"))
ANSWERS, LENGTHS = np.array([1, 1, 0, 1]), np.array([3, 9, 5, 7])


def members(groups):
    return {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()}


def test_groups_of_classes():
    found = {by: members(groups) for by, groups in input_groups(DATA, ANSWERS, LENGTHS).items()}
    assert found == {
        "class": {"negative": [1, 2], "positive": [0, 3]},
        "answer": {"negative": [2], "positive": [0, 1, 3]},
        "outcome": {"right": [0, 2, 3], "wrong": [1]},
        "slice": {"x": [0, 3], "y": [1, 2]},
        "length": {"3 tokens": [0], "5 tokens": [2], "7 tokens": [3], "9 tokens": [1]},
    }
    assert tuple(found) == GROUPINGS


def test_groups_of_numbers_are_fourths_and_the_outcome_is_how_far_off():
    numbers = np.arange(8) / 2
    data = TextData(STSB, "made", tuple(("a", f"b {i}") for i in range(8)), numbers)
    found = {by: members(groups) for by, groups in input_groups(data, numbers[::-1]).items()}
    assert found["class"] == {"0 to 0.5": [0, 1], "1 to 1.5": [2, 3], "2 to 2.5": [4, 5], "3 to 3.5": [6, 7]}
    assert found["answer"]["0 to 0.5"] == [6, 7]
    assert [*found["outcome"].values()] == [[3, 4], [2, 5], [1, 6], [0, 7]]  # nearest first


def test_an_empty_group_is_none_and_neighbours_that_look_alike_are_one():
    bare = TextData(SST2, "bare", DATA.texts)
    assert members(groups_by("answer", bare, np.ones(4, dtype=int))) == {"positive": [0, 1, 2, 3]}
    near = 100000 + np.array([0.01, 0.02, 0.03, 0.04])
    data = TextData(STSB, "near", (("a", "b"),) * 4, near)
    assert members(groups_by("class", data)) == {"1e+05": [0, 1, 2, 3]}
    data = TextData(STSB, "near", (("a", "b"),) * 8, 3.12 + np.arange(8) * 1e-6)
    assert members(groups_by("class", data)) == {"3.12": [*range(8)]}


def test_what_is_not_known_is_left_out():
    bare = TextData(SST2, "bare", DATA.texts)
    assert [*input_groups(bare)] == []
    assert [*input_groups(bare, ANSWERS, LENGTHS)] == ["answer", "length"]
    for by in (*GROUPINGS, "author"):
        with pytest.raises(DataError, match=by if by != "answer" else "bare"):
            groups_by(by, bare)
    for wrong in ({"answers": [1, 0, 1]}, {"lengths": [1] * 5}):
        with pytest.raises(DataError, match="of the 4 examples of bare"):
            input_groups(bare, **wrong)


# Minimal pairs


def paired(labels, pairs):
    texts = tuple((f"text {i}",) for i in range(len(labels)))
    return TextData(SST2, "made", texts, np.array(labels), None, pairs)


FOUR = paired([1, 0, 0, 1, 0, 1, 1], ("a", "a", "b", "b", "c", "c", ""))


def test_pairs_are_two_inputs_with_different_labels():
    assert pairs_of(FOUR).tolist() == [[1, 0], [2, 3], [4, 5]]
    assert pairs_of(paired([1, 1, 0, 0, 1], ("same", "same", "three", "three", "three"))).shape == (0, 2)
    assert pairs_of(paired([1, 0], None)).shape == (0, 2)
    assert pairs_of(TextData(SST2, "made", (("a",), ("b",)), pairs=("x", "x"))).shape == (0, 2)
    with pytest.raises(DataError):
        paired([1, 0], ("a",))


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
