"""Controls against the SHRP models that they are controls of."""

import pytest

from shrp.evaluation.verdicts import (
    NO_CONTROL,
    NONE_CLOSE,
    NONE_COMPARED,
    score_frame,
    summary,
    uncompared,
    verdicts,
)


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
    assert found["r1"].text == "The control “r1” (80.0%) is above “s1”."


def test_what_a_control_leaves_open_counts_too():
    """Of two scores with 5 points to either side the difference has 7.1; of draws the range stands for an interval, and
    what has neither is taken as exact.
    """
    rows = [score("s", "static", 0.7), score("trained", "control", 0.76), score("far", "control", 0.78)]
    rows += [score("drawn", "control", 0.78, interval=[0.6, 0.9], interval_is="range of 3 draws")]
    rows += [score("alike", "control", 0.76, interval=None)]
    found = {v.control: v.outcome for v in verdicts(score_frame(rows), score_text)}
    assert found == {"trained": "ties", "far": "wins", "drawn": "ties", "alike": "wins"}


def test_odd_scores_are_left_out():
    rows = [score("a", "routed", 0.9), score("b", "static", float("nan")), {"model": "c"}, {"score": "x"}]
    rows += [score("d", "routed", 0.9, n=None), score("e", "routed", 0.9, metric=None)]
    frame = score_frame([*rows, score("f", "routed", 0.9, constant=10**400)])
    assert frame["model"].tolist() == ["a", "f"]
    assert frame["constant"].isna().all()
    assert verdicts(score_frame([]), score_text) == []


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        ((), NO_CONTROL),
        ((0.5, 0.4), NONE_CLOSE),
        (
            (0.5, 0.69, 0.8, 0.9),
            "Of 4 controls, 2 are above and 1 ties with at least one SHRP model they are compared with.",
        ),
    ],
)
def test_the_summary_tells_no_control_from_no_control_that_is_close(controls, said):
    rows = [score("s", "static", 0.7, per_layer=1)]
    rows += [score(f"r{i}", "control", value, per_layer=1) for i, value in enumerate(controls)]
    frame = score_frame(rows)
    assert said in summary(verdicts(frame, score_text), frame)


def test_controls_that_nothing_stands_against_are_not_said_to_be_missing():
    rows = [score("routed", "routed", 0.0, interval=None), score("r", "control", 0.0, per_layer=1)]
    frame = score_frame(rows)
    everything = "layers dropped, random experts and no router"
    said = summary(verdicts(frame, score_text), frame)
    assert said == f"{NONE_COMPARED} Not measured with this checkpoint: {everything}."


def test_a_control_that_could_not_be_compared_is_not_said_to_be_below():
    rows = [
        score("routed", "routed", 0.2),
        score("s", "static", 0.0, interval=None, per_layer=1),
        score("random experts, 1 a layer", "control", 0.15, per_layer=1),
    ]
    low, near = (
        score(f"layers dropped, {e} epochs", "control", value) for e, value in ((2, 0.02), (4, 0.21))
    )
    unknown = (
        "Not compared, since no SHRP model of the same size has an interval: “random experts, 1 a layer”."
    )
    frame = score_frame([*rows, low])
    found = verdicts(frame, score_text)
    assert uncompared(found, frame) == ["random experts, 1 a layer"]
    said = summary(found, frame)
    assert said.startswith(f"1 of 2 controls could be compared and is below SHRP on these data. {unknown}")
    frame = score_frame([*rows, low, near])
    said = summary(verdicts(frame, score_text), frame)
    assert said.startswith(
        "Of 2 controls that could be compared, 1 ties with an SHRP model it is compared with."
    )
    assert unknown in said


def test_controls_that_were_not_measured_are_named():
    rows = [score("s", "static", 0.7, per_layer=1)]
    names = ["random experts, 1 a layer", "layers dropped, 4 epochs", "no router, all experts, 4 epochs"]
    rows += [score(name, "control", 0.5) for name in names]
    frame = score_frame(rows)
    assert summary(verdicts(frame, score_text), frame) == NONE_CLOSE
    frame = frame[~frame["model"].str.startswith("layers")]
    said = summary(verdicts(frame, score_text), frame)
    assert said == f"{NONE_CLOSE} Not measured with this checkpoint: layers dropped."


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
