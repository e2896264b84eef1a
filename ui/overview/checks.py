"""The check at the end of the Overview page: run the model on the picked data, say what is wrong."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.analysis.usage import (
    COLLAPSE_EXPERTS,
    COLLAPSE_SHARE,
    NOISY_ENTROPY,
    NOISY_MARGIN,
    UsageStats,
)
from shrp.errors import ShrpError
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import confusion
from ui import measurements, pair_views, state
from ui.floor import floor_text
from ui.overview import answers_table
from ui.overview.cliff import cliff_warning
from ui.teacher import teacher_on
from ui.text import (
    escape,
    interval_text,
    other_metrics,
    percent,
    with_interval,
)

_MEANING = {
    "collapse": "a few experts take nearly everything, so the router decides next to nothing",
    "noisy": "usage hardly ranks the experts, so pruning by usage is close to a guess",
    "near ties": "the router's two best experts are nearly equal, so a small change of an input can change the route; "
    "usage may rank them well all the same",
}


def measured_now(selection: state.Selection, *, healthy_training: bool) -> None:
    """Score the model on the picked data and show the failure signatures of its routing there.

    Args:
        healthy_training: whether the training history showed none.
    """
    data = selection.data
    if data is None:
        st.caption(f"The model could not be checked here. {escape(selection.no_data)}")
        return
    try:
        if selection.is_routed:
            stats = measurements.usage_stats(selection.checkpoint, data)
            _show_warnings(selection, stats, healthy_training)
        else:
            st.caption("It has no routers, so there is no usage here that could collapse or be noisy.")
            stats = None
        found = measurements.evaluation(selection.checkpoint, data, stats)
    except ShrpError as error:
        state.show_error(error)
        return
    if data.labels is not None:
        _score(selection, found)
    else:
        st.caption(
            f"The inputs of {escape(data.name)} (n = {len(data):,}) have no labels, so there is no score to measure."
        )
    answers_table.section(selection, found)


def _score(selection: state.Selection, found: Evaluation) -> None:
    data = selection.data
    teacher = teacher_on(selection.checkpoint, data)
    if warning := cliff_warning(selection.checkpoint, data, found):
        st.warning(warning, icon=":material/warning:")
    said, floor = with_interval(found.score, found.interval, found.metric, found.n), floor_text(data)
    also = other_metrics(found.metrics, found.metric)
    parts = [said, *filter(None, (floor, also))]
    st.markdown(f"**Measured here** on {escape(data.name)}: {'; '.join(parts)}")
    _show_classes(found)
    if said := pair_views.line(data, {"this model": found, "dense teacher": teacher}):
        st.markdown(said)
        st.caption(pair_views.what_they_are(data.task))


def _show_classes(found: Evaluation) -> None:
    """Which class is taken for which, in numbers; nothing of a regression."""
    if found.task.is_regression or found.labels is None:
        return
    names, classes = found.task.label_names, found.by_class()
    matrix = confusion(found.task, found.labels, found.predictions)
    frame = pd.DataFrame(
        {"class": names} | {f"taken for {name}": matrix[:, i] for i, name in enumerate(names)}
    )
    frame["recall"] = [
        f"{percent(row.recall)} ({interval_text((row.low, row.high), 'accuracy')})" if row.n else ""
        for row in classes.itertuples()
    ]
    frame["precision"] = [percent(row.precision) if row.predicted else "" for row in classes.itertuples()]
    with st.expander("Which class is taken for which", icon=":material/grid_on:"):
        st.dataframe(
            frame, hide_index=True, width="content", alt="Confusion matrix with recall and precision"
        )
        st.caption(
            f"Counts of inputs; a row holds those of one class. n = {found.n:,}, {escape(found.data)}; recall with its "
            "95% interval (Wilson)."
        )


def _show_warnings(selection: state.Selection, stats: UsageStats, healthy_training: bool) -> None:
    name, n, warnings = escape(selection.data.name), len(selection.data), stats.warnings()
    if stats.too_few:
        st.caption(
            f":material/info: n = {n:,} inputs of {name} are too few to tell collapse, noisy usage or near ties by; it "
            f"takes {stats.too_few}."
        )
        return
    converted = len(selection.checkpoint.info.config.layers)
    for kind in dict.fromkeys(w.kind for w in warnings):
        some = [w for w in warnings if w.kind == kind]
        st.warning(
            f"**{kind.capitalize()}** in {len({w.layer for w in some})} of {converted} converted layers on "
            f"{name} (n = {n:,}): {_MEANING.get(kind, '')}.\n\n"
            + "\n".join(f"- {escape(w.text.rsplit(': ', 1)[0])}" for w in some),
            icon=":material/warning:",
        )
    if not warnings:
        now = "" if healthy_training else " in the trained model (see above for its training)"
        st.success(
            f"No failure signature of routing{now} on {name}, n = {n:,}: neither collapse, noisy usage nor near ties.",
            icon=":material/check_circle:",
        )
    st.caption(
        f"Collapse: one expert above {percent(COLLAPSE_SHARE, 0)} in stage 1, or fewer than "
        f"{COLLAPSE_EXPERTS} effective experts in the trained model (exp of the usage's entropy: so many, used evenly, "
        f"have the same entropy). Noisy: usage entropy above {percent(NOISY_ENTROPY, 0)} of its maximum. "
        "Near ties: a mean router margin, the last probability that is taken less the first that is not, "
        f"below {NOISY_MARGIN}."
    )
