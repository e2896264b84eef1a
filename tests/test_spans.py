"""Extractive question answering from a file to a pruned checkpoint: answers, SQuAD's metrics, every family, commands."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForQuestionAnswering

import shrp as library
from shrp.analysis.explore import explore
from shrp.analysis.importance import knock_out_effect
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.checkpoints.info import CheckpointInfo
from shrp.data import squad
from shrp.data.batching import answer_tokens, context_spans
from shrp.data.sources import from_table, load_file
from shrp.data.tasks import SPANS, UNLABELLED, Task, custom_task
from shrp.errors import RowError
from shrp.evaluation.evaluate import best_span, evaluate
from shrp.evaluation.evaluation import summarise
from shrp.evaluation.paired import LOST, WON, flip_table, paired_difference
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.model.modules import logits_of
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training.config import TrainConfig
from shrp.training.examples import Examples

TASK = custom_task("qa", ("question", "context"), kind=SPANS)
PLAN = make_plan({1: np.array([0.5, 0.3, 0.1, 0.1]), 2: np.array([0.1, 0.2, 0.3, 0.4])}, per_layer=2)


def made(n=40, seed=0):
    """Questions that name a word of the text; the answer is the word after it."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        words = [f"w{i}" for i in rng.permutation(40)[: rng.integers(4, 9)] + 10]
        at = int(rng.integers(0, len(words) - 1))
        answers = {"text": [words[at + 1]], "answer_start": [len(" ".join(words[: at + 1])) + 1]}
        rows.append({"question": f"w1 {words[at]}", "context": " ".join(words), "answers": answers})
    return rows


def with_head(classifier, auto, outputs):
    """A model of another kind with a classifier's encoder, pooler left out."""
    torch.manual_seed(0)
    config, encoder = classifier.config, classifier.base_model
    config.num_labels = outputs
    model = auto.from_config(config, attn_implementation=config._attn_implementation)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    setattr(model, model.base_model_prefix, encoder)
    return model.eval()


def marker(classifier):
    """A model that marks answers with a classifier's encoder."""
    return with_head(classifier, AutoModelForQuestionAnswering, 2)


@pytest.fixture(scope="module")
def data():
    return from_table(pd.DataFrame(made(50, 1)), "validation.jsonl", TASK)


@pytest.fixture(scope="module")
def routed(tiny_routed, tiny_tokenizer):
    return marker(tiny_routed()), tiny_tokenizer


@pytest.mark.parametrize(
    ("answer", "known", "exact", "f1"),
    [
        ("The Cat, sat.", ["dog", "cat sat"], True, 1.0),
        ("U.S. Army", ["the US army of 1812"], False, 2 * 2 / (2 + 4)),
        ("x x y", ["z", "x y y"], False, 2 * 2 / (3 + 3)),
        ("", ["cat"], False, 0.0),
    ],
)
def test_answers_are_scored_as_by_squads_script(answer, known, exact, f1):
    assert squad.exact_match(answer, known) == exact
    assert squad.f1(answer, known) == pytest.approx(f1)


@pytest.mark.parametrize("kind", ["squad", "text", "flat"])
def test_a_file_of_questions_is_a_task_on_spans(tmp_path, kind):
    frame = pd.DataFrame(made(6))
    if kind != "squad":
        cells = frame.pop("answers")
        frame["answer" if kind == "text" else "answer_text"] = [cell["text"][0] for cell in cells]
        if kind == "flat":
            frame["answer_start"] = [cell["answer_start"][0] for cell in cells]
    frame.to_parquet(tmp_path / "own.parquet")
    found = load_file(tmp_path / "own.parquet")
    assert found.task.kind == SPANS
    assert Task.from_dict(found.task.to_dict()) == found.task
    assert found.known.tolist() == [tuple(row["answers"]["text"]) for row in made(6)]
    assert load_file(tmp_path / "own.parquet", found.task).fingerprint == found.fingerprint


@pytest.mark.parametrize("answers", [{"text": [], "answer_start": []}, {"text": ["w1"], "answer_start": [0]}, "w99", None])
def test_what_has_no_answer_in_its_text_is_refused_with_its_row(answers):
    rows = [*made(1), {"question": "w1 w2", "context": "w2 w3", "answers": answers}]
    with pytest.raises(RowError) as found:
        from_table(pd.DataFrame(rows), "bad.jsonl", TASK)
    assert found.value.row == 2


def test_tokens_of_answers_and_back(tiny_tokenizer):
    # [CLS] w1 w2 [SEP] w3 , w4 w5 [SEP]: the text's tokens are 4 to 7.
    text = ("w1 w2", "w3, w4 w5")
    (places,) = context_spans(tiny_tokenizer, [text])
    assert places[4:8].tolist() == [[0, 2], [2, 3], [4, 6], [7, 9]]
    assert (np.delete(places, range(4, 8), 0) == -1).all()
    assert answer_tokens(places, 2, 6) == (5, 6)
    (cut,) = context_spans(tiny_tokenizer, [text], 8)
    assert answer_tokens(cut, 7, 9) == (UNLABELLED, UNLABELLED)
    examples = Examples(TrainConfig(), [text], np.array([[[7, 9]]]), "", tiny_tokenizer, 8)
    assert examples.batch([0], "cpu")[1].tolist() == [[0, 0]]
    starts, ends = np.zeros((2, 9))
    ends[4], starts[7], ends[5] = 3, 1, 2
    assert best_span(places, starts, ends) == (0, 2)
    ends[4] = 0
    assert best_span(places, starts, ends) == (0, 3)


