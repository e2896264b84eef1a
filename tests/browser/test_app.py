"""The app in a real browser, on a shipped checkpoint: what a person does, and what they must then see.

The lab's scores, a person's own model and how pages look are in files of their own.
"""

import io
import re
import zipfile

import pytest

from shrp.analysis.explore import explore
from shrp.model.forcing import Force, ForcedRoute
from tests.browser.steps import (
    FAST,
    NAME,
    PAGES,
    SENTENCE,
    address,
    click_cell,
    nothing_broke,
    settled,
    tab_to,
    to,
    wait_for_query,
)
from ui.routing.figures import layer_names

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200, func_only=True)]


def test_the_first_page_has_its_verdict_at_once_and_back_returns_to_it(app_url, page):
    from playwright.sync_api import expect

    page.goto(app_url)
    page.get_by_role("heading", name=NAME).wait_for()  # the first of the shipped ones, as people count
    page.locator(".st-key-verdict").first.wait_for()
    expect(page).to_have_title(re.compile("^Overview"))
    expect(page.locator("[data-testid=stSidebar]").get_by_role("link")).to_have_count(len(PAGES))
    to(page, "Results")
    settled(page)
    page.go_back()
    page.get_by_role("heading", name=NAME).wait_for()
    page.locator(".st-key-verdict").first.wait_for()
    nothing_broke(page)


def test_a_click_on_a_heatmap_cell_updates_the_profile_in_view_and_back_returns_to_it(app_url, page):
    """A click is one step of the history, and what a page was left with is there again, also before all is measured."""
    from playwright.sync_api import expect

    def said():
        page.get_by_role("heading", name="Layer 10, expert 1").wait_for()
        settled(page)
        return page.locator(".st-key-verdict").inner_text()

    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(address(app_url, "expert_usage"))
    page.locator(".st-key-usage-map .js-plotly-plot").wait_for()
    settled(page)
    start = page.evaluate("history.length")
    click_cell(page, "usage-map", "1", "10")
    wait_for_query(page, layer=10, expert=1)
    assert page.evaluate("history.length") == start + 1
    expect(page.get_by_role("heading", name="Layer 10, expert 1")).to_be_in_viewport()
    to(page, "Results")  # while the knock-out may still be measured
    settled(page)
    page.go_back()
    wait_for_query(page, layer=10, expert=1)
    shown = said()
    assert shown.startswith("Layer 10, expert 1")
    assert "95% CI" in shown  # the knock-out, without a further click
    to(page, "Results")
    to(page, "Expert usage")  # one step as well
    assert (said(), page.evaluate("history.length")) == (shown, start + 3)
    page.reload()  # a session of its own
    assert said() == shown


def refused(page, box, name, content):
    """Give a file to a box of the dialog, which says in words that it does not take it."""
    dialog = give(page, box, name, content)
    dialog.locator("[data-testid=stAlert]", has_text=name).wait_for()
    said = dialog.locator("[data-testid=stAlert]", has_text=name).inner_text()
    assert "Traceback" not in said
    assert "Error" not in said


MODEL, TABLE = "or a zip of its folder", "A table of sentences"


def give(page, box, name, content):
    """Give a file to a box of the dialog for own models and data, which this opens."""
    dialog = page.get_by_role("dialog")
    if not dialog.count():
        page.get_by_role("button", name="Use your own model or data").click()
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    settled(page)
    dialog.locator("[data-testid=stFileUploader]", has_text=box).locator("input").set_input_files(file)
    return dialog


def test_uploads_are_used_or_refused_in_words_and_a_reload_keeps_them(app_url, page):
    page.goto(address(app_url, "overview"))
    table = "sentence,label\nA joy,positive\nA bore,negative\nFine work,positive\nAwful,negative\n"
    mine = page.locator("[data-testid=stSidebar]").get_by_text("Your own mine.csv: 4 examples")
    verdict = page.locator(".st-key-verdict", has_text="mine.csv")
    dialog = give(page, TABLE, "mine.csv", table.encode())
    dialog.get_by_text("4 rows").wait_for()
    dialog.get_by_role("button", name="Look at it").click()
    mine.wait_for()
    wait_for_query(page, source="own")
    verdict.wait_for()
    refused(page, TABLE, "broken.jsonl", b'{"text": "a"\n{]')
    mine.wait_for()  # what was in use stays in use
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as pickled:
        pickled.writestr("config.json", "{}")
        pickled.writestr("pytorch_model.bin", "\x80\x04.")
    refused(page, MODEL, "pickled.zip", archive.getvalue())
    wait_for_query(page, checkpoint=FAST)
    # Behind the dialog the page may wait for it to close.
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="detached")
    page.get_by_role("heading", name=FAST).wait_for()
    verdict.wait_for()
    page.reload()
    page.get_by_role("heading", name=FAST).wait_for()
    verdict.wait_for()
    nothing_broke(page)


# Routing


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
