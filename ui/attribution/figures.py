"""Figures of attributions: coloured words, bars of words and of experts, and usage against effect."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shrp.analysis.attribution.experts import ExpertScores
from shrp.analysis.attribution.tokens import WordScores
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui.routing.figures import grid_height
from ui.text import axis_names, escape_html, shorten, signed
from ui.theme import BLUE, DIVERGING, GREY, ORANGE, layout

# Less and more, as in the diverging scale of all charts; see-through, so that either theme's text stays legible.
_LESS, _MORE, _STRONGEST = (43, 123, 186), (224, 130, 20), 0.55
EXPERT, HEAD = "expert", "head"
"""What is knocked out, in words of one and, with an s, of many."""
CHANGE = "change of the output"
"""What a score is of, where an output of the model is explained."""
_LINE = 23
"""Pixels of one bar's row."""
_MOST_WORDS, _MOST_EXPERTS = 40, 36
"""Bars in a panel; the CSV has all."""
_MOST_COLUMNS = 14
"""Experts of a map whose numbers are to be legible in a window of 1200 pixels; the CSV has all."""


def colored_words(result: WordScores, parts: Sequence[str], title: str) -> str:
    """The input as HTML with each word's background by its score: orange raises the output, blue lowers it.

    A solid line under a word says the same as orange, a dotted one the same as blue. Everything typed is escaped.

    Args:
        parts: names of the texts of a pair; of one text its name is not shown.
        title: what is shown, as HTML-safe text.
    """
    largest = float(np.abs(result.scores).max()) or 1.0
    lines: dict[int, list[str]] = {part: [] for part in range(len(parts))}
    for word, score in zip(result.words, result.scores, strict=True):
        part = abs(float(score)) / largest
        red, green, blue = _MORE if score > 0 else _LESS
        line = "solid" if score > 0 else "dotted"
        # Words near 0 have no line, or every function word would be underlined.
        under = f"border-bottom:2px {line} rgb({red},{green},{blue});" if part >= 0.1 else ""
        lines[word.part].append(
            f'<span title="{escape_html(word.text)}: {score:+.3f}" style="background:rgba({red},{green},{blue},'
            f'{_STRONGEST * part:.3f});{under}border-radius:3px;padding:1px 3px">{escape_html(word.text)}</span>'
        )
    body = ""
    for part, name in enumerate(parts):
        # The words decide which way a line runs: a name with a direction of its own has no say in it.
        head = f'<span dir="auto" style="opacity:.7">{escape_html(name)}: </span>' if len(parts) > 1 else ""
        style = "line-height:2;overflow-wrap:anywhere"
        body += f'<div dir="auto" style="{style}">{head}{" ".join(lines[part])}</div>'
    return f'<div role="group" aria-label="{title}"><div style="font-weight:600">{title}</div>{body}</div>'


def word_bars(
    results: Sequence[WordScores], what: str, subtitle: str, x: str = CHANGE
) -> tuple[go.Figure, int]:
    """Bars of each word's score, a panel a method, in the order of the text.

    Args:
        what: the output that is explained, as HTML-safe text.
        x: what a score is, with its unit.

    Returns:
        The figure and the number of words in it.
    """
    words = results[0].words
    places = _largest([result.scores for result in results], _MOST_WORDS)
    length = 24 if results[0].unit == "word" else 40
    names = [f"{place + 1}. {escape_html(shorten(words[place].text, length))}" for place in places]
    fig = _panels([result.method for result in results])
    for column, result in enumerate(results, 1):
        scores = result.scores[places]
        again = np.zeros(len(places)) if result.rerouted is None else result.rerouted[places]
        note = "<br>its replacement re-routes %{customdata:.0f} layers" if result.rerouted is not None else ""
        hover = "%{hovertext}<br>" + result.method + " %{x:+.4f}" + note
        fig.add_trace(_bars(scores, hover, names, again), row=1, col=column)
    _rows(fig, names, f"What each {results[0].unit} adds to {what}", subtitle, x)
    return fig, len(places)


def expert_bars(results: Sequence[ExpertScores], what: str, subtitle: str) -> tuple[go.Figure, int]:
    """Bars of each expert that fires, a panel a method; whiskers are standard errors. As `word_bars`."""
    fires = results[0].fires
    rows, experts = np.nonzero(fires)
    values = [result.values[fires] for result in results]
    places = _largest(values, _MOST_EXPERTS)
    names = [f"layer {results[0].layers[rows[p]]} · expert {experts[p]}" for p in places]
    fig = _panels([result.method for result in results])
    for column, (result, found) in enumerate(zip(results, values, strict=True), 1):
        errors = None if result.errors is None else result.errors[fires][places]
        note = " ± %{customdata:.4f} standard error" if errors is not None else ""
        hover = "%{hovertext}<br>" + result.method + " %{x:+.4f}" + note
        custom = np.zeros(len(places)) if errors is None else errors
        fig.add_trace(_bars(found[places], hover, names, custom, errors), row=1, col=column)
    _rows(fig, names, f"What each expert adds to {what}", subtitle, CHANGE)
    return fig, len(places)


