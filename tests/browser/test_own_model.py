"""The whole way of a person's own model: opened, converted, its routes seen, pruned, fine-tuned, exported and run."""

import subprocess
import sys
import zipfile

import pytest

from tests.browser.steps import settled, to

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200, func_only=True)]
MEANINGS = {"great": "good", "awful": "bad"}
JOB_MS = 400_000
"""What a job, or a build, may take on a busy machine."""


@pytest.fixture
def brought(tmp_path, tiny_model, save_model, tiny_data):
    """A folder of a dense classifier whose labels have no names, and a table whose labels have others."""
    folder = save_model(tiny_model(seed=4), tmp_path / "mine")
    frame = tiny_data(48).to_frame()
    frame["label"] = frame["label"].map({"positive": "great", "negative": "awful"})
    frame[["sentence", "label"]].to_csv(tmp_path / "mine.csv", index=False)
    return folder, tmp_path / "mine.csv"


def button(place, name):
    return place.get_by_role("button", name=name, exact=True).first


def click_in(opener, wanted):
    """Click what a list or menu offers; it is opened again where a page that is still being drawn has closed it."""
    from playwright.sync_api import TimeoutError

    for _ in range(20):
        if not wanted.count():
            opener.click()  # which closes what is open, so that is waited for
        try:
            return wanted.click(timeout=5_000)
        except TimeoutError:
            pass
    raise AssertionError(f"{opener} offers no {wanted}")


def choose(page, label, option):
    click_in(page.get_by_role("combobox", name=label), page.get_by_role("option", name=option, exact=True))
    settled(page)


def started_and_opened(page):
    """Start the job of the open dialog, and open what it makes."""
    button(page.get_by_role("dialog"), "Start").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    sidebar = page.locator("[data-testid=stSidebar]")
    button(sidebar, "Dismiss").wait_for(timeout=JOB_MS)
    sidebar.get_by_role("button", name="Open ").first.click()
    button(sidebar, "Dismiss").click()
    settled(page)


def test_a_dense_model_is_converted_pruned_fine_tuned_and_served(app_url, brought, page, tmp_path):
    folder, table = brought
    page.goto(f"{app_url}/results")  # which computes nothing that the test would wait for
    button(page, "Use your own model or data").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Path of a folder").fill(folder)
    page.keyboard.press("Enter")
    dialog.get_by_role("textbox", name="Names of LABEL_0").fill("bad, good")
    button(dialog, "Use these names").click()
    dialog.get_by_text("Labels: bad, good").wait_for()
    settled(page)
    dialog.locator("[data-testid=stFileUploader]", has_text="A table").locator("input").set_input_files(table)
    page.get_by_role("combobox", name="'great' means").wait_for()
    settled(page)
    for label, meaning in MEANINGS.items():
        choose(page, f"'{label}' means", meaning)
    button(dialog, "Convert it").click()
    dialog.get_by_text("Convert this model").wait_for()
    started_and_opened(page)

    to(page, "Routing")
    settled(page)
    assert page.locator(".st-key-verdict").inner_text()
    to(page, "Pruning lab")
    button(page, "Fine-tune this").click()
    started_and_opened(page)

    to(page, "Pruning lab")
    settled(page)
    click_in(button(page, "Export"), button(page, "Build an ONNX package"))
    button(page.locator("[data-testid=stSidebar]"), "Dismiss").wait_for(timeout=JOB_MS)
    to(page, "Results")
    to(page, "Pruning lab")
    settled(page)
    with page.expect_download() as waiting:
        click_in(button(page, "Export"), page.get_by_role("button", name="ONNX folder"))
    archive, served = tmp_path / "served.zip", tmp_path / "served"
    waiting.value.save_as(archive)
    zipfile.ZipFile(archive).extractall(served)
    (served,) = served.iterdir()
    said = subprocess.run(
        [sys.executable, "predict.py", "w1 w2 w3"], cwd=served, capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[0] in ("bad", "good")
