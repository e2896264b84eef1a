"""The sections of the results page on GLUE and the ablation say what the rows say."""

import pytest

from shrp.errors import DataError
from studies.study_section import ablation_section, glue_section, size_section
from tests.studies.test_studies import ROWS, row


def test_a_table_for_each_recipe_and_depth_with_seeds_and_intervals():
    text = glue_section(ROWS)
    text = text[: text.index("### Score against size")]
    assert "### retain, 6 of 12 layers" in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert lines["model"].split("|")[-4:-1] == [" cola ", " rte ", " mean "]
    static = lines["SHRP, static, 2 a layer, recovered"]
    assert "98.0 (72.5 to 123.5; 2 seeds, 96.0 to 100.0) | 90.0 (88.0 to 92.0) | 94.0 |" in static
    assert "52.5%" in static
    assert lines["control: no router"].rstrip().endswith("|  |  |")  # on one task only, so no mean
    assert "- retain, 6 of 12 layers: the best pruned model" in text
    assert "cola accuracy 0.800 (n = 100)" in text


def test_under_a_table_are_paired_leads_floors_and_the_controls_that_lack():
    led = [row("cola", "dropped", 0.99) | {"lead": 0.011, "lead_interval": [-0.02, 0.04], "constant": 0.4}]
    text = glue_section([ROWS[1], ROWS[3], *led, row("rte", "dropped", 0.97)])
    lines = text[text.index("| lead over | cola | rte | mean |") :].splitlines()
    assert lines[2].startswith(
        "| layers dropped | +1.1 (-2.0 to +4.0) | *-7.0 (-9.8 to -4.2)* | *"
    )  # one is paired
    assert "Controls not measured: random experts, recovered on cola, rte; no router on cola, rte." in text
    assert (
        "cola accuracy 0.800 (n = 100, a constant answer has 50.0% of it); rte accuracy 0.800 (n = 100)"
        in text
    )


@pytest.mark.parametrize("interval", [None, [0.0, 0.0]])  # as rows are now, and as they were
def test_what_never_varies_is_called_one_class(interval):
    none = row("cola", "static", 0.0, per_layer=2) | {"interval": interval}
    assert "| 0.0 (one class) |" in glue_section([none])
    draws = row("cola", "random", 0.0, per_layer=2) | {
        "interval": [0.0, 0.0],
        "interval_is": "range of 3 draws",
    }
    assert glue_section([none, draws]).count("| 0.0 (one class) |") == 2
    perfect = row("cola", "static", 1.25, per_layer=2) | {"interval": interval and [1.0, 1.0]}
    text = glue_section([perfect, row("cola", "dropped", 0.9)])
    assert "| 125.0 (no interval) |" in text
    assert "keeps 125.0% of the teacher's score" in text
    assert ": SHRP's lead, not paired, is +35.0 points (no interval)" in text
    assert "nan" not in text


def test_no_rows_no_section():
    assert glue_section([]) == ""
    assert ablation_section([]) == size_section([]) == ""


def test_sizes_stand_beside_what_others_reported():
    text = glue_section(ROWS)
    lines = text[text.index("### Score against size") :].splitlines()
    mine = next(line for line in lines if line.startswith("| SHRP, static, 2 a layer, recovered, 6 of 12"))
    assert mine.endswith("| 52.5% | 69.7% | 53.0% | 53.1% | 94.0% (71.9 to 116.1) | cola, rte |")
    cofi = next(line for line in lines if line.startswith("| *CoFi*"))
    assert "| *as reported* | 5.0% |  |  |  | 95.0% | about 95%" in cofi
    assert "2204.00408" in cofi


def test_the_ablation_is_a_table_a_task_and_a_sentence_of_what_one_change_moves():
    def row(task, variant, score):
        cell = {"score": score, "interval": [score - 0.1, score + 0.1] if score else [0.0, 0.0]}
        shared = {"seed": 0, "metric": "matthews", "n": 1043, "teacher": 0.5, "stage2_epochs": 6}
        shared |= {"depth": "11of12", "recovery_epochs": 2}
        models = dict.fromkeys(("routed", "static", "recovered"), cell)
        return {**shared, **models, "task": task, "variant": variant, "conversion_size": 1000}

    variants = {"paper": 0.1, "retain": 0.3, "retain with dropout": 0.0, "retain, bottom-up": 0.35}
    text = ablation_section([row("cola", name, score) for name, score in variants.items()])
    schedule = "1,000 examples a layer, 6 epochs after the last; 2 more to recover; all variants alike"
    assert f"11 of 12 layers, converted on the task, {schedule}" in text
    said = "- On cola, one expert a layer, recovered, all on this study's short schedule: paper keeps 20.0%"
    assert f"{said} (0.0 to 40.0), retain keeps 60.0%" in text
    assert (
        "the worst is “with dropout” (-60.0 points) and the best “bottom-up” (+10.0) (n = 1,043, seeds: 1)."
        in text
    )
    assert (
        "| retain, bottom-up | 70.0 (50.0 to 90.0) | 70.0 (50.0 to 90.0) | 70.0 (50.0 to 90.0) |  |" in text
    )
    assert f"| retain with dropout {3 * '| 0.0 (one class) '}|  |" in text
    assert text.count("| variant |") == 1


