"""Numbers and texts as the app writes them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from shrp import phrases
from shrp.phrases import metric_name

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

    from shrp.data.tasks import Task

NOT_KNOWN = "–"
LONGEST_LABEL = 30
"""Characters of a name next to a chart, which leaves the plot most of the width."""
_AS_PERCENT = ("accuracy", "f1", "f1_macro", "entity_f1", "answer_f1", "exact_match")
_WORDS = {
    r", recovered\b": ", fine-tuned",
    r"\bstatic(?=, \d| model)": "pruned",
    r"\blayers dropped\b": "layer dropping",
    r"\bnot trained on texts\b": "without unlabelled text",
}
"""Labels of stored scores -> the app's words."""
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_WORD_JOINER = "\u2060"
# Streamlit turns `:name:` into an emoji or icon and `->`, `--`, `>=` into symbols after Markdown's own
# escapes are gone. An invisible word joiner inside each keeps them as they were typed.
_SHORTCODE = re.compile(r":(?=[\w+-])")
_SYMBOL = re.compile(r"(?<=[-<>=~])(?=[-<>=~])")
_MARKS = re.compile(rf"\\(.)|\*\*|{_WORD_JOINER}")


def verdict(text: str) -> None:
    """Draw a page's headline, Markdown: its answer in one sentence, in larger type."""
    with st.container(key="verdict"):
        st.markdown(text)


def readable(text: str) -> str:
    """Labels of stored scores, alone or in a sentence, in the app's words."""
    for label, words in _WORDS.items():
        text = re.sub(label, words, text)
    return text


def slice_name(name: str) -> str:
    """A slice's or a class's name as charts and tables write it: with spaces, at which it can break into lines."""
    return name.replace("_", " ")


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage: `percent(0.907)` is `90.7%`; a dash where it is not known."""
    # What rounds to zero has no sign.
    return f"{round(100 * share, digits) + 0.0:.{digits}f}%".replace("-", "−") if _finite(share) else NOT_KNOWN


def is_percentage(metric: str) -> bool:
    """Whether a metric is written in percent (a correlation is not)."""
    return metric in _AS_PERCENT


def score_text(score: float | None, metric: str) -> str:
    """A score alone: `90.7%`, or `0.583` and `−0.012` for correlations."""
    if is_percentage(metric):
        return percent(score)
    if not _finite(score):
        return NOT_KNOWN
    return f"{score if round(score, 3) else 0:.3f}".replace("-", "−")  # what rounds to zero has no sign


def signed(value: float, digits: int) -> str:
    """A number with its sign, `+0.3` or `−0.3`, but for what rounds to zero, which has none; a dash for nan."""
    return phrases.signed(value, digits).replace("-", "−") if math.isfinite(value) else NOT_KNOWN


def with_signs(frame: pd.DataFrame, columns: Sequence[str], digits: int) -> Styler:
    """A table for `st.dataframe` with `signed` numbers in these columns, which still sort as numbers."""
    return frame.style.format(lambda value: signed(value, digits), subset=[*columns])


def interval_text(interval: Sequence[float] | None, metric: str) -> str:
    """A 95% interval: `88.6–92.4%`, or `−0.012 to 0.310`; empty where there is none."""
    if not interval or len(interval) != 2 or not all(_finite(end) for end in interval):
        return ""
    low, high = (score_text(end, metric) for end in interval)
    if is_percentage(metric):
        low = low.removesuffix("%")
    return f"{low} to {high}" if "−" in low + high else f"{low}–{high}"


def share_text(hits: int, n: int) -> str:
    """A share of independent examples with its interval: `73.1% (95% CI 69.0–76.9%)`; write n next to it."""
    from shrp.evaluation.statistics import wilson

    return f"{percent(hits / n)} (95% CI {interval_text(wilson(hits, n), 'accuracy')})"


def with_interval(score: float | None, interval: Sequence[float] | None, metric: str, n: int) -> str:
    """A score with all that belongs to it: `accuracy 90.7% (95% CI 88.6–92.4%, n = 872)`."""
    bounds = interval_text(interval, metric)
    ends = f"95% CI {bounds}, " * bool(bounds)
    return f"{metric_name(metric)} {score_text(score, metric)} ({ends}n = {n:,})"


def points(difference: float, metric: str) -> str:
    """A signed difference of scores: `−1.2 points`, or `−0.012` for correlations."""
    if difference != difference:
        return NOT_KNOWN
    return f"{signed(100 * difference, 1)} points" if is_percentage(metric) else signed(difference, 3)


def points_interval(interval: Sequence[float], metric: str) -> str:
    """The ends of a difference's interval: `−3.0 to +0.4`; a dash where there is none."""
    if interval[0] != interval[0]:
        return NOT_KNOWN
    low, high = (points(end, metric).removesuffix(" points") for end in interval)
    return f"{low} to {high}"


