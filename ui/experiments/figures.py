"""Charts of the Experiments page, from the tables of `shrp.studies.studies`."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shrp.phrases import ends_in_points, in_points, signed, with_ends
from shrp.studies.leads import MEAN
from shrp.studies.published import PUBLISHED, Published
from shrp.studies.studies import AS_TRAINED, NAMES, NARROW, UNROUTED
from shrp.studies.studies import floors as floors_of
from ui.experiments.seed_figures import between
from ui.text import escape_html, metric_name
from ui.theme import BLUE, BROWN, GREEN, GREY, INK, ORANGE, PURPLE, SKY, layout, title_height, whiskers

_LOOK = {
    "routed": (BLUE, "circle"),
    "static": (GREEN, "square"),
    "random": (ORANGE, "x"),
    "dropped": (PURPLE, "triangle-down"),
    "uniform": (SKY, "hexagon"),
    UNROUTED: (SKY, "x"),  # no router's colour, random experts' mark
    NARROW: (BROWN, "diamond"),
}

_TRAINED = ("routed", *AS_TRAINED)
"""Models that nothing was taken from since they were trained; the others are so only where they recovered."""

_PLACES = {
    "BERT-of-Theseus": "top left",
    "DistilBERT": "middle left",
    "SHRP, 6 of 12 layers": "bottom center",
}


def retained_panels(frame: pd.DataFrame, title: str, note: str) -> go.Figure:
    """Retained share: a row a model, a panel a task with an axis of its own, marks with their intervals.

    Args:
        frame: rows of `shrp.studies.studies.glue_frame` of one recipe and depth.
    """
    tasks, models = list(frame["task"].unique()), list(frame["name"].unique())
    names = {model: _wrapped(model) for model in models}
    floors = floors_of(frame)
    sizes = frame.drop_duplicates("task").set_index("task")["n"]
    titles = [f"{task}<br><sup>n = {sizes[task]:,}</sup>" for task in tasks]
    fig = make_subplots(cols=len(tasks), shared_yaxes=True, horizontal_spacing=0.015, subplot_titles=titles)
    for place, task in enumerate(tasks, 1):
        part = frame[frame["task"] == task]
        for row in part.itertuples():
            fig.add_scatter(
                x=[100 * row.retained],
                y=[names[row.name]],
                error_x=whiskers(*([100 * end] for end in (row.retained, row.low, row.high))),
                mode="markers",
                name=row.name,
                marker=_marker(row),
                hovertext=f"{escape_html(row.name)}<br>{task}: {with_ends(row.retained, row.low, row.high)} of the "
                f"teacher's {metric_name(row.metric)} ({row.score:.4f} of {row.teacher:.4f}, n = {row.n:,}, "
                f"seeds: {row.seeds})",
                hovertemplate="%{hovertext}<extra></extra>",
                row=1,
                col=place,
            )
        low, high = _own_axis(fig, part, "retained", 1.0, row=1, col=place)
        if low <= 100 * floors[task] <= high:
            fig.add_vline(
                100 * floors[task], line={"color": GREY, "dash": "dot", "width": 2}, row=1, col=place
            )
    fig.update_yaxes(
        categoryorder="array", categoryarray=[names[model] for model in reversed(models)], showgrid=True
    )
    fig.update_xaxes(zeroline=False)
    return _panels(fig, title, note, list(names.values()))


def lead_panels(leads: pd.DataFrame, title: str, note: str) -> go.Figure:
    """SHRP's lead over each trained control: a row a control, a panel a task with an axis of its own, in which what is
    right of 0 is SHRP's; hollow where the two were not scored as pairs.

    Args:
        leads: `shrp.studies.leads.lead_frame`.
    """
    tasks = [task for task in leads["task"].unique() if task != MEAN]
    tasks += [MEAN] if leads["task"].eq(MEAN).any() else []
    names = {name: _wrapped(name) for name in leads["name"].unique()}
    sizes = leads.drop_duplicates("task").set_index("task")["n"]
    titles = [f"{task}<br><sup>n = {sizes[task]:,}</sup>" for task in tasks]
    fig = make_subplots(cols=len(tasks), shared_yaxes=True, horizontal_spacing=0.02, subplot_titles=titles)
    for place, task in enumerate(tasks, 1):
        part = leads[leads["task"] == task]
        for row in part.itertuples():
            color, symbol = _LOOK.get(row.model, (GREY, "circle"))
            mark = symbol if row.paired else f"{symbol}-open"
            how = "on the same inputs" if row.paired else "not paired" + " on all tasks" * (task == MEAN)
            seeds = f", seeds: {row.seeds}" if row.seeds else ""
            fig.add_scatter(
                x=[100 * row.lead],
                y=[names[row.name]],
                error_x=whiskers(*([100 * end] for end in (row.lead, row.low, row.high))),
                mode="markers",
                name=row.name,
                marker={
                    "color": color,
                    "symbol": mark,
                    "size": 10,
                    "line": {"width": 0 if row.paired else 2},
                },
                hovertext=f"lead over {escape_html(row.name)}<br>{task}: {in_points(row.lead, row.low, row.high)} "
                f"points ({how}{seeds})",
                hovertemplate="%{hovertext}<extra></extra>",
                row=1,
                col=place,
            )
        _own_axis(fig, part, "lead", 0.0, row=1, col=place)
    fig.update_yaxes(
        categoryorder="array", categoryarray=[names[name] for name in reversed(names)], showgrid=True
    )
    fig.update_xaxes(zeroline=False)
    return _panels(fig, title, note, list(names.values()))


def _own_axis(
    fig: go.Figure, part: pd.DataFrame, value: str, line: float, **where: int
) -> tuple[float, float]:
    """Give a panel an axis in percent that holds its marks, their intervals and a dashed line; returns its least and
    its greatest of these.

    Args:
        part: the panel's rows, shares in the columns `value`, `low` and `high`.
        line: where the line is, as a share.
        where: the panel's `row` and `col`.
    """
    ends = pd.concat([part["low"], part["high"], part[value], pd.Series([line])]).dropna() * 100
    margin = 0.07 * max(ends.max() - ends.min(), 2)
    fig.update_xaxes(range=[ends.min() - margin, ends.max() + margin], nticks=4, **where)
    fig.add_vline(100 * line, line={"color": GREY, "dash": "dash", "width": 1}, **where)
    return ends.min(), ends.max()


def _panels(fig: go.Figure, title: str, note: str, names: list[str]) -> go.Figure:
    """The layout of panels, each with a title of two lines, with a row a name.

    Args:
        names: with their line breaks.
    """
    top = title_height(note) + 38  # of the panels' own titles
    lines = [name.count("<br>") + 1 for name in names]
    # Rows are alike, so all as high as two neighbouring names need.
    row = max([12 * sum(lines) / len(lines) + 20, *(7 * (a + b) + 6 for a, b in pairwise(lines))])
    height = top + 68 + round(row * len(names))
    return layout(fig, title, subtitle=note, height=height, legend=False, margin={"t": top})


def _marker(row: Any) -> dict[str, Any]:
    """What stands for a row of `glue_frame`: hollow where it was pruned without training on."""
    color, symbol = _LOOK.get(row.model, (GREY, "circle"))
    if row.recovered or row.model in _TRAINED:
        return {"color": color, "symbol": symbol, "size": 10}
    return {"color": color, "symbol": f"{symbol}-open", "size": 9, "line": {"width": 2}}


def _wrapped(name: str) -> str:
    """A model's name in lines that leave the panels most of the width."""
    return "<br>".join(textwrap.wrap(escape_html(name), 30))


