"""The sections of the results page on the experiments say what their files say."""

import pytest

from shrp.errors import DataError
from shrp.studies import experiments
from studies.experiment_section import experiments_section
from tests.studies.test_experiments import file_of


@pytest.fixture
def folder(tmp_path):
    for name in experiments.TITLES:
        (tmp_path / f"{name}.json").write_text(file_of(name))
    return tmp_path


def test_every_experiment_that_was_run_has_its_question_sentences_and_figures(folder):
    text = experiments_section(folder)
    for name in experiments.TITLES:
        assert f"### {experiments.TITLES[name]}" in text
        assert f"{experiments.QUESTIONS[name]} (`docs/data/{name}.json`)" in text
    assert (
        text.count("glue/cola validation, n = 100, a constant answer has 0.100; seed") == 6
    )  # all but the overhead, which has no data
    lines = text.splitlines()
    for line in (
        "| 6 | 1 | 900 | 0.250 (0.200 to 0.300) | 0.050 | 9.0 | 30.0% |",
        "| Top-1 | static | 2 | 50.0% | 0.200 (0.100 to 0.300) | 50.0% | 0.33 (chance 0.19) |",
        "| static | 7 | 57.0% | 50.0% | 0.270 (0.220 to 0.320) | 67.5% |",
        "| 0.1 | 4.0 | 4.0 | 0 of 1 | 0.350 (0.300 to 0.400) | 0.300 (0.250 to 0.350) | 2 |",
        "| 1 | SHRP | as in the GLUE table |  | 19% | 95.0% (82.5 to 107.5) |  |",
        "| 2 | random experts | another expert put in | layer 2's expert 4 (matching: 1%) in place of 8 (0%) | 6% | "
        "55.0% (42.5 to 67.5) | +5.0 (+10.0 to +30.0) |",
        "| 11 of 12 layers | layers dropped | 2 | 0.0008 | 0.006 | 1 | 0.400 | 40.0% (27.5 to 52.5) |",
        "| bert-base, 6 of 12 layers | 16 | 32 | 1.10 (1.00 to 1.20) | 2.0 ms | 2.0 ms | 3.5 |",
    ):
        assert line in lines, line
    assert "- On cola, layer 6's usage is" in text
    (folder / "topk.json").unlink()
    assert experiments.TITLES["topk"] not in experiments_section(folder)


def test_nothing_run_is_no_section_and_a_broken_file_is_said(tmp_path):
    assert experiments_section(tmp_path) == ""
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(DataError, match=r"benchmarks\.experiments sweep"):
        experiments_section(tmp_path)
