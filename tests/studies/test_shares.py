import numpy as np
import pytest

from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.metrics import constant_score
from studies.shares import lead, of_teacher, worth_keeping

LABELS = np.array([1, 1, 1, 0])


def evaluation(predictions, task="sst2", labels=LABELS):
    task = TASKS[task]
    data = TextData(task, "made", (("t",) * len(task.text_columns),) * len(predictions), labels)
    outputs = np.array(predictions)[:, None] if task.is_regression else np.eye(2)[predictions]
    return summarise(data, np.arange(len(predictions)), outputs.astype(np.float32), True)


def test_shares_of_a_teacher_and_of_the_best_constant_answer():
    teacher, mine = evaluation([1, 1, 1, 0]), evaluation([1, 1, 0, 0])
    row = of_teacher([mine], teacher)
    assert (row["score"], row["retained"], row["teacher"], row["constant"]) == (0.75, 0.75, 1.0, 0.75)
    assert row["interval_is"] == "95%"
    drawn = of_teacher([mine, evaluation([0, 0, 0, 0])], teacher)
    assert (drawn["score"], drawn["interval"], drawn["interval_is"]) == (
        0.5,
        [0.25, 0.75],
        "range of 2 draws",
    )


def test_of_a_teacher_below_0_nothing_is_a_share():
    """Of two negative correlations the quotient would call the worse one the better."""
    numbers = np.array([1.0, 2.0, 3.0])
    teacher = evaluation([3.0, 1.0, 2.0], "stsb", numbers)
    assert teacher.score < 0
    assert of_teacher([evaluation([3.0, 2.0, 1.0], "stsb", numbers)], teacher)["retained"] is None


def test_a_lead_is_on_the_same_inputs_and_in_shares_of_the_teacher():
    teacher = evaluation([1, 1, 0, 0])
    found = lead(evaluation([1, 1, 1, 1]), evaluation([0, 0, 1, 1]), teacher)
    assert found["lead"] == pytest.approx((0.75 - 0.25) / 0.75)
    low, high = found["lead_interval"]
    assert low < found["lead"] < high


def test_of_a_teacher_that_gives_one_answer_there_are_no_shares():
    teacher = evaluation([1, 1, 0, 0], "cola")
    assert worth_keeping(teacher) is teacher
    with pytest.raises(TrainingError, match="score of 0 on made, so there is nothing to retain"):
        worth_keeping(evaluation([1, 1, 1, 1], "cola"))
    with pytest.raises(TrainingError, match="the routed model has a score of 0 on made"):
        worth_keeping(evaluation([1, 1, 1, 1], "cola"), "the routed model")


def test_constant_answers():
    assert constant_score(TASKS["mrpc"], LABELS) == pytest.approx(6 / 7)  # F1 of always answering 1
    assert constant_score(TASKS["cola"], LABELS) == 0.0
    numbers = np.array([1.0, 2.0, 3.0])
    assert np.isnan(constant_score(TASKS["stsb"], numbers))
    assert of_teacher([one := evaluation([1.0, 2.0, 2.5], "stsb", numbers)], one)["constant"] is None
