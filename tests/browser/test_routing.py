"""The routing page in a real browser: a sentence is routed, and its experts forced by mouse and keyboard."""

import re

import pytest

from shrp.analysis.explore import explore
from shrp.model.forcing import Force, ForcedRoute
from tests.browser.steps import (
    SENTENCE,
    TYPED,
    address,
    click_cell,
    no_traceback,
    settled,
    tab_to,
    wait_for_query,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_a_typed_sentence_is_routed(app_url, page):
    page.goto(address(app_url, "routing"))
    settled(page)  # or the examples, which the first run puts in, could come after what is typed
    page.locator(TYPED).first.fill(f"{SENTENCE}\n<b>dull</b> 🙂")
    page.get_by_role("button", name="Route", exact=True).click()
    page.get_by_text("One input in detail").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.locator("b", has_text="dull").count() == 0  # typed text is shown as text
    no_traceback(page)


def test_an_expert_is_forced_by_a_click_and_released(app_url, page, shipped):
    (before,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)])
    expert = next(e for e in range(12) if e != before.choice(8))
    route = ForcedRoute((Force(8, expert),))
    (after,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)], route=route)
    verb = "stays" if after.answer == before.answer else "flips"
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    settled(page)
    axes = page.evaluate(
        """() => { const {xaxis, yaxis} = document.querySelector(".st-key-what-if-0 .js-plotly-plot")._fullLayout;
        return [xaxis, yaxis].map((a) => a.type == "category" ? a._categories : null); }"""
    )
    x, y = (
        str(number) if names is None else next(n for n in names if re.search(rf"\b{number}$", str(n)))
        for names, number in zip(axes, (expert, 8), strict=True)
    )
    click_cell(page, "what-if-0", x, y)
    wait_for_query(page, force=route.text)
    page.get_by_role("heading", name="As routed and forced").wait_for()
    page.get_by_text(f"the prediction {verb}").first.wait_for()
    page.get_by_role("button", name=f"layer 8 → expert {expert}").click()
    page.get_by_text("Nothing is forced").wait_for()
    page.wait_for_url(lambda url: "force=" not in url)
    no_traceback(page)


def test_an_expert_is_forced_and_released_with_the_keyboard_alone(app_url, page, shipped):
    (before,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)])
    expert = next(e for e in (3, 4) if e != before.choice(9))
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    settled(page)
    for control in ("Expert usage", "Checkpoint", "Data", "One sentence a line", "Route"):
        tab_to(page, control)
    for box, number in (("Layer", 9), ("Expert", expert)):
        tab_to(page, box)
        page.keyboard.type(str(number))
        page.keyboard.press("Enter")
        wait_for_query(page, **{f"force_{box.lower()}": number})
        settled(page)
    tab_to(page, "Force")
    page.keyboard.press("Enter")
    wait_for_query(page, force=f"9.{expert}")
    page.get_by_role("heading", name="As routed and forced").wait_for()
    settled(page)
    tab_to(page, f"layer 9 → expert {expert}")
    page.keyboard.press("Space")
    page.get_by_text("Nothing is forced").wait_for()
    no_traceback(page)
