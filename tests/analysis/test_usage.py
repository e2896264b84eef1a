"""Usage against brute force and known distributions, and the thresholds of the warnings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.explore import explore
from shrp.analysis.usage import (
    COLLAPSE_EXPERTS,
    COLLAPSE_SHARE,
    NOISY_ENTROPY,
    NOISY_MARGIN,
    UsageStats,
    entropy,
    history_warnings,
    measure_usage,
)
from shrp.data.batching import collate, encode
from shrp.errors import PlanError
from shrp.model.gates import record_routing
from shrp.pruning.plan import make_plan
from shrp.pruning.select import plan_from

H = 4


def stats_of(top1, margin=0.5, **fields):
    """Stats of one layer (5) with the given Top-1 counts an input."""
    top1 = np.asarray(top1)
    probs = top1 / top1.sum(1, keepdims=True)
    margins = np.full(len(top1), margin, dtype=np.float32)
    return UsageStats("made", "examples", {5: top1}, {5: probs}, {5: margins}, {}, **fields)


def spread(*counts):
    """One-hot rows with the given number of inputs for each expert."""
    return np.repeat(np.eye(len(counts), dtype=np.int64), counts, axis=0)


@pytest.mark.parametrize("routing", ["sequence", "token"])
@pytest.mark.parametrize(("batch_size", "top_k"), [(1, 1), (7, 1), (4, 2), (4, 4)])
def test_measured_equals_a_plain_loop(routing, batch_size, top_k, tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(routing=routing, top_k=top_k), tiny_data(30)
    progress, options = [], {"batch_size": batch_size, "output_norms": True}
    stats = measure_usage(model, tiny_tokenizer, data, progress=lambda *step: progress.append(step), **options)
    top1 = {layer: np.zeros((30, H)) for layer in (1, 2)}
    encoded = encode(tiny_tokenizer, data.texts)
    for i, text in enumerate(data.texts):
        (explored,) = explore(model, tiny_tokenizer, data.task, [text])
        with torch.no_grad(), record_routing(output_norms=True) as record:
            logits = model(**collate(tiny_tokenizer, encoded, [i])).logits[0]
        np.testing.assert_allclose(stats.logits[i], logits, atol=1e-5, rtol=1e-5)
        for layer in (1, 2):
            rows = record.probs(layer)  # one row an input, or one a token
            ordered = rows.sort(-1, descending=True).values
            for row in rows:
                top1[layer][i, row.argmax()] += 1
            np.testing.assert_allclose(stats.probs[layer][i], rows.mean(0), atol=1e-5, rtol=1e-5)
            # Of the last that is taken over the first that is not.
            after = ordered[:, top_k] if top_k < H else torch.zeros(len(ordered))
            margin = (ordered[:, top_k - 1] - after).mean().item()
            assert stats.margins[layer][i] == pytest.approx(margin, abs=1e-5)
            assert explored.margin(layer) == pytest.approx(margin, abs=1e-5)
            assert explored.several(layer) == top_k
            norms = record.last(layer).output_norms[0]
            np.testing.assert_allclose(stats.norms[layer][i], norms, atol=1e-5, rtol=1e-4)
    for layer in (1, 2):
        assert np.array_equal(stats.top1[layer], top1[layer])
        assert np.array_equal(stats.counts(layer), top1[layer].sum(0))
        np.testing.assert_allclose(stats.share(layer), top1[layer].sum(0) / top1[layer].sum())
        assert (top1[layer].sum(0) > 0).sum() > 1  # otherwise this would show little
    lengths = [len(row["input_ids"]) for row in encoded]
    assert stats.counts(1).sum() == (sum(lengths) if routing == "token" else 30)
    assert stats.unit == ("tokens" if routing == "token" else "examples")
    assert (stats.n, stats.layers, stats.num_experts) == (30, [1, 2], H)
    assert progress[-1] == (30, 30)
    assert len(progress) == -(-30 // batch_size)


def kinds(stats):
    return [warning.kind for warning in stats.warnings()]


def test_warnings_at_their_thresholds():
    # 87 : 13 has 1.47 effective experts, 85 : 15 has 1.53: either side of the threshold.
    few, more, flat, uneven = (
        stats_of(spread(*counts))
        for counts in ((87, 13, 0, 0), (85, 15, 0, 0), (40, 30, 20, 10), (50, 30, 15, 5))
    )
    assert few.effective_experts(5) < COLLAPSE_EXPERTS < more.effective_experts(5)
    # Flat usage is noisy: 40 : 30 : 20 : 10 has 92% of the possible entropy, 50 : 30 : 15 : 5 has 82%.
    assert entropy(flat.share(5)) > NOISY_ENTROPY * np.log(4) > entropy(uneven.share(5))
    assert [kinds(one) for one in (few, more, flat, uneven)] == [["collapse"], [], ["noisy"], []]
    assert kinds(stats_of(spread(50, 30, 15, 5), margin=NOISY_MARGIN - 0.01)) == ["small margins"]
    assert kinds(stats_of(spread(40, 30, 20, 10), margin=0.0)) == ["noisy", "small margins"]
    # A few inputs may all agree, and can't spread.
    assert (stats_of(spread(49, 0, 0, 0)).too_few, kinds(stats_of(spread(49, 0, 0, 0)))) == (50, [])
    assert (stats_of(spread(50, 0, 0, 0)).too_few, kinds(stats_of(spread(50, 0, 0, 0)))) == (0, ["collapse"])
    assert stats_of(spread(*[5] * 15)).too_few == 0
    assert stats_of(spread(*[3] * 16)).too_few == 64


def test_history_warnings_look_at_stage_1_and_name_each_layer_once():
    high, low = COLLAPSE_SHARE + 0.02, COLLAPSE_SHARE - 0.02

    def share(top):
        return [0.0, top, 1 - top, 0.0]

    history = [
        {"epoch": 0, "stage": 1, "usage": {"11": share(low)}},
        {"epoch": 1, "stage": 1, "usage": {"11": share(high), "10": share(low)}},
        {"epoch": 2, "stage": 1, "usage": {"11": share(1.0), "10": share(high), "2": share(low)}},
        {"epoch": 3, "stage": 2, "usage": {"11": share(1.0), "10": share(1.0), "2": share(1.0)}},
    ]
    found = history_warnings(history)
    assert [(w.kind, w.layer) for w in found] == [("collapse", 10), ("collapse", 11)]
    assert "expert 1 took 92%" in found[1].text
    assert history_warnings([{"epoch": 0, "stage": 2}, {"epoch": 1, "stage": 1}]) == []


def test_gate_norm_and_plans_made_from_stats(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed(), tiny_data(30)
    bare = measure_usage(model, tiny_tokenizer, data)
    assert plan_from(bare, budget=5) == make_plan(bare.shares(), budget=5)
    other = {layer: np.array([0.1, 0.2, 0.3, 0.4]) for layer in (1, 2)}
    recorded = plan_from(replace(bare, recorded=other), budget=5, selection="recorded")
    assert recorded == make_plan(other, budget=5)
    ablated = dict(plan_from(replace(bare, ablation=other), per_layer=1, selection="ablation").layers)
    assert [kept.experts for kept in ablated.values()] == [(3,), (3,)]
    with pytest.raises(PlanError, match="effects of knocking them out"):
        plan_from(bare, budget=5, selection="ablation")
    with pytest.raises(PlanError, match="output_norms=True"):
        plan_from(bare, budget=5, selection="gate_norm")
    stats = measure_usage(model, tiny_tokenizer, data, output_norms=True)
    scores = stats.gate_norm()
    for layer in (1, 2):
        by_hand = np.mean([stats.top1[layer][i] * stats.norms[layer][i] for i in range(30)], axis=0)
        np.testing.assert_allclose(scores[layer], by_hand, rtol=1e-5)
    plan = dict(plan_from(stats, per_layer=1, selection="gate_norm").layers)
    assert plan[1].experts == (int(scores[1].argmax()),)
