"""The map of Expert usage: who is used, on what, and by which group of inputs unlike another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.routes import FEWEST, SMALLEST, usage_difference
from shrp.analysis.usage import UsageStats, even_experts, route_table
from shrp.data.slices import LENGTH, OUTCOME, SLICE
from shrp.data.text_data import pairs_of
from shrp.evaluation.minimal_pairs import independent_choices
from ui import measurements, state
from ui.bound import fall_back
from ui.downloads import chart, downloads
from ui.store import once
from ui.text import capital, escape_html, percent, shorten
from ui.usage import figures as usage_figures

ALL = "all inputs"
SHARE, PROBABILITY = "Top-1 share", "mean probability"
_PICKER = 205  # pixels of a picker of inputs: both stand beside the measures in a window of 1200


def groups_of(selection: state.Selection, stats: UsageStats) -> dict[str, np.ndarray]:
    """Every selection of inputs that can be looked at: all, and the groups of every grouping."""
    found = {ALL: np.ones(stats.n, dtype=bool)}
    for by, groups in measurements.groups(selection.checkpoint, selection.data, stats).items():
        found |= {f"{by}: {name}": mask for name, mask in groups.items()}
    return found


def matrix(stats: UsageStats, measure: str, rows: np.ndarray) -> np.ndarray:
    """`(L, H)` of the chosen measure over the marked inputs."""
    of = stats.share if measure == SHARE else stats.mean_probs
    return np.stack([of(layer, rows) for layer in stats.layers])


def difference_of(
    selection: state.Selection,
    stats: UsageStats,
    measure: str,
    groups: Mapping[str, np.ndarray],
    group: str,
    against: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`usage_difference` of two groups, kept: a table of many thousand inputs takes seconds."""
    checkpoint, data = selection.checkpoint, selection.data
    of = "share" if measure == SHARE else "mean_probs"
    return once(
        "usage differences",
        32,
        (checkpoint.fingerprint, data.fingerprint, data.pairs, measure, group, against),
        "Comparing the two groups",
        lambda progress: usage_difference(
            stats, groups[group], groups[against], of, pairs=pairs_of(data), progress=progress
        ),
    )