def published_over(over: str) -> list[Published]:
    """The published figures that say how much is left, counted as that column of `shrp.studies.studies.average` is."""
    return [p for p in PUBLISHED if getattr(p, over, None) is not None]


def pareto(mean: pd.DataFrame, over: str, note: str) -> go.Figure:
    """Mean retained share against what is left, beside published figures where these count the same.

    Args:
        mean: `shrp.studies.studies.average`.
        over: its column to count size in.
    """
    fig = go.Figure()
    groups = list(mean.groupby(["recipe", "model", "recovered"], sort=False))
    # One entry a model in the legend, with the mark that stands for most: of `retain`, and trained on.
    named = {
        key[1]: key for key, _ in sorted(groups, key=lambda group: (group[0][0] == "retain", group[0][2]))
    }
    for (recipe, model, recovered), rows in groups:
        color, symbol = _LOOK.get(model, (GREY, "circle"))
        rows, trained = rows.sort_values(over), recovered or model in _TRAINED
        fig.add_trace(
            go.Scatter(
                x=100 * rows[over],
                y=100 * rows["retained"],
                mode="markers",
                name=NAMES.get(model, model),
                legendgroup=model,
                showlegend=named[model] == (recipe, model, recovered),
                marker={
                    "color": color,
                    "symbol": symbol if trained else f"{symbol}-open",
                    "size": 7 if recipe == "paper" else 12,
                },
                customdata=[
                    [
                        f"{row.name} ({recipe})",
                        row.depth,
                        with_ends(row.retained, row.low, row.high),
                        row.tasks,
                        row.worst,
                        row.best,
                    ]
                    for row in rows.itertuples(index=False)
                ],
                hovertemplate="%{customdata[0]}, %{customdata[1]}<br>%{customdata[2]} retained<br>"
                "mean over %{customdata[3]} (tasks: %{customdata[4]:.1%} to %{customdata[5]:.1%})<br>"
                "%{x:.1f}% left<extra></extra>",
            )
        )
    if reported := published_over(over):
        fig.add_trace(
            go.Scatter(
                x=[100 * getattr(p, over) for p in reported],
                y=[100 * p.retained for p in reported],
                mode="markers+text",
                text=[p.name for p in reported],
                # By hand: three of them lie within a few points of each other.
                textposition=[_PLACES.get(p.name, "bottom center") for p in reported],
                textfont={"size": 11, "color": INK},
                name="as reported, BERT-base, other denominators",
                marker={"color": GREY, "symbol": "star", "size": 11},
                customdata=[[p.source, p.denominator] for p in reported],
                hovertemplate="%{text}, as reported: %{y:.1f}%<br>%{customdata[1]}<br>%{customdata[0]}<extra></extra>",
            )
        )
    of = "model" if over.startswith("model") else "encoder"
    what = "parameters" if over.endswith("params") else "FLOPs (128 tokens)"
    return layout(
        fig,
        "Kept score against size",
        subtitle=note,
        x=f"{'whole ' * (of == 'model')}{of} {what}, % of the dense {of}'s",
        y="of the dense teacher's score (%)",
        height=520,
        legend=True,
    )


