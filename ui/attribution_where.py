"""The part of the attribution page on which experts matter for which inputs: all layers at once, by slice or class."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd
import streamlit as st

from shrp.attribution.importance import KnockOuts
from shrp.attribution.where import FEWEST, beyond_chance, count_tests, worth_by_group
from shrp.groups import CLASS, LENGTH, SLICE, input_groups
from shrp.minimal_pairs import pairs_among
from shrp.mixes import FALSE_DISCOVERIES
from shrp.specialisation import MOST_GROUPS
from ui import attribution_figures as figures
from ui import measurements, state
from ui.downloads import chart, downloads
from ui.pickers import always_one
from ui.store import once
from ui.text import escape, escape_html, percent, plain, signed, worth_meaning, worth_name

BY = "matters_by"
"""Key of the picked grouping, in the session's state and in the URL."""
NAMED = 6
"""Of what is beyond chance, so many are told in words."""
_ONCE = " (a minimal pair counts once)"


def where_part(selection: state.Selection, found: KnockOuts, key: Hashable, where: str, name: str) -> None:
    """Draw the part; for labelled data alone, a sentence for others.

    Args:
        key: what `found` depends on.
        where: on what it was measured, with its n.
        name: that downloads begin with.
    """
    st.subheader("Which experts matter for which inputs?", anchor="where")
    data = selection.data
    if data.labels is None:
        st.caption("These data have no labels, so what an expert is worth to them can't be told.")
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
    said = _said(sure, frame, worth, paired)
    st.markdown(said)
    drawn, all_used = figures.where_columns(frame, sure)
    shown = f"{len(drawn)} of {all_used} experts: those beyond chance first, then those that differ most"
    chart(
        figures.where_map(
            frame,
            drawn,
            f"Mean {worth} lost without each expert, by {by}",
            f"{escape_html(where)}<br>"
            + ("" if len(drawn) == all_used else f"{shown}; ")
            + f"in bold: beyond chance unlike elsewhere (q ≤ {FALSE_DISCOVERIES:g})",
        ),
        frame,
        "where-map",
        f"{name}-by-{by}",
        f"Heatmap, groups of inputs by experts: mean {worth} lost without the expert. {plain(said)}",
    )
    st.caption(
        f"The {worth} is {worth_meaning(data.task)}; positive: the expert helps these inputs. "
        "Means over all inputs of a group that were "
        f"run, those included that don't use the expert. Chance: Welch's t with inputs dealt to the groups "
        f"anew,{' both of a minimal pair as one,' * paired} corrected for all experts and groups (Benjamini and "
        f"Hochberg); experts that fewer than {FEWEST} inputs{_ONCE * paired} use are not tested. An expert's profile, "
        "on Expert usage, shows one on all of the data."
    )
    if by == CLASS and not data.task.is_regression:
        st.caption(
            "By class the threshold shows too: an expert that raises one class's logit for every input helps that "
            "class and costs the other as much."
        )
    with st.expander("All experts and groups as a table", icon=":material/table:"):
        _table(frame, worth, f"{name}-by-{by}")


def _said(sure: pd.DataFrame, frame: pd.DataFrame, worth: str, paired: bool) -> str:
    """What is beyond chance, in Markdown.

    Args:
        paired: whether there are minimal pairs among the inputs.
    """
    tested = count_tests(frame)
    what = "experts" if frame["group"].nunique() == 2 else "pairs of expert and group"
    if not tested:
        few = f"No expert is used by {FEWEST} of these inputs{_ONCE * paired}"
        return f"{few}, so nothing can be told: take more of them."
    if sure.empty:
        return (
            f"Of {tested:,} {what} **none** differs from elsewhere beyond chance: that what an expert is worth depends "
            "on the group can't be shown on these inputs."
        )
    parts = [
        f"layer {r.layer} expert {r.expert} for **{escape(r.group.replace('_', ' '))}** ({signed(r.lost, 2)} there, "
        f"{signed(r.elsewhere, 2)} elsewhere)"
        for r in sure.head(NAMED).itertuples()
    ]
    more = len(sure) - len(parts)
    rest = f", and {more:,} more" if more > 0 else ""
    return (
        f"In {len(sure):,} of {tested:,} {what} the {worth} that is lost differs from elsewhere beyond chance (about "
        f"{percent(FALSE_DISCOVERIES, 0)} of such findings may be chance): {'; '.join(parts)}{rest}."
    )


def _table(frame: pd.DataFrame, worth: str, name: str) -> None:
    fires = frame.groupby(["layer", "expert"])["uses"].transform("sum") > 0
    used = frame[fires].sort_values("difference", key=np.abs, ascending=False, kind="stable")
    number = st.column_config.NumberColumn
    st.dataframe(
        used.assign(group=used["group"].str.replace("_", " ")).drop(columns="p"),
        hide_index=True,
        column_config={
            "uses": number("used by", help="Inputs of the group that use the expert."),
            **{key: number(format="%+.4f") for key in ("lost", "elsewhere", "difference")},
            "q": number(
                format="%.3f", help="p of the permutation test, corrected for all experts and groups."
            ),
        },
        height="content" if len(used) <= 12 else 420,
        placeholder="–",
        alt=f"Mean {worth} lost without each expert in each group, elsewhere, and their difference",
    )
    downloads(frame, "where-table", f"{name}-table")
