"""The profile of one expert: its examples, its words, what it attends to, and the model without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.analysis.words import log_odds
from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui import closer
from ui.downloads import chart, downloads
from ui.state import lazy_tabs
from ui.text import TWO_LINES, percent, slice_name, text_width, with_signs
from ui.usage import attention, figures, knock_out, results

EXAMPLES, WORDS, ATTENTION, KNOCK_OUT = "Examples", "Words", "Attention and its roles", "Knock-out"
TABS, MIN_COUNT = "profile", 5
"""Key of the tabs, in the session's state and in the URL; and fewest occurrences of a word that is listed."""
SHOWN, TERMS = 5, 10
FEW_EXAMPLES, FEW_TOKENS = 30, 300
"""With fewer than these, words say little."""
_OF = "example-of"


def profile(one: results.Expert, mixes: dict[str, pd.DataFrame]) -> None:
    """Draw the tabs; only the open one is computed. `mixes`: of `ui.usage.headline.mixes`."""
    forget_example(one.data)
    frame = example_frame(one.stats, one.data, *one.cell)
    draw = {
        EXAMPLES: lambda: examples(one, frame, mixes),
        WORDS: lambda: words(one),
        ATTENTION: lambda: attention.section(one, int(frame["index"].iloc[0])),
        KNOCK_OUT: lambda: knock_out.section(one),
    }
    lazy_tabs(draw, TABS)


def example_frame(stats: UsageStats, data: TextData, layer: int, expert: int) -> pd.DataFrame:
    """Every example with its router probability for the expert, highest first.

    Columns index, the text columns, (label, slice), `router probability`, and `chosen` (whether the expert is its
    Top-1) or, under token routing, `tokens` (how many of its tokens chose the expert).
    """
    frame = replace(data, task=replace(data.task, text_columns=tuple(_text_names(data)))).to_frame()
    frame.insert(0, "index", np.arange(len(data)))
    frame["router probability"] = stats.probs[layer][:, expert].astype(float)
    mine = stats.top1[layer][:, expert]
    frame["tokens" if stats.unit == "tokens" else "chosen"] = mine if stats.unit == "tokens" else mine > 0
    return frame.sort_values("router probability", ascending=False, kind="stable", ignore_index=True)


def _text_names(data: TextData) -> list[str]:
    """The names of the texts' columns in `example_frame`."""
    taken = ("index", "label", "slice", "router probability", "tokens", "chosen")
    return distinct(data.task.text_columns, taken)


def examples(one: results.Expert, frame: pd.DataFrame, mixes: dict[str, pd.DataFrame]) -> None:
    """The examples of the highest router probability, and how the expert's examples split over groups.

    `frame`: of `example_frame`.
    """
    data, column = one.data, st.column_config
    above = st.container()
    left, right = st.columns([6, 1], vertical_alignment="center")
    shown = frame.head(SHOWN)
    key = f"inputs-{one.layer}-{one.expert}-{data.fingerprint}"
    texts = _text_names(data)
    named = ("slice",) if data.task.is_regression else ("label", "slice")
    above.dataframe(
        shown.assign(**{name: shown[name].map(slice_name) for name in named if name in shown}),
        key=key,
        on_select=lambda: _pick(key, shown["index"].tolist()),
        selection_mode="single-row",
        hide_index=True,
        height="content",
        row_height=TWO_LINES,
        column_config={
            "index": column.NumberColumn("row", width=50, help="Number of the example, from 0"),
            **{name: column.TextColumn(width=text_width(data.task)) for name in texts},
            "router probability": column.ProgressColumn(format="%.3f", min_value=0, max_value=1, width=125),
            "label": column.Column(width=82),
            "slice": column.TextColumn(width=110),
            "chosen": column.CheckboxColumn(help="Whether this expert is the example's Top-1"),
            "tokens": column.NumberColumn(help="How many of its tokens chose this expert"),
        },
        alt="Examples with the highest router probability for this expert",
    )
    if (picked := st.session_state.get(attention.EXAMPLE)) in shown["index"].to_numpy():
        with above:
            closer.links(data, [picked], routed=True)
    left.caption(
        f"Examples with the highest router probability, {len(shown)} of {len(frame):,}. Pick a row to see its route "
        "and its attention."
    )
    with right:
        downloads(frame, "top-inputs", f"{one.name}-examples")
    if mixes and (mine := int(one.stats.counts(one.layer)[one.expert])):
        _mixes(one, mixes, mine)


