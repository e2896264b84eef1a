import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from shrp.evaluation import mixes
from shrp.evaluation.metrics import wilson
from shrp.evaluation.mixes import differing, mix_frame

GROUPS = {name: np.arange(60) // 20 == place for place, name in enumerate(("negation", "plain", "question"))}


def taken(negation, plain, question):
    """Of 20 inputs each, so many that the expert takes."""
    return np.concatenate([np.arange(20) < count for count in (negation, plain, question)]).astype(int)


def test_shares_have_intervals_and_an_exact_test():
    mine = taken(15, 5, 4)
    frame = mix_frame(mine, np.ones(60, int), GROUPS).set_index("group")
    row = frame.loc["negation"]
    assert (row["count"], row["n"], row["base"]) == (15, 20, pytest.approx(1 / 3))
    assert (row["low"], row["high"]) == pytest.approx(wilson(15, 24))
    assert row["lift"] == pytest.approx(15 / 24 * 3)
    # Of the 60 inputs 20 are of the group; how likely is a number of them among 24 as extreme as 15?
    law = hypergeom(60, 20, 24)
    likely = law.pmf(np.arange(21))
    assert row["p"] == pytest.approx(likely[likely <= law.pmf(15) * (1 + 1e-7)].sum())
    np.testing.assert_allclose(frame["q"], false_discovery_control(frame["p"]))


def test_what_an_expert_takes_more_or_less_often_is_named_by_size():
    frame = mix_frame(taken(18, 8, 1), np.ones(60, int), GROUPS)
    assert differing(frame) == (["negation"], ["question"])
    assert differing(mix_frame(taken(8, 7, 8), np.ones(60, int), GROUPS)) == ([], [])


def test_chance_alone_rarely_differs():
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        frame = mix_frame((rng.random(60) < 0.4).astype(int), np.ones(60, int), GROUPS)
        named += any(differing(frame))
    assert named <= 0.08 * 200


def test_pairs_that_route_alike_are_no_more_than_one_input_each(monkeypatch):
    """Both of a pair in one group and with one expert: a test of inputs names far too many groups, one of pairs not."""
    monkeypatch.setattr(mixes, "DEALS", 500)
    rng, pairs = np.random.default_rng(0), np.arange(60).reshape(30, 2)
    named = {"inputs": 0, "pairs": 0}
    for _ in range(100):
        mine = np.repeat(rng.random(30) < 0.4, 2).astype(int)
        for which, given in (("inputs", None), ("pairs", pairs)):
            named[which] += any(differing(mix_frame(mine, np.ones(60, int), GROUPS, pairs=given)))
    assert named["pairs"] <= 0.05 * 100
    assert named["inputs"] > 0.08 * 100
    # What differs is still found, and of pairs that the groups part as well.
    frame = mix_frame(taken(18, 8, 1), np.ones(60, int), GROUPS, pairs=pairs)
    alone = mix_frame(taken(18, 8, 1), np.ones(60, int), GROUPS)
    assert (frame["high"] - frame["low"] > alone["high"] - alone["low"]).all()  # fewer draws say less
    assert differing(frame) == (["negation"], ["question"])
    halves = {"even": np.arange(60) % 2 == 0, "odd": np.arange(60) % 2 == 1}
    frame = mix_frame((np.arange(60) % 2 == 0).astype(int), np.ones(60, int), halves, pairs=pairs)
    assert differing(frame) == (["even"], ["odd"])


def tokens_of(generator, rates):
    """Of 60 inputs: an expert's tokens, and all; those of one input go together."""
    everything = generator.integers(4, 30, 60)
    return generator.binomial(everything, generator.beta(4 * rates, 4 * (1 - rates))), everything


def test_tokens_of_one_input_are_no_draws_of_their_own(monkeypatch):
    monkeypatch.setattr(mixes, "DEALS", 500)
    rng, alike = np.random.default_rng(0), np.full(60, 0.3)
    named, naive, covered, times = 0, 0, 0, 150
    for _ in range(times):
        mine, everything = tokens_of(rng, alike)
        frame = mix_frame(mine, everything, GROUPS)
        named += any(differing(frame))
        row = frame.iloc[0]
        table = [[row["count"], mine.sum() - row["count"]], [row["n"], everything.sum() - row["n"]]]
        table[1] = [table[1][0] - table[0][0], table[1][1] - table[0][1]]
        naive += fisher_exact(table).pvalue < 0.05
        covered += row["low"] <= 1 / 3 <= row["high"]  # inputs of all groups are as long, on average
    assert named <= 0.08 * times
    assert naive > 0.2 * times
    assert (
        covered >= 0.93 * times
    )  # as groups have fixed sizes, which the interval takes for chance, more than 95%
    mine, everything = tokens_of(rng, np.repeat([0.6, 0.2, 0.2], 20))
    assert differing(mix_frame(mine, everything, GROUPS))[0] == ["negation"]


def test_a_group_of_longer_inputs_has_more_tokens_and_no_larger_part_of_them():
    everything = np.repeat([20, 5, 5], 20)
    frame = mix_frame(everything // 5, everything, GROUPS)  # a fifth of every input
    assert frame["count"].tolist() == [80, 20, 20]
    assert differing(frame) == ([], [])


@pytest.mark.parametrize("mine", [np.zeros(60, int), np.ones(60, int)])
def test_without_a_contrast_there_is_no_test(mine):
    frame = mix_frame(mine, np.ones(60, int), GROUPS)
    assert frame[["low", "high", "p", "q"]].isna().all(axis=None)
    assert differing(frame) == ([], [])
