"""The details of one expert: how much it is used, for which classes and slices, and for which inputs most."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from shrp.data import TextData
from shrp.errors import DataError
from shrp.metrics import wilson
from shrp.usage import UsageStats
from ui import usage_figures
from ui.downloads import chart, downloads
from ui.text import escape, interval_text, percent

SHOWN = 12


def input_frame(stats: UsageStats, data: TextData, layer: int, expert: int) -> pd.DataFrame:
    """Every input with its router probability for the expert, highest first.

    Columns index, the text columns, (label, slice), `router probability`, and `chosen` (whether the expert is its
    Top-1) or, under token routing, `tokens` (how many of its tokens chose the expert).
    """
    frame = data.to_frame()
    frame.insert(0, "index", np.arange(len(data)))
    frame["router probability"] = stats.probs[layer][:, expert].astype(float)
    mine = stats.top1[layer][:, expert]
    frame["tokens" if stats.unit == "tokens" else "chosen"] = mine if stats.unit == "tokens" else mine > 0
    return frame.sort_values("router probability", ascending=False, kind="stable", ignore_index=True)


def expert_details(stats: UsageStats, data: TextData, layer: int, expert: int, *, file_name: str) -> None:
    """Draw the details of one expert on the data that `stats` were measured on."""
    counts = stats.counts(layer)
    total, mine = int(counts.sum()), int(counts[expert])
    st.subheader(f"Layer {layer}, expert {expert}", anchor="expert")
    _numbers(stats, layer, expert, mine, total)
    if not mine:
        st.info(
            "On these data nothing is routed to this expert. Below are the inputs that come closest; pick a brighter "
            "cell to see an expert at work.",
            icon=":material/bedtime:",
        )
    else:
        _mixes(stats, layer, expert, mine, file_name)
    frame = input_frame(stats, data, layer, expert)
    st.markdown(f"**Inputs with the highest router probability for this expert**, {SHOWN} of {len(frame):,}")
    st.dataframe(
        frame.head(SHOWN),
        hide_index=True,
        width="stretch",
        height="content",
        column_config={
            "index": st.column_config.NumberColumn("no.", width="small", help=f"Row of {escape(data.name)}"),
            **{name: st.column_config.TextColumn(width="large") for name in data.task.text_columns},
            "router probability": st.column_config.ProgressColumn(format="%.3f", min_value=0, max_value=1),
            "chosen": st.column_config.CheckboxColumn(help="Whether this expert is the input's Top-1"),
            "tokens": st.column_config.NumberColumn(help="How many of its tokens chose this expert"),
        },
    )
    downloads(frame, "top-inputs", f"{file_name}-inputs")


def _numbers(stats: UsageStats, layer: int, expert: int, mine: int, total: int) -> None:
    counts = stats.counts(layer)
    rank = 1 + int((counts > counts[expert]).sum())
    one, two, three = st.columns(3, border=True)
    with one:
        st.metric("Top-1 share", percent(stats.share(layer)[expert]))
        if stats.unit == "inputs":
            bounds = interval_text(wilson(mine, total), "accuracy")
            st.caption(f"{mine:,} of n = {total:,} inputs of {escape(stats.data)}; 95% interval {bounds}")
        else:
            # Tokens of one input are not independent, so an interval from their number would be too narrow.
            inputs = int((stats.top1[layer][:, expert] > 0).sum())
            st.caption(
                f"{mine:,} of n = {total:,} real tokens of {escape(stats.data)}, in {inputs:,} of "
                f"{stats.n:,} inputs"
            )
    with two:
        st.metric("Mean router probability", percent(stats.mean_probs(layer)[expert]))
        st.caption(f"over all n = {stats.n:,} inputs, chosen or not; even: {percent(1 / stats.num_experts)}")
    with three:
        st.metric("Place in its layer", f"{rank} of {stats.num_experts}")
        st.caption(
            f"by Top-1 share; the layer uses {stats.effective_experts(layer):.1f} effective experts, its mean "
            f"router margin is {float(stats.margins[layer].mean()):.2f}"
        )


def _mixes(stats: UsageStats, layer: int, expert: int, mine: int, file_name: str) -> None:
    everything = stats.top1[layer].sum(1)
    columns = st.columns(2, gap="large")
    for by, column in zip(("class", "slice"), columns):
        try:
            groups = stats.groups(by)
        except DataError as error:
            column.caption(escape(str(error)))
            continue
        frame = usage_figures.mix_frame(stats.top1[layer][:, expert], everything, groups)
        with column:
            chart(
                usage_figures.mix_bars(frame, what=by, unit=stats.unit, total=mine),
                frame,
                key=f"mix-{by}",
                name=f"{file_name}-{by}",
                alt=f"Share of this expert's {stats.unit} by {by}, base rate in brackets: "
                + "; ".join(f"{r.group} {percent(r.here)} ({percent(r.base)})" for r in frame.itertuples()),
            )
