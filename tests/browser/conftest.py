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
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from shrp.checkpoints.checkpoint import load
from tests.browser.steps import FAST, WATCHED, address, settled

ROOT = Path(__file__).parent.parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_MS = 240_000
"""Far more than anything takes on an idle machine, so that a busy one fails nothing."""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def app_url(tmp_path_factory, profile):
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
            process, url = _started(folder / "results", folder / "streamlit.log", profile)
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
def own_app(tmp_path, profile):
    """An app of the test's own, without results, jobs or models of others: its address."""
    process, url = _started(tmp_path / "cache", tmp_path / "streamlit.log", profile)
    yield url
    process.terminate()
    process.wait()
    with suppress(OSError, ValueError):  # the jobs' process stays for others
        os.kill(int((tmp_path / "cache/jobs/.pid").read_text().split()[0]), signal.SIGTERM)


def _alive(pid: int) -> bool:
    """Whether there is such a process; one that was killed leaves its name among the guests."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _started(cache: Path, log: Path, profile) -> tuple[subprocess.Popen, str]:
    """The app's process and its address, once it has imported all that a page needs; on another port where another
    program took the first.
    """
    left_out = ("SHRP_CHECKPOINTS", "SHRP_DATA_ROOTS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    for _ in range(3):
        url = f"http://127.0.0.1:{(port := _free_port())}"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
                cwd=ROOT,
                env=environment | {"SHRP_CACHE": str(cache)},
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
                    tab = profile.new_page()
                    tab.goto(address(url, "routing"))
                    settled(tab)
                    tab.close()
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


def _profile(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    context.add_init_script(WATCHED)
    context.set_default_timeout(TIMEOUT_MS)
    return context


@pytest.fixture(scope="session")
def profile(browser):
    """One profile for all tests, so that each need not fetch the same scripts again."""
    context = _profile(browser)
    yield context
    context.close()


@pytest.fixture
def page(profile):
    """A fresh session; what a browser keeps is that of the sessions before."""
    tab = profile.new_page()
    yield tab
    tab.close()


@pytest.fixture
def other_page(browser):
    """A session with a profile of its own: nothing is shared but the server."""
    context = _profile(browser)
    yield context.new_page()
    context.close()
