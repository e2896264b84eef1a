"""What a notebook does with a loaded checkpoint: score it, measure its usage, and look at what comes back."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.usage import measure_usage
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


def test_each_is_shown_in_a_line(tmp_path, tiny_routed, tiny_info, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(40)
    plan = make_plan({1: [0.1, 0.2, 0.3, 0.4], 2: [0.4, 0.3, 0.2, 0.1]}, budget=3)
    start = f"<Checkpoint '{tmp_path / 'mine'}': task 'sst2', "
    for info, rest in (
        ({}, "routed in layers 1, 2>"),
        ({"plan": plan}, "static, 3 experts kept in layers 1, 2>"),
    ):
        assert (
            repr(Checkpoint(tmp_path / "mine", tiny_info(**info), model, tiny_tokenizer, "")) == start + rest
        )
    assert repr(data) == "<TextData 'made 0': task 'sst2', 40 examples, labelled, 2 slices>"
    assert repr(replace(data, labels=None, slices=None)).endswith("40 examples, without labels>")
    usage = "<UsageStats of 'made 0': 40 inputs, routed by input in layers 1, 2 of 4 experts each>"
    assert repr(measure_usage(model, tiny_tokenizer, data)) == usage
    first = next(evaluate_stream(model, tiny_tokenizer, data, batch_size=8))
    low, high = first.interval
    score = f"accuracy {first.score:.3f} ({low:.3f} to {high:.3f}), 8 of 40 examples>"
    assert repr(first) == f"<Evaluation on 'made 0': task 'sst2', {score}"
