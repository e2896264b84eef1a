"""By how much SHRP leads its controls: on the same inputs where that was kept, else as two models apart."""

import numpy as np
import pytest
from scipy.stats import t

from shrp.evaluation.intervals import Mean
from shrp.studies import studies
from shrp.studies.findings import findings, not_below
from shrp.studies.leads import MEAN, Lead, lead_frame, lead_over, leads_measured
from shrp.studies.studies import UNROUTED
from tests.studies.test_studies import ROWS, row


def leads(rows):
    """Control and task -> its row."""
    frame = lead_frame(studies.glue_frame(rows))
    return {(one["name"], one["task"]): one for one in frame.to_dict("records")}


def of(one):
    return [one["lead"], one["low"], one["high"]]


def test_a_lead_over_a_model_that_is_there_no_more_is_void():
    """It is told from the two scores then, whose intervals are two points to either side."""
    mine = row("cola", "static", 0.9, per_layer=2, recovered=True) | {"stage": "static-2"}
    lead = {"lead": -0.05, "lead_interval": [-0.08, -0.02], "against": "static-2"}
    control = row("cola", "uniform", 0.95) | lead
    (found,) = leads([mine, control]).values()
    assert found["paired"]
    assert of(found) == pytest.approx([-0.05, -0.08, -0.02])
    assert (found["name"], found["seeds"]) == ("no router", "1")
    (found,) = leads([mine | {"stage": "static-3"}, control]).values()
    assert not found["paired"]
    assert of(found) == pytest.approx([-0.05, -0.05 - 0.02 * 2**0.5, -0.05 + 0.02 * 2**0.5])
    older = {name: value for name, value in control.items() if name != "against"}  # does not tell
    (found,) = leads([mine | {"stage": "static-3"}, older]).values()
    assert found["paired"]


def test_trainings_apart_leave_open_what_either_does_and_one_is_taken_to_vary_as_the_others():
    mine = [
        row("cola", "static", s, seed=i, per_layer=2, recovered=True) for i, s in enumerate((0.8, 0.9, 1.0))
    ]
    both = [row("cola", "dropped", s, seed=i) for i, s in enumerate((0.6, 0.7, 0.8))]
    (found,) = leads([*mine, *both]).values()
    half = np.hypot(0.02 * 2**0.5, t.ppf(0.975, 4) * np.sqrt(2 * 0.01 / 3))
    assert of(found) == pytest.approx([0.2, 0.2 - half, 0.2 + half])
    assert found["seeds"] == "3"
    (found,) = leads([*mine, both[1]]).values()
    half = np.hypot(0.02 * 2**0.5, t.ppf(0.975, 2) * np.sqrt(0.01 / 3 + 0.01))
    assert of(found) == pytest.approx([0.2, 0.2 - half, 0.2 + half])
    assert found["seeds"] == "3 and 1"


def test_a_mean_is_of_controls_that_have_every_task_paired_or_not():
    led = {"lead": 0.1, "lead_interval": [0.08, 0.12]}
    mine = [row(task, "static", 0.9, per_layer=2, recovered=True) for task in ("cola", "rte")]
    rows = [*mine, row("cola", "dropped", 0.8) | led, row("rte", "dropped", 0.7), row("cola", "uniform", 0.8)]
    found = leads(rows)
    assert ("no router", MEAN) not in found
    mean = found["layers dropped", MEAN]
    half = np.hypot(0.02, 0.02 * 2**0.5) / 2
    assert of(mean) == pytest.approx([0.15, 0.15 - half, 0.15 + half])
    assert (found["layers dropped", "cola"]["paired"], mean["paired"]) == (True, False)
    assert leads_measured(lead_frame(studies.glue_frame(rows))) == 3
    assert "a tie" not in findings(studies.glue_frame(rows))[0]
    assert (
        "no tie, SHRP's lead, paired on cola alone, is +15.0 points" in findings(studies.glue_frame(rows))[0]
    )


def test_leads_are_over_the_recovered_model_of_as_many_experts():
    """And over the largest one where the control keeps none; untrained draws have no part."""
    mine = [row("rte", "static", score, per_layer=m, recovered=True) for m, score in ((1, 0.9), (2, 0.8))]
    drawn = row("rte", "random", 0.1, per_layer=1)
    found = leads([*mine, drawn, drawn | {"recovered": True, "retained": 0.85}, row("rte", "uniform", 0.7)])
    assert {name: one["lead"] for (name, _), one in found.items()} == {
        "random experts, 1 a layer, recovered": pytest.approx(0.05),
        "no router": pytest.approx(0.1),
    }


def test_without_a_recovered_model_there_are_none():
    rows = [row("rte", "static", 0.9, per_layer=2), row("rte", "uniform", 0.7)]
    assert lead_frame(studies.glue_frame(rows)).empty
    assert "no tie, SHRP's lead, not paired, is +20.0 points" in findings(studies.glue_frame(rows))[0]


