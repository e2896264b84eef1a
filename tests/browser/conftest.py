"""A running app and a real browser; skips where no Chromium is to be had."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from filelock import FileLock

from shrp.checkpoints.checkpoint import load
from tests.browser.steps import FAST
from tests.conftest import TIMED

ROOT = Path(__file__).parent.parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_MS = 120_000
"""Far more than anything takes on an idle machine, so that a busy one fails nothing."""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def app_url(tmp_path_factory):
    """The app on the shipped checkpoints, the probe sets and GLUE, where SHRP_DATA_DIR names it, without results.

    All processes of a run share one: who comes first starts it, who leaves last stops it.
    """
    if not any((ROOT / "checkpoints").glob("*/config.json")):
        pytest.skip("no checkpoint is shipped under checkpoints/")
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "app"
    guests = folder / "guests"
    guests.mkdir(parents=True, exist_ok=True)
    lock, running, guest = FileLock(folder / "lock"), folder / "running.json", guests / str(os.getpid())
    with lock:
        if not running.exists():
            left_out = ("SHRP_CHECKPOINTS", "SHRP_DATA_ROOTS")
            environment = {name: value for name, value in os.environ.items() if name not in left_out}
            environment["SHRP_CACHE"] = str(folder / "results")
            process, url = _started(environment, folder / "streamlit.log")
            running.write_text(json.dumps({"pid": process.pid, "url": url}))
        guest.touch()
        app = json.loads(running.read_text())
    try:
        yield app["url"]
    finally:
        with lock:
            guest.unlink()
            if not any(_alive(int(other.name)) for other in guests.iterdir()):
                running.unlink()
                if _alive(app["pid"]):
                    os.kill(app["pid"], signal.SIGTERM)


@pytest.fixture
def own_app(tmp_path):
    """An app of the test's own, without results, jobs or models of others: its address."""
    left_out = ("SHRP_CHECKPOINTS", "SHRP_DATA_ROOTS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    process, url = _started(environment | {"SHRP_CACHE": str(tmp_path / "cache")}, tmp_path / "streamlit.log")
    yield url
    process.terminate()
    process.wait()


def _alive(pid: int) -> bool:
    """Whether there is such a process; one that was killed leaves its name among the guests."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _started(environment: dict[str, str], log: Path) -> tuple[subprocess.Popen, str]:
    """The app's process and its address, once it answers; on another port where another program took the first."""
    for _ in range(3):
        url = f"http://127.0.0.1:{(port := _free_port())}"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        for _ in range(720):
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).read()
            except OSError:
                pass
            else:
                if process.poll() is None:
                    return process, url
            if process.poll() is not None:
                break
            time.sleep(0.25)
        else:
            process.kill()
            pytest.fail("the app did not start within three minutes")
    pytest.fail(f"the app stopped: {log.read_text()}")


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


def _patient(page):
    page.set_default_timeout(TIMEOUT_MS)
    page.set_default_navigation_timeout(TIMEOUT_MS)
    return page


@pytest.fixture
def new_page(browser):
    """A factory of sessions, each with a browser profile of its own: nothing is shared but the server."""
    contexts = []

    def build(**options):
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 1100}} | options)
        contexts.append(context)
        return _patient(context.new_page())

    yield build
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def _wide(browser):
    """One profile for tests of a single person, so that each need not fetch the same scripts again."""
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    yield context
    context.close()


@pytest.fixture(scope="session")
def _narrow(browser):
    """The same of a narrow window."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    yield context
    context.close()


@pytest.fixture
def new_tab(_narrow):
    """A factory of sessions in a narrow window; they share a browser's cache."""
    tabs = []

    def build():
        tabs.append(_patient(_narrow.new_page()))
        return tabs[-1]

    yield build
    for tab in tabs:
        tab.close()


@pytest.fixture
def page(_wide):
    """A fresh session; what a browser keeps is that of the sessions before."""
    tab = _patient(_wide.new_page())
    yield tab
    tab.close()


@pytest.fixture
def timing(record_property):
    """`timing(what, seconds)`: printed at the end, not asserted: a machine's speed says nothing of the code."""
    return lambda what, seconds: record_property(f"{TIMED}{what}", seconds)
