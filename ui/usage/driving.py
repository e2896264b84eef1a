"""What drives routing: mutual information of groups with each layer's expert, experts by group, and exchanged routes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.routes import ALL, DRAWS, MIXTURE, SAME, ShuffledRoutes
from shrp.analysis.specialisation import MOST_GROUPS, Grouping, cells_frame, specialisation_frame
from shrp.analysis.usage import UsageStats
from shrp.data.slices import ANSWER, CLASS, LENGTH, SLICE
from ui import state
from ui.bound import always_one
from ui.downloads import chart, downloads
from ui.text import (
    escape_html,
    is_percentage,
    metric_name,
    p_text,
    percent,
    plain,
    points,
    points_interval,
    score_text,
    signed,
    slice_name,
)
from ui.theme import BLUE, GREEN, GREY, HOVER, ORANGE, PURPLE, layout
from ui.usage import results
from ui.usage.figures import cells_height, interval_marks

BY, EXCHANGE = "driven_by", "exchange"
"""Keys of the picked grouping and of the switch for exchanged routes, in the session's state and in the URL."""
SURE = 0.05
MOST = 30
"""Experts that are listed at most."""
_ONE = 1 + 1e-6
"""Fewer effective experts than this are one."""
_KINDS = {
    CLASS: ("circle", BLUE),
    ANSWER: ("diamond", PURPLE),
    SLICE: ("square", GREEN),
    LENGTH: ("triangle-up", GREY),
}
_MEANT = {CLASS: "class", ANSWER: "the model's answer", SLICE: "slice", LENGTH: "length"}
_ROUTE_COLORS = {ALL: ORANGE, SAME: PURPLE, MIXTURE: GREEN}
_ROUTE_NAMES = {ALL: "all layers", SAME: "all, same answer", MIXTURE: "no routes"}


def section(selection: state.Selection, stats: UsageStats) -> str:
    """Draw the tab; `stats` are those of the selection's data. Returns the page's headline, empty where unknown."""
    found, said = results.groupings(selection.checkpoint, selection.data, stats), ""
    if found:
        said = _explained(selection, stats, found)
        _experts_by_group(selection, found)
    else:
        st.info("These data have no groups to compare: one class, one slice, one length.", icon=":material/category:")
    _exchanged(selection, stats)
    return said


def headline(frame: pd.DataFrame) -> str:
    """The grouping that explains most of the choice of expert, and where, as Markdown; `frame` as for `explained_marks`."""
    sure = frame[frame["q"] <= SURE]
    if sure.empty:
        return "The choice of expert goes together with none of these groups beyond chance."
    top = sure.loc[sure["explained"].idxmax()]
    return (
        f"Expert and **{_MEANT[top['by']]}** go together most: in layer {top['layer']} the {top['by']} explains "
        f"**{percent(top['explained'])}** of the choice of expert (at most {percent(top['ceiling'], 0)} is possible with "
        f"{top['groups']:.0f} groups)."
    )


def _explained(selection: state.Selection, stats: UsageStats, found: list[Grouping]) -> str:
    """Draw how much of the choice of expert each grouping explains; returns the headline."""
    frame = specialisation_frame(found)
    said = headline(frame)
    if not frame["explained"].isna().all():
        fig = explained_marks(frame, f"{escape_html(stats.data)}, n = {stats.n:,}")
        alt = f"Mutual information of groups and routes, layer by layer. {plain(said)}"
        chart(fig, frame, "drives-routing", f"{selection.name}-drives-routing", alt)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(
            "Mutual information between group and expert beyond chance, as a share of the experts' entropy. 0%: as in "
            "permuted groups; 100%: the group determines the expert. Few groups can't separate many experts, so the "
            "maximum may be below 100%. Filled: q ≤ 5%, corrected for all layers and groupings. “At similar length”: "
            f"groups are permuted among examples of similar length. Groupings of more than {MOST_GROUPS} groups are "
            "left out. Both examples of a minimal pair are permuted together. An association between expert and answer "
            "does not show which causes the other."
        )
    return said


