"""Controls that `train --keep-stages` leaves, opened as checkpoints: each page says what they are and lack."""

import pytest

from tests.app.helpers import texts_of

SAID = {
    "pruning_lab": {
        "uniform": "a control without routers, so there is no usage to prune by",
        "dropped": "a control whose layers were dropped, so there is no usage to prune by",
        "narrow": "heads and neurons of its layers were pruned, so there is no usage to prune by",
    },
}


@pytest.mark.parametrize("control", ["uniform", "dropped", "narrow"])
@pytest.mark.parametrize("page", SAID)
def test_a_control_says_what_it_lacks(open_page, save_tiny, page, control):
    at = open_page(page, save_tiny(control, control=control), text="w1 w2 w3")
    assert not at.exception
    assert not at.error
    assert SAID[page][control] in texts_of(at)
