"""The sentence pairs of the MRPC probe set are what docs/probes.md says of them."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shrp.data.sources import DATA_DIR, PROBES, load_probe

SLICES = {
    "lexical_overlap",
    "negation",
    "numbers",
    "dates_places",
    "entity_swap",
    "synonyms",
    "syntax",
    "detail",
    "antonyms_converses",
    "modality",
    "attribution_coreference",
    "temporal_causal",
}
EACH = 26
# Here the words are nearly the same whatever the label: their order decides.
SAME_WORDS = "lexical_overlap"


@pytest.fixture(scope="module")
def data():
    return load_probe("mrpc")


def words(sentence):
    return re.findall(r"[a-z0-9]+", sentence.lower())


def overlap(pair):
    """Distinct words that both sentences have, as a share of those that either has."""
    first, second = (set(words(sentence)) for sentence in pair)
    return len(first & second) / len(first | second)


def test_every_slice_is_balanced(data):
    assert data.name == "probe/mrpc"
    assert data.task.text_columns == ("sentence1", "sentence2")
    assert len(data) == len(SLICES) * EACH
    counts = Counter(zip(data.slices, data.labels.tolist()))
    assert counts == {(name, label): EACH // 2 for name in SLICES for label in (0, 1)}


def test_the_file_has_these_fields_and_no_others():
    lines = (PROBES / "mrpc.jsonl").read_text("utf-8").splitlines()
    for line in lines:
        row = json.loads(line)
        assert list(row) == ["sentence1", "sentence2", "label", "slice"]
        assert type(row["label"]) is int


def test_sentences_are_well_formed(data):
    for sentence in (text for pair in data.texts for text in pair):
        assert sentence == " ".join(sentence.split())
        assert 8 <= len(sentence.split()) <= 30, sentence
        assert re.match(r'"?[A-Z]', sentence), sentence
        assert sentence.endswith("."), sentence
        assert sentence.count('"') % 2 == 0, sentence


def test_no_sentence_occurs_twice(data):
    counts = Counter(" ".join(words(text)) for pair in data.texts for text in pair)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_pairs_are_not_one_pattern_filled_in_again(data):
    first = [set(words(pair[0])) for pair in data.texts]
    close = [
        (data.texts[i][0], data.texts[j][0])
        for i in range(len(first))
        for j in range(i)
        if len(first[i] & first[j]) > 0.5 * len(first[i] | first[j])
    ]
    assert close == []


def test_counting_shared_words_does_not_find_the_paraphrases(data):
    overlaps = np.array([overlap(pair) for pair in data.texts])
    paraphrase = data.labels == 1
    assert overlaps[~paraphrase].mean() > overlaps[paraphrase].mean()
    # "A paraphrase if at least so many words are shared", at the best threshold
    best = max(np.mean((overlaps >= threshold) == paraphrase) for threshold in np.unique(overlaps))
    assert best < 0.55
    in_slice = np.array(data.slices) == SAME_WORDS
    assert overlaps[in_slice].min() > 0.8


@pytest.mark.skipif(not os.environ.get(DATA_DIR), reason="needs GLUE on disk")
def test_no_sentence_is_from_mrpc(data):
    ours = {" ".join(words(text)) for pair in data.texts for text in pair}
    files = sorted((Path(os.environ[DATA_DIR]) / "mrpc").glob("*.parquet"))
    assert files
    for file in files:
        frame = pd.read_parquet(file)
        for column in ("sentence1", "sentence2"):
            assert ours.isdisjoint(" ".join(words(text)) for text in frame[column])
