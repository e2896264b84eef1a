"""Typed inputs are found among those of the data, however they were spaced; what stands there twice is told apart."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from ui.known_labels import SEVERAL, labels_of
from ui.store import results


@pytest.fixture(autouse=True)
def nothing_kept():
    results.clear()
    yield
    results.clear()


def data(task, texts, labels):
    return TextData(TASKS[task], "mine", tuple(texts), np.array(labels))


def test_labels_are_told_of_inputs_of_the_data_alone():
    mine = data(
        "sst2",
        [("One  two",), ("three\n four",), ("five",), ("five",), ("six",), ("six",)],
        [0, 1, 0, 1, 1, 1],
    )
    typed = [("One two",), ("three four",), ("five",), ("six",), ("seven",)]
    assert labels_of(mine, typed) == ["negative", "positive", SEVERAL, "positive", None]
    assert labels_of(replace(mine, labels=None), typed) == [None] * 5
    assert labels_of(None, typed) == [None] * 5


def test_pairs_and_numbers_too():
    mine = data("stsb", [("a", "b"), ("b", "a")], [2.5, 3.0])
    assert labels_of(mine, [("a", "b"), ("b", "a"), ("a", "a")]) == ["2.5", "3", None]
