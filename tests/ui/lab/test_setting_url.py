"""Settings of the lab in the page's address."""

from urllib.parse import urlencode

import pytest

from shrp.errors import PlanError
from shrp.pruning.plan import LayerEdit, PlanEdits
from ui.lab.setting_url import decode, encode
from ui.lab.work import COMBINATIONS, GLOBAL, PER_LAYER, SELECTIONS, Setting

EDITS = PlanEdits(((6, LayerEdit(4, (0, 3))), (11, LayerEdit(1, (2,), weights=(1.0,)))))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Setting(GLOBAL, 12), "12"),
        (Setting(PER_LAYER, 2, "Random (control)", "Plain mean", 7), "2each.random7.mean"),
        (Setting(GLOBAL, 9, "Fitted"), "9.fitted"),
        (Setting(GLOBAL, 12, "Gate × norm", edits=EDITS), "12.gate_norm-6n4p0.3_11n1p2w1.0"),
    ],
)
def test_settings_are_short_in_the_address_and_come_back(setting, text):
    assert encode(setting) == text
    assert decode(text) == setting
    assert urlencode({"a": text}) == f"a={text}"


def test_every_setting_comes_back():
    for kind in (GLOBAL, PER_LAYER):
        for selection in SELECTIONS:
            for combination in COMBINATIONS:
                setting = Setting(kind, 3, selection, combination)
                assert decode(encode(setting)) == setting


@pytest.mark.parametrize(
    "text", ["", "x", "each", "2 each", "-1", "2each.best", "2.mean.random", "9" * 6, "2-", "2-x", "٢", "2\n"]
)
def test_anything_else_is_refused_in_words(text):
    with pytest.raises(PlanError, match="in the address"):
        decode(text)
