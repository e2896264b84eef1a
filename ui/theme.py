"""Colours and layout that all charts share.

Hues are near Okabe and Ito's palette or a perceptually even scale, so that colour-blind readers can tell them apart; middle
tones are legible on white and near-black. Backgrounds are transparent and fonts Streamlit's, for its light and dark theme.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.colors import hex_to_rgb, unlabel_rgb

BACKGROUND, FOREGROUND = "#000038", "#000037"
"""Streamlit draws these two in a chart as its theme's background and text colour, in light and dark."""
SEQUENTIAL = [[0.0, BACKGROUND], [1.0, "#1f5fa8"]]
"""From nothing (the page's background, so that zeros are blank) to much (blue)."""

DIVERGING = [[0.0, "#1f5fa8"], [0.25, "#7fb0dc"], [0.5, "#efece6"], [0.75, "#f0a860"], [1.0, "#c45a00"]]
"""Blue for less, orange for more; use with `zmid=0`."""

BLUE, ORANGE, GREEN, PURPLE, SKY = "#2b7bba", "#cc7410", "#139a78", "#b86aa0", "#56b4e9"
GREY, MUTED = "#8a8f98", "rgba(138,143,152,0.35)"
SELECTED = "#ff2d78"
"""Marks what is chosen. In a map it has a white edge (`outline`): without red and green it looks like the
middle of one."""
INK = "#767b85"
"""Grey for words in a chart, as far from white as from near-black."""
STYLE = """<style>
.js-plotly-plot text[style*="rgb(128, 132, 149)"] {fill: #555867 !important}
.js-plotly-plot .heatmaplayer text[style*="rgb(38, 39, 48)"] {fill: #000000 !important}
[data-testid=stMultiSelectTagsContainer] [data-tag] {background-color: #1f6fb2}
[data-testid=stMarkdownContainer] table {display: block; max-width: 100%; overflow-x: auto}
[class*=st-key-verdict] p {font-size: 1.3rem; line-height: 1.45}
@media (min-width: 768px) and (max-width: 1200px) {[data-testid=stMainBlockContainer] {padding-left: 2rem; padding-right: 2rem}}
[class*=st-key-chart-] {position: relative; gap: 0}
[class*=st-key-chart-] [class*=st-key-menu-] {position: absolute; top: 0; right: 0; width: auto; z-index: 10}
[class*=st-key-menu-] button [aria-hidden=true]:not([data-testid=stIconMaterial]) {display: none}
[class*=st-key-menu-] button [data-testid=stMarkdownContainer] {position: absolute; opacity: 0; width: 1px; overflow: hidden}
[class*=st-key-chart-] .modebar {right: 2.75rem !important}
.modebar-group {background: none !important}
@media (max-width: 700px) {
  :is(.st-key-what-if, .st-key-tokens, .st-key-effect-map, .st-key-where-map) .heatmaplayer text {display: none}
}
</style>"""
"""On white, Streamlit's grey for the scales and small print of charts is too faint to read; its dark theme's is not. So
is white on the dark theme's blue, of what is picked of a list. A chart's menu lies over its upper right corner. On a phone
the cells of four maps have no room for their numbers, which a tap shows.
"""
HOVER = {"hovertemplate": "%{hovertext}<extra></extra>"}
"""Of a trace with a text for each mark."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
"""Lines and marks of a chart's series, so that colour is not the only sign."""

KIND_COLORS = {"teacher": GREY, "routed": BLUE, "static": GREEN, "control": ORANGE}
"""Kinds of scored models, the same on every page."""
KIND_INKS = KIND_COLORS | {"teacher": INK}
"""The same for words in a chart."""
KIND_SYMBOLS = {"teacher": "diamond", "routed": "circle", "static": "square", "control": "x"}
"""Shapes for the same kinds, so that colour is never the only sign."""


def whiskers(
    value: ArrayLike, low: ArrayLike, high: ArrayLike, *, color: str | None = None, thickness: float = 1.2
) -> dict[str, Any]:
    """Error bars from values to the ends of their intervals, none where an end is nan; by default in the marks' colour."""
    value, low, high = (np.asarray(part, dtype=float) for part in (value, low, high))
    bars = {"type": "data", "array": high - value, "arrayminus": value - low}
    return bars | {"thickness": thickness, "width": 4} | ({"color": color} if color else {})


def pick_by_click(fig: go.Figure) -> None:
    """Set a map up for clicks: a drag draws no box, and the mark under the pointer is hovered, however large."""
    fig.update_layout(hovermode="closest", hoverdistance=-1, dragmode=False)


def outline(fig: go.Figure, column: int, row: int) -> None:
    """A frame around the chosen cell of a map, told from all colours by its white edge."""
    ends = {"type": "rect", "x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    for color, width in (("white", 6), (SELECTED, 3)):
        fig.add_shape(**ends, line={"color": color, "width": width})


def crosses(x: Sequence[Any], y: Sequence[Any]) -> go.Scatter:
    """White crosses on cells of a map, legible on all of its colours."""
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"symbol": "x", "size": 8, "color": "white", "line": {"width": 1.2, "color": "#1b2430"}},
        unselected={"marker": {"opacity": 1}},  # Streamlit dims what isn't selected
        hoverinfo="skip",
        showlegend=False,
    )


