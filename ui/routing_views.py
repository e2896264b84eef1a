"""The parts of the routing page: predictions, an input's routes, what-if matrices, models without routers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from shrp.explore import Exploration
from ui import expert_cells
from ui import routing_figures as figures
from ui.downloads import chart, downloads
from ui.sentences import forced
from ui.state import Selection
from ui.text import escape, percent

CLASS = "what_if_class"


def predictions(found: list[Exploration]) -> None:
    """The table of predictions, one row an input."""
    task = found[0].task
    rows = []
    for number, e in enumerate(found, 1):
        row = {"input": number} | dict(zip(task.text_columns, e.text)) | {"prediction": e.answer}
        row |= {f"p({name})": float(p) for name, p in zip(task.label_names, e.probabilities)}
        row["tokens read"] = (
            f"{len(e.tokens):,} of {e.full_length:,}" if e.truncated else f"{len(e.tokens):,}"
        )
        rows.append(row)
    frame = pd.DataFrame(rows)
    st.subheader("Predictions", anchor=False)
    classes = [f"p({name})" for name in task.label_names]
    bars = {
        name: st.column_config.ProgressColumn(
            name, min_value=0.0, max_value=100.0, format="%.1f%%", help="Probability of the class"
        )
        for name in classes
    }
    widths = {name: st.column_config.TextColumn(name, width="large") for name in task.text_columns}
    st.dataframe(
        _in_percent(frame, classes),
        hide_index=True,
        column_config=bars | widths | {"input": st.column_config.NumberColumn("input", width=60)},
        height="content" if len(frame) <= 10 else 390,
        alt="Table of the inputs with their prediction and class probabilities",
    )
    downloads(frame, "predictions", "predictions")
    cut = [str(i) for i, e in enumerate(found, 1) if e.truncated]
    if cut:
        limit = max(len(e.tokens) for e in found)
        st.caption(
            f":material/content_cut: At most {limit:,} tokens can be read; this cut "
            f"input{'s' if len(cut) > 1 else ''} {', '.join(cut)}."
        )


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
        plan = pd.DataFrame(
            [
                {
                    "layer": layer,
                    "experts kept": len(kept.experts),
                    "experts (weight)": ", ".join(
                        f"{e} ({percent(w)})" for e, w in zip(kept.experts, kept.weights, strict=True)
                    ),
                }
                for layer, kept in info.plan.layers
            ]
        )
        st.dataframe(
            plan, hide_index=True, width="content", alt="Kept experts and weights of every static layer"
        )
        return
    reasons = {
        "dropped": "This checkpoint is a control whose layers were dropped, so there is nothing to route.",
        "uniform": "This checkpoint is a control without routers: all experts weigh the same, always.",
    }
    dense = "This checkpoint's layers are all dense, so nothing is routed."
    st.info(f"{reasons.get(info.config.control, dense)} Pick a routed checkpoint to see routes.")


def agreement(found: list[Exploration]) -> str:
    """In which layers the inputs' routes differ, in words."""
    layers = found[0].layers
    differ = [layer for layer in layers if len({e.choice(layer) for e in found}) > 1]
    who = "Both inputs" if len(found) == 2 else f"All {len(found)} inputs"
    how = " (by the expert that most of their tokens choose)" if found[0].by_token else ""
    if not differ:
        return f"{who} take the same expert in every one of the {len(layers)} routed layers{how}."
    if len(differ) == len(layers):
        return f"In none of the {len(layers)} routed layers do they all take the same expert{how}."
    same, names = len(layers) - len(differ), ", ".join(map(str, differ))
    where = f"layer{'s' if len(differ) > 1 else ''} {names}"
    return (
        f"{who} take the same expert in {same} of {len(layers)} routed layers{how}; they differ in {where}."
    )


def one_input(selection: Selection, e: Exploration, number: int, top: float) -> None:
    """Router probabilities, choices, and for token routing the token map."""
    chart(
        figures.router_heatmap(e, number, top),
        e.to_frame,
        f"router-{number}",
        f"{selection.name}-router-{number}",
        f"Heatmap of input {number}'s router probabilities, layers by experts; chosen experts: "
        + ", ".join(f"layer {layer} expert {e.choice(layer)}" for layer in e.layers),
    )
    if e.by_token:
        chart(
            expert_cells.token_map(e, number),
            e.to_frame,
            f"tokens-{number}",
            f"{selection.name}-tokens-{number}",
            f"Heatmap of the expert that each of input {number}'s {len(e.tokens)} tokens takes in each layer",
        )
    shares = ("probability", "share of tokens", "margin")
    columns = {name: st.column_config.NumberColumn(name, format="%.1f%%") for name in shares}
    columns["margin"] = st.column_config.NumberColumn(
        "margin",
        format="%.1f%%",
        help="Largest minus second largest router probability"
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


def what_if_section(selection: Selection, shown: list[Exploration]) -> None:
    """The change of a class's logit under every forced expert."""
    task = shown[0].task
    st.subheader("What if another expert were taken?")
    st.markdown(
        "Each cell forces one expert in one layer"
        + (" for all tokens" if shown[0].by_token else "")
        + "; the layers above then route by themselves."
    )
    output = 0
    if task.label_names:
        if st.session_state.get(CLASS) not in (None, *task.label_names):
            st.session_state[CLASS] = None
        name = st.segmented_control("Class", task.label_names, key=CLASS, bind="query-params")
        output = task.label_names.index(name) if name in task.label_names else shown[0].prediction
        if name not in task.label_names:
            st.caption(f"Showing the predicted class, {escape(task.label_names[output])}.")
    results = []
    for e in shown:
        bar = st.progress(0.0, text="Forcing experts …")

        def show(done: int, n: int, bar=bar) -> None:
            bar.progress(done / n, f"Forcing experts: layer {done} of {n}")

        results.append(forced(selection.checkpoint, e.text, show))
        bar.empty()
    limit = max(float(abs(r.change(output)).max()) for r in results) or None
    columns = st.columns(len(shown), gap="medium")
    for place, (column, e, result) in enumerate(zip(columns, shown, results, strict=True)):
        flips, cells = int(result.flips().sum()), result.flips().size
        largest = float(abs(result.change(output)).max())
        with column:
            chart(
                figures.what_if_heatmap(result, e, output, limit),
                result.to_frame,
                f"what-if-{place}",
                f"{selection.name}-what-if",
                f"Heatmap, layers by experts: change of a logit with an expert forced; at most {largest:.3f}",
            )
            if task.label_names:
                st.caption(f"The prediction flips in {flips} of {cells} cells.")
