"""The numbers in a heatmap's cells, in black or white, whichever stands out more.

Plotly picks a dark grey or white by a cell's brightness, which leaves 3.1:1 on middle tones. Of black and white one has
4.6:1 on any colour.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, unlabel_rgb

BLACK, WHITE = "#000000", "#ffffff"
SIZE = 11
"""Of the numbers, in pixels; by itself plotly would give each of the two traces a size of its own."""


def write_numbers(fig: go.Figure) -> None:
    """Have each heatmap with a `texttemplate` write its cells' numbers in two traces of their own, drawn over it; the
    ends of its colour scale must be set.
    """
    for heat in [trace for trace in fig.data if trace.type == "heatmap" and trace.texttemplate]:
        z = np.asarray(heat.z, dtype=float)
        light = _luminance(heat, z) > 0.179  # where black and white stand out alike
        for ink, here in ((BLACK, light), (WHITE, ~light)):
            numbers = go.Heatmap(heat).update(
                z=np.where(here, z, np.nan), showscale=False, hoverinfo="skip", hovertemplate=None
            )
            numbers.update(
                customdata=None, hovertext=None, textfont={"color": ink, "size": SIZE}, hoverongaps=False
            )
            if heat.text is not None:
                numbers.text = np.where(here, np.asarray(heat.text, dtype=object), "").tolist()
            fig.add_trace(numbers)
        heat.texttemplate = None


def _luminance(heat: go.Heatmap, z: np.ndarray) -> np.ndarray:
    """The relative luminance of each cell's colour, 0 to 1 (WCAG 2.2); of an empty one 1."""
    places, colors = zip(*heat.colorscale, strict=True)
    stops = np.array([_rgb(color) for color in colors], dtype=float) / 255
    at = np.clip((z - heat.zmin) / (heat.zmax - heat.zmin), 0, 1)
    rgb = np.stack([np.interp(at, places, channel) for channel in stops.T])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.where(np.isnan(z), 1.0, np.tensordot([0.2126, 0.7152, 0.0722], linear, 1))


def _rgb(color: str) -> tuple[float, ...]:
    return hex_to_rgb(color) if color.startswith("#") else unlabel_rgb(color)
