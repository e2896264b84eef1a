"""What a notebook does with a loaded checkpoint: score it, measure its usage, and look at what comes back."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.usage import UsageStats, measure_usage
from shrp.checkpoints.checkpoint import Checkpoint, load, save
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import evaluate, evaluate_stream
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.conftest import WORDS

LONG = 192
"""Tokens that the checkpoint of `trained_longer` learned from, more than evaluation takes by itself."""


@pytest.fixture
def trained_longer(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    """A checkpoint, as loaded, whose training cut inputs at `LONG` tokens."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.model_max_length = 256
    info = tiny_info(training={"config": {"max_length": LONG}})
    return load(save(tiny_routed(max_position_embeddings=256), tokenizer, info, tmp_path / "longer"))


def long_texts():
    """Unlabelled texts that differ after their first 128 tokens only."""
    rng = np.random.default_rng(0)
    start = " ".join(rng.choice(WORDS, 140))
    texts = tuple((f"{start} {' '.join([word] * 45)}",) for word in WORDS[:50])
    return TextData(TASKS["sst2"], "long", texts)


def test_a_checkpoint_is_scored_at_the_length_of_its_training(trained_longer):
    one, data = trained_longer, long_texts()
    first, second = evaluate(one.model, one.tokenizer, data, max_length=LONG).logits.T
    with torch.no_grad():  # so that it answers either way for half of them, an even number
        one.model.classifier.bias[0] -= float(np.median(first - second))
    data = replace(data, labels=(second > first - np.median(first - second)).astype(int))
    assert one.evaluate(data).score == 1
    assert evaluate(one.model, one.tokenizer, data).score < 1  # cut at 128 tokens all texts are the same
    assert one.evaluate(data, max_length=128).score < 1


def test_a_checkpoints_usage_is_measured_at_the_length_of_its_training(trained_longer):
    one, data = trained_longer, long_texts()
    own, short = one.usage(data), measure_usage(one.model, one.tokenizer, data)
    assert np.ptp(own.logits, axis=0).max() > 0.01
    assert np.ptp(short.logits, axis=0).max() < 1e-4
    np.testing.assert_allclose(own.logits, one.evaluate(data).logits, atol=1e-4)
    assert one.usage(data, output_norms=True, max_length=128).norms


def test_what_cannot_be_measured_is_refused_as_by_the_functions(trained_longer, tiny_data):
    with pytest.raises(DataError, match="no examples"):
        trained_longer.evaluate(tiny_data(0))
    plan = make_plan({1: [0.1, 0.2, 0.3, 0.4], 2: [0.4, 0.3, 0.2, 0.1]}, per_layer=1)
    static = replace(trained_longer, model=prune(trained_longer.model, plan))
    with pytest.raises(PlanError, match="no routed layer"):
        static.usage(tiny_data())


def test_a_checkpoint_is_shown_in_a_line(tmp_path, tiny_routed, tiny_model, tiny_info, tiny_tokenizer):
    def shown(info, model=None):
        return repr(Checkpoint(tmp_path / "mine", info, model or tiny_routed(), tiny_tokenizer, ""))

    start = f"<Checkpoint '{tmp_path / 'mine'}': task 'sst2', "
    assert shown(tiny_info()) == f"{start}routed in layers 1, 2>"
    assert shown(tiny_info(layers=()), tiny_model()) == f"{start}dense>"
    plan = make_plan({1: [0.1, 0.2, 0.3, 0.4], 2: [0.4, 0.3, 0.2, 0.1]}, budget=3)
    assert shown(tiny_info(plan=plan)) == f"{start}static, 3 experts kept in layers 1, 2>"


def test_data_are_shown_in_a_line(tiny_data):
    data = tiny_data(40)
    start = "<TextData 'made 0': task 'sst2', 40 examples, "
    assert repr(data) == f"{start}labelled, 2 slices>"
    assert repr(replace(data, labels=None, slices=None)) == f"{start}without labels>"
    pairs = ("a", "b", "a", "", "c", "", "c", "d")
    assert repr(replace(tiny_data(8, sliced=False), pairs=pairs)).endswith("labelled, 2 minimal pairs>")
    assert "\n" not in repr(replace(data, name="two\nlines"))


def test_usage_is_shown_in_a_line(tiny_routed, tiny_tokenizer, tiny_data):
    stats = measure_usage(tiny_routed(), tiny_tokenizer, tiny_data(40))
    assert (
        repr(stats) == "<UsageStats of 'made 0': 40 inputs, routed by input in layers 1, 2 of 4 experts each>"
    )
    assert "routed by token" in repr(replace(stats, unit="tokens"))
    assert repr(UsageStats("none", "inputs", {}, {}, {}, {})) == "<UsageStats of 'none': 0 inputs, no layer>"


def test_an_evaluation_is_shown_in_a_line(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(40)
    whole = evaluate(model, tiny_tokenizer, data)
    low, high = whole.interval
    assert repr(whole) == (
        f"<Evaluation on 'made 0': task 'sst2', accuracy {whole.score:.3f} ({low:.3f} to {high:.3f}), 40 examples>"
    )
    first = next(evaluate_stream(model, tiny_tokenizer, data, batch_size=8))
    assert repr(first).endswith(", 8 of 40 examples>")
    unlabelled = evaluate(model, tiny_tokenizer, replace(data, labels=None))
    assert repr(unlabelled) == "<Evaluation on 'made 0': task 'sst2', no labels, 40 examples>"
    assert " to " not in repr(replace(whole, interval=(np.nan, np.nan)))
