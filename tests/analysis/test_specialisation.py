"""What drives routing: planted effects are found, others are not, also in minimal pairs."""

import numpy as np
import pytest

from shrp.analysis.specialisation import specialisation, specialisation_frame
from shrp.analysis.usage import UsageStats
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData

N, H = 240, 4


def of(experts, *, labels=None, slices=None, pairs=None, unit="examples"):
    """Usage and data: `experts` is the choice of each input `(N,)`, or a table of its tokens' `(N, H)`, in layer 3."""
    experts = np.asarray(experts)
    top1 = np.eye(H, dtype=np.int64)[experts] if experts.ndim == 1 else experts
    n = len(top1)
    labels = np.arange(n) % 2 if labels is None else np.asarray(labels)
    data = TextData(TASKS["sst2"], "made", tuple((f"text {i}",) for i in range(n)), labels, slices, pairs)
    probs = top1 / top1.sum(1, keepdims=True)
    return UsageStats("made", unit, {3: top1}, {3: probs}, {3: np.ones(n)}, {}), data


def by_name(stats, data, lengths=None, **options):
    """Grouping by name."""
    lengths = np.arange(stats.n) % 30 if lengths is None else lengths
    return {one.by: one for one in specialisation(stats, data, lengths, **options)}


def named(codes):
    return tuple(f"s{code}" for code in codes)


def test_groups_that_decide_the_expert_explain_all_of_it():
    slices = np.arange(N) // 60
    found = by_name(*of(slices, slices=named(slices)), answers=(slices > 1).astype(int))
    assert set(found) == {"class", "answer", "slice", "length"}
    one = found["slice"]
    assert one.explained == pytest.approx([1])
    assert one.explained_beyond_length == pytest.approx([1], abs=0.05)
    assert one.p == one.within_p == pytest.approx([1 / 1001])
    assert one.shares(3) == pytest.approx(np.eye(4))
    assert one.cells == pytest.approx(1 / 1001)
    # Two predictions explain half of four evenly used experts.
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
        one = by_name(stats, data, rng.integers(3, 40, size=N), draws=99, seed=int(rng.integers(1000)))["slice"]
        p.append(one.p[0])
        within.append(one.within_p[0])
        cells.append(np.nanmin(one.cells))
        explained.append(one.explained[0])
    for found in (p, within, cells):
        assert 0 < np.mean(np.array(found) <= 0.05) < 0.12
    assert np.mean(explained) == pytest.approx(0, abs=0.004)


def test_what_length_explains_is_not_explained_beyond_it():
    rng = np.random.default_rng(1)
    lengths = 4 * rng.permutation(np.arange(N) % 10) + 5  # a tenth has one length
    slices = (lengths + rng.normal(0, 6, size=N) > 25).astype(int)
    experts = lengths // 11
    found = by_name(*of(experts, slices=named(slices)), lengths)
    assert found["slice"].explained[0] > 0.1
    assert found["slice"].p[0] < 0.01
    assert abs(found["slice"].explained_beyond_length[0]) < 0.05
    assert found["slice"].within_p[0] > 0.05
    assert found["length"].explained[0] > 0.7
    assert np.isnan(found["length"].within_p).all()


@pytest.mark.parametrize("together", [1.0, 0.9, 0.7])
def test_minimal_pairs_are_permuted_as_one_unit(together):
    """Whether a pair's inputs are in one group in all cases or in most: routes have nothing to do with it."""
    rng, paired, apart = np.random.default_rng(2), [], []
    for _ in range(50):
        answers = np.repeat(rng.integers(2, size=N // 2), 2)
        answers = np.where(rng.random(N) < (1 - together), 1 - answers, answers)
        experts = np.repeat(rng.integers(H, size=N // 2), 2)
        experts = np.where(rng.random(N) > 0.85, rng.integers(H, size=N), experts)  # mostly the pair's
        stats, data = of(experts, pairs=tuple(f"pair {i // 2}" for i in range(N)))
        paired.append(by_name(stats, data, answers=answers, draws=99)["answer"].p[0])
        if together == 1:
            alone = TextData(data.task, data.name, data.texts, data.labels)
            apart.append(by_name(stats, alone, answers=answers, draws=99)["answer"].p[0])
    assert np.mean(np.array(paired) <= 0.05) < 0.12
    if together == 1:  # permuted one by one it is as if there were twice as many examples
        assert np.mean(np.array(apart) <= 0.05) > 0.12


def test_tokens_of_an_example_are_permuted_together():
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
        one = by_name(stats, data, draws=99)["slice"]
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
    one = by_name(*of(experts, slices=named(slices)))["slice"]
    assert one.cells[0, 2, 1] <= 0.05
    assert np.isnan(one.cells[0, :, 3]).all()
    assert np.nanmin(one.cells[0, [0, 1, 3]]) > 0.01
