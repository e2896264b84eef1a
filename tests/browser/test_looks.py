"""How the pages look, in light and dark and in a narrow window; half of them, since files are what processes share."""

import pytest

from tests.browser.steps import PAGES, looks_well

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", PAGES[::2])
def test_a_page_is_legible_its_charts_have_words_and_1200_pixels_cut_nothing(app_url, new_tab, name):
    looks_well(app_url, new_tab, name)
