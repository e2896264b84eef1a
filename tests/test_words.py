"""Token classification from a file to a pruned checkpoint: labels of words, metrics, training, loading, refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from seqeval.metrics import f1_score
from transformers import AutoModelForTokenClassification, pipeline

import shrp as library
from shrp.analysis.importance import knock_out_effect
from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.data.batching import word_places
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS, UNLABELLED, WORDS, Task, custom_task
from shrp.errors import DataError, ExportError, RowError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import summarise
from shrp.evaluation.metrics import score
from shrp.evaluation.paired import agreement, flip_table, mean_difference, paired_difference
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from studies.trainings import Base, Trainings
from tests.test_spans import with_head

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
TASK = custom_task("ner", ("tokens",), TAGS, kind=WORDS)


def made(n=40, seed=0):
    """Sentences whose low words are names: the first of a run is B-PER, the next ones are I-PER."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        ids = rng.integers(0, 30, size=rng.integers(3, 9))
        low, tags = ids < 10, []
        for i, name in enumerate(low):
            tags.append(("I-PER" if i and low[i - 1] else "B-PER") if name else "B-LOC" if ids[i] == 29 else "O")
        rows.append({"tokens": [f"w{i}" for i in ids], "ner_tags": tags})
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ner")
    pd.DataFrame(made(120)).to_parquet(folder / "train.parquet")
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made(50, 1)))
    return folder


@pytest.fixture(scope="module")
def data(files):
    return load_file(files / "validation.jsonl", TASK)


@pytest.fixture(scope="module")
def token_model(tiny_model, save_model, tmp_path_factory):
    """The folder of a tiny dense encoder without a trained head."""
    return save_model(tiny_model().base_model, tmp_path_factory.mktemp("base"))


def tagger(classifier):
    """A model that labels words with a classifier's encoder."""
    return with_head(classifier, AutoModelForTokenClassification, len(TAGS))


@pytest.fixture(scope="module")
def routed(tiny_routed, tiny_tokenizer):
    return tagger(tiny_routed()), tiny_tokenizer


def test_a_file_of_words_and_tags_is_a_task_on_words(files):
    found = load_file(files / "train.parquet")
    assert found.task.kind == WORDS
    assert found.task.text_columns == ("tokens",)
    assert found.task.label_column == "ner_tags"
    assert found.task.label_names == ("B-LOC", "B-PER", "I-PER", "O")
    assert found.task.metric == "entity_f1"
    row = made(120)[0]
    assert found.texts[0] == (" ".join(row["tokens"]),)
    tags = [found.task.label_names[i] for i in found.labels[0] if i != UNLABELLED]
    assert tags == row["ner_tags"]
    assert found.to_frame()["label"][0] == " ".join(tags)
    assert Task.from_dict(found.task.to_dict()) == found.task
    assert "kind" not in TASKS["sst2"].to_dict()


@pytest.mark.parametrize(("second", "tags"), [("w2", ["O"]), ("w 2", ["O", "O"]), ("w2", ["O", "B-XYZ"])])
def test_what_does_not_fit_is_refused_with_its_row(tmp_path, second, tags):
    rows = [{"tokens": ["w1"], "tags": ["O"]}, {"tokens": ["w1", second], "tags": tags}]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with pytest.raises(RowError) as found:
        load_file(tmp_path / "bad.jsonl", TASK)
    assert found.value.row == 2


def test_tags_that_are_no_entities_are_scored_by_accuracy():
    assert custom_task("pos", ("tokens",), ("NOUN", "VERB"), kind=WORDS).metrics == ("accuracy",)


def test_each_word_is_found_by_its_first_token(tiny_tokenizer):
    # The tokenizer splits at punctuation: w1 , w2 . w3 are five tokens after [CLS].
    (places,) = word_places(tiny_tokenizer, [("w1, w2.w3  w4",)])
    assert places.tolist() == [1, 3, 6]
    assert word_places(tiny_tokenizer, [("w1, w2.w3 w4",)], 5)[0].tolist() == [1, 3, -1]


