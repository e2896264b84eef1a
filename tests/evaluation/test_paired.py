import numpy as np
import pytest

from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.evaluation.metrics import score
from shrp.evaluation.paired import (
    FURTHER,
    LOST,
    NEARER,
    UNLABELLED,
    WON,
    agreement,
    by_group,
    far_apart,
    flip_table,
    mean_difference,
    paired_difference,
)
from shrp.evaluation.statistics import paired_interval
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

SST2 = TASKS["sst2"]


def test_paired_difference(tiny_routed, tiny_tokenizer, tiny_data):
    data, model = tiny_data(120), tiny_routed()
    routed = evaluate(model, tiny_tokenizer, data)
    usage = {layer: np.array([0.4, 0.3, 0.2, 0.1]) for layer in (1, 2)}
    pruned = evaluate(prune(model, make_plan(usage, per_layer=1)), tiny_tokenizer, data)
    value, (low, high) = paired_difference(pruned, routed)
    assert value == pytest.approx(pruned.score - routed.score)
    assert low <= value <= high
    assert low < high
    value, (low, high) = paired_difference(routed, routed)
    assert value == 0.0
    # No input changes sides, which a few inputs cannot prove of all.
    assert low == pytest.approx(-high)
    assert 0 < high < 0.1
    assert np.isnan(paired_difference(pruned, routed, resamples=0)[1]).all()
    with pytest.raises(DataError):
        paired_difference(routed, evaluate(model, tiny_tokenizer, tiny_data(120, seed=1)))
    bare = evaluate(model, tiny_tokenizer, TextData(data.task, "bare", data.texts))
    assert np.isnan(paired_difference(bare, bare)[0])


def answered(labels, wrong, task=SST2):
    """An evaluation that is wrong on the inputs of a mask."""
    data = TextData(task, "made", tuple(("a",) for _ in labels), labels)
    given = np.where(wrong, 1 - labels, labels)
    return summarise(data, np.arange(len(labels)), np.eye(2, dtype=np.float32)[given], False)


def test_a_mean_over_draws_has_the_interval_of_its_inputs_mean_changes():
    generator, n = np.random.default_rng(0), 500
    labels = generator.integers(2, size=n)
    before, wrong = answered(labels, np.zeros(n, bool)), generator.random((8, n)) < 0.1
    draws = [answered(labels, one) for one in wrong]
    value, (low, high) = mean_difference(draws, before)
    assert value == pytest.approx(-wrong.mean())
    half = 1.96 * wrong.mean(0).std() / np.sqrt(n)
    assert [low, high] == pytest.approx([value - half, value + half], abs=half / 6)
    # What is luck with each input is averaged: one draw alone has about the square root of eight times the width.
    single = paired_difference(draws[0], before)[1]
    assert (single[1] - single[0]) / (high - low) == pytest.approx(np.sqrt(8), rel=0.25)
    # What all draws have in common is not.
    same = mean_difference(draws[:1] * 8, before)[1]
    assert same[1] - same[0] == pytest.approx(single[1] - single[0], rel=0.1)
    assert mean_difference(draws[:1], before) == paired_difference(draws[0], before, resamples=1000)
    # Where no prediction changes, a few examples are no proof that none would.
    assert mean_difference([before, before], before)[1] == paired_interval(np.zeros(n))


def made(predictions, task=SST2, labels=None, slices=None, order=None, sure=3.0):
    """An evaluation with these predictions, its rows in the order given."""
    n = len(predictions)
    texts = tuple((f"t{i}", "more")[: len(task.text_columns)] for i in range(n))
    data = TextData(task, "made", texts, labels, slices)
    if task.is_regression:
        logits = np.asarray(predictions, np.float32)[:, None]
    else:
        logits = sure * np.eye(task.num_labels, dtype=np.float32)[predictions]
    rows = np.arange(n) if order is None else np.asarray(order)
    return data, summarise(data, rows, logits[rows], True)


LABELS = np.array([0, 0, 0, 1, 1, 1, 0, 1])
GROUPS = ("x", "x", "x_y", "x_y", "x", "x_y", "x", "x_y")
A, B = [0, 0, 1, 1, 1, 1, 0, 0], [0, 1, 0, 1, 0, 1, 1, 0]


def test_agreement_counts_who_is_right_where():
    _, a = made(A, labels=LABELS)
    _, b = made(B, labels=LABELS, order=[7, 6, 5, 4, 3, 2, 1, 0])
    found = agreement(a, b)
    assert (found.both, found.only_a, found.only_b, found.neither) == (3, 3, 1, 1)
    assert found.n == 8
    assert found.p_value == pytest.approx(2 * (1 + 4) / 2**4)
    mirrored = agreement(b, a)
    assert (mirrored.only_a, mirrored.only_b, mirrored.p_value) == (1, 3, found.p_value)
    with pytest.raises(DataError):
        agreement(made(A)[1], made(B)[1])


def test_slices_come_by_loss_with_paired_intervals():
    data, a = made(A, labels=LABELS, slices=GROUPS)
    _, b = made(B, labels=LABELS, slices=GROUPS, order=[3, 1, 2, 0, 7, 6, 5, 4])
    frame = by_group(a, b, "slice")
    assert list(frame["group"]) == ["x", "x_y"]
    assert list(frame["n"]) == [4, 4]
    assert frame["reference"].tolist() == [1.0, 0.5]
    assert frame["other"].tolist() == [0.25, 0.75]
    assert frame["change"].tolist() == [-0.75, 0.25]
    expected = paired_interval(np.array([-1, -1, -1, 0]))
    assert tuple(frame.loc[0, ["change low", "change high"]]) == pytest.approx(expected)
    classes = by_group(a, b, "class").set_index("group")
    assert classes.loc["negative", "change"] == pytest.approx(2 / 4 - 3 / 4)
    low, high = classes.loc["positive", ["change low", "change high"]]
    assert (low, high) == pytest.approx(paired_interval(np.array([-1, 0, 0, 0])))
    _, bare = made(A, labels=LABELS)
    assert by_group(bare, bare, "slice").empty
    with pytest.raises(DataError):
        by_group(a, summarise(data, np.arange(3), a.logits[:3], False), "slice")


