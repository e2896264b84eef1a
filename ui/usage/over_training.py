"""How usage came about in training, epoch by epoch: the last section of Expert usage, which needs no model."""

from __future__ import annotations

import streamlit as st

from shrp.errors import ShrpError
from ui import loaders, state
from ui.downloads import chart
from ui.text import escape_html
from ui.usage import history_figures as usage_history_figures


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
        "special for them: see what knocking it out changes, in its profile, and for all experts below."
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
