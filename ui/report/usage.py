"""The report's parts on usage: who is used, and what prunings by it scored and cost."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd

from shrp.analysis.specialisation import specialisation_frame
from shrp.analysis.usage import UsageStats, history_warnings
from shrp.data.text_data import pairs_of
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.minimal_pairs import independent_choices
from shrp.phrases import listed
from ui import loaders, measurements
from ui.expert.results import shuffled
from ui.floor import floor_of
from ui.lab import curve as lab_curve
from ui.lab import pareto as lab_pareto
from ui.lab import sweep as lab_sweep
from ui.lab import work as lab
from ui.lab.marks import marks, marks_frame
from ui.report.parts import Section
from ui.state import Selection
from ui.text import percent, plain, warning_lines
from ui.usage import exchanged_routes
from ui.usage import figures as usage_figures
from ui.usage import specialisation as specialisation_section

_OVER = "encoder_flops"


def usage_part(part: Section, selection: Selection) -> UsageStats | None:
    """Usage on the data; returns it, or None where there is nothing to measure."""
    with suppress(ShrpError):  # a history that can't be read is told where training is
        for line in warning_lines(history_warnings(loaders.read_history(selection.name))):
            part.warning(plain(line))
    if not selection.is_routed:
        part.words("This checkpoint has no routers: every input passes through the same weights.")
        return None
    data = selection.data
    if data is None:
        part.words(f"Usage could not be measured. {selection.no_data}")
        return None
    stats = measurements.usage_stats(selection.checkpoint, data)
    warnings = stats.warnings()
    for line in warning_lines(warnings):
        part.warning(plain(line))
    if stats.too_few:
        part.words(
            f"n = {stats.n:,} inputs are too few to tell collapse, noisy usage or near ties by; it takes "
            f"{stats.too_few}."
        )
    elif not warnings:
        part.words(f"No failure signature on {data.name}: neither collapse, noisy usage nor near ties.")
    counts = np.stack([stats.counts(layer) for layer in stats.layers])
    n = usage_figures.counted_words(stats.n, counts, stats.unit)
    heat = usage_figures.usage_heatmap(
        np.stack([stats.share(layer) for layer in stats.layers]),
        stats.layers,
        title="Top-1 share",
        subtitle=f"{n}; even use would be {percent(1 / stats.num_experts)}",
        measure="Top-1 share",
        counts=counts,
        unit=stats.unit,
    )
    layers = stats.summary()
    measured = f"Data: {data.name}, {n}."
    tops = "; ".join(
        f"layer {row.layer} expert {row.top_expert} ({percent(row.top_share)})" for row in layers.itertuples()
    )
    part.figure(heat, f"Top-1 share of each expert in each routed layer. Most used: {tops}.", measured)
    every, counted = np.ones(stats.n, dtype=bool), int(counts[0].sum())
    if stats.unit == "inputs":
        counted = independent_choices(stats, every, pairs_of(data))
    effective = "; ".join(f"layer {row.layer} {row.effective_experts:.1f}" for row in layers.itertuples())
    part.figure(
        usage_figures.evenness_bars(layers, stats.num_experts, counted, subtitle=f"{n}; dotted: even use"),
        f"Effective experts of each layer: {effective}.",
        measured,
    )
    shares = pd.DataFrame(
        [[layer, *(percent(share) for share in stats.share(layer))] for layer in stats.layers],
        columns=["layer", *(f"expert {e}" for e in range(stats.num_experts))],
    )
    part.table(shares, f"Top-1 shares on {data.name}, {n}, as a table", folded=True)
    _routes(part, selection, stats, measured)
    return stats


def _routes(part: Section, selection: Selection, stats: UsageStats, measured: str) -> None:
    """What routing goes by, and whether it matters that routes are the inputs' own."""
    groupings = specialisation_section.measured(selection, stats)
    if groupings:
        frame = specialisation_frame(groupings)
        if frame["explained"].notna().any():
            part.figure(
                specialisation_section.explained_marks(frame, f"n = {stats.n:,}"),
                f"How much {listed(dict.fromkeys(frame['by']))} tell of the expert, layer by layer.",
                measured,
            )
        part.words("What routing goes by:")
        part.bullets(plain(line) for line in specialisation_section.said(frame))
        part.words(specialisation_section.explanation(selection.data), soft=True)
    if stats.n > 1:
        found = shuffled(selection.checkpoint, selection.data, stats)
        part.words("What is lost without routes, by wrong ones, and by others of the same answer, untrained:")
        part.bullets(plain(line) for line in exchanged_routes.said(found))
        part.words(
            f"Wrong routes and those of the same answer are means of {found.frame['draws'].max()} random draws, with "
            "the intervals of these means.",
            soft=True,
        )


def curve_part(
    part: Section, selection: Selection, usage: UsageStats | None, evaluation: Evaluation | None
) -> None:
    """The curve of what was evaluated so far, and its Pareto-best settings."""
    checkpoint, data = selection.checkpoint, selection.data
    if not selection.is_routed:
        part.words("Without routers there is nothing left to prune by usage, so there is no curve.")
        return
    if usage is None or evaluation is None or data is None:
        part.words("Usage and scores could not be measured, so no curve can be drawn.")
        return
    if data.labels is None:
        part.words(f"{data.name} has no labels, so there is no score to draw against cost.")
        return
    for combination in lab.COMBINATIONS:
        lab_sweep.fill(checkpoint, data, lab.Setting(lab.GLOBAL, 1, combination=combination), usage)
    dense, metric = dense_cost(checkpoint.model, TOKENS), data.task.metric
    tried = lab.attempts_frame(list(lab.tried(checkpoint, data).values()), dense)
    references = marks_frame(marks(checkpoint, data, evaluation), dense)
    best = lab_pareto.pareto(tried, _OVER)
    if tried.empty:
        part.words(
            "No pruning has been evaluated on these data yet: run a sweep in the Pruning lab and make the report "
            "again. The references alone are below."
        )
    part.figure(
        lab_curve.curve(tried, references, _OVER, metric, data.name, best=best, floor=floor_of(data)),
        f"Score against cost; settings evaluated: {len(tried)}, references: {len(references)}. "
        f"{lab_pareto.in_words(best, metric, _OVER)}.",
        f"Data: {data.name}, n = {len(data):,}; settings of this session and those kept on disk.",
    )
    if best.empty:
        return
    part.words(lab_pareto.verdict(best, {}, metric, _OVER, tried))
    shown = lab_pareto.table(best, {}, metric)
    shown = shown[[name for name in shown if shown[name].astype(str).str.len().any()]]
    part.table(
        shown, f"Pareto-best settings on {data.name}; costs are shares of the dense encoder's and model's"
    )
