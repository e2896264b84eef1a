"""Some slices of the data alone."""

import numpy as np
import pytest

from shrp.data.slices import only
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError


def data_of(*texts, **parts):
    return TextData(TASKS["sst2"], "mine", tuple((text,) for text in texts), **parts)


def test_some_slices_alone_are_data_of_their_own():
    whole = data_of("a", "b", "c", "d", labels=np.array([0, 1, 1, 0]), slices=("x", "y", "x", "z"))
    part, rows = only(whole, ["z", "x"])
    assert rows.tolist() == [0, 2, 3]
    assert (part.name, part.texts) == ("mine, only x, z (3 of 4)", (("a",), ("c",), ("d",)))
    assert (part.labels.tolist(), part.slices) == ([0, 1, 0], ("x", "x", "z"))
    many = data_of(*"abcde", slices=tuple("abcde"))
    assert only(many, list("abcde"))[0].name == "mine, only a, b, c, d, e (5 of 5)"
    long = [f"{letter * 100}{end}" for letter in "ab" for end in "12"]
    named = data_of(*"abcd", slices=tuple(long))
    names = {only(named, [long[0], one])[0].name for one in long[1:]}
    assert len(names) == 3  # alike as far as they are told, and not the same data
    assert max(map(len, names)) < 200
    with pytest.raises(DataError, match="no slice 'w'; it has x, y, z"):
        only(whole, ["x", "w"])
    with pytest.raises(DataError, match="has no slices"):
        only(data_of("a"), ["x"])
