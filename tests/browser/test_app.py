"""The app in a real browser, on a shipped checkpoint: what a person does, and what they must then see."""

import os
import re
import time

import pytest

from shrp.attribution import experts, instance
from shrp.checkpoint import load
from shrp.data import load_probe
from shrp.evaluate import evaluate
from shrp.explore import explore
from shrp.forcing import Force, ForcedRoute
from shrp.plan import make_plan
from shrp.prune import prune
from shrp.usage import measure_usage

from .conftest import ROOT
from .steps import (
    NAME,
    PAGES,
    address,
    click_cell,
    low_contrast,
    metric,
    no_traceback,
    settled,
    tab_to,
    wait_for_query,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SENTENCE = "I would gladly sit through it all again tomorrow."


@pytest.fixture(scope="module")
def shipped():
    return load(ROOT / "checkpoints" / NAME)


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


def slider_of(page):
    slider = page.get_by_role("slider").first
    slider.wait_for()
    return slider


def value_of(slider):
    return int(slider.evaluate("e => e.getAttribute('aria-valuenow') ?? e.value"))


def wait_for_exact(page, budget):
    page.get_by_text(f"{budget} of 72", exact=True).first.wait_for()
    page.wait_for_function("() => !document.body.innerText.includes('A running estimate')")


def test_first_screen_is_useful(app_url, page, timing):
    started = time.perf_counter()
    page.goto(app_url)
    page.get_by_text("dense teacher", exact=False).first.wait_for()
    timing("first useful screen after a start", time.perf_counter() - started)
    no_traceback(page)


def test_a_click_on_a_heatmap_cell_opens_its_profile_and_its_link_does_too(app_url, page, new_page):
    page.goto(address(app_url, "expert_usage"))
    page.locator(".st-key-usage-map .js-plotly-plot").wait_for()
    click_cell(page, "usage-map", "3", "8")
    wait_for_query(page, layer=8, expert=3)
    page.get_by_role("heading", name="Layer 8, expert 3").wait_for()
    settled(page)
    shown = metric(page, "Top-1 share").inner_text()
    other = new_page()
    other.goto(page.url)
    other.get_by_role("heading", name="Layer 8, expert 3").wait_for()
    settled(other)
    assert metric(other, "Top-1 share").inner_text() == shown


def test_a_link_restores_the_lab(app_url, page):
    page.goto(
        address(app_url, "pruning_lab", keep="Per layer", per_layer=3, select="Random (control)", seed=7)
    )
    assert value_of(slider_of(page)) == 3
    page.get_by_text("18 of 72", exact=True).first.wait_for()
    assert page.get_by_role("spinbutton", name="Seed of the draw").input_value() == "7"
    settled(page)


def test_back_returns_to_the_page_and_to_what_was_typed(app_url, page):
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    page.get_by_role("link", name="Expert usage").click()
    page.locator(".st-key-usage-map .js-plotly-plot").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Routing").first.wait_for()
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    assert page.locator("textarea").first.input_value() == SENTENCE
    no_traceback(page)


def test_a_typed_sentence_is_routed(app_url, page):
    page.goto(address(app_url, "routing"))
    page.locator("textarea").first.fill(f"{SENTENCE}\n<b>dull</b> 🙂")
    page.get_by_role("button", name="Route", exact=True).click()
    page.get_by_text("One input in detail").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.locator("b", has_text="dull").count() == 0  # typed text is shown as text
    no_traceback(page)


def test_an_expert_is_forced_by_a_click_and_released(app_url, page, shipped):
    (before,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)])
    expert = next(e for e in range(12) if e != before.choice(8))
    route = ForcedRoute((Force(8, expert),))
    (after,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)], route=route)
    verb = "stays" if after.answer == before.answer else "flips"
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    axes = page.evaluate(
        """() => { const {xaxis, yaxis} = document.querySelector(".st-key-what-if-0 .js-plotly-plot")._fullLayout;
        return [xaxis, yaxis].map((a) => a.type == "category" ? a._categories : null); }"""
    )
    x, y = (
        str(number) if names is None else next(n for n in names if re.search(rf"\b{number}$", str(n)))
        for names, number in zip(axes, (expert, 8), strict=True)
    )
    click_cell(page, "what-if-0", x, y)
    wait_for_query(page, force=route.text)
    page.get_by_role("heading", name="As routed and forced").wait_for()
    page.get_by_text(f"the prediction {verb}").first.wait_for()
    page.get_by_role("button", name=f"layer 8 → expert {expert}").click()
    page.get_by_text("Nothing is forced").wait_for()
    page.wait_for_url(lambda url: "force=" not in url)
    no_traceback(page)


def sidebar_upload(page, name, content):
    sidebar = page.locator("[data-testid=stSidebar]")
    details = sidebar.locator("details", has_text="Your own data").first
    details.wait_for()
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    details.locator("input[type=file]").first.set_input_files(
        {"name": name, "mimeType": "text/plain", "buffer": content}
    )
    return sidebar