def usage_map(selection: state.Selection, stats: UsageStats) -> tuple[str, np.ndarray]:
    """The controls and the heatmap, with the evenness of each layer beside it.

    Returns:
        The picked group's name, and which inputs are in it, `(N,)`.
    """
    name = selection.name
    groups = groups_of(selection, stats)
    row = st.container(horizontal=True, gap="medium")  # in a narrow window what does not fit goes below
    measure = row.segmented_control(
        "Measure",
        [SHARE, PROBABILITY],
        default=SHARE,
        required=True,
        key="measure",
        bind="query-params",
        help=f"**{SHARE}**: the part of the choices, of inputs or tokens, that fall on an expert as the most probable "
        f"one. **{PROBABILITY}**: what the router gives it, over all of them, chosen or not.",
    )
    fall_back("group", groups, ALL)
    group = row.selectbox("Inputs", list(groups), key="group", bind="query-params", width=_PICKER)
    others = ["nothing", *groups]
    fall_back("against", others, "nothing")
    against = row.selectbox(
        "Difference to",
        others,
        key="against",
        bind="query-params",
        width=_PICKER,
        help="Shows how much more (orange) or less (blue) each expert is used for the inputs on the left "
        "than for these.",
    )
    values, rows = matrix(stats, measure, groups[group]), groups[group]
    counts = np.stack([stats.counts(layer, rows) for layer in stats.layers])
    n = usage_figures.counted_words(int(rows.sum()), counts, stats.unit)
    subtitle = f"{escape_html(stats.data)}, {escape_html(group)}, {n}"
    difference, ends = against != "nothing", None
    if difference:
        values, ends, by_chance = difference_of(selection, stats, measure, groups, group, against)
        subtitle = (
            f"percentage points<br>{escape_html(stats.data)}: {escape_html(group)} (n = {int(rows.sum()):,}) minus "
            f"{escape_html(against)} (n = {int(groups[against].sum()):,})"
        )
    else:
        subtitle += f"<br>even use would be {percent(1 / stats.num_experts)}"
    title = f"Difference in {measure}" if difference else capital(measure)
    frame = pd.DataFrame(
        [
            (layer, e, values[i, e], int(counts[i, e]))
            for i, layer in enumerate(stats.layers)
            for e in range(stats.num_experts)
        ],
        columns=[
            "layer",
            "expert",
            ("difference in " if difference else "") + measure,
            f"{stats.unit} (Top-1)",
        ],
    )
    if ends is not None:
        frame["low"], frame["high"] = ends.reshape(-1, 2).T
    frame = frame.assign(data=stats.data, group=group, n=int(rows.sum()))
    if difference:
        frame = frame.assign(against=against, against_n=int(groups[against].sum()))
    heat, bars = st.columns([3, 1], gap="small")
    with heat:
        chart(
            usage_figures.usage_heatmap(
                values,
                stats.layers,
                title=title,
                subtitle=subtitle,
                measure=measure,
                counts=counts,
                unit=stats.unit,
                difference=difference,
                ends=ends,
                selected=(st.session_state[state.LAYER], st.session_state[state.EXPERT]),
            ),
            frame,
            key="usage-map",
            name=f"{name}-usage",
            alt=f"{title} of {stats.num_experts} experts in layers {stats.layers[0]} to {stats.layers[-1]}.",
            hint="The same as a table: the CSV below. Pick a layer and an expert in the boxes below the chart.",
            on_select=lambda: state.pick_cell("usage-map"),
        )
        if ends is not None:
            st.caption(chance_words(ends, by_chance, len(pairs_of(selection.data)) > 0))
    with bars:
        summary = stats.summary(rows)
        by, _, short = group.partition(": ")  # a class and an answer may have one name; there is little room
        of = escape_html(short if by in (SLICE, OUTCOME, LENGTH) else group)
        # The chart is narrow, and the map beside it has the whole name.
        of = f"{of}, n = {int(rows.sum()):,}<br>{escape_html(shorten(stats.data, 26))}"
        counted = int(stats.counts(stats.layers[0], rows).sum())
        paired = pairs_of(selection.data)
        if stats.unit == "inputs":
            counted = independent_choices(stats, rows, paired)
        chart(
            usage_figures.evenness_bars(summary, stats.num_experts, counted, subtitle=of),
            summary.assign(group=group, n=int(rows.sum()), data=stats.data),
            key="evenness",
            name=f"{name}-evenness",
            alt="Effective experts: "
            + "; ".join(f"layer {r.layer} {r.effective_experts:.1f}" for r in summary.itertuples())
            + f"; even use would show {even_experts(counted, stats.num_experts):.1f}" * bool(counted)
            + ", counting both inputs of a minimal pair as one as far as they route alike"
            * bool(len(paired) and stats.unit == "inputs"),
        )
    return group, rows


def chance_words(ends: np.ndarray, by_chance: np.ndarray, paired: bool) -> str:
    """How many of some differences `(L, H, 2)` are beyond chance, and how many would be by chance.

    Args:
        ends: their intervals.
        by_chance: counts, as of `usage_difference`.
        paired: whether the data have minimal pairs.
    """
    known = int(np.isfinite(ends[..., 0]).sum())
    if not known:
        return "No difference has an interval: too few inputs, or the same ones."
    found = int(usage_figures.beyond_chance(ends).sum())
    shown = (
        "In bold" if ends.shape[1] <= usage_figures.LABELLED else "Beyond chance, as hovers and the CSV tell"
    )
    over = "bootstrap over inputs" + (", both of a minimal pair drawn as one" if paired else "")
    return (
        f"{shown}: the {found} of {known} differences whose 95% interval ({over}) excludes 0. With no "
        f"real differences {by_chance.mean():.1f} would be so on average, and in 19 of 20 cases at most "
        f"{np.quantile(by_chance, 0.95, method='higher'):.0f}, as experts and layers move together. "
        f"An interval is given where at least {FEWEST} inputs of the smaller group are expected to choose the expert, "
        f"and {FEWEST} not to (mean probability: where both groups have {SMALLEST} inputs"
        f"{'; a pair counts as one' * paired})."
    )


def routes_of_all(selection: state.Selection, stats: UsageStats) -> None:
    """What the map counts, input by input, to take away."""
    checkpoint, data = selection.checkpoint, selection.data
    words, button = st.columns([4, 1], vertical_alignment="center")
    words.caption(
        f"The routes of all {stats.n:,} inputs as a table: text, the model's answer, and for every layer the expert, "
        "its probability and the router's margin"
        + (" (the expert of most tokens, and means over tokens)." if stats.unit == "tokens" else ".")
    )
    with button:
        downloads(
            lambda: route_table(
                stats,
                data,
                measurements.answers(checkpoint, data, stats),
                measurements.token_lengths(checkpoint, data),
            ),
            "routes",
            f"{selection.name}-routes",
        )
