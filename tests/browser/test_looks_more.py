"""How the pages look, in light and dark and in a narrow window; the other half, as files are what processes share."""

import pytest

from tests.browser.steps import PAGES, looks_well

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", PAGES[1::2])
def test_a_page_is_legible_its_charts_have_words_and_1200_pixels_cut_nothing(app_url, new_tab, name):
    looks_well(app_url, new_tab, name)


def test_so_are_experts_taken_away(app_url, new_tab):
    looks_well(app_url, new_tab, "expert_usage", profile="Knock-out", layer="9", expert="11")
    looks_well(app_url, new_tab, "expert_usage", view="Importance", data_inputs="32")
