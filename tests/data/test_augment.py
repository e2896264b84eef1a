"""Changed copies of texts: which words may stand in for which, what stays, and what they depend on."""

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shrp.checkpoints import checkpoint
from shrp.data import augment
from shrp.data.augment import NearWords, augmented
from shrp.data.sources import load_file
from shrp.data.tasks import get_task
from shrp.data.text_data import TextData
from shrp.errors import DataError

PLACES = {
    "cat": 0.0,
    "dog": 0.1,
    "fox": 0.2,
    "tea": 3.0,
    "Tea": 3.0,
    "rum": 2.9,
    "##ing": 0.0,
    "42": 0.1,
    "a": 0.1,
}
"""Each token's embedding, an angle in the plane."""


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(
        models.WordPiece({"[UNK]": 0} | {t: i for i, t in enumerate(PLACES, 1)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


@pytest.fixture(scope="module")
def embeddings():
    angles = torch.tensor([1.5, *PLACES.values()])
    return torch.stack([angles.cos(), angles.sin()], 1) * 5  # lengths don't count


def texts(*inputs, task="sst2", labels=None):
    return TextData(get_task(task), "mine", tuple(inputs), labels)


def test_near_words_are_whole_ones_the_nearest_first_and_never_the_word_itself(tokenizer, embeddings):
    near = NearWords(tokenizer, embeddings).of(["cat", "tea", "unknown", "42"])
    assert set(near) == {"cat", "tea"}
    assert near["cat"][:2] == ["dog", "fox"]
    assert near["tea"][0] == "rum"
    assert not {"##ing", "ing", "42", "a", "[UNK]"} & set(near["cat"])
    assert not {"tea", "Tea"} & set(near["tea"])


def test_copies_come_after_their_inputs_with_the_labels_of_these(tokenizer, embeddings):
    data = texts(("the cat",), ("some tea",), ("a fox",), labels=np.array([1, 0, 1]))
    more = augmented(data, 4, tokenizer, embeddings)
    assert more.texts[:3] == data.texts
    assert len(more) == 15
    assert more.labels.tolist() == [1, 0, 1] * 5
    assert more.name == "mine and 4 changed copies of each"
    assert augmented(data, 4, tokenizer, embeddings).fingerprint == more.fingerprint
    assert augmented(data, 4, tokenizer, embeddings, seed=1).fingerprint != more.fingerprint


def test_exchanged_words_keep_capitals_and_all_that_is_between_words(tokenizer, embeddings, monkeypatch):
    monkeypatch.setattr(augment, "EXCHANGED", 1.0)
    monkeypatch.setattr(augment, "DISTURBED", 0.0)
    more = augmented(texts((" Cat,  “tea”\tor dog's unknown!",)), 20, tokenizer, embeddings)
    for (text,) in more.texts[1:]:
        animal, rest = text[1:].split(",", 1)
        assert text[0] == " "
        # In this vocabulary there is no “Cat”, so it stays.
        assert animal == "Cat"
        assert rest.startswith("  “")
        assert rest.endswith("”\tor dog's unknown!")
        assert rest[3 : -len("”\tor dog's unknown!")] in {"rum", "fox", "dog", "cat"}
    assert len(set(more.texts[1:])) > 1
    capital = {text for (text,) in augmented(texts(("Tea",)), 20, tokenizer, embeddings).texts[1:]}
    assert capital <= {"Rum", "Fox", "Dog", "Cat"}
    assert "Rum" in capital


def test_disturbed_texts_are_changed_a_little_from_words_of_the_data(tokenizer, embeddings, monkeypatch):
    monkeypatch.setattr(augment, "DISTURBED", 1.0)
    data = texts(("one two three four",), ("",), ("alone",))
    more = augmented(data, 200, tokenizer, embeddings)
    known = {"one", "two", "three", "four", "alone"}
    changed = [text for (text,) in more.texts[3::3]]
    assert {word for text in changed for word in text.split()} <= known
    lengths = {len(text.split()) for text in changed}
    assert {3, 4, 5} <= lengths <= {2, 3, 4, 5, 6, 7, 8}
    assert sum(text != "one two three four" for text in changed) > 150
    assert {text for (text,) in more.texts[4::3]} == {""}  # nothing to disturb
    assert all(text for (text,) in more.texts[5::3])


def test_both_texts_of_a_pair_change_and_slices_are_kept(tokenizer, embeddings):
    data = texts(("cat dog fox", "tea rum tea"), task="mrpc")
    more = augmented(data, 50, tokenizer, embeddings)
    assert len({first for first, _ in more.texts}) > 5 < len({second for _, second in more.texts})
    assert augmented(data, 1, tokenizer, embeddings).labels is None
    tagged = TextData(data.task, "mine", data.texts * 2, slices=("a", "b"))
    assert augmented(tagged, 2, tokenizer, embeddings).slices == ("a", "b") * 3


def test_no_copy_is_refused(tokenizer, embeddings):
    with pytest.raises(DataError, match="one changed copy or more, not 0"):
        augmented(texts(("cat",)), 0, tokenizer, embeddings)


def test_the_command_writes_a_table_that_is_read_back(shrp, tmp_path, tiny_model, tiny_tokenizer, tiny_data):
    tiny_model().base_model.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    frame = tiny_data(24, 0).to_frame().rename(columns={"sentence": "review", "label": "mood"})
    frame.to_csv(tmp_path / "train.csv", index=False)
    base, columns = ("--base", tmp_path / "encoder"), ("--text-column", "review", "--label-column", "mood")
    command = ("augment", *base, *columns, "--train-file", tmp_path / "train.csv", "--copies", 2)
    more = tmp_path / "more.csv"
    code, out, error = shrp(*command, "--out", more)
    assert (code, out) == (0, "")
    assert "24 examples and 48 changed copies" in error
    read = load_file(more, None, text_columns=["review"], label_column="mood")
    assert len(read) == 72
    assert read.texts[:24] == tiny_data(24, 0).texts
    assert read.texts[24:48] != read.texts[:24]
    files = ("--train-file", tmp_path / "train.csv", "--validation-file", tmp_path / "train.csv", *columns)
    assert shrp("finetune", *base, *files, "--epochs", 1, "--out", tmp_path / "teacher")[0] == 0
    student = (
        "train",
        "--base",
        tmp_path / "teacher",
        "--train-file",
        more,
        *files[2:],
        "--layers",
        "upper:1",
    )
    options = ("--distill-logits", 1, "--stage2-epochs", 1, "--per-layer", 1, "--controls", "")
    code, _, error = shrp(*student, *options, "--out", tmp_path / "student")
    assert code == 0, error
    made = checkpoint.load(tmp_path / "student").info.training
    assert (made["train_examples"], made["config"]["distill_logits"]) == (72, 1.0)
    assert made["teacher"]["train_examples"] == 24  # it was not fine-tuned anew on the copies
    for wrong, said in (
        (("--out", more), "exists already"),
        (("--out", tmp_path / "more.parquet"), "must end in .csv; more.parquet does not"),
        (("--out", tmp_path / "new.csv", "--task", "cola"), "one of the two"),
    ):
        code, _, error = shrp(*command, *wrong)
        assert code == 1
        assert said in " ".join(error.split())


def test_what_the_command_writes_can_be_trained_on(shrp, tmp_path, tiny_model, tiny_tokenizer, monkeypatch):
    """Empty texts, of which GLUE has some, are left out; a line's end within a text does not end its row; a text column
    may be called as ours are.
    """
    tiny_model().base_model.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    odd = ("w1\rw2", 'w3 "w4", w5', "w6\r\nw7\nw8")
    (tmp_path / "cola").mkdir()
    frame = pd.DataFrame({"sentence": [*odd, "", " "], "label": [0, 1, 0, 1, 0]})
    frame.to_parquet(tmp_path / "cola" / "train.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path))
    command = ("augment", "--base", tmp_path / "encoder", "--copies", 2)
    code, _, error = shrp(*command, "--task", "cola", "--out", tmp_path / "glue.csv")
    assert code == 0, error
    assert "3 examples and 6 changed copies; left out 6 with an empty text" in error
    read = load_file(tmp_path / "glue.csv", "cola")
    assert len(read) == 9
    assert [text for (text,) in read.texts[:3]] == list(odd)
    assert read.labels.tolist() == [0, 1, 0] * 3
    pd.DataFrame({"label": list(odd), "mood": ["a", "b", "a"]}).to_json(
        tmp_path / "own.jsonl", orient="records", lines=True
    )
    columns = {"text_columns": ["label"], "label_column": "mood"}
    options = ("--train-file", tmp_path / "own.jsonl", "--text-column", "label", "--label-column", "mood")
    assert shrp(*command, *options, "--out", tmp_path / "own.csv")[0] == 0
    read = load_file(tmp_path / "own.csv", None, **columns)
    assert [text for (text,) in read.texts[:3]] == list(odd)
    assert read.labels.tolist() == [0, 1, 0] * 3
