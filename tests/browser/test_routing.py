"""The Routing page in a real browser: a forced expert by mouse and keyboard, what is typed, and Back."""

import pytest

from shrp.analysis.explore import explore
from shrp.model.forcing import Force, ForcedRoute
from tests.browser.steps import SENTENCE, address, click_cell, settled, tab_to, to, wait_for_query
from ui.routing.figures import layer_names

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200, func_only=True)]


def test_what_is_typed_is_answered_as_text_and_there_again_after_another_page_and_after_back(app_url, page):
    """With the number of the sentence."""
    from playwright.sync_api import expect

    text = f"{SENTENCE}\n<b>dull</b> 🙂"
    typed = page.get_by_role("textbox", name="One sentence a line")

    def still_there():
        expect(typed).to_have_value(text)
        page.locator("table.routes td", has_text="dull").first.wait_for()
        settled(page)
        expect(page.get_by_role("combobox", name="Sentence", exact=True)).to_have_value("2")
        wait_for_query(page, input=2)
        assert page.locator("b", has_text="dull").count() == 0

    page.goto(address(app_url, "routing", input=2))
    settled(page)  # or the examples, which the first run puts in, could come after what is typed
    typed.fill(text)
    page.get_by_role("button", name="Run", exact=True).click()
    still_there()
    to(page, "Results")
    page.go_back()
    page.get_by_role("heading", name="Routing").first.wait_for()
    still_there()
    to(page, "Results")
    to(page, "Routing")
    still_there()


def test_an_expert_is_forced_by_a_click_or_the_keyboard_alone_and_back_releases_it(app_url, page, shipped):
    from playwright.sync_api import expect

    (before,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)])
    expert = next(e for e in range(12) if e != before.choice(8))
    route = ForcedRoute((Force(8, expert),))
    page.goto(address(app_url, "routing", text=SENTENCE))
    click_cell(page, "what-if", str(expert), *layer_names([8]))
    wait_for_query(page, force=route.text)
    page.get_by_role("region", name="Route as routed and forced").wait_for()
    settled(page)
    assert page.get_by_role("combobox", name="Layer", exact=True).input_value() == "8"  # the pickers follow
    assert page.get_by_role("combobox", name="Expert", exact=True).input_value() == str(expert)
    for there in (False, True, False):
        page.go_forward() if there else page.go_back()
        page.wait_for_url(lambda url, there=there: ("force=" in url) == there)
        expect(page.locator("table.routes")).to_have_count(1 + there)
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
