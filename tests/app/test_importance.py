"""Importance on Expert usage: every expert, or every head of the dense layers, knocked out on a data set."""

import numpy as np

from shrp.analysis.importance import blocks, knock_outs
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from tests.app.helpers import specs, values
from ui.usage import importance

LINK = {"view": "Importance", "data_inputs": "32", "data_inputs_heads": "32"}
SST2 = load_probe("sst2")


def titled(at, start):
    return next(s for s in specs(at) if s["layout"]["title"]["text"].startswith(start))


def groups(at):
    """Those of the chart of mean margins, without their counts."""
    return {name.split(" (")[0] for name in titled(at, "Mean margin")["data"][0]["y"]}


def test_every_expert_is_knocked_out_by_slice_or_class(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, **LINK)
    assert not at.exception
    assert not at.error
    loaded = checkpoints.load(tiny_checkpoint)
    found = knock_outs(loaded.model, loaded.tokenizer, SST2, next(blocks(SST2, 32)))
    table = found.table(SST2, None)
    drawn = values(titled(at, "Mean effect")["data"][0]["z"])
    used = table["uses"].to_numpy().reshape(2, 4) > 0
    np.testing.assert_allclose(drawn[used], table["signed"].to_numpy().reshape(2, 4)[used], atol=1e-5)
    assert np.isnan(drawn[~used]).all()
    picker = at.segmented_control(key=importance.BY)
    assert (picker.options, picker.value) == (["class", "slice", "length"], "slice")
    assert groups(at) <= {name.replace("_", " ") for name in SST2.slices}
    picker.set_value("class").run()
    assert not at.exception
    assert groups(at) == {"negative", "positive"}


def test_a_dense_checkpoint_has_heads_and_no_dead_end(open_page, save_tiny):
    dense = save_tiny("plain", layers=())
    at = open_page("expert_usage", dense, **LINK)
    assert not at.exception
    assert not at.get("plotly_chart")  # until it is asked for
    assert at.main.get("page_link")
    links = at.sidebar.get("page_link")
    assert not [link for link in links if link.proto.page == "expert_usage" and link.proto.disabled]
    at.toggle(key=importance.ON).set_value(True).run()
    assert not at.exception
    assert not at.error
    loaded = checkpoints.load(dense)
    found = knock_outs(loaded.model, loaded.tokenizer, SST2, next(blocks(SST2, 32)), heads=True)
    drawn = values(titled(at, "Mean effect")["data"][0]["z"])
    expected = found.table(SST2, None)["signed"].to_numpy().reshape(3, 4)
    np.testing.assert_allclose(drawn, expected, atol=1e-5)
