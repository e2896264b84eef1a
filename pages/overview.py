"""Overview: what a checkpoint is, costs and scores, how it was trained, and what is wrong with it."""

from __future__ import annotations

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from shrp.analysis.usage import history_warnings
from shrp.checkpoints.card import chosen_on_texts, usage_of
from shrp.checkpoints.info import PLAN_FILE, CheckpointInfo
from shrp.checkpoints.score_rows import with_shares
from shrp.data.tasks import TEXTS
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.verdicts import score_frame
from ui import arrival, loaders
from ui.describe import summary_line, training_facts
from ui.downloads import chart
from ui.floor import floor_words
from ui.overview import figures as overview_figures
from ui.overview import latency, score_figures
from ui.overview.checks import measured_now
from ui.overview.score_views import scores_section
from ui.text import (
    NOT_KNOWN,
    capital,
    count,
    escape,
    interval_name,
    interval_text,
    metric_name,
    percent,
    score_text,
    warning_lines,
)


def scores_of_its_own(selection: state.Selection, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the checkpoint as it is; none where only others were scored."""
    plan = selection.checkpoint.info.plan
    if plan is None:
        return scores[scores["kind"] == ("routed" if selection.is_routed else "static")]
    kind = "control" if plan.selection.startswith("random") else "static"
    return scores[(scores["kind"] == kind) & (scores["budget"] == plan.budget)]


def of_other_data(info: CheckpointInfo, own: pd.DataFrame, data: TextData) -> str:
    """That no stored score is of the picked data, as Markdown; empty where one is.

    Args:
        own: the checkpoint's own rows, which don't say of which file of a name they are, where `info.scores` may.
    """
    if data.name not in set(own["data"]):
        return f"Not of the picked data, {escape(data.name)}"
    files = {row.get("data_fingerprint") for row in info.scores if row.get("data") == data.name}
    if files & {None, data.source_fingerprint}:
        return ""
    return f"Of other inputs than the picked {escape(data.name)} has"


def headline(selection: state.Selection, costs: pd.DataFrame, own: pd.DataFrame) -> None:
    """The four numbers to know first, each with its denominator."""
    info = selection.checkpoint.info
    first, *others = st.columns([1.5, 1, 1, 1], border=True)
    with first:
        if own.empty:
            st.metric(capital(metric_name(info.task.metric)), NOT_KNOWN)
            measured = "; with labelled data [the check below](#measured) measures one"
            of_task = info.task.name != TEXTS.name  # what was converted on texts answers nothing yet
            st.caption(f"None was stored with this checkpoint{measured * of_task}.")
        else:
            row = own.iloc[0]
            bounds = interval_text((row.low, row.high), row.metric)
            named = f"{escape(interval_name(row.interval_is))} {bounds}" if bounds else "no interval"
            kept = "" if pd.isna(row.retained) else f"{percent(row.retained)} of the dense teacher's"
            st.metric(
                capital(metric_name(row.metric)),
                score_text(row.score, row.metric),
                help="“A constant answer”: the best score that one and the same answer to every input would get.",
            )
            said = f"{named}, n = {int(row.n):,}, {escape(row.data)}"
            chosen = info.training.get("chosen_on", {})
            there = info.scores_on(chosen["data_fingerprint"]) if chosen else []
            same = any(one.get("data") == row.data for one in there)
            if not chosen and info.plan is not None and not info.plan.selection.startswith("random"):
                # Else by the usage of the training, or of the texts or another task that it was pruned by before.
                own_usage = not chosen_on_texts(info) and usage_of(info) in (None, info.task.name)
                same = own_usage and info.training.get("chosen_by") != PLAN_FILE
                same = same and row.data == info.training.get("validation_data")
            picked = "its experts were chosen on these inputs, which flatters it a little" * same
            st.caption("; ".join(filter(None, (said, kept, floor_words(row.constant, row.metric), picked))))
            if selection.data is not None and (why := of_other_data(info, own, selection.data)):
                st.caption(f"{why}: [measured below](#measured).")
            for other in own.iloc[1:].itertuples():
                bounds = interval_text((other.low, other.high), other.metric)
                said = f"on {escape(other.data)}: {score_text(other.score, other.metric)}"
                said += f"{f' ({bounds})' * bool(bounds)}, n = {int(other.n):,}"
                st.caption("; ".join(filter(None, (said, floor_words(other.constant, other.metric)))))
    for column, row in zip(others, costs.iloc[[0, 2, 1]].itertuples()):
        with column:
            # The caption names the whole; a longer label would be cut in a narrow window.
            st.metric(f"{capital(row.denominator.removeprefix('whole '))} {row.what}", percent(row.kept))
            at = f", one input of {row.tokens} tokens" if row.what == "FLOPs" else ""
            st.caption(
                f"of the dense {row.denominator}'s {row.what}: {count(row.value)} of {count(row.dense)}{at}"
            )


def training_section(
    selection: state.Selection, scores: pd.DataFrame, history: list[Mapping[str, Any]]
) -> None:
    st.header("How it was trained", anchor="training")
    training = selection.checkpoint.info.training
    facts = training_facts(training, history, selection.checkpoint.info.plan)
    left, right = st.columns([2, 3], gap="large")
    with left:
        if facts:
            # A Markdown table wraps long values, which a data frame cuts off.
            rows = [f"| {escape(what)} | {escape(value)} |" for what, value in facts]
            st.markdown("\n".join(["| what | value |", "|---|---|", *rows]))
        else:
            st.info("Nothing was stored about how this checkpoint was trained.", icon=":material/school:")
    if not history:
        st.caption("No training history (history.jsonl) was stored with this checkpoint.")
        return
    data = str(training.get("validation_data", "validation data"))
    frame = score_figures.history_frame(history)
    with right:
        chart(
            score_figures.training_history(
                frame, data=data, teacher_score=score_figures.teacher_score(scores, data)
            ),
            frame,
            key="history",
            name=f"{selection.name}-history",
            alt=score_figures.history_alt(history),
        )


def where_to_go() -> None:
    """The other pages, by the question that each answers."""
    questions = {
        "expert_usage": ("Who is used, and for what?", ":material/grid_on:"),
        "routing": ("Where does my sentence go?", ":material/alt_route:"),
        "pruning_lab": ("What is left with fewer experts?", ":material/content_cut:"),
    }
    with st.container(horizontal=True, gap="small"):
        for page, (question, icon) in questions.items():
            arrival.page_link(f"pages/{page}.py", question, icon)


selection = state.current(needs_data=False)
info, model = selection.checkpoint.info, selection.checkpoint.model
num_layers, num_experts = model.config.num_hidden_layers, model.config.num_attention_heads
st.title(escape(selection.name), anchor=False)
st.markdown(summary_line(info, num_layers, num_experts))
st.caption(
    "SHRP compresses Transformer encoders: in a converted layer each attention head is an *expert*, and a *router* "
    "picks one for each input or token. Pruning keeps some experts, such as the most used, and drops the router: what "
    "is left is *static*: smaller, one graph for all inputs, and faster than the dense model. This page says what a "
    "checkpoint is; the next ones answer:"
)
where_to_go()

costs = overview_figures.cost_frame(cost(model, TOKENS), dense_cost(model, TOKENS))
scores = with_shares(score_frame(info.scores), selection.checkpoint)
own = scores_of_its_own(selection, scores)
headline(selection, costs, own)

layers = overview_figures.layer_frame(info, num_layers, num_experts)
validation = str(info.training.get("validation_data", "the data that it was counted on"))
left, right = st.columns(2, gap="medium")
with left:
    chart(
        overview_figures.layer_strip(layers, num_experts, validation=validation),
        layers,
        key="layers",
        name=f"{selection.name}-layers",
        alt=overview_figures.layer_alt(layers),
    )
with right:
    chart(
        overview_figures.cost_bars(costs),
        costs,
        key="costs",
        name=f"{selection.name}-costs",
        alt=f"Share of the dense model: {overview_figures.cost_alt(costs)}",
    )

scores_section(selection.name, scores, first="" if own.empty else own["data"].iloc[0])
latency.overview_section(selection.checkpoint, selection.name, routed=selection.is_routed)
history: list[dict[str, Any]] = []
try:
    history = loaders.read_history(selection.name)
except ShrpError as error:
    state.show_error(error)
training_section(selection, scores, history)

st.header("Warnings and score, measured here", anchor="measured")
for line in warning_lines(history_warnings(history)):
    st.warning(line, icon=":material/warning:")
measured_now(selection, healthy_training=not history_warnings(history))
