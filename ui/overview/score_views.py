"""The scores section of the Overview page: a chart, a table, and words on the controls."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.evaluation.verdicts import HOW_COMPARED, summary, uncompared, verdicts
from ui.downloads import chart
from ui.floor import not_above
from ui.overview import score_figures
from ui.pickers import one_of
from ui.text import escape, interval_text, metric_name, percent, score_text

_DATA, _SHOWN = "scored_on", "scores_shown_of"


def scores_section(checkpoint: str, scores: pd.DataFrame, first: str = "") -> None:
    """Scores as a chart, a table and words, one data set at a time.

    For each checkpoint it opens on the data `first`, if these are there: what was picked for one is not for another.
    """
    seen = st.session_state.get(_SHOWN, checkpoint)
    st.session_state[_SHOWN] = checkpoint
    st.header("Scores, with the controls beside them", anchor="scores")
    if scores.empty:
        st.info(
            "No scores were stored with this checkpoint. `python -m shrp train` stores them, with the dense "
            "teacher and the controls; [the check below](#measured) scores the model as it is now.",
            icon=":material/scoreboard:",
        )
        return
    datasets = list(dict.fromkeys(scores["data"]))
    picked = first if first in datasets else datasets[0]
    if len(datasets) > 1:
        picked = one_of("Scored on", datasets, key=_DATA, default=picked, anew=seen != checkpoint)
    part = scores[scores["data"] == picked].reset_index(drop=True)
    figure, words = st.columns([3, 2], gap="large")
    with figure:
        chart(
            score_figures.score_dots(part),
            part,
            key="scores",
            name=f"{checkpoint}-scores-{picked}",
            alt=f"Scores with intervals: {score_figures.score_alt(part)}",
        )
    with words:
        control_words(part)
        if warning := constant_warning(part):
            st.warning(warning, icon=":material/horizontal_rule:")
    with st.expander("The same as a table"):
        st.dataframe(
            table(part),
            hide_index=True,
            width="stretch",
            alt=f"Scores on {picked}: every model with its interval, n and share of the teacher's score",
        )


def control_words(part: pd.DataFrame) -> None:
    """Whether the controls tie or win, in plain words."""
    found = verdicts(part, score_text)
    behind = bool(found) and all(v.outcome == "trails" for v in found) and not uncompared(found, part)
    (st.success if behind else st.warning)(escape(summary(found, part)), icon=":material/balance:")
    if found:
        st.markdown("\n".join(f"- {escape(v.text)}" for v in found))
        st.caption(HOW_COMPARED)


def constant_warning(part: pd.DataFrame) -> str:
    """Which models are not above the best constant answer on one data set; empty for none, or where it is unknown."""
    known = part[part["constant"].notna()]
    if known.empty:
        return ""
    first = known.iloc[0]
    models = [(f"“{escape(row.model)}”", row.score) for row in known.itertuples()]
    return not_above(first.constant, first.metric, first["data"], int(first.n), models)


def table(part: pd.DataFrame) -> pd.DataFrame:
    """The scores as a person reads them."""
    rows = [
        {
            "model": row.model,
            "kind": score_figures.KIND_NAMES.get(row.kind, str(row.kind)),
            metric_name(row.metric): score_text(row.score, row.metric),
            "interval": interval_text((row.low, row.high), row.metric),
            "interval is": row.interval_is,
            "n": row.n,
            "of the teacher": percent(row.retained) if not pd.isna(row.retained) else "",
            "experts kept in all": "" if pd.isna(row.budget) else str(int(row.budget)),
            "encoder parameters": _share(row.encoder_params),
            "whole model": _share(row.model_params),
            "encoder FLOPs": _share(row.encoder_flops),
        }
        for row in part.itertuples()
    ]
    return pd.DataFrame(rows)


def _share(value: float) -> str:
    return "" if pd.isna(value) else percent(value)
