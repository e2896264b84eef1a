"""The part of the attribution page on which experts or heads matter for which inputs, by slice, class or length."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.importance import FEWEST, KnockOuts, beyond_chance, count_tests, of_heads, worth_by_group
from shrp.analysis.specialisation import MOST_GROUPS
from shrp.data.slices import CLASS, LENGTH, SLICE, input_groups
from shrp.data.text_data import pairs_among
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui import measurements, state
from ui.attribution import figures
from ui.attribution.figures import EXPERT
from ui.downloads import chart, downloads
from ui.pickers import always_one
from ui.store import once
from ui.text import escape, escape_html, percent, plain, signed, worth_meaning, worth_name

BY = "matters_by"
"""Key of the picked grouping, in the session's state and in the URL."""
NAMED = 6
"""Of what is beyond chance, so many are told in words."""
_ONCE = " (a minimal pair counts once)"


def where_part(
    selection: state.Selection, found: KnockOuts, key: Hashable, where: str, name: str, of: str = EXPERT
) -> None:
    """Draw the part; for labelled data alone, a sentence for others.

    Args:
        key: what `found` depends on.
        where: on what it was measured, with its n.
        name: that downloads begin with.
        of: what was knocked out, `expert` or `head`.
    """
    st.subheader(f"Which {of}s matter for which inputs?", anchor="where")
    data = selection.data
    if data.labels is None:
        st.caption(f"These data have no labels, so what {_one(of)} is worth to them can't be told.")
        return
    lengths = measurements.read_lengths(selection.checkpoint, data)
    known = input_groups(data, lengths=lengths, by=(CLASS, SLICE, LENGTH))
    present = {by: sum(mask[found.rows].any() for mask in groups.values()) for by, groups in known.items()}
    known = {by: groups for by, groups in known.items() if 1 < present[by] <= MOST_GROUPS}
    if not known:
        st.caption(
            "There are no groups to compare: these inputs are of one class, slice and length each, or of more than "
            f"{MOST_GROUPS}."
        )
        return
    by = always_one("Inputs by", list(known), BY, SLICE if SLICE in known else None)
    frame = once(
        "worth by group",
        16,
        (key, data.pairs, by),
        "Dealing inputs to groups, to see what is chance",
        lambda progress: worth_by_group(found, data, known[by], progress=progress),
    )
    worth = worth_name(data.task)
    sure = beyond_chance(frame)
    paired = len(pairs_among(data, found.rows)) > 0
    said = _said(sure, frame, worth, paired, of)
    st.markdown(said)
    drawn, all_used = figures.where_columns(frame, sure)
    shown = f"{len(drawn)} of {all_used} {of}s: those beyond chance first, then those that differ most"
    chart(
        figures.where_map(
            frame,
            drawn,
            f"Mean {worth} lost without each {of}, by {by}",
            f"{escape_html(where)}<br>"
            + ("" if len(drawn) == all_used else f"{shown}; ")
            + f"in bold: beyond chance unlike elsewhere (q ≤ {FALSE_DISCOVERIES:g})",
            of,
        ),
        frame if of == EXPERT else of_heads(frame),
        "where-map",
        f"{name}-by-{by}",
        f"Heatmap, groups of inputs by {of}s: mean {worth} lost without the {of}. {plain(said)}",
    )
    unused, untested = "", ""
    if of == EXPERT:
        unused = ", those included that don't use the expert"
        untested = (
            f"; experts that fewer than {FEWEST} inputs{_ONCE * paired} use are not tested. An expert's profile, on "
            "Expert usage, shows one on all of the data"
        )
    st.caption(
        f"The {worth} is {worth_meaning(data.task)}; positive: the {of} helps these inputs. Means over all inputs of a "
        f"group that were run{unused}. Chance: Welch's t with inputs dealt to the groups anew,"
        f"{' both of a minimal pair as one,' * paired} corrected for all {of}s and groups (Benjamini and Hochberg)"
        f"{untested}."
    )
    if by == CLASS and not data.task.is_regression:
        st.caption(
            f"By class the threshold shows too: {_one(of)} that raises one class's logit for every input helps that "
            "class and costs the other as much."
        )
    with st.expander(f"All {of}s and groups as a table", icon=":material/table:"):
        _table(frame, worth, f"{name}-by-{by}", of)


def _one(of: str) -> str:
    return f"an {of}" if of == EXPERT else f"a {of}"


def _said(sure: pd.DataFrame, frame: pd.DataFrame, worth: str, paired: bool, of: str = EXPERT) -> str:
    """What is beyond chance, in Markdown.

    Args:
        paired: whether there are minimal pairs among the inputs.
        of: what was knocked out.
    """
    tested = count_tests(frame)
    what = f"{of}s" if frame["group"].nunique() == 2 else f"pairs of {of} and group"
    if not tested:
        few = f"No expert is used by {FEWEST} of these inputs{_ONCE * paired}"
        if of != EXPERT:
            few = f"These are fewer than {FEWEST} inputs{_ONCE * paired}"
        return f"{few}, so nothing can be told: take more of them."
    if sure.empty:
        return (
            f"Of {tested:,} {what} **none** differs from elsewhere beyond chance: that what {_one(of)} is worth "
            "depends on the group can't be shown on these inputs."
        )
    parts = [
        f"layer {r.layer} {of} {r.expert} for **{escape(r.group.replace('_', ' '))}** ({signed(r.lost, 2)} there, "
        f"{signed(r.elsewhere, 2)} elsewhere)"
        for r in sure.head(NAMED).itertuples()
    ]
    more = len(sure) - len(parts)
    rest = f", and {more:,} more" if more > 0 else ""
    return (
        f"In {len(sure):,} of {tested:,} {what} the {worth} that is lost differs from elsewhere beyond chance (about "
        f"{percent(FALSE_DISCOVERIES, 0)} of such findings may be chance): {'; '.join(parts)}{rest}."
    )


def _table(frame: pd.DataFrame, worth: str, name: str, of: str) -> None:
    fires = frame.groupby(["layer", "expert"])["uses"].transform("sum") > 0
    used = frame[fires].sort_values("difference", key=np.abs, ascending=False, kind="stable")
    shown = used.assign(group=used["group"].str.replace("_", " ")).drop(columns="p")
    number = st.column_config.NumberColumn
    columns = {key: number(format="%+.4f") for key in ("lost", "elsewhere", "difference")}
    columns["q"] = number(
        format="%.3f", help=f"p of the permutation test, corrected for all {of}s and groups."
    )
    if of == EXPERT:
        columns["uses"] = number("used by", help="Inputs of the group that use the expert.")
    else:
        shown, frame = of_heads(shown), of_heads(frame)
    st.dataframe(
        shown,
        hide_index=True,
        column_config=columns,
        height="content" if len(used) <= 12 else 420,
        placeholder="–",
        alt=f"Mean {worth} lost without each {of} in each group, elsewhere, and their difference",
    )
    downloads(frame, "where-table", f"{name}-table")
