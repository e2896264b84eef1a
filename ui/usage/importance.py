"""Importance: every expert, or every head of the dense layers, knocked out in turn on a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.importance import (
    FEWEST,
    KnockOuts,
    beyond_chance,
    count_tests,
    dense_layers,
    of_heads,
    worth_by_group,
)
from shrp.analysis.specialisation import MOST_GROUPS
from shrp.data.slices import CLASS, LENGTH, SLICE, input_groups
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from shrp.phrases import counted
from ui import measurements, state
from ui.bound import always_one, fall_back
from ui.downloads import chart
from ui.store import once
from ui.text import (
    axis_names,
    capital,
    escape,
    escape_html,
    metric_name,
    percent,
    plain,
    points,
    points_interval,
    signed,
    slice_name,
    worth_meaning,
    worth_name,
)
from ui.theme import HOVER, layout, signed_cells
from ui.usage import results

EXPERT, HEAD = "expert", "head"
"""What is knocked out."""
KIND, ON, BY = "knock_out", "on_data", "matters_by"
INPUTS = {EXPERT: "data_inputs", HEAD: "data_inputs_heads"}
"""Keys of the widgets, in the session's state and in the URL."""
KINDS = ("experts", "heads of dense layers")
_SIZES = (32, 64, 128, 256, 512)
_START = {EXPERT: 128, HEAD: 64}
"""Examples at first; heads cost more, as every example uses all of them."""
_NAMED = 5
_MOST_COLUMNS = 14
"""Experts in a map, so that its numbers are legible at 1200 pixels; the CSV has all."""


def section(selection: state.Selection) -> str:
    """Draw the tab, of a model without routers and dense layers nothing; returns the page's headline, empty where unknown."""
    dense, data, checkpoint = dense_layers(selection.checkpoint.model), selection.data, selection.checkpoint
    if not (selection.is_routed or dense) or data is None:
        return ""
    if data.task.on_tokens:
        st.info("This needs one prediction for a text. The knock-out of one expert on all examples is in its profile.")
        return ""
    of = EXPERT if selection.is_routed else HEAD
    if selection.is_routed and dense:
        of = HEAD if always_one("Knock out", KINDS, KIND) == KINDS[1] else EXPERT
    # Experts run on opening the tab; heads, which take much longer, when asked for.
    n = _pick_number(len(data), INPUTS[of], _START[of])
    asked = f"Measure on {escape(data.name)}: takes minutes, turn off to stop"
    if of == HEAD and not st.toggle(asked, key=ON, bind="query-params"):
        return ""
    meaning = (
        "its output is set to 0" if of == HEAD else "the router picks the next; layers above route again"
    )
    found = results.knocked_out_in_turn(checkpoint, data, n, of)
    key = checkpoint.fingerprint, data.fingerprint, n, of, data.pairs
    table = once("expert effects", 64, key, "Intervals", lambda progress: found.table(data, None))
    where = escape_html(f"n = {found.n:,} of {len(data):,} examples of {data.name}")
    name = f"{selection.name}-{of}s-{found.n}"
    what, blank = _output(found), "; blank: used by none of these" * (of == EXPERT)
    logit = "<br>logit: a class's output before the softmax" * (not found.task.is_regression)
    fig = effect_map(table, what, f"{where}<br>{meaning}{blank}{logit}", of, found.task.metric)
    alt = f"Heatmap, layers by {of}s: mean effect of each {of} on {what}."
    chart(fig, table if of == EXPERT else of_heads(table), "effect-map", f"{name}-effects", alt)
    _by_group(selection, found, key, where, name, of)
    return _headline(table, found, of)


def _pick_number(total: int, key: str, start: int) -> int:
    """How many examples to measure on: sizes that blocks fit in, or all."""
    sizes = [size for size in _SIZES if size < total] + [total]
    start = start if start in sizes else total
    if len(sizes) == 1:  # a slider needs two ends
        st.markdown(f"On all {counted(total, 'example')}")
        return total
    fall_back(key, sizes, start, "the number of examples")
    n = st.select_slider("Examples", sizes, value=start, key=key, bind="query-params")
    return n if n in sizes else start


def _output(found: KnockOuts) -> str:
    return "the output" if found.task.is_regression else "the logit of the predicted class"


