"""Augmented copies of texts: replacements, and what is kept."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shrp.data.tasks import get_task
from shrp.data.text_data import TextData
from studies.augment import augmented, near_words

PLACES = {"cat": 0.0, "dog": 0.1, "fox": 0.2, "tea": 3.0, "Tea": 3.0, "rum": 2.9}
PLACES |= {"##ing": 0.0, "42": 0.1, "a": 0.1}
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


def texts(*inputs, labels=None):
    return TextData(get_task("sst2"), "mine", tuple(inputs), labels)


def test_near_words_are_whole_ones_the_nearest_first_and_never_the_word_itself(tokenizer, embeddings):
    near = near_words(tokenizer, embeddings, ["cat", "tea", "unknown", "42"])
    assert set(near) == {"cat", "tea"}
    assert near["cat"][:2] == ["dog", "fox"]
    assert near["tea"][0] == "rum"
    assert not {"##ing", "ing", "42", "a", "[UNK]"} & set(near["cat"])
    assert not {"tea", "Tea"} & set(near["tea"])


def test_copies_come_after_their_inputs_with_the_labels_of_these(tokenizer, embeddings):
    data = texts(("the cat",), ("some tea",), ("a fox",), labels=np.array([1, 0, 1]))
    more = augmented(data, 4, tokenizer, embeddings)
    tagged = TextData(data.task, "mine", data.texts, slices=("a", "b", "a"))
    assert augmented(tagged, 2, tokenizer, embeddings).slices == ("a", "b", "a") * 3
    assert more.texts[:3] == data.texts
    assert len(more) == 15
    assert len(set(more.texts)) > 3
    assert more.labels.tolist() == [1, 0, 1] * 5
    assert more.name == "mine and 4 augmented copies of each"
    assert augmented(data, 4, tokenizer, embeddings).fingerprint == more.fingerprint
    assert augmented(data, 4, tokenizer, embeddings, seed=1).fingerprint != more.fingerprint
