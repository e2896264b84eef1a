"""What drives routing: mutual information of groups with each layer's expert, and which experts differ by group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.specialisation import MOST_GROUPS, Grouping, cells_frame, specialisation_frame
from shrp.analysis.usage import UsageStats
from shrp.data.slices import ANSWER, CLASS, LENGTH, SLICE
from ui import state
from ui.downloads import chart, downloads
from ui.pickers import always_one
from ui.text import capital, escape_html, p_text, percent, plain, slice_name
from ui.theme import BLUE, GREEN, GREY, PURPLE, layout
from ui.usage import exchanged, results
from ui.usage.figures import HOVER, cells_height

BY = "driven_by"
"""Key of the picked grouping, in the session's state and in the URL."""
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


def section(selection: state.Selection, stats: UsageStats) -> None:
    """Draw the tab; `stats` are those of the selection's data."""
    if found := results.groupings(selection.checkpoint, selection.data, stats):
        _explained(selection, stats, found)
        _experts_by_group(selection, found)
    else:
        nothing = "These data have no groups to compare: one class, one slice, one length."
        st.info(nothing, icon=":material/category:")
    exchanged.section(selection, stats)


def _explained(selection: state.Selection, stats: UsageStats, found: list[Grouping]) -> None:
    frame = specialisation_frame(found)
    lines = said(frame)
    st.markdown("\n".join(f"- {line}" for line in lines))
    if not frame["explained"].isna().all():
        fig = explained_marks(frame, f"{escape_html(stats.data)}, n = {stats.n:,}")
        alt = "Mutual information of groups and routes, layer by layer. " + " ".join(map(plain, lines))
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


def explained_marks(frame: pd.DataFrame, about: str) -> go.Figure:
    """A row for each layer, a mark for each grouping, filled where it is significant.

    Args:
        frame: of `specialisation_frame`.
        about: data and n, safe as HTML.
    """
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


def said(frame: pd.DataFrame) -> list[str]:
    """A line of Markdown for each grouping: in how many layers it is significant, and where it explains most."""
    lines = []
    for by, rows in frame.groupby("by", sort=False):
        known = rows[rows["explained"].notna()]
        of = f"**{capital(_MEANT[by])}** ({rows['groups'].iloc[0]} groups)"
        if known.empty:
            same = (rows["effective_experts"] < _ONE).all()
            lines.append(f"{of}: no result, {'each layer uses one expert' if same else 'groups too small'}.")
            continue
        layers, equal = (known[known[q] <= SURE] for q in ("q", "q_beyond"))
        text = f"{of}: significant in {len(layers)} of {len(known)} layers"
        if known["beyond_length"].notna().any():
            text += f", at similar length in {len(equal)}"
        if len(layers):
            top = layers.loc[layers["explained"].idxmax()]
            text += (
                f"; most in layer {top['layer']}, {percent(top['explained'])} of the choice (at most "
                f"{percent(top['ceiling'], 0)} possible)"
            )
        lines.append(f"{text}.")
    return lines


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
            "difference, points": f"{100 * r.difference:+.1f}",
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
