"""The parts of the loss against the formulas, written out."""

import math

import pytest
import torch

from shrp.data.tasks import TASKS
from shrp.model.config import ShrpConfig
from shrp.model.gates import LayerTrace, RoutingRecord, balance_loss
from shrp.training.config import TrainConfig
from shrp.training.losses import Batch, TaskLoss, TeacherOutput, hidden_loss, logits_loss, task_loss


def log_softmax(values):
    top = math.log(sum(math.exp(v) for v in values))
    return [v - top for v in values]


STUDENT = [[1.0, -1.0, 0.5], [0.2, 0.1, 2.0]]
TEACHER = [[2.0, 0.0, -1.0], [0.0, 1.0, 1.5]]
LABELS = [0, 2]


def test_task_loss_is_cross_entropy_or_squared_error():
    expected = -sum(log_softmax(row)[label] for row, label in zip(STUDENT, LABELS)) / 2
    found = task_loss(torch.tensor(STUDENT), torch.tensor(LABELS), regression=False)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    scores, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 0.0], dtype=torch.float64)
    assert task_loss(scores, targets, regression=True).item() == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_logits_loss_is_kl_from_the_softened_teacher_times_t_squared(temperature):
    expected = 0.0
    for student, teacher in zip(STUDENT, TEACHER):
        s = log_softmax([v / temperature for v in student])
        t = log_softmax([v / temperature for v in teacher])
        expected += sum(math.exp(b) * (b - a) for a, b in zip(s, t)) / 2
    args = torch.tensor(STUDENT), torch.tensor(TEACHER)
    assert logits_loss(*args, False, temperature).item() == pytest.approx(expected * temperature**2, rel=1e-5)
    assert logits_loss(args[1], args[1], False, temperature).item() == pytest.approx(0, abs=1e-6)
    found = logits_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]]), True, temperature)
    assert found.item() == pytest.approx((1 + 4) / 2)


def test_hidden_loss_counts_real_tokens_and_adds_layers():
    generator = torch.Generator().manual_seed(0)
    teacher = tuple(torch.randn(2, 3, 4, generator=generator) for _ in range(4))
    outputs = {i: torch.randn(2, 3, 4, generator=generator) for i in (0, 2)}
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected = 0.0
    for layer, output in outputs.items():
        errors = [
            (output[b, t, j] - teacher[layer + 1][b, t, j]).item() ** 2  # index 0 is the embeddings' output
            for b in range(2)
            for t in range(3)
            for j in range(4)
            if mask[b, t]
        ]
        expected += sum(errors) / len(errors)
    assert hidden_loss(outputs, teacher, mask).item() == pytest.approx(expected, rel=1e-5)
    changed = {layer: output.clone() for layer, output in outputs.items()}
    changed[0][0, 2] = 1e6  # padding
    assert torch.equal(hidden_loss(changed, teacher, mask), hidden_loss(outputs, teacher, mask))


def test_relative_hidden_loss_is_1_for_the_mean_state_of_an_encoder_of_any_scale():
    generator, mask = torch.Generator().manual_seed(0), torch.tensor([[1, 1, 0], [1, 1, 1]])
    teacher = tuple(torch.randn(2, 3, 4, generator=generator) + 5 for _ in range(3))
    means = {i: teacher[i + 1][mask.bool()].mean(0).expand(2, 3, 4) for i in (0, 1)}
    assert hidden_loss(means, teacher, mask, relative=True).item() == pytest.approx(2, rel=1e-5)
    smaller = {i: output / 10 for i, output in means.items()}
    found = hidden_loss(smaller, tuple(states / 10 for states in teacher), mask, relative=True)
    assert found.item() == pytest.approx(2, rel=1e-5)
    assert hidden_loss({0: teacher[1]}, teacher, mask, relative=True).item() == 0


def parts(config, stage, teacher=True, layers=(1,)):
    generator = torch.Generator().manual_seed(1)
    record = RoutingRecord()
    for layer in layers:
        probs = torch.randn(2, 4, generator=generator).softmax(-1)
        record.traces[layer] = [LayerTrace(probs, probs, None)]
    hidden = tuple(torch.randn(2, 3, 4, generator=generator) for _ in range(4))
    outputs = {layer: torch.randn(2, 3, 4, generator=generator) for layer in layers}
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    objective = TaskLoss(config, TASKS["sst2"], None)
    objective.stage = stage
    target = TeacherOutput(torch.tensor(TEACHER), hidden) if teacher else None
    batch = Batch({"attention_mask": mask}, torch.tensor(LABELS), target)
    found = objective.parts(batch, torch.tensor(STUDENT), record, outputs)
    return found, record, hidden_loss(outputs, hidden, mask) if outputs else None


CONVERSION = ShrpConfig((1, 2))


def test_total_is_the_weighted_sum():
    config = TrainConfig(CONVERSION, balance=0.3, distill_logits=0.4, distill_hidden=2.0, temperature=3.0)
    found, record, hidden = parts(config, stage=1, layers=(1, 2))
    task = task_loss(torch.tensor(STUDENT), torch.tensor(LABELS), False)
    soft = logits_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), False, 3.0)
    balance = sum(balance_loss(record.last(layer).probs) for layer in (1, 2))
    assert balance > 0.01
    torch.testing.assert_close(found["loss"], 0.6 * task + 0.4 * soft + 2.0 * hidden + 0.3 * balance)
    wanted = {"task": task, "distill_logits": soft, "distill_hidden": hidden, "balance": balance}
    for name, value in wanted.items():
        torch.testing.assert_close(found[f"{name}_loss"], value)


def test_without_a_teacher_the_task_loss_keeps_its_full_weight():
    config = TrainConfig(CONVERSION, balance=0.0, distill_logits=0.9, distill_hidden=2.0)
    found = parts(config, 1, teacher=False)[0]
    assert torch.equal(found["loss"], found["task_loss"])
    assert found["distill_logits_loss"] == found["distill_hidden_loss"] == 0
    found = parts(config, 1, layers=())[0]  # nothing converted: no hidden states to distil, logits still
    assert found["distill_hidden_loss"] == 0
    torch.testing.assert_close(found["loss"], 0.1 * found["task_loss"] + 0.9 * found["distill_logits_loss"])
