"""Calibration: of probabilities, on made-up models whose errors are known, and of thresholds, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.calibration import (
    answer_shares,
    brier,
    ece,
    matching_shift,
    reliability,
    shifted,
    with_output_shift,
)
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.evaluation.statistics import wilson

SST2 = TASKS["sst2"]


def evaluation(logits, labels, task=SST2, order=None):
    logits = np.asarray(logits, dtype=np.float32)
    labels = None if labels is None else np.asarray(labels)
    data = TextData(task, "made", (("a",) * len(task.text_columns),) * len(logits), labels)
    order = np.arange(len(logits)) if order is None else order
    return summarise(data, order, logits[order], False)


def of_shares(shares, right):
    """A model of two classes that always says the second one with these probabilities."""
    margins = np.log(np.asarray(shares) / (1 - np.asarray(shares)))
    return evaluation(np.stack([0 * margins, margins], 1), np.asarray(right, dtype=int))


def made(n, sharper=1.0, seed=0):
    """`n` inputs whose labels follow the logits' probabilities, and a model that is so many times as sure of them."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 2, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-margins))).astype(int)
    return evaluation(sharper * np.stack([0 * margins, margins], 1), labels)


def test_numbers_by_hand():
    one = of_shares([0.6] * 20 + [0.9] * 20, [1] * 10 + [0] * 10 + [1] * 20)
    frame = reliability(one)
    assert frame["n"].tolist() == [20, 20]
    np.testing.assert_allclose(frame["confidence"], [0.6, 0.9], rtol=1e-6)
    np.testing.assert_allclose(frame[["low", "high"]], [[0.6, 0.6], [0.9, 0.9]], rtol=1e-6)
    assert frame["accuracy"].tolist() == [0.5, 1.0]
    assert frame.loc[0, ["accuracy low", "accuracy high"]].tolist() == list(wilson(10, 20))
    assert ece(one).value == pytest.approx(0.1, rel=1e-5)
    assert brier(one) == pytest.approx((10 * 2 * 0.4**2 + 10 * 2 * 0.6**2 + 20 * 2 * 0.1**2) / 40, rel=1e-5)


def test_a_calibrated_model_is_not_beyond_chance_and_an_overconfident_one_is():
    calibrated = [ece(made(500, seed=seed)) for seed in range(10)]
    assert sum(one.beyond_chance for one in calibrated) <= 2  # one of twenty, on average
    assert np.mean([one.value for one in calibrated]) == pytest.approx(calibrated[0].by_chance, rel=0.25)
    assert all(one.interval[0] == 0 for one in calibrated if not one.beyond_chance)
    sure = [ece(made(500, sharper=3, seed=seed)) for seed in range(10)]
    frame = reliability(made(200_000, sharper=3, seed=99))
    exact = (frame["n"] * (frame["accuracy"] - frame["confidence"]).abs()).sum() / 200_000
    assert exact > 0.05
    few = [ece(made(n, sharper=9)) for n in (4, 12, 30)]  # of few inputs intervals stay in range too
    for one in (*sure, *few):
        assert 0 <= one.interval[0] <= one.value <= one.interval[1] <= 1
    for one in sure:
        assert one.beyond_chance
        assert one.interval[0] > 0
        assert one.by_chance < one.chance_most < one.value
    assert sum(one.interval[0] <= exact <= one.interval[1] for one in sure) >= 8


def test_bins_have_equal_numbers_and_never_split_ties():
    frame = reliability(made(437))
    assert len(frame) == 10
    assert set(frame["n"]) <= {43, 44}
    assert (frame["low"].to_numpy()[1:] > frame["high"].to_numpy()[:-1]).all()
    tied = of_shares([0.55] * 60 + [0.7] * 170 + list(np.linspace(0.8, 0.95, 70)), [1] * 300)
    frame = reliability(tied)
    assert frame["n"].sum() == 300
    assert frame.loc[:1, "n"].tolist() == [60, 170]
    assert (frame["low"].to_numpy()[1:] > frame["high"].to_numpy()[:-1]).all()
    noisy = replace(tied, logits=tied.logits + np.random.default_rng(0).normal(0, 3e-7, (300, 2)))
    assert reliability(noisy)["n"].tolist() == frame["n"].tolist()  # equal but for the last digits


def test_numbers_and_data_without_labels_have_no_calibration():
    without = evaluation(np.zeros((4, 2)), None)
    numbers = evaluation(np.zeros((4, 1)), np.arange(4.0), TASKS["stsb"])
    for one in (without, numbers):
        for of in (reliability, ece, brier):
            with pytest.raises(DataError):
                of(one)


# Thresholds


def logits(*margins):
    return np.array([[0, m] for m in margins], dtype=np.float32)


def test_two_classes_get_the_shares_of_the_reference():
    own, reference = logits(5, 4, 3, 2, 1), logits(1, -1, -1, 1, -1)
    shift = matching_shift(own, reference)
    assert shift.sum() == pytest.approx(0)
    assert shift[1] - shift[0] == pytest.approx(-3.5)  # half way between the second and the third
    assert answer_shares(own + shift).tolist() == answer_shares(reference).tolist()
    assert matching_shift(reference, reference)[1] == pytest.approx(0)  # half way between 1 and -1


@pytest.mark.parametrize("classes", [3, 5])
def test_more_classes_too(classes):
    rng = np.random.default_rng(classes)
    reference = rng.normal(size=(300, classes))
    own = rng.normal(size=(400, classes)) * 3 + rng.normal(size=classes) * 2
    assert np.abs(answer_shares(own) - answer_shares(reference)).max() > 0.1
    moved = own + matching_shift(own, reference)
    assert np.abs(answer_shares(moved) - answer_shares(reference)).max() <= 1.5 / 300


def test_equal_outputs_stay_on_one_side():
    own = logits(2, 1, 1 + 1e-7, 1, 0)
    for reference, share in ((logits(1, 1, -1, -1, -1), 0.2), (logits(1, 1, 1, -1, -1), 0.8)):
        moved = own + matching_shift(own, reference)
        assert answer_shares(moved)[1] == share
        assert np.abs(moved[:, 1] - moved[:, 0]).min() > 0.1  # far from where noise would decide


def test_what_can_not_be_matched_is_refused():
    for own, reference in ((logits(), logits(1)), (logits(1), logits()), (logits(1), np.zeros((1, 3)))):
        with pytest.raises(DataError):
            matching_shift(own.reshape(-1, 2), reference)


def test_a_shifted_model_gives_the_shifted_evaluation(tiny_routed, tiny_tokenizer, tiny_data):
    data, model = tiny_data(40), tiny_routed()
    shift = np.array([0.7, -0.7])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = with_output_shift(model, SST2, shift)
    expected = shifted(evaluate(model, tiny_tokenizer, data), data, shift)
    found = evaluate(moved, tiny_tokenizer, data)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    assert (found.score, found.interval) == (expected.score, expected.interval)
    assert found.score != evaluate(model, tiny_tokenizer, data).score
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(PlanError):
        with_output_shift(model, TASKS["mnli"], np.zeros(3))


def test_every_family_has_an_output_bias(tiny_routed, tiny_inputs, tiny_family):
    model = tiny_routed(tiny_family)
    with torch.no_grad():
        before = model(**tiny_inputs()).logits
        after = with_output_shift(model, SST2, np.array([1.0, -2.0]))(**tiny_inputs()).logits
    np.testing.assert_allclose((after - before).numpy(), [[1.0, -2.0]] * len(before), atol=1e-5)
