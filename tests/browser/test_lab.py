"""The pruning lab in a real browser: what its slider says is what the library measures, for two people at once."""

import time

import pytest

from shrp.analysis.usage import measure_usage
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.browser.steps import POLL, address, metric, settled, slider_of, time_of_next_score, value_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
EXPERTS = 132
"""Of 11 layers."""


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
    page.get_by_text(f"{budget} of {EXPERTS}", exact=True).first.wait_for()
    page.wait_for_function("() => !document.body.innerText.includes('A running estimate')", polling=POLL)


def test_a_link_restores_the_lab(app_url, page):
    from playwright.sync_api import expect

    page.goto(
        address(
            app_url,
            "pruning_lab",
            keep="Per layer",
            per_layer=3,
            select="Random (control)",
            seed=7,
            only="negation",
        )
    )
    assert value_of(slider_of(page)) == 3
    page.get_by_text(f"33 of {EXPERTS}", exact=True).first.wait_for()
    expect(page.get_by_role("spinbutton", name="Seed of the draw")).to_have_value("7")
    settled(page)


def test_two_people_drag_the_slider_at_once(app_url, new_page, score_of, timing):
    wanted = (32, 13)
    expected = [score_of(budget) for budget in wanted]
    assert expected[0] != expected[1]  # or a mix-up would not be seen
    people = [new_page(), new_page()]
    for person in people:
        person.goto(address(app_url, "pruning_lab"))
        slider_of(person)
    places = []
    for person in people:
        box = slider_of(person).bounding_box()
        places.append((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
        person.mouse.move(*places[-1])
        person.mouse.down()
    for step in range(1, 7):
        for person, (x, y), way in zip(people, places, (12, -8), strict=True):
            person.mouse.move(x + way * step, y)
    for person in people:
        person.mouse.up()
    started = time.perf_counter()
    while left := [(p, w) for p, w in zip(people, wanted, strict=True) if value_of(slider_of(p)) != w]:
        for person, budget in left:  # a step of each in turn, ten experts at first
            slider = slider_of(person)
            off = value_of(slider) - budget
            way = ("Page" if abs(off) >= 10 else "Arrow") + ("Down" if off > 0 else "Up")
            slider.press(way)
    for person, budget, score in zip(people, wanted, expected, strict=True):
        wait_for_exact(person, budget)
        metric(person, "Accuracy").get_by_text(score).first.wait_for()
        settled(person)
    timing("both people's exact scores after they let go", time.perf_counter() - started)
    for person, score in zip(people, expected, strict=True):
        assert score in metric(person, "Accuracy").inner_text()  # still, when the other is done too
    estimate, exact = time_of_next_score(people[0], 480)
    if estimate is not None:  # else the exact score came before an estimate was painted
        timing("first estimate of 480 after the key", estimate)
    timing("exact score of 480 after the key", exact)
