"""Overview's first screen: what a checkpoint keeps of its dense model, from its JSON alone, before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from shrp.checkpoints.info import CheckpointInfo, teacher_score
from shrp.data.tasks import TEXTS
from shrp.data.text_data import TextData
from shrp.evaluation.layer_params import dense_layer_params, expert_layer_params, static_layer_params
from ui.describe import kind_of, shape
from ui.downloads import chart
from ui.overview import figures
from ui.text import escape, interval_text, metric_name, percent, score_text

_BERT_LIKE = ("bert", "camembert", "distilbert", "electra", "ernie", "mpnet", "roberta", "xlm-roberta")
"""Model types whose layers have the sizes that `encoder_share` counts, and nothing else."""

ABOUT = (
    "SHRP turns the attention heads of a layer into **experts**, small networks side by side. A **router** sends each text to "
    "one of them, and the **Expander**, which they share, widens its output again. **Pruning** keeps a few experts and "
    "removes the router: what is left is smaller than the dense model, and the same for every text."
)
"""The terms of all pages."""


def encoder_share(config: Mapping[str, Any], info: CheckpointInfo) -> float | None:
    """The encoder's parameters as a share of the dense encoder's, as `shrp.evaluation.costs` counts; None if unknown."""
    layers, heads, size, inner = shape(config)
    if config.get("model_type") not in _BERT_LIKE or not (layers and heads):
        return None

    plan, own = info.plan, info.config.self_path
    if plan is None:
        converted = len(info.config.layers) * expert_layer_params(size, heads, own)
    else:
        kept = plan.keep_counts().values()
        converted = sum(static_layer_params(size, size // heads, m, own, plan.untied) for m in kept)
    dense = dense_layer_params(size, inner)
    return (converted + (layers - len(info.config.layers)) * dense) / (layers * dense)


def own_rows(info: CheckpointInfo) -> list[Mapping[str, Any]]:
    """The stored scores of the checkpoint as it is."""
    rows = [row for row in info.scores if row["kind"] == kind_of(info)]
    return [row for row in rows if info.plan is None or row.get("budget") == info.plan.budget]


def kept_of_dense(score: float, interval: Sequence[float | None], dense: float | None) -> str:
    """`99.4% (95% CI 97.2–101.2%)`: a score, with its interval, over the dense teacher's; empty where that is not above 0."""
    if not dense or dense < 0:
        return ""
    bounds = [end / dense for end in interval if end is not None]
    told = f" (95% CI {interval_text(bounds, 'accuracy')})" if len(bounds) == 2 else ""
    return f"{percent(score / dense)}{told}"


def verdict_text(name: str, info: CheckpointInfo, config: Mapping[str, Any]) -> str:
    """The page's headline, from what was stored with the checkpoint, as Markdown."""
    share, rows = encoder_share(config, info), own_rows(info)
    size = f" with {percent(share, 0)} of the encoder" if share is not None else ""
    if not info.config.layers:
        layers, heads, *_ = shape(config)
        return f"**{escape(name)}** is a dense model: {layers} layers of {heads} heads, none converted."
    if not rows or rows[0].get("score") is None:
        return f"**{escape(name)}** has{f' {percent(share, 0)} of the encoder, and' * bool(size)} no stored score."
    row, of = rows[0], ("data", "data_fingerprint", "metric")
    same = [one for one in info.scores if all(one.get(name) == row.get(name) for name in of)]
    kept = kept_of_dense(row["score"], row.get("interval", ()), teacher_score(same))
    if not kept:
        score = score_text(rows[0]["score"], rows[0]["metric"])
        return f"**{escape(name)}** has {metric_name(rows[0]['metric'])} {score}{size}."
    of = f"{metric_name(rows[0]['metric'])} on {escape(rows[0]['data'])}"
    return f"**{escape(name)}** keeps **{kept}** of its dense model's {of}{size}."


def score_box(
    metric: str, data: str, score: float, interval: Sequence[float], n: int | None, *more: str, **options: str
) -> None:
    """Draw a score (a share of 1) with its interval and what else there is to say; `options` are those of `st.metric`."""
    bounds = interval_text(interval, metric)
    st.metric(f"{metric_name(metric)} on {data}", score_text(score, metric), **options)
    inside = [f"95% CI {bounds}" * bool(bounds), f"n = {n:,}" if n else ""]
    st.caption("; ".join(filter(None, (", ".join(filter(None, inside)), *more))))


def stored_score(info: CheckpointInfo, but: TextData | None) -> None:
    """Draw the score that the headline is about, unless it is of the data `but`."""
    row = next(iter(own_rows(info)), {})
    if info.task.name == TEXTS.name or row.get("score") is None:
        return
    if but is not None and (row["data"], row.get("data_fingerprint")) == (but.name, but.source_fingerprint):
        return
    parts = row["metric"], row["data"], row["score"], row.get("interval"), row["n"]
    score_box(*parts, "stored with the model")


def layer_map(name: str, info: CheckpointInfo, config: Mapping[str, Any]) -> None:
    """The layers, from input to output."""
    layers, heads, *_ = shape(config)
    frame = figures.layer_frame(info, layers, heads)
    validation = str(info.training.get("validation_data", "the data that it was counted on"))
    fig = figures.layer_strip(frame, heads, validation=validation)
    chart(fig, frame, "layers", f"{name}-layers", figures.layer_alt(frame))
