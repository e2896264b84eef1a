"""Means over trainings and tasks, their intervals, and the tables and pages made of them."""

import math

import numpy as np
import pytest
from scipy import stats

from shrp.errors import DataError
from studies import results
from studies.summary import Mean, difference, leads, over_tasks, over_trainings, summary

TASKS = ("a", "b")


@pytest.fixture
def two_tasks(monkeypatch):
    monkeypatch.setattr("studies.summary.TASKS", TASKS)


def row(task, score, *, model="shrp", seed=0, m=1, tuned=True, floor=0.5, interval=0.1, routed=False):
    found = {"task": task, "recipe": "retain", "depth": "11of12", "model": model}
    found |= {"seed": seed, "routed": routed}
    found |= {"experts_per_layer": m, "fine_tuned_after_pruning": tuned, "metric": "accuracy", "score": score}
    found["interval"] = None if interval is None else [score - interval, score + interval]
    return found | {"n": 100, "teacher_score": 0.8, "majority_score": floor, "encoder_params_share": 0.11}


def test_one_training_has_the_interval_of_its_examples():
    mean = over_trainings([0.9], [[0.8, 0.95]])
    assert mean.interval == pytest.approx((0.8, 0.95))
    assert over_trainings([0.9], [None]).interval == pytest.approx((0.9, 0.9))


def test_several_trainings_add_student_s_t_in_squares():
    values = [0.9, 0.8, 0.85]
    mean = over_trainings(values, [[v - 0.03, v + 0.03] for v in values])
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert mean.value == pytest.approx(0.85)
    assert mean.interval[1] - 0.85 == pytest.approx(math.hypot(0.03, half))


def test_a_mean_over_tasks_has_independent_errors():
    one, other = Mean(0.9, 0.03, 0.03), Mean(0.7, 0.04, 0.04)
    mean = over_tasks([one, other])
    assert mean.value == pytest.approx(0.8)
    assert mean.interval == pytest.approx((0.8 - 0.025, 0.8 + 0.025))
    apart = difference(one, other)
    assert apart.value == pytest.approx(0.2)
    assert apart.interval == pytest.approx((0.15, 0.25))


def test_the_summary_needs_all_tasks_and_counts_seeds(two_tasks):
    rows = [row("a", 0.8), row("a", 0.72, seed=1), row("b", 0.4), row("a", 0.8, model="dropped", m=None)]
    (found,) = summary(rows)
    assert found["model"] == "shrp"
    assert found["share"] == pytest.approx((0.95 + 0.5) / 2)
    assert found["seeds"] == [1, 2]
    assert found["by_task"]["a"]["score"] == pytest.approx(0.76)
    above = ((0.3 / 0.3 + 0.22 / 0.3) / 2 + (-0.1 / 0.3)) / 2
    assert found["above_majority"] == pytest.approx(above)
    assert summary([]) == []


def test_leads_are_over_fine_tuned_controls_alone(two_tasks):
    rows = [row(task, 0.8) for task in TASKS]
    rows += [row(task, 0.4, model="dropped", m=None) for task in TASKS]
    rows += [row(task, 0.4, model="random", tuned=False) for task in TASKS]
    (found,) = leads(rows)
    assert (found["model"], found["experts_per_layer"]) == ("dropped", None)
    assert found["difference"] == pytest.approx(0.5)
    assert found["interval"][0] < 0.5 < found["interval"][1]


def test_pages_are_up_to_date():
    results.main(check=True)


def test_a_page_that_asks_for_an_unknown_table_is_refused():
    with pytest.raises(DataError):
        results.filled("<!-- table: nonsense -->\n<!-- end -->")
    text = results.filled("<!-- table: like for like -->\nold\n<!-- end -->\n")
    assert "old" not in text
    assert "the paper" in text