def test_an_evaluation_has_an_answer_for_each_question(routed, data):
    found = evaluate(*routed, data)
    assert found.logits.shape == data.output_shape == (50, 2)
    assert found.score == pytest.approx(np.mean([squad.f1(*one) for one in zip(found.predictions, data.known)]))
    assert found.metrics["exact_match"] == found.correct.mean()
    assert found.interval[0] <= found.score <= found.interval[1]
    assert found.to_frame(data.texts)["prediction"].tolist() == found.predictions.tolist()
    (typed,) = explore(*routed, TASK, [data.texts[3]])
    assert typed.answer == found.predictions[3]


def test_two_models_are_compared_question_by_question(routed, data):
    before = evaluate(*routed, data)
    best = summarise(data, np.arange(50), data.labels[:, 0].astype(np.float32), True)
    assert best.metrics == {"answer_f1": 1, "exact_match": 1}
    value, (low, high) = paired_difference(best, before)
    assert low <= value <= high
    assert set(flip_table(before, best, data)["direction"]) == {WON}
    assert set(flip_table(best, before, data)["direction"]) == {LOST}
    counts = measure_usage(*routed, data).top1[2].sum(0)
    found = knock_out_effect(*routed, data, before, [(2, int(counts.argmax()))])
    assert len(found.affected) == counts.max()
    assert (found.after.worth - found.before.worth).mean() == pytest.approx(found.after.score - found.before.score)


def test_every_family_marks_answers(tiny_family, tiny_model, tiny_tokenizer, data, tmp_path):
    model = marker(tiny_model(tiny_family))
    part = data.subset(range(12))
    config = ShrpConfig((1, 2), expander_gain=1.0)
    convert(model, config)
    live = LiveEvaluator(model, tiny_tokenizer, part)
    for plan, of in ((None, model), (PLAN, prune(model, PLAN))):
        np.testing.assert_array_equal(live.evaluate(plan).logits, evaluate(of, tiny_tokenizer, part).logits)
    checkpoint.save(model, tiny_tokenizer, CheckpointInfo(config, TASK, base_model="tiny"), tmp_path / "routed")
    again = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "routed")
    inputs = tiny_tokenizer("w1 w12", "w12 w13", return_tensors="pt")
    torch.testing.assert_close(logits_of(again(**inputs)), logits_of(model(**inputs)))


def test_from_files_to_a_pruned_checkpoint_by_the_command_line(tiny_model, save_model, told, tmp_path):
    base, dense, config = tmp_path / "base", tmp_path / "dense", tmp_path / "options.json"
    save_model(tiny_model().base_model, base)
    for name, rows in (("train", made(96)), ("validation", made(50, 1))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    brief = {"stage2_epochs": 1, "batch_size": 16, "max_length": 24, "learning_rate": 3e-3}
    config.write_text(json.dumps({"training": brief}))
    files = ("--train-file", tmp_path / "train.jsonl", "--validation-file", tmp_path / "validation.jsonl")
    data = ("--data", tmp_path / "validation.jsonl")
    found = told("finetune", "--base", base, "--out", dense, *files, "--config", config)
    assert found["metric"] == "answer_f1"
    assert load_base(str(dense), TASK)[2]  # the teacher as it is
    rows = told("train", "--base", dense, "--out", tmp_path / "routed", *files, "--layers", "1-2", "--config", config)
    routed = next(row for row in rows["scores"] if row["kind"] == "routed")
    assert found["validation_score"] == pytest.approx(rows["scores"][0]["score"])
    found = told("evaluate", tmp_path / "routed", *data)
    assert found["metrics"]["answer_f1"] == pytest.approx(routed["score"], abs=1e-6)
    assert told("usage", tmp_path / "routed", *data, "--by", "outcome")["n"] == 50
    told("prune", tmp_path / "routed", "--per-layer", 2, "--out", tmp_path / "pruned", *data)
    told("compare", tmp_path / "pruned", tmp_path / "routed", *data)
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps({"training": {"conversion_size": 32, "final_size": 32, "batch_size": 16, "max_length": 24}}))
    texts = ("--texts", tmp_path / "train.jsonl", "--layers", "2", "--config", quick, *files[2:])
    assert told("convert", "--quick", "--base", dense, "--out", tmp_path / "quick", *texts)["n"] == 50
    loaded = library.load(tmp_path / "pruned")
    assert loaded.is_static
    assert loaded.predict([("w1 w12", "w12 w13 w14")])["prediction"][0] in "w12 w13 w14"


def test_classes_in_a_column_of_answers_stay_classes():
    frame = pd.DataFrame({"question": ["w1", "w2"], "context": ["w3 w4", "w5"], "answer": ["yes", "no"]})
    found = from_table(frame, "own.csv", text_columns=("question", "context"), label_column="answer")
    assert found.task.label_names == ("no", "yes")
    assert not found.task.on_spans
