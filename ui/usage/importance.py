"""Importance: every expert, or every head of the dense layers, knocked out in turn on a data set."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.importance import (
    FEWEST,
    MEANINGS,
    KnockOuts,
    beyond_chance,
    correlations,
    count_tests,
    dense_layers,
    of_heads,
    worth_by_group,
)
from shrp.analysis.specialisation import MOST_GROUPS
from shrp.data.slices import CLASS, LENGTH, SLICE, input_groups
from shrp.errors import ShrpError
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from shrp.phrases import counted
from ui import measurements, state
from ui.bound import fall_back
from ui.downloads import chart, downloads
from ui.pickers import always_one
from ui.store import once
from ui.text import (
    escape,
    escape_html,
    is_percentage,
    metric_name,
    plain,
    signed,
    slice_name,
    worth_meaning,
    worth_name,
)
from ui.usage import importance_figures as figures
from ui.usage import results
from ui.usage.importance_figures import EXPERT, HEAD

KIND, ON, MEANING, MEASURE, BY = "knock_out", "on_data", "knocked_out", "rank_by", "matters_by"
INPUTS = {EXPERT: "data_inputs", HEAD: "data_inputs_heads"}
"""Keys of the widgets, in the session's state and in the URL."""
KINDS = ("experts", "heads of dense layers")
MEASURES = {
    "effect": "effect, all examples",
    "effect_per_use": "effect where used",
    "score_lost": "score lost",
}
"""What usage is ranked against: column of `KnockOuts.table` -> label."""
_SIZES = (32, 64, 128, 256, 512)
_START = {EXPERT: 128, HEAD: 64}
"""Examples at first; heads cost more, as every example uses all of them."""
_NAMED = 5


def section(selection: state.Selection) -> None:
    """Draw the tab; of a model without routers and dense layers nothing."""
    dense, data = dense_layers(selection.checkpoint.model), selection.data
    if not (selection.is_routed or dense) or data is None:
        return
    of = EXPERT if selection.is_routed else HEAD
    if selection.is_routed and dense:
        of = HEAD if always_one("Knock out", KINDS, KIND) == KINDS[1] else EXPERT
    what = "Every expert is" if of == EXPERT else "Every head of the dense layers is"
    st.markdown(f"{what} knocked out in turn: what it does, and for which examples it matters.")
    # Experts run on opening the tab; heads, which take much longer, when asked for.
    if of == HEAD and not st.toggle(f"Measure on {escape(data.name)}", key=ON, bind="query-params"):
        return
    left, right = st.columns(2, gap="medium")
    with left:
        n = _pick_number(len(data), INPUTS[of], _START[of])
    meaning = "its output set to 0"
    if of == EXPERT:
        with right:
            meaning = always_one(
                "A knocked-out expert",
                MEANINGS,
                MEANING,
                help="**router picks the next**: the best other expert takes over, and the layers above route again. "
                "**zeroed**: its output is 0, and all other gates stay.",
            )
    try:
        if of == EXPERT:
            found = results.experts_knocked_out(selection.checkpoint, data, n, meaning)
        else:
            found = results.heads_knocked_out(selection.checkpoint, data, n)
        key = selection.checkpoint.fingerprint, data.fingerprint, n, of, meaning, data.pairs
        table = once("expert effects", 64, key, "Intervals", lambda progress: found.table(data, None))
    except ShrpError as error:
        state.show_error(error)
        return
    where = f"n = {found.n:,} of {len(data):,} examples of {data.name}"
    name = f"{selection.name}-{of}s-{found.n}"
    _effects(table, found, f"{escape_html(where)}; knocked out: {meaning}", name, of)
    _by_group(selection, found, key, escape_html(where), name, of)
    if of == EXPERT:
        _usage(table, found, f"{escape_html(where)}; knocked out: {meaning}", name)


def _pick_number(total: int, key: str, start: int) -> int:
    """How many examples to measure on: sizes that blocks fit in, or all."""
    sizes = [size for size in _SIZES if size < total] + [total]
    start = start if start in sizes else total
    if len(sizes) == 1:  # a slider needs two ends
        st.markdown(f"On all {counted(total, 'example')}")
        return total
    fall_back(key, sizes, start)
    n = st.select_slider("Examples", sizes, value=start, key=key, bind="query-params")
    return n if n in sizes else start


def _effects(table: pd.DataFrame, found: KnockOuts, where: str, name: str, of: str) -> None:
    """The verdict and the map of mean effects, with the numbers as a table."""
    what = "the output" if found.task.is_regression else "the logit of the predicted class"
    top = table.loc[table["signed"].abs().idxmax()]
    st.markdown(
        f"Largest mean effect on {what}: **layer {top['layer']:.0f}, {of} {top['expert']:.0f}**, {signed(top['signed'], 2)} "
        f"(95% CI {signed(top['signed_low'], 2)} to {signed(top['signed_high'], 2)}, n = {found.n:,})."
    )
    unused = "; blank: never used" * (of == EXPERT)
    chart(
        figures.effect_map(table, what, f"{where}{unused}", of),
        table if of == EXPERT else of_heads(table),
        "effect-map",
        f"{name}-effects",
        f"Heatmap, layers by {of}s: mean effect of each {of} on {what}.",
    )
    with st.expander(f"All {of}s as a table, with 95% CI", icon=":material/table:"):
        st.dataframe(
            _numbers(table, found, of),
            hide_index=True,
            height=420,
            alt=f"Effect of every {of} with its interval",
        )
        downloads(table if of == EXPERT else of_heads(table), "effect-table", f"{name}-{of}-effects")


