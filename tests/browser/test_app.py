"""The app in a real browser, on a shipped checkpoint: what a person does, and what they must then see.

The lab's scores, routing and how pages look are in files of their own, of which several run at once.
"""

import io
import re
import time
import zipfile

import pytest

from tests.browser.steps import (
    FAST,
    NAME,
    PAGES,
    POLL,
    SENTENCE,
    TYPED,
    address,
    click_cell,
    drawn,
    no_traceback,
    settled,
    wait_for_query,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_first_screen_is_useful(app_url, page, timing):
    started = time.perf_counter()
    page.goto(app_url)
    page.get_by_text("dense teacher", exact=False).first.wait_for()
    timing("first useful screen of a session", time.perf_counter() - started)
    no_traceback(page)


def test_a_click_on_a_heatmap_cell_updates_the_profile_in_view_and_back_returns_to_it(
    app_url, page, new_page
):
    from playwright.sync_api import expect

    def said(tab):
        tab.get_by_role("heading", name="Layer 10, expert 1").wait_for()
        settled(tab)
        return tab.locator(".st-key-verdict").inner_text()

    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(address(app_url, "expert_usage"))
    page.locator(".st-key-usage-map .js-plotly-plot").wait_for()
    click_cell(page, "usage-map", "1", "10")
    wait_for_query(page, layer=10, expert=1)
    shown = said(page)
    assert shown.startswith("Layer 10, expert 1")
    assert "95% CI" in shown  # the knock-out, without a further click
    expect(page.get_by_role("heading", name="Layer 10, expert 1")).to_be_in_viewport()
    other = new_page()
    other.goto(page.url)
    assert said(other) == shown
    page.get_by_role("link", name="Routing", exact=True).first.click()
    page.get_by_role("heading", name="Routing").first.wait_for()
    page.go_back()
    assert said(page) == shown  # after one step back


def test_a_picked_row_of_the_answers_leads_to_its_route(app_url, page):
    from playwright.sync_api import TimeoutError, expect

    page.goto(address(app_url, "overview", answers_with="gladly"))
    table = page.locator("[class*=st-key-answers-all] canvas[data-testid=data-grid-canvas]")
    table.scroll_into_view_if_needed()
    settled(page)
    drawn(page)
    link = page.get_by_role("link", name="its route")
    for _ in range(3):  # what is above may still move it
        box = table.bounding_box()
        page.mouse.click(box["x"] + 18, box["y"] + 38 + 30)  # the mark before the first row
        try:  # a second click would take the row back
            link.wait_for(timeout=30_000)
            break
        except TimeoutError:
            continue
    link.click()
    page.get_by_role("heading", name="Routing").first.wait_for()
    expect(page.locator(TYPED).first).to_have_value(re.compile("gladly", re.IGNORECASE))
    no_traceback(page)


def test_back_returns_to_the_page_and_to_what_was_typed(app_url, page):
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if .js-plotly-plot").wait_for()
    page.get_by_role("link", name="Expert usage").click()
    page.locator(".st-key-usage-map .js-plotly-plot").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Routing").first.wait_for()
    page.locator(".st-key-what-if .js-plotly-plot").wait_for()
    page.wait_for_function(
        "([box, text]) => document.querySelector(box)?.value === text", arg=[TYPED, SENTENCE], polling=POLL
    )
    no_traceback(page)


def sidebar_upload(page, part, name, content):
    """Give a file to the part of the sidebar of that title; returns the part."""
    settled(page)  # each upload is followed by a new, empty box
    details = page.locator("[data-testid=stSidebar] details", has_text=part).first
    details.wait_for()
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    details.locator("input[type=file]").first.set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    return details


def refused(part, name):
    """Wait until the part of the sidebar says, in words, that it did not take the file."""
    part.locator("[data-testid=stAlert]", has_text=name).wait_for()
    said = part.locator("[data-testid=stAlert]").first.inner_text()
    assert "Traceback" not in said
    assert "Error" not in said
    return said


def test_an_uploaded_csv_is_the_source_and_a_broken_one_is_refused_in_words(app_url, page):
    page.goto(address(app_url, "expert_usage"))
    table = "sentence,label\nA joy,positive\nA bore,negative\nFine work,positive\nAwful,negative\n"
    sidebar = page.locator("[data-testid=stSidebar]")
    sidebar_upload(page, "Your own data", "mine.csv", table.encode())
    sidebar.get_by_text("Your own mine.csv: 4 examples").wait_for()
    wait_for_query(page, source="own")
    page.get_by_text(re.compile(r"mine\.csv, n = 4")).first.wait_for()
    for name, content in (("broken.jsonl", b'{"text": "a"\n{]'), ("junk.csv", bytes(range(256)) * 20)):
        refused(sidebar_upload(page, "Your own data", name, content), name)
        sidebar.get_by_text("Your own mine.csv: 4 examples").wait_for()  # what was in use stays in use
    no_traceback(page)


def zipped(**files):
    """A zip archive in which a `__` in a name stands for a dot."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(name.replace("__", "."), content)
    return archive.getvalue()


def test_a_broken_checkpoint_is_refused_in_words_and_the_picked_one_stays(app_url, page):
    page.goto(address(app_url, "overview"))
    page.get_by_role("heading", name=FAST).wait_for()
    for name, content in (
        ("junk.zip", bytes(range(256)) * 20),
        ("pickled.zip", zipped(config__json="{}", pytorch_model__bin="\x80\x04.")),
        ("empty.zip", zipped()),
    ):
        assert "is not loaded" in refused(sidebar_upload(page, "Load a checkpoint", name, content), name)
        settled(page)
        assert page.get_by_role("heading", name=FAST).count()
        assert f"checkpoint={FAST}" in page.url
    page.reload()
    page.get_by_role("heading", name=FAST).wait_for()


def test_typed_text_is_there_again_after_another_page(app_url, page):
    """With the number of the sentence."""
    from playwright.sync_api import expect

    box, number = page.locator(TYPED).first, page.get_by_label("Sentence", exact=True).first
    text = f"{SENTENCE}\nA dull mess from start to finish."

    def to(name):
        page.locator("[data-testid=stSidebar]").get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=name).first.wait_for()

    page.goto(address(app_url, "routing", text=text, input=2))
    box.wait_for()
    to("Expert usage")
    to("Routing")
    expect(box).to_have_value(text)
    settled(page)
    expect(number).to_have_value("2")
    wait_for_query(page, input=2)


def test_the_first_page_has_an_address_of_its_own(app_url, page):
    from playwright.sync_api import expect

    page.goto(address(app_url, "overview", checkpoint=NAME, only="negation"))  # few inputs, which it scores
    settled(page)
    assert page.get_by_text("Page not found").count() == 0
    expect(page).to_have_title(re.compile("^Overview"))
    page.get_by_role("link", name="Routing").click()
    page.get_by_role("heading", name="Routing").first.wait_for()
    page.go_back()
    page.get_by_role("heading", name=NAME).wait_for()
    settled(page)
    assert page.get_by_text("Page not found").count() == 0
    page.goto(app_url)
    page.get_by_role("heading", name=NAME).wait_for()  # the first of the shipped ones, as people count
    expect(page).to_have_title(re.compile("^Overview"))
    expect(page.locator("[data-testid=stSidebar]").get_by_role("link")).to_have_count(len(PAGES))


def test_back_shows_the_clicked_cell_at_once(app_url, page):
    """A click is one step of the history, and what a page was left with is there again."""
    page.goto(address(app_url, "expert_usage", checkpoint=FAST))
    settled(page)
    drawn(page)
    start = page.evaluate("history.length")
    click_cell(page, "usage-map", "3", "8")
    wait_for_query(page, layer=8, expert=3)
    settled(page)
    assert page.evaluate("history.length") == start + 1
    page.locator("[data-testid=stSidebar]").get_by_role("link", name="Results", exact=True).click()
    page.wait_for_url("**/results*")
    settled(page)
    page.go_back()
    wait_for_query(page, layer=8, expert=3)
    settled(page)
    page.get_by_role("heading", name="Layer 8, expert 3", exact=True).wait_for()
