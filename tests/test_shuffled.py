"""Routes exchanged among inputs: usage stays, outputs are those of the gates that were taken, and are told rightly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.answer_shares import answer_shares, matching_shift
from shrp.batching import bucketed_batches, collate, encode
from shrp.data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluate import evaluate
from shrp.knockout import Prefix
from shrp.prune import prune
from shrp.routing import record_routing, top_k_gates, use_gates
from shrp.shuffled import ALIKE, ALL, MIXTURE, shuffle_routes
from shrp.tasks import TASKS
from shrp.usage import measure_usage, plan_from


@pytest.fixture
def exchanged(tiny_routed, tiny_tokenizer, tiny_data):
    def run(n=40, **options):
        model, data = tiny_routed("bert", **options).eval(), tiny_data(n)
        stats = measure_usage(model, tiny_tokenizer, data)
        return model, data, stats, shuffle_routes(model, tiny_tokenizer, data, stats, batch_size=7)

    return run


def drawn(seed, groups):
    """Input -> whose route it takes, within these groups."""
    generator, partner = np.random.default_rng(seed), {}
    for group in groups:
        ring = generator.permutation(group)
        partner |= dict(zip(ring, np.roll(ring, -1), strict=True))
    return partner


@pytest.mark.parametrize("top_k", [1, 2])
def test_each_input_takes_the_gates_of_its_partner(exchanged, tiny_tokenizer, top_k):
    model, data, stats, found = exchanged(top_k=top_k)
    everyone, encoded = np.arange(len(data)), encode(tiny_tokenizer, data.texts)
    answers = stats.logits.argmax(1)
    assert 1 < answers.sum() < len(data) - 1  # of both there are several, or nothing could be exchanged
    whose = drawn(0, [everyone])
    alike = drawn([0, 1], [np.flatnonzero(answers == answer) for answer in (0, 1)])
    for case, layers, partner in (
        (1, [1], whose),
        (2, [2], whose),
        (ALL, [1, 2], whose),
        (ALIKE, [1, 2], alike),
    ):
        expected = []
        for row in range(len(data)):
            theirs = {
                layer: top_k_gates(torch.from_numpy(stats.probs[layer][partner[row]])[None], top_k)
                for layer in layers
            }
            with torch.inference_mode(), use_gates(theirs):
                expected.append(model(**collate(tiny_tokenizer, encoded, [row])).logits[0].numpy())
        assert found.after[case].logits == pytest.approx(np.stack(expected), abs=1e-5)
    assert list(found.after) == [1, 2, ALL, ALIKE, MIXTURE]
    # It is another output than its own for some, or this test would say nothing.
    assert np.abs(found.after[ALL].logits - found.before.logits).max() > 1e-3


def test_as_routed_is_the_models_own_evaluation(exchanged, tiny_tokenizer):
    model, data, _, found = exchanged()
    own = evaluate(model, tiny_tokenizer, data)
    assert found.before.logits[own.indices] == pytest.approx(own.logits, abs=1e-5)
    assert found.before.score == pytest.approx(own.score)


def test_what_is_told_of_it(exchanged):
    *_, found = exchanged()
    frame = found.frame.set_index("layer")
    assert list(frame.index) == [1, 2, ALL, ALIKE, MIXTURE]
    for case, after in found.after.items():
        row = frame.loc[case]
        assert row["change"] == pytest.approx(after.score - found.before.score)
        assert row["flipped"] == (after.predictions != found.before.predictions).sum()
        assert row["share_low"] <= row["share"] <= row["share_high"]
        shift = matching_shift(after.logits, found.before.logits)
        given = [answer_shares(logits) for logits in (after.logits + shift, found.before.logits)]
        assert given[0] == pytest.approx(given[1], abs=1 / 40)
        assert row["matched"] == pytest.approx(((after.logits + shift).argmax(1) == after.labels).mean())
        assert row["matched_change"] == pytest.approx(row["matched"] - found.before.score)
        assert row["low"] <= row["change"] <= row["high"]


def test_tokens_exchange_their_routes_within_a_batch(exchanged, tiny_tokenizer):
    model, data, stats, found = exchanged(routing="token")
    assert stats.unit == "tokens"
    again = shuffle_routes(model, tiny_tokenizer, data, stats, batch_size=7)
    assert again.after[ALL].logits == pytest.approx(found.after[ALL].logits)  # one seed, one draw
    assert np.abs(found.after[ALL].logits - found.before.logits).max() > 1e-3


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_mixture_is_the_pruned_model_that_keeps_all(exchanged, tiny_tokenizer, top_k):
    model, data, stats, found = exchanged(top_k=top_k)
    plan = plan_from(stats, per_layer=stats.num_experts)
    pruned = evaluate(prune(model, plan), tiny_tokenizer, data)
    assert found.after[MIXTURE].logits[pruned.indices] == pytest.approx(pruned.logits, abs=1e-5)


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_usage_of_every_layer_stays_what_it_is(tiny_routed, tiny_tokenizer, tiny_data, routing):
    model, data = tiny_routed("bert", routing=routing).eval(), tiny_data(12)
    stats = measure_usage(model, tiny_tokenizer, data)
    with record_routing() as record:
        found = shuffle_routes(model, tiny_tokenizer, data, stats, batch_size=12)
    # Layer 1: as routed, alone, in all, in all alike, mixture; layer 2 routes once more, above layer 1 alone.
    traces = {layer: [t.rows("gates").sum(0).tolist() for t in record.traces[layer]] for layer in (1, 2)}
    assert all(traces[1][case] == stats.counts(1).tolist() for case in (0, 1, 2, 3))
    assert all(traces[2][case] == stats.counts(2).tolist() for case in (0, 2, 3, 4))
    assert 0 < found.moved[ALL] < 1
    assert 0 < found.moved[ALIKE] < 1


def test_how_many_inputs_got_another_expert(exchanged):
    _, data, stats, found = exchanged()
    ring = np.random.default_rng(0).permutation(len(data))
    for layer in (1, 2):
        own = stats.top1[layer].argmax(1)
        assert found.moved[layer] == pytest.approx((own[ring] != own[np.roll(ring, -1)]).mean())
    assert found.moved[ALL] == pytest.approx((found.moved[1] + found.moved[2]) / 2)


def test_equal_routes_change_nothing(tiny_routed, tiny_tokenizer, tiny_data):
    model, data = tiny_routed("bert").eval(), tiny_data(16)
    with torch.no_grad():
        for layer in (1, 2):
            router = [p for name, p in model.named_parameters() if f"layer.{layer}.router" in name]
            for parameter in router:
                parameter.zero_()
            router[-1][0] = 5.0  # the bias: all inputs take expert 0
    stats = measure_usage(model, tiny_tokenizer, data)
    assert stats.share(1)[0] == 1
    found = shuffle_routes(model, tiny_tokenizer, data, stats)
    assert found.after[ALL].logits == pytest.approx(found.before.logits, abs=1e-6)
    assert found.frame["flipped"].tolist() == [0, 0, 0, 0, 0]
    assert found.frame["moved"].tolist()[:2] == [0, pytest.approx(0)]


def test_a_kept_prefix_gives_the_same(exchanged, tiny_tokenizer):
    model, data, stats, found = exchanged()
    prefix = Prefix(model)
    for _ in range(2):
        again = shuffle_routes(model, tiny_tokenizer, data, stats, prefix=prefix, batch_size=7)
        assert again.after[ALL].logits == pytest.approx(found.after[ALL].logits, abs=1e-5)


def test_it_needs_routes_and_usage_of_the_same_inputs(
    exchanged, tiny_model, tiny_routed, tiny_tokenizer, tiny_data
):
    model, data, stats, _ = exchanged()
    with pytest.raises(PlanError, match="no routed layer"):
        shuffle_routes(tiny_model(), tiny_tokenizer, data, stats)
    one = tiny_data(1)
    alone = measure_usage(model, tiny_tokenizer, one)
    with pytest.raises(DataError, match="a single input has no other"):
        shuffle_routes(model, tiny_tokenizer, one, alone)
    with pytest.raises(DataError, match="of layers \\[1, 2\\], and the model routes in \\[1\\]"):
        shuffle_routes(tiny_routed("bert", layers=(1,)).eval(), tiny_tokenizer, data, stats)
    with pytest.raises(DataError, match="not of these 8"):
        shuffle_routes(model, tiny_tokenizer, tiny_data(8), stats)
    with pytest.raises(DataError, match="has no outputs"):
        shuffle_routes(model, tiny_tokenizer, data, replace(stats, logits=np.empty((0, 0))))


def test_numbers_are_alike_in_the_same_fourth(tiny_routed, tiny_tokenizer, tiny_data):
    model = tiny_routed("bert", num_labels=1).eval()
    task = replace(TASKS["stsb"], text_columns=("sentence",))
    data = TextData(task, "made", tiny_data(24, 2).texts, np.linspace(0, 5, 24))
    stats = measure_usage(model, tiny_tokenizer, data)
    found = shuffle_routes(model, tiny_tokenizer, data, stats, alone=False)
    assert list(found.after) == [ALL, ALIKE, MIXTURE]
    assert not found.matched
    order = np.argsort(stats.logits[:, 0])
    fourths = [np.sort(order[start : start + 6]) for start in range(0, 24, 6)]
    partner = drawn([0, 1], fourths)
    own = {layer: stats.top1[layer].argmax(1) for layer in (1, 2)}
    moved = [own[layer][row] != own[layer][other] for layer in (1, 2) for row, other in partner.items()]
    assert found.moved[ALIKE] == pytest.approx(np.mean(moved))


def test_tokens_exchange_their_routes_with_those_of_inputs_answered_alike(exchanged, tiny_tokenizer):
    model, data, stats, _ = exchanged(routing="token")
    answers = stats.logits.argmax(1)
    with record_routing() as record:
        shuffle_routes(model, tiny_tokenizer, data, stats, batch_size=len(data), alone=False)
    routed, _, alike, _ = record.traces[1]  # as routed, in all, in all alike, the mixture
    rows = next(
        iter(bucketed_batches([len(e["input_ids"]) for e in encode(tiny_tokenizer, data.texts)], len(data)))
    )
    for answer in (0, 1):
        counts = [
            trace.gates[answers[rows] == answer][trace.token_mask[answers[rows] == answer]].sum(0)
            for trace in (routed, alike)
        ]
        assert counts[0].tolist() == counts[1].tolist()
    assert not torch.equal(routed.gates, alike.gates)
