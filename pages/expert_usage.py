"""Expert usage: which experts a routed model uses, on what, and how that came about in training."""

from __future__ import annotations

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

from collections.abc import Mapping

import numpy as np
import pandas as pd
import streamlit as st

from shrp.data import TextData
from shrp.errors import ShrpError
from shrp.evenness import even_experts
from shrp.groups import LENGTH, OUTCOME, SLICE
from shrp.minimal_pairs import independent_choices, pairs_of
from shrp.route_table import route_table
from shrp.usage import UsageStats
from shrp.usage_difference import FEWEST, SMALLEST, usage_difference
from ui import (
    arrival,
    exchanged_routes,
    loaders,
    measurements,
    pair_routes,
    pairs_patched,
    specialisation_section,
    usage_figures,
    usage_history_figures,
)
from ui.bound import fall_back, restate
from ui.describe import kept_experts, summary_line
from ui.downloads import chart, downloads
from ui.expert_details import expert_details
from ui.store import once
from ui.tables import row_height
from ui.text import capital, escape, escape_html, percent, shorten

ALL = "all inputs"
SHARE, PROBABILITY = "Top-1 share", "mean probability"
_PICKER = 205  # pixels of a picker of inputs: both stand beside the measures in a window of 1200


def explain_no_routers(selection: state.Selection) -> None:
    """The empty state of checkpoints without routers."""
    model = selection.checkpoint.model
    st.info(
        "This checkpoint has no routers, so there is no usage to look at: every input passes through the same "
        "weights. Pick a routed checkpoint in the sidebar to see which experts it uses.",
        icon=":material/alt_route:",
    )
    config = model.config
    st.markdown(summary_line(selection.checkpoint.info, config.num_hidden_layers, config.num_attention_heads))
    arrival.page_link("pages/overview.py", "What it keeps, costs and scores: Overview")
    plan = selection.checkpoint.info.plan
    if plan is not None:
        st.subheader("What it keeps", anchor=False)
        st.caption("With the weights that took the routers' place.")
        st.dataframe(
            kept_experts(plan),
            hide_index=True,
            width="stretch",
            column_config={"layer": {"width": "small"}, "experts kept": {"width": "small"}},
            alt="Kept experts and weights of every static layer",
        )


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
        lambda _: usage_difference(stats, groups[group], groups[against], of, pairs=pairs_of(data)),
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


def slice_examples(data: TextData) -> None:
    """What the slices are, shown by an input of each class in each of them."""
    frame = slice_frame(data)
    if frame.empty:
        return
    count = frame["slice"].nunique()
    what = "the slice is" if count == 1 else f"the {count} slices are"
    with st.expander(f"What {what}, by examples", icon=":material/label:"):
        st.dataframe(
            frame,
            hide_index=True,
            width="stretch",
            height="content" if len(frame) <= 30 else 600,
            row_height=row_height(frame["example"].str.len().max(), 330, most=88),
            column_config={
                "slice": st.column_config.TextColumn(width=125),
                "n": st.column_config.NumberColumn(width=45, help="Inputs of this slice and class"),
                "label": st.column_config.Column(width=90),
                "example": st.column_config.TextColumn(width=330, help="The first such input of the data"),
            },
            alt="An example of each slice and class",
        )


def slice_frame(data: TextData) -> pd.DataFrame:
    """A row for each slice, and for each class in it where these are known: slice, (label), n, example."""
    if data.slices is None:
        return pd.DataFrame()
    frame = pd.DataFrame({"slice": data.slices, "example": [" / ".join(texts) for texts in data.texts]})
    by = ["slice"]
    if data.labels is not None and not data.task.is_regression:
        frame["label"] = [data.task.label_names[label] for label in data.labels]
        by.append("label")
    found = frame.groupby(by, sort=False)["example"].agg(n="size", example="first").reset_index()
    return found.replace({name: {"_": " "} for name in by}, regex=True)


