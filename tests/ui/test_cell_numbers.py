"""Numbers in cells stand out from every colour of every scale, once each, and nothing else of the map changes."""

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.colors import hex_to_rgb, sample_colorscale, unlabel_rgb

from shrp.pruning.plan import LayerPlan, PruningPlan
from ui.lab.kept import expert_map
from ui.theme import BACKGROUND, BLACK, DIVERGING, FOREGROUND, SEQUENTIAL, write_numbers


def contrast(one, two):
    """After WCAG 2.2, of two colours of 0 to 255."""
    lights = []
    for color in (one, two):
        parts = np.asarray(color) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize(("scale", "ink"), [(SEQUENTIAL, FOREGROUND), (DIVERGING, BLACK)])
def test_every_number_stands_out(scale, ink):
    z = np.linspace(-3, 3, 60).reshape(6, 10)
    fig = go.Figure(go.Heatmap(z=z, colorscale=scale, zmin=-3, zmax=3, texttemplate="%{z}"))
    write_numbers(fig)
    cells, *both = fig.data
    assert cells.texttemplate is None
    colors = [(p, "#ffffff" if c == BACKGROUND else c) for p, c in cells.colorscale]  # as in the light theme
    stops = [[p, "rgb({}, {}, {})".format(*hex_to_rgb(c))] for p, c in colors]
    written = 0
    for numbers, painted in zip(both, ((0, 0, 0), (255, 255, 255)), strict=True):
        shown = numbers.z[np.isfinite(numbers.z)]
        written += len(shown)
        for mixed in sample_colorscale(stops, ((shown + 3) / 6).tolist()):
            assert contrast(unlabel_rgb(mixed), painted) >= 4.5
    assert written == z.size
    assert both[0].textfont.color == ink


def test_shares_that_round_to_nothing_are_blank_in_a_map_of_experts():
    fig = expert_map(PruningPlan(((1, LayerPlan((0, 1, 2), (0.0, 0.004, 0.996))),)), 4, "")
    written = {text for trace in fig.data if trace.text is not None for text in np.ravel(trace.text)}
    assert written == {"", "100"}
