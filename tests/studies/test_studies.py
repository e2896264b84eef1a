"""Tables of the studies: means over seeds, averages that say what they are over, findings that follow from the rows."""

import json

import numpy as np
import pytest
from scipy.stats import t

from shrp.errors import DataError
from shrp.studies import ablations, studies
from shrp.studies.claims import claims
from shrp.studies.findings import above_constant, findings


def row(
    task, model, retained, seed=0, depth="6of12", recovered=False, per_layer=None, recipe="retain", texts=9
):
    teacher = 0.8
    return {
        "task": task,
        "seed": seed,
        "recipe": recipe,
        "depth": depth,
        "model": model,
        "per_layer": per_layer,
        "kept": per_layer and 6 * per_layer,
        "recovered": recovered,
        "texts": texts,
        "metric": "accuracy",
        "score": retained * teacher,
        "interval": [(retained - 0.02) * teacher, (retained + 0.02) * teacher],
        "n": 100,
        "teacher": teacher,
        "retained": retained,
        "encoder_params": 0.525,
        "encoder_flops": 0.53,
        "model_params": 0.697,
        "model_flops": 0.531,
    }


ROWS = [
    row("cola", "teacher", 1.0),
    row("cola", "static", 0.96, seed=0, per_layer=2, recovered=True),
    row("cola", "static", 1.00, seed=1, per_layer=2, recovered=True),
    row("rte", "static", 0.90, per_layer=2, recovered=True),
    row("cola", "dropped", 0.99),
    row("rte", "dropped", 0.97),
    row("cola", "uniform", 1.05),
]


TWO = np.hypot(0.02, t.ppf(0.975, 1) * np.std([0.96, 1.0], ddof=1) / 2**0.5)
"""Half-width of the mean of the two seeds above: 2 points over inputs, and what two trainings leave open."""


def test_seeds_are_averaged_with_an_interval_over_inputs_and_trainings():
    frame = studies.glue_frame(ROWS).set_index(["task", "model"])
    names = ["retained", "low", "high", "lowest", "highest", "seeds"]
    assert frame.loc[("cola", "static"), names].tolist() == pytest.approx(
        [0.98, 0.98 - TWO, 0.98 + TWO, 0.96, 1.0, 2]
    )
    assert frame.loc[("rte", "static"), ["low", "high"]].tolist() == [
        pytest.approx(0.88),
        pytest.approx(0.92),
    ]
    assert "teacher" not in frame.index.get_level_values("model")
    assert frame.loc[("cola", "static"), "name"] == "SHRP, static, 2 a layer, recovered"


def test_what_is_left_above_a_constant_answer():
    """A constant answer has half of the teacher's score on rte, and none is defined on cola."""
    rows = [one | {"constant": 0.4} if one["task"] == "rte" else one for one in ROWS]
    (said,) = above_constant(studies.glue_frame(rows))
    assert said == (
        "retain, 6 of 12 layers: SHRP, static, 2 a layer, recovered 89% on average (cola 98%, rte 80%); "
        "layers dropped 96% on average (cola 99%, rte 94%)."
    )
    alone = [one for one in rows if one["task"] == "rte"]
    (said,) = above_constant(studies.glue_frame(alone))
    assert said == "retain, 6 of 12 layers: SHRP, static, 2 a layer, recovered 80%; layers dropped 94%."


def test_averages_say_what_they_are_over_and_findings_compare_like_with_like():
    frame = studies.glue_frame(ROWS)
    mean = studies.average(frame).set_index("model")
    assert mean.loc["static", "retained"] == pytest.approx(0.94)
    assert mean.loc["uniform", "tasks"] == "cola"
    sentence, ahead, on_rte, ties = findings(frame)
    assert ahead == (
        "Ahead of SHRP's recovered model beyond chance, with SHRP's lead in points: layers dropped on rte at 6 of 12 "
        "layers (retain), -7.0 (-9.8 to -4.2), not paired."
    )
    assert ties == (
        "A control has as much or more, and ties, with SHRP's lead in points: no router on cola at 6 of 12 layers "
        "(retain), -7.0 (-51.1 to +37.1), not paired."
    )
    assert (
        "layers dropped keeps 97.0% (95.0 to 99.0), the best pruned model, SHRP, static, 2 a layer, recovered, 90.0% "
        "(88.0 to 92.0): no tie, SHRP's lead, not paired, is -7.0 points (-9.8 to -4.2) (n = 100, seeds: 1)."
    ) in on_rte
    # The uniform control is known on one task only, so the best control that is known on both is named.
    assert "keeps 94.0%" in sentence
    # Half-widths of 2 points on each of two tasks make sqrt(2) points of the mean.
    assert mean.loc["dropped", ["low", "high"]].tolist() == pytest.approx(
        [0.98 - 0.02 / 2**0.5, 0.98 + 0.02 / 2**0.5]
    )
    # Of two trainings on cola a mean, on rte one, which is taken to vary as one of those does.
    trainings = t.ppf(0.975, 1) * np.std([0.96, 1.0], ddof=1) * (1 / 2 + 1) ** 0.5 / 2
    half = np.hypot(0.02 / 2**0.5, trainings)
    assert mean.loc["static", ["low", "high"]].tolist() == pytest.approx([0.94 - half, 0.94 + half])
    # Of the control there is one of each, so its own is over inputs alone.
    assert (
        "(intervals over inputs, SHRP's also over the trainings of cola, single ones taken to vary alike)."
        in sentence
    )
    single = findings(studies.glue_frame([one for one in ROWS if one["seed"] == 0]))[0]
    assert "(intervals over inputs and not over trainings)." in single


