"""How the pages look: the first screen, in a narrow window in light and dark, and on a phone."""

import pytest

from tests.browser.steps import PAGES, POLL, address, settled

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200, func_only=True)]
QUERIES = {
    "expert_usage": {"profile": "Knock-out", "layer": 9, "expert": 11},
    "compare": {"b": "sst2-6of12"},
}
"""What shows more of a page than its plain address."""
CURVE = ".st-key-lab-needs-score-curve .js-plotly-plot"
GRID = ".st-key-what-if .js-plotly-plot"
ABOVE = {
    "routing": (".st-key-verdict", "table.routes"),
    "pruning_lab": (".st-key-verdict", "[data-testid=stSlider]", CURVE),
}
"""Pages whose first screen holds the answer: the parts that are all on it."""
HEIGHT = 900
ROLES = ("slider", "combobox", "tab", "radio", "switch")
CONTROLS = "button, a[href], input, select, textarea, summary, " + ", ".join(f"[role={role}]" for role in ROLES)
_MEASURE = """
(controls) => {
  // Of the main part: words, height in pixels, controls on the first screen.
  const main = document.querySelector("[data-testid=stMain]");
  const seen = (e) => e.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const own = [...main.querySelectorAll(controls)].filter((e) => {
    const box = e.getBoundingClientRect();
    // The toolbars that Streamlit and Plotly show while a chart is hovered are no controls of the page.
    if (!seen(e) || e.closest("[data-testid=stElementToolbar], .modebar, [data-testid=stHeader]")) return false;
    if (e.parentElement.closest(controls)) return false;
    return box.width > 2 && box.height > 2 && box.top < window.innerHeight && box.bottom > 0;
  });
  const words = (text) => (text.match(/\\S*[\\p{L}\\p{N}]\\S*/gu) ?? []).length;
  const block = main.querySelector("[data-testid=stMainBlockContainer]") ?? main;
  return {words: words(main.innerText), height: block.getBoundingClientRect().height, controls: own.length};
}
"""
# The page is not wider than the phone, and no two numbers of the grid overlap.
_FITS = """
(grid) => {
  const boxes = [...document.querySelectorAll(`${grid} .heatmaplayer text`)]
    .filter((e) => e.checkVisibility() && e.textContent.trim()).map((e) => e.getBoundingClientRect());
  return document.documentElement.scrollWidth <= window.innerWidth && !boxes.some((a, i) =>
    boxes.some((b, j) => i < j && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
      && b.top < a.bottom - 1));
}
"""
# Contrast as WCAG 2 defines it: of every text on the page against what is painted behind it.
_IN_SCHEME = """
(scheme) => {
  const app = document.querySelector("[data-testid=stApp]");
  const light = getComputedStyle(app).backgroundColor.match(/[0-9.]+/g).slice(0, 3).every((v) => +v > 200);
  return light === (scheme === "light");
}
"""
_LOW_CONTRAST = """
(least) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  // What is asked of many texts is looked up once: of a colour its parts, of an element what is behind it.
  const once = (find, found = new Map()) =>
    (of) => found.get(of) ?? (found.set(of, find(of)), found.get(of));
  const rgba = once((color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  });
  const over = (top, under) => under.map((u, i) => top[i] * top[3] + u * (1 - top[3]));
  const luminance = (color) => {
    const [r, g, b] = color.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = once((e) =>
    e ? over(rgba(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255]);
  const opacity = once((e) => e ? +getComputedStyle(e).opacity * opacity(e.parentElement) : 1);
  const coloured = ([r, g, b]) => Math.max(r, g, b) - Math.min(r, g, b) > 40;
  const seen = new Map();
  let texts = 0;
  const walker = document.createTreeWalker(document.querySelector("[data-testid=stApp]") ?? document.body,
    NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, words = node.textContent.trim();
    if (!words || !element || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (["STYLE", "SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    if (element.closest("[data-testid=stIconMaterial]")) continue;
    // Controls that can't be used now are exempt, and so are numbers inside a chart's own coloured cells.
    if (element.closest(":disabled, [aria-disabled=true], .heatmaplayer, .barlayer")) continue;
    const style = getComputedStyle(element);
    // A slider's value stands above its thumb, though it is inside of it.
    const value = element.closest("[data-testid=stSliderThumbValue]");
    const on = value?.closest("[data-testid=stSlider]") ?? element;
    const svg = element instanceof SVGElement;
    const color = [...rgba(svg ? style.fill : style.color)];
    color[3] *= opacity(on) * (svg ? +style.fillOpacity : 1);
    const back = behind(on), front = over(color, back);
    const [high, low] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    texts += 1;
    const painted = svg ? style.fill : style.color;
    // WCAG asks 3 of graphics and of controls' states (1.4.11): so of words in a button, and of those in a chart in the
    // colour of what they name; of others in a chart 4, which is what one grey can have in both themes.
    const controls = "button, [role=button], [role=radio], [data-baseweb=tag]";
    const asked = svg ? (coloured(color) ? 3 : 4) : element.closest(controls) ? 3 : least;
    const said = `${ratio.toFixed(2)} ${painted} ${element.tagName} ${words.slice(0, 50)}`;
    if (ratio < asked) seen.set(said, ratio);
  }
  return {texts, low: [...seen.keys()]};
}
"""
# Figures' names and values, choices and switches, and charts' titles, of which a part is not to be seen.
_CUT = """
() => {
  const found = new Set(), kinds = ["stMetric", "stButtonGroup", "stCheckbox"].map((k) => `[data-testid=${k}]`);
  let seen = 0;
  for (const part of document.querySelectorAll(`[data-testid=stMain] :is(${kinds.join()})`))
    for (const element of [part, ...part.querySelectorAll("*")]) {
      if (!element.innerText?.trim() || !element.checkVisibility()) continue;
      seen += 1;
      const hides = getComputedStyle(element).overflowX != "visible";
      if (hides && element.scrollWidth > element.clientWidth + 1) found.add(element.innerText.trim().slice(0, 60));
    }
  for (const title of document.querySelectorAll(".js-plotly-plot .gtitle, .js-plotly-plot .gtitle-subtitle")) {
    seen += 1;
    const right = title.closest(".js-plotly-plot").getBoundingClientRect().right;
    if (title.getBoundingClientRect().right > right + 1) found.add(title.textContent.slice(0, 60));
  }
  return {seen, cut: [...found]};
}
"""