def test_an_uploaded_csv_is_the_source_and_a_broken_one_is_refused_in_words(app_url, page):
    page.goto(address(app_url, "expert_usage"))
    settled(page)
    table = "sentence,label\nA joy,positive\nA bore,negative\nFine work,positive\nAwful,negative\n"
    sidebar = sidebar_upload(page, "mine.csv", table.encode())
    sidebar.get_by_text("Your own mine.csv: 4 inputs").wait_for()
    wait_for_query(page, source="own")
    page.get_by_text(re.compile(r"of n = 4 inputs")).first.wait_for()
    for name, content in (("broken.jsonl", b'{"text": "a"\n{]'), ("junk.csv", bytes(range(256)) * 20)):
        sidebar_upload(page, name, content)
        sidebar.locator("[data-testid=stAlert]", has_text=name).wait_for()
        said = sidebar.locator("[data-testid=stAlert]").first.inner_text()
        assert "Traceback" not in said
        assert "Error" not in said
        sidebar.get_by_text("Your own mine.csv: 4 inputs").wait_for()  # what was in use stays in use
    no_traceback(page)


def test_attribution_runs_and_finishes(app_url, page, shipped, timing):
    one = instance.prepare(shipped.model, shipped.tokenizer, shipped.info.task, (SENTENCE,))
    output = int(one.logits(one.embeddings)[0].argmax())
    total = experts.shapley_values(experts.Coalitions(one, output)).values.sum()
    page.goto(address(app_url, "attribution"))
    settled(page)
    page.locator("textarea").first.fill(SENTENCE)
    started = time.perf_counter()
    page.get_by_role("button", name="Explain", exact=True).click()
    page.get_by_text("Completeness: words sum to").wait_for()
    timing("words attributed to after the button", time.perf_counter() - started)
    page.get_by_text(f"Sum {total:+.3f}"[:-1]).first.wait_for()
    settled(page)
    timing("words and experts attributed to", time.perf_counter() - started)
    assert page.locator("[data-testid=stProgress]").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_every_text_is_legible_and_every_chart_has_words(app_url, page, name):
    page.goto(address(app_url, name, **({"text": SENTENCE} if name in ("routing", "attribution") else {})))
    settled(page)
    charts = page.locator(".js-plotly-plot")
    described = page.locator("[role=figure][aria-label]:not([aria-label='']) .js-plotly-plot")
    assert described.count() == charts.count()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        low, texts = low_contrast(page)
        assert texts > 20
        assert not low, f"{len(low)} of {texts} texts in {scheme}: {low[:8]}"


def test_the_keyboard_reaches_the_controls(app_url, page):
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    settled(page)
    assert not tab_to(
        page,
        ["Expert usage", "Checkpoint", "Data", "One sentence a line", "Route", "Layer", "Expert", "Force"],
    )
    no_traceback(page)


def test_two_people_drag_the_slider_at_once(app_url, new_page, score_of, timing):
    wanted = (12, 7)
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
    for step in range(1, 13):
        for person, (x, y), way in zip(people, places, (30, -6), strict=True):
            person.mouse.move(x + way * step, y)
    for person in people:
        person.mouse.up()
    started = time.perf_counter()
    while left := [(p, w) for p, w in zip(people, wanted, strict=True) if value_of(slider_of(p)) != w]:
        assert time.perf_counter() - started < 120
        for person, budget in left:  # a step of each in turn
            slider_of(person).press("ArrowLeft" if value_of(slider_of(person)) > budget else "ArrowRight")
    for person, budget, score in zip(people, wanted, expected, strict=True):
        wait_for_exact(person, budget)
        metric(person, "Accuracy").get_by_text(score).first.wait_for()
        settled(person)
    timing("both people's exact scores after they let go", time.perf_counter() - started)
    for person, score in zip(people, expected, strict=True):
        assert score in metric(person, "Accuracy").inner_text()  # still, when the other is done too


@pytest.mark.skipif("SHRP_DATA_DIR" not in os.environ, reason="SHRP_DATA_DIR names no folder with SST-2")
@pytest.mark.parametrize("name", ["sst2-6of12", "sst2-11of12"])
def test_first_estimate_and_exact_score_on_sst2(app_url, page, timing, name):
    page.goto(address(app_url, "pruning_lab", checkpoint=name, source="glue"))
    slider = slider_of(page)
    metric(page, "Accuracy").wait_for()
    settled(page)
    for _ in range(2):
        slider.focus()
        # Seen by the page itself, so that the test's own round trips are not in the times.
        page.evaluate(
            """() => { const found = window.times = {}; const start = performance.now();
            const look = () => { const text = document.body.innerText;
              const n = text.match(/n = ([\\d,]+) of 872/);
              if (n && !found.estimate) found.estimate = performance.now() - start;
              if (found.estimate && !n && !text.includes("A running estimate"))
                { found.exact = performance.now() - start; watch.disconnect(); } };
            const watch = new MutationObserver(look);
            watch.observe(document.body, {subtree: true, childList: true, characterData: true}); }"""
        )
        slider.press("ArrowRight")
        page.wait_for_function("() => window.times.exact")
        found = page.evaluate("window.times")
        timing(f"{name}: first estimate of 872 after the key", found["estimate"] / 1000)
        timing(f"{name}: exact score of 872 after the key", found["exact"] / 1000)
        assert found["estimate"] < found["exact"]
        settled(page)
