"""Charts of the Experiments page: what their legends and axes hold."""

from types import SimpleNamespace

import pytest

from shrp.studies.leads import lead_frame
from shrp.studies.rates import rates_frame
from shrp.studies.studies import NAMES, average, glue_frame
from tests.studies.test_experiments import rates_row
from tests.studies.test_studies import row
from ui.experiments.figures import lead_panels, pareto, retained_panels
from ui.experiments.rate_figures import kept_by_rate


def test_the_legend_of_sizes_has_one_entry_a_model():
    rows = [
        row("cola", "static", 0.8, per_layer=2, recipe=recipe, recovered=recovered)
        for recipe in ("retain", "paper")
        for recovered in (False, True)
    ]
    rows += [
        row("cola", "uniform", 0.9, recipe="paper"),
        row("cola", "unrouted", 0.7, per_layer=2, recovered=True),
    ]
    fig = pareto(average(glue_frame(rows)), "encoder_params", "")
    ours = [trace for trace in fig.data if trace.legendgroup]
    assert len(ours) == 6
    shown = [trace for trace in ours if trace.showlegend]
    assert sorted(trace.name for trace in shown) == sorted(
        NAMES[name] for name in ("static", "uniform", "unrouted")
    )
    (static,) = (trace for trace in shown if trace.legendgroup == "static")
    assert (static.marker.symbol, static.marker.size) == ("square", 12)  # of `retain`, trained on


def test_models_at_one_rate_have_a_place_each_and_no_axis_of_rates():
    def frame(*rows):
        return rates_frame(SimpleNamespace(rows=[rates_row(*one) for one in rows], data={}))

    alone = kept_by_rate(frame(("dropped", 1.0, 0.1), ("static", 1.0, 0.3)), "")
    assert [list(trace.x) for trace in alone.data[:2]] == [[0], [1]]
    assert list(alone.layout.xaxis.ticktext) == ["SHRP, recovered", "layers dropped"]
    assert "of several models" in alone.layout.title.text
    several = kept_by_rate(frame(("dropped", 1.0, 0.1), ("static", 1.0, 0.3), ("static", 2.0, 0.2)), "")
    assert list(several.layout.xaxis.ticktext) == ["1", "2"]
    assert "by learning rate" in several.layout.title.text


def test_leads_have_a_panel_a_task_filled_where_they_are_paired():
    led = {"lead": 0.1, "lead_interval": [0.08, 0.12]}
    mine = [row(task, "static", 0.9, per_layer=2, recovered=True) for task in ("cola", "rte")]
    rows = [*mine, row("cola", "dropped", 0.8) | led, row("rte", "dropped", 0.7), row("cola", "uniform", 1.0)]
    fig = lead_panels(lead_frame(glue_frame(rows)), "SHRP's lead", "")
    titles = [one.text for one in fig.layout.annotations]
    assert titles == [
        f"{task}<br><sup>n = {n}</sup>" for task, n in (("cola", 100), ("rte", 100), ("mean", 200))
    ]
    marks = {(one.name, one.xaxis): (one.x[0], one.marker.symbol) for one in fig.data}
    assert marks == {
        ("layers dropped", "x"): (pytest.approx(10), "triangle-down"),
        ("layers dropped", "x2"): (pytest.approx(20), "triangle-down-open"),
        ("layers dropped", "x3"): (pytest.approx(15), "triangle-down-open"),
        ("no router", "x"): (pytest.approx(-10), "hexagon-open"),
    }
    (cola,) = (one for one in fig.data if one.xaxis == "x" and one.name == "layers dropped")
    assert "cola: +10.0 (+8.0 to +12.0) points (on the same inputs, seeds: 1)" in cola.hovertext
    assert fig.layout.xaxis.range[0] < 0 < fig.layout.xaxis.range[1]  # nobody's lead is in every panel


def test_long_names_beside_each_other_have_room():
    short = [row("cola", "static", 0.8, per_layer=m) for m in (2, 4, 8, 12)]
    long = [
        row("cola", "unrouted", 0.7, per_layer=2, recovered=True),
        row("cola", "narrow", 0.7, per_layer=2, texts=0),
    ]
    fig = retained_panels(glue_frame([*short, *long]), "t", "n")
    names = list(fig.layout.yaxis.categoryarray)
    needed = 14 * sum(name.count("<br>") + 1 for name in names[:2]) / 2  # the two long ones stand lowest
    assert needed >= 42
    below = 60  # the axis' own numbers
    assert (fig.layout.height - fig.layout.margin.t - below) / len(names) >= needed