def _mixes(one: results.Expert, mixes: dict[str, pd.DataFrame], mine: int) -> None:
    unit = one.stats.unit
    for column, (by, frame) in zip(st.columns(len(mixes), gap="large"), mixes.items(), strict=True):
        alt = f"Share of this expert's {unit} by {by}, base rate in brackets: " + "; ".join(
            f"{slice_name(str(r.group))} {percent(r.here)} ({percent(r.base)})" for r in frame.itertuples()
        )
        with column:
            fig = figures.mix_bars(frame, what=by, unit=unit, total=mine)
            chart(fig, frame, f"mix-{by}", f"{one.name}-{by}", alt)
    st.caption(
        "“More often” and “less often” above: against the layer's other experts, false discovery rate q ≤ "
        f"{percent(FALSE_DISCOVERIES, 0)}. Fisher's exact test; for tokens and minimal pairs, a permutation test that keeps "
        "both examples of a pair together."
    )


def forget_example(data: TextData) -> None:
    """Drop the picked example when the data change: its number means nothing there."""
    now = data.source_fingerprint
    if st.session_state.setdefault(_OF, now) != now:
        st.session_state[_OF], st.session_state[attention.EXAMPLE] = now, None


def _pick(key: str, numbers: Sequence[int]) -> None:
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(numbers):
        st.session_state[attention.EXAMPLE] = numbers[rows[0]]


def words(one: results.Expert) -> None:
    """Two tables: terms that are frequent in what is routed here, and rare, against the layer's other experts."""
    what, note, above = "token" if one.stats.unit == "tokens" else "word", "", st.container()
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    if what == "token":
        counted = results.tokens(one.checkpoint, one.data)
        table = counted.counts[one.layer]
        here = table[:, one.expert]
        found = log_odds(counted.tokens, here, table.sum(1) - here, min_count=MIN_COUNT)
        few = found.here < FEW_TOKENS
        group = f"{found.here:,} tokens routed here and {found.elsewhere:,} others, special tokens left out"
    else:
        by_word, mine = results.words(one.data), one.stats.top1[one.layer][:, one.expert] > 0
        found = log_odds(by_word.words, by_word.of(mine), by_word.of(~mine), min_count=MIN_COUNT)
        inputs = dict(zip(by_word.words, by_word.inputs(mine), strict=True))
        found.frame.insert(2, "examples here", found.frame["term"].map(inputs).astype(int))
        few = mine.sum() < FEW_EXAMPLES
        group = f"{found.here:,} words in {int(mine.sum()):,} examples routed here, "
        group += f"{found.elsewhere:,} in {int((~mine).sum()):,} others"
    if not found.here or not found.elsewhere or found.frame.empty:
        why = "is routed here" if not found.here else "is routed elsewhere"
        if found.here and found.elsewhere:
            why = f"occurs at least {MIN_COUNT} times"
        above.info(f"No {what} {why}.", icon=":material/text_fields:")
    else:
        if few:
            warning = f"Few {what}s are routed here: one unusual example can put a {what} at the top."
            above.warning(warning, icon=":material/warning:")
        tops = (found.frame.head(TERMS), found.frame.iloc[::-1].head(TERMS))
        titles = (f"Most typical {what}s", f"Least typical {what}s")
        for column, title, part in zip(above.columns(2, gap="large"), titles, tops, strict=True):
            with column:
                _terms(part, title, what)
        note = (
            f"{group}. {len(found.frame):,} {what}s occur at least {MIN_COUNT} times. z: log-odds ratio over its standard "
            f"error (Monroe et al. 2008); it ranks {what}s and is no test."
        )
    left.caption(note)
    with right:
        downloads(found.frame, "words", f"{one.name}-{what}s")


def _terms(frame: pd.DataFrame, title: str, what: str) -> None:
    st.markdown(f"**{title}**")
    number = st.column_config.NumberColumn
    help_of = {
        "here": "Occurrences in what is routed here",
        "examples here": "Examples routed here that contain it",
        "elsewhere": "Occurrences in what the layer's other experts take",
    }
    st.dataframe(
        with_signs(frame.rename(columns={"term": what}), ["z"], 1),
        hide_index=True,
        height="content",
        column_order=[what, "z", *help_of],
        column_config={
            what: st.column_config.TextColumn(width=90),
            "z": number(width=48, help="The log-odds ratio over its standard error"),
            **{name: number(width=76, help=text) for name, text in help_of.items()},
        },
        alt=f"{title} of this expert, with log-odds and counts",
    )
