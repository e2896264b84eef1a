"""Threshold calibration, against frequencies and thresholds counted by hand."""

import numpy as np
import pytest
import torch

from shrp.data.tasks import TASKS
from shrp.errors import DataError, PlanError
from shrp.evaluation.calibration import answer_shares, matching_shift, shifted, with_output_shift
from shrp.evaluation.evaluate import evaluate

SST2 = TASKS["sst2"]


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


def test_a_shifted_model_gives_the_shifted_evaluation(
    tiny_routed, tiny_model, tiny_tokenizer, tiny_data, tiny_inputs
):
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


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "mpnet"])
def test_every_family_has_an_output_bias(tiny_routed, tiny_inputs, family):
    model = tiny_routed(family)
    with torch.no_grad():
        before = model(**tiny_inputs()).logits
        after = with_output_shift(model, SST2, np.array([1.0, -2.0]))(**tiny_inputs()).logits
    np.testing.assert_allclose((after - before).numpy(), [[1.0, -2.0]] * len(before), atol=1e-5)