def test_changes_that_were_paired_are_sorted_into_what_is_beyond_chance():
    cell = {"score": 0.3, "interval": [0.2, 0.4]}
    shared = {"task": "cola", "seed": 0, "metric": "matthews", "n": 1043, "teacher": 0.5}
    shared |= dict.fromkeys(("routed", "static", "recovered"), cell)
    changes = {
        "retain with dropout": (-0.2, [-0.3, -0.1]),
        "retain, bottom-up": (0.02, [-0.05, 0.1]),
        "retain, Expander at random with gain 1": (0.1, [0.02, 0.2]),
        "paper": (-0.3, [-0.4, -0.2]),
    }
    rows = [shared | {"variant": "retain", "stage": "one"}]
    rows += [
        shared | {"variant": name, "against": "one", "change": change, "change_interval": ends}
        for name, (change, ends) in changes.items()
    ]
    rows.append(shared | {"variant": "retain, middle first", "against": "another", "change": 0.5})
    alike = {"variant": "retain, exploring routers", "against": "one", "change": 0.0, "change_interval": None}
    rows.append(shared | alike)
    assert "exploring routers" in ablation_section([rows[0], rows[-1]])  # a column of nothing but nulls
    text = ablation_section(rows)
    assert (
        "each with its 95% interval; worse: with dropout -20.0 (-30.0 to -10.0); better: Expander at random "
        "with gain 1 +10.0 (+2.0 to +20.0); within chance: exploring routers 0.0 (no interval), bottom-up +2.0 "
        "(-5.0 to +10.0)."
    ) in text
    assert "Of 3 such intervals about 0.2 exclude 0 by chance alone." in text
    # It was paired with another training, so it counts as not paired.
    assert "the one change to retain that was measured and not paired is “middle first” (0.0 points)" in text
    assert "| 60.0 (40.0 to 80.0) | -20.0 (-30.0 to -10.0) |" in text
    assert "| 60.0 (40.0 to 80.0) | 0.0 (no interval) |" in text


def test_the_size_check_is_a_table_an_encoder_and_its_controls_lack_no_texts():
    rows = [
        row | {"base": "an encoder", "dense_counts": {"model_params": 109_600_000}, "task": "rte"}
        for row in ROWS
        if row["task"] == "cola" and row["seed"] == 0
    ]
    text = size_section(rows)
    assert text.startswith("## an encoder, 110M parameters\n")
    assert "`python -m studies.size_check`. Teachers: rte accuracy 0.800 (n = 100)." in text
    assert "### retain, converted on the task, 6 of 12 layers" in text
    assert "| control: no router |" in text  # nothing here was trained on texts
    with pytest.raises(DataError, match=r"benchmarks\.size_check"):
        size_section([{"base": "an encoder"}])


def test_recipes_may_have_teachers_of_their_own():
    other = [
        row | {"recipe": "paper", "teacher": 0.81, "retained": row["score"] / 0.81}
        for row in ROWS
        if row["task"] == "cola" and row["model"] != "teacher"
    ]
    assert "Teachers: cola accuracy 0.800 of retain and 0.810 of paper (n = 100);" in glue_section(
        [*ROWS, *other]
    )
    assert "Teachers: cola accuracy 0.800 (n = 100);" in glue_section(ROWS)
    deep = [one | {"depth": "11of12", "teacher": 0.82, "retained": one["score"] / 0.82} for one in other]
    assert (
        "Teachers: cola accuracy 0.800 of retain, 0.810 of paper at 6 of 12 layers and 0.820 of paper at 11 of 12 "
        "layers (n = 100);" in glue_section([*ROWS, *other, *deep])
    )
    # What part of a teacher's score a constant answer has is another part of another teacher's.
    half = [one | {"constant": 0.4} for one in (*ROWS, *other)]
    assert (
        "Teachers: cola accuracy 0.800 of retain (a constant answer has 50.0% of it) and 0.810 of paper (a constant "
        "answer has 49.4% of it) (n = 100);" in glue_section(half)
    )


def test_seeds_stand_beside_a_mean_without_an_interval():
    seeds = [row("cola", "dropped", share, seed=seed) for seed, share in enumerate((0.0, 0.1))]
    seeds[0]["interval"] = None  # one class
    seeds[1]["interval"] = None
    assert "5.0 (no interval; 2 seeds, 0.0 to 10.0)" in glue_section(seeds)
