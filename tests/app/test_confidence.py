"""The tab on probabilities, which the lab and Compare share, against figures made without the app."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.evaluation import calibration
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import specs, texts_of, values
from ui.text import percent, score_text

SST2 = load_probe("sst2")
TAB = "Threshold and confidence"


def plainly(at):
    return texts_of(at).replace("**", "")


def figure(at):
    """The reliability chart."""
    (found,) = [spec for spec in specs(at) if "confident" in spec["layout"]["title"]["text"]]
    return found


@pytest.fixture
def two(tiny_checkpoint):
    """The routed model's evaluation, and that of two experts a model."""
    loaded = checkpoints.load(tiny_checkpoint)
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, SST2), budget=2)
    models = (loaded.model, prune(loaded.model, plan))
    return [evaluate(model, loaded.tokenizer, SST2) for model in models]


def test_the_lab_says_how_far_probabilities_can_be_trusted(open_page, tiny_checkpoint, two, cache):
    at = open_page("pruning_lab", tiny_checkpoint, budget=2, lab_tab=TAB)
    assert not at.exception
    said = plainly(at)
    for one in two:
        error = calibration.ece(one)
        numbers = percent(error.value), percent(error.by_chance), score_text(calibration.brier(one), "brier")
        assert all(number in said for number in numbers)
    dashed, *models = figure(at)["data"]
    assert dashed["line"]["dash"] == "dash"
    for trace, name, one in zip(models, ("routed", "pruned"), two, strict=True):
        frame = calibration.reliability(one)
        assert trace["name"] == name
        np.testing.assert_allclose(values(trace["x"]), 100 * frame["confidence"], rtol=1e-4)
        np.testing.assert_allclose(values(trace["y"]), 100 * frame["accuracy"])
        upper = 100 * (frame["accuracy high"] - frame["accuracy"])
        np.testing.assert_allclose(values(trace["error_y"]["array"]), upper)


def test_few_inputs_in_two_orders_are_drawn_with_a_warning(two, cache):
    one, other = two
    rows = np.random.default_rng(0).permutation(480)
    running = [summarise(SST2, part, e.logits[part], False) for e, part in ((one, rows), (other, rows[:20]))]

    def page(first, second):
        from ui import pair_tabs

        pair_tabs._confidence(first, second, ("dense teacher", "a_b"), "file")

    at = AppTest.from_function(page, args=running, default_timeout=60).run()
    assert not at.exception
    here = np.sort(rows[:20])
    first, second = (summarise(SST2, here, e.logits[here], False) for e in two)
    for trace, part in zip(figure(at)["data"][-2:], (first, second), strict=True):
        np.testing.assert_allclose(values(trace["y"]), 100 * calibration.reliability(part)["accuracy"])
    none = summarise(SST2, rows[20:], other.logits[rows[20:]], False)
    at = AppTest.from_function(page, args=(running[1], none), default_timeout=60).run()
    assert not at.exception
    assert not at.get("plotly_chart")
