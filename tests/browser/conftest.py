"""A running app and a real browser; skips where no Chromium is to be had."""

import os
import shutil
import signal
from contextlib import suppress

import pytest

from shrp.checkpoints.checkpoint import load
from tests.browser.steps import FAST, WATCHED, address, settled
from tests.processes import ROOT, serve

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_MS = 240_000
"""Far more than anything takes on an idle machine, so that a busy one fails nothing."""


@pytest.fixture(scope="session")
def app_url(tmp_path_factory, tab):
    """The app on the shipped checkpoints, the probe sets and GLUE, where SHRP_DATA_DIR names it, without results; once it
    has imported all that a page needs.
    """
    if not any((ROOT / "checkpoints").glob("*/config.json")):
        pytest.skip("no checkpoint is shipped under checkpoints/")
    folder = tmp_path_factory.mktemp("app")
    process, url = serve(folder / "cache", folder / "streamlit.log")
    try:
        tab.goto(address(url, "routing"))
        settled(tab)
        yield url
    finally:
        process.terminate()
        process.wait()
        with suppress(OSError, ValueError):  # the jobs' process stays for others
            os.kill(int((folder / "cache/jobs/.pid").read_text().split()[0]), signal.SIGTERM)


@pytest.fixture(scope="session")
def shipped():
    """The checkpoint that most tests open."""
    return load(ROOT / "checkpoints" / FAST)


@pytest.fixture(scope="session")
def browser():
    """Chromium or Chrome of this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    playwright.expect.set_options(timeout=TIMEOUT_MS)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tab(browser):
    """One tab for all tests: a new one costs more than what a test does in it, and compiles all scripts again."""
    context = browser.new_context()
    context.add_init_script(WATCHED)
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab):
    """The tab as it was at first, but for what the browser has read: what is opened in it is a session of its own."""
    tab.set_viewport_size({"width": 1400, "height": 1100})
    tab.emulate_media(color_scheme="light")
    tab.mouse.move(0, 0)
    yield tab
    tab.evaluate("localStorage.clear(); sessionStorage.clear()")
    tab.context.clear_cookies()
    tab.goto("about:blank")
