"""Plans: how many experts each layer keeps, which, with what weights, and what edits by hand do to them."""

import json

import numpy as np
import pytest

from shrp.errors import PlanError
from shrp.pruning.plan import LayerEdit, LayerPlan, PlanEdits, PruningPlan, allocate, make_plan

USAGE = {
    6: np.array([0.70, 0.20, 0.10, 0.00]),
    7: np.array([0.05, 0.05, 0.50, 0.40]),
    8: np.array([0.25, 0.25, 0.25, 0.25]),
}


@pytest.mark.parametrize("budget", [3, 4, 8, 12])
def test_a_budget_is_spent_whole_with_one_at_least_a_layer(budget):
    rng = np.random.default_rng(budget)
    for _ in range(20):
        usage = {layer: rng.dirichlet(np.full(4, 0.3)) for layer in (1, 4, 5)}
        counts = allocate(usage, budget=budget)
        assert sum(counts.values()) == budget
        assert all(1 <= count <= 4 for count in counts.values())
        plan = make_plan(usage, budget=budget)
        assert plan.budget == budget
        assert plan.keep_counts() == counts
        # Of what is kept beyond each layer's best, none is used less than anything that is left out.
        beyond = [s for layer, m in counts.items() for s in sorted(usage[layer])[::-1][1:m]]
        left = [s for layer, m in counts.items() for s in sorted(usage[layer])[::-1][m:]]
        assert not beyond or not left or min(beyond) >= max(left)


def test_selection_and_usage_weights():
    plan = dict(make_plan(USAGE, per_layer=2).layers)
    assert plan[6].experts == (0, 1)
    assert plan[6].weights == pytest.approx((0.7 / 0.9, 0.2 / 0.9))
    assert plan[7].experts == (2, 3)
    assert plan[7].weights == pytest.approx((5 / 9, 4 / 9))
    mean = make_plan(USAGE, per_layer=2, combination="mean")
    assert dict(mean.layers)[6] == LayerPlan((0, 1), (0.5, 0.5))
    assert (mean.selection, mean.combination) == ("usage", "mean")


def test_random_is_a_control_drawn_from_the_seed():
    draw = [make_plan(USAGE, per_layer=2, selection="random", seed=s) for s in range(8)]
    assert draw[3] == make_plan(USAGE, per_layer=2, selection="random", seed=3)
    assert len({plan.layers for plan in draw}) > 4
    assert all(plan.budget == 6 and plan.selection == "random" for plan in draw)
    for layer, one in (pair for plan in draw for pair in plan.layers):  # they weigh by usage, as others do
        share = USAGE[layer][list(one.experts)]
        assert one.weights == pytest.approx(share / share.sum())
    # The same counts as by usage, so that only the choice of experts differs.
    assert make_plan(USAGE, budget=7, selection="random").keep_counts() == allocate(USAGE, budget=7)
    # Every expert can be drawn, the most used no more than another.
    first = [dict(make_plan(USAGE, per_layer=1, selection="random", seed=s).layers)[6] for s in range(400)]
    counts = np.bincount([plan.experts[0] for plan in first], minlength=4)
    assert counts.min() > 60


def test_equality_and_keys():
    a = PruningPlan(((1, LayerPlan((3, 0), (0.3, 0.7))), (0, LayerPlan((2,), (1.0,)))))
    b = PruningPlan(((0, LayerPlan((2,), (1.0,))), (1, LayerPlan((0, 3), (0.7, 0.3)))))
    assert a == b == PruningPlan.from_dict(json.loads(json.dumps(a.to_dict())))
    assert {a: 1}[b] == 1  # the order of writing is no part of a plan
    other = PruningPlan(b.layers, selection="random")
    assert other != b
    assert other.key() == b.key()  # the same model, however it was chosen
    assert PruningPlan(((0, LayerPlan((2,), (0.9,))), b.layers[1])).key() != b.key()
    with pytest.raises(AttributeError):
        a.selection = "random"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either experts per layer or a global budget"),
        ({"per_layer": 1, "budget": 3}, "either experts per layer or a global budget"),
        ({"per_layer": 0}, "1 to 4"),
        ({"per_layer": 5}, "1 to 4"),
        ({"budget": 2}, r"3 \(one expert a layer\) to 12 \(all\), not 2"),
        ({"budget": 13}, "to 12"),
        ({"per_layer": 1, "selection": "best"}, "usage, gate_norm, ablation, fitted, random"),
        ({"per_layer": 1, "combination": "sum"}, "usage, mean"),
    ],
)
def test_impossible_plans_say_what_is_possible(options, words):
    with pytest.raises(PlanError, match=words):
        make_plan(USAGE, **options)


def test_plans_must_fit_the_model():
    plan = make_plan(USAGE, per_layer=4)
    plan.check_fits([8, 6, 7], 4)
    with pytest.raises(PlanError, match=r"layers \[6, 7, 8\].*are \[6, 7\]"):
        plan.check_fits([6, 7], 4)
    with pytest.raises(PlanError, match="experts are 0 to 2"):
        plan.check_fits([6, 7, 8], 3)
    with pytest.raises(PlanError, match="no routed layer"):
        make_plan({}, per_layer=1)
    with pytest.raises(PlanError, match="twice"):
        PruningPlan((plan.layers[0], plan.layers[0]))


def test_usage_and_scores_that_are_no_numbers_make_no_plan():
    nothing = {1: np.full(4, np.nan), 2: np.full(4, 0.25)}
    for usage in (nothing, {1: np.array([0.5, -0.1, 0.3, 0.3])}):
        for options in ({"per_layer": 2}, {"budget": 3}):
            with pytest.raises(PlanError, match="the usage of layer 1 is not of finite shares"):
                make_plan(usage, **options)
    even = {1: np.full(4, 0.25)}
    with pytest.raises(
        PlanError, match="the scores that selection ablation ranks experts by are not all finite"
    ):
        make_plan(even, per_layer=1, selection="ablation", scores={1: np.array([1, np.nan, 0, 0])})


# Edits


def edited(edits, **options):
    return dict(make_plan(USAGE, edits=PlanEdits(tuple(edits.items())), **options).layers)


def test_a_pin_takes_the_place_of_the_least_used_and_a_drop_gives_its_own_to_the_next():
    plan = edited({6: LayerEdit(pinned=(2,)), 7: LayerEdit(dropped=(2,))}, per_layer=2)
    assert plan[6].experts == (0, 2)
    assert plan[6].weights == pytest.approx((0.7 / 0.8, 0.1 / 0.8))  # renormalised over what is kept
    assert plan[7].experts == (0, 3)
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
