"""The app in a real browser, on a shipped checkpoint: what a person does, and what they must then see."""

import io
import os
import re
import time
import zipfile

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
    SENTENCE,
    address,
    address_with_charts,
    click_cell,
    cut_texts,
    drawn,
    low_contrast,
    metric,
    no_traceback,
    settled,
    slider_of,
    tab_to,
    time_of_next_score,
    value_of,
    wait_for_query,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


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
    page.wait_for_function("text => document.querySelector('textarea')?.value === text", arg=SENTENCE)
    no_traceback(page)


def test_a_typed_sentence_is_routed(app_url, page):
    page.goto(address(app_url, "routing"))
    settled(page)  # or the examples, which the first run puts in, could come after what is typed
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
    settled(page)
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


def sidebar_upload(page, part, name, content):
    """Give a file to the part of the sidebar of that title; returns the part."""
    settled(page)  # each upload is followed by a new, empty box
    details = page.locator("[data-testid=stSidebar] details", has_text=part).first
    details.wait_for()
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    details.locator("input[type=file]").first.set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    return details


def refused(part, name):
    """Wait until the part of the sidebar says, in words, that it did not take the file."""
    part.locator("[data-testid=stAlert]", has_text=name).wait_for()
    said = part.locator("[data-testid=stAlert]").first.inner_text()
    assert "Traceback" not in said
    assert "Error" not in said
    return said


def test_an_uploaded_csv_is_the_source_and_a_broken_one_is_refused_in_words(app_url, page):
    page.goto(address(app_url, "expert_usage"))
    table = "sentence,label\nA joy,positive\nA bore,negative\nFine work,positive\nAwful,negative\n"
    sidebar = page.locator("[data-testid=stSidebar]")
    sidebar_upload(page, "Your own data", "mine.csv", table.encode())
    sidebar.get_by_text("Your own mine.csv: 4 inputs").wait_for()
    wait_for_query(page, source="own")
    page.get_by_text(re.compile(r"of n = 4 inputs")).first.wait_for()
    for name, content in (("broken.jsonl", b'{"text": "a"\n{]'), ("junk.csv", bytes(range(256)) * 20)):
        refused(sidebar_upload(page, "Your own data", name, content), name)
        sidebar.get_by_text("Your own mine.csv: 4 inputs").wait_for()  # what was in use stays in use
    no_traceback(page)


