"""What is measured of a checkpoint reads inputs as far as its training did, on every page."""

import pytest
from transformers import PreTrainedTokenizerFast

from shrp.checkpoints import info as checkpoint_info
from shrp.checkpoints.checkpoint import load
from shrp.data.batching import token_counts
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.model.config import ShrpConfig
from shrp.pruning import select
from ui.usage import profile

TRAINED = 12
"""Tokens that the checkpoint learned from, fewer than its model can read."""


@pytest.fixture
def cuts(monkeypatch):
    """The lengths at which texts have been cut since."""
    found, encode = [], PreTrainedTokenizerFast.__call__

    def noting(self, *texts, **options):
        if options.get("truncation"):
            found.append(options["max_length"])
        return encode(self, *texts, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", noting)
    return found


@pytest.fixture
def trained_shorter(save_tiny, monkeypatch):
    """A factory of checkpoints that learned from inputs shorter than the model can read."""
    monkeypatch.setattr(checkpoint_info, "EVALUATED_TOKENS", 6)
    training = {"config": {"max_length": TRAINED}}
    return lambda routing="sequence": save_tiny("tiny", routing=routing, training=training)


def test_the_sidebar_says_how_many_examples_are_read_in_part(open_page, trained_shorter):
    folder = trained_shorter()
    counts = token_counts(load(folder).tokenizer, load_probe("sst2").texts)
    longer = sum(count > TRAINED for count in counts)
    assert 0 < longer < 480
    said = [caption.value.replace("\\", "") for caption in open_page("overview", folder).sidebar.caption]
    assert any(f"{longer} of 480 " in one and f"{TRAINED} tokens" in one for one in said)


@pytest.mark.parametrize(
    ("training", "length"),
    [
        ({}, 128),
        ({"config": {"max_length": 64}}, 128),
        ({"config": {"max_length": None}, "recovery": {"config": None}}, 128),
        ({"config": {"max_length": 200}}, 200),
        ({"config": {"max_length": 200}, "recovery": {"config": {"max_length": 256}}}, 256),  # of the task
        ({"config": {"max_length": 200}, "recovery": {"max_length": 64}}, 200),  # of texts
    ],
)
def test_the_last_training_on_a_task_says_how_long_inputs_are(training, length):
    info = checkpoint_info.CheckpointInfo(ShrpConfig(()), TASKS["sst2"], training=training)
    assert info.max_length == length


@pytest.mark.parametrize(
    ("page", "params"),
    [("compare", {"b": "tiny: pruned"}), ("expert_usage", {"view": "Importance", "data_inputs": 32})],
)
def test_a_checkpoint_is_measured_on_inputs_as_long_as_it_learned_from(
    open_page, trained_shorter, cache, cuts, page, params
):
    open_page(page, trained_shorter(), **params)
    assert set(cuts) == {TRAINED}


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_so_is_every_part_of_an_experts_profile(open_page, trained_shorter, cache, cuts, routing):
    at = open_page("expert_usage", trained_shorter(routing))
    assert set(cuts) == {TRAINED}
    for part in (profile.WORDS, profile.ATTENTION):
        cuts.clear()
        at.session_state[profile.TABS] = part
        at.run()
        assert set(cuts) <= {TRAINED}, part
        # Words of whole inputs are counted as they stand, without the model.
        assert bool(cuts) == (part != profile.WORDS or routing == "token"), part


def test_so_is_every_selection_of_the_lab(open_page, trained_shorter, cache, cuts, monkeypatch):
    monkeypatch.setattr(select, "WARM_UP", 4)
    monkeypatch.setattr(select, "STEPS", 24)
    at = open_page("pruning_lab", trained_shorter())
    assert set(cuts) == {TRAINED}
    for selection in ("gate_norm", "fitted"):
        cuts.clear()
        at.selectbox(key="select").set_value(selection).run(timeout=120)
        assert set(cuts) == {TRAINED}, selection
