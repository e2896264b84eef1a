"""The report's file in a real browser, on the screen and on paper."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.browser.steps import low_contrast
from ui.report.page import body, page
from ui.report.parts import Section

pytestmark = pytest.mark.browser
PAPER = 688
"""CSS pixels between the margins of an A4 page."""


@pytest.fixture
def report(new_page, tmp_path):
    """`report(scheme)`: an open report with what a section can hold."""
    part = Section("one", "One")
    part.words("Words of a report. " * 30)
    part.warning("Take care.")
    wide = pd.DataFrame([[f"{row}.{column}%" for column in range(13)] for row in range(6)])
    part.table(wide.rename(columns=lambda number: f"expert {number}"), "Shares", folded=True)
    part.figure(go.Figure(go.Bar(x=["a", "b"], y=[1, 2])), "Two bars.", "n = 2")
    part.code("python -m shrp evaluate " + "long " * 60)
    (tmp_path / "report.html").write_bytes(page("A report", body("A report", "of nothing", [part])))

    def opened(scheme):
        shown = new_page(color_scheme=scheme)
        shown.goto((tmp_path / "report.html").as_uri())
        shown.wait_for_function("() => document.documentElement.dataset.charts == 'drawn'")
        return shown

    return opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible_on_the_screen_and_on_paper(report, scheme):
    shown = report(scheme)
    assert not low_contrast(shown)[0]
    shown.emulate_media(media="print", color_scheme=scheme)
    shown.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    low, texts = low_contrast(shown)
    assert texts > 20
    assert not low, low
    assert shown.evaluate("getComputedStyle(document.querySelector('.chart text')).fill") == "rgb(27, 36, 48)"


def test_paper_shows_all_and_cuts_nothing(report):
    shown = report("dark")
    width = "() => Math.round(document.querySelector('.chart .main-svg').getBoundingClientRect().width)"
    on_screen = shown.evaluate(width)
    assert on_screen > PAPER
    shown.set_viewport_size({"width": PAPER, "height": 1000})
    shown.emulate_media(media="print")
    shown.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert shown.evaluate(width) <= PAPER
    assert shown.locator("details[open]").count() == 1
    # Wider content would be cut, or would shrink the whole page.
    assert shown.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert shown.pdf().startswith(b"%PDF")  # which ends as printing does, with the screen's state
    shown.set_viewport_size({"width": 1400, "height": 1100})
    shown.emulate_media(media="screen")
    shown.wait_for_function(f"wanted => ({width})() == wanted", arg=on_screen)
    assert shown.locator("details[open]").count() == 0