def test_a_claim_names_the_controls_that_lack_a_task():
    (claim,) = claims(studies.glue_frame(ROWS)).to_dict("records")
    assert claim["best control"].startswith("layers dropped: 98.0%")
    assert claim["lacking"] == (
        "trained random experts, no router, which on cola has 105.0% where SHRP has 98.0%"
    )
    alone = [one for one in ROWS if one["model"] in ("teacher", "static", "uniform")]
    (claim,) = claims(studies.glue_frame(alone)).to_dict("records")
    assert claim["best control"] == "none measured on all"
    assert "; no control was measured on all of these." in findings(studies.glue_frame(alone))[0]


def test_each_setting_stands_beside_its_verdict_and_the_papers_claim_if_there_is_one():
    other = [row("cola", "static", 0.5, per_layer=2, recovered=True) | {"depth": "3of12"}]
    plain = [row("cola", model, 0.7, recipe="paper", per_layer=2) for model in ("static",)]
    found = claims(studies.glue_frame([*ROWS, *other, *plain]))
    assert found[["recipe", "converted"]].values.tolist() == [
        ["retain", "3 of 12 layers"],
        ["retain", "6 of 12 layers"],
        ["paper", "6 of 12 layers"],
    ]
    tie = "a tie: -4.0 (-37.7 to +29.7), not paired"
    assert found["lead"].tolist() == ["", tie, ""]
    assert found["reported"].isna().tolist() == [True, False, False]
    assert "93% of BERT-base" in found["reported"][2]


def test_draws_of_random_experts_do_not_stand_for_trained_ones():
    """They may be the best control that there is, but the one that was trained as SHRP was is still lacking."""
    drawn = [row(task, "random", 0.5, per_layer=2) for task in ("cola", "rte")]
    frame = studies.glue_frame([*ROWS[1:4], *drawn])
    (claim,) = claims(frame).to_dict("records")
    assert claim["best control"] == "random experts, 2 a layer: 50.0%"
    assert claim["lacking"] == "trained random experts, layers dropped, no router"
    assert (
        "layers dropped, no router) keeps 50.0% (mean of draws) at 52.5%: no tie, SHRP's lead, not paired, is +44.0 "
        "points (+10.3 to +77.7) (" in findings(frame)[0]
    )
    trained = [row(task, "random", 0.5, per_layer=2, recovered=True) for task in ("cola", "rte")]
    (claim,) = claims(studies.glue_frame([*ROWS[1:4], *trained])).to_dict("records")
    assert claim["lacking"] == "layers dropped, no router"


def test_random_experts_without_a_router_are_a_control_of_their_own():
    mine = row("cola", "static", 0.9, per_layer=2, recovered=True)
    lead = {"lead": -0.05, "lead_interval": [-0.08, -0.02]}
    unrouted = row("cola", "unrouted", 0.95, per_layer=2, recovered=True) | lead
    frame = studies.glue_frame([unrouted, mine])
    name = "no router, then random experts, 2 a layer, recovered"
    assert frame["name"].tolist() == ["SHRP, static, 2 a layer, recovered", f"control: {name}"]
    (claim,) = claims(frame).to_dict("records")
    assert claim["best control"].startswith(f"{name}: 95.0%")
    assert claim["lacking"] == "trained random experts, layers dropped, no router"
    assert "no tie, SHRP's lead on the same inputs is -5.0 points" in findings(frame)[2]
    assert studies.about_controls(frame).startswith("No router, then random experts: stage 1 with all gates")
    assert studies.about_controls(studies.glue_frame([mine])) == ""


