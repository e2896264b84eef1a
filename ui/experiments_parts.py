"""Parts of the Experiments page: its headings and pickers, the studies of a recipe's parts, selections and routes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp import ablations, routes, selections, studies
from shrp.errors import DataError
from ui import experiments_figures as figures
from ui import experiments_route_figures as route_figures
from ui.downloads import chart
from ui.text import escape

KEPT = "kept"
"""Key of the picked number of experts, in the session's state and in the URL."""
TOLD_BY = "told_by"
"""Key of the picked grouping, likewise."""
Drawn = list[tuple[str, str]]
"""Headings of what was drawn, with their anchors."""


def headed(title: str, anchor: str) -> tuple[str, str]:
    """Draw a heading; returns it for the page's contents."""
    st.subheader(escape(title), anchor=anchor)
    return title, anchor


def pick(label: str, options: list[str], key: str) -> str:
    """One of the options, the first where nothing valid was picked."""
    if st.session_state.get(key, options[0]) not in options:
        st.session_state[key] = options[0]
    picked = st.segmented_control(
        label,
        options,
        default=None if key in st.session_state else options[0],
        key=key,
        bind="query-params",
        required=True,
    )
    return picked if picked in options else options[0]


def ablation() -> Drawn:
    """What each part of a recipe is worth, where it was measured."""
    try:
        measured = studies.read_rows("ablation")
        frame = ablations.frame_of(measured)
    except DataError as error:
        st.error(escape(str(error)), icon=":material/error:")
        return []
    if frame.empty:
        return []
    heading = headed("What each part is worth", "ablation")
    said = ablations.findings(frame)
    for sentence in said:
        st.markdown(f"- {escape(sentence)}")
    for task, rows in frame.groupby("task", sort=False):
        seeds = int(rows["seeds"].max())
        bars = (
            f"lowest and highest of {seeds} seeds"
            if seeds > 1
            else "95% intervals of the scores, one seed each"
            + "; paired changes: see the sentences above" * bool(rows["change"].notna().any())
        )
        note = f"{ablations.about(measured)}<br>n = {rows['n'].iloc[0]:,}; bars: {bars}"
        alt = " ".join(
            text for text in said if text.startswith((f"On {task},", f"On {task} ", f"On {task};"))
        )
        fig = figures.ablation_marks(rows, note)
        chart(fig, rows, f"ablation-{task}", f"ablation-{task}", f"Retained share by variant. {alt}")
    return [heading]


def selection() -> Drawn:
    """Which experts to keep, where it was measured."""
    try:
        frame = selections.frame_of(studies.read_rows("selection"))
    except DataError as error:
        st.error(escape(str(error)), icon=":material/error:")
        return []
    if frame.empty:
        return []
    heading = headed("Which experts to keep", "selection")
    st.markdown(
        "What routed models keep of their score when they are pruned by usage, as the paper does, and by the other "
        "selections of the Pruning lab, without any training on. Fitted gates learn from texts of the training split, "
        "whose labels only mix the classes; usage and gate × norm are counted on the validation data that scores "
        "them, as in the paper, and up to 512 of these inputs are run with each expert knocked out for “ablation”. "
        "Random experts weigh by usage unless said otherwise."
    )
    said = selections.findings(frame)
    for sentence in said:
        st.markdown(f"- {escape(sentence)}")
    size = pick("Experts kept in each layer", [str(m) for m in sorted(frame["per_layer"].unique())], KEPT)
    rows = frame[frame["per_layer"] == int(size)]
    note = "; ".join(f"{r.checkpoint} n = {r.n:,}" for r in rows.drop_duplicates("checkpoint").itertuples())
    note = f"GLUE validation data, one training each: {note}"
    chart(
        figures.selection_marks(rows, note, int(size)),
        frame,
        "selection",
        "selection",
        f"Share of the routed model's score by checkpoint and selection. {' '.join(said)}",
    )
    return [heading]


def _routes_table(rows: pd.DataFrame) -> None:
    """Rows of `routes.summary`."""
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        height="content",
        row_height=132,  # six lines and a half
        column_config={
            "checkpoint": st.column_config.TextColumn(width=92),
            "as routed": st.column_config.TextColumn(width=86),
            "no routes": st.column_config.TextColumn(
                width=122,
                help="With the mixture: the score and its change with the paired 95% interval, of a classifier with "
                "shares matched",
            ),
            "wrong routes": st.column_config.TextColumn(
                width=132,
                help="With the routes of all layers exchanged: means of several draws, with their intervals",
            ),
            "routes of the same answer": st.column_config.TextColumn(
                "same answer",
                width=132,
                help="With the routes of all layers exchanged among inputs that the model answers alike (of a number: "
                "whose outputs are in the same quartile)",
            ),
            "layers that change it alone": st.column_config.TextColumn(
                "alone",
                width=56,
                help="In how many exchanging the routes of that layer alone changes the score by more than chance "
                "(with shares matched)",
            ),
            "explained at most": st.column_config.TextColumn("explained", width=110),
        },
        alt="What routes are worth and go by, a row a checkpoint",
    )
    st.caption(
        "Explained: how much of a layer's choices the input's class, the model's own answer, or length "
        "explains beyond chance, in the layer where it is most; of STS-B, class and answer are quartiles of a number. "
        "Not distilled: the paper's recipe. Checkpoints of the same names elsewhere on this page may be other "
        "trainings."
    )


def routing() -> Drawn:
    """What routes go by and are worth, where it was measured."""
    try:
        worth, told = routes.frames_of(studies.read_rows("routes"))
    except DataError as error:
        st.error(escape(str(error)), icon=":material/error:")
        return []
    if worth.empty:
        return []
    heading = headed("What routed models lose without their routes", "routes")
    st.markdown(
        "Nothing is retrained here. **No routes**: all inputs get the same mixture of all experts, weighted by usage. "
        "**Wrong routes**: every input takes the route of another input, drawn at random. **Same answer**: of another "
        "input that the model answers alike. The last two are means of several draws, with intervals. Classifiers are "
        "scored with answer shares matched: outputs shifted, without labels, until each class is predicted as often as "
        "by the routed model, since only the threshold may have moved. Models *trained* without a router: see the "
        "no-router control above. Any checkpoint and data: see Expert usage."
    )
    said = routes.findings(worth)
    for sentence in said:
        st.markdown(f"- {escape(sentence)}")
    whole = routes.summary(worth, told)
    if len(whole):
        _routes_table(whole)
    note = "GLUE validation data, one training each; all layers: means of draws"
    chart(
        route_figures.exchanged_marks(worth, note),
        worth,
        "routes-worth",
        "routes-exchanged",
        f"Share of the routed model's score by checkpoint. {' '.join(said)}",
    )
    if told.empty:
        return [heading]
    by = pick("Explained by", list(dict.fromkeys(told["by"])), TOLD_BY)
    chart(
        route_figures.told_lines(told, by, "GLUE validation data, one training each"),
        told,
        "routes-told",
        "routes-told",
        f"Part of each layer's choices that {by} explains, by checkpoint.",
    )
    return [heading]
