"""The report of a checkpoint: what the app shows of it, as one HTML file to keep, send or print."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from plotly.offline import get_plotlyjs

from shrp.data import TextData
from shrp.errors import ShrpError
from shrp.evaluation import Evaluation
from shrp.explore import EVALUATED_TOKENS, explore
from shrp.measure import cost, dense_cost
from shrp.usage import UsageStats, history_warnings
from shrp.verdicts import HOW_COMPARED, score_frame, summary, verdicts
from ui import lab, lab_curve, lab_pareto, lab_sweep, loaders, overview_figures, score_figures, usage_figures
from ui.describe import summary_line, training_facts
from ui.expert_cells import routes_side_by_side
from ui.lab_marks import marks, marks_frame
from ui.report_parts import Section, body, file_size, page
from ui.score_views import table as score_table
from ui.state import Selection
from ui.text import count, metric_name, percent, score_text, shorten, warning_lines, with_interval

EXAMPLES = 5
"""Inputs of each kind of example."""
_KEPT = "report"
_PACKAGES = ("torch", "transformers", "plotly", "streamlit")
_MARKDOWN = re.compile(r"\\(.)|\*\*|\u2060")
_CLICK = re.compile(r"<br><i>click[^<]*</i>")
_OVER = "encoder_flops"


@dataclass(frozen=True)
class Report:
    """A report as made, without plotly.js, which `to_html` adds."""

    checkpoint: str
    """Fingerprint of what it is of."""
    data: str
    """Fingerprint of the data, or empty."""
    title: str
    made: str
    content: str

    @property
    def size(self) -> int:
        """Bytes of the file, to a percent."""
        return len(self.content.encode()) + len(get_plotlyjs().encode())

    def to_html(self) -> bytes:
        """The whole file."""
        return page(self.title, self.content)


def section(selection: Selection) -> None:
    """A button that makes the report, and once it is made its download; the report stays in the person's session."""
    data = selection.data
    key = (selection.checkpoint.fingerprint, data.fingerprint if data is not None else "")
    place = st.container(horizontal=True, vertical_alignment="center", gap="small")
    busy = st.empty()
    kept: Report | None = st.session_state.get(_KEPT)
    has_one = kept is not None and (kept.checkpoint, kept.data) == key
    asked = place.button(
        "Make it again" if has_one else "Make a report",
        key="make-report",
        icon=":material/description:",
        help="All of this checkpoint in one HTML file that works offline: overview, usage, score against cost, "
        "examples of the data picked in the sidebar with their texts, and how to reproduce it. Takes a pass over "
        "the data where they have not been measured yet.",
    )
    if asked:
        with busy.container():
            bar = st.progress(0.0, text="Making the report …")
            kept = build(selection, lambda share, text: bar.progress(share, f"Report: {text} …"))
        st.session_state[_KEPT] = kept
        st.rerun()  # the button says what it does now
    if not has_one:
        return
    place.download_button(
        f"Download the report ({file_size(kept.size)})",
        data=kept.to_html,
        file_name=f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', selection.name).strip('-') or 'shrp'}-report.html",
        mime="text/html",
        key="download-report",
        on_click="ignore",
        icon=":material/download:",
    )
    place.caption(
        f"Made {kept.made}; it holds texts of the data." if data is not None else f"Made {kept.made}."
    )


def build(selection: Selection, progress: Callable[[float, str], None] = lambda share, text: None) -> Report:
    """Make the report, measuring what has not been measured yet.

    A part that can't be made says why in its place; the others are made all the same.

    Args:
        progress: called with a share of 1 and what is being made.
    """
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    usage: UsageStats | None = None
    evaluation: Evaluation | None = None
    data = selection.data
    sections: list[Section] = []

    def add(id: str, title: str, share: float, work: Callable[[Section], Any]) -> Any:
        progress(share, title[0].lower() + title[1:])
        part = Section(id, title)
        sections.append(part)
        try:
            return work(part)
        except ShrpError as error:
            part.words(f"This part could not be made: {error}")

    add("facts", "What it is", 0.0, lambda part: _facts(part, selection, made))
    add("overview", "Costs and scores", 0.1, lambda part: _overview(part, selection))
    usage = add("usage", "Expert usage", 0.2, lambda part: _usage(part, selection))
    if data is not None:
        progress(0.4, f"evaluating on {data.name}")
        with suppress(ShrpError):  # the parts that need it say so
            evaluation = loaders.evaluation(selection.checkpoint, data)
    add("curve", "Score against cost", 0.6, lambda part: _curve(part, selection, usage, evaluation))
    add("examples", "Examples", 0.8, lambda part: _examples(part, selection, usage, evaluation))
    add("reproduce", "How to reproduce", 0.95, lambda part: _reproduce(part, selection))
    add("limits", "Limits", 0.98, lambda part: _limits(part, selection))
    title = f"{selection.name}: SHRP report"
    about = f"Made {made} of the checkpoint with the fingerprint {selection.checkpoint.fingerprint[:12]}."
    fingerprint = data.fingerprint if data is not None else ""
    return Report(selection.checkpoint.fingerprint, fingerprint, title, made, body(title, about, sections))


