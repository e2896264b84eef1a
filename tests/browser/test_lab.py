"""The pruning lab in a real browser: what its slider says is what the library measures, and nothing stale is shown."""

import pytest

from shrp.analysis.usage import measure_usage
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.browser.steps import FAST, POLL, address, settled, to, wait_for_query
from tests.campaign.at_once import Session

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200, func_only=True)]
_STATE = """
window.state = () => {
  const text = (selector) => document.querySelector(selector)?.innerText ?? "";
  const kept = document.querySelector("[data-testid=stSlider] [role=slider], [data-testid=stSlider] input");
  if (!kept) return null;  // between two redraws
  return {
    slider: +(kept.getAttribute("aria-valuenow") ?? kept.value),
    verdict: text(".st-key-verdict"),
    costs: text("[data-testid=stMain] table"),
    grey: +getComputedStyle(document.querySelector(".st-key-lab-needs-score-curve")).opacity < 1,
    drawn: [...document.querySelectorAll(".st-key-lab-needs-score-curve .legendtext")].map((e) => e.textContent)
      .find((name) => name.startsWith("now: ")) ?? "",
  };
}
"""
# Notes all that is shown from now on, 20 times a second.
_WATCH = """
() => {
  window.seen = [];
  setInterval(() => {
    const now = state();
    if (now && !seen.some((one) => JSON.stringify(one) === JSON.stringify(now))) seen.push(now);
  }, 50);
}
"""
# The last that was noted is of the slider's count all over.
_DRAWN = """
() => { const now = window.state(); return now && !now.grey && now.drawn === `now: ${now.slider}`; }
"""


@pytest.fixture(scope="module")
def score_of(shipped):
    """`score_of(budget)`: the library's own score of the rebuilt, pruned model, as the lab writes it."""
    probe = load_probe("sst2")
    usage = measure_usage(shipped.model, shipped.tokenizer, probe).shares()

    def score(budget):
        pruned = prune(shipped.model, make_plan(usage, budget=budget))
        return f"{evaluate(pruned, shipped.tokenizer, probe).score:.1%}"

    return score


def slider_of(page):
    slider = page.get_by_role("slider", name="Experts kept")
    slider.wait_for()
    return slider


def value_of(slider):
    return int(slider.evaluate("e => e.getAttribute('aria-valuenow') ?? e.value"))


def wait_for_exact(page, budget):
    page.wait_for_function(
        """(budget) => { const text = document.querySelector(".st-key-verdict")?.innerText ?? "";
        return text.startsWith(`${budget} of `) && !/estimating|Estimate/.test(text); }""",
        arg=budget,
        polling=POLL,
    )


def test_a_link_restores_the_lab_and_back_does_too(app_url, page):
    query = {"keep": "In each layer", "per_layer": 3, "select": "Random (control)"}
    page.goto(address(app_url, "pruning_lab", **query))
    wait_for_exact(page, 33)
    assert value_of(slider_of(page)) == 3
    slider_of(page).press("ArrowRight")
    wait_for_query(page, per_layer=4)
    wait_for_exact(page, 44)
    settled(page)
    to(page, "Compare")
    settled(page)
    page.go_back()
    wait_for_exact(page, 44)
    assert value_of(slider_of(page)) == 4


def test_of_two_people_at_once_each_sees_the_score_of_their_own_size_and_nothing_stale(app_url, page, score_of):
    """At every moment the verdict is of the slider's count, or the page has not been redrawn at all; costs likewise."""
    other, data = Session(app_url), "probe/sst2"
    other.go("pruning_lab", checkpoint=FAST, source="probe")
    other.read((FAST, data, 22))
    page.goto(address(app_url, "pruning_lab"))
    wait_for_exact(page, 22)
    settled(page)
    page.evaluate(_STATE)
    before = page.wait_for_function("window.state()", polling=POLL).json_value()
    page.evaluate(_WATCH)
    slider_of(page).press("PageUp")
    other.move(14)
    page.wait_for_function("(window.state()?.slider ?? 22) !== 22", polling=POLL)
    budget = value_of(slider_of(page))
    wait_for_exact(page, budget)
    settled(page)
    other.read((FAST, data, 14))
    other.socket.close()
    assert score_of(budget) != score_of(14)  # or a mix-up would not be seen
    assert score_of(budget) in page.locator(".st-key-lab-needs-score-score").inner_text()
    assert score_of(14) in str(other.drawn.values())
    page.wait_for_function(_DRAWN, polling=POLL)
    redrawn = [one for one in page.evaluate("window.seen") if one["verdict"] != before["verdict"]]
    assert redrawn
    for one in redrawn:
        assert one["verdict"].startswith(f"{one['slider']} of ")
        told = "estimate" in (one["verdict"] + one["drawn"]).lower() or one["drawn"] in (
            "",
            f"now: {one['slider']}",
        )
        assert one["grey"] or told
    assert redrawn[-1]["costs"] != before["costs"]
