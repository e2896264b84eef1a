"""Overview below its first screen, with the model loaded: cost, the score on the picked data, examples, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from shrp.analysis.usage import CLIFF_SHARE, UsageStats, history_warnings
from shrp.checkpoints.card import as_html, training_facts
from shrp.checkpoints.info import read_history, teacher_score
from shrp.checkpoints.score_rows import score_frame, with_shares
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.phrases import numbered
from ui import data_sources, measurements, state
from ui.differences import floor_of, not_above
from ui.downloads import chart, file_button
from ui.overview import figures, latency, score_figures
from ui.overview.first import kept_of_dense, own_rows, score_box, stored_score
from ui.text import escape, file_name, metric_name, percent, readable, score_text, verdict, with_interval

_DATA, _SHOWN = "scored_on", "scores_shown_of"
_MEANING = {
    "collapse": "a few experts take nearly everything, so the router hardly decides anything",
    "noisy": "usage hardly ranks the experts, so pruning by usage is close to a guess",
    "small margins": "the router's two best experts have nearly equal scores, so small changes of a text change its route",
}


def costs(selection: state.Selection) -> None:
    """What is left of the dense model's parameters and FLOPs, as one figure."""
    model = selection.checkpoint.model
    frame = figures.cost_frame(cost(model, TOKENS), dense_cost(model, TOKENS), TOKENS)
    alt = f"Share of the dense model: {figures.cost_alt(frame)}"
    chart(figures.cost_bars(frame), frame, "costs", f"{selection.name}-costs", alt)


@state.shows_errors
def measured(selection: state.Selection, headline: Any) -> Evaluation | None:
    """Score the model on the picked data; returns its evaluation, or None where there is none.

    `headline`, the place of the page's verdict, is about a person's own data once these are scored.
    """
    data = selection.data
    stored_score(selection.checkpoint.info, data)
    if data is None:
        st.caption(f"Not scored here: {escape(selection.no_data)}")
        return None
    stats = measurements.usage_stats(selection.checkpoint, data) if selection.is_routed else None
    found = measurements.evaluation(selection.checkpoint, data, stats)
    if selection.source == data_sources.OWN:
        with headline:
            verdict(own_verdict(selection.name, found, floor_of(data)))
    if data.labels is None:
        st.caption(f"{escape(data.name)} (n = {len(data):,}) has no labels, so there is no score.")
    else:
        checkpoint = selection.checkpoint
        rows = measurements.score_rows(checkpoint, data) if checkpoint.info.config.layers else ()
        _score(found, floor_of(data), teacher_score(rows))
        if warning := cliff_warning(selection, found):
            st.warning(warning, icon=":material/warning:")
    if stats is not None:
        _warnings(selection, stats)
    return found


def own_verdict(name: str, found: Evaluation, floor: float) -> str:
    """The headline about a person's own data, as Markdown."""
    data = escape(found.data)
    if found.labels is None:
        return f"**{escape(name)}** has predicted {found.n:,} examples of **{data}**. They have no labels, so there is no score."
    baseline = (
        f"; the majority-class baseline has {score_text(floor, found.metric)}" if floor == floor else ""
    )
    return (
        f"**{escape(name)}** has **{with_interval(found.score, found.interval, found.metric, found.n)}** on "
        f"**{data}**{baseline}."
    )


def _score(found: Evaluation, floor: float, dense: float | None) -> None:
    baseline = f"majority-class baseline {score_text(floor, found.metric)}" if floor == floor else ""
    kept = kept_of_dense(found.score, found.interval, dense)
    share = f"{kept} of the dense model's" * bool(kept)
    others = [f"{metric_name(m)} {score_text(v, m)}" for m, v in found.metrics.items() if m != found.metric]
    how = "Measured now, on the data that are picked in the sidebar."
    parts = found.metric, found.data, found.score, found.interval, found.n
    score_box(*parts, share, baseline, ", ".join(others), help=how)


def cliff_warning(selection: state.Selection, found: Evaluation) -> str:
    """What to say where far less of the dense teacher's score is left than pruning should cost; empty elsewhere.

    That is an interval that ends below `CLIFF_SHARE` of the teacher's score, or below it with no gain on the baseline.
    """
    rows = measurements.score_rows(selection.checkpoint, selection.data)
    best = teacher_score(rows) or 0.0
    high = found.interval[1] if found.interval[1] == found.interval[1] else found.score
    floor = floor_of(selection.data)
    if not best > 0 or not (high < CLIFF_SHARE * best - 1e-9 or (found.score <= floor < best and high < best)):
        return ""
    return (
        f"**Accuracy cliff** on {escape(found.data)}: {percent(found.score / best)} of the dense model's "
        f"{metric_name(found.metric)} is left."
    )


