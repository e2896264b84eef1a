"""Routes exchanged among examples: usage stays, and outputs are those of the gates taken."""

import numpy as np
import pytest
import torch

from shrp.analysis.routes import ALL, MIXTURE, SAME, shuffle_routes
from shrp.analysis.usage import measure_usage
from shrp.data.batching import bucketed_batches, collate, encode
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import evaluate
from shrp.model.gates import record_routing, top_k_gates, use_gates
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from


@pytest.fixture
def exchanged(tiny_routed, tiny_tokenizer, tiny_data):
    def run(n=40, draws=2, **options):
        model, data = tiny_routed("bert", **options).eval(), tiny_data(n)
        stats = measure_usage(model, tiny_tokenizer, data)
        found = shuffle_routes(model, tiny_tokenizer, data, stats, batch_size=7, draws=draws)
        return model, data, stats, found

    return run


def drawn(seed, groups):
    """Input -> whose route it takes, within these groups."""
    generator, partner = np.random.default_rng(seed), {}
    for group in groups:
        ring = generator.permutation(group)
        partner |= dict(zip(ring, np.roll(ring, -1), strict=True))
    return partner


def test_each_input_takes_the_gates_of_its_partner(exchanged, tiny_tokenizer):
    top_k = 2
    model, data, stats, found = exchanged(top_k=top_k)
    everyone, encoded = np.arange(len(data)), encode(tiny_tokenizer, data.texts)
    answers = stats.logits.argmax(1)
    assert 1 < answers.sum() < len(data) - 1  # of both there are several, or nothing could be exchanged
    same = [np.flatnonzero(answers == answer) for answer in (0, 1)]
    cases = [(layer, 0, [layer], drawn(0, [everyone])) for layer in (1, 2)]
    cases += [(ALL, draw, [1, 2], drawn(draw, [everyone])) for draw in (0, 1)]
    cases += [(SAME, draw, [1, 2], drawn([draw, 1], same)) for draw in (0, 1)]
    for case, draw, layers, partner in cases:
        expected = []
        for row in range(len(data)):
            theirs = {
                layer: top_k_gates(torch.from_numpy(stats.probs[layer][partner[row]])[None], top_k)
                for layer in layers
            }
            with torch.inference_mode(), use_gates(theirs):
                expected.append(model(**collate(tiny_tokenizer, encoded, [row])).logits[0].numpy())
        assert found.after[case][draw].logits == pytest.approx(np.stack(expected), abs=1e-5)
    counts = {case: len(draws) for case, draws in found.after.items()}
    assert counts == {1: 1, 2: 1, ALL: 2, SAME: 2, MIXTURE: 1}
    # It is another output than its own for some, or this test would say nothing.
    for one in (*found.after[ALL], *found.after[SAME]):
        assert np.abs(one.logits - found.before.logits).max() > 1e-3


def test_what_is_told_of_it(exchanged):
    *_, found = exchanged()
    frame = found.frame.set_index("layer")
    assert list(frame.index) == [1, 2, ALL, SAME, MIXTURE]
    assert frame["draws"].tolist() == [1, 1, 2, 2, 1]
    for case, draws in found.after.items():
        row = frame.loc[case]
        changes = [after.score - found.before.score for after in draws]
        assert row["score"] == pytest.approx(np.mean([after.score for after in draws]))
        assert row["change"] == pytest.approx(np.mean(changes))
        flipped = [(after.predictions != found.before.predictions).sum() for after in draws]
        assert row["flipped"] == np.mean(flipped)
        assert 0 <= row["share_low"] <= row["share"] == row["flipped"] / 40 <= row["share_high"] <= 1
        assert row["low"] <= row["change"] <= row["high"]


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_mixture_is_the_pruned_model_that_keeps_all(exchanged, tiny_tokenizer, top_k):
    model, data, stats, found = exchanged(top_k=top_k)
    plan = plan_from(stats, per_layer=stats.num_experts)
    pruned = evaluate(prune(model, plan), tiny_tokenizer, data)
    (mixture,) = found.after[MIXTURE]
    assert mixture.logits[pruned.indices] == pytest.approx(pruned.logits, abs=1e-5)


def test_it_needs_routes_and_usage_of_the_same_inputs(exchanged, tiny_model, tiny_tokenizer, tiny_data):
    model, data, stats, _ = exchanged()
    alone = measure_usage(model, tiny_tokenizer, tiny_data(1))
    for of, on, usage, error in (
        (tiny_model(), data, stats, PlanError),
        (model, tiny_data(1), alone, DataError),
        (model, tiny_data(8), stats, DataError),
    ):
        with pytest.raises(error):
            shuffle_routes(of, tiny_tokenizer, on, usage)


def test_tokens_exchange_routes_among_equal_predictions(exchanged, tiny_tokenizer):
    model, data, stats, _ = exchanged(routing="token")
    answers = stats.logits.argmax(1)
    with record_routing() as record:
        shuffle_routes(model, tiny_tokenizer, data, stats, batch_size=15, draws=1)
    lengths = [len(row["input_ids"]) for row in encode(tiny_tokenizer, data.texts)]
    batches = list(bucketed_batches(lengths, 15))
    assert len(batches) > 2
    for layer, passes in ((1, 5), (2, 6)):  # layer 2 runs above layer 1 alone too
        traces = record.traces[layer]
        assert len(traces) == passes * len(batches)
        for rows, start in zip(batches, range(0, len(traces), passes), strict=True):
            routed, moved = traces[start], []
            for trace in traces[start + 1 : start + passes]:
                same = True
                for answer in (0, 1):
                    of = torch.from_numpy(answers[rows] == answer)
                    counts = [one.gates[of][routed.token_mask[of]].sum(0).tolist() for one in (routed, trace)]
                    same &= counts[0] == counts[1]
                moved.append(same and not torch.equal(routed.gates, trace.gates))
            assert any(moved)  # a pass that permutes gates and leaves each answer's usage as it is