def explained_marks(frame: pd.DataFrame, about: str) -> go.Figure:
    """A row for each layer, a mark for each grouping, filled where it is significant. `frame`: of `specialisation_frame`."""
    fig = go.Figure()
    for by, rows in frame.groupby("by", sort=False):
        symbol, color = _KINDS[by]
        marker = {"size": 11, "color": color, "line": {"color": color, "width": 1.5}}
        symbols = [symbol if q <= SURE else f"{symbol}-open" for q in rows["q"]]
        fig.add_scatter(
            x=100 * rows["explained"],
            y=rows["layer"].astype(str),
            mode="markers",
            legendgroup=by,
            showlegend=False,
            marker=marker | {"symbol": symbols},
            hovertext=[_hover(row) for row in rows.itertuples()],
            **HOVER,
        )
        # The legend would show the mark of the first layer, hollow or not.
        marker["symbol"] = symbol
        fig.add_scatter(x=[None], y=[None], mode="markers", name=by, legendgroup=by, marker=marker)
    fig.add_vline(x=0, line={"dash": "dot", "color": GREY, "width": 1.5})
    fig.update_xaxes(ticksuffix="%", zeroline=False)
    layers = [str(layer) for layer in dict.fromkeys(frame["layer"])]
    fig.update_yaxes(type="category", categoryorder="array", categoryarray=layers[::-1])
    return layout(
        fig,
        "Mutual information of group and expert",
        subtitle=f"0%: chance; filled: q ≤ 5%; {about}",
        x="share of the choice explained",
        y="layer",
        height=cells_height(len(layers)) + 60,
        legend=True,
    )


def _hover(row) -> str:
    text = f"<b>Layer {row.layer}, by {row.by}</b> ({row.groups} groups)<br>"
    if np.isnan(row.explained):
        return text + ("one expert for all examples" if row.effective_experts < _ONE else "groups too small")
    text += f"{percent(row.explained)} explained beyond chance, q = {row.q:.2g}"
    text += f"<br>possible maximum: {percent(row.ceiling)}"
    if not np.isnan(row.beyond_length):
        text += f"<br>at similar length: {percent(row.beyond_length)}, q = {row.q_beyond:.2g}"
    return f"{text}<br>{row.effective_experts:.1f} effective experts"


def _experts_by_group(selection: state.Selection, found: list[Grouping]) -> None:
    """Draw which experts, in all layers, a group takes more or less often than all examples do."""
    names = [one.by for one in found]
    start = SLICE if SLICE in names else names[0]
    one = found[names.index(always_one("Experts by", names, BY, start))]
    frame = cells_frame(one)
    sure = frame[frame["p"] <= SURE]
    st.markdown(
        f"**{len(sure):,} of {len(frame):,}** tested pairs of {one.by} and expert differ significantly from all examples "
        "(permutation test, corrected for all pairs)." + " Pick a row to open the expert." * (not sure.empty)
    )
    if sure.empty:
        return
    shown = sure.iloc[np.argsort(-sure["difference"].abs(), kind="stable")[:MOST]].reset_index(drop=True)
    key = f"unlike-{one.by}-{selection.checkpoint.fingerprint}-{selection.data.fingerprint}"
    table = pd.DataFrame(
        {
            "layer": r.layer,
            "expert": r.expert,
            one.by: slice_name(str(r.group)),
            "share": percent(r.share),
            "count": f"{r.count_:,} of {r.n:,}",
            "share of all": percent(r.of_all),
            "difference, points": signed(100 * r.difference, 1),
            "p": p_text(r.p).removeprefix("p ").removeprefix("= "),
        }
        for r in shown.rename(columns={"count": "count_"}).itertuples()
    )
    st.dataframe(
        table,
        key=key,
        on_select=lambda: _pick(key, shown),
        selection_mode="single-row",
        hide_index=True,
        height=38 + 35 * min(len(shown), 8),
        alt=f"Experts by {one.by} that are taken more or less often than by all examples",
    )
    downloads(frame, "unlike", f"{selection.name}-experts-by-{one.by}")


def _pick(key: str, shown: pd.DataFrame) -> None:
    """Put a picked row's expert into the boxes."""
    if rows := st.session_state[key].selection.rows:
        st.session_state[state.LAYER] = int(shown["layer"].iloc[rows[0]])
        st.session_state[state.EXPERT] = int(shown["expert"].iloc[rows[0]])