def _warnings(selection: state.Selection, stats: UsageStats) -> None:
    """Failure signatures of the routing on the picked data, a line a kind."""
    if stats.too_few:
        n = len(selection.data)
        st.caption(
            f":material/info: {n:,} examples are too few to check the routing: it takes {stats.too_few:,}."
        )
        return
    layers: dict[str, set[int]] = {}
    for one in stats.warnings():
        layers.setdefault(one.kind, set()).add(one.layer)
    for kind, of in layers.items():
        where = numbered("layer", sorted(of))
        st.caption(f":material/warning: **{kind.capitalize()}** in {where}: {_MEANING.get(kind, '')}.")
    if not layers:
        st.caption(":material/check_circle: Routing is sound here: no collapse, noisy usage or small margins.")


def scores(selection: state.Selection) -> None:
    """The stored scores of one data set, SHRP's models among the controls; nothing where none are stored.

    Another checkpoint opens on its own first data set.
    """
    name, info = selection.name, selection.checkpoint.info
    seen, st.session_state[_SHOWN] = st.session_state.get(_SHOWN, name), name
    frame = with_shares(score_frame(info.scores), info, selection.checkpoint.model)
    if frame.empty:
        return
    sets = list(dict.fromkeys(frame["data"]))
    picked = next((row["data"] for row in own_rows(info) if row["data"] in sets), sets[0])
    if len(sets) > 1:
        if seen != name:
            st.session_state[_DATA] = picked
        picked = st.selectbox("Stored scores on", sets, sets.index(picked), key=_DATA, bind="query-params")
    part = frame[frame["data"] == picked].reset_index(drop=True)
    alt = f"Scores with intervals: {score_figures.score_alt(part)}"
    chart(score_figures.score_dots(part), part, "scores", f"{name}-scores-{picked}", alt)
    if not (known := part[part["constant"].notna()]).empty:
        first = known.iloc[0]
        models = [(f"“{escape(readable(row.model))}”", row.score) for row in known.itertuples()]
        if warning := not_above(first.constant, first.metric, first["data"], int(first.n), models):
            st.caption(f":material/horizontal_rule: {warning}")


def expanders(selection: state.Selection) -> None:
    """The parts that are computed once they are opened."""
    parts = {
        "How it was trained": (":material/school:", lambda: training(selection)),
        "Latency on this machine": (":material/timer:", lambda: latency.section(selection)),
        "Model card": (":material/description:", lambda: model_card(selection)),
    }
    for title, (icon, draw) in parts.items():
        state.lazy_expander(title, draw, f"overview-{file_name(title).lower()}", icon)


def training(selection: state.Selection) -> None:
    """Settings, and the history epoch by epoch."""
    info = selection.checkpoint.info
    history: list[Mapping[str, Any]] = read_history(selection.checkpoint.path)
    for one in history_warnings(history):
        st.warning(f"**{one.kind.capitalize()}**: {escape(one.text)}", icon=":material/warning:")
    if facts := training_facts(info.training, info.plan):
        rows = [f"| {escape(what)} | {escape(value)} |" for what, value in facts]
        st.markdown("\n".join(["| setting | value |", "|---|---|", *rows]))  # (a data frame cuts long values)
    else:
        st.info("Nothing was stored about how this checkpoint was trained.", icon=":material/school:")
    if not history:
        st.caption("No training history (history.jsonl) was stored with this checkpoint.")
        return
    data = str(info.training.get("validation_data", "validation data"))
    of_teacher = [row for row in info.scores if (row["kind"], row["data"]) == ("teacher", data)]
    teacher = of_teacher[0].get("score") if of_teacher else None
    frame = score_figures.history_frame(history)
    fig = score_figures.training_history(frame, data=data, teacher_score=teacher)
    chart(fig, frame, "history", f"{selection.name}-history", score_figures.history_alt(history))


def model_card(selection: state.Selection) -> None:
    """The model card, and its files."""
    text, stem = selection.checkpoint.card(selection.name), f"{file_name(selection.name)}-card"
    with st.container(horizontal=True):
        for kind, suffix, made in (("Markdown", "md", lambda: text), ("HTML", "html", lambda: as_html(text))):
            file_button(kind, made, f"{stem}.{suffix}", f"card-{kind.lower()}")
    with st.container(height=480):
        st.markdown(text.replace("\n# ", "\n### "))
