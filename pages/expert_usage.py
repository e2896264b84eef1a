"""Expert usage: which experts a routed model uses, on what, and how that came about in training."""

from __future__ import annotations

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from ui import arrival, measurements
from ui.attribution.data import data_part
from ui.describe import kept_experts, summary_line
from ui.expert.details import expert_details
from ui.tables import row_height
from ui.text import escape
from ui.usage import exchanged_routes
from ui.usage import specialisation as specialisation_section
from ui.usage.map import ALL, routes_of_all, usage_map
from ui.usage.over_training import over_training


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
    experts = range(stats.num_experts)
    state.follow_cell(stats.layers, experts, start)
    one, two, words = st.columns([1, 1, 3], vertical_alignment="bottom")
    layer = one.selectbox("Layer", stats.layers, key=state.LAYER)
    expert = two.selectbox("Expert", experts, key=state.EXPERT)
    # Not a caption, whose pale links are not legible.
    words.markdown("Click a cell of the map, or pick here: the expert's [profile](#expert) is below.")
    return layer, expert


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


selection = state.current("Expert usage", named=False)  # the first sentence names the checkpoint
if not selection.is_routed:
    explain_no_routers(selection)
    data_part(selection, None)
    st.stop()
first = st.container()
over_training(
    selection.name, dict(selection.checkpoint.info.training)
)  # needs no model, so it is there at once
with first:
    measured(selection)
data_part(selection, None)
