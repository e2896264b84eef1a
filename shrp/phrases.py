"""How studies, verdicts and pages put names and figures into sentences."""

from __future__ import annotations

from collections.abc import Iterable


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b` or `a, b and c`; empty for none."""
    *before, last = [*words] or [""]
    return f"{', '.join(before)} and {last}" if before else last


_METRICS = {
    "f1": "F1",
    "f1_macro": "macro F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def metric_name(metric: str) -> str:
    """A metric's name in words: `Matthews correlation` for `matthews`."""
    return _METRICS.get(metric, metric)


def in_words(depth: str) -> str:
    """A depth as people say it: `6 of 12 layers` for `6of12`."""
    return f"{depth.replace('of', ' of ')} layers"


def with_ends(share: float, low: float, high: float) -> str:
    """A share in percent with the ends of its interval, where it has one: `98.9% (90.1 to 107.3)`."""
    text = f"{share:.1%}"
    return text if low != low else f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def by_chance(looks: int) -> str:
    """What so many 95% intervals lead to by chance, as a further sentence; empty for none."""
    if looks < 2:
        return " One interval excludes 0 by chance once in 20 times." * looks
    return f" Of {looks} such intervals about {0.05 * looks:.1f} exclude 0 by chance alone."


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, but for what rounds to zero, which has none: `+0.3`, `-0.3`, `0.0`."""
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def counted(n: int, noun: str) -> str:
    """How many there are of something: `1 answer`, `1,043 answers`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
