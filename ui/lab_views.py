"""The parts of the pruning lab's page: the result's headline, flips, scores by group."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from shrp.data import TextData
from shrp.evaluation import Evaluation, flips
from shrp.measure import Cost
from shrp.paired import paired_difference
from ui import lab_figures as figures
from ui.downloads import chart, downloads
from ui.lab_marks import Mark
from ui.text import (
    NOT_KNOWN,
    count,
    escape,
    interval_text,
    is_percentage,
    metric_name,
    percent,
    score_text,
)


def points(difference: float, metric: str) -> str:
    """A signed difference of scores: `−1.2 points`, or `−0.012` for correlations."""
    if difference != difference:
        return NOT_KNOWN
    text = f"{100 * difference:+.1f} points" if is_percentage(metric) else f"{difference:+.3f}"
    return text.replace("-", "−")


def _points_interval(interval: Sequence[float], metric: str) -> str:
    low, high = (points(end, metric).removesuffix(" points") for end in interval)
    return f"{low} to {high}"


def headline(
    evaluation: Evaluation,
    price: Cost,
    dense: Cost,
    kept: tuple[int, int],
    routed: Evaluation | None,
    teacher: Mark | None,
) -> None:
    """The result in six figures, each with its n, interval and denominator.

    Args:
        evaluation: of the pruned model, perhaps not yet on all inputs.
        kept: experts kept, of how many.
        routed: the routed model's evaluation, where it is known already.
        teacher: the dense teacher's score on the same data, where it is known.
    """
    metric, done = evaluation.metric, evaluation.complete
    shares = price.relative_to(dense)
    columns = st.columns(6, gap="small")
    with columns[0]:
        name = metric_name(metric)
        st.metric(
            name[0].upper() + name[1:] + ("" if done else ", estimate"),
            score_text(evaluation.score, metric),
            help=f"Of the pruned model on {escape(evaluation.data)}.",
        )
        bounds = interval_text(evaluation.interval, metric)
        seen = f"n = {evaluation.n:,}" + ("" if done else f" of {evaluation.total:,}")
        st.caption(f"95% interval {bounds}<br>{seen}" if bounds else seen, unsafe_allow_html=True)
    with columns[1]:
        _difference(evaluation, routed)
    with columns[2]:
        gap = evaluation.score - teacher.score if teacher else float("nan")
        st.metric("vs dense teacher", points(gap, metric))
        st.caption(
            f"teacher {score_text(teacher.score, metric)}, n = {teacher.n:,}"
            if teacher
            else "no teacher's score for these data in the checkpoint"
        )
    with columns[3]:
        st.metric(
            "Encoder FLOPs", percent(shares["encoder_flops"]), help=f"For one input of {price.tokens} tokens."
        )
        st.caption(
            f"of the dense encoder's {count(dense.encoder_flops)}<br>whole model: {percent(shares['model_flops'])} "
            f"of {count(dense.model_flops)}",
            unsafe_allow_html=True,
        )
    with columns[4]:
        st.metric("Encoder parameters", percent(shares["encoder_params"]))
        st.caption(
            f"of the dense encoder's {count(dense.encoder_params)}<br>whole model: "
            f"{percent(shares['model_params'])} of {count(dense.model_params)}",
            unsafe_allow_html=True,
        )
    with columns[5]:
        st.metric("Experts kept", f"{kept[0]} of {kept[1]}")
        st.caption("in the converted layers together")


def _difference(evaluation: Evaluation, routed: Evaluation | None) -> None:
    metric = evaluation.metric
    if routed is None:
        st.metric("vs routed model", NOT_KNOWN)
        st.caption("evaluated next")
        return
    # On the inputs seen so far, so that a running estimate compares like with like.
    resamples = 400 if evaluation.complete else 0
    value, bounds = paired_difference(evaluation, routed, resamples=resamples)
    st.metric("vs routed model", points(value, metric))
    text = f"routed {score_text(routed.score, metric)}, n = {routed.n:,}"
    if bounds[0] == bounds[0]:
        text = f"95% interval {_points_interval(bounds, metric)}, paired<br>{text}"
    st.caption(text, unsafe_allow_html=True)


def flips_section(routed: Evaluation, pruned: Evaluation, data: TextData, name: str) -> None:
    """The inputs that the pruned model judges otherwise than the routed one."""
    frame = flips(routed, pruned, data.texts)
    frame = frame.rename(
        columns={
            "prediction_a": "routed",
            "probability_a": "p(routed)",
            "prediction_b": "pruned",
            "probability_b": "p(pruned)",
        }
    )
    if data.slices is not None:
        frame["slice"] = [data.slices[i] for i in frame["index"]]
    what = "differ by more than 0.5" if data.task.is_regression else "flip"
    summary = f"{len(frame):,} of {pruned.n:,} predictions {what} ({percent(len(frame) / pruned.n)})"
    if "label" in frame and not data.task.is_regression:
        lost = int(((frame["routed"] == frame["label"]) & (frame["pruned"] != frame["label"])).sum())
        won = int(((frame["routed"] != frame["label"]) & (frame["pruned"] == frame["label"])).sum())
        summary += f": {lost:,} from right to wrong, {won:,} from wrong to right"
    st.markdown(f"{summary}, on {escape(data.name)}.")
    if frame.empty:
        return
    shown = frame.copy()
    for column in ("p(routed)", "p(pruned)"):
        if column in shown:
            shown[column] *= 100
    config = {
        column: st.column_config.NumberColumn(
            column, format="%.1f%%", help="Probability of its own prediction"
        )
        for column in ("p(routed)", "p(pruned)")
    }
    config |= {name: st.column_config.TextColumn(name, width="large") for name in data.task.text_columns}
    st.dataframe(
        shown,
        hide_index=True,
        column_config=config,
        height=min(420, 38 + 35 * len(shown)),
        alt="Inputs whose prediction differs between the routed and the pruned model",
    )
    downloads(frame, "flips", f"{name}-flips")


def group_section(routed: Evaluation, pruned: Evaluation, by: str, name: str) -> None:
    """Scores within slices, or recall within classes, routed beside pruned."""
    value = pruned.metric if by == "slice" else "recall"
    column = "score" if by == "slice" else "recall"
    frames = [e.by_slice() if by == "slice" else e.by_class() for e in (routed, pruned)]
    if frames[0].empty:
        known = "slices" if by == "slice" else "classes"
        st.info(f"{escape(pruned.data)} has no {known}; pick other data in the sidebar.")
        return
    merged = pd.DataFrame({by: frames[0][by], "n": frames[0]["n"]})
    for who, frame in zip(("routed", "pruned"), frames, strict=True):
        merged[who], merged[f"{who} low"], merged[f"{who} high"] = (
            frame[column].to_numpy(),
            frame["low"].to_numpy(),
            frame["high"].to_numpy(),
        )
    if by == "class":
        merged["routed precision"] = frames[0]["precision"].to_numpy()
        merged["pruned precision"] = frames[1]["precision"].to_numpy()
    worst = merged.assign(change=merged["pruned"] - merged["routed"]).sort_values("change").iloc[0]
    chart(
        figures.by_group(merged, by, value, pruned.data),
        merged,
        f"by-{by}",
        f"{name}-by-{by}",
        f"Dots: {metric_name(value)} of the routed and the pruned model in each {by}; largest loss in "
        f"{worst[by]}, {points(worst['change'], value if by == 'slice' else 'accuracy')}",
    )
