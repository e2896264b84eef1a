"""A score is compared with the majority-class baseline's."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from ui.differences import exact, floor_of, floor_warning

MRPC = TASKS["mrpc"]
DATA = TextData(MRPC, "d", (("a", "b"),) * 4, np.array([1, 1, 0, 0]))


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