def test_scores_are_those_of_seqeval(data):
    rng = np.random.default_rng(0)
    predictions = np.where(rng.random(data.labels.shape) < 0.7, data.labels, rng.integers(0, 5, data.labels.shape))
    predictions[data.labels < 0] = UNLABELLED
    found = score(TASK, data.labels, predictions)
    named = [[[TAGS[i] for i in row if i >= 0] for row in of] for of in (data.labels, predictions)]
    assert found["entity_f1"] == pytest.approx(f1_score(*named), abs=1e-12)
    words = data.labels >= 0
    assert found["accuracy"] == pytest.approx((predictions == data.labels)[words].mean())


def test_an_evaluation_has_a_prediction_for_each_word(routed, data):
    found = evaluate(*routed, data)
    assert found.logits.shape == data.output_shape == (50, 8, 5)
    assert ((found.predictions >= 0) == (data.labels >= 0)).all()
    low, high = found.interval
    assert low <= found.score <= high
    frame = found.to_frame(data.texts)
    assert frame["prediction"][3].split() == [TAGS[i] for i in found.predictions[3] if i >= 0]
    assert frame["correct"].tolist() == (frame["label"] == frame["prediction"]).tolist()
    # One text at a time: nothing depends on what else is in a batch.
    alone = evaluate(*routed, data.subset([3]))
    np.testing.assert_allclose(alone.logits[0], found.logits[3], atol=1e-5)


def test_words_beyond_the_cut_are_wrong(routed, data):
    cut = evaluate(*routed, data, max_length=6)  # four words and two special tokens
    assert (cut.predictions[:, 4:] == UNLABELLED).all()
    longer = data.word_counts > 4
    assert not cut.correct[longer].any()
    assert cut.metrics["accuracy"] < (cut.predictions == data.labels)[:, :4][data.labels[:, :4] >= 0].mean()


def test_live_pruning_equals_pruning(routed, data):
    model, tokenizer = routed
    plan = make_plan({1: np.array([0.5, 0.3, 0.1, 0.1]), 2: np.array([0.1, 0.2, 0.3, 0.4])}, per_layer=2)
    live = LiveEvaluator(model, tokenizer, data)
    for wanted, of in ((None, model), (plan, prune(model, plan))):
        exact, rebuilt = live.evaluate(wanted), evaluate(of, tokenizer, data)
        np.testing.assert_allclose(exact.logits, rebuilt.logits, atol=1e-4)
        assert exact.score == rebuilt.score


def test_two_models_are_compared_example_by_example(routed, data):
    before = evaluate(*routed, data)
    perfect = np.where(np.isnan(before.logits), np.nan, 0).astype(np.float32)
    for row, word in zip(*np.nonzero(data.labels >= 0), strict=True):
        perfect[row, word, data.labels[row, word]] = 1
    best = summarise(data, before.indices, perfect, True)
    assert best.score == 1
    value, (low, high) = paired_difference(best, before)
    assert value == pytest.approx(1 - before.score)
    assert low <= value <= high
    assert mean_difference([best, before], before)[0] == pytest.approx(value / 2)
    assert agreement(best, before).only_a == (~before.correct).sum()
    flips = flip_table(before, best, data)
    assert len(flips) == (~before.correct).sum()
    assert set(flips["direction"]) == {"wrong → right"}


def test_a_knock_out_changes_only_who_used_the_expert(routed, data):
    model, tokenizer = routed
    found = knock_out_effect(model, tokenizer, data, evaluate(model, tokenizer, data), [(1, 0)])
    others = np.setdiff1d(np.arange(len(data)), found.affected)
    np.testing.assert_array_equal(found.after.logits[others], found.before.logits[others])
    assert 0 < len(found.affected) < len(data)
    assert found.flipped <= len(found.affected)
    assert (found.after.worth[others] == found.before.worth[others]).all()