@pytest.mark.parametrize("name", ["sst2", "cola", "mrpc", "stsb"])
def test_the_quick_bootstrap_is_that_of_rows(name):
    task, n = TASKS[name], 300
    rng = np.random.default_rng(0)
    pairs = len(task.text_columns)
    if task.is_regression:
        labels = rng.uniform(0, 5, size=n)
        outputs = [(labels + rng.normal(size=n) * noise)[:, None] for noise in (0.8, 1.6)]
    else:
        labels = rng.integers(2, size=n)
        outputs = [np.eye(2)[np.where(rng.random(n) < right, labels, 1 - labels)] for right in (0.9, 0.8)]
    data = TextData(task, "made", (("t",) * pairs,) * n, labels)
    a, b = (summarise(data, np.arange(n), one.astype(np.float32), False) for one in outputs)
    value, bounds = paired_difference(a, b)
    assert value == pytest.approx(a.score - b.score)
    draws = []
    for _ in range(500):
        rows = rng.integers(n, size=n)
        first, second = (score(task, labels[rows], e.logits[rows])[task.metric] for e in (a, b))
        draws.append(first - second)
    assert bounds == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.02)
    assert paired_difference(a, b) == (value, bounds)


def test_flips_name_their_direction_and_one_class_for_both_probabilities():
    data, a = made(A, labels=LABELS, slices=GROUPS)
    _, b = made(B, labels=LABELS, slices=GROUPS, order=[7, 3, 5, 6, 4, 1, 2, 0], sure=1.0)
    frame = flip_table(a, b, data)
    assert list(frame["index"]) == [1, 2, 4, 6]
    assert list(frame["direction"]) == [LOST, WON, LOST, LOST]
    assert list(frame["class"]) == list(frame["label"]) == ["negative", "negative", "positive", "negative"]
    sure, unsure = np.exp(3) / (np.exp(3) + 1), np.exp(1) / (np.exp(1) + 1)
    assert frame["p_reference"].tolist() == pytest.approx([sure, 1 - sure, sure, sure])
    assert frame["p_other"].tolist() == pytest.approx([1 - unsure, unsure, 1 - unsure, 1 - unsure])
    assert list(frame["slice"]) == ["x", "x_y", "x", "x"]
    assert flip_table(a, a, data).empty


def test_flips_without_labels_and_of_numbers():
    data, a = made(A)
    frame = flip_table(a, made(B)[1], data)
    assert set(frame["direction"]) == {UNLABELLED}
    assert list(frame["class"]) == list(frame["reference"])
    labels = np.array([1.0, 2.0, 3.0])
    data, a = made([1.0, 2.0, 5.0], TASKS["stsb"], labels)
    frame = flip_table(a, made([1.2, 4.0, 3.0], TASKS["stsb"], labels)[1], data)
    assert list(frame["direction"]) == [FURTHER, NEARER]
    assert "class" not in frame


@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_where_no_draw_differs_there_is_no_interval(task):
    """A bootstrap of two constant models, or of equal ones, would be certain of no difference."""
    labels = np.arange(40) % 2
    data = TextData(TASKS[task], "made", (("w",) * len(TASKS[task].text_columns),) * 40, labels)
    varied = np.random.default_rng(0).normal(size=(40, data.task.num_labels)).astype(np.float32)
    always = np.zeros_like(varied)
    always[:, 0] = 1
    equal = [summarise(data, np.arange(40), varied, False)] * 2
    constant = [summarise(data, np.arange(40), logits, False) for logits in (always, always[:, ::-1])]
    for one, other in (equal, constant) if task == "cola" else (equal,):
        value, bounds = paired_difference(one, other)
        assert value == 0
        assert np.isnan(bounds).all()


def test_numbers_are_apart_by_a_part_of_what_the_labels_span(tiny_data):
    rated = custom_task("rated", ("text",), regression=True)
    texts = tuple((f"w{i}",) for i in range(5))
    for span, apart in ((100.0, 10.0), (1.0, 0.1)):
        data = TextData(rated, "rated", texts, np.linspace(0, span, 5))
        before = summarise(data, np.arange(5), np.zeros((5, 1), dtype=np.float32), True)
        assert far_apart(before) == pytest.approx(apart)
        moved = np.array([[0], [0.09], [0.11], [-9], [11]], dtype=np.float32)
        after = summarise(data, np.arange(5), moved, True)
        assert len(flip_table(before, after, data)) == (np.abs(moved) > apart).sum()
    unlabelled = TextData(rated, "rated", texts)
    spread = summarise(unlabelled, np.arange(5), np.linspace(0, 3, 5, dtype=np.float32)[:, None], True)
    assert far_apart(spread) == pytest.approx(0.3)
    alike = TextData(rated, "alike", texts, np.full(5, 4.0))
    assert far_apart(summarise(alike, np.arange(5), spread.logits, True)) == pytest.approx(0.3)
    assert far_apart(made([1.0, 2.0, 5.0], TASKS["stsb"], np.array([2.0, 2.5, 3.0]))[1]) == 0.5
