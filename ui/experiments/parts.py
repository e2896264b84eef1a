"""The Experiments page's headings, and its studies of a recipe's parts, of selections and of routes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from shrp.errors import DataError
from shrp.studies import ablations, routes, selections, studies
from ui.downloads import chart
from ui.experiments import figures, route_figures
from ui.pickers import always_one
from ui.state import show_error
from ui.text import escape

KEPT = "kept"
"""Key of the picked number of experts, in the session's state and in the URL."""
TOLD_BY = "told_by"
"""Key of the picked grouping, likewise."""
_ON = "GLUE validation data, one training each"
Drawn = list[tuple[str, str]]
"""Headings of what was drawn, with their anchors."""


def headed(title: str, anchor: str) -> tuple[str, str]:
    """Draw a heading; returns it for the page's contents."""
    st.header(escape(title), anchor=anchor)
    return title, anchor


def not_run(name: str) -> None:
    """Say that a study's file is missing, and which command writes it."""
    st.info("Not run yet. This command makes it:", icon=":material/science:")
    st.code(f"{studies.command_of(name)}{studies.NEEDS.get(name, '')}", language="bash")


def say(sentences: Sequence[str]) -> None:
    """What an experiment has found."""
    for sentence in sentences:
        st.markdown(f"- {escape(sentence)}")


def about(task: str, sentences: Sequence[str]) -> str:
    """Those of the sentences that are about a task."""
    return " ".join(text for text in sentences if text.startswith(tuple(f"On {task}{end}" for end in ",;: ")))


def ablation() -> Drawn:
    """What each part of a recipe is worth."""
    heading = headed("What each part is worth", "ablation")
    try:
        measured = studies.read_rows("ablation")
        frame = ablations.frame_of(measured)
    except DataError as error:
        show_error(error)
        return [heading]
    if frame.empty:
        not_run("ablation")
        return [heading]
    said = ablations.findings(frame)
    say(said)
    for task, rows in frame.groupby("task", sort=False):
        seeds = int(rows["seeds"].max())
        bars = (
            f"lowest and highest of {seeds} seeds"
            if seeds > 1
            else "95% intervals of the scores, one seed each"
            + "; paired changes: see the sentences above" * bool(rows["change"].notna().any())
        )
        note = f"{ablations.about(measured)}<br>n = {rows['n'].iloc[0]:,}; bars: {bars}"
        fig, alt = figures.ablation_marks(rows, note), f"Retained share by variant. {about(task, said)}"
        chart(fig, rows, f"ablation-{task}", f"ablation-{task}", alt)
    return [heading]


def selection() -> Drawn:
    """Which experts to keep."""
    heading = headed("Which experts to keep", "selection")
    try:
        frame = selections.frame_of(studies.read_rows("selection"))
    except DataError as error:
        show_error(error)
        return [heading]
    if frame.empty:
        not_run("selection")
        return [heading]
    st.markdown(
        "What routed models keep of their score when they are pruned by usage, as the paper does, and by the other "
        "selections of the Pruning lab, without any training on. Fitted gates learn from texts of the training split, "
        "whose labels only mix the classes; usage and gate × norm are counted on the validation data that scores "
        "them, as in the paper, and up to 512 of these inputs are run with each expert knocked out for “ablation”. "
        "Random experts weigh by usage unless said otherwise."
    )
    sizes = [str(m) for m in sorted(frame["per_layer"].unique())]
    size = always_one("Experts kept in each layer", sizes, KEPT)
    rows = frame[frame["per_layer"] == int(size)]
    said = selections.overall(rows)
    say(said)
    chart(
        figures.selection_panels(rows, _ON, int(size)),
        rows,
        "selection",
        f"selection-{size}-a-layer",
        f"Share of the routed model's score by checkpoint and selection. {' '.join(said)}",
    )
    if each := [*selections.by_checkpoint(rows), *selections.matched(rows)]:
        with st.expander("Checkpoint by checkpoint", icon=":material/list:"):
            say(each)
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
        "Alone: of layers whose routes change nothing about one in 20 would be counted by chance. "
        "Not distilled: the paper's recipe. Checkpoints of the same names elsewhere on this page may be other "
        "trainings."
    )


def routing() -> Drawn:
    """What routes go by and are worth."""
    heading = headed("What routed models lose without their routes", "routes")
    try:
        worth, told = routes.frames_of(studies.read_rows("routes"))
    except DataError as error:
        show_error(error)
        return [heading]
    if worth.empty:
        not_run("routes")
        return [heading]
    st.markdown(
        "Nothing is retrained here. **No routes**: all inputs get the same mixture of all experts, weighted by usage. "
        "**Wrong routes**: every input takes the route of another input, drawn at random. **Same answer**: of another "
        "input that the model answers alike. The last two are means of several draws, with intervals. Classifiers are "
        "scored with answer shares matched: outputs shifted, without labels, until each class is predicted as often as "
        "by the routed model, since only the threshold may have moved. Models *trained* without a router: see the "
        "no-router control under *GLUE scores*. Any checkpoint and data: see Expert usage."
    )
    said = routes.findings(worth)
    say(said)
    whole = routes.summary(worth, told)
    if len(whole):
        _routes_table(whole)
    chart(
        route_figures.exchanged_marks(worth, f"{_ON}; all layers: means of draws"),
        worth,
        "routes-worth",
        "routes-exchanged",
        f"Share of the routed model's score by checkpoint. {' '.join(said)}",
    )
    if told.empty:
        return [heading]
    by = always_one("Explained by", list(dict.fromkeys(told["by"])), TOLD_BY)
    chart(
        route_figures.told_lines(told, by, _ON),
        told[told["by"] == by],
        "routes-told",
        f"routes-told-by-{by}",
        f"Part of each layer's choices that {by} explains, by checkpoint.",
    )
    return [heading]
