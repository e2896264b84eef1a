import numpy as np
import pytest
from scipy.stats import false_discovery_control, hypergeom

from shrp import mixes
from shrp.metrics import wilson
from shrp.mixes import differing, mix_frame

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


@pytest.mark.parametrize(
    ("mine", "by_token"), [(np.zeros(60, int), False), (np.ones(60, int), False), (taken(18, 8, 1), True)]
)
def test_without_a_contrast_or_of_tokens_there_is_no_test(mine, by_token):
    frame = mix_frame(mine, np.ones(60, int), GROUPS, by_token=by_token)
    assert frame[["low", "high", "p", "q"]].isna().all(axis=None)
    assert differing(frame) == ([], [])
