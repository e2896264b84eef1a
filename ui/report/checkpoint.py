"""The report's parts on the checkpoint as it is stored: what it is, what it costs, what it scored."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from shrp.checkpoints.score_costs import with_shares
from shrp.errors import CheckpointError
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.verdicts import HOW_COMPARED, score_frame, summary, verdicts
from ui import loaders
from ui.describe import kept_experts, summary_line, training_facts
from ui.overview import figures as overview_figures
from ui.overview import score_figures
from ui.overview.score_views import constant_warning
from ui.overview.score_views import table as score_table
from ui.report.parts import Section
from ui.state import Selection
from ui.text import count, metric_name, percent, plain, score_text

_PACKAGES = ("torch", "transformers", "plotly", "streamlit")


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def facts_part(part: Section, selection: Selection, made: str) -> None:
    """What the checkpoint is, and how it was trained."""
    checkpoint, data = selection.checkpoint, selection.data
    info, hf = checkpoint.info, checkpoint.model.config
    part.words(plain(summary_line(info, hf.num_hidden_layers, hf.num_attention_heads)))
    task = info.task
    classes = ", ".join(task.label_names) if task.label_names else "a number (regression)"
    facts = {
        "name": selection.name,
        "base": info.base_model or "not stored",
        "task": f"{task.name} ({classes}), headline metric {metric_name(task.metric)}",
        "layers and heads": f"{hf.num_hidden_layers} layers of {hf.num_attention_heads} heads",
        "converted layers": ", ".join(map(str, info.config.layers)) or "none (dense)",
        "routing": f"{info.config.routing}, top-{info.config.top_k}" if selection.is_routed else "none",
        "data of this report": f"{data.name}, n = {len(data):,}" if data is not None else "none at hand",
        "fingerprint (SHA-256)": checkpoint.fingerprint,
        "fingerprint of the data": data.source_fingerprint if data is not None else "",
        "slices by words": "; ".join(data.slice_words.splitlines()) if data is not None else "",
        "made": made,
        "versions": _versions(),
    }
    part.facts([(name, value) for name, value in facts.items() if value], "The checkpoint")
    try:
        history = loaders.read_history(selection.name)
    except CheckpointError as error:  # of what is said of the training, epochs alone hang on it
        part.words(f"The history of its training can't be read: {error}")
        history = []
    if recipe := training_facts(info.training, history, info.plan):
        part.facts(recipe, "How it was trained")
    else:
        part.words("Nothing was stored about how this checkpoint was trained.")
    layers = overview_figures.layer_frame(info, hf.num_hidden_layers, hf.num_attention_heads)
    validation = str(info.training.get("validation_data", "the data that it was counted on"))
    part.figure(
        overview_figures.layer_strip(layers, hf.num_attention_heads, validation=validation),
        f"{overview_figures.layer_alt(layers)}.",
        f"Structure of the checkpoint; Top-1 shares in the hover texts are of {validation}, as stored with it.",
    )
    if info.plan is not None:
        part.table(kept_experts(info.plan), f"What the pruning keeps: {info.plan.budget} experts in all")


def scores_part(part: Section, selection: Selection) -> None:
    """Its costs, its scores beside the controls', and the epochs of its training."""
    model = selection.checkpoint.model
    costs = overview_figures.cost_frame(cost(model, TOKENS), dense_cost(model, TOKENS))
    part.heading("Costs")
    part.figure(
        overview_figures.cost_bars(costs),
        f"Share of the dense model that is left: {overview_figures.cost_alt(costs)}.",
        f"Counted from the architecture, not measured: n = 1 input of {TOKENS} tokens.",
    )
    rows = [
        {
            "what": row.what,
            "denominator": f"dense {row.denominator}",
            "this checkpoint": count(row.value),
            "dense": count(row.dense),
            "share": percent(row.kept),
        }
        for row in costs.itertuples()
    ]
    part.table(pd.DataFrame(rows), f"Costs by denominator; FLOPs of one input of {TOKENS} tokens")
    part.heading("Scores, with the controls beside them")
    scores = with_shares(score_frame(selection.checkpoint.info.scores), selection.checkpoint)
    if scores.empty:
        part.words(
            "No scores were stored with this checkpoint; what was measured here is below, under Examples."
        )
    for name in dict.fromkeys(scores["data"]):
        _scores(part, scores[scores["data"] == name].reset_index(drop=True), str(name))
    _history(part, selection, scores)


def _scores(part: Section, scores: pd.DataFrame, name: str) -> None:
    ns = " / ".join(f"{n:,}" for n in sorted({int(n) for n in scores["n"].dropna()}))
    part.figure(
        score_figures.score_dots(scores),
        f"Scores with their intervals: {score_figures.score_alt(scores)}.",
        f"Data: {name}, n = {ns}, as stored with the checkpoint.",
    )
    found = verdicts(scores, score_text)
    part.words(summary(found, scores))
    if found:
        part.bullets(verdict.text for verdict in found)
        part.words(HOW_COMPARED, soft=True)
    if warning := constant_warning(scores):
        part.warning(plain(warning))
    part.table(score_table(scores), f"Scores on {name}, n = {ns}, as a table", folded=True)


def _history(part: Section, selection: Selection, scores: pd.DataFrame) -> None:
    part.heading("Training, epoch by epoch")
    history = loaders.read_history(selection.name)
    if not history:
        part.words("No training history was stored with this checkpoint.")
        return
    data = str(selection.checkpoint.info.training.get("validation_data", "validation data"))
    last = history[-1]
    part.figure(
        score_figures.training_history(
            score_figures.history_frame(history),
            data=data,
            teacher_score=score_figures.teacher_score(scores, data),
        ),
        score_figures.history_alt(history),
        f"Data: {data}, n = {int(last['validation_n']):,}."
        if "validation_n" in last
        else f"Data: {data}; the last epoch was not scored."
        if any("validation_n" in row for row in history)
        else "Data: unlabelled texts.",
    )