def click_targets(
    cells: Sequence[Sequence[int]], texts: Sequence[str], row: str = "layer {}", size: int = 24
) -> go.Scatter:
    """Invisible markers over the cells of a map of layers by experts, which by themselves report no clicks.

    Args:
        cells: `customdata` of each marker: its layer, its expert, and more.
        texts: hover text of each.
        row: how the map names a layer.
        size: in pixels.
    """
    return go.Scatter(
        x=[expert for _, expert, *_ in cells],
        y=[row.format(layer) for layer, *_ in cells],
        mode="markers",
        marker={"symbol": "square", "size": size, "opacity": 0, "color": GREY},
        # Streamlit dims what isn't selected, which would make the markers of the others visible.
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=cells,
        hovertext=texts,
        showlegend=False,
        **HOVER,
    )


def signed_cells(
    z: np.ndarray, x: Sequence[Any], y: Sequence[str], limit: float, *, bar: str = "", **options: Any
) -> go.Heatmap:
    """Cells of a map of signed numbers, blue below 0 and orange above; `bar` is the title of the colours' scale, if shown.

    Args:
        z: `(R, C)`, nan where a cell is blank.
        x, y: names of the columns and rows, HTML-safe.
        limit: where the scale ends on both sides.
    """
    ends = {"zmin": -limit, "zmax": limit, "colorscale": DIVERGING}
    scale = {"showscale": bool(bar), "colorbar": {"title": {"text": bar}, "thickness": 12}}
    return go.Heatmap(z=z, x=list(x), y=list(y), xgap=1, ygap=1, hoverongaps=False, **ends, **scale, **options)


SUBTITLE_WIDTH = 70
"""Characters of a subtitle that fit on a phone."""


def layout(
    fig: go.Figure,
    title: str,
    *,
    subtitle: str,
    x: str = "",
    y: str = "",
    height: int,
    legend: bool | None = None,
    margin: dict[str, int] | None = None,
) -> go.Figure:
    """Give a figure its titles, size and margins, a map no grid and legible numbers; returns it, changed in place.

    Args:
        title: what the chart shows, HTML-safe as all texts here.
        subtitle: n, the data source, the denominator: what a number needs to be read rightly.
        x, y: titles of the axes, with their units.
        height: in pixels, as margins are.
        legend: show it below the plot; None leaves that to Plotly.
    """
    write_numbers(fig)
    if any(trace.type == "heatmap" for trace in fig.data):
        fig.update_xaxes(showgrid=False, zeroline=False)
        fig.update_yaxes(showgrid=False, zeroline=False)
    # A chart cuts what does not fit; within a word a cut may fall into an HTML entity.
    wrap = textwrap.TextWrapper(SUBTITLE_WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = [part for line in subtitle.split("<br>") for part in wrap.wrap(line)]
    fig.update_layout(
        overwrite=True,  # which plotly does several times faster than to merge
        title={
            "text": title,
            "font": {"size": 16},
            "subtitle": {"text": "<br>".join(lines), "font": {"size": 12}},
            "x": 0,
            "xanchor": "left",
            "xref": "container",
            "y": 1 - 22 / height,  # the baseline of its first line, in from the top
            "yanchor": "auto",
            "yref": "container",
            "automargin": False,
        },
        height=height,
        margin={"l": 10, "r": 10, "t": 56 + 18 * len(lines), "b": 10} | (margin or {}),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        # Below the plot a legend may take as many rows as a narrow window makes of it.
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0, "title": None},
    )
    if legend is not None:
        fig.update_layout(showlegend=legend)
    fig.update_xaxes({"automargin": True} | ({"title": {"text": x}} if x else {}))
    fig.update_yaxes({"automargin": True} | ({"title": {"text": y}} if y else {}))
    return fig


BLACK, WHITE = "#000000", "#ffffff"
SIZE = 11
"""Of the numbers, in pixels; by itself plotly would give each of the two traces a size of its own."""


def write_numbers(fig: go.Figure) -> None:
    """Write the numbers of each heatmap with a `texttemplate` in black or white, whichever has more contrast.

    Plotly's own choice leaves 3.1:1 on middle tones; of black and white one has 4.6:1 on any colour. Each is a trace of its
    own over the map, whose colour scale must have both ends. On a scale that begins with the page's background the theme's
    text colour takes the place of black, as these cells are dark in the dark theme.
    """
    for heat in [trace for trace in fig.data if trace.type == "heatmap" and trace.texttemplate]:
        z = np.asarray(heat.z, dtype=float)
        light = _luminance(heat, z) > 0.179  # where black and white have equal contrast
        black = FOREGROUND if heat.colorscale[0][1] == BACKGROUND else BLACK
        for ink, here in ((black, light), (WHITE, ~light)):
            numbers = go.Heatmap(heat).update(z=np.where(here, z, np.nan), showscale=False, hoverinfo="skip")
            numbers.update(hovertemplate=None, customdata=None, hovertext=None, hoverongaps=False)
            numbers.update(textfont={"color": ink, "size": SIZE})
            if heat.text is not None:
                numbers.text = np.where(here, np.asarray(heat.text, dtype=object), "").tolist()
            fig.add_trace(numbers)
        heat.texttemplate = None


def _luminance(heat: go.Heatmap, z: np.ndarray) -> np.ndarray:
    """The relative luminance of each cell's colour, 0 to 1 (WCAG 2.2); of an empty one 1."""
    places, colors = zip(*heat.colorscale, strict=True)
    colors = [WHITE if color == BACKGROUND else color for color in colors]  # as in the light theme
    rgb = [hex_to_rgb(color) if color.startswith("#") else unlabel_rgb(color) for color in colors]
    stops = np.array(rgb, dtype=float) / 255
    at = np.clip((z - heat.zmin) / (heat.zmax - heat.zmin), 0, 1)
    rgb = np.stack([np.interp(at, places, channel) for channel in stops.T])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.where(np.isnan(z), 1.0, np.tensordot([0.2126, 0.7152, 0.0722], linear, 1))
