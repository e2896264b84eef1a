"""Incremental re-evaluation gives what a rebuilt, whole model gives."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, ElectraConfig

from shrp.config import ShrpConfig
from shrp.convert import convert
from shrp.data import TextData
from shrp.errors import PlanError
from shrp.evaluate import evaluate
from shrp.live import LiveEvaluator
from shrp.plan import make_plan
from shrp.prune import prune
from shrp.tasks import get_task
from shrp.usage import measure_usage

WORDS = ["good", "bad", "film", "plot", "never", "dull", "warm", "slow", "funny", "cold", "bright", "flat"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import BertTokenizer

    file = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizer(str(file))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    texts = tuple((" ".join(rng.choice(WORDS, rng.integers(1, 12))),) for _ in range(150))
    return TextData(get_task("sst2"), "made", texts, rng.integers(0, 2, 150))


SIZES = {"vocab_size": 20, "max_position_embeddings": 40}
CONFIGS = {
    "bert": BertConfig(
        hidden_size=24, num_attention_heads=4, num_hidden_layers=4, intermediate_size=32, **SIZES
    ),
    "electra": ElectraConfig(
        hidden_size=24,
        embedding_size=12,
        num_attention_heads=4,
        num_hidden_layers=4,
        intermediate_size=32,
        **SIZES,
    ),
    "distilbert": DistilBertConfig(dim=24, n_heads=4, n_layers=4, hidden_dim=32, **SIZES),
}


def routed_model(family="bert", routing="sequence", layers=(1, 2, 3), attention="sdpa"):
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(
        CONFIGS[family], attn_implementation=attention
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(
                3
            )  # spread the outputs of a random model, so that predictions differ between plans
    return convert(model, ShrpConfig(layers, routing, expander_gain=1.0)).eval()


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("routing", ["sequence", "token"])
@pytest.mark.parametrize("layers", [(1, 2, 3), (0, 2)])
def test_equals_the_rebuilt_model(family, routing, layers, tokenizer, data):
    model = routed_model(family, routing, layers)
    stats = measure_usage(model, tokenizer, data)
    live = LiveEvaluator(model, tokenizer, data, batch_size=40)
    # Neighbouring budgets share layers, so later plans run from hidden states that earlier ones left.
    for m in [*range(len(layers), 4 * len(layers) + 1), len(layers)]:
        plan = make_plan(stats.shares(), budget=m)
        fast = live.evaluate(plan)
        plain = evaluate(prune(model, plan), tokenizer, data)
        back = np.argsort(fast.indices)
        assert fast.complete
        np.testing.assert_allclose(fast.logits[back], plain.logits, atol=1e-4)
        np.testing.assert_array_equal(fast.predictions[back], plain.predictions)
        assert fast.score == plain.score


def test_routed_model_and_eager_attention(tokenizer, data):
    model = routed_model(attention="eager")
    live = LiveEvaluator(model, tokenizer, data)
    fast, plain = live.evaluate(None), evaluate(model, tokenizer, data)
    np.testing.assert_allclose(fast.logits[np.argsort(fast.indices)], plain.logits, atol=1e-4)


def test_estimates_narrow_to_the_exact_figure(tokenizer, data):
    model = routed_model()
    live = LiveEvaluator(model, tokenizer, data, batch_size=20)
    plan = make_plan(measure_usage(model, tokenizer, data).shares(), per_layer=2)
    seen = list(live.stream(plan))
    assert [a.n < b.n for a, b in pairwise(seen)] == [True] * (len(seen) - 1)
    assert seen[0].n == 64
    assert seen[-1].n == seen[-1].total == 150
    widths = [high - low for low, high in (e.interval for e in seen)]
    assert widths[-1] < widths[0]
    share = np.mean(data.labels[seen[0].indices])
    assert abs(share - data.labels.mean()) < 1 / 32  # the first batch has the whole's mix of classes


def test_only_changed_layers_run(tokenizer, data, monkeypatch):
    model = routed_model()
    live = LiveEvaluator(model, tokenizer, data)
    usage = measure_usage(model, tokenizer, data).shares()
    live.evaluate(make_plan(usage, counts={1: 1, 2: 1, 3: 1}))
    starts = []
    import shrp.live as module

    original = module.run_from
    monkeypatch.setattr(
        module, "run_from", lambda m, i, s=0, *a, **k: starts.append(s) or original(m, i, s, *a, **k)
    )
    live.evaluate(make_plan(usage, counts={1: 1, 2: 1, 3: 2}))
    assert set(starts) == {3}
    starts.clear()
    live.evaluate(make_plan(usage, counts={1: 2, 2: 1, 3: 2}))
    assert set(starts) == {1}


def test_memory_is_bounded(tokenizer, data):
    model = routed_model()
    usage = measure_usage(model, tokenizer, data).shares()
    live = LiveEvaluator(model, tokenizer, data, memory=200_000)
    for m in range(3, 13):
        live.evaluate(make_plan(usage, budget=m))
        assert live._hidden.size <= 200_000
        assert live._hidden.size == sum(t.nbytes for t in live._hidden.entries.values())


def test_many_threads_share_one_evaluator(tokenizer, data):
    model = routed_model()
    usage = measure_usage(model, tokenizer, data).shares()
    plans = [make_plan(usage, budget=m) for m in range(3, 13)]
    alone = [LiveEvaluator(model, tokenizer, data).evaluate(plan).logits for plan in plans]
    live = LiveEvaluator(model, tokenizer, data, memory=400_000)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda plan: live.evaluate(plan).logits, plans * 4))
    for i, logits in enumerate(together):
        np.testing.assert_allclose(logits, alone[i % len(plans)], atol=1e-5)


def test_dense_model_is_refused(tokenizer, data):
    model = AutoModelForSequenceClassification.from_config(CONFIGS["bert"])
    with pytest.raises(PlanError, match="no routed layer"):
        LiveEvaluator(model, tokenizer, data)


def test_plan_for_other_layers_is_refused(tokenizer, data):
    model = routed_model()
    plan = make_plan({0: np.ones(4) / 4}, per_layer=1)
    with pytest.raises(PlanError, match=r"converted layers are \[1, 2, 3\]"):
        LiveEvaluator(model, tokenizer, data).evaluate(plan)
