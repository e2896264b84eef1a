"""Controls against the SHRP models that they are controls of."""

import pytest

from shrp.evaluation.verdicts import NO_CONTROL, NONE_COMPARED, score_frame, summary, uncompared, verdicts


def score_text(value, metric):
    assert metric == "accuracy"
    return f"{value:.1%}"


def score(model, kind, value, **facts):
    return (
        {"model": model, "kind": kind, "data": "d", "metric": "accuracy", "score": value, "n": 10}
        | {"interval": [value - 0.05, value + 0.05]}
        | facts
    )


def test_a_control_stands_against_its_own_size_and_recovery():
    rows = [
        score("s1", "static", 0.7, per_layer=1),
        score("s1r", "static", 0.9, per_layer=1, recovered=True),
        score("s2", "static", 0.9, per_layer=2),
        score("r1", "control", 0.8, per_layer=1),
        score("r1r", "control", 0.88, per_layer=1, recovered=True),
        score("dropped", "control", 0.5),
    ]
    found = {v.control: v for v in verdicts(score_frame(rows), score_text)}
    assert (found["r1"].wins, found["r1"].outcome) == (("s1",), "wins")
    assert (found["r1r"].ties, found["r1r"].outcome) == (("s1r",), "ties")
    assert (found["dropped"].trails, found["dropped"].outcome) == (("s1", "s1r", "s2"), "trails")
    assert "(80.0%)" in found["r1"].text


@pytest.mark.parametrize(
    ("controls", "outcomes"),
    [((), []), ((0.5, 0.4), ["trails"] * 2), ((0.5, 0.69, 0.8, 0.9), ["trails", "ties", "wins", "wins"])],
)
def test_the_summary_counts_each_outcome(controls, outcomes):
    rows = [score("s", "static", 0.7, per_layer=1)]
    rows += [score(f"random experts {i}", "control", value, per_layer=1) for i, value in enumerate(controls)]
    frame = score_frame(rows)
    found = verdicts(frame, score_text)
    said = summary(found, frame)
    assert [one.outcome for one in found] == outcomes
    assert (said == NO_CONTROL) == (not controls)
    for outcome in set(outcomes):
        assert f"{outcomes.count(outcome)} s" in said
    assert ("layers dropped and no router" in said) == bool(controls)


def test_a_control_that_could_not_be_compared_is_named():
    rows = [score("routed", "routed", 0.2), score("s", "static", 0.0, interval=None, per_layer=1)]
    rows += [score("random experts, 1 a layer", "control", 0.15, per_layer=1)]
    frame = score_frame(rows)
    assert summary(verdicts(frame, score_text), frame).startswith(NONE_COMPARED)
    frame = score_frame([*rows, score("layers dropped, 2 epochs", "control", 0.02)])
    found = verdicts(frame, score_text)
    assert uncompared(found, frame) == ["random experts, 1 a layer"]
    assert "“random experts, 1 a layer”" in summary(found, frame)


def test_a_budget_tells_sizes_apart_and_no_interval_is_no_verdict():
    rows = [
        score("s6", "static", 0.7, budget=6),
        score("s24", "static", 0.95, budget=24),
        score("r24", "control", 0.93, budget=24),
    ]
    (found,) = verdicts(score_frame(rows), score_text)
    assert (found.wins, found.ties) == ((), ("s24",))
    rows = [score("s", "static", 0.801, per_layer=1, interval=None), score("r", "control", 0.8, per_layer=1)]
    assert verdicts(score_frame(rows), score_text) == []
