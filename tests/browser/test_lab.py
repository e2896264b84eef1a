"""The pruning lab in a real browser: what its slider says is what the library measures, and nothing stale is shown."""

import time

import pytest

from shrp.analysis.usage import measure_usage
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.browser.measure import measure
from tests.browser.steps import POLL, address, settled, slider_of, time_of_next_score, value_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
_STATE = """
() => {
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


@pytest.fixture(scope="module")
def probe():
    return load_probe("sst2")


@pytest.fixture(scope="module")
def score_of(shipped, probe):
    """`score_of(budget)`: the library's own score of the rebuilt, pruned model, as the lab writes it."""
    usage = measure_usage(shipped.model, shipped.tokenizer, probe).shares()

    def score(budget):
        pruned = prune(shipped.model, make_plan(usage, budget=budget))
        return f"{evaluate(pruned, shipped.tokenizer, probe).score:.1%}"

    return score


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
    wait_for_exact(page, 44)
    page.locator("[data-testid=stSidebar]").get_by_role("link", name="Compare").first.click()
    page.get_by_role("heading", name="Compare").wait_for()
    settled(page)
    page.go_back()
    wait_for_exact(page, 44)
    assert value_of(slider_of(page)) == 4


def test_after_a_move_nothing_stale_is_shown(app_url, page):
    """At every moment the verdict is of the slider's count, or the page has not been redrawn at all; costs likewise."""
    page.goto(address(app_url, "pruning_lab"))
    wait_for_exact(page, 22)
    settled(page)
    slider_of(page)  # waits for it
    before = page.evaluate(_STATE)
    slider_of(page).press("PageUp")
    deadline, seen, done = time.monotonic() + 120, [], False
    while not done and time.monotonic() < deadline:
        page.wait_for_timeout(20)
        if (now := page.evaluate(_STATE)) is None:
            continue
        seen += [now] if now not in seen else []
        moved = now["slider"] != before["slider"] and now["verdict"] != before["verdict"]
        done = moved and not now["grey"] and now["drawn"] == f"now: {now['slider']}"
    redrawn = [one for one in seen if one["verdict"] != before["verdict"]]
    assert redrawn
    for one in redrawn:
        assert one["verdict"].startswith(f"{one['slider']} of ")
        told = "estimate" in (one["verdict"] + one["drawn"]).lower() or one["drawn"] in (
            "",
            f"now: {one['slider']}",
        )
        assert one["grey"] or told
    assert redrawn[-1]["costs"] != before["costs"]


def test_the_first_screen_holds_the_answer(app_url, new_page):
    page = new_page(viewport={"width": 1440, "height": 900})
    page.goto(address(app_url, "pruning_lab"))
    wait_for_exact(page, 22)
    settled(page)
    page.wait_for_timeout(1500)
    found = measure(page)
    assert found.words <= 450
    assert found.height <= 2400
    assert found.controls <= 12
    for selector in (
        ".st-key-verdict",
        "[data-testid=stSlider]",
        ".st-key-lab-needs-score-curve .js-plotly-plot",
    ):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= 900, selector


def test_two_people_drag_the_slider_at_once(app_url, new_page, score_of, timing):
    wanted = (32, 13)
    expected = [score_of(budget) for budget in wanted]
    assert expected[0] != expected[1]  # or a mix-up would not be seen
    people = [new_page(), new_page()]
    for person in people:
        person.goto(address(app_url, "pruning_lab"))
        slider_of(person)
    started = time.perf_counter()
    while left := [(p, w) for p, w in zip(people, wanted, strict=True) if value_of(slider_of(p)) != w]:
        for person, budget in left:  # a step of each in turn, ten experts at first
            slider = slider_of(person)
            off = value_of(slider) - budget
            slider.press(("Page" if abs(off) >= 10 else "Arrow") + ("Down" if off > 0 else "Up"))
    score = ".st-key-lab-needs-score-score"
    for person, budget in zip(people, wanted, strict=True):
        wait_for_exact(person, budget)
        settled(person)
    timing("both people's exact scores after they let go", time.perf_counter() - started)
    for person, figure in zip(people, expected, strict=True):
        assert figure in person.locator(score).inner_text()
    estimate, exact = time_of_next_score(people[0])
    if estimate is not None:  # else the exact score came before an estimate was painted
        timing("first estimate of 480 after the key", estimate)
    timing("exact score of 480 after the key", exact)
