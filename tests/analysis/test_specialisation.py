"""What routing goes by: what is planted is found, and what is not there is not, also where inputs are pairs."""

import numpy as np
import pytest

from shrp.analysis import specialisation as routes_specialisation
from shrp.analysis.specialisation import MOST_GROUPS, cells_frame, specialisation, specialisation_frame
from shrp.analysis.usage import UsageStats
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError

N, H = 240, 4


def of(experts, *, labels=None, slices=None, pairs=None, unit="inputs"):
    """Usage and data: `experts` is the choice of each input `(N,)`, or a table of its tokens' `(N, H)`, in layer 3."""
    experts = np.asarray(experts)
    top1 = np.eye(H, dtype=np.int64)[experts] if experts.ndim == 1 else experts
    n = len(top1)
    labels = np.arange(n) % 2 if labels is None else np.asarray(labels)
    data = TextData(TASKS["sst2"], "made", tuple((f"text {i}",) for i in range(n)), labels, slices, pairs)
    probs = top1 / top1.sum(1, keepdims=True)
    return UsageStats("made", unit, {3: top1}, {3: probs}, {3: np.ones(n)}, {}), data


def told(stats, data, lengths=None, **options):
    """Grouping by name."""
    lengths = np.arange(stats.n) % 30 if lengths is None else lengths
    return {one.by: one for one in specialisation(stats, data, lengths, **options)}


def named(codes):
    return tuple(f"s{code}" for code in codes)


def test_groups_that_decide_the_expert_explain_all_of_it():
    slices = np.arange(N) // 60
    found = told(*of(slices, slices=named(slices)), answers=(slices > 1).astype(int))
    assert set(found) == {"class", "answer", "slice", "length"}
    one = found["slice"]
    assert one.explained == pytest.approx([1])
    assert one.explained_beyond_length == pytest.approx([1], abs=0.05)
    assert one.p == one.within_p == pytest.approx([1 / 1001])
    assert one.shares(3) == pytest.approx(np.eye(4))
    assert one.cells == pytest.approx(1 / 1001)
    # Two answers of four even experts each tell half of what there is to know, less what chance tells.
    assert found["answer"].explained == pytest.approx([0.5], abs=0.01)
    assert found["class"].explained == pytest.approx([0], abs=0.02)
    frame = specialisation_frame([*found.values()]).set_index("by")
    assert frame.loc["slice", "q"] == pytest.approx(2 / 1001)  # of four p-values two are as small
    assert np.isnan(frame.loc["length", "q_beyond"])


def test_what_is_not_there_is_found_about_once_in_20_times():
    rng, p, within, cells, explained = np.random.default_rng(0), [], [], [], []
    for _ in range(100):
        slices = rng.integers(5, size=N)
        stats, data = of(rng.choice(H, size=N, p=[0.5, 0.3, 0.15, 0.05]), slices=named(slices))
        one = told(stats, data, rng.integers(3, 40, size=N), deals=99, seed=int(rng.integers(1000)))["slice"]
        p.append(one.p[0])
        within.append(one.within_p[0])
        cells.append(np.nanmin(one.cells))
        explained.append(one.explained[0])
    for found in (p, within, cells):
        assert 0 < np.mean(np.array(found) <= 0.05) < 0.12
    assert np.mean(explained) == pytest.approx(0, abs=0.004)


def test_what_groups_tell_by_their_length_alone_is_not_told_beyond_it():
    rng = np.random.default_rng(1)
    lengths = 4 * rng.permutation(np.arange(N) % 10) + 5  # a tenth has one length
    slices = (lengths + rng.normal(0, 6, size=N) > 25).astype(int)
    experts = lengths // 11
    found = told(*of(experts, slices=named(slices)), lengths)
    assert found["slice"].explained[0] > 0.1
    assert found["slice"].p[0] < 0.01
    assert abs(found["slice"].explained_beyond_length[0]) < 0.05
    assert found["slice"].within_p[0] > 0.05
    assert found["length"].explained[0] > 0.7
    assert np.isnan(found["length"].within_p).all()


def test_length_of_a_long_tail_is_held_equal_too():
    rng, told_beyond = np.random.default_rng(4), []
    for _ in range(20):
        lengths = np.clip(rng.lognormal(3, 0.7, size=N), 3, 128).round()
        experts = np.quantile(lengths, [0.5, 0.9, 0.96]).searchsorted(lengths)
        slices = named(np.quantile(lengths, [0.3, 0.93]).searchsorted(lengths))
        one = told(*of(experts, slices=slices), lengths, deals=99)["slice"]
        assert one.p[0] == 0.01
        told_beyond.append(one.explained_beyond_length[0])
    assert np.mean(told_beyond) < 0.06


