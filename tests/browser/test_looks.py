"""How the pages look, in light and dark and in a narrow window."""

import pytest

from .steps import PAGES, address_with_charts, cut_texts, drawn, low_contrast, settled

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_legible_its_charts_have_words_and_1200_pixels_cut_nothing(app_url, new_page, name):
    page = new_page(viewport={"width": 1200, "height": 900})
    page.goto(address_with_charts(app_url, name))
    settled(page)
    drawn(page)
    page.wait_for_function(
        """() => [...document.querySelectorAll(".js-plotly-plot")].every(
            (chart) => chart.closest("[role=figure][aria-label]:not([aria-label=''])"))"""
    )
    cut, seen = cut_texts(page)
    assert seen
    assert not cut
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        low, texts = low_contrast(page)
        assert texts > 20
        assert not low, f"{len(low)} of {texts} texts in {scheme}: {low[:8]}"
