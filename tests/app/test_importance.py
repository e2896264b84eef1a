"""Importance on Expert usage: every expert, or every head of the dense layers, knocked out on a data set."""

import numpy as np
import pytest

from shrp.analysis.importance import blocks, knock_outs
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from tests.app.helpers import specs, values
from ui.usage import importance

LINK = {"view": "Importance", "data_inputs": "32", "data_inputs_heads": "32"}
SST2 = load_probe("sst2")


def titled(at, start):
    return next(s for s in specs(at) if s["layout"]["title"]["text"].startswith(start))


@pytest.fixture
def dense(save_tiny):
    return save_tiny("plain", layers=())


def test_every_expert_is_knocked_out(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, **LINK)
    assert not at.exception
    assert not at.error
    loaded = checkpoints.load(tiny_checkpoint)
    found = knock_outs(loaded.model, loaded.tokenizer, SST2, next(blocks(SST2, 32)))
    table = found.table(SST2, None)
    drawn = values(titled(at, "Mean effect of each expert")["data"][0]["z"])
    used = table["uses"].to_numpy().reshape(2, 4) > 0
    np.testing.assert_allclose(drawn[used], table["signed"].to_numpy().reshape(2, 4)[used], atol=1e-5)
    assert np.isnan(drawn[~used]).all()


def test_by_group_the_slice_comes_first_and_class_is_a_choice(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, **LINK)
    picker = at.segmented_control(key=importance.BY)
    assert picker.options == ["class", "slice", "length"]
    assert picker.value == "slice"
    names = titled(at, "Mean margin")["data"][0]["y"]
    assert {name.split(" (")[0] for name in names} <= {name.replace("_", " ") for name in SST2.slices}
    picker.set_value("class").run()
    assert not at.exception
    assert {name.split(" (")[0] for name in titled(at, "Mean margin")["data"][0]["y"]} == {
        "negative",
        "positive",
    }


def test_a_dense_checkpoint_has_heads_and_no_dead_end(open_page, dense):
    at = open_page("expert_usage", dense, **LINK)
    assert not at.exception
    assert not at.get("plotly_chart")  # until it is asked for
    assert at.main.get("page_link")
    assert not [
        link
        for link in at.sidebar.get("page_link")
        if link.proto.page == "expert_usage" and link.proto.disabled
    ]
    at.toggle(key=importance.ON).set_value(True).run()
    assert not at.exception
    assert not at.error
    loaded = checkpoints.load(dense)
    found = knock_outs(loaded.model, loaded.tokenizer, SST2, next(blocks(SST2, 32)), heads=True).table(
        SST2, None
    )
    drawn = titled(at, "Mean effect of each head")
    np.testing.assert_allclose(
        values(drawn["data"][0]["z"]), found["signed"].to_numpy().reshape(3, 4), atol=1e-5
    )
