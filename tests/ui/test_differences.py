"""Paired comparisons that are kept, in whichever order they are asked for."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.paired import by_group, paired_difference
from ui import differences


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
