import numpy as np
import pytest

from shrp.data import TextData
from shrp.errors import DataError
from shrp.evaluate import evaluate
from shrp.paired import paired_difference
from shrp.plan import make_plan
from shrp.prune import prune


def test_paired_difference(tiny_routed, tiny_tokenizer, tiny_data):
    data, model = tiny_data(120), tiny_routed()
    routed = evaluate(model, tiny_tokenizer, data)
    usage = {layer: np.array([0.4, 0.3, 0.2, 0.1]) for layer in (1, 2)}
    pruned = evaluate(prune(model, make_plan(usage, per_layer=1)), tiny_tokenizer, data)
    value, (low, high) = paired_difference(pruned, routed)
    assert value == pytest.approx(pruned.score - routed.score)
    assert low <= value <= high
    assert low < high
    assert paired_difference(routed, routed) == (0.0, (0.0, 0.0))
    assert np.isnan(paired_difference(pruned, routed, resamples=0)[1]).all()


def test_only_inputs_that_both_have_seen_count(tiny_routed, tiny_tokenizer, tiny_data):
    data, model = tiny_data(120), tiny_routed()
    whole = evaluate(tiny_routed(seed=1), tiny_tokenizer, data)
    some = evaluate(model, tiny_tokenizer, data, order=range(50))
    by_hand = whole.correct[:50].mean() - some.correct.mean()
    assert paired_difference(whole, some)[0] == pytest.approx(by_hand)


def test_other_data_and_missing_labels(tiny_routed, tiny_tokenizer, tiny_data):
    data, model = tiny_data(20), tiny_routed()
    routed = evaluate(model, tiny_tokenizer, data)
    other = evaluate(model, tiny_tokenizer, tiny_data(20, seed=1))
    with pytest.raises(DataError, match="different inputs"):
        paired_difference(routed, other)
    bare = evaluate(model, tiny_tokenizer, TextData(data.task, "bare", data.texts))
    assert np.isnan(paired_difference(bare, bare)[0])
