"""The app in a real browser, on a shipped checkpoint: what a person does in the first five minutes."""

import re
import time

import pytest

from shrp.checkpoint import load
from shrp.data import load_probe
from shrp.evaluate import evaluate
from shrp.plan import make_plan
from shrp.prune import prune
from shrp.usage import measure_usage

from .conftest import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(280)]
NAME = "sst2-6of12"

CELL = """
([key, x, y]) => {
  // Where the plot's data point (x, y) is on the screen; null until the chart is drawn.
  const plot = document.querySelector(`.st-key-${key} .js-plotly-plot`);
  if (!plot || !plot._fullLayout || !plot._fullLayout.xaxis) return null;
  plot.scrollIntoView({block: "center"});
  const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
  const at = (axis, v) => axis._offset + axis.c2p(axis.type == "category" ? axis._categories.indexOf(v) : +v);
  return [box.left + at(xaxis, x), box.top + at(yaxis, y)];
}
"""


def click_cell(page, key, x, y):
    page.wait_for_function(CELL, arg=[key, x, y])
    page.wait_for_timeout(500)  # scrolling and a chart's first drawing settle
    left, top = page.evaluate(CELL, [key, x, y])
    page.mouse.click(left, top)


def wait_for_query(page, **wanted):
    for name, value in wanted.items():
        page.wait_for_url(re.compile(rf"[?&]{name}={value}(&|$)"))


def no_traceback(page):
    assert page.locator("[data-testid=stException]").count() == 0


def test_first_screen_is_useful(app_url, page):
    started = time.perf_counter()
    page.goto(app_url)
    page.get_by_text("dense teacher", exact=False).first.wait_for()
    # Printed, not asserted: how fast a machine is says nothing about the code.
    print(f"first useful screen after {time.perf_counter() - started:.1f} s")
    no_traceback(page)


def test_a_click_on_a_heatmap_cell_opens_its_details(app_url, page):
    page.goto(f"{app_url}/expert_usage?checkpoint={NAME}&source=probe")
    page.locator(".st-key-usage-map .js-plotly-plot").wait_for()
    click_cell(page, "usage-map", "3", "8")
    wait_for_query(page, layer=8, expert=3)
    page.get_by_text(re.compile(r"Expert 3 of layer 8|Layer 8, expert 3", re.IGNORECASE)).first.wait_for()
    no_traceback(page)


def test_a_typed_sentence_is_routed(app_url, page):
    page.goto(f"{app_url}/routing?checkpoint={NAME}")
    box = page.locator("textarea").first
    box.fill("I would gladly sit through it all again tomorrow.\n<b>dull</b> 🙂")
    page.get_by_role("button", name="Route", exact=True).click()
    page.get_by_text("I would gladly sit through it all again tomorrow.").first.wait_for()
    page.get_by_text("One input in detail").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.locator("b", has_text="dull").count() == 0  # typed text is shown as text
    no_traceback(page)


def test_the_slider_gives_the_pruned_models_score(app_url, page):
    checkpoint, data = load(ROOT / "checkpoints" / NAME), load_probe("sst2")
    usage = measure_usage(checkpoint.model, checkpoint.tokenizer, data).shares()
    page.goto(f"{app_url}/pruning_lab?checkpoint={NAME}&source=probe")
    slider = page.get_by_role("slider").first
    slider.wait_for()
    metric = page.locator("[data-testid=stMetric]", has_text="Accuracy").first
    metric.wait_for()
    for key, budget in (("Home", 6), ("ArrowRight", 7)):
        started = time.perf_counter()
        slider.focus()
        slider.press(key)
        page.get_by_text(f"{budget} of 72").first.wait_for()
        page.wait_for_function("() => !document.body.innerText.includes('running estimate')")
        plan = make_plan(usage, budget=budget)
        expected = evaluate(prune(checkpoint.model, plan), checkpoint.tokenizer, data).score
        metric.get_by_text(f"{expected:.1%}").first.wait_for()
        print(f"exact score of {budget} experts shown {time.perf_counter() - started:.1f} s after the key")
    no_traceback(page)
