"""The app in a real browser, on a shipped checkpoint: what a person does, and what they must then see.

The lab's scores, routing and how pages look are in files of their own.
"""

import io
import re
import zipfile

import pytest

from tests.browser.steps import (
    FAST,
    NAME,
    PAGES,
    address,
    click_cell,
    nothing_broke,
    settled,
    to,
    wait_for_query,
)

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


def test_a_click_on_a_heatmap_cell_updates_the_profile_in_view_and_back_returns_to_it(
    app_url, page, other_page
):
    """A click is one step of the history, and what a page was left with is there again, also before all is measured."""
    from playwright.sync_api import expect

    def said(tab):
        tab.get_by_role("heading", name="Layer 10, expert 1").wait_for()
        settled(tab)
        return tab.locator(".st-key-verdict").inner_text()

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
    shown = said(page)
    assert shown.startswith("Layer 10, expert 1")
    assert "95% CI" in shown  # the knock-out, without a further click
    other_page.goto(page.url)
    assert said(other_page) == shown


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


def zipped(files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return archive.getvalue()


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
    refused(page, MODEL, "pickled.zip", zipped({"config.json": "{}", "pytorch_model.bin": "\x80\x04."}))
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
