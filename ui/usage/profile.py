"""The profile of one expert: its examples, its words, what it attends to, and the model without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.analysis.words import PRIOR_TERMS, log_odds
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui import closer, measurements
from ui.bound import clamp
from ui.downloads import chart, downloads
from ui.state import show_error
from ui.text import percent, row_height, slice_name
from ui.usage import attention, figures, knock_out, results

EXAMPLES, WORDS, ATTENTION, KNOCK_OUT = "Examples", "Words", "Attention and its roles", "Knock-out"
TABS = "profile"
"""Key of the tabs, in the session's state and in the URL."""
RANKED, MIN_COUNT = "ranked", "min_count"
HIGHEST, LOWEST = "highest", "lowest"
SHOWN, TERMS = 5, 10
FEW_EXAMPLES, FEW_TOKENS = 30, 300
"""With fewer than these, words say little."""
_OF = "example-of"


@dataclass(frozen=True)
class Expert:
    """One expert of a checkpoint, and the data that its usage was measured on."""

    checkpoint: Checkpoint
    data: TextData
    stats: UsageStats
    layer: int
    expert: int
    name: str
    """Beginning of the names of files."""

    @property
    def cell(self) -> tuple[int, int]:
        """Layer and number."""
        return self.layer, self.expert


def profile(one: Expert, mixes: dict[str, pd.DataFrame]) -> None:
    """Draw the tabs; only the open one is computed.

    Args:
        mixes: of `ui.usage.headline.mixes`.
    """
    forget_example(one.data)
    frame = example_frame(one.stats, one.data, *one.cell)
    draw = {
        EXAMPLES: lambda: examples(one, frame, mixes),
        WORDS: lambda: words(one),
        ATTENTION: lambda: attention.section(one, int(frame["index"].iloc[0])),
        KNOCK_OUT: lambda: knock_out.section(one),
    }
    for tab, show in zip(
        st.tabs([*draw], key=TABS, bind="query-params", on_change="rerun"), draw.values(), strict=True
    ):
        if tab.open:
            with tab:
                try:
                    show()
                except ShrpError as error:
                    show_error(error)


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
    return distinct(
        data.task.text_columns, ("index", "label", "slice", "router probability", "tokens", "chosen")
    )


def examples(one: Expert, frame: pd.DataFrame, mixes: dict[str, pd.DataFrame]) -> None:
    """The examples of the highest or lowest router probability, and how the expert's examples split over groups.

    Args:
        frame: of `example_frame`.
    """
    data = one.data
    above = st.container()  # the table, drawn below its control and shown above it
    left, middle, right = st.columns([2, 4, 1], vertical_alignment="center")
    with left:
        ranked = st.segmented_control(
            "Router probability",
            [HIGHEST, LOWEST],
            default=HIGHEST,
            required=True,
            key=RANKED,
            bind="query-params",
            label_visibility="collapsed",
        )
    shown = frame.head(SHOWN) if ranked != LOWEST else frame.iloc[::-1].head(SHOWN)
    key = f"inputs-{one.layer}-{one.expert}-{ranked}-{data.fingerprint}"
    texts, top = _text_names(data), float(frame["router probability"].max())
    width = 420 if len(texts) == 1 else 220
    named = ("slice",) if data.task.is_regression else ("label", "slice")
    spaced = {name: shown[name].map(slice_name) for name in named if name in shown}
    above.dataframe(
        shown.assign(**spaced),
        key=key,
        on_select=lambda: _pick(key, shown["index"].tolist()),
        selection_mode="single-row",
        hide_index=True,
        width="stretch",
        height="content",
        row_height=row_height(max(shown[name].str.len().max() for name in texts), width, most=67),
        column_config={
            "index": st.column_config.NumberColumn("row", width=50, help="Number of the example, from 0"),
            **{name: st.column_config.TextColumn(width=width) for name in texts},
            "router probability": st.column_config.ProgressColumn(
                format="%.3f", min_value=0, max_value=top or 1.0, width=125
            ),
            "label": st.column_config.Column(width=82),
            "slice": st.column_config.TextColumn(width=110),
            "chosen": st.column_config.CheckboxColumn(help="Whether this expert is the example's Top-1"),
            "tokens": st.column_config.NumberColumn(help="How many of its tokens chose this expert"),
        },
        alt=f"Examples with the {ranked} router probability for this expert",
    )
    if (picked := st.session_state.get(attention.EXAMPLE)) in shown["index"].to_numpy():
        with above:
            closer.links(data, [picked], routed=True)
    middle.caption(
        f"Examples with the {ranked} router probability, {len(shown)} of {len(frame):,}. Pick a row to see its route "
        "and its attention."
    )
    with right:
        downloads(frame, "top-inputs", f"{one.name}-examples")
    mine = int(one.stats.counts(one.layer)[one.expert])
    if mine and mixes:
        _mixes(one, mixes, mine)


