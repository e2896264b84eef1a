"""The parts of the routing page: predictions, an input's routes, models without routers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.analysis.usage import NOISY_MARGIN
from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from ui import arrival, expert_cells
from ui.describe import kept_experts
from ui.downloads import chart, downloads
from ui.known_labels import labels_of
from ui.routing import figures
from ui.routing import force as routing_force
from ui.state import EXPERT, LAYER, Selection
from ui.tables import row_height
from ui.text import escape, percent

LABEL = "label"


def predictions(found: list[Exploration], evaluated: int, name: str, data: TextData | None) -> None:
    """The table of predictions, one row an input.

    Args:
        evaluated: tokens at which usage and scores cut an input.
        name: the checkpoint's.
        data: the picked data, whose labels are told of inputs that are among them.
    """
    task = found[0].task
    classes = [f"p({name})" for name in task.label_names]
    labels = labels_of(data, [e.text for e in found])
    ours = ["input", "prediction", "tokens read", *classes]
    if any(label is not None for label in labels):
        ours.append(LABEL)
    texts = distinct(task.text_columns, ours)
    rows = []
    for number, (e, label) in enumerate(zip(found, labels, strict=True), 1):
        row = {"input": number} | dict(zip(texts, e.text)) | {"prediction": e.answer}
        row |= {LABEL: label} if LABEL in ours else {}
        row |= {name: float(p) for name, p in zip(classes, e.probabilities)}
        row["tokens read"] = (
            f"{len(e.tokens):,} of {e.full_length:,}" if e.truncated else f"{len(e.tokens):,}"
        )
        rows.append(row)
    frame = pd.DataFrame(rows)
    st.header("Predictions", anchor=False)
    bars = {
        name: st.column_config.ProgressColumn(
            name,
            min_value=0.0,
            max_value=100.0,
            format="%.1f%%",
            help="Probability of the class",
            width=120,
        )
        for name in classes
    }
    told = {LABEL: st.column_config.Column(help=f"In {escape(data.name)}", width=65)} if LABEL in ours else {}
    # Narrow enough that all is in sight in a window of 1200 pixels; a wide one shares out what is left.
    width = (205 if told else 270) // len(texts)
    widths = {name: st.column_config.TextColumn(name, width=width) for name in texts}
    height = row_height(max(frame[name].str.len().max() for name in texts), width, most=130)
    st.dataframe(
        _in_percent(frame, classes),
        hide_index=True,
        column_config=bars | told | widths | {"input": st.column_config.NumberColumn("input", width=60)},
        placeholder="–",
        row_height=height,
        height="content" if height * len(frame) <= 350 else 390,
        alt="Table of the inputs with their prediction and class probabilities",
    )
    downloads(frame, "predictions", f"{name}-predictions")
    for note in lengths(found, evaluated):
        st.caption(f":material/content_cut: {note}")
    if unknown := [i for i, e in enumerate(found, 1) if e.unknown]:
        st.caption(
            f":material/question_mark: {_inputs(unknown).capitalize()} {'have' if len(unknown) > 1 else 'has'} words "
            "that the model's vocabulary lacks; it reads its one unknown token for them. Attribution names them."
        )


def lengths(found: list[Exploration], evaluated: int) -> list[str]:
    """Sentences on inputs that the model can't read whole, or that usage and scores would cut earlier."""
    notes = []
    if cut := [i for i, e in enumerate(found, 1) if e.truncated]:
        limit = max(len(e.tokens) for e in found)
        notes.append(
            f"At most {limit:,} tokens can be read; this cut {_inputs(cut)}. What follows is of the part that was read."
        )
    if long := [i for i, e in enumerate(found, 1) if len(e.tokens) > evaluated]:
        notes.append(
            f"This page reads as much as the model can, but usage and scores cut every input at {evaluated} "
            f"tokens, so there {_inputs(long)} would count with the beginning only."
        )
    return notes


def _inputs(numbers: Sequence[int]) -> str:
    return f"input{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _in_percent(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A table's shares times 100, since a column's format can't do that with one decimal."""
    return frame.assign(**{name: 100 * frame[name] for name in columns if name in frame})


