"""Minimal pairs on made-up outputs and routes, against what can be counted by hand."""

import numpy as np
import pytest

from shrp.analysis.usage import UsageStats
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData, pairs_of, units_of
from shrp.errors import DataError
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.minimal_pairs import (
    ALL,
    MIXED,
    MOST_MIXED,
    pair_changes,
    pair_outcomes,
    slices_of,
)
from shrp.evaluation.statistics import paired_interval, wilson

SST2 = TASKS["sst2"]


def made(labels, pairs, task=SST2, slices=None):
    texts = tuple((f"text {i}",) for i in range(len(labels)))
    return TextData(task, "made", texts, None if labels is None else np.array(labels), slices, pairs)


def logits(*margins):
    """Two logits an input, the second ahead by so much."""
    return np.array([[-m / 2, m / 2] for m in margins], dtype=np.float32)


FOUR = made([1, 0, 0, 1, 0, 1, 1], ("a", "a", "b", "b", "c", "c", ""), slices=(*"xxyyxx", "x"))


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


def test_a_pair_is_in_order_whatever_the_threshold():
    #          a: in order, both "1"; b: both right; c: the wrong way round
    found = pair_outcomes(FOUR, logits(3, 2, -1, 1, 0.5, 0.4, 0))
    assert found.ahead.tolist() == [True, True, False]
    assert found.both_right.tolist() == [False, True, False]
    assert (found.n, found.in_order) == (3, 2)
    assert found.interval == wilson(2, 3)
    frame = found.by_slice().set_index("slice")
    assert frame.index.tolist() == [ALL, "x", "y"]
    assert frame[["n", "in_order", "both_right"]].to_numpy().tolist() == [[3, 2, 1], [2, 1, 0], [1, 1, 1]]
    assert frame.loc["x", "share"] == 0.5
    shifted = pair_outcomes(FOUR, logits(*(m - 50 for m in (3, 2, -1, 1, 0.5, 0.4, 0))))
    assert shifted.ahead.tolist() == found.ahead.tolist()
    assert not shifted.both_right.any()


def test_two_models_are_held_against_each_other_pair_by_pair():
    first = pair_outcomes(FOUR, logits(3, 2, -1, 1, 0.5, 0.4, 0))  # a and b in order
    second = pair_outcomes(FOUR, logits(1, 2, -1, 1, 0.1, 0.4, 0))  # b and c
    frame = pair_changes(first, second).set_index("group")
    assert frame.index.tolist() == [ALL, "x", "y"]
    assert frame[["n", "only_reference", "only_other"]].to_numpy().tolist() == [
        [3, 1, 1],
        [2, 1, 1],
        [1, 0, 0],
    ]
    worse = pair_outcomes(FOUR, logits(1, 2, 1, -1, 0.1, 0.4, 0))  # c
    frame = pair_changes(first, worse).set_index("group")
    assert frame.index.tolist() == [ALL, "y", "x"]  # the largest loss first
    assert frame.loc["y", "change"] == -1
    assert frame.loc[ALL, ["change low", "change high"]].tolist() == list(paired_interval(1, 2, 3))
    assert frame.loc[ALL, ["reference", "other"]].tolist() == pytest.approx([2 / 3, 1 / 3])
    other = made([1, 0], ("a", "a"))
    with pytest.raises(DataError):
        pair_changes(first, pair_outcomes(other, logits(1, 0)))


def test_equal_outputs_are_not_in_order():
    assert pair_outcomes(FOUR, logits(*[1] * 7)).in_order == 0


def test_an_evaluation_in_any_order_says_the_same():
    outputs = logits(3, 2, -1, 1, 0.5, 0.4, 0)
    order = np.array([6, 2, 0, 1, 5, 4, 3])
    whole = summarise(FOUR, order, outputs[order], with_interval=False)
    assert pair_outcomes(FOUR, whole).ahead.tolist() == [True, True, False]
    part = summarise(FOUR, order[:3], outputs[order[:3]], with_interval=False)
    with pytest.raises(DataError):
        pair_outcomes(FOUR, part)
    with pytest.raises(DataError):
        pair_outcomes(made([1, 0], None), logits(1, 2))


def test_of_three_classes_the_pairs_own_two_count():
    task = custom_task("t", ("text",), ("a", "b", "c"))
    data = made([0, 2, 1, 2], ("p", "p", "q", "q"), task=task)
    outputs = np.array([[1, 9, 0], [0, 9, 0], [0, 1, 1], [9, 1, 0]], dtype=np.float32)
    # p: c less a is -1 and 0, so in order; q: c less b is 0 and -1, so not
    assert pair_outcomes(data, outputs).ahead.tolist() == [True, False]


def test_of_numbers_the_greater_one_counts():
    data = TextData(
        TASKS["stsb"], "made", (("a", "b"),) * 4, np.array([4.5, 1.0, 2.0, 3.0]), pairs=(*"ppqq",)
    )
    found = pair_outcomes(data, np.array([[3.0], [2.9], [4.0], [1.0]], dtype=np.float32))
    assert found.pairs.tolist() == [[1, 0], [2, 3]]
    assert found.ahead.tolist() == [True, False]
    assert not found.both_right.any()


def routes(*chosen, experts=3):
    """Usage of one layer, 5, in which the inputs take these experts."""
    top1 = np.eye(experts)[list(chosen)]
    return UsageStats("made", "inputs", {5: top1}, {5: top1}, {5: np.ones(len(top1))}, {})


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


def test_a_pair_in_two_slices_is_named_by_both_unless_that_makes_very_many():
    texts = tuple((f"w{i}",) for i in range(2 * (MOST_MIXED + 2)))
    pairs = np.arange(len(texts)).reshape(-1, 2)
    alike = TextData(TASKS["cola"], "made", texts, slices=("a", "b") * len(pairs))
    assert set(slices_of(alike, pairs)) == {"a / b"}
    own = [f"s{i}" for i in range(len(texts) - 2)]
    apart = TextData(TASKS["cola"], "made", texts, slices=(*own, "a", "a"))
    assert slices_of(apart, pairs) == (*[MIXED] * (len(pairs) - 1), "a")


def test_slices_named_as_all_pairs_or_as_mixed_ones_keep_their_figures():
    names = (ALL, ALL, MIXED, MIXED, f"{ALL} (slice)", f"{ALL} (slice)")
    named = made([1, 0, 0, 1, 0, 1], tuple("aabbcc"), slices=names)
    frame = pair_outcomes(named, logits(1, 0, 1, 0, 0, 1)).by_slice()
    assert frame["slice"].tolist() == [ALL, f"{ALL} (slice) (slice)", f"{MIXED} (slice)", f"{ALL} (slice)"]
    assert frame["n"].tolist() == [3, 1, 1, 1]
    assert frame["in_order"].tolist() == [2, 1, 0, 1]