def _plain(markdown: str) -> str:
    """Text that was written for Markdown, without its marks and escapes."""
    return _MARKDOWN.sub(lambda found: found.group(1) or "", markdown)


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _facts(part: Section, selection: Selection, made: str) -> None:
    checkpoint, data = selection.checkpoint, selection.data
    info, hf = checkpoint.info, checkpoint.model.config
    part.words(_plain(summary_line(info, hf.num_hidden_layers, hf.num_attention_heads)))
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
        "fingerprint of the data": data.fingerprint if data is not None else "",
        "made": made,
        "versions": _versions(),
    }
    part.facts([(name, value) for name, value in facts.items() if value], "The checkpoint")
    if recipe := training_facts(info.training):
        part.facts(recipe, "How it was trained")
    else:
        part.words("Nothing was stored about how this checkpoint was trained.")
    layers = overview_figures.layer_frame(info, hf.num_hidden_layers, hf.num_attention_heads)
    validation = str(info.training.get("validation_data", "validation data"))
    part.figure(
        overview_figures.layer_strip(layers, hf.num_attention_heads, validation=validation),
        "The layers from input to output: "
        + ", ".join(f"{layer} {rows['state'].iloc[0]}" for layer, rows in layers.groupby("layer"))
        + ".",
        f"Structure of the checkpoint; Top-1 shares in the hover texts are of {validation}, as stored with it.",
    )
    if info.plan is not None:
        rows = [
            {"layer": layer, "experts kept (weight)": ", ".join(f"{e} ({w:.2f})" for e, w in kept)}
            for layer, kept in ((i, zip(p.experts, p.weights)) for i, p in info.plan.layers)
        ]
        part.table(pd.DataFrame(rows), f"What the pruning keeps: {info.plan.budget} experts in all")