def test_models_of_one_name_that_saw_other_texts_are_not_one():
    """They can't be averaged over tasks, so what is compared is over the tasks of one of them."""
    mine = [
        row("cola", "static", 0.9, per_layer=2, recovered=True, texts=0),
        row("rte", "static", 0.8, per_layer=2, recovered=True, texts=500),
    ]
    dropped = [row("cola", "dropped", 0.5, texts=0), row("rte", "dropped", 0.5, texts=500)]
    frame = studies.glue_frame([*mine, *dropped])
    (claim,) = claims(frame).to_dict("records")
    assert claim["over"] in ("cola", "rte")
    assert claim["measured"].startswith({"cola": "90.0%", "rte": "80.0%"}[claim["over"]])
    assert f", on {claim['over']}; the best control (layers dropped" in findings(frame)[0]


def test_draws_that_are_not_below_have_their_range():
    drawn = row("cola", "random", 0.95, per_layer=2) | {"interval": [0.3, 0.6]}
    mine = row("cola", "static", 0.9, per_layer=2, recovered=True)
    said = findings(studies.glue_frame([mine, drawn]))[1]
    assert said == (
        "A control has as much or more, and ties, with SHRP's lead in points: random experts, 2 a layer on cola at 6 "
        "of 12 layers (retain), -5.0 (-25.1 to +52.5), not paired."
    )


def test_what_was_trained_on_says_over_which_tasks_all_are_compared():
    more = [row("sst2", "static", 0.99, per_layer=2), row("sst2", "dropped", 0.5)]
    more += [row(task, "static", 0.2, per_layer=2) for task in ("cola", "rte")]
    sentence = findings(studies.glue_frame([*ROWS, *more]))[0]
    assert "(SHRP, static, 2 a layer, recovered) keeps 94.0% (71.9 to 116.1) of the" in sentence
    assert (
        "mean over cola, rte; the best control (layers dropped; not measured on all of these: trained "
        "random experts, no router, which on cola has 105.0% where SHRP has 98.0%) keeps 98.0%" in sentence
    )  # not 82.0, over three


def test_a_control_that_was_not_trained_on_texts_says_so_and_is_a_row_of_its_own():
    frame = studies.glue_frame([*ROWS, row("cola", "dropped", 0.9, texts=0)])
    named = frame[(frame["task"] == "cola") & (frame["model"] == "dropped")].set_index("name")["retained"]
    assert named["control: layers dropped"] == pytest.approx(0.99)
    assert named["control: layers dropped, not trained on texts"] == pytest.approx(0.9)
    plain = studies.glue_frame([row("cola", "dropped", 0.9, recipe="paper", texts=0)])
    assert plain["name"].tolist() == ["control: layers dropped"]  # nothing of that recipe was


def test_a_model_that_recovered_on_texts_first_says_so_and_is_a_row_of_its_own():
    recovered = row("cola", "static", 0.9, per_layer=2, recovered=True, texts=9)
    frame = studies.glue_frame([recovered, recovered | {"recovered_on_texts": True, "retained": 0.95}])
    named = frame.set_index("name")["retained"]
    assert named["SHRP, static, 2 a layer, recovered"] == pytest.approx(0.9)
    assert named["SHRP, static, 2 a layer, recovered on texts and the task"] == pytest.approx(0.95)


def test_files_that_are_missing_or_not_ours(tmp_path):
    assert studies.read_rows("glue", tmp_path) == []
    assert studies.glue_frame([]).empty
    for text in ("nonsense", "[]", '{"rows": 3}', '{"rows": [3]}'):
        (tmp_path / "glue.json").write_text(text)
        with pytest.raises(DataError, match=r"benchmarks\.glue"):
            studies.read_rows("glue", tmp_path)
    (tmp_path / "glue.json").write_text(json.dumps({"rows": [{"task": "cola"}]}))
    with pytest.raises(DataError, match="lack"):
        studies.glue_frame(studies.read_rows("glue", tmp_path))


def test_the_ablation_as_shares():
    rows = [
        {"task": "cola", "variant": "retain", "seed": 0, "metric": "matthews", "n": 10, "teacher": 0.5}
        | {
            name: {"score": s, "interval": [0, 1]}
            for name, s in (("routed", 0.5), ("static", 0.1), ("recovered", 0.4))
        }
    ]
    line = ablations.frame_of(rows).iloc[0]
    assert line[["routed retained", "static retained", "recovered retained"]].tolist() == [1.0, 0.2, 0.8]


def test_intervals_say_over_which_trainings_they_are():
    again = [row("cola", "dropped", 0.97, seed=1)]
    sentence = findings(studies.glue_frame([*ROWS, *again]))[0]
    assert (
        "(intervals over inputs, and over the trainings of cola, single ones taken to vary alike)."
        in sentence
    )
    again.append(row("rte", "dropped", 0.97, seed=1))
    again.append(row("rte", "static", 0.9, seed=1, per_layer=2, recovered=True))
    sentence = findings(studies.glue_frame([*ROWS, *again]))[0]
    assert "(intervals over inputs, and over the trainings)." in sentence