def ablation_marks(rows: pd.DataFrame, note: str) -> go.Figure:
    """Retained share of the routed, pruned and recovered model for each variant, with intervals.

    Args:
        rows: `shrp.studies.ablations.frame_of`, of one task.
        note: what the rows are of.
    """
    fig = go.Figure()
    looks = {
        "routed": ("routed", {"color": BLUE, "symbol": "circle", "size": 9}),
        "static": (
            "one expert a layer, not recovered",
            {"color": GREEN, "symbol": "square-open", "size": 9, "line": {"width": 2}},
        ),
        "recovered": ("one expert a layer, recovered", {"color": GREEN, "symbol": "square", "size": 10}),
    }
    ahead = [_against_retain(row) for _, row in rows.iterrows()]
    for model, (label, marker) in looks.items():
        fig.add_trace(
            go.Scatter(
                y=rows["variant"],
                x=100 * rows[f"{model} retained"],
                error_x=whiskers(*(100 * rows[f"{model} {end}"] for end in ("retained", "low", "high"))),
                mode="markers",
                orientation="h",
                name=label,
                marker=marker,
                customdata=rows[["metric", "n", "teacher", model]].assign(
                    metric=rows["metric"].map(metric_name),
                    ends=between(rows[f"{model} low"], rows[f"{model} high"], ".1%"),
                    seeds=rows["seeds"],
                    ahead=[f"<br>{text}" * bool(text and model == "recovered") for text in ahead],
                ),
                hovertemplate=f"%{{y}}<br>{label}: %{{x:.1f}}% of the teacher's %{{customdata[0]}} "
                "(%{customdata[3]:.4f} of %{customdata[2]:.4f})<br>%{customdata[4]}, "
                "n = %{customdata[1]:,}, seeds: %{customdata[5]}%{customdata[6]}<extra></extra>",
            )
        )
    fig.update_layout(scattermode="group", scattergap=0.3)
    fig.update_yaxes(autorange="reversed")
    return layout(
        fig,
        f"What each part of the recipe is worth: {rows['task'].iloc[0]}",
        subtitle=note,
        x="of the dense teacher's score (%)",
        height=190 + 42 * len(rows),
        legend=True,
    )