def _overview(part: Section, selection: Selection) -> None:
    model = selection.checkpoint.model
    costs = overview_figures.cost_frame(cost(model, lab.TOKENS), dense_cost(model, lab.TOKENS))
    shares = "; ".join(f"{row.what}, {row.denominator}: {percent(row.kept)}" for row in costs.itertuples())
    part.heading("Costs")
    part.figure(
        overview_figures.cost_bars(costs),
        f"Share of the dense model that is left: {shares}.",
        f"Counted from the architecture, not measured: n = 1 input of {lab.TOKENS} tokens.",
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
    part.table(pd.DataFrame(rows), f"Costs by denominator; FLOPs of one input of {lab.TOKENS} tokens")
    part.heading("Scores, with the controls beside them")
    scores = score_frame(selection.checkpoint.info.scores)
    if scores.empty:
        part.words(
            "No scores were stored with this checkpoint; what was measured here is below, under Examples."
        )
    for name in dict.fromkeys(scores["data"]):
        _scores(part, scores[scores["data"] == name].reset_index(drop=True), str(name))
    _history(part, selection, scores)


def _scores(part: Section, scores: pd.DataFrame, name: str) -> None:
    ns = " / ".join(f"{n:,}" for n in sorted({int(n) for n in scores["n"].dropna()}))
    said = "; ".join(f"{row.model} {score_text(row.score, row.metric)}" for row in scores.itertuples())
    part.figure(
        score_figures.score_dots(scores),
        f"Scores with their intervals: {said}.",
        f"Data: {name}, n = {ns}, as stored with the checkpoint.",
    )
    found = verdicts(scores, score_text)
    part.words(summary(found))
    if found:
        part.bullets(verdict.text for verdict in found)
        part.words(HOW_COMPARED, soft=True)
    part.table(score_table(scores), f"Scores on {name}, n = {ns}, as a table", folded=True)


def _history(part: Section, selection: Selection, scores: pd.DataFrame) -> None:
    part.heading("Training, epoch by epoch")
    history = loaders.read_history(selection.name)
    if not history:
        part.words("No training history was stored with this checkpoint.")
        return
    data = str(selection.checkpoint.info.training.get("validation_data", "validation data"))
    teacher = scores[(scores["kind"] == "teacher") & (scores["data"] == data)]
    last = history[-1]
    part.figure(
        score_figures.training_history(
            score_figures.history_frame(history),
            data=data,
            teacher_score=None if teacher.empty else float(teacher["score"].iloc[0]),
        ),
        f"Validation score and losses over {len(history)} epochs; the last epoch's score is "
        f"{score_text(last['validation_score'], last['metric'])}.",
        f"Data: {data}, n = {int(last['validation_n']):,}.",
    )


def _usage(part: Section, selection: Selection) -> UsageStats | None:
    with suppress(ShrpError):  # a history that can't be read is told where training is
        for line in warning_lines(history_warnings(loaders.read_history(selection.name))):
            part.warning(_plain(line))
    if not selection.is_routed:
        part.words("This checkpoint has no routers: every input passes through the same weights.")
        return None
    data = selection.data
    if data is None:
        part.words("No data were at hand for this task, so usage could not be measured.")
        return None
    stats = loaders.usage_stats(
        selection.checkpoint, selection.checkpoint.fingerprint, selection.source, data, data.fingerprint
    )
    warnings = stats.warnings()
    for line in warning_lines(warnings):
        part.warning(_plain(line))
    if not warnings:
        part.words(f"No failure signature on {data.name}: neither collapse nor noisy usage.")
    counts = np.stack([stats.counts(layer) for layer in stats.layers])
    n = f"n = {stats.n:,} inputs" + (
        f" ({int(counts[0].sum()):,} real tokens)" if stats.unit == "tokens" else ""
    )
    heat = usage_figures.usage_heatmap(
        np.stack([stats.share(layer) for layer in stats.layers]),
        stats.layers,
        title="Top-1 share",
        subtitle=f"{n}; even use would be {percent(1 / stats.num_experts)}",
        measure="Top-1 share",
        counts=counts,
        unit=stats.unit,
    )
    for trace in heat.select_traces({"type": "scatter"}):  # there is nothing to open in a file
        trace.hovertext = [_CLICK.sub("", text) for text in trace.hovertext]
    layers = stats.summary()
    measured = f"Data: {data.name}, {n}."
    tops = "; ".join(
        f"layer {row.layer} expert {row.top_expert} ({percent(row.top_share)})" for row in layers.itertuples()
    )
    part.figure(heat, f"Top-1 share of each expert in each routed layer. Most used: {tops}.", measured)
    effective = "; ".join(f"layer {row.layer} {row.effective_experts:.1f}" for row in layers.itertuples())
    part.figure(
        usage_figures.evenness_bars(layers, stats.num_experts, subtitle="all inputs; dotted: even use"),
        f"Effective experts of each layer: {effective}.",
        measured,
    )
    shares = pd.DataFrame(
        [[layer, *(percent(share) for share in stats.share(layer))] for layer in stats.layers],
        columns=["layer", *(f"expert {e}" for e in range(stats.num_experts))],
    )
    part.table(shares, f"Top-1 shares on {data.name}, {n}, as a table", folded=True)
    return stats


def _curve(
    part: Section, selection: Selection, usage: UsageStats | None, evaluation: Evaluation | None
) -> None:
    checkpoint, data = selection.checkpoint, selection.data
    if not selection.is_routed:
        part.words("Without routers there is nothing left to prune by usage, so there is no curve.")
        return
    if usage is None or evaluation is None or data is None:
        part.words("Usage and scores could not be measured, so no curve can be drawn.")
        return
    for combination in lab.COMBINATIONS:
        lab_sweep.fill(checkpoint, data, lab.Setting(lab.GLOBAL, 1, combination=combination), usage)
    dense, metric = dense_cost(checkpoint.model, lab.TOKENS), data.task.metric
    tried = lab.attempts_frame(list(lab.tried(checkpoint, data).values()), dense)
    references = marks_frame(marks(checkpoint, data, evaluation), dense)
    best = lab_pareto.pareto(tried, _OVER)
    if tried.empty:
        part.words(
            "No pruning has been evaluated on these data yet: run a sweep in the Pruning lab and make the report "
            "again. The references alone are below."
        )
    part.figure(
        lab_curve.curve(tried, references, _OVER, metric, data.name, lab.TOKENS, best=best),
        f"Score against cost; settings evaluated: {len(tried)}, references: {len(references)}. "
        f"{lab_pareto.in_words(best, metric, _OVER)}.",
        f"Data: {data.name}, n = {len(data):,}; settings of this session and those kept on disk.",
    )
    if best.empty:
        return
    own = tried[~tried["control"] & tried["score"].notna()]
    part.words(lab_pareto.verdict(best, {}, metric, _OVER, own["plan"].nunique()))
    shown = lab_pareto.table(best, {}, metric)
    shown = shown[[name for name in shown if shown[name].astype(str).str.len().any()]]
    part.table(
        shown, f"Pareto-best settings on {data.name}; costs are shares of the dense encoder's and model's"
    )


def _examples(
    part: Section, selection: Selection, usage: UsageStats | None, evaluation: Evaluation | None
) -> None:
    data = selection.data
    if data is None or evaluation is None:
        part.words("The model could not be evaluated, so there are no examples.")
        return
    score = None if evaluation.labels is None else evaluation.score
    measured = with_interval(score, evaluation.interval, evaluation.metric, evaluation.n)
    part.words(f"Measured here on {data.name}: {measured}.")
    for title, rows in groups(evaluation).items():
        part.heading(title)
        if not len(rows):
            part.words("There is none.")
            continue
        inputs = evaluation.indices[rows]
        part.table(
            example_frame(evaluation, rows, data, usage),
            f"{len(rows)} of {evaluation.n:,} inputs of {data.name}"
            + ("; route: the expert taken in each layer, input side first" if usage is not None else ""),
            texts=data.task.text_columns,
        )
        if usage is None:
            continue
        seen = explore(
            selection.checkpoint.model,
            selection.checkpoint.tokenizer,
            data.task,
            [data.texts[i] for i in inputs],
        )
        labels = [
            f"{i}. {shorten(' / '.join(data.texts[i]), 38)}" for i in inputs.tolist()
        ]  # the index keeps equal texts apart
        longer = any(one.full_length > EVALUATED_TOKENS for one in seen)
        part.figure(
            routes_side_by_side(seen, labels=labels, title=f"Routes: {title[0].lower()}{title[1:]}"),
            f"The expert that each of these inputs takes in the routed layers "
            f"{', '.join(map(str, seen[0].layers))}, as in the table"
            + (f", where inputs are cut at {EVALUATED_TOKENS} tokens." if longer else "."),
            f"Data: {data.name}, n = {len(rows)} inputs picked by the outputs, not a sample.",
        )


def groups(evaluation: Evaluation, size: int = EXAMPLES) -> dict[str, np.ndarray]:
    """Which inputs to show: heading -> rows of the evaluation, the most telling first, at most `size` each.

    With labelled classes the surest right and the surest wrong answers; for numbers the least and the largest errors;
    without labels the surest and the least sure answers.
    """
    if evaluation.task.is_regression:
        if evaluation.labels is None:
            order = np.argsort(evaluation.predictions, kind="stable")
            return {"Lowest outputs": order[:size], "Highest outputs": order[::-1][:size]}
        errors = np.argsort(np.abs(evaluation.predictions - evaluation.labels), kind="stable")
        return {"Closest to the label": errors[:size], "Most wrong": errors[::-1][:size]}
    order = np.argsort(-evaluation.probabilities.max(axis=1), kind="stable")
    if evaluation.labels is None:
        return {"Most confident": order[:size], "Least confident": order[::-1][:size]}
    right = evaluation.correct[order]
    return {"Most confident and right": order[right][:size], "Most wrong": order[~right][:size]}


def example_frame(
    evaluation: Evaluation, rows: np.ndarray, data: TextData, usage: UsageStats | None
) -> pd.DataFrame:
    """One row an input, as texts: number, text, label, output, its probability, slice and route where known."""
    task, found = evaluation.task, []
    for row in rows.tolist():
        index, prediction = int(evaluation.indices[row]), evaluation.predictions[row]
        known: dict[str, str] = {"input": f"{index}"} | dict(zip(task.text_columns, data.texts[index]))
        if evaluation.labels is not None:
            known["label"] = _named(task.label_names, evaluation.labels[row])
        known["output"] = _named(task.label_names, prediction)
        if not task.is_regression:
            known["probability"] = percent(float(evaluation.probabilities[row].max()))
        if evaluation.slices is not None:
            known["slice"] = evaluation.slices[row].replace("_", " ")
        if usage is not None:
            known["route"] = " · ".join(
                f"L{layer}: {int(usage.top1[layer][index].argmax())}" for layer in usage.layers
            )
        found.append(known)
    return pd.DataFrame(found)


def _named(names: tuple[str, ...], value: float) -> str:
    return names[int(value)] if names else f"{float(value):.3f}"


def _reproduce(part: Section, selection: Selection) -> None:
    name = shlex.quote(selection.checkpoint.path.name)
    known = {"probe": "probe", "glue": "glue", "hub": "glue"}
    data = known.get(selection.source, "YOUR_FILE")
    part.words("From SHRP's folder, with the checkpoint's folder in place of its name:")
    lines = [
        f"python -m shrp evaluate {name} --data {data}",
        f"python -m shrp measure {name} --tokens {lab.TOKENS}",
    ]
    if selection.is_routed:
        lines.insert(1, f"python -m shrp usage {name} --data {data}")
        half = len(selection.checkpoint.info.config.layers) * 2
        lines.append(f"python -m shrp prune {name} --budget {half} --out pruned")
    part.code("\n".join([*lines, "streamlit run app.py"]))
    training = selection.checkpoint.info.training
    if (command := train_command(selection)) is not None:
        part.words("To train it again:")
        part.code(command)
        part.words(
            "Made from the settings that the checkpoint stores, over the recipe without additions; those that it "
            "doesn't store are the command's defaults, and numbers may differ a little between machines.",
            soft=True,
        )
    elif training:
        part.words("The checkpoint does not store its settings in full, so no command can be given.")


def train_command(selection: Selection) -> str | None:
    """The `shrp train` command of a routed checkpoint's stored settings; None where they are not stored."""
    info = selection.checkpoint.info
    config = info.training.get("config")
    if (
        not isinstance(config, Mapping)
        or not info.config.layers
        or info.config.control != "none"
        or info.plan
    ):
        return None
    trained_on = str(info.training.get("train_data", ""))
    data = (
        ["--task", info.task.name]
        if trained_on.startswith("glue/")
        else ["--train-file", "YOUR_TRAINING_FILE", "--validation-file", "YOUR_VALIDATION_FILE"]
    )
    words = ["python", "-m", "shrp", "train", "--base", info.base_model or "BASE", *data]
    # A setting that was not stored did not exist yet, and the plain recipe leaves it at what it was then.
    words += ["--recipe", "paper"]
    words += ["--layers", ",".join(map(str, info.config.layers)), "--routing", info.config.routing]
    words += ["--top-k", str(info.config.top_k)]
    if order := config.get("order"):
        words += ["--order", ",".join(map(str, order))]
    for option in _OPTIONS:
        value = config.get(option)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            words += [
                f"--{option.replace('_', '-')}",
                f"{value:g}" if isinstance(value, float) else str(value),
            ]
    if config.get("freeze_embeddings"):
        words.append("--freeze-embeddings")
    teacher = info.training.get("teacher")
    if isinstance(teacher, Mapping) and isinstance(teacher.get("epochs"), int):
        words += ["--teacher-epochs", str(teacher["epochs"])]
    return shlex.join([*words, "--out", selection.checkpoint.path.name])


_OPTIONS = (
    *(
        "stage2_epochs",
        "balance",
        "epoch_size",
        "conversion_size",
        "batch_size",
        "max_length",
        "learning_rate",
    ),
    *("new_learning_rate", "distill_logits", "distill_hidden", "expander_init", "swap", "exploration"),
    *("precision", "seed"),
)
"""Settings of a training run that `shrp train` takes under the same name."""


def _limits(part: Section, selection: Selection) -> None:
    lines = [
        "Intervals are 95% and cover the choice of these inputs only: not the seed of training, nor other data.",
        "FLOPs and parameters are counted from the architecture; time depends on the machine and is not in here.",
        "A share of the encoder and a share of the whole model differ: the embeddings are in the second alone.",
        "Examples are picked by the model's outputs, so they show its extremes and not how often they occur.",
        "Comparisons with controls are one by one, without a correction for their number.",
    ]
    if selection.is_routed:
        lines += [
            "Usage says where inputs go, not that an expert matters; the Attribution page measures that.",
            "The best point of a curve was picked on the inputs that it is scored on, which flatters it a little.",
        ]
    if selection.source == "probe":
        lines.append(
            "The probe set is made of sentences about single phenomena; it is no sample of real text."
        )
    part.bullets(lines)
