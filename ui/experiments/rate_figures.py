"""Chart of the experiment on learning rates, from the table of `shrp.studies.rates`."""

from __future__ import annotations

import math
import textwrap

import pandas as pd
import plotly.graph_objects as go

from shrp.phrases import in_words, with_ends
from ui.text import escape_html, metric_name
from ui.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, add_floor, layout, whiskers

_LOOK = {
    "static": (GREEN, "square", "solid"),
    "random": (ORANGE, "x", "dash"),
    "dropped": (PURPLE, "triangle-down", "dot"),
    "taught": (PURPLE, "triangle-up", "dash"),
    "uniform": (SKY, "hexagon", "dashdot"),
    "dense": (GREY, "diamond", "dash"),
}


def kept_by_rate(rows: pd.DataFrame, note: str) -> go.Figure:
    """Retained share over multiples of the table's learning rates, a line a model; dotted: a constant answer's. Where
    all were trained at the same rates, a place on the axis a model.

    Args:
        rows: `shrp.studies.rates.rates_frame` of one task and depth.
        note: what the rows are of.
    """
    fig = go.Figure()
    multiples = sorted(rows["times"].unique())
    models, alone = rows["model"].nunique(), len(multiples) == 1
    for place, (model, part) in enumerate(rows.groupby("model", sort=False)):
        color, symbol, dash = _LOOK.get(model, (BLUE, "circle", "solid"))
        fig.add_scatter(
            # Beside each other, or the bars of one would hide those of another.
            x=[
                place if alone else multiples.index(times) + 0.06 * (place - (models - 1) / 2)
                for times in part["times"]
            ],
            y=100 * part["retained"],
            error_y=whiskers(*(100 * part[end] for end in ("retained", "low", "high"))),
            mode="lines+markers",
            name=escape_html(part["name"].iloc[0]),
            line={"color": color, "dash": dash},
            marker={"color": color, "symbol": symbol, "size": 10},
            hovertext=[
                f"{escape_html(row.name)}, {row.times:g} times the table's rates ({row.learning_rate:g}; new weights "
                f"{row.new_learning_rate:g})<br>{with_ends(row.retained, row.low, row.high)} of the teacher's "
                f"{metric_name(row.metric)} ({row.score:.4f} of {row.teacher:.4f}, n = {row.n:,}, seeds: {row.seeds})"
                for row in part.itertuples(index=False)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    fig.add_hline(100, line={"color": GREY, "dash": "dash", "width": 1})
    if not math.isnan(floor := rows["floor"].iloc[0]):
        add_floor(fig, 100 * floor, "%")
    task, depth = rows["task"].iloc[0], rows["depth"].iloc[0]
    what, x = "by learning rate", "times the GLUE table's learning rates, in the last training"
    ticks = [f"{times:g}" for times in multiples]
    if alone:
        ticks = ["<br>".join(textwrap.wrap(escape_html(name), 24)) for name in rows["name"].drop_duplicates()]
        times = "the" if multiples[0] == 1 else f"{multiples[0]:g} times the"
        what, x = "of several models", f"all at {times} GLUE table's learning rates"
    fig.update_xaxes(tickvals=list(range(len(ticks))), ticktext=ticks)
    if alone:
        fig.update_xaxes(range=[-0.5, len(ticks) - 0.5])
    return layout(
        fig,
        f"Kept score {what}: {task}, {in_words(depth)}",
        subtitle=note,
        x=x,
        y="of the dense teacher's score (%)",
        height=440,
        legend=not alone,
    )
