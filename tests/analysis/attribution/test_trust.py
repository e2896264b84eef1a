from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from shrp.analysis.attribution import instance, tokens, trust


def test_every_attribution_is_checked_and_the_controls_last(made, routed):
    one = made(routed)
    results = [
        tokens.input_x_gradient(one, 1),
        tokens.integrated_gradients(one, 1),
        tokens.ablate_words(one, 1),
    ]
    calls = []
    found = trust.check(one, results, 1, progress=lambda *call: calls.append(call))
    assert [check.method for check in found] == [*tokens.METHODS, trust.EQUAL, trust.SHUFFLED]
    assert calls[-1][0] == calls[-1][1]
    assert all(a[0] <= b[0] for a, b in pairwise(calls))
    *real, equal, shuffled = found
    assert shuffled.sensitivity > 0.5  # permuted for every copy
    assert len({check.sensitivity for check in [*real, shuffled]}) == 4
    assert shuffled.explained == pytest.approx(np.mean([check.shuffled for check in real]))
    assert np.isnan([equal.shuffled, shuffled.shuffled, equal.sensitivity]).all()
    for check in found:
        assert check.explained <= 1 + 1e-6
    best = max(real, key=lambda check: check.explained)
    assert np.isnan([one.behind_low for one in (best, equal, shuffled)]).all()
    for check in real:
        assert check.above_equal_low <= check.explained - equal.explained + 1e-6
        if check is not best:
            assert check.behind_low <= best.explained - check.explained + 1e-6


def test_a_true_attribution_is_told_from_its_scores_on_other_words(made, tiny_model, monkeypatch):
    """Of an output that is a sum over words: its terms foresee everything, on other words they don't."""
    one = made(tiny_model())
    terms = torch.linspace(-1, 2, len(one.words))
    direction = torch.ones(one.embeddings.shape[-1])
    gaps = ((one.embeddings - one.baseline("mask"))[0] @ direction)[one.word_positions]

    def additive(self, embeddings, **inputs):
        there = ((embeddings - one.baseline("mask")) @ direction)[:, one.word_positions] / gaps
        return (there @ terms)[:, None].expand(-1, 2)

    monkeypatch.setattr(instance.Instance, "outputs", additive)
    result = tokens.ablate_words(one, 0)
    np.testing.assert_allclose(result.scores, terms, atol=1e-4)
    shuffles = []
    for seed in range(5):
        true, equal, shuffled = trust.check(one, [result], 0, seed=seed)
        assert true.infidelity == pytest.approx(0, abs=1e-6)
        assert true.explained == pytest.approx(1, abs=1e-5)
        assert equal.explained < 0.9
        assert true.above_equal_low > 0
        assert true.shuffled == pytest.approx(shuffled.explained)
        shuffles.append(shuffled)
    assert np.mean([shuffled.explained for shuffled in shuffles]) < 0.7
    noise = np.random.default_rng(0).normal(size=len(terms))
    other, same = replace(result, scores=result.scores * 3), replace(result, scores=result.scores + noise)
    true, equal, noisy, *_ = trust.check(one, [result, other, same], 0)
    second = true if np.isnan(equal.behind_low) else equal  # the two differ in scale only
    assert second.behind_low == pytest.approx(0, abs=1e-6)
    assert 0 < noisy.behind_low < true.explained - noisy.explained
    assert min(shuffled.infidelity for shuffled in shuffles) > 0.1


def test_infidelity_equals_its_definition(made, routed):
    one = made(routed)
    result = tokens.ablate_words(one, 1)
    found, *_ = trust.check(one, [result], 1)
    generator = torch.Generator().manual_seed(0)
    dropped = torch.rand(trust.SAMPLES, len(one.words), generator=generator) < trust.SHARE_REPLACED
    errors = []
    for row in dropped.numpy():
        embeddings = one.embeddings.clone()
        for gone, word in zip(row, one.words, strict=True):
            if gone:
                embeddings[:, list(word.positions)] = one.replacements["mask"]
        with torch.no_grad():
            change = result.full - float(one.outputs(embeddings)[0, 1])
        errors.append(((row * result.scores).sum() - change) ** 2)
    assert found.infidelity == pytest.approx(np.mean(errors), rel=1e-4)
