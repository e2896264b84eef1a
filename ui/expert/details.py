"""The profile of one expert: how much it is used, for what, what it attends to, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.slices import ANSWER, CLASS, LENGTH, SLICE
from shrp.data.text_data import TextData, pairs_of, units_of
from shrp.errors import ShrpError
from shrp.evaluation.statistics import FALSE_DISCOVERIES, MIX_PERMUTATIONS, differing, of_mean, share_interval
from shrp.model.convert import router_layers
from ui import measurements
from ui.downloads import chart
from ui.expert.attention import attention
from ui.expert.inputs import forget_example, input_frame, inputs
from ui.expert.knockout import knocked_out
from ui.expert.results import mix
from ui.expert.roles import roles
from ui.expert.words import words
from ui.state import show_error
from ui.text import escape, interval_text, percent
from ui.usage import figures as usage_figures

INPUTS, WORDS, ATTENTION, ROLES, KNOCKED_OUT = "inputs", "words", "attention", "roles", "knocked out"
_DRAWN = (CLASS, SLICE, ANSWER, LENGTH)
"""By what an expert's inputs are drawn: the first two of these that there are."""
_MANY = {CLASS: "classes", SLICE: "slices", ANSWER: "answers", LENGTH: "lengths"}
PARTS = "parts"
"""Key of the parts that are shown, in the session's state and in the URL."""


