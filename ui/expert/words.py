"""The words, or under token routing the tokens, that mark what is routed to one expert."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.analysis.words import PRIOR_TERMS, Characteristic, log_odds
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from ui import measurements
from ui.bound import clamp
from ui.downloads import downloads
from ui.expert import results as made
from ui.text import escape

SHOWN, MIN_COUNT = 10, "min_count"
FEW_INPUTS, FEW_TOKENS = 30, 300
"""Below so much, a group says little about words."""


def words(
    checkpoint: Checkpoint, stats: UsageStats, data: TextData, layer: int, expert: int, file_name: str
) -> None:
    """Two tables: what is frequent here, and what is rare here, against all that is routed elsewhere in the layer."""
    by_token = stats.unit == "tokens"
    what = "token" if by_token else "word"
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with right:
        clamp(MIN_COUNT, 1, 10_000)
        minimum = st.number_input(
            "Fewest occurrences",
            min_value=1,
            max_value=10_000,
            value=5,
            key=MIN_COUNT,
            bind="query-params",
            help=f"A {what} that occurs less often in all of the data is not tested.",
        )
    minimum = min(max(int(minimum or 1), 1), 10_000)
    if by_token:
        counted = made.tokens(checkpoint, data)
        table = counted.counts[layer]
        found = log_odds(counted.tokens, table[:, expert], table.sum(1) - table[:, expert], min_count=minimum)
        few = found.here < FEW_TOKENS
        group = (
            f"{found.here:,} tokens (special ones left out) routed here against {found.elsewhere:,} others"
        )
    else:
        counted, mine = made.words(data), stats.top1[layer][:, expert] > 0
        found = log_odds(counted.words, counted.of(mine), counted.of(~mine), min_count=minimum)
        here = dict(zip(counted.words, counted.inputs(mine)))
        found.frame.insert(2, "inputs here", found.frame["term"].map(here).astype(int))
        few = mine.sum() < FEW_INPUTS
        unread, cut = measurements.cut_inputs(checkpoint, data)
        group = (
            f"{found.here:,} words in the {int(mine.sum()):,} inputs routed here against {found.elsewhere:,} in the "
            f"{int((~mine).sum()):,} others"
        )
    with left:
        st.subheader(f"Characteristic {what}s", anchor=False)
        st.caption(f"{group}, {escape(data.name)}")
    if not found.here or not found.elsewhere or not found.tested:
        st.info(_nothing(found, what), icon=":material/text_fields:")
        return
    if few:
        st.warning(
            f"Little is routed here, so read these {what}s with care: one unusual input can put a {what} at the top.",
            icon=":material/warning:",
        )
    one, two = st.columns(2, gap="large")
    with one:
        _table(found.frame.head(SHOWN), f"Most typical of this expert's {stats.unit}", what)
    with two:
        _table(found.frame.iloc[::-1].head(SHOWN), f"Least typical of them, of {found.tested:,} tested", what)
    if not by_token and unread:
        st.caption(
            f":material/info: Words of whole texts, though {unread:,} of n = {len(data):,} are longer than {cut} "
            "tokens, where the router stops reading."
        )
    st.caption(
        f"Log-odds ratio with an informative Dirichlet prior (Monroe et al. 2008) worth {PRIOR_TERMS} {what}s at "
        f"their rates in all of the data; z is the ratio over its standard error, of {found.tested:,} {what}s with at "
        f"least {minimum} occurrences. It takes every occurrence for independent, which those within one input are "
        f"not: z ranks {what}s, and is no test. The largest of so many is large by chance, too. The CSV has the "
        "ratios, with such intervals, and the rates."
    )
    downloads(found.frame, "words", f"{file_name}-{what}s")


def _nothing(found: Characteristic, what: str) -> str:
    if not found.here:
        return f"No {what}s are in what is routed to this expert on these data, so it has none of its own."
    if not found.elsewhere:
        return f"No {what}s are in what is routed elsewhere, so there are no others to compare with."
    return f"No {what} occurs often enough; lower the fewest occurrences."


def _table(frame: pd.DataFrame, title: str, what: str) -> None:
    st.markdown(title)
    order = [what, "z", "here", "inputs here", "elsewhere"]
    shown = frame.rename(columns={"term": what})
    number = st.column_config.NumberColumn
    st.dataframe(
        shown[[column for column in order if column in shown]],
        hide_index=True,
        width="stretch",
        height="content",
        # Widths in pixels: of the usual ones, the narrowest is too wide for five columns beside five others.
        column_config={
            what: st.column_config.TextColumn(width=90),
            "z": number(format="%+.1f", width=48, help="The log-odds ratio over its standard error"),
            "here": number(width=48, help="Occurrences in what is routed here"),
            "inputs here": number(
                "inputs", width=58, help="Inputs routed here in which it occurs, however often"
            ),
            "elsewhere": number(
                width=76, help="Occurrences in what is routed to the other experts of the layer"
            ),
        },
        alt=f"{title}, with log-odds and counts",
    )