def _numbers(table: pd.DataFrame, found: KnockOuts, of: str) -> pd.DataFrame:
    """The effects as numbers with their intervals; heads have no usage."""
    shown = {"layer": table["layer"], of: table["expert"]}
    if of == EXPERT:
        shown |= {"usage": table["usage"].map("{:.1%}".format), "used by": table["uses"]}
    shown |= {
        "mean effect": _with_interval(table, "signed"),
        "mean size": _with_interval(table, "effect"),
    }
    if of == EXPERT:
        shown["mean size where used"] = _with_interval(table, "effect_per_use")
    if table["score_lost"].notna().any():
        scale, digits, unit = (100, 2, ", points") if is_percentage(found.task.metric) else (1, 4, "")
        shown[f"{metric_name(found.task.metric)} lost{unit}"] = _with_interval(
            table, "score_lost", scale, digits
        )
    if "flips" in table:
        shown["changed predictions"] = table["flips"]
    return pd.DataFrame(shown)


def _with_interval(table: pd.DataFrame, column: str, scale: float = 1, digits: int = 3) -> list[str]:
    def words(value: float, low: float, high: float) -> str:
        if not math.isfinite(value):
            return "–"
        ends = f" ({low:+.{digits}f} to {high:+.{digits}f})" if math.isfinite(low) else ""
        return f"{value:+.{digits}f}{ends}"

    columns = (scale * table[name] for name in (column, f"{column}_low", f"{column}_high"))
    return [words(*row) for row in zip(*columns, strict=True)]


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
    frame = once(
        "worth by group",
        16,
        (key, by),
        "Permuting groups",
        lambda progress: worth_by_group(found, data, known[by], progress=progress),
    )
    worth, sure = worth_name(data.task), beyond_chance(frame)
    said = by_group_said(sure, frame, worth, of)
    st.markdown(said)
    drawn, used = figures.where_columns(frame, sure)
    part = "" if len(drawn) == used else f"; {len(drawn)} of {used} {of}s, significant ones first"
    chart(
        figures.where_map(
            frame,
            drawn,
            f"Mean {worth} lost without each {of}, by {by}",
            f"{where}; bold: q ≤ {FALSE_DISCOVERIES:g}{part}",
            of,
        ),
        frame if of == EXPERT else of_heads(frame),
        "where-map",
        f"{name}-by-{by}",
        f"Heatmap, groups of examples by {of}s: mean {worth} lost without the {of}. {plain(said)}",
    )
    st.caption(
        f"{worth[:1].upper()}{worth[1:]}: {worth_meaning(data.task)}. Positive: the {of} helps. Permutation test (Welch's "
        "t) against all other examples, corrected for all cells; a minimal pair moves as one."
    )


def by_group_said(sure: pd.DataFrame, frame: pd.DataFrame, worth: str, of: str = EXPERT) -> str:
    """What is significant, in Markdown.

    Args:
        sure: of `beyond_chance`.
        frame: of `worth_by_group`.
        worth: what is lost, in words.
        of: what was knocked out.
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


def _usage(table: pd.DataFrame, found: KnockOuts, where: str, name: str) -> None:
    """Usage against what knocking an expert out does, and what the rank correlations show."""
    st.subheader("Does usage rank experts by importance?", anchor="usage")
    label = always_one(
        "Rank usage against",
        list(MEASURES.values()),
        MEASURE,
        help="**effect, all examples**: mean size of the change, 0 for examples that do not use the expert, so partly "
        "usage by construction. **effect where used**: only over examples that use it. **score lost**: in the metric.",
    )
    measure = next(key for key, one in MEASURES.items() if one == label)
    if table[measure].isna().all():
        st.info("There is no score on these examples; rank usage against an effect instead.")
        return
    ranks = correlations(table, measure)
    unit = f" ({metric_name(found.task.metric)})" if measure == "score_lost" else ""
    st.markdown(ranks_said(ranks))
    chart(
        figures.usage_scatter(table, measure, escape_html(label + unit), where),
        table[["layer", "expert", "usage", "uses", measure]].merge(
            ranks.rename(columns={"n": "n experts"}), on="layer"
        ),
        "usage-scatter",
        f"{name}-usage-{measure}",
        f"Scatter of usage against {label}{unit}, {plain(ranks_said(ranks))}",
    )


def ranks_said(ranks: pd.DataFrame) -> str:
    """The rank correlations in words, as Markdown.

    Args:
        ranks: of `correlations`.
    """
    defined = ranks["spearman"].dropna()
    if defined.empty:
        return "In no layer do enough experts differ for a rank correlation."
    sure = int((ranks["p"] <= 0.05).sum())
    return (
        f"Spearman correlation of usage and importance: median **{np.median(defined):.2f}**, significant (p ≤ 0.05) in "
        f"**{sure} of {len(ranks)} layers**. Each is over at most {int(ranks['n'].max())} experts, which is few."
    )
