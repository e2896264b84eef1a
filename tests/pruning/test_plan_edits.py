"""Edits of a plan by hand: what they do to a plan, and which contradict themselves."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.errors import PlanError
from shrp.pruning.plan import NO_EDITS, LayerEdit, LayerPlan, PlanEdits, PruningPlan, edits_of, make_plan

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


def test_a_plan_as_edits_gives_the_same_plan_whatever_the_setting():
    given = PruningPlan(
        (
            (6, LayerPlan((1, 3), (0.25, 0.75))),
            (7, LayerPlan((0,), (1.0,))),
            (8, LayerPlan((0, 1, 2, 3), (0.1, 0.2, 0.3, 0.4))),
        )
    )
    for options in ({"budget": 3}, {"per_layer": 4, "combination": "mean", "selection": "random"}):
        plan = make_plan(USAGE, edits=edits_of(given), **options)
        assert plan.key() == given.key()
        assert (plan.selection, plan.combination) == ("usage", "given weights")
    # A layer that is edited after that weighs its experts by usage again.
    edits = edits_of(given).with_layer(6, edits_of(given).of(6).with_count(3))
    assert dict(make_plan(USAGE, per_layer=1, edits=edits).layers)[6].experts == (0, 1, 3)
    assert dict(make_plan(USAGE, per_layer=1, edits=edits).layers)[6].weights == pytest.approx(
        (7 / 9, 2 / 9, 0)
    )


def test_a_random_control_stays_one_where_it_comes_from_a_file():
    drawn = make_plan(USAGE, per_layer=2, selection="random", seed=3)
    edits = edits_of(drawn)
    again = make_plan(USAGE, budget=4, edits=edits)
    assert (again.selection, again.key()) == ("random", drawn.key())
    assert edits_of(again) == edits
    changed = edits.with_layer(6, LayerEdit(1))
    assert make_plan(USAGE, budget=4, edits=changed).selection == "random with edits"
    assert edits_of(make_plan(USAGE, budget=4, edits=changed)).origin == "random"
    used = edits_of(make_plan(USAGE, per_layer=2)).with_layer(6, LayerEdit(1))
    mixed = make_plan(USAGE, budget=4, edits=used, selection="random")
    assert mixed.selection == "random with edits"  # layer 6's is a draw
    by_norm = {layer: share[::-1] for layer, share in USAGE.items()}
    mixed = make_plan(USAGE, budget=4, edits=used, selection="gate_norm", scores=by_norm)
    assert mixed.selection == "given with edits"
    assert make_plan(USAGE, budget=4, edits=used).selection == "usage with edits"
    more = edits_of(make_plan(USAGE, per_layer=1))
    for layer in USAGE:  # none has the file's weights any more
        more = more.with_layer(layer, more.of(layer).with_count(2))
    assert make_plan(USAGE, budget=4, edits=more, selection="random").selection == "random with edits"
    for unknown in ("", "<script>", "oracle", "given"):
        given = edits_of(replace(drawn, selection=unknown))
        assert make_plan(USAGE, budget=4, edits=given).selection == "given"
    assert edits.with_layer(6, LayerEdit()).origin == "random"
    assert PlanEdits((), "random") == NO_EDITS


@pytest.mark.parametrize(
    ("layer", "edit", "words"),
    [
        (5, LayerEdit(1), "layer 5 is not among the model's converted layers 6, 7, 8"),
        (6, LayerEdit(0), "layer 6 can keep 1 to 4 experts, not 0"),
        (6, LayerEdit(5), "layer 6 can keep 1 to 4 experts, not 5"),
        (6, LayerEdit(pinned=(4,)), "no expert 4; experts are 0 to 3"),
        (6, LayerEdit(dropped=(-1,)), "no expert -1"),
        (6, LayerEdit(dropped=(0, 1, 2, 3)), "all 4 experts of layer 6 would be dropped"),
        (6, LayerEdit(pinned=(1,), dropped=(1,)), "expert 1 of layer 6 is both pinned and dropped"),
        (6, LayerEdit(1, pinned=(0, 1)), "set to keep 1 and has 2 experts pinned"),
        (6, LayerEdit(3, dropped=(0, 1)), "set to keep 3, but only 2 of its experts are not dropped"),
        (6, LayerEdit(2, (0, 1), weights=(1.0,)), "one weight for each"),
        (6, LayerEdit(1, (0, 1), weights=(0.5, 0.5)), "set to keep 1 and has 2"),
        (6, LayerEdit(2, (0, 1), weights=(0.5, 0.6)), "weights of layer 6 sum to 1.1"),
        (6, LayerEdit(2, (0, 1), weights=(-0.5, 1.5)), "weights of layer 6"),
        (6, LayerEdit(2, (0, 1), weights=(float("nan"), 1.0)), "weights of layer 6"),
    ],
)
def test_edits_that_cannot_be_are_refused_in_words(layer, edit, words):
    with pytest.raises(PlanError, match=words):
        make_plan(USAGE, per_layer=2, edits=PlanEdits(((layer, edit),)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a readable JSON file"),
        ("layer,expert", "not a readable JSON file"),
        ("[" * 100_000, "not a readable JSON file"),
        ("[1, 2]", "not a pruning plan"),
        ('{"layers": []}', "not a pruning plan"),
        ('{"layers": {"a": {"experts": [0], "weights": [1]}}}', "not a pruning plan"),
        ('{"layers": {"1": {"experts": [0]}}}', "not a pruning plan"),
        ('{"layers": {"1": {"experts": [], "weights": []}}}', "at least one"),
        ('{"layers": {"6": {"experts": [0.5], "weights": [1]}}}', "not a pruning plan"),
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
