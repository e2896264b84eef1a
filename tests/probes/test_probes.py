"""The shipped probe sets are as docs/probes.md describes them, so that a careless edit to a line can't pass."""

import json
import os
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from shrp.data.sources import DATA_DIR, PROBES, load_glue, load_probe

# Task -> number of slices, inputs in each
SIZES = {"sst2": (12, 40), "cola": (12, 24), "mrpc": (12, 26)}


def rows(task):
    return [json.loads(line) for line in (PROBES / f"{task}.jsonl").read_text("utf-8").splitlines()]


def words(sentence):
    return re.findall(r"[a-z0-9']+", sentence.lower())


@pytest.mark.parametrize("task", SIZES)
def test_sizes_and_balance(task):
    data = load_probe(task)
    slices, size = SIZES[task]
    assert len(data) == slices * size
    assert len(set(data.slices)) == slices
    assert set(Counter(zip(data.slices, data.labels.tolist())).values()) == {size // 2}


@pytest.mark.parametrize("task", ["sst2", "cola"])
def test_sentences_are_clean_and_distinct(task):
    sentences = [text for (text,) in load_probe(task).texts]
    for sentence in sentences:
        assert sentence == " ".join(sentence.split())
        assert re.fullmatch(r"""["A-Z0-9].*[.?!]["']?""", sentence), sentence
    assert len({" ".join(words(sentence)) for sentence in sentences}) == len(sentences)


def test_cola_is_minimal_pairs_in_a_row():
    pairs = defaultdict(list)
    for row in rows("cola"):
        assert set(row) == {"sentence", "label", "slice", "pair"}
        pairs[row["pair"]].append(row)
    assert list(pairs) == list(range(1, 145))
    assert [row["pair"] for row in rows("cola")] == [n for n in pairs for _ in range(2)]
    for good, bad in pairs.values():
        assert (good["label"], bad["label"]) == (1, 0)
        assert good["slice"] == bad["slice"]


def overlap(pair):
    """Distinct words that both sentences have, as a share of those that either has."""
    first, second = (set(words(sentence)) for sentence in pair)
    return len(first & second) / len(first | second)


def test_counting_shared_words_does_not_find_the_paraphrases():
    data = load_probe("mrpc")
    overlaps = np.array([overlap(pair) for pair in data.texts])
    paraphrase = data.labels == 1
    assert overlaps[~paraphrase].mean() > overlaps[paraphrase].mean()
    # "A paraphrase if at least so many words are shared", at the best threshold
    best = max(np.mean((overlaps >= threshold) == paraphrase) for threshold in np.unique(overlaps))
    assert best < 0.55
    in_slice = np.array(data.slices) == "lexical_overlap"  # there the order of the words decides
    assert overlaps[in_slice].min() > 0.8


@pytest.mark.skipif(not os.environ.get(DATA_DIR), reason=f"{DATA_DIR} names no folder with GLUE")
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("task", SIZES)
def test_no_sentence_is_one_of_glue(task, split):
    def normalised(data):
        return {" ".join(words(part)) for text in data.texts for part in text}

    assert not normalised(load_probe(task)) & normalised(load_glue(task, split))
