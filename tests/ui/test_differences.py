"""Paired comparisons that are kept, in whichever order they are asked for; and with the majority-class baseline."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.paired import by_group, paired_difference
from ui import differences
from ui.differences import exact, floor_of, floor_warning


@pytest.fixture
def two():
    """Evaluations of two models of numbers on the same 40 inputs, in two slices."""
    rng = np.random.default_rng(0)
    labels = rng.random(40) * 5
    data = TextData(TASKS["stsb"], "made", (("a", "b"),) * 40, labels, ("x", "y") * 20)
    noisy = [(labels + rng.normal(size=40) * spread).astype(np.float32)[:, None] for spread in (0.5, 2)]
    return [summarise(data, np.arange(40), outputs, False) for outputs in noisy]


def test_they_are_those_of_the_library_and_are_kept(two, monkeypatch):
    expected, groups = paired_difference(*two), by_group(*two, "slice")
    assert differences.difference(*two) == expected
    found = differences.groups(*two, "slice")
    assert found.equals(groups)
    found["n"] = 0  # a page's own
    for name in ("paired_difference", "by_group"):
        monkeypatch.setattr(differences, name, lambda *_, **__: pytest.fail("it is made again"))
    again = [replace(one) for one in two]  # another object with the same outputs
    assert differences.difference(*again) == expected
    assert differences.groups(*again, "slice").equals(groups)


def test_other_outputs_labels_slices_or_draws_are_others(two):
    one, other = two
    known = differences.difference(one, other)
    assert differences.difference(other, one)[0] == -known[0]
    assert differences.difference(one, other, resamples=100) != known
    shifted = replace(other, labels=other.labels[::-1].copy())
    assert differences.difference(replace(one, labels=shifted.labels), shifted)[0] != known[0]
    classes = []
    for names in (("bad", "good"), ("sad", "glad")):  # of one task, whose names were corrected meanwhile
        task = custom_task("moods", ("review",), names)
        data = TextData(task, "made", (("a",),) * 4, np.array([0, 1, 0, 1]))
        same = summarise(data, np.arange(4), np.eye(2, dtype=np.float32)[[0, 1, 1, 1]], False)
        classes.append(differences.groups(same, same, "class")["group"].tolist())
    assert [set(names) for names in classes] == [{"bad", "good"}, {"sad", "glad"}]
    by_own = [replace(each, slices=("z",) * 40) for each in two]
    assert differences.groups(*two, "slice")["group"].tolist() != ["z"]
    assert differences.groups(*by_own, "slice")["group"].tolist() == ["z"]


# The majority-class baseline


DATA = TextData(TASKS["mrpc"], "d", (("a", "b"),) * 4, np.array([1, 1, 0, 0]))


def test_the_baseline_answers_with_the_best_single_class():
    assert floor_of(DATA) == pytest.approx(2 / 3)  # F1 of always "equivalent"
    assert math.isnan(floor_of(replace(DATA, labels=None)))


def test_models_that_are_not_above_it_are_named(tiny_data):
    data = tiny_data(12)
    low = floor_of(data)
    high = low + 0.01
    assert floor_warning(data, [("the pruned model", high), ("the teacher", exact(None))]) == ""
    estimate, found = (SimpleNamespace(score=low, complete=complete) for complete in (False, True))
    assert floor_warning(data, [("the pruned model", exact(estimate))]) == ""
    assert floor_warning(data, [("the pruned model", exact(found))])
    said = floor_warning(data, [("the pruned model", low), ("the routed one", high), ("the teacher", low)])
    assert all(part in said for part in ("The pruned model (", "the teacher (", f"(n = {len(data)})"))
    assert "the routed one" not in said
    many = [(name, low - i / 100) for i, name in enumerate("abcde")] + [("f", high)]
    assert floor_warning(data, many).startswith("5 of 6 models")
    assert "The pruned model" not in floor_warning(replace(data, labels=None), [("the pruned model", low)])


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"A": (-0.03, 0.01), "B": (math.nan, math.nan)}, "No significant difference from A."),
        ({"A": (-0.05, -0.01), "B": (-0.09, -0.02)}, "Significantly below A and B."),
        ({"A": (0.01, 0.05), "B": (-0.01, 0.02)}, "Significantly above A. No significant difference from B."),
    ],
)
def test_every_known_difference_is_significant_or_not(bounds, said):
    assert differences.significance(bounds).strip() == said
