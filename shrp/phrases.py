"""Names and numbers in sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b` or `a, b and c`; empty for none."""
    *before, last = [*words] or [""]
    return f"{', '.join(before)} and {last}" if before else last


_METRICS = {
    "answer_f1": "answer F1",
    "entity_f1": "entity F1",
    "exact_match": "exact match",
    "f1": "F1",
    "f1_macro": "macro F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def metric_name(metric: str) -> str:
    """A metric's name in words: `Matthews correlation` for `matthews`."""
    return _METRICS.get(metric, metric)


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, but for what rounds to zero, which has none: `+0.3`, `-0.3`, `0.0`."""
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def numbered(noun: str, numbers: Collection[int]) -> str:
    """Numbered things: `layer 3`, `layers 3, 5`."""
    return f"{noun}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def duration(seconds: float) -> str:
    """A time span: `42 s`, `3 min 20 s`, `1 h 5 min`."""
    minutes, seconds = divmod(round(seconds), 60)
    parts = {"min": minutes, "s": seconds} if minutes < 60 else {"h": minutes // 60, "min": minutes % 60}
    return " ".join(f"{number} {unit}" for unit, number in parts.items() if number) or "0 s"


def counted(n: int, noun: str) -> str:
    """How many there are of something: `1 answer`, `1,043 answers`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