def zipped(**files):
    """A zip archive in which a `__` in a name stands for a dot."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(name.replace("__", "."), content)
    return archive.getvalue()


def test_a_broken_checkpoint_is_refused_in_words_and_the_picked_one_stays(app_url, page):
    other = "sst2-11of12"
    page.goto(address(app_url, "overview", checkpoint=other))
    page.get_by_role("heading", name=other).wait_for()
    sound = zipped(config__json="{}", tokenizer__json="{}")
    for name, content in (
        ("junk.zip", bytes(range(256)) * 20),
        ("cut.zip", sound[: len(sound) // 2]),
        ("pickled.zip", zipped(config__json="{}", pytorch_model__bin="\x80\x04.")),
        ("empty.zip", zipped()),
    ):
        assert "is not loaded" in refused(sidebar_upload(page, "Load a checkpoint", name, content), name)
        settled(page)
        assert page.get_by_role("heading", name=other).count()
        assert f"checkpoint={other}" in page.url
    page.reload()
    page.get_by_role("heading", name=other).wait_for()


def test_attribution_runs_and_finishes(app_url, page, shipped, timing):
    one = instance.prepare(shipped.model, shipped.tokenizer, shipped.info.task, (SENTENCE,))
    output = int(one.outputs(one.embeddings)[0].argmax())
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


def test_typed_text_goes_along_to_other_pages(app_url, page):
    """Also where one clicks on before a page is done, and with the number of the input."""
    from playwright.sync_api import expect

    second = "A dull mess from start to finish."
    box, number = page.locator("textarea").first, page.get_by_label("Input number").first

    def to(name):
        page.locator("[data-testid=stSidebarNavLink]").filter(has_text=name).click()

    page.goto(address(app_url, "routing", text=f"{SENTENCE}\n{second}", input=2))
    box.wait_for()
    to("Attribution")
    to("Expert usage")
    page.get_by_role("heading", name="Expert usage").first.wait_for()
    for name in ("Attribution", "Routing"):
        to(name)
        page.get_by_role("heading", name=name).first.wait_for()
        expect(box).to_have_value(f"{SENTENCE}\n{second}")
        settled(page)
        expect(number).to_have_value("2")
        wait_for_query(page, input=2)
    page.get_by_text("Why these experts?").click()
    page.get_by_role("heading", name="Attribution").first.wait_for()
    expect(page.get_by_role("radio", name="a layer's route")).to_be_checked()
    expect(number).to_have_value("2")
    box.fill(SENTENCE)
    page.get_by_role("button", name="Explain", exact=True).click()
    wait_for_query(page, text=SENTENCE)
    to("Routing")
    page.get_by_role("heading", name="Routing").first.wait_for()
    expect(box).to_have_value(SENTENCE)


def test_the_first_page_has_an_address_of_its_own(app_url, page):
    page.goto(address(app_url, "overview"))
    settled(page)
    opened = "[data-testid=stSidebarNavLink][aria-current=page]"
    assert page.get_by_text("Page not found").count() == 0
    assert "Overview" in page.locator(opened).inner_text()
    page.get_by_role("link", name="Routing").click()
    page.get_by_role("heading", name="Routing").first.wait_for()
    page.go_back()
    page.get_by_role("heading", name=NAME).wait_for()
    settled(page)
    assert page.get_by_text("Page not found").count() == 0
    page.goto(app_url)
    page.get_by_role("heading", name=NAME).wait_for()  # the first of the shipped ones, as people count
    assert "Overview" in page.locator(opened).inner_text()
    assert page.locator("[data-testid=stSidebarNavLink]").count() == len(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_window_of_1200_pixels_cuts_no_name_value_choice_or_title(app_url, new_page, name):
    page = new_page(viewport={"width": 1200, "height": 900})
    page.goto(address_with_charts(app_url, name))
    settled(page)
    drawn(page)
    cut, seen = cut_texts(page)
    assert seen
    assert not cut


@pytest.mark.parametrize("name", PAGES)
def test_every_text_is_legible_and_every_chart_has_words(app_url, page, name):
    page.goto(address_with_charts(app_url, name))
    settled(page)
    drawn(page)
    page.wait_for_function(
        """() => [...document.querySelectorAll(".js-plotly-plot")].every(
            (chart) => chart.closest("[role=figure][aria-label]:not([aria-label=''])"))"""
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        low, texts = low_contrast(page)
        assert texts > 20
        assert not low, f"{len(low)} of {texts} texts in {scheme}: {low[:8]}"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_an_expert_is_forced_with_the_keyboard_alone(app_url, page, shipped, key):
    (before,) = explore(shipped.model, shipped.tokenizer, shipped.info.task, [(SENTENCE,)])
    expert = next(e for e in (3, 4) if e != before.choice(9))
    page.goto(address(app_url, "routing", text=SENTENCE))
    page.locator(".st-key-what-if-0 .js-plotly-plot").wait_for()
    settled(page)
    for control in ("Expert usage", "Checkpoint", "Data", "One sentence a line", "Route"):
        tab_to(page, control)
    for box, number in (("Layer", 9), ("Expert", expert)):
        tab_to(page, box)
        page.keyboard.type(str(number))
        page.keyboard.press("Enter")
        wait_for_query(page, **{f"force_{box.lower()}": number})
        settled(page)
    tab_to(page, "Force")
    page.keyboard.press(key)
    wait_for_query(page, force=f"9.{expert}")
    page.get_by_role("heading", name="As routed and forced").wait_for()
    page.get_by_role("button", name=f"layer 9 → expert {expert}").wait_for()
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
        assert time.perf_counter() - started < 300
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
def test_first_estimate_and_exact_score_on_sst2(app_url, page, timing):
    name = "sst2-6of12"
    page.goto(address(app_url, "pruning_lab", checkpoint=name, source="glue"))
    metric(page, "Accuracy").wait_for()
    settled(page)
    for _ in range(2):
        estimate, exact = time_of_next_score(page, 872)
        if estimate is None:
            timing(f"{name}: exact score of 872 after the key, before an estimate was painted", exact)
        else:
            timing(f"{name}: first estimate of 872 after the key", estimate)
            timing(f"{name}: exact score of 872 after the key", exact)
        settled(page)
