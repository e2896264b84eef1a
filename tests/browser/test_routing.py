"""The Routing page in a real browser: the verdict, a forced expert by mouse and keyboard, Back, and a phone."""

import re

import pytest

from shrp.analysis.explore import explore
from shrp.model.forcing import Force, ForcedRoute
from tests.browser.measure import measure
from tests.browser.steps import (
    SENTENCE,
    TYPED,
    address,
    click_cell,
    drawn,
    no_traceback,
    settled,
    tab_to,
    wait_for_query,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
GRID = ".st-key-what-if .js-plotly-plot"


def cell_of(page, layer, expert):
    """A cell's place in the grid's own terms."""
    page.locator(GRID).wait_for()
    settled(page)
    axes = page.evaluate(
        f"""() => {{ const {{xaxis, yaxis}} = document.querySelector("{GRID}")._fullLayout;
        return [xaxis, yaxis].map((a) => a.type == "category" ? a._categories : null); }}"""
    )
    return [
        str(number) if names is None else next(n for n in names if re.search(rf"\b{number}$", str(n)))
        for names, number in zip(axes, (expert, layer), strict=True)
    ]


def test_the_first_screen_is_small_and_has_the_verdict_and_the_grid(app_url, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(address(app_url, "routing"))
    settled(page)
    drawn(page)
    found = measure(page)
    assert found.words <= 450
    assert found.height <= 2400
    assert found.controls <= 12
    for part in (".st-key-verdict", "table.routes"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] + box["height"] < 900
    assert page.locator(GRID).bounding_box()["y"] < 800


def test_what_is_typed_is_answered_and_shown_as_text(app_url, page):
    page.goto(address(app_url, "routing"))
    settled(page)  # or the examples, which the first run puts in, could come after what is typed
    page.locator(TYPED).first.fill(f"{SENTENCE}\n<b>dull</b> 🙂")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator("table.routes td", has_text="dull").wait_for()
    settled(page)
    assert page.locator("b", has_text="dull").count() == 0
    no_traceback(page)


def test_a_click_forces_an_expert_the_pickers_follow_and_back_releases_it(app_url, page, shipped):
    from playwright.sync_api import expect

    (before,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)])
    expert = next(e for e in range(12) if e != before.choice(8))
    route = ForcedRoute((Force(8, expert),))
    page.goto(address(app_url, "routing", text=SENTENCE))
    click_cell(page, "what-if", *cell_of(page, 8, expert))
    wait_for_query(page, force=route.text)
    page.locator("table.routes").nth(1).wait_for()
    settled(page)
    assert page.get_by_label("Layer", exact=True).first.input_value() == "8"
    assert page.get_by_label("Expert", exact=True).first.input_value() == str(expert)
    page.go_back()
    page.wait_for_url(lambda url: "force=" not in url)
    expect(page.locator("table.routes")).to_have_count(1)
    page.go_forward()
    wait_for_query(page, force=route.text)
    page.locator("table.routes").nth(1).wait_for()
    no_traceback(page)


def test_an_expert_is_forced_and_released_with_the_keyboard_alone(app_url, page):
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(GRID).wait_for()
    settled(page)
    for box, number in (("Layer", 9), ("Expert", 4)):
        tab_to(page, box)
        page.keyboard.press("ArrowDown")
        page.get_by_role("option").first.wait_for()
        page.keyboard.type(str(number))
        page.keyboard.press("Enter")
        settled(page)
    tab_to(page, "Force")
    for forced in (True, False):  # the button keeps the focus, and then releases
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url, forced=forced: ("force=9.4" in url) == forced)
        settled(page)


def test_on_a_phone_no_numbers_overlap_and_nothing_is_wider_than_the_screen(app_url, page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(GRID).wait_for()
    settled(page)
    assert measure(page).wide == 0
    overlap = page.evaluate(
        f"""() => {{
          const boxes = [...document.querySelectorAll("{GRID} .heatmaplayer text")]
            .filter((e) => e.checkVisibility() && e.textContent.trim()).map((e) => e.getBoundingClientRect());
          return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 1 && b.top < a.bottom - 1)); }}"""
    )
    assert not overlap