def _against_retain(row: pd.Series) -> str:
    """A variant's paired change, as a hover tells it; empty where there is none."""
    if row["change"] != row["change"]:
        return ""
    ends = ends_in_points(row["change low"], row["change high"])
    return f"{signed(100 * row['change'])} points against retain, paired ({ends})"


def selection_panels(frame: pd.DataFrame, note: str, size: int) -> go.Figure:
    """Share of the routed model's score: a row a selection, a panel a checkpoint with an axis of its own, marks with
    their intervals, hollow where answer shares were matched.

    Args:
        frame: `shrp.studies.selections.frame_of`, of one number of experts a layer.
        note: what the rows are of.
    """
    looks = {
        "usage": (BLUE, "circle"),
        "gate × norm": (SKY, "diamond"),
        "ablation": (PURPLE, "triangle-up"),
        "fitted gates": (GREEN, "square"),
        "random experts": (ORANGE, "x"),
        "random experts, weighed alike": (ORANGE, "cross"),
    }
    sizes = frame.drop_duplicates("checkpoint").set_index("checkpoint")["n"]
    across = min(5, len(sizes))
    down = -(-len(sizes) // across)
    fig = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes=True,
        horizontal_spacing=0.015,
        vertical_spacing=0.3 / down,
        subplot_titles=[f"{name}<br>n = {n:,}" for name, n in sizes.items()],
    )
    fig.update_annotations(font={"size": 11})
    for place, checkpoint in enumerate(sizes.index):
        part = frame[frame["checkpoint"] == checkpoint]
        where = {"row": 1 + place // across, "col": 1 + place % across}
        for row in part.itertuples():
            color, symbol = looks[row.selection]
            # Beside the plain one of its row, so that neither covers the other: they are of different groups.
            named = f"{row.selection}{', shares matched' * row.matched}"
            fig.add_scatter(
                x=[100 * row.retained],
                y=[_wrapped(row.selection)],
                error_x=whiskers(*([100 * end] for end in (row.retained, row.low, row.high))),
                mode="markers",
                orientation="h",
                name=named,
                offsetgroup=str(row.matched),
                marker={
                    "color": color,
                    "symbol": f"{symbol}{'-open' * row.matched}",
                    "size": 8 + row.matched,
                },
                hovertext=f"{escape_html(named)}<br>{escape_html(checkpoint)}: "
                f"{with_ends(row.retained, row.low, row.high)} of the routed model's {metric_name(row.metric)} "
                f"({row.score:.4f} of {row.routed:.4f}, n = {row.n:,})",
                hovertemplate="%{hovertext}<extra></extra>",
                **where,
            )
        _own_axis(fig, part, "retained", 1.0, **where)
    order = [_wrapped(name) for name in looks if (frame["selection"] == name).any()]
    fig.update_yaxes(categoryorder="array", categoryarray=order[::-1], range=[-0.6, len(order) - 0.4])
    fig.update_xaxes(zeroline=False)
    fig.update_layout(scattermode="group", scattergap=0.4)
    hollow = "; hollow: answer shares matched" * bool(frame["matched"].any())
    return layout(
        fig,
        f"{size} expert{'s' * (size > 1)} kept a layer, no training on",
        subtitle=f"percent of the routed model's score (dashed); each panel has its own axis<br>{note}<br>bars: 95% "
        f"intervals, of random experts the range of three draws{hollow}",
        height=190 + down * (60 + 38 * len(order)),
        legend=False,
        margin={"t": 172},
    )
