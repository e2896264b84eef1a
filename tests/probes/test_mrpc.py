"""The sentence pairs of the MRPC probe set are what docs/probes.md says of them."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shrp.data.sources import DATA_DIR, load_probe

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