def test_what_needs_one_prediction_for_a_text_says_so(routed, tmp_path):
    from shrp.analysis.attribution.instance import prepare
    from shrp.analysis.explore import explore
    from shrp.export.onnx import export_onnx

    (found,) = explore(*routed, TASK, [("w1 w2 w40",)])
    assert len(found.answer.split()) == found.probabilities.shape[0] == 3
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-5)
    several = explore(*routed, TASK, [("w1 w2 w40",), ("w3",), (" ".join(["w5"] * 40),)])
    assert [len(one.labelled_words) for one in several] == [3, 1, 40]
    assert several[0].answer == found.answer
    assert several[2].labelled_words[-1][1] == "-"  # beyond what the model reads
    with pytest.raises(DataError):
        prepare(*routed, TASK, ("w1",))
    plan = make_plan({1: np.full(4, 0.25), 2: np.full(4, 0.25)}, per_layer=2)
    with pytest.raises(ExportError):
        export_onnx(prune(routed[0], plan), routed[1], tmp_path / "model.onnx")


def test_from_files_to_a_pruned_checkpoint_by_the_command_line(files, token_model, told, tmp_path):
    out, config = tmp_path / "routed", tmp_path / "options.json"
    brief = {"stage2_epochs": 1, "batch_size": 16, "max_length": 24}
    config.write_text(json.dumps({"training": brief, "teacher": {"stage2_epochs": 2}, "random_draws": 1}))
    train, validation, pruned = files / "train.parquet", files / "validation.jsonl", tmp_path / "pruned"
    given = ("--train-file", train, "--validation-file", validation, "--layers", "1-2", "--config", config)

    rows = told("train", "--base", token_model, "--out", out, *given)["scores"]
    assert {row["metric"] for row in rows} == {"entity_f1"}
    assert all(row["n"] == 50 for row in rows)
    assert rows[0]["kind"] == "teacher"
    data = ("--data", validation)
    found = told("evaluate", out, *data)
    routed = next(row for row in rows if row["kind"] == "routed")
    assert found["score"] == pytest.approx(routed["score"], abs=1e-6)
    assert found["teacher"] == rows[0]["score"]
    assert told("usage", out, *data, "--by", "outcome")["n"] == 50
    told("sweep", out, *data)
    told("prune", out, "--per-layer", 2, "--out", pruned, *data)
    told("compare", pruned, out, *data)

    loaded = library.load(pruned)
    assert (loaded.is_static, loaded.info.task.kind) == (True, WORDS)
    table = loaded.predict(["w1 w2 w40"])
    assert len(table["prediction"][0].split()) == 3
    model = AutoModelForTokenClassification.from_pretrained(pruned)
    tags = pipeline("token-classification", model=model, tokenizer=loaded.tokenizer, ignore_labels=[])("w1 w2 w40")
    assert [one["entity"] for one in tags] == table["prediction"][0].split()


def test_studies_read_tasks_of_ones_own(token_model, tmp_path):
    for split, rows in (("train", made(120)), ("validation", made(50, 1))):
        pd.DataFrame(rows).to_parquet(tmp_path / f"ner_{split}.parquet")
    of = Trainings(Base(token_model, tmp_path / "work", data=tmp_path), "ner")
    assert (len(of.train_data), len(of.validation)) == (120, 50)
    assert (of.train_data.task, of.train_data.task.on_words) == (of.validation.task, True)


def test_a_head_of_texts_is_none_of_words(tiny_model, save_model, tmp_path):
    marker, _, trained = load_base(save_model(tiny_model(num_labels=5), tmp_path / "texts", *TAGS), TASK)
    assert not trained
    # A tagger of another library's is known by its config, and keeps its head.
    assert load_base(save_model(marker, tmp_path / "tagger"), TASK)[2]
    assert checkpoint.load(tmp_path / "tagger").info.task.kind == WORDS
