"""How the pages look, in light and dark and in a narrow window."""

import pytest

from tests.browser.steps import PAGES, looks_well

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
KNOCKED_OUT = {"profile": "Knock-out", "layer": "9", "expert": "11"}
IMPORTANCE = {"view": "Importance", "data_inputs": "32"}


@pytest.mark.parametrize(
    ("name", "query"),
    [*((name, {}) for name in PAGES), ("expert_usage", KNOCKED_OUT), ("expert_usage", IMPORTANCE)],
)
def test_a_page_is_legible_its_charts_have_words_and_1200_pixels_cut_nothing(app_url, new_tab, name, query):
    looks_well(app_url, new_tab, name, **query)
