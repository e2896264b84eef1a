import json
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.special import softmax

from shrp.analysis.attention import layer_attention
from shrp.analysis.importance import knock_out_effect, knock_outs
from shrp.analysis.usage import measure_usage
from shrp.analysis.words import count_tokens
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.batching import collate, encode, longest_input
from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation import evaluate as evaluating
from shrp.evaluation.evaluate import estimates, evaluate, evaluate_stream
from shrp.evaluation.evaluation import summarise
from shrp.evaluation.statistics import wilson
from shrp.model.config import ShrpConfig
from shrp.pruning.live import LiveEvaluator
from shrp.training.config import TrainConfig
from shrp.training.loop import train
from tests.conftest import WORDS


@pytest.fixture
def build(tiny_model):
    return lambda num_labels=2, **options: tiny_model(num_labels=num_labels, num_hidden_layers=1, **options)


def sentences(n=150, seed=0, task=TASKS["sst2"], labelled=True, sliced=False):
    rng = np.random.default_rng(seed)
    columns = len(task.text_columns)
    texts = tuple(
        tuple(" ".join(rng.choice(WORDS, size=rng.integers(1, 20))) for _ in range(columns)) for _ in range(n)
    )
    labels = rng.random(n) if task.is_regression else rng.integers(task.num_labels, size=n)
    slices = tuple(rng.choice(["plain", "negation"], size=n)) if sliced else None
    return TextData(task, "made", texts, labels if labelled else None, slices)