def expert_details(
    checkpoint: Checkpoint,
    stats: UsageStats,
    data: TextData,
    layer: int,
    expert: int,
    *,
    file_name: str,
    of: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Draw the profile of one expert on the data that `stats` were measured on.

    Args:
        of: groups of inputs, name -> mask `(N,)`, whose shares are told beside that of all.
    """
    mine = int(stats.counts(layer)[expert])
    st.header(f"Layer {layer}, expert {expert}", anchor="expert")
    k = router_layers(checkpoint.model)[layer].top_k
    _numbers(stats, data, layer, expert, of, k)
    if k > 1:
        st.caption(
            f"Every {'token' if stats.unit == 'tokens' else 'input'} takes {k} experts here; “routed to” means its "
            "first choice, and an expert computes for others too (the knock-out below counts all that it computes for)."
        )
    if not mine:
        st.info(
            "On these data nothing is routed to this expert. Below are the inputs that come closest; pick a brighter "
            "cell to see an expert at work.",
            icon=":material/bedtime:",
        )
    else:
        _mixes(checkpoint, stats, data, layer, expert, mine, file_name)
    parts = st.pills(
        "Look closer at its",
        [INPUTS, WORDS, ATTENTION, ROLES, KNOCKED_OUT],
        selection_mode="multi",
        default=[INPUTS, WORDS, ATTENTION],
        key=PARTS,
        bind="query-params",
        help="What is not shown is not computed. A knock-out runs the examples that use the expert again; roles take one "
        "pass over a sample of the data.",
    )
    forget_example(data)
    frame = input_frame(stats, data, layer, expert)
    draw = {
        INPUTS: lambda: inputs(frame, stats, data, f"{layer}-{expert}", file_name, ATTENTION in parts),
        WORDS: lambda: words(checkpoint, stats, data, layer, expert, file_name),
        ATTENTION: lambda: attention(checkpoint, data, layer, expert, int(frame["index"].iloc[0]), file_name),
        ROLES: lambda: roles(checkpoint, stats, data, layer, expert, file_name),
        KNOCKED_OUT: lambda: knocked_out(checkpoint, stats, data, layer, expert, file_name),
    }
    for part, show in draw.items():
        if part not in parts:
            continue
        with st.container(border=True):
            try:
                show()
            except ShrpError as error:
                show_error(error)


def _numbers(
    stats: UsageStats, data: TextData, layer: int, expert: int, of: Mapping[str, np.ndarray], top_k: int
) -> None:
    counts, pairs = stats.counts(layer), pairs_of(data)
    mine, total = int(counts[expert]), int(counts.sum())
    rank = 1 + int((counts > counts[expert]).sum())
    one, two, three = st.columns(3, border=True)
    with one:
        st.metric("Top-1 share", percent(stats.share(layer)[expert]))
        took, of_all, units = stats.top1[layer][:, expert], stats.top1[layer].sum(1), units_of(stats.n, pairs)
        by_token = stats.unit == "tokens"
        where = f", in {int((took > 0).sum()):,} of {stats.n:,} inputs" if by_token else ""
        what = "real tokens" if by_token else "inputs"
        bounds = interval_text(share_interval(took, units, of_all), "accuracy")
        st.caption(f"{mine:,} of n = {total:,} {what} of {escape(stats.data)}{where}; 95% interval {bounds}")
        for name, rows in of.items():
            here, among = int(took[rows].sum()), int(of_all[rows].sum())
            bounds = interval_text(share_interval(took[rows], units[rows], of_all[rows]), "accuracy")
            said = f"**{percent(here / among)}**, {here:,}" if among else "**none**, 0"
            end = f"; 95% interval {bounds}" if among else ""
            st.caption(f"{escape(name)}: {said} of n = {among:,} {what}{end}")
        drawn = ["The tokens of an input"] if by_token else []
        if len(pairs):
            drawn.append("both inputs of a minimal pair" if by_token else "Both inputs of a minimal pair")
        if drawn:
            st.caption(
                f"For the intervals: {' and '.join(drawn)} are drawn as one, for they route much alike."
            )
    with two:
        st.metric("Mean router probability", percent(stats.mean_probs(layer)[expert]))
        ends = of_mean(stats.probs[layer][:, expert].astype(np.float64), units_of(stats.n, pairs))
        bounds = f"95% interval {interval_text(ends, 'accuracy')}; " if np.isfinite(ends[0]) else ""
        st.caption(
            f"over all n = {stats.n:,} inputs, chosen or not; {bounds}even: {percent(1 / stats.num_experts)}"
        )
    with three:
        unused = "never used" if top_k == 1 else "never first"
        st.metric("Place in its layer", f"{rank} of {stats.num_experts}" if mine else unused)
        st.caption(
            f"by Top-1 share; the layer uses {stats.effective_experts(layer):.1f} effective experts, its mean "
            f"router margin (the last probability that is taken less the first that is not) is "
            f"{float(stats.margins[layer].mean()):.2f}"
        )


def _mixes(
    checkpoint: Checkpoint,
    stats: UsageStats,
    data: TextData,
    layer: int,
    expert: int,
    mine: int,
    file_name: str,
) -> None:
    by_token, paired = stats.unit == "tokens", len(pairs_of(data)) > 0
    known = measurements.groups(checkpoint, data, stats)
    drawn = [by for by in _DRAWN if by in known][:2]
    for by, column in zip(drawn, st.columns(len(drawn), gap="large")):
        with column:
            frame = mix(checkpoint, data, stats, layer, expert, by)
            chart(
                usage_figures.mix_bars(frame, what=by, unit=stats.unit, total=mine),
                frame,
                key=f"mix-{by}",
                name=f"{file_name}-{by}",
                alt=f"Share of this expert's {stats.unit} by {by}, base rate in brackets: "
                + "; ".join(f"{r.group} {percent(r.here)} ({percent(r.base)})" for r in frame.itertuples()),
            )
            st.caption(_differing(frame, by, by_token, paired))


def _differing(frame: pd.DataFrame, by: str, by_token: bool, paired: bool) -> str:
    """Which groups an expert takes more or less often than the others do, in words."""
    if frame["q"].isna().all():
        return "One expert takes all inputs, so there is none to compare it with, and no test."
    lifts = dict(zip(frame["group"], frame["lift"], strict=True))
    parts = [
        f"{word} often than the other experts: "
        + ", ".join(f"**{escape(group)}** ({lifts[group]:.2f} times its base rate)" for group in groups)
        for word, groups in zip(("More", "Less"), differing(frame), strict=True)
        if groups
    ]
    many = _MANY[by]
    found = (
        ". ".join(parts) or f"No difference from the other experts beyond chance could be shown in its {many}"
    )
    how = f"Fisher's exact test of each of {len(frame)} {many}"
    if by_token or paired:
        moved = ["the tokens of an input"] * by_token + ["both inputs of a minimal pair"] * paired
        how = (
            f"Permutation test of {len(frame)} {many}, {MIX_PERMUTATIONS:,} shuffles; {' and '.join(moved)} move together, as "
            "they route much alike"
        )
    return (
        f"{found}. {how}; {percent(FALSE_DISCOVERIES, 0)} of those named may be chance in this chart, and more over "
        "many experts."
    )