def _headline(table: pd.DataFrame, found: KnockOuts, of: str) -> str:
    """What costs most to remove, of the output and, with labels, of the score, as Markdown."""
    top, metric = table.loc[table["signed"].where(table["uses"] > 0).idxmax()], found.task.metric
    same = ", no significant difference" * bool(top["signed_low"] <= 0 <= top["signed_high"])
    size = signed(top["signed"], 2).removeprefix("+")
    said = (
        f"Removing **layer {top['layer']:.0f}, {of} {top['expert']:.0f}** costs most: {_output(found)} "
        f"falls by **{size}** (95% CI {signed(top['signed_low'], 2)} to {signed(top['signed_high'], 2)}{same})"
    )
    if top["score_lost"] == top["score_lost"]:
        low, high = top["score_lost_low"], top["score_lost_high"]
        same = ", no significant difference" * bool(low <= 0 <= high)
        ends = f" ({points_interval((low, high), metric)}{same})" * bool(low == low)
        said += f", {metric_name(metric)} by {points(top['score_lost'], metric).removeprefix('+')}{ends}"
    return f"{said}; n = {found.n:,}."


def _by_group(
    selection: state.Selection, found: KnockOuts, key: tuple, where: str, name: str, of: str
) -> None:
    """What each expert or head is worth to each group, on labelled data."""
    st.subheader(f"Which {of}s matter for which examples?", anchor="where")
    data = selection.data
    if data.labels is None:
        st.caption("Needs labelled data.")
        return
    lengths = measurements.read_lengths(selection.checkpoint, data)
    known = input_groups(data, lengths=lengths, by=(CLASS, SLICE, LENGTH))
    present = {by: sum(mask[found.rows].any() for mask in groups.values()) for by, groups in known.items()}
    known = {by: groups for by, groups in known.items() if 1 < present[by] <= MOST_GROUPS}
    if not known:
        st.caption(f"Needs 2 to {MOST_GROUPS} classes, slices or lengths.")
        return
    by = always_one("By", list(known), BY, SLICE if SLICE in known else None)
    work = partial(worth_by_group, found, data, known[by])
    frame = once("worth by group", 16, (key, by), "Permuting groups", lambda p: work(progress=p))
    worth, sure = worth_name(data.task), beyond_chance(frame)
    said = by_group_said(sure, frame, worth, of)
    said += f" Measured on {found.n:,} of {len(data):,} examples; all of them may give another result." * (found.n < len(data))
    st.markdown(said)
    drawn, used = where_columns(frame, sure)
    part = "" if len(drawn) == used else f"; {len(drawn)} of {used} {of}s, significant ones first"
    title = f"Mean {worth} lost, by {by}"
    chart(
        where_map(frame, drawn, title, f"{where}; bold: q ≤ {FALSE_DISCOVERIES:g}; blank: not used{part}", of),
        frame if of == EXPERT else of_heads(frame),
        "where-map",
        f"{name}-by-{by}",
        f"Heatmap, groups of examples by {of}s: mean {worth} lost without the {of}. {plain(said)}",
    )
    st.caption(
        f"{capital(worth)}: {worth_meaning(data.task)}. Permutation test (Welch's t) against all "
        "other examples, corrected for all cells. A minimal pair is permuted as one."
    )


def by_group_said(sure: pd.DataFrame, frame: pd.DataFrame, worth: str, of: str) -> str:
    """What is significant, in Markdown.

    Args:
        sure: of `beyond_chance`.
        frame: of `worth_by_group`.
    """
    tested = count_tests(frame)
    if not tested:
        return f"Too few examples to test (fewer than {FEWEST} use any {of})."
    what = f"{of}s" if frame["group"].nunique() == 2 else f"pairs of {of} and group"
    if sure.empty:
        return f"**0 of {tested:,}** {what} differ significantly."
    named = "; ".join(
        f"layer {r.layer} {of} {r.expert} for **{escape(slice_name(r.group))}** ({signed(r.lost, 2)}, "
        f"{signed(r.elsewhere, 2)} elsewhere)"
        for r in sure.head(_NAMED).itertuples()
    )
    more = f"; {len(sure) - _NAMED:,} more" if len(sure) > _NAMED else ""
    return f"**{len(sure):,} of {tested:,}** {what} differ significantly in the {worth} lost: {named}{more}."


def effect_map(
    table: pd.DataFrame, what: str, subtitle: str, of: str, metric: str
) -> go.Figure:
    """Layers x experts: the mean signed effect on the output; experts that are never used stay blank.

    `table`: of `KnockOuts.table`; `metric`: of its lost score.
    """
    grid = table.set_index(["layer", "expert"]).sort_index()
    shown = grid["signed"].where(grid["uses"] > 0).unstack()
    z = shown.to_numpy()
    limit = float(np.nanmax(np.abs(z), initial=0.0)) or 1.0
    digits = max(2, 1 - math.floor(math.log10(limit)))  # small effects need more of them to differ
    hover = grid.apply(_effect_hover, axis=1, of=of, metric=metric).unstack()
    cells = signed_cells(
        z,
        shown.columns,
        [f"layer {layer}" for layer in shown.index],
        limit,
        bar="mean effect",
        hovertext=hover.to_numpy(),
        text=[["" if np.isnan(v) else signed(v, digits) for v in row] for row in z],
        texttemplate="%{text}" if z.shape[1] <= 16 else None,
        **HOVER,
    )
    fig = go.Figure(cells).update_xaxes(tickvals=list(shown.columns), tickangle=0)
    fig.update_yaxes(autorange="reversed")
    height, axis = 165 + max(4, len(z)) * 26, f"{of} (positive: removing it costs something)"
    return layout(fig, f"Mean effect on {what}", subtitle=subtitle, x=axis, height=height)


