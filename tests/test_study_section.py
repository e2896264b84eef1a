"""The GLUE section of the results page says what the rows say."""

from benchmarks.study_section import glue_section

from .test_studies import ROWS


def test_a_table_for_each_recipe_and_depth_with_seeds_and_intervals():
    text = glue_section(ROWS)
    assert "### retain, 6 of 12 layers" in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert lines["model"].split("|")[-4:-1] == [" cola ", " rte ", " mean "]
    static = lines["SHRP, static, 2 a layer, recovered"]
    assert "98.0 (96.0 to 100.0, 2 seeds) | 90.0 (88.0 to 92.0) | 94.0 |" in static
    assert "52.5%" in static
    assert lines["control: no router"].rstrip().endswith("|  |  |")  # on one task only, so no mean
    assert "- retain, 6 of 12 layers: the best pruned model" in text
    assert "cola accuracy 0.800 (n = 100)" in text


def test_no_rows_no_section():
    assert glue_section([]) == ""
