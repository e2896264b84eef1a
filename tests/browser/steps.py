"""What a person does in the app, and what they then see, in the terms of a page in a browser."""

import re
from urllib.parse import quote_plus, urlencode

NAME, FAST = "sst2-6of12", "sst2-11of12"
"""The checkpoint that is opened first, and one that computes several times as fast."""
SENTENCE = "I would gladly sit through it all again tomorrow."
TYPED = "[data-testid=stMain] textarea"
"""The box for sentences; the sidebar has another one, of slices."""
POLL = 100
"""Milliseconds between two looks at a page; else it would be asked at every frame, and drawn for that."""
"""Those of the longest names: few inputs, where it is not numbers that are looked at."""
PAGES = ("overview", "expert_usage", "routing", "pruning_lab", "compare", "results")

_CELL = """
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
# Times of the pruning lab's headline for `budget` experts on all `total` inputs. The page notes them itself, so that
# the test's own round trips are not in them. An estimate that the exact score overtakes before it is painted is never
# seen: `estimate` then stays empty, and the exact score ends the wait all the same.
_WATCH_HEADLINE = """
([budget]) => {
  const found = window.found = {}, start = performance.now();
  window.look = () => {
    const text = document.querySelector(".st-key-verdict")?.innerText ?? "", since = performance.now() - start;
    if (found.exact || !text.startsWith(`${budget} of `) || text.includes("estimating")) return;
    if (text.includes("Estimate from")) found.estimate ??= since;
    else {
      found.exact = since;
      watch.disconnect();
    }
  };
  const watch = new MutationObserver(window.look);
  watch.observe(document.body, {subtree: true, childList: true, characterData: true});
}
"""


def address(app_url, name, **query):
    """The address of a page on the faster checkpoint and the probe set, unless the query says otherwise."""
    return f"{app_url}/{name}?{urlencode({'checkpoint': FAST, 'source': 'probe'} | query, doseq=True)}"


def address_with_charts(app_url, name, **query):
    """The address at which the page of that name has something to draw: not every page has at its plain one."""
    asked = {
        "routing": {"text": SENTENCE},
        "compare": {"b": NAME},
    }
    return address(app_url, name, **asked.get(name, {}), **query)


def settled(page):
    """Wait until the page's script has run to its end, and check that nothing broke."""
    page.locator("h1").first.wait_for()
    page.wait_for_function(
        """() => document.querySelector("[data-testid=stApp]")?.dataset.testScriptState === "notRunning"
            && !document.querySelector("[data-stale=true]")""",
        polling=POLL,
    )
    no_traceback(page)


def drawn(page):
    """Wait until the page has charts and nothing on it is a placeholder any more, of an element or of a chart."""
    page.wait_for_function(
        """() => { const charts = [...document.querySelectorAll(".js-plotly-plot")];
        return charts.length > 0 && !document.querySelector("[data-testid=stSkeleton]")
            && charts.every((chart) => chart._fullLayout); }""",
        polling=POLL,
    )


def no_traceback(page):
    assert page.locator("[data-testid=stException]").count() == 0


def click_cell(page, key, x, y):
    """Click a cell of a chart, again where the chart was being redrawn and took no notice."""
    settled(page)
    for _ in range(30):
        page.wait_for_function(_CELL, arg=[key, x, y], polling=POLL)
        page.evaluate(
            """(key) => { const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`);
            window.taken = false;
            chart.on("plotly_selected", () => window.taken = true); }""",
            key,
        )
        left, top = page.evaluate(_CELL, [key, x, y])
        page.mouse.move(left, top)
        page.mouse.click(left, top)
        page.wait_for_timeout(500)
        if page.evaluate("window.taken"):
            return
    raise AssertionError(f"the chart {key} took no click")


def wait_for_query(page, **wanted):
    for name, value in wanted.items():
        page.wait_for_url(re.compile(rf"[?&]{name}={re.escape(quote_plus(str(value)))}(&|$)"))


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


def tab_to(page, wanted, most=150):
    """Press Tab until the control of that name, or with a line of that text, has the focus."""
    passed = []
    for _ in range(most):
        page.keyboard.press("Tab")
        # Not the text of the body and of areas that scroll: these have all lines of the page.
        names = page.evaluate(
            """() => { const e = document.activeElement;
            return [e.ariaLabel, ...(e.matches("a, button, [role=tab]") ? e.innerText.split("\\n") : [])]; }"""
        )
        if wanted in names:
            scrolled(page)
            return
        passed.append(names)
    raise AssertionError(f"no {wanted!r} among {passed}")


def scrolled(page):
    """Wait until the page has stopped scrolling to what has the focus: a list that opens meanwhile is closed again."""
    places = []
    for _ in range(50):
        places.append(page.evaluate("document.activeElement.getBoundingClientRect().top"))
        if places[-4:] == places[-1:] * 4:  # a busy renderer may begin late
            return
        page.wait_for_timeout(150)


def slider_of(page):
    slider = page.get_by_role("slider").first
    slider.wait_for()
    return slider


def value_of(slider):
    return int(slider.evaluate("e => e.getAttribute('aria-valuenow') ?? e.value"))


def time_of_next_score(page):
    """One more expert by the keyboard: seconds until the estimate and the exact score are painted.

    The first is None where the exact score came before an estimate could be painted.
    """
    slider = slider_of(page)
    budget = value_of(slider) + 1
    slider.focus()
    page.evaluate(_WATCH_HEADLINE, [budget])
    slider.press("ArrowRight")
    # Looks too, in case nothing changes any more when the observer starts to see.
    page.wait_for_function("() => { look(); return window.found.exact; }", polling=250)
    assert value_of(slider) == budget
    found = page.evaluate("window.found")
    estimate = found.get("estimate")
    return None if estimate is None else estimate / 1000, found["exact"] / 1000


def looks_well(app_url, new_tab, name, **query):
    """A page in a narrow window, in light and dark: charts have words, nothing is cut, and all is legible."""
    page = new_tab()
    page.goto(address_with_charts(app_url, name, **query))
    settled(page)
    if name != "compare":  # which opens with a table
        drawn(page)
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
