"""A checkpoint is scored, and its usage measured, at the length that it was trained at."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.usage import measure_usage
from shrp.checkpoints.checkpoint import load, save
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
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
