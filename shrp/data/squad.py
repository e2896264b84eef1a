"""SQuAD's metrics of answers, as its official script for version 1.1 defines them (Rajpurkar et al. 2016)."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=50_000)  # running estimates and prunings ask for the same ones again
def normalised(answer: str) -> tuple[str, ...]:
    """The words of an answer in lower case, without punctuation and articles."""
    return tuple(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, known: Sequence[str]) -> bool:
    """Whether an answer has the words of one of those that are known."""
    return any(normalised(answer) == normalised(one) for one in known)


def f1(answer: str, known: Sequence[str]) -> float:
    """F1 of an answer's words, as a bag; of several known answers the best."""
    return max(_f1(normalised(answer), normalised(one)) for one in known)


def _f1(ours: tuple[str, ...], theirs: tuple[str, ...]) -> float:
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0
