"""Edits of a plan by hand: what they do to a plan, and which contradict themselves."""

import numpy as np
import pytest

from shrp.errors import PlanError
from shrp.pruning.plan import LayerEdit, LayerPlan, PlanEdits, PruningPlan, make_plan

USAGE = {
    6: np.array([0.70, 0.20, 0.10, 0.00]),
    7: np.array([0.05, 0.06, 0.50, 0.39]),
    8: np.array([0.25, 0.25, 0.25, 0.25]),
}


def edited(edits, **options):
    return dict(make_plan(USAGE, edits=PlanEdits(tuple(edits.items())), **options).layers)


def test_a_pin_takes_the_place_of_the_least_used_and_a_drop_gives_its_own_to_the_next():
    plan = edited({6: LayerEdit(pinned=(2,)), 7: LayerEdit(dropped=(2,))}, per_layer=2)
    assert plan[6].experts == (0, 2)
    assert plan[6].weights == pytest.approx((0.7 / 0.8, 0.1 / 0.8))  # renormalised over what is kept
    assert plan[7].experts == (1, 3)
    mean = edited({6: LayerEdit(pinned=(2,))}, per_layer=2, combination="mean")
    assert mean[6] == LayerPlan((0, 2), (0.5, 0.5))


@pytest.mark.parametrize(
    ("layer", "edit", "words"),
    [
        (5, LayerEdit(1), "layer 5 is not among the model's converted layers 6, 7, 8"),
        (6, LayerEdit(0), "layer 6 can keep 1 to 4 experts, not 0"),
        (6, LayerEdit(pinned=(4,)), "no expert 4; experts are 0 to 3"),
        (6, LayerEdit(dropped=(0, 1, 2, 3)), "all 4 experts of layer 6 would be dropped"),
        (6, LayerEdit(pinned=(1,), dropped=(1,)), "expert 1 of layer 6 is both pinned and dropped"),
        (6, LayerEdit(1, pinned=(0, 1)), "set to keep 1 and has 2 experts pinned"),
        (6, LayerEdit(3, dropped=(0, 1)), "set to keep 3, but only 2 of its experts are not dropped"),
    ],
)
def test_edits_that_cannot_be_are_refused_in_words(layer, edit, words):
    with pytest.raises(PlanError, match=words):
        make_plan(USAGE, per_layer=2, edits=PlanEdits(((layer, edit),)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a readable JSON file"),
        ("[" * 100_000, "not a readable JSON file"),
        ("[1, 2]", "not a pruning plan"),
        ('{"layers": []}', "not a pruning plan"),
        ('{"layers": {"a": {"experts": [0], "weights": [1]}}}', "not a pruning plan"),
        ('{"layers": {"1": {"experts": [], "weights": []}}}', "at least one"),
        ('{"layers": {"6": {"experts": [1e999], "weights": [1]}}}', "not a pruning plan"),
        ('{"layers": {"6": {"experts": "01", "weights": [0.5, 0.5]}}}', "not a pruning plan"),
        ('{"layers": {"6": {"experts": [0], "weights": [NaN]}}}', "one finite weight each"),
        ('{"layers": {"6": {"experts": [0], "weights": [7]}}}', "weights of layer 6 sum to 7"),
        ('{"layers": {"6": {"experts": [0, 1], "weights": [2, -1]}}}', "weights of layer 6"),
        ('{"layers": {"6": {"experts": [0, 0], "weights": [0.5, 0.5]}}}', "distinct"),
    ],
)
def test_a_broken_plan_file_is_refused_in_words(text, words):
    with pytest.raises(PlanError, match=words):
        PruningPlan.from_json(text)