def _mixes(one: Expert, mixes: dict[str, pd.DataFrame], mine: int) -> None:
    unit = figures.counted_in(one.stats.unit)
    for column, (by, frame) in zip(st.columns(len(mixes), gap="large"), mixes.items(), strict=True):
        with column:
            chart(
                figures.mix_bars(frame, what=by, unit=unit, total=mine),
                frame,
                key=f"mix-{by}",
                name=f"{one.name}-{by}",
                alt=f"Share of this expert's {unit} by {by}, base rate in brackets: "
                + "; ".join(
                    f"{slice_name(str(r.group))} {percent(r.here)} ({percent(r.base)})"
                    for r in frame.itertuples()
                ),
            )
    st.caption(
        f"“More often” and “less often” above: q ≤ {percent(FALSE_DISCOVERIES, 0)}, against the layer's other experts. "
        "Fisher's exact test; a permutation test for tokens and minimal pairs, whose members move together."
    )


def forget_example(data: TextData) -> None:
    """Drop the picked example when the data change: its number means nothing there."""
    now = data.source_fingerprint  # custom slices leave the numbers as they are
    if st.session_state.setdefault(_OF, now) != now:
        st.session_state[_OF], st.session_state[attention.EXAMPLE] = now, None


def _pick(key: str, numbers: Sequence[int]) -> None:
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(numbers):
        st.session_state[attention.EXAMPLE], st.session_state[attention.TYPED] = numbers[rows[0]], ""


def words(one: Expert) -> None:
    """Two tables: terms that are frequent in what is routed here, and rare, against the layer's other experts."""
    checkpoint, data, stats = one.checkpoint, one.data, one.stats
    by_token = stats.unit == "tokens"
    what, notes = "token" if by_token else "word", []
    above = st.container()
    left, middle, right = st.columns([1, 4, 1], vertical_alignment="bottom")
    with left:
        clamp(MIN_COUNT, 1, 10_000)
        minimum = st.number_input(
            "Fewest occurrences",
            min_value=1,
            max_value=10_000,
            value=5,
            key=MIN_COUNT,
            bind="query-params",
            help=f"z: log-odds ratio over its standard error, with an informative Dirichlet prior worth {PRIOR_TERMS} "
            f"{what}s (Monroe et al. 2008). It ranks {what}s and is no test.",
        )
    minimum = min(max(int(minimum or 1), 1), 10_000)
    if by_token:
        counted = results.tokens(checkpoint, data)
        table = counted.counts[one.layer]
        here = table[:, one.expert]
        found = log_odds(counted.tokens, here, table.sum(1) - here, min_count=minimum)
        few = found.here < FEW_TOKENS
        group = f"{found.here:,} tokens routed here and {found.elsewhere:,} others, special tokens left out"
    else:
        words, mine = results.words(data), stats.top1[one.layer][:, one.expert] > 0
        found = log_odds(words.words, words.of(mine), words.of(~mine), min_count=minimum)
        inputs = dict(zip(words.words, words.inputs(mine), strict=True))
        found.frame.insert(2, "inputs here", found.frame["term"].map(inputs).astype(int))
        few = mine.sum() < FEW_EXAMPLES
        group = (
            f"{found.here:,} words in {int(mine.sum()):,} examples routed here, {found.elsewhere:,} in "
            f"{int((~mine).sum()):,} others"
        )
        unread, cut = measurements.cut_inputs(checkpoint, data)
        if unread:
            notes.append(f"{unread:,} examples are longer than the {cut} tokens that the router reads.")
    if not found.here or not found.elsewhere or not found.tested:
        why = "is routed here" if not found.here else "is routed elsewhere"
        if found.here and found.elsewhere:
            why = "occurs often enough: lower the fewest occurrences"
        above.info(f"No {what} {why}.", icon=":material/text_fields:")
    else:
        if few:
            above.warning(
                f"Few {what}s are routed here: one unusual example can put a {what} at the top.",
                icon=":material/warning:",
            )
        for column, title, part in zip(
            above.columns(2, gap="large"),
            ("Most typical", "Least typical"),
            (found.frame.head(TERMS), found.frame.iloc[::-1].head(TERMS)),
            strict=True,
        ):
            with column:
                _terms(part, f"{title} {what}s", what)
        notes.insert(0, f"{group}. {found.tested:,} {what}s occur at least {minimum} times.")
    middle.caption(" ".join(notes))
    with right:
        downloads(found.frame, "words", f"{one.name}-{what}s")


def _terms(frame: pd.DataFrame, title: str, what: str) -> None:
    st.markdown(f"**{title}**")
    order = [what, "z", "here", "inputs here", "elsewhere"]
    shown = frame.rename(columns={"term": what})
    number: Any = st.column_config.NumberColumn
    st.dataframe(
        shown[[column for column in order if column in shown]],
        hide_index=True,
        width="stretch",
        height="content",
        column_config={
            what: st.column_config.TextColumn(width=90),
            "z": number(format="%+.1f", width=48, help="The log-odds ratio over its standard error"),
            "here": number(width=48, help="Occurrences in what is routed here"),
            "inputs here": number("examples", width=70, help="Examples routed here that contain it"),
            "elsewhere": number(width=76, help="Occurrences in what the layer's other experts take"),
        },
        alt=f"{title} of this expert, with log-odds and counts",
    )