def test_encode_and_collate(build, with_types):
    encoded = encode(with_types, [("w1 w2",), ("w3",), ("w1 " * 300,)], max_length=10)
    assert encoded[0]["input_ids"] == [2, 6, 7, 3]
    assert len(encoded[2]["input_ids"]) == 10
    batch = collate(with_types, encoded, [1, 0])
    assert batch["input_ids"].tolist() == [[2, 8, 3, 0], [2, 6, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    pair = encode(with_types, [("w1", "w2 w3")])
    assert pair[0]["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert collate(with_types, pair, [0])["token_type_ids"].dtype == torch.int64
    assert encode(with_types, []) == []
    assert encode(with_types, [("w1",), ("w1", "w2 w3"), ("w3",)]) == [
        encode(with_types, [text])[0] for text in (("w1",), ("w1", "w2 w3"), ("w3",))
    ]
    with pytest.raises(DataError):
        encode(with_types, [("w1",), ("w1", "w2", "w3")])


def test_padding_is_on_the_right_whatever_the_tokenizer_says(build, with_types, monkeypatch):
    data, model = sentences(40), build()
    expected = evaluate(model, with_types, data, batch_size=1).logits
    monkeypatch.setattr(with_types, "padding_side", "left")
    batch = collate(with_types, encode(with_types, [("w1 w2",), ("w3",)]), [1, 0])
    assert batch["input_ids"].tolist() == [[2, 8, 3, 0], [2, 6, 7, 3]]
    np.testing.assert_allclose(evaluate(model, with_types, data, batch_size=8).logits, expected, rtol=1e-5, atol=1e-5)


def test_every_pass_over_data_cuts_at_the_models_positions(tiny_routed, tiny_tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_tokenizer, "model_max_length", 10**30)
    texts = tuple((" ".join(f"w{i % 50}" for i in range(n)),) for n in (120, 3, 60, 4))
    data = TextData(TASKS["sst2"], "made", texts, np.arange(4) % 2)
    model, by_token = tiny_routed(), tiny_routed(routing="token")
    assert longest_input(model, tiny_tokenizer, 128) == 40
    assert longest_input(model, tiny_tokenizer, 16) == 16
    assert measure_usage(model, tiny_tokenizer, data).n == 4
    *_, last = LiveEvaluator(model, tiny_tokenizer, data).stream(None)
    np.testing.assert_allclose(evaluate(model, tiny_tokenizer, data).logits, last.logits, atol=1e-4)
    assert count_tokens(by_token, tiny_tokenizer, data).tokens
    assert len(layer_attention(model, tiny_tokenizer, texts[0], 1).tokens) == 40
    assert knock_outs(model, tiny_tokenizer, data, range(4)).n == 4
    before = evaluate(model, tiny_tokenizer, data)
    assert knock_out_effect(model, tiny_tokenizer, data, before, [(1, 0)]).after.n == 4
    config = TrainConfig(stage2_epochs=1, batch_size=4)
    info = CheckpointInfo(ShrpConfig((1, 2)), data.task, base_model="tiny")
    train(config, model, info, tiny_tokenizer, data, data, tmp_path / "out")


def test_pairs_and_regression(build, with_types):
    data = sentences(40, task=TASKS["stsb"])
    result = evaluate(build(num_labels=1), with_types, data)
    assert result.score == pytest.approx(np.corrcoef(data.labels, result.predictions)[0, 1])
    assert np.array_equal(result.probabilities, result.logits)
    assert result.by_class().empty
    frame = result.to_frame(data.texts)
    assert list(frame) == ["index", "sentence1", "sentence2", "label", "prediction"]
    with pytest.raises(DataError):
        _ = result.correct


def test_without_labels_there_are_predictions_but_no_score(build, with_types):
    result = evaluate(build(), with_types, sentences(20, labelled=False))
    assert np.isnan([result.score, *result.interval, *result.metrics.values()]).all()
    assert len(result.predictions) == 20
    assert list(result.to_frame()) == ["index", "prediction", "p(negative)", "p(positive)"]
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["score"] is None
    assert result.by_slice().empty
    assert result.by_class().empty


def test_a_models_own_label_order_is_respected(build, with_types):
    task = custom_task("nli", ["text"], ["entailment", "neutral", "contradiction"])
    data = sentences(30, task=task)
    plain = build(3)
    named = build(3, id2label={0: "CONTRADICTION", 1: "ENTAILMENT", 2: "NEUTRAL"})
    named.load_state_dict(plain.state_dict())
    usual, turned = evaluate(plain, with_types, data), evaluate(named, with_types, data)
    np.testing.assert_allclose(turned.logits, usual.logits[:, [1, 2, 0]], atol=1e-6)


def test_a_model_in_training_is_left_as_it_was(build, with_types):
    model, data = build(), sentences(40)
    reference = evaluate(model, with_types, data)
    model.train()
    model.bert.embeddings.eval()
    before = [module.training for module in model.modules()]
    stream = evaluate_stream(model, with_types, data, batch_size=8)
    next(stream)
    assert [module.training for module in model.modules()] == before
    assert not torch.is_inference_mode_enabled()
    assert (torch.ones(1, requires_grad=True) * 2).requires_grad
    stream.close()
    np.testing.assert_allclose(evaluate(model, with_types, data).logits, reference.logits, atol=1e-5, rtol=1e-5)
    assert [module.training for module in model.modules()] == before


def test_one_model_and_its_tokenizer_serve_several_threads(build, with_types, eager_switching):
    model, data = build(), sentences(60)
    alone = {length: evaluate(model, with_types, data, max_length=length).logits for length in (128, 8)}
    assert not np.allclose(alone[128], alone[8], atol=1e-2)  # or a mix-up would not be seen
    together = threading.Barrier(4)

    def work(length):
        for _ in range(5):
            together.wait(60)
            found = evaluate(model, with_types, data, max_length=length)
            np.testing.assert_allclose(found.logits, alone[length], atol=1e-5, rtol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (128, 8, 128, 8)))


def test_tables():
    texts = (("t0",), ("t1",), ("t2",), ("t3",))
    data = TextData(TASKS["sst2"], "made", texts, np.array([0, 0, 1, 1]), ("a", "b", "b", "b"))
    result = summarise(data, np.arange(4), np.eye(2, dtype=np.float32)[[0, 1, 1, 1]] * 2, True)
    assert result.by_slice()[["slice", "n", "score"]].values.tolist() == [["a", 1, 1.0], ["b", 3, 2 / 3]]
    low, high = wilson(2, 3)
    assert result.by_slice().loc[1, ["low", "high"]].tolist() == [low, high]
    classes = result.by_class().set_index("class")
    assert classes.loc["negative", ["n", "predicted", "recall", "precision"]].tolist() == [2, 1, 0.5, 1.0]
    assert classes.loc["positive", ["n", "predicted", "recall", "precision"]].tolist() == [2, 3, 1.0, 2 / 3]
    frame = result.to_frame(texts)
    assert frame.loc[1].to_dict() == {
        "index": 1, "sentence": "t1", "label": "negative", "prediction": "positive", "correct": False,
        "p(negative)": pytest.approx(0.1192, abs=1e-4), "p(positive)": pytest.approx(0.8808, abs=1e-4),
        "slice": "b",
    }  # fmt: skip
    summary = json.loads(json.dumps(result.to_dict()))
    assert summary["score"] == 0.75
    assert summary["interval"] == list(wilson(3, 4))
    assert (summary["n"], summary["total"], summary["task"], summary["data"]) == (4, 4, "sst2", "made")
    with pytest.raises(DataError):
        result.to_frame([("t0",)])


@pytest.mark.parametrize("shuffled", [False, True])
def test_scores_are_those_of_a_plain_loop_in_any_order(build, with_types, shuffled):
    model, data = build(), sentences(40, sliced=True)
    with torch.no_grad():
        expected = np.concatenate(
            [model(**with_types(text, return_tensors="pt")).logits.numpy() for (text,) in data.texts]
        )
    correct = expected.argmax(1) == data.labels
    order = np.random.default_rng(5).permutation(40) if shuffled else None
    steps = list(evaluate_stream(model, with_types, data, batch_size=16, order=order))
    assert [(step.n, step.complete) for step in steps] == [(16, False), (32, False), (40, True)]
    for step in steps:
        rows = step.indices
        assert rows.tolist() == sorted(rows if order is None else order[: step.n])
        np.testing.assert_allclose(step.logits, expected[rows], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(step.probabilities, softmax(expected[rows], axis=1), atol=1e-5, rtol=1e-5)
        assert step.score == step.metrics["accuracy"] == correct[rows].mean()
        assert step.interval == wilson(correct[rows].sum(), step.n)
        assert step.slices == tuple(data.slices[i] for i in rows)


def test_running_estimates_take_time_in_proportion_to_the_examples(monkeypatch):
    data, summaries = sentences(3000), Mock(wraps=summarise)
    outputs, order = np.random.default_rng(0).random((3000, 2), dtype=np.float32), data.stratified_order()
    monkeypatch.setattr(evaluating, "summarise", summaries)
    steps = list(estimates(data, 3000, ((rows, outputs[rows]) for rows in np.split(order, 1000))))
    assert len(steps) == 1000
    assert sum(len(call.args[1]) for call in summaries.call_args_list) < 60 * 3000
    assert all(0 <= 3 * i - step.n <= 0.02 * step.n for i, step in enumerate(steps, 1))
    assert (steps[-1].logits == outputs).all()


@pytest.mark.parametrize(("labels", "rows"), [(3, range(20)), (2, [])])
def test_misfits_are_refused(build, with_types, labels, rows):
    with pytest.raises(DataError):
        evaluate(build(labels), with_types, sentences(20).subset(rows))