def test_a_lead_over_the_recovered_model_is_told_where_another_one_is_the_best():
    rows = [
        row("cola", "static", 0.9, per_layer=2),
        row("cola", "static", 0.85, per_layer=2, recovered=True),
        row("cola", "dropped", 0.91) | {"lead": -0.06, "lead_interval": [-0.09, -0.03]},
    ]
    _, ahead, said = findings(studies.glue_frame(rows))
    assert ahead.endswith("layers dropped on cola at 6 of 12 layers (retain), -6.0 (-9.0 to -3.0).")
    assert "the best pruned model, SHRP, static, 2 a layer, 90.0%" in said
    assert (
        "a tie, SHRP's lead, not paired, is -1.0 points (-3.8 to +1.8); the recovered model: no tie, SHRP's lead on "
        "the same inputs is -6.0 points (-9.0 to -3.0) (" in said
    )


def test_a_paired_lead_tells_a_tie_where_there_is_one():
    mine = [row(task, "static", 0.97, per_layer=2, recovered=True) for task in ("cola", "rte")]
    for lead, said in (
        (0.004, "a tie, SHRP's lead on the same inputs is +0.4 points (-0.3 to +1.1)"),
        (0.03, "no tie, SHRP's lead on the same inputs is +3.0 points (+2.3 to +3.7)"),
    ):
        ends = {"lead": lead, "lead_interval": [lead - 0.01, lead + 0.01]}
        rows = [*mine, *(row(task, "dropped", 0.97 - lead) | ends for task in ("cola", "rte"))]
        assert said in findings(studies.glue_frame(rows))[0]


def test_a_lead_is_told_of_the_model_that_it_is_of_alone():
    """The smaller one is best, and the lead over dropped layers is the larger one's."""
    mine = [row("rte", "static", score, per_layer=m, recovered=True) for m, score in ((1, 0.99), (2, 0.97))]
    ends = {"lead": 0.01, "lead_interval": [0.005, 0.02]}
    found = findings(studies.glue_frame([*mine, row("rte", "dropped", 0.96) | ends]))[0]
    assert "SHRP's lead, not paired, is +3.0 points" in found
    assert "the recovered model: no tie, SHRP's lead on the same inputs is +1.0 points" in found
    found = findings(studies.glue_frame([mine[1], row("rte", "dropped", 0.96) | ends]))[0]
    assert found.count("SHRP's lead") == 1
    assert "SHRP's lead on the same inputs is +1.0 points" in found
    drawn = row("rte", "random", 0.96, per_layer=1, recovered=True) | ends
    assert "SHRP's lead on the same inputs is" in findings(studies.glue_frame([*mine, drawn]))[0]


def test_a_lead_that_was_kept_of_some_trainings_alone_is_not_taken_for_all():
    """Here it would turn the verdict round."""
    mine = [
        row("cola", "static", s, seed=i, per_layer=2, recovered=True) for i, s in enumerate((0.9, 0.8, 0.7))
    ]
    other = [row("cola", "uniform", s, seed=i) for i, s in enumerate((0.85, 0.9, 0.95))]
    other[0] |= {"lead": 0.05, "lead_interval": [0.03, 0.07]}
    found = leads([*mine, *other])["no router", "cola"]
    assert not found["paired"]
    assert found["lead"] == pytest.approx(-0.1)
    assert found["low"] < 0 < found["high"]
    ((_, none, _), (row_of,)) = (
        findings(studies.glue_frame([*mine, *other])),
        not_below(studies.glue_frame([*mine, *other])).to_dict("records"),
    )
    assert none == "No trained control is ahead of SHRP's recovered model beyond chance."
    assert row_of["ties"]


def test_a_paired_lead_of_one_training_beside_several_is_over_all_and_open_as_they_are():
    """Of all three it is another one than of the first alone, which was paired; of inputs the pair tells."""
    mine = [
        row("cola", "static", s, seed=i, per_layer=2, recovered=True) for i, s in enumerate((0.9, 0.8, 0.7))
    ]
    led = row("cola", "uniform", 0.85) | {"lead": 0.05, "lead_interval": [0.03, 0.07]}
    found = leads([*mine, led])["no router", "cola"]
    half = np.hypot(0.02, t.ppf(0.975, 2) * np.sqrt(0.01 / 3 + 0.01))
    assert found["paired"]
    assert of(found) == pytest.approx([-0.05, -0.05 - half, -0.05 + half])
    assert found["seeds"] == "3 and 1"