def drawn(page):
    """Wait until the page has charts and nothing on it is a placeholder any more, of an element or of a chart."""
    page.wait_for_function(
        """() => { const charts = [...document.querySelectorAll(".js-plotly-plot")];
        return charts.length > 0 && !document.querySelector("[data-testid=stSkeleton]")
            && charts.every((chart) => chart._fullLayout); }""",
        polling=POLL,
    )


def low_contrast(page, least=4.5):
    """Texts with a contrast below `least` to 1, once colours have stopped changing, and how many there are in all."""
    for _ in range(240):
        found = page.evaluate(_LOW_CONTRAST, least)
        if found["texts"] and not found["low"]:
            break
        page.wait_for_timeout(500)  # charts follow a change of theme a little later
    return found["low"], found["texts"]


def cut_texts(page):
    """What of figures, choices and charts' titles is cut off at the window's width, once nothing is or nothing changes
    any more, and how many were looked at.
    """
    page.evaluate("document.fonts.ready")
    for _ in range(20):
        found = page.evaluate(_CUT)
        if found["seen"] and not found["cut"]:
            break
        page.wait_for_timeout(500)  # charts follow a font, or a change of the window, a little later
    return found["cut"], found["seen"]


def check_first_screen(page, name):
    found = page.evaluate(_MEASURE, CONTROLS)
    assert found["words"] <= 450
    assert found["height"] <= 2400
    assert found["controls"] <= 12
    for part in ABOVE[name]:
        box = page.locator(part).first.bounding_box()
        assert box["y"] + box["height"] <= HEIGHT, part


def check_narrow(page, name):
    """Charts have words, nothing is cut, and all is legible."""
    page.wait_for_function(
        """() => [...document.querySelectorAll(".js-plotly-plot")].every(
            (chart) => chart.closest("[role=figure][aria-label]:not([aria-label=''])"))""",
        polling=POLL,
    )
    cut, seen = cut_texts(page)
    assert seen or name == "compare"
    assert not cut
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        # What was legible before would pass for what comes.
        page.wait_for_function(_IN_SCHEME, arg=scheme, polling=POLL)
        low, texts = low_contrast(page)
        assert texts > 20
        assert not low, f"{len(low)} of {texts} texts in {scheme}: {low[:8]}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_legible_and_fits_its_window(app_url, page, name):
    page.set_viewport_size({"width": 1440, "height": HEIGHT})
    page.goto(address(app_url, name, **QUERIES.get(name, {})))
    settled(page)
    if name != "compare":  # which opens with a table
        drawn(page)
    if name in ABOVE:
        check_first_screen(page, name)
    if name == "routing":
        assert page.locator(GRID).bounding_box()["y"] < 800
    page.set_viewport_size({"width": 1200, "height": HEIGHT})
    check_narrow(page, name)
    if name == "routing":
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_function(_FITS, arg=GRID, polling=POLL)