ALPHA = 0.05
"""A p-value below this counts as a difference, and so does one of two ends of a 95% interval beyond 0."""


def p_text(p_value: float) -> str:
    """`p = 0.041`, or `p < 0.001`; empty for nan, a test that does not apply."""
    said = "p < 0.001" if p_value < 0.001 else f"p = {min(p_value, 1.0):.3f}"
    return said if _finite(p_value) else ""


def count(number: float) -> str:
    """A large number in short: `33.4M`, `5.74G`, `872`."""
    number = float(f"{number:.3g}") if abs(number) >= 1e3 else number  # 999,950 is 1M, not 1000k
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def about(seconds: float) -> str:
    """A length of time that is an estimate, rounded so that it can be read while it changes: `about 2 min`."""
    step = 5 if seconds < 60 else 30
    return f"about {phrases.duration(step * max(1, round(seconds / step)))}"


def capital(text: str) -> str:
    """Text that begins with a capital letter, the rest as it is: `Macro F1`."""
    return text[:1].upper() + text[1:]


def axis_names(names: Iterable[str]) -> list[str]:
    """Names, each another one, as labels of an axis: HTML-safe, no longer than `LONGEST_LABEL`, and still different."""
    found: dict[str, None] = {}
    for name in names:
        short = label = escape_html(shorten(name, LONGEST_LABEL))
        again = 1
        while label in found:
            label, again = f"{short} ({again + 1})", again + 1
        found[label] = None
    return list(found)


def escape(text: str) -> str:
    """Text for `st.markdown` and its like, shown as it stands: no markup, links, icons or formulas."""
    parts = _SHORTCODE.split(_SYMBOL.sub(_WORD_JOINER, " ".join(str(text).split())))
    return _PUNCTUATION.sub(r"\\\1", f":{_WORD_JOINER}".join(parts))


def plain(markdown: str) -> str:
    """Text that was written for Markdown, `escape`d in parts, without its marks and escapes."""
    return _MARKS.sub(lambda found: found.group(1) or "", markdown)


def escape_html(text: str) -> str:
    """Text for HTML and for Plotly's labels and hover texts, which read a subset of HTML."""
    return html.escape(str(text), quote=True).replace("&quot;", "&#34;")  # Plotly does not know the name


def file_name(text: str) -> str:
    """A text as part of a file's or a folder's name, which no shell and no system reads otherwise."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-") or "shrp"


def shorten(text: str, limit: int = 90) -> str:
    """The beginning of a text, with an ellipsis where it was cut."""
    text = " ".join(str(text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def shorten_texts(texts: Sequence[str], limit: int) -> str:
    """An input in one line, of a pair both texts: each has its beginning there, however long the other is."""
    texts = [" ".join(str(text).split()) for text in texts]
    left, parts = limit - 3 * (len(texts) - 1), [""] * len(texts)
    for done, place in enumerate(sorted(range(len(texts)), key=lambda i: len(texts[i]))):
        parts[place] = shorten(texts[place], left // (len(texts) - done))
        left -= len(parts[place])
    return " / ".join(parts)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def worth_name(task: Task) -> str:
    """What an answer's worth (`shrp.evaluation.metrics.worth`) is called."""
    if task.on_spans:
        return "F1 of the answer"
    return "nearness to the label" if task.is_regression else "margin of the true class"


def worth_meaning(task: Task) -> str:
    """What it is, to follow "is"."""
    margin = "the logit of the true class less the largest other one"
    margin = "the F1 of its words and those of the known answer" if task.on_spans else margin
    return "minus the absolute error, in the label's unit" if task.is_regression else margin


TWO_LINES = 67
"""Pixels of a row in which Streamlit wraps texts; a cell shows all of a longer one once it is opened."""


def text_width(task: Task) -> str:
    """Width of a text's column, where a table has one for each text of an example."""
    return "large" if len(task.text_columns) == 1 else "medium"
