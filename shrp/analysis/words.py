"""Words typical of one expert's examples: log-odds ratios with an informative Dirichlet prior.

Source: Monroe, Colaresi and Quinn, "Fightin' Words", Political Analysis 16 (2008). Words are counted, or tokens under
token routing. Shapes: `N` examples, `V` different terms, `H` experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import regex
import torch
from scipy.sparse import csr_array
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.explore import token_labels
from shrp.data.batching import read, special_mask
from shrp.data.text_data import TextData
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.gates import record_routing
from shrp.progress import Progress, silent

PRIOR_TERMS = 500
"""Strength of the prior, in terms drawn at the overall rates."""
ONE_A_CHARACTER = r"\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Hiragana}\p{Katakana}\p{Han}"
"""Scripts without spaces: each character, with its marks, is a word."""


def run_of(letter: str) -> str:
    """The regular expression of a run of letters, with marks, joiners and soft hyphens; `letter` matches one."""
    return rf"(?!\p{{M}}){letter}(?:{letter}|\xad)*"


_LETTERS = run_of(rf"[^\W_{ONE_A_CHARACTER}]")
_WORD = regex.compile(rf"{_LETTERS}(?:['’]{_LETTERS})*|(?![\W_])[{ONE_A_CHARACTER}]\p{{M}}*")


@dataclass(frozen=True, eq=False)
class WordCounts:
    """How often each word occurs in each example."""

    words: tuple[str, ...]
    """Lower case, in order of first occurrence."""
    counts: csr_array
    """`(N, V)`."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Occurrences in the examples that the mask `(N,)` marks, `(V,)`."""
        return np.asarray(self.counts[np.flatnonzero(rows)].sum(axis=0)).ravel()

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """In how many of these examples each word occurs, `(V,)`."""
        return np.asarray((self.counts[np.flatnonzero(rows)] > 0).sum(axis=0)).ravel()


def count_words(texts: Sequence[tuple[str, ...]]) -> WordCounts:
    """Count the words of every input, both texts of a pair together; case and punctuation don't count."""
    index: dict[str, int] = {}
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        found = Counter(word for part in text for word in _WORD.findall(part.lower()))
        for word, count in found.items():
            rows.append(row)
            columns.append(index.setdefault(word, len(index)))
            values.append(count)
    shape = (len(texts), len(index))
    return WordCounts(tuple(index), csr_array((values, (rows, columns)), shape=shape, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """How often each token took each expert; special tokens are left out, tokens that display the same are merged."""

    tokens: tuple[str, ...]
    counts: dict[int, np.ndarray]
    """Routed layer -> `(V, H)`."""


def count_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    max_length: int = 128,
    progress: Progress = silent,
) -> TokenCounts:
    """Count which tokens take which expert of a token-routed model, in every layer."""
    found, taken = [], {layer: [] for layer in expert_layers(model)}
    for _, inputs in read(model, tokenizer, data.texts, max_length=max_length, progress=progress):
        with torch.inference_mode(), record_routing() as record:
            model(**inputs)
        mask = inputs["attention_mask"].bool()
        found.append(inputs["input_ids"][mask].cpu().numpy())
        for layer, experts in taken.items():
            experts.append(record.last(layer).gates.argmax(-1)[mask].cpu().numpy())
    ids, place = np.unique(np.concatenate(found), return_inverse=True)
    kept = ~special_mask(tokenizer, ids)
    index: dict[str, int] = {}
    labels = token_labels(tokenizer, ids[kept].tolist())
    terms = np.full(len(ids), -1)
    terms[kept] = [index.setdefault(label, len(index)) for label in labels]
    terms, counts = terms[place], {}
    for layer, experts in taken.items():
        counts[layer] = np.zeros((len(index), num_experts_of(model)), dtype=np.int64)
        np.add.at(counts[layer], (terms[terms >= 0], np.concatenate(experts)[terms >= 0]), 1)
    return TokenCounts(tuple(index), counts)


@dataclass(frozen=True, eq=False)
class Characteristic:
    """Terms by how typical they are of one group of examples."""

    frame: pd.DataFrame
    """A row a tested term: `term, here, elsewhere` (counts), `per 1,000 here, per 1,000 elsewhere`, `log-odds`, `low, high`
    (95% interval), `z`; largest z first."""
    here: int
    """Terms in the group."""
    elsewhere: int
    """Terms in the others."""


def log_odds(
    terms: Sequence[str], here: np.ndarray, elsewhere: np.ndarray, *, min_count: int = 5
) -> Characteristic:
    """Weighted log-odds ratios of terms in one group against another.

    Occurrences are taken as independent, which those in one example are not: z ranks terms and is no test.

    Args:
        here, elsewhere: counts of the `V` terms in the two groups, `(V,)`.
        min_count: fewest occurrences in both groups together.
    """
    n_here, n_elsewhere = int(here.sum()), int(elsewhere.sum())
    total = here + elsewhere
    tested = np.flatnonzero(total >= max(min_count, 1))
    y, x = here[tested].astype(float), elsewhere[tested].astype(float)
    prior = PRIOR_TERMS * total[tested] / max(n_here + n_elsewhere, 1)

    def odds(count: np.ndarray, n: int) -> np.ndarray:
        # The floor matters only where one term is all there is.
        return np.log(count + prior) - np.log(np.maximum(n + PRIOR_TERMS - count - prior, 1e-9))

    ratio = odds(y, n_here) - odds(x, n_elsewhere)
    spread = np.sqrt(1 / (y + prior) + 1 / (x + prior))
    columns = {"term": [terms[i] for i in tested], "here": y.astype(int), "elsewhere": x.astype(int)}
    columns["per 1,000 here"] = 1000 * y / max(n_here, 1)
    columns["per 1,000 elsewhere"] = 1000 * x / max(n_elsewhere, 1)
    columns |= {"log-odds": ratio, "low": ratio - 1.96 * spread, "high": ratio + 1.96 * spread}
    columns["z"] = ratio / spread
    frame = pd.DataFrame(columns).sort_values("z", ascending=False, kind="stable", ignore_index=True)
    return Characteristic(frame, n_here, n_elsewhere)