def no_router(selection: Selection) -> None:
    """Why there is no routing to show, and what the model does instead."""
    info = selection.checkpoint.info
    if info.plan is not None:
        st.info(
            "This checkpoint is pruned: its routers are gone, and every input takes the same kept experts. "
            "The table shows them with their weights; pick a routed checkpoint to see routes.",
            icon=":material/content_cut:",
        )
        st.dataframe(
            kept_experts(info.plan),
            hide_index=True,
            width="content",
            alt="Kept experts and weights of every static layer",
        )
        return
    st.info(
        "This checkpoint's layers are all dense, so nothing is routed. Pick a routed checkpoint to see routes."
    )


def agreement(found: list[Exploration]) -> str:
    """In which layers the inputs' routes differ, in words."""
    layers, by_token = found[0].layers, found[0].by_token
    k = max((e.several(layer) for e in found for layer in layers), default=1)

    def taken(e: Exploration, layer: int) -> frozenset[int]:
        return frozenset([e.choice(layer)] if by_token else np.flatnonzero(e.fires(layer)[0]).tolist())

    differ = [layer for layer in layers if len({taken(e, layer) for e in found}) > 1]
    same_expert = "the same expert" if by_token or k == 1 else f"the same {k} experts"
    who = "Both inputs" if len(found) == 2 else f"All {len(found)} inputs"
    how = " (by the expert that most of their tokens choose)" if by_token else ""
    if not differ:
        return f"{who} take {same_expert} in every one of the {len(layers)} routed layers{how}."
    near = [layer for layer in differ if min(e.margin(layer) for e in found) < NOISY_MARGIN]
    two = (
        "two largest router probabilities"
        if k == 1
        else "last router probability that is taken and first that is not"
    )
    close = (
        f" In {_layers(near)} that is a close call: an input's {two} are less than {percent(NOISY_MARGIN, 0)} apart, "
        "so little may change its route."
        if near
        else ""
    )
    if len(differ) == len(layers):
        return f"In none of the {len(layers)} routed layers do they all take {same_expert}{how}.{close}"
    same = len(layers) - len(differ)
    return (
        f"{who} take {same_expert} in {same} of {len(layers)} routed layers{how}; they differ in "
        f"{_layers(differ)}.{close}"
    )


def _layers(numbers: Sequence[int]) -> str:
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def one_input(selection: Selection, e: Exploration, number: int, top: float, *, pick: bool = False) -> None:
    """Router probabilities, choices, and for token routing the token map.

    Args:
        top: end of the colour scale.
        pick: a click in the token map picks the token that an expert can be forced for.
    """
    chart(
        figures.router_heatmap(e, number, top),
        e.to_frame,
        f"router-{number}",
        f"{selection.name}-router-{number}",
        f"Heatmap of input {number}'s router probabilities, layers by experts; chosen experts: "
        + ", ".join(f"layer {layer} expert {e.choice(layer)}" for layer in e.layers),
    )
    if e.by_token:
        key = f"tokens-{number}"
        token = routing_force.picked_token(e) if pick else None
        chart(
            expert_cells.token_map(e, number, pick=pick, token=token),
            e.to_frame,
            key,
            f"{selection.name}-tokens-{number}",
            f"Heatmap of the expert that each of input {number}'s {len(e.tokens)} tokens takes in each layer",
            on_select=(lambda: routing_force.click_token(key, e)) if pick else None,
        )
    shares, k = ("probability", "share of tokens"), max(map(e.several, e.layers), default=1)
    columns = {name: st.column_config.NumberColumn(name, format="%.1f%%") for name in shares}
    columns["margin"] = st.column_config.NumberColumn(
        "margin",
        format="%.2f",
        help=(
            "Largest minus second largest router probability"
            if k == 1
            else f"The {k} largest router probabilities are taken: the last of them minus the next"
        )
        + (", averaged over tokens" if e.by_token else "")
        + "; near 0 the choice is a toss-up.",
    )
    st.dataframe(
        _in_percent(e.choices().drop(columns="its probability"), shares),
        hide_index=True,
        column_config=columns,
        height="content",
        alt=f"Choices of input {number}: expert, probability, runner-up and margin in each layer",
    )
    st.caption("What is each of these experts for? Expert usage shows who else takes it:")
    with st.container(horizontal=True, gap="small"):
        for layer in e.layers:
            expert = e.choice(layer)
            arrival.page_link(
                "pages/expert_usage.py",
                f"layer {layer}, expert {expert}",
                asked=arrival.link({LAYER: layer, EXPERT: expert}),
            )
