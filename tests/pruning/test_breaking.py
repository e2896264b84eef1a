"""At which size answers change, on answers made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.statistics import wilson
from shrp.pruning.breaking import ALL, breaking

N = 5
DATA = TextData(
    TASKS["sst2"],
    "mine",
    tuple((f"text {i}",) for i in range(N)),
    np.array([0, 1, 0, 1, 1]),
    ("a", "a", "b", "b", "b"),
)
ROUTED = (0, 1, 0, 1, 0)
ANSWERS = {  # by experts kept
    1: (1, 1, 1, 1, 1),
    2: (0, 1, 1, 1, 1),
    4: (1, 1, 0, 1, 1),
    8: (0, 1, 0, 1, 1),
}


def evaluation(answers, data=DATA, rows=None):
    rows = np.arange(len(data)) if rows is None else np.array(rows)
    logits = np.eye(2)[list(answers)][rows] if not data.task.is_regression else np.array(answers)[rows, None]
    return summarise(data, rows, logits.astype(float), False)


def found(rows=None, answers=ANSWERS):
    prunings = [(size, evaluation(one, rows=rows)) for size, one in answers.items()]
    return breaking(evaluation(ROUTED, rows=rows), prunings[::-1])  # their order is no matter


def test_an_answer_holds_from_where_no_larger_size_changes_it():
    one = found()
    assert one.sizes.tolist() == [1, 2, 4, 8]
    # Of the first, two experts give the answer, but four do not.
    assert one.holds_from[:4].tolist() == [8, 1, 4, 1]
    assert np.isnan(one.holds_from[4])  # even the largest has another
    assert one.changes.tolist() == [2, 0, 2, 0, 4]


@pytest.mark.parametrize("rows", [None, [3, 1, 4, 0, 2]])
def test_groups_count_the_same_inputs_in_whatever_order_they_were_scored(rows):
    groups = {name: np.array([one == name for one in DATA.slices]) for name in ("a", "b", "c")}
    frame = found(rows).by_group(groups).set_index(["group", "kept"])
    assert list(dict.fromkeys(frame.index.get_level_values(0))) == [ALL, "a", "b"]  # nothing is in c
    assert frame.loc[ALL, "changed"].tolist() == [3, 2, 2, 1]
    assert frame.loc["a", "share"].tolist() == [0.5, 0, 0.5, 0]
    assert frame.loc["b", "changed"].tolist() == [2, 2, 1, 1]
    last = frame.loc[("b", 8)]
    assert (last["n"], last["low"], last["high"]) == (3, *wilson(1, 3))


def test_the_table_has_what_breaks_first_on_top():
    frame = found([3, 1, 4, 0, 2]).to_frame(DATA)
    assert frame["index"].tolist() == [4, 0, 2, 1, 3]
    assert frame["sentence"].tolist() == [f"text {i}" for i in frame["index"]]
    assert frame["label"].tolist() == ["positive", "negative", "negative", "positive", "positive"]
    assert frame["slice"].tolist() == ["b", "a", "b", "a", "b"]
    assert frame["answer"].tolist() == ["negative", "negative", "negative", "positive", "positive"]
    assert frame["becomes"].tolist() == ["positive", "positive", "positive", None, None]
    assert frame["holds from"].tolist()[1:] == [8, 4, 1, 1]
    assert frame["changes"].tolist() == [4, 2, 2, 0, 0]


def test_without_labels_and_slices_there_are_no_such_columns():
    bare = replace(DATA, labels=None, slices=None)
    one = breaking(evaluation(ROUTED, bare), [(2, evaluation(ANSWERS[2], bare))])
    assert list(one.to_frame(bare)) == ["index", "sentence", "answer", "becomes", "holds from", "changes"]


def test_numbers_differ_by_a_tenth_of_what_labels_span():
    data = TextData(
        TASKS["stsb"], "mine", tuple((f"a {i}", f"b {i}") for i in range(3)), np.array([0.0, 2.0, 5.0])
    )
    one = breaking(
        evaluation([1, 2, 3], data), [(1, evaluation([1.4, 2.6, 3], data)), (2, evaluation([1, 2, 3], data))]
    )
    assert one.changed[:, 0].tolist() == [False, True, False]
    frame = one.to_frame(data)
    assert frame["becomes"].tolist()[0] == pytest.approx(2.6)
    assert frame["holds from"].tolist() == [2, 1, 1]


def test_a_text_column_may_have_our_columns_names():
    task = replace(TASKS["sst2"], text_columns=("answer",), name="own")
    data = replace(DATA, task=task)
    frame = breaking(evaluation(ROUTED, data), [(1, evaluation(ANSWERS[1], data))]).to_frame(data)
    assert frame["answer (text)"].tolist()[0].startswith("text")


def test_what_can_not_be_compared_is_refused():
    with pytest.raises(DataError, match="No pruning was evaluated"):
        breaking(evaluation(ROUTED), [])
    with pytest.raises(DataError, match="not of the same inputs"):
        breaking(evaluation(ROUTED), [(1, evaluation(ANSWERS[1], rows=[3, 1, 4, 0]))])


def test_each_may_have_scored_the_inputs_in_an_order_of_its_own():
    mixed = breaking(
        evaluation(ROUTED, rows=[4, 3, 2, 1, 0]),
        [(size, evaluation(one, rows=np.roll(range(N), size))) for size, one in ANSWERS.items()],
    )
    assert mixed.changed.tolist() == found().changed.tolist()
