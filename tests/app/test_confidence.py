"""The tab on probabilities, which the lab and Compare share, against figures made without the app."""

import numpy as np

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.evaluation import calibration
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import specs, texts_of, values
from ui.text import percent, score_text

SST2 = load_probe("sst2")
TAB = "Threshold and confidence"


def test_the_lab_says_how_far_probabilities_can_be_trusted(open_page, tiny_checkpoint, cache):
    """Of the routed model and of two of its experts."""
    loaded = checkpoints.load(tiny_checkpoint)
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, SST2), budget=2)
    two = [evaluate(model, loaded.tokenizer, SST2) for model in (loaded.model, prune(loaded.model, plan))]
    at = open_page("pruning_lab", tiny_checkpoint, budget=2, lab_tab=TAB)
    assert not at.exception
    said = texts_of(at).replace("**", "")
    for one in two:
        error = calibration.ece(one)
        numbers = percent(error.value), percent(error.by_chance), score_text(calibration.brier(one), "brier")
        assert all(number in said for number in numbers)
    (chart,) = [spec for spec in specs(at) if "confident" in spec["layout"]["title"]["text"]]
    dashed, *models = chart["data"]
    assert dashed["line"]["dash"] == "dash"
    for trace, name, one in zip(models, ("routed", "pruned"), two, strict=True):
        frame = calibration.reliability(one)
        assert trace["name"] == name
        np.testing.assert_allclose(values(trace["x"]), 100 * frame["confidence"], rtol=1e-4)
        np.testing.assert_allclose(values(trace["y"]), 100 * frame["accuracy"])
        upper = 100 * (frame["accuracy high"] - frame["accuracy"])
        np.testing.assert_allclose(values(trace["error_y"]["array"]), upper)