def routes_of_pairs(rng, half=N // 2, alike=0.85):
    """Experts of the inputs of pairs `(2 * half,)`, in most the same."""
    experts = np.repeat(rng.integers(H, size=half), 2)
    other = rng.random(2 * half) > alike
    return np.where(other, rng.integers(H, size=2 * half), experts)


def pair_names(n):
    return tuple(f"pair {i // 2}" for i in range(n))


@pytest.mark.parametrize("together", [1.0, 0.9, 0.7])
def test_minimal_pairs_that_route_alike_are_dealt_together(together):
    """Whether a pair's inputs are in one group in all cases or in most: routes have nothing to do with it."""
    rng, paired, apart = np.random.default_rng(2), [], []
    for _ in range(50):
        answers = np.repeat(rng.integers(2, size=N // 2), 2)
        answers = np.where(rng.random(N) < (1 - together), 1 - answers, answers)
        stats, data = of(routes_of_pairs(rng), pairs=pair_names(N))
        paired.append(told(stats, data, answers=answers, deals=99)["answer"].p[0])
        if together == 1:
            alone = TextData(data.task, data.name, data.texts, data.labels)
            apart.append(told(stats, alone, answers=answers, deals=99)["answer"].p[0])
    assert np.mean(np.array(paired) <= 0.05) < 0.12
    if together == 1:  # dealt one by one it is as if there were twice as many inputs
        assert np.mean(np.array(apart) <= 0.05) > 0.12


def test_what_the_two_inputs_of_pairs_part_by_is_found():
    rng, found = np.random.default_rng(5), []
    for _ in range(10):
        experts = routes_of_pairs(rng, alike=1.0)
        turned = rng.choice(N // 2, size=12, replace=False)
        experts[2 * turned + 1] = 3  # the second input of a pair, whose label is 1
        stats, data = of(experts, pairs=pair_names(N))
        found.append(told(stats, data, deals=199)["class"].p[0])
    assert np.mean(np.array(found) <= 0.05) > 0.8


def test_pairs_and_single_inputs_are_not_dealt_for_one_another():
    rng, p, bold = np.random.default_rng(6), [], []
    for _ in range(50):
        experts = np.concatenate([routes_of_pairs(rng, 40), rng.integers(H, size=160)])
        slices = named(np.arange(N) < 80)
        names = (*pair_names(80), *([""] * 160))
        slices = tuple("b" if i % 10 == 0 else one for i, one in enumerate(slices))
        stats, data = of(experts, slices=slices, pairs=names)
        one = told(stats, data, deals=99)["slice"]
        p.append(one.p[0])
        bold.append(np.nanmin(one.cells) <= 0.05)
    assert np.mean(np.array(p) <= 0.05) < 0.12
    assert np.mean(bold) < 0.12


def test_both_inputs_of_a_pair_have_one_length():
    stats, data = of(np.zeros(4, dtype=int), labels=[0, 1, 0, 1], pairs=("a", "a", "b", "b"))
    assert told(stats, data, [3, 5, 8, 8], deals=9)["length"].names == ("4 tokens", "8 tokens")


def test_tokens_of_an_input_are_dealt_together():
    rng, p, bold = np.random.default_rng(3), [], []
    for _ in range(40):
        # An input's tokens mostly go to one expert, which its slice has nothing to do with; one slice's are longer.
        slices = rng.integers(3, size=N)
        tokens = np.where(slices == 0, 24, 6)
        table = [
            rng.multinomial(n, np.eye(H)[e] * 0.8 + 0.05)
            for n, e in zip(tokens, rng.integers(H, size=N), strict=True)
        ]
        stats, data = of(np.stack(table), slices=named(slices), unit="tokens")
        one = told(stats, data, deals=99)["slice"]
        assert one.counts.sum() == tokens.sum()
        p.append(one.p[0])
        bold.append(np.nanmin(one.cells) <= 0.05)
    assert np.mean(np.array(p) <= 0.05) < 0.15
    assert np.mean(bold) < 0.15


def test_a_planted_cell_is_found_and_rare_ones_are_not_tested():
    rng = np.random.default_rng(7)
    share = np.array([0.6, 0.3, 0.099, 0.001])
    experts = rng.choice(H, size=N, p=share)
    slices = np.arange(N) % 4
    experts[(slices == 2) & (rng.random(N) < 0.4)] = 1
    one = told(*of(experts, slices=named(slices)))["slice"]
    assert one.cells[0, 2, 1] <= 0.05
    assert np.isnan(one.cells[0, :, 3]).all()
    assert np.nanmin(one.cells[0, [0, 1, 3]]) > 0.01


def test_two_groups_can_explain_only_so_much_of_many_experts():
    halves = np.arange(N) * 2 // N
    found = told(*of(np.arange(N) * H // N, labels=halves))
    assert found["class"].explained == pytest.approx(found["class"].ceiling)
    assert found["class"].ceiling == pytest.approx([0.5], abs=0.01)


def test_one_expert_for_all_leaves_nothing_to_tell():
    found = told(*of(np.zeros(N, dtype=int), slices=named(np.arange(N) % 3)), deals=9)
    assert np.isnan(found["slice"].explained).all()
    assert found["slice"].p == pytest.approx([1])
    assert specialisation_frame([*found.values()])["explained"].isna().all()


def test_groupings_that_are_none_or_too_many_are_left_out():
    experts = np.arange(N) % H
    assert set(told(*of(experts, labels=np.ones(N, dtype=int)), np.full(N, 7), deals=9)) == set()
    many = named(np.arange(N) % (MOST_GROUPS + 1))
    assert "slice" not in told(*of(experts, slices=many), deals=9)
    assert "slice" in told(*of(experts, slices=named(np.arange(N) % MOST_GROUPS)), deals=9)


def test_inputs_must_be_the_same():
    stats, data = of(np.arange(N) % H)
    with pytest.raises(DataError, match="usage of 240 inputs, 240 inputs and 3 lengths"):
        specialisation(stats, data, [1, 2, 3])


def test_large_data_are_counted_in_smaller_blocks_and_alike(monkeypatch):
    rng = np.random.default_rng(9)
    slices = rng.integers(4, size=N)
    stats, data = of(routes_of_pairs(rng), slices=named(slices), pairs=pair_names(N))
    lengths = rng.integers(3, 40, size=N)
    whole = told(stats, data, lengths, deals=70)
    monkeypatch.setattr(routes_specialisation, "_MOST_PLACES", 3 * N)
    for by, one in told(stats, data, lengths, deals=70).items():
        for name in ("chance", "p", "cells", "cells_everywhere", "within", "within_p"):
            assert getattr(one, name) == pytest.approx(getattr(whole[by], name), nan_ok=True), (by, name)


def test_progress_reaches_its_end():
    seen = []
    stats, data = of(np.arange(N) % H)
    specialisation(stats, data, np.arange(N) % 30, deals=100, progress=lambda *at: seen.append(at))
    assert seen == [(done, 300) for done in range(50, 301, 50)]


def test_numbers_are_grouped_by_fourths():
    numbers = np.arange(N) / N * 5
    stats, _ = of(np.arange(N) * H // N)
    task = TASKS["stsb"]
    data = TextData(task, "made", tuple((f"a {i}", f"b {i}") for i in range(N)), numbers)
    found = told(stats, data, answers=-numbers, deals=99)
    assert set(found) == {"class", "answer", "length"}
    assert found["class"].names == ("0 to 1.229", "1.25 to 2.479", "2.5 to 3.729", "3.75 to 4.979")
    assert found["class"].explained == pytest.approx([1])
    assert found["answer"].explained == pytest.approx([1])


def test_cells_over_all_layers_are_corrected_for_all_and_the_least_likely_come_first():
    slices = np.arange(N) // 60
    stats, data = of(slices, slices=named(slices))
    other = np.eye(H, dtype=np.int64)[np.random.default_rng(0).integers(H, size=N)]
    stats = UsageStats(
        "made",
        "inputs",
        {3: stats.top1[3], 5: other},
        {3: stats.probs[3], 5: other.astype(float)},
        {3: np.ones(N), 5: np.ones(N)},
        {},
    )
    one = told(stats, data)["slice"]
    frame = cells_frame(one)
    assert len(frame) == np.isfinite(one.cells).sum() == 32
    planted = frame[frame["p"] <= 0.05]
    assert set(planted["layer"]) == {3}
    assert planted["p"].tolist() == pytest.approx([1 / 1001] * 16)
    assert (one.cells_everywhere >= one.cells)[np.isfinite(one.cells)].all()
    own = frame[(frame["layer"] == 3) & (frame["expert"] == 2) & (frame["group"] == "s2")].iloc[0]
    assert (own["n"], own["count"], own["share"], own["of_all"]) == (60, 60, 1, 0.25)
    assert own["difference"] == pytest.approx(0.75)
    assert frame["p"].is_monotonic_increasing
    assert frame["p"].max() <= 1
    assert list(frame["difference"].abs()[:16]) == sorted(frame["difference"].abs()[:16], reverse=True)
