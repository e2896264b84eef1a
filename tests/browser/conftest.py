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
def app_url(tmp_path_factory, profile):
    """The app on the shipped checkpoints, the probe sets and GLUE, where SHRP_DATA_DIR names it, without results; once it
    has imported all that a page needs.
    """
    if not any((ROOT / "checkpoints").glob("*/config.json")):
        pytest.skip("no checkpoint is shipped under checkpoints/")
    folder = tmp_path_factory.mktemp("app")
    process, url = serve(folder / "cache", folder / "streamlit.log")
    try:
        tab = profile.new_page()
        tab.goto(address(url, "routing"))
        settled(tab)
        tab.close()
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
def profile(browser):
    """One profile for all tests, so that each need not fetch the same scripts again."""
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    context.add_init_script(WATCHED)
    context.set_default_timeout(TIMEOUT_MS)
    yield context
    context.close()


@pytest.fixture
def page(profile):
    """A fresh session; what a browser keeps is that of the sessions before."""
    tab = profile.new_page()
    yield tab
    tab.close()


@pytest.fixture
def other_page(profile):
    """Another session at the same time."""
    tab = profile.new_page()
    yield tab
    tab.close()
