"""The table of inputs with the model's answers: what it holds, and what it can be narrowed to."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import summarise
from ui.overview import answers_table
from ui.overview.answers_table import ALL, FARTHEST, OFF, RIGHT, SURE, UNSURE, WRONG

TEXTS = (("It is not bad.",), ("A knot of nothing",), ("Never again",), ("It is NOT good",))
LOGITS = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [0.5, 0.0]], np.float32)


@pytest.fixture
def data():
    return TextData(TASKS["sst2"], "mine.csv", TEXTS, np.array([1, 0, 0, 1]), ("a_b", "a_b", "c", "c"))


def frame_of(data, logits=LOGITS, order=(0, 1, 2, 3)):
    rows = np.array(order)
    return answers_table.answers_frame(summarise(data, rows, logits[rows], False), data)[0]


def test_every_input_stands_in_its_row_with_the_answer_and_how_sure_it_is(data):
    frame = frame_of(data, order=(2, 0, 3, 1))
    assert frame["sentence"].tolist() == [text for (text,) in TEXTS]
    assert frame["prediction"].tolist() == ["positive", "positive", "negative", "negative"]
    assert frame["correct"].tolist() == [True, False, True, False]
    assert frame[SURE].tolist() == pytest.approx([1 / (1 + np.exp(-x)) for x in (1, 3, 2, 0.5)])
    assert answers_table.choices(frame) == [ALL, WRONG, RIGHT, UNSURE]
    bare = frame_of(replace(data, labels=None, slices=None))
    assert "correct" not in bare
    assert answers_table.choices(bare) == [ALL, UNSURE]


@pytest.mark.parametrize(
    ("which", "search", "rows"),
    [
        (ALL, "", [0, 1, 2, 3]),
        (WRONG, "", [1, 3]),
        (RIGHT, "", [0, 2]),
        (UNSURE, "", [3, 0, 2, 1]),
        (ALL, "not", [0, 1, 3]),  # the beginning of `nothing`, and of no `knot`
        (ALL, "NOT it", [0, 3]),
        (WRONG, "not good", [3]),
        (ALL, "电影", [3]),  # words that nothing parts
        (ALL, "(.*", []),
        (WRONG, "never", []),
    ],
)
def test_it_is_narrowed_by_right_and_wrong_and_by_words(data, which, search, rows):
    data = replace(data, texts=(*TEXTS[:3], ("It is NOT good 我觉得这部电影很好",)))
    shown = answers_table.narrowed(frame_of(data), which, search, ["sentence"])
    assert shown["index"].tolist() == rows


def test_of_numbers_it_says_how_far_off_they_are():
    texts = (("a", "b"), ("c", "d"), ("e", "f"))
    data = TextData(TASKS["stsb"], "pairs", texts, np.array([1.0, 4.0, 2.0]))
    frame = frame_of(data, np.array([[1.5], [1.0], [2.1]], np.float32), (0, 1, 2))
    assert frame[OFF].tolist() == pytest.approx([0.5, -3.0, 0.1])
    assert answers_table.choices(frame) == [ALL, FARTHEST]
    shown = answers_table.narrowed(frame, FARTHEST, "", ["sentence1", "sentence2"])
    assert shown["index"].tolist() == [1, 0, 2]
    unlabelled = frame_of(replace(data, labels=None), np.zeros((3, 1), np.float32), (0, 1, 2))
    assert answers_table.choices(unlabelled) == [ALL]


@pytest.mark.parametrize("name", ["label", "index", SURE, "p(negative)"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_column_of_texts_that_is_named_like_ours_stays_a_column_of_texts(data, name, labelled):
    data = replace(data, task=replace(data.task, text_columns=(name,)))
    data = data if labelled else replace(data, labels=None, slices=None)
    frame, texts = answers_table.answers_frame(summarise(data, np.arange(4), LOGITS, False), data)
    assert frame[texts[0]].tolist() == [text for (text,) in TEXTS]
    assert frame.columns.is_unique
    assert texts[0] not in answers_table._OURS  # which the page shows beside it
    assert ("correct" in frame) == labelled


def test_the_page_shows_a_pair_in_one_column_and_marks_what_is_right():
    texts = (("a b", "c"), ("d", "e"))
    data = TextData(TASKS["mrpc"], "pairs", texts, np.array([1, 0]), ("x_y", "z"))
    logits = np.array([[0.0, 1.0], [0.0, 3.0]], np.float32)
    frame, names = answers_table.answers_frame(summarise(data, np.arange(2), logits, False), data)
    rows = answers_table.shown_rows(frame, names)
    assert rows.iloc[:, 1].tolist() == ["a b / c", "d / e"]
    assert rows["correct"].tolist() == ["✓", "✗"]
    assert rows["label"].tolist() == ["equivalent", "not equivalent"]
    assert rows["slice"].tolist() == ["x y", "z"]
    assert rows[SURE].tolist() == pytest.approx([100 / (1 + np.exp(-x)) for x in (1, 3)])
    assert frame["label"].tolist() == ["equivalent", "not_equivalent"]  # the file keeps names as they are