def _effect_hover(row: pd.Series, *, of: str, metric: str) -> str:
    """What a cell of `effect_map` says under the mouse."""
    layer, expert = row.name
    low, high = signed(row["signed_low"], 4), signed(row["signed_high"], 4)
    lines = [f"<b>layer {layer}, {of} {expert}</b>", f"mean effect {signed(row['signed'], 4)} (95% CI {low} to {high})"]
    lines.append(f"mean size {row['effect']:.4f}")
    if of == EXPERT:
        lines.append(f"used by {row['uses']:,.0f} examples, usage {percent(row['usage'])}")
    if row["score_lost"] == row["score_lost"]:
        ends = points_interval((row["score_lost_low"], row["score_lost_high"]), metric)
        lines.append(f"{points(row['score_lost'], metric)} of {metric_name(metric)} lost (95% CI {ends})")
    return "<br>".join(lines)


def where_columns(frame: pd.DataFrame, sure: pd.DataFrame) -> tuple[list[tuple[int, int]], int]:
    """The experts of a map, significant ones and then those that differ most between groups; and how many are used.

    `frame`: of `shrp.analysis.importance.worth_by_group`; `sure`: of `beyond_chance`.
    """
    groups = frame.groupby(["layer", "expert"])
    used = groups["uses"].sum().loc[lambda uses: uses > 0].index
    spread = groups["lost"].agg(np.ptp)[used].sort_values(ascending=False, kind="stable")
    most = dict.fromkeys([*zip(sure["layer"], sure["expert"], strict=True), *spread.index])
    return sorted([*most][:_MOST_COLUMNS]), len(used)


def where_map(
    frame: pd.DataFrame, experts: Sequence[tuple[int, int]], title: str, subtitle: str, of: str
) -> go.Figure:
    """Groups x experts: what a group loses without the expert, bold where it differs significantly.

    `frame`: of `shrp.analysis.importance.worth_by_group`; `experts`: layer and number of those to show.
    """
    counts = frame.drop_duplicates("group").set_index("group")["n"]
    groups, shape = list(counts.index), (len(counts), len(experts))
    at = pd.MultiIndex.from_tuples([(group, *expert) for group in groups for expert in experts])
    shown = frame.set_index(["group", "layer", "expert"]).loc[at]
    limit = float(shown["lost"].abs().max()) or 1.0
    digits = max(1, 1 - math.floor(math.log10(limit)))
    written = [signed(r.lost, digits) if r.uses else "" for r in shown.itertuples()]
    bold = shown["q"] <= FALSE_DISCOVERIES
    text = [f"<b>{one}</b>" if sure else one for one, sure in zip(written, bold, strict=True)]
    hover = [
        f"<b>{escape_html(slice_name(group))}</b>, n = {r.n:,}<br>layer {layer}, {of} {expert}<br>"
        f"lost without it: {signed(r.lost, 4)}"
        + ("" if r.elsewhere != r.elsewhere else f", elsewhere {signed(r.elsewhere, 4)}")
        + f"<br>used by {r.uses:,} of these examples" * (of == EXPERT)
        + ("" if r.q != r.q else f"<br>q = {r.q:.3f}")
        for (group, layer, expert), r in zip(at, shown.itertuples(), strict=True)
    ]
    names = zip(axis_names(map(slice_name, groups)), counts, strict=True)
    cells = signed_cells(
        shown["lost"].where(shown["uses"] > 0).to_numpy().reshape(shape),
        [f"{layer}·{expert}" for layer, expert in experts],
        [f"{name} ({n:,})" for name, n in names],
        limit,
        bar="lost",
        text=np.array(text, dtype=object).reshape(shape),
        texttemplate="%{text}",
        hovertext=np.array(hover, dtype=object).reshape(shape),
        **HOVER,
    )
    fig = go.Figure(cells).update_xaxes(type="category", tickangle=0, tickfont={"size": 10})
    fig.update_yaxes(type="category", autorange="reversed")
    height = 200 + max(4, len(groups)) * 26
    return layout(fig, title, subtitle=subtitle, x=f"layer · {of} (positive: it helps)", height=height)
