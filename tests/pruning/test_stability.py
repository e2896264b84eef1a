"""Overlap of kept experts: by hand, against random draws, and what counts as kept."""

import numpy as np
import pytest

from shrp.errors import PlanError
from shrp.pruning.overlap import chance_jaccard, jaccard, used_experts
from shrp.pruning.plan import make_plan
from shrp.studies.stability import overlaps


def test_jaccard_by_hand():
    assert jaccard([1, 2], [2, 3]) == pytest.approx(1 / 3)
    assert jaccard([1], [1]) == 1
    assert jaccard([1], [2]) == 0
    assert np.isnan(jaccard([], []))


@pytest.mark.parametrize("sizes", [[(1, 1)], [(3, 5)], [(2, 2), (1, 4), (12, 3)], [(12, 12)], [(0, 2)]])
def test_chance_is_what_random_draws_share(sizes):
    rng = np.random.default_rng(0)

    def drawn(which):
        return [(i, e) for i, pair in enumerate(sizes) for e in rng.permutation(12)[: pair[which]]]

    found = np.mean([jaccard(drawn(0), drawn(1)) for _ in range(4000)])
    assert chance_jaccard(sizes, 12) == pytest.approx(found, abs=0.01)


def test_chance_by_hand_and_its_limits():
    assert chance_jaccard([(1, 1)], 12) == pytest.approx(1 / 12)
    assert chance_jaccard([(12, 12)] * 2, 12) == 1
    assert np.isnan(chance_jaccard([(0, 0)], 12))
    with pytest.raises(PlanError, match="12 experts"):
        chance_jaccard([(13, 1)], 12)


def test_pairs_of_seeds_by_layer_and_over_all():
    sets = [{6: [0], 7: [0, 1]}, {6: [0], 7: [0, 2]}, {6: [1], 7: [0, 1]}]
    frame = overlaps(sets, 4).set_index("layer")
    assert list(frame.index) == ["6", "7", "all"]
    assert frame.loc["6", ["pairs", "overlap", "low", "high"]].tolist() == [3, pytest.approx(1 / 3), 0, 1]
    assert frame.loc["7", "overlap"] == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    # (layer, expert) pairs: 2 of 4, 2 of 4 and 1 of 5 are shared.
    assert frame.loc["all", "overlap"] == pytest.approx((0.5 + 0.5 + 0.2) / 3)
    assert frame.loc["6", "chance"] == pytest.approx(0.25)


def test_one_seed_has_no_overlap_and_other_layers_do_not_compare():
    assert overlaps([{6: [0]}], 4).empty
    with pytest.raises(PlanError, match="same layers"):
        overlaps([{6: [0]}, {7: [0]}], 4)


def test_experts_that_nothing_was_routed_to_do_not_count_as_kept():
    plan = make_plan({6: [0.0, 0.0, 1.0, 0.0], 7: [0.5, 0.0, 0.0, 0.5]}, per_layer=3)
    assert plan.keep_counts() == {6: 3, 7: 3}
    assert used_experts(plan) == {6: [2], 7: [0, 3]}