def _largest(values: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Places of the largest values, each as a part of its method's largest; in their own order."""
    parts = [np.abs(one) / (np.abs(one).max() or 1.0) for one in values]
    return np.sort(np.argsort(-np.max(parts, axis=0), kind="stable")[:most])


def _panels(names: Sequence[str]) -> go.Figure:
    fig = make_subplots(
        cols=len(names),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[f"<b>{n}</b>" for n in names],
    )
    fig.update_annotations(font={"size": 13})
    return fig


def _bars(
    values: np.ndarray,
    hover: str,
    names: Sequence[str],
    custom: np.ndarray,
    errors: np.ndarray | None = None,
) -> go.Bar:
    return go.Bar(
        x=values,
        y=np.arange(len(values)),
        orientation="h",
        marker={"color": [ORANGE if value > 0 else BLUE for value in values]},
        error_x=None
        if errors is None
        else {"type": "data", "array": errors, "color": GREY, "thickness": 1.5},
        customdata=custom,
        hovertext=names,
        hovertemplate=f"{hover}<extra></extra>",
    )


def name_rows(fig: go.Figure, names: Sequence[str], x: str) -> None:
    """Name the rows of horizontal bars, the first on top, and draw the line at 0; `x` is what they measure."""
    fig.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=list(names),
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    fig.update_xaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1, nticks=6, title_text=x)


def _rows(fig: go.Figure, names: Sequence[str], title: str, subtitle: str, x: str) -> None:
    name_rows(fig, names, x)
    layout(
        fig,
        title,
        subtitle=subtitle,
        height=150 + _LINE * max(len(names), 3),
        margin={"t": 112},
        legend=False,
    )


def effect_map(table: pd.DataFrame, what: str, subtitle: str, of: str = EXPERT) -> go.Figure:
    """Layers x experts: the mean signed effect on the output; experts that are never used are left empty.

    Args:
        table: of `KnockOuts.table`.
        what: the output, safe in HTML.
        subtitle: likewise.
        of: what the columns are, `EXPERT` or `HEAD`; of heads nothing is said of use.
    """
    layers = sorted(table["layer"].unique())
    grid = table.set_index(["layer", "expert"]).sort_index()
    z = grid["signed"].where(grid["uses"] > 0).unstack()
    limit = float(np.nanmax(np.abs(z.to_numpy()))) if z.notna().any(axis=None) else 1.0
    columns = ["signed_low", "signed_high", "usage", "uses", "effect"]
    custom = np.dstack([grid[column].unstack().to_numpy() for column in columns])
    use = "<br>used by %{customdata[3]:,} inputs, usage %{customdata[2]:.1%}" if of == EXPERT else ""
    digits = max(2, 1 - math.floor(math.log10(limit or 1)))  # small effects need more of them to differ
    text = [["" if np.isnan(v) else signed(v, digits) for v in row] for row in z.to_numpy()]
    fig = go.Figure(
        go.Heatmap(
            z=z.to_numpy(),
            x=list(z.columns),
            y=[f"layer {layer}" for layer in layers],
            customdata=custom,
            text=text,
            texttemplate="%{text}" if z.shape[1] <= 16 else None,
            zmin=-(limit or 1),
            zmax=limit or 1,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"title": {"text": "mean effect"}, "thickness": 12},
            hovertemplate=f"%{{y}}, {of} %{{x}}<br>mean effect %{{z:+.4f}} (95% interval %{{customdata[0]:+.4f}} to "
            f"%{{customdata[1]:+.4f}})<br>mean size %{{customdata[4]:.4f}}{use}<extra></extra>",
        )
    )
    layout(
        fig,
        f"Mean effect of each {of} on {what}",
        subtitle=subtitle,
        x=of,
        height=grid_height(len(layers), 165),
        margin={"t": 96},
    )
    fig.update_xaxes(tickmode="array", tickvals=list(z.columns), showgrid=False, zeroline=False)
    fig.update_yaxes(showgrid=False, zeroline=False, autorange="reversed")
    return fig