def _exchanged(selection: state.Selection, stats: UsageStats) -> None:
    """Draw the switch and, if it is on, the results; `stats` are those of the selection's data."""
    st.subheader("Exchanged routes: does the route matter?", anchor=False)
    if selection.data.task.on_tokens:
        st.info("This needs one prediction for a text.")
        return
    if not st.toggle(
        "Measure",
        key=EXCHANGE,
        bind="query-params",
        help="Gives each example the route of another one, drawn at random: in one layer, in all layers, and in all "
        "layers from an example with the same answer. Then one mixture of all experts, weighted by usage. Runs the data "
        f"once per layer, and {2 * DRAWS + 1} times more.",
    ):
        return
    found = results.shuffled(selection.checkpoint, selection.data, stats)
    st.markdown("\n".join(f"- {line}" for line in exchanged_said(found)))
    frame, before = found.frame, found.before
    labelled = before.labels is not None
    if labelled or not before.task.is_regression:
        metric = before.metric if labelled else None
        fig = change_marks(frame, metric, f"{escape_html(stats.data)}, n = {before.n:,}; whiskers: 95% CI")
        alt = "Change by layer: " + "; ".join(
            f"{r.layer} {points(r.change, metric) if metric else percent(r.share)}" for r in frame.itertuples()
        )
        chart(fig, frame, "exchanged", f"{selection.name}-exchanged-routes", alt)
    st.caption(
        "Numbered rows: routes exchanged in that layer only; the layers above route again. In brackets: choices that "
        f"move to another expert. “All” rows are means of {frame['draws'].max()} draws. Nothing is fine-tuned."
        + " Tokens of a batch exchange their routes, also within a text."
        * (stats.unit == "tokens")
    )


def exchanged_said(found: ShuffledRoutes) -> list[str]:
    """What is lost without routes, with wrong ones, and with others of the same answer, as Markdown."""
    rows = found.frame.set_index("layer")
    same = "in the same quartile" if found.before.task.is_regression else "with the same answer"
    return [
        f"**No routes** (mixture of all experts): {_changes(found, rows.loc[MIXTURE])}",
        f"**Routes of other examples**, in all layers: {_changes(found, rows.loc[ALL])}",
        f"**Routes of examples {same}**: {_changes(found, rows.loc[SAME])}",
    ]


def _changes(found: ShuffledRoutes, row: pd.Series) -> str:
    """What one row of the frame changes, in words."""
    before, parts = found.before, []
    if before.labels is not None:
        metric, low, high = before.metric, row["low"], row["high"]
        bounds = f", 95% CI {points_interval((low, high), metric)}" if low == low else ""
        same = ", no significant difference" if low <= 0 <= high else ""
        score = f"{metric_name(metric)} {score_text(row['score'], metric)}"
        parts.append(f"{score} ({points(row['change'], metric)}{bounds}{same})")
    if not before.task.is_regression:
        low, high = 100 * row["share_low"], 100 * row["share_high"]
        parts.append(
            f"{percent(row['share'])} of answers change (95% CI {low:.1f}–{high:.1f}%, n = {before.n:,})"
        )
    return f"{'; '.join(parts) or 'outputs change'}."


def change_marks(frame: pd.DataFrame, metric: str | None, subtitle: str) -> go.Figure:
    """A row for each layer, for all layers and for no routes: what changes, with its interval.

    `metric`: whose change is shown; None shows the share of answers that change.
    """
    names = [
        f"{_ROUTE_NAMES.get(r.layer, r.layer)}{'' if r.layer == MIXTURE else f' ({percent(r.moved, 0)})'}"
        for r in frame.itertuples()
    ]
    columns = ("change", "low", "high") if metric else ("share", "share_low", "share_high")
    times = 100 if metric is None or is_percentage(metric) else 1
    values, low, high = (times * frame[name] for name in columns)
    colors = [_ROUTE_COLORS.get(layer, BLUE) for layer in frame["layer"]]
    hover = [
        f"<b>{name}</b>"
        + (f"<br>{score_text(r.score, metric)}, {points(r.change, metric)}" if metric else "")
        + ("" if r.share != r.share else f"<br>{percent(r.share)} of answers change")
        for name, r in zip(names, frame.itertuples(), strict=True)
    ]
    fig = interval_marks(values, names, low, high, hover, color=colors)
    what = f"Change of {metric_name(metric)}" if metric else "Answers that change"
    unit = metric_name(metric) if metric and times == 1 else "points" if metric else "% of examples"
    height = cells_height(len(frame))
    return layout(fig, what, subtitle=subtitle, x=unit, y="layer (choices moved)", height=height, legend=False)
