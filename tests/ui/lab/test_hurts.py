"""The flips as they are downloaded: a person's own column names beside the models' names and ours."""

import numpy as np
import pandas as pd
import pytest

from shrp.data.tasks import custom_task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import flip_table
from ui.lab.hurts import _taken_along

NAMES = ("dense teacher", "pruned")


def evaluation(task, logits, labels):
    n = len(logits)
    logits, bounds = np.array(logits, dtype=np.float32), (0.1, 0.9)
    return Evaluation(
        task, "made", task.metric, 0.5, bounds, n, n, {}, np.arange(n), logits, np.array(labels), None
    )


@pytest.fixture
def flipped():
    """`flipped(*columns)`: the task with these text columns, and two flips of it."""

    def build(*columns):
        task = custom_task("mine", columns, ("bad", "good"))
        texts = tuple(tuple(f"{column}, row {row}" for column in columns) for row in range(3))
        data = TextData(task, "made", texts, np.array([0, 1, 1]), ("a kind", "another", "a kind"))
        one = evaluation(task, [[2, 0], [0, 1], [3, 0]], data.labels)
        other = evaluation(task, [[0, 2], [0, 1], [0, 3]], data.labels)
        return task, flip_table(one, other, data)

    return build


def test_the_models_names_are_in_the_columns(flipped):
    task, frame = flipped("review")
    assert list(_taken_along(frame, task, NAMES)) == [
        *("index", "review", "label", "dense teacher", "pruned"),
        *("p is of class", "p dense teacher", "p pruned", "slice", "direction"),
    ]


@pytest.mark.parametrize(
    "columns",
    [
        ("review",),
        ("pruned",),
        ("dense teacher", "pruned"),
        ("p pruned", "p is of class"),
        ("label", "slice"),
        ("index", "direction"),
        ("reference", "other"),
        ("class", "p_reference"),
        ("pruned", "pruned (text)"),
        ("label", "label (text)"),
    ],
)
def test_text_columns_that_are_named_like_others_take_no_columns_place(flipped, columns):
    task, frame = flipped(*columns)
    before = frame.copy()
    taken = _taken_along(frame, task, NAMES)
    assert taken.columns.is_unique
    assert taken.shape == frame.shape == (2, 9 + len(columns))
    for place in range(taken.shape[1]):
        assert taken.iloc[:, place].tolist() == frame.iloc[:, place].tolist()
    for number, column in enumerate(columns):  # a text stays under its own name, if perhaps with a word more
        (own,) = [name for name in taken if taken[name].tolist() == [f"{column}, row 0", f"{column}, row 2"]]
        assert own.startswith(column)
        assert list(taken).index(own) == 1 + number
    assert taken["dense teacher"].tolist() == ["bad", "bad"]
    assert taken["pruned"].tolist() == ["good", "good"]
    assert taken["label"].tolist() == ["bad", "good"]
    assert taken["p is of class"].tolist() == taken["label"].tolist()
    assert taken["p pruned"].tolist() == pytest.approx([1 / (1 + np.e**2), 1 / (1 + np.e**-3)])
    pd.testing.assert_frame_equal(frame, before)
