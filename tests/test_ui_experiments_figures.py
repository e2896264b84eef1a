"""Charts of the Experiments page: what their legends and axes hold."""

from types import SimpleNamespace

from shrp.rates import rates_frame
from shrp.studies import NAMES, average, glue_frame
from ui.experiments_figures import pareto
from ui.experiments_rate_figures import kept_by_rate

from .test_experiments import rates_row
from .test_studies import row


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