def usage_scatter(
    table: pd.DataFrame, ranks: pd.DataFrame, measure: str, name: str, subtitle: str
) -> go.Figure:
    """Usage against a measure of what an expert does, a panel a layer with its Spearman correlation.

    Args:
        table: of `KnockOuts.table`.
        ranks: of `importance.correlations`.
        measure: the table's column.
        name: of the measure, HTML-safe, with its unit.
    """
    layers = ranks["layer"].tolist()
    columns = min(3, len(layers))
    rows = math.ceil(len(layers) / columns)
    heads = [
        f"layer {r.layer}: ρ = {r.spearman:.2f}, n = {r.n}"
        if np.isfinite(r.spearman)
        else f"layer {r.layer}: ρ –"
        for r in ranks.itertuples()
    ]
    fig = make_subplots(
        rows,
        columns,
        subplot_titles=heads,
        shared_yaxes=True,
        vertical_spacing=0.34 / rows,
        horizontal_spacing=0.03,
    )
    fig.update_annotations(font={"size": 12})
    for i, layer in enumerate(layers):
        group = table[(table["layer"] == layer) & table[measure].notna()]
        fig.add_trace(
            go.Scatter(
                x=group["usage"],
                y=group[measure],
                mode="markers+text",
                text=group["expert"].where(group["uses"] > 0, "").astype(str),
                textposition="top center",
                textfont={"size": 10},
                customdata=np.stack([group["expert"], group["uses"]], 1),
                marker={
                    "size": 8,
                    "color": [BLUE if uses else GREY for uses in group["uses"]],
                    "symbol": ["circle" if uses else "x-thin-open" for uses in group["uses"]],
                },
                hovertemplate=f"layer {layer}, expert %{{customdata[0]}}<br>usage %{{x:.1%}} (used by "
                f"%{{customdata[1]:,}} inputs)<br>{name} %{{y:.4f}}<extra></extra>",
                showlegend=False,
                cliponaxis=False,
            ),
            row=1 + i // columns,
            col=1 + i % columns,
        )
    layout(
        fig,
        "Usage against what knocking an expert out does",
        subtitle=subtitle,
        height=150 + 210 * rows,
        margin={"t": 116},
        legend=False,
    )
    fig.update_xaxes(tickformat=".0%", rangemode="tozero", nticks=5)
    for i in range(max(0, len(layers) - columns), len(layers)):
        fig.update_xaxes(title_text="usage (Top-1 share)", row=1 + i // columns, col=1 + i % columns)
    fig.update_yaxes(zeroline=True, zerolinecolor=GREY)
    return fig


def where_columns(frame: pd.DataFrame, sure: pd.DataFrame) -> tuple[list[tuple[int, int]], int]:
    """The experts that are beyond chance and those that differ most between groups, by place, as many as a map has room
    for; and how many fire at all.

    Args:
        frame: of `shrp.analysis.importance.worth_by_group`.
        sure: of `shrp.analysis.importance.beyond_chance`.
    """
    used = frame.groupby(["layer", "expert"])["uses"].sum()
    used = used[used > 0].index
    spread = frame.set_index(["layer", "expert"])["lost"].groupby(["layer", "expert"]).agg(np.ptp)
    first = zip(sure["layer"], sure["expert"], strict=True)
    most = dict.fromkeys([*first, *spread[used].sort_values(ascending=False, kind="stable").index])
    return sorted([*most][:_MOST_COLUMNS]), len(used)


def where_map(
    frame: pd.DataFrame, experts: Sequence[tuple[int, int]], title: str, subtitle: str, of: str = EXPERT
) -> go.Figure:
    """Groups x experts: what is lost in a group without the expert, in bold where that is unlike elsewhere.

    Args:
        frame: of `shrp.analysis.importance.worth_by_group`.
        experts: layer and number of those to show.
        title, subtitle: safe in HTML.
        of: as for `effect_map`.
    """
    groups = list(dict.fromkeys(frame["group"]))
    cells = frame.set_index(["group", "layer", "expert"])
    at = pd.MultiIndex.from_tuples([(group, *expert) for group in groups for expert in experts])
    shown = cells.loc[at]
    shape = len(groups), len(experts)
    z = shown["lost"].to_numpy().reshape(shape)
    limit = float(np.abs(z).max(initial=0.0)) or 1.0
    digits = max(1, 1 - math.floor(math.log10(limit)))
    bold = (shown["q"] <= FALSE_DISCOVERIES).to_numpy()
    text = [
        f"<b>{signed(value, digits)}</b>" if sure else signed(value, digits) if uses else ""
        for value, uses, sure in zip(shown["lost"], shown["uses"], bold, strict=True)
    ]
    hover = [
        f"<b>{escape_html(group.replace('_', ' '))}</b>, n = {r.n:,}<br>layer {layer}, {of} {expert}<br>"
        f"lost without it: {r.lost:+.4f}"
        + ("" if r.elsewhere != r.elsewhere else f", elsewhere {r.elsewhere:+.4f}")
        + f"<br>used by {r.uses:,} of these inputs" * (of == EXPERT)
        + ("" if r.q != r.q else f"<br>q = {r.q:.3f}")
        for (group, layer, expert), r in zip(at, shown.itertuples(), strict=True)
    ]
    counts = frame.drop_duplicates("group").set_index("group")["n"]
    labels = axis_names(name.replace("_", " ") for name in groups)
    fig = go.Figure(
        go.Heatmap(
            z=z,
            x=[f"{layer}·{expert}" for layer, expert in experts],
            y=[f"{label} ({counts[name]:,})" for label, name in zip(labels, groups, strict=True)],
            text=np.array(text, dtype=object).reshape(shape),
            texttemplate="%{text}",
            hovertext=np.array(hover, dtype=object).reshape(shape),
            hovertemplate="%{hovertext}<extra></extra>",
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "lost"}, "thickness": 12},
        )
    )
    layout(
        fig,
        title,
        subtitle=subtitle,
        x=f"layer · {of}",
        height=grid_height(len(groups), 200),
    )
    fig.update_xaxes(type="category", tickangle=0, tickfont={"size": 10}, showgrid=False, zeroline=False)
    fig.update_yaxes(type="category", showgrid=False, zeroline=False, autorange="reversed")
    return fig
