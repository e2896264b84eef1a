"""Edits of a plan in the page's address."""

from urllib.parse import urlencode

import numpy as np
import pytest

from shrp.errors import PlanError
from shrp.pruning.plan import NO_EDITS, LayerEdit, PlanEdits
from ui.plan_url import LONGEST, decode, encode


def test_edits_are_short_in_the_address_and_come_back():
    edits = PlanEdits(((11, LayerEdit(dropped=(7,))), (6, LayerEdit(4, (0, 3)))))
    assert encode(edits) == "6n4p0.3_11d7"
    assert decode("6n4p0.3_11d7") == edits
    assert encode(NO_EDITS) == ""


def test_any_edits_come_back_and_stand_in_an_address_as_they_are():
    rng = np.random.default_rng(0)
    for _ in range(200):
        layers = []
        for layer in rng.choice(12, size=rng.integers(1, 6), replace=False).tolist():
            chosen, (pins, drops) = rng.permutation(12).tolist(), rng.integers(0, 4, size=2).tolist()
            pinned, dropped = sorted(chosen[:pins]), sorted(chosen[pins : pins + drops])
            layers.append((layer, LayerEdit(int(rng.integers(1, 13)), tuple(pinned), tuple(dropped))))
        edits = PlanEdits(tuple(layers))
        assert decode(encode(edits)) == edits
        assert urlencode({"plan": encode(edits)}) == f"plan={encode(edits)}"


REFUSED = ["x", "_", "6n", "n4", "6n4_", "6p", "6p0.", "6n-1", "6n4 ", "6n4\n", "٦n4", "6n99999", "6n4_6n3"]
REFUSED += ["6n1_" * LONGEST, "6d0p1"]  # the last in one order only, so that there is one text for one plan


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_in_words(text):
    with pytest.raises(PlanError):
        decode(text)
