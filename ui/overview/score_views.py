"""The scores section of the Overview page: a chart, a table, and words on the controls."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.evaluation.verdicts import HOW_COMPARED, summary, uncompared, verdicts
from ui.downloads import chart
from ui.floor import not_above
from ui.overview import score_figures
from ui.pickers import one_of
from ui.text import escape, score_text

_DATA, _SHOWN = "scored_on", "scores_shown_of"


def scores_section(checkpoint: str, scores: pd.DataFrame, first: str = "") -> None:
    """The stored scores of one data set as a chart, with a sentence on the controls.

    For each checkpoint it opens on the data `first`, if these are there: what was picked for one is not for another.
    """
    seen = st.session_state.get(_SHOWN, checkpoint)
    st.session_state[_SHOWN] = checkpoint
    if scores.empty:
        st.info(
            "No scores were stored with this checkpoint; training stores them, with the controls'.",
            icon=":material/scoreboard:",
        )
        return
    datasets = list(dict.fromkeys(scores["data"]))
    picked = first if first in datasets else datasets[0]
    if len(datasets) > 1:
        picked = one_of("Stored scores on", datasets, key=_DATA, default=picked, anew=seen != checkpoint)
    part = scores[scores["data"] == picked].reset_index(drop=True)
    chart(
        score_figures.score_dots(part),
        lambda: part,
        key="scores",
        name=f"{checkpoint}-scores-{picked}",
        alt=f"Scores with intervals: {score_figures.score_alt(part)}",
    )
    found = verdicts(part, score_text)
    behind = bool(found) and all(v.outcome == "trails" for v in found) and not uncompared(found, part)
    icon = "check_circle" if behind else "balance"
    st.caption(
        f":material/{icon}: {escape(summary(found, part))}",
        help="\n".join([*(f"- {escape(v.text)}" for v in found), "", HOW_COMPARED]) if found else None,
    )
    if warning := constant_warning(part):
        st.caption(f":material/horizontal_rule: {warning}")


def constant_warning(part: pd.DataFrame) -> str:
    """Which models are not above the best constant answer on one data set; empty for none, or where it is unknown."""
    known = part[part["constant"].notna()]
    if known.empty:
        return ""
    first = known.iloc[0]
    models = [(f"“{escape(row.model)}”", row.score) for row in known.itertuples()]
    return not_above(first.constant, first.metric, first["data"], int(first.n), models)