def cell_picker(stats: UsageStats, start: tuple[int, int]) -> tuple[int, int]:
    """The boxes that hold the chosen cell; a click on the heatmap sets them.

    Args:
        start: the cell that is chosen at first, which the address leaves out.
    """
    one, two, words = st.columns([1, 1, 3], vertical_alignment="bottom")
    place, experts = stats.layers.index(start[0]), range(stats.num_experts)
    fall_back(state.EXPERT, experts, start[1])
    restate(state.LAYER, start[0])
    restate(state.EXPERT, start[1])
    layer = one.selectbox("Layer", stats.layers, place, key=state.LAYER, bind="query-params")
    expert = two.selectbox("Expert", experts, start[1], key=state.EXPERT, bind="query-params")
    # Not a caption, whose pale links are not legible.
    words.markdown("Click a cell of the map, or pick here: the expert's [profile](#expert) is below.")
    return layer, expert


def over_training(name: str, training: dict) -> None:
    """What the history of the training shows of usage.

    Args:
        training: of the checkpoint's info.
    """
    st.header("Usage over training", anchor="training")
    try:
        frame = usage_history_figures.training_frame(loaders.read_history(name))
    except ShrpError as error:
        state.show_error(error)
        return
    if frame.empty:
        st.info(
            "No training history was stored with this checkpoint, so how its usage came about can't be shown. "
            "`python -m shrp train` writes it (history.jsonl).",
            icon=":material/history:",
        )
        return
    data = escape_html(str(training.get("validation_data", "validation data")))
    counted = usage_history_figures.counted_on(frame, data)
    subtitle = f"Top-1 shares by epoch, {counted}; a layer appears with its conversion"
    evened = training.get("config", {}).get("balance", 1) != 0
    stages = (
        "Stage 1 converts the layers under a loss that evens usage; stage 2 drops that loss, and usage may become "
        "uneven. "
    )
    st.caption(
        f"{stages if evened else ''}That an expert is chosen for some inputs does not show that it does anything "
        "special for them: see what knocking it out changes, in its profile and, for all experts, on Attribution."
    )
    chart(
        usage_history_figures.evenness_over_training(
            frame, subtitle=f"{subtitle}; dotted: all experts used evenly"
        ),
        frame,
        key="evenness-history",
        name=f"{name}-evenness-over-training",
        alt="Effective experts of every layer after each epoch.",
    )
    chart(
        usage_history_figures.usage_over_training(
            frame, subtitle=f"{subtitle}; the line: where stage 2 begins"
        ),
        frame,
        key="usage-history",
        name=f"{name}-usage-over-training",
        alt="Top-1 share of every expert after each epoch, a panel a layer.",
    )


def measured(selection: state.Selection) -> None:
    """Everything that the picked data show, once the model has seen them."""
    try:
        stats = measurements.usage_stats(selection.checkpoint, selection.data)
    except ShrpError as error:
        state.show_error(error)
        return
    counted = (
        "Every real token picks its own experts, so shares count **tokens**, `[CLS]`, `[SEP]` and their like among "
        "them; probabilities are means over an input's tokens."
        if stats.unit == "tokens"
        else "Every input picks its experts as a whole, so shares count **inputs**."
    )
    st.markdown(f"**{escape(selection.name)}** on {escape(stats.data)}. {counted}")
    top = stats.layers[-1]
    start = top, int(stats.share(top).argmax())
    arrival.arrive({state.LAYER: int, state.EXPERT: int})
    state.seed_cell(stats.layers, *start)
    above = st.container()  # the map shows what the boxes hold, so they are drawn first and stand below it
    layer, expert = cell_picker(stats, start)
    with above:
        group, rows = usage_map(selection, stats)
        routes_of_all(selection, stats)
        slice_examples(selection.data)
    file_name = f"{selection.name}-layer{layer}-expert{expert}"
    picked = {} if group == ALL else {group: rows}
    expert_details(selection.checkpoint, stats, selection.data, layer, expert, file_name=file_name, of=picked)
    specialisation_section.section(selection, stats, layer, expert)
    exchanged_routes.section(selection, stats)
    try:
        pair_routes.section(selection, stats, layer)
    except ShrpError as error:  # outputs that are no numbers say nothing of which input of a pair is which
        state.show_error(error)
    pairs_patched.section(selection)


selection = state.current()
st.title("Expert usage", anchor=False)
if not selection.is_routed:
    explain_no_routers(selection)
    pairs_patched.section(selection)
    st.stop()
first = st.container()
over_training(
    selection.name, dict(selection.checkpoint.info.training)
)  # needs no model, so it is there at once
with first:
    measured(selection)