def test_a_single_draw_is_taken_to_vary_as_draws_do():
    """SHRP's three trainings agree; three draws that were trained on don't, and of one without a router more is not
    known.
    """
    mine = [row("cola", "static", 0.9, seed=i, per_layer=2, recovered=True) for i in range(3)]
    drawn = [
        row("cola", "random", s, seed=i, per_layer=2, recovered=True) for i, s in enumerate((0.5, 0.6, 0.7))
    ]
    unrouted = row("cola", "unrouted", 0.6, per_layer=2, recovered=True)
    found = leads([*mine, *drawn, unrouted])["no router, then random experts, 2 a layer, recovered", "cola"]
    half = np.hypot(0.02 * 2**0.5, t.ppf(0.975, 2) * 0.1)
    assert of(found) == pytest.approx([0.3, 0.3 - half, 0.3 + half])
    alone = leads([*mine, unrouted])["no router, then random experts, 2 a layer, recovered", "cola"]
    assert alone["high"] - alone["low"] == pytest.approx(2 * 0.02 * 2**0.5)


def test_draws_have_a_range_and_answers_that_are_all_alike_nothing_left_open():
    mine = row("cola", "static", 0.9, per_layer=2)
    drawn = row("cola", "random", 0.8, per_layer=2) | {"interval": [0.56, 0.72]}  # of a teacher's 0.8
    same = row("cola", "dropped", 0.5) | {"interval": None}
    frame = studies.glue_frame([mine, drawn, same])
    (static, random, dropped) = (frame[frame["model"] == model] for model in ("static", "random", "dropped"))
    assert lead_over(frame, static, random).mean.ends == pytest.approx(
        (0.1 - np.hypot(0.02, 0.1), 0.1 + np.hypot(0.02, 0.1))
    )
    assert lead_over(frame, static, dropped).mean.ends == pytest.approx((0.38, 0.42))
    assert np.isnan(lead_over(frame, dropped, static).mean.ends).all()
    again = studies.glue_frame([mine, same, row("cola", "dropped", 0.7, seed=1) | {"interval": None}])
    found = lead_over(again, *(again[again["model"] == model] for model in ("static", "dropped")))
    assert found.mean.freedom == 1  # what trainings leave open is there all the same
    with pytest.raises(ValueError, match="no row"):
        lead_over(frame, static[:0], random)


def test_rows_without_a_word_on_texts_are_of_none():
    mine = row("cola", "static", 0.9, per_layer=2, recovered=True, texts=None)
    assert "+20.0 points" in findings(studies.glue_frame([mine, row("cola", "uniform", 0.7, texts=None)]))[0]


def test_a_seed_with_all_answers_alike_counts_as_exact():
    seeds = [row("cola", "dropped", 0.9, seed=s) for s in range(2)]
    seeds[0] |= {"lead": 0.03, "lead_interval": [0.01, 0.05]}
    seeds[1] |= {"lead": 0.0, "lead_interval": None}
    rows = [*ROWS[1:3], *seeds]
    found = leads(rows)["layers dropped", "cola"]
    half = np.hypot(0.01, t.ppf(0.975, 1) * np.sqrt(0.00045 / 2))
    assert of(found) == pytest.approx([0.015, 0.015 - half, 0.015 + half])
    for one in seeds:
        one["lead_interval"] = None
    assert np.isnan(leads(rows)["layers dropped", "cola"]["low"])
    assert leads_measured(lead_frame(studies.glue_frame(rows))) == 0


def test_a_paired_lead_over_a_random_draw_is_open_as_draws_are():
    """Also where SHRP and the draw have one training each, and draws on another model of the size several."""
    led = {"lead": 0.1, "lead_interval": [0.08, 0.12], "recovered": True}
    mine = row("cola", "static", 0.9, per_layer=1, recovered=True)
    drawn = [
        row("cola", "random", s, seed=i, per_layer=1, recovered=True) for i, s in enumerate((0.5, 0.7, 0.9))
    ]
    unrouted = row("cola", UNROUTED, 0.8, per_layer=1) | led
    found = leads([mine, *drawn, unrouted])
    (one,) = (lead for (name, _), lead in found.items() if name.startswith("no router, then"))
    assert one["paired"]
    half = np.hypot(0.02, t.ppf(0.975, 2) * np.sqrt(2 * 0.04))
    assert of(one) == pytest.approx([0.1, 0.1 - half, 0.1 + half])


def test_a_lead_in_short_says_on_how_many_tasks_it_is_paired():
    both, some, none = (
        Lead(Mean(0.1, 0.02, 0.02), *tasks) for tasks in ((("a", "b"), ()), (("a",), ("b",)), ((), ("a",)))
    )
    assert both.short == "no tie: +10.0 (+8.0 to +12.0)"
    assert some.short == "no tie: +10.0 (+8.0 to +12.0), paired on 1 of 2 tasks"
    assert none.short == "no tie: +10.0 (+8.0 to +12.0), not paired"
