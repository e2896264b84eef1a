"""What a person does in the app, and what they then see, in the terms of a page in a browser."""

import re
from urllib.parse import quote_plus, urlencode

NAME, FAST = "sst2-base-6of12", "sst2-11of12"
"""The checkpoint that is opened first, and one that computes many times as fast."""
SENTENCE = "I would gladly sit through it all again tomorrow."
POLL = 100
"""Milliseconds between two looks at a page; else it would be asked at every frame, and drawn for that."""
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
WATCHED = """
(() => {
  // Notes whether the page has asked the server for a run that has not ended yet, by the fields of Streamlit's messages:
  // 11 of what is sent asks for one (its field 6: by a timer); of what comes 4 begins one, and 6 ends it (2: another
  // one follows).
  const fields = (bytes) => {
    const found = {};
    let at = 0;
    const number = () => {
      let value = 0;
      for (let scale = 1; ; scale *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * scale;
        if (!(byte > 127)) return value;
      }
    };
    while (at < bytes.length) {
      const tag = number(), value = number();
      found[tag >> 3] = (tag & 7) == 2 ? bytes.subarray(at, at += value) : value;
    }
    return found;
  };
  const send = WebSocket.prototype.send, heard = new WeakSet();
  let asked = true, begun = false, since = 0;
  WebSocket.prototype.send = function (data) {
    if (!heard.has(this)) {
      heard.add(this);
      this.addEventListener("message", (event) => {
        const {4: begins, 6: ended} = fields(new Uint8Array(event.data));
        begun ||= begins !== undefined;
        if (begun && ended !== undefined && ended !== 2) asked = false;
      });
    }
    const {11: run} = fields(new Uint8Array(data));
    if (run && !fields(run)[6]) [asked, begun, since] = [true, false, performance.now()];
    return send.call(this, data);
  };
  let quiet;
  window.settled = () => {
    const app = document.querySelector("[data-testid=stApp]");
    // A request that came too late, of what is no longer there, is never answered.
    const waits = asked && (begun || performance.now() - since < 30_000);
    const still = !waits && app?.dataset.testScriptState === "notRunning"
      && !document.querySelector("[data-stale=true]");
    // The page takes a moment to draw what has come.
    quiet = still ? quiet ?? performance.now() : undefined;
    return still && performance.now() - quiet > 250;
  };
  document.addEventListener("DOMContentLoaded", () => {
    // Without a graphics card what turns and fades while the app computes takes a core from it.
    const style = document.createElement("style");
    style.textContent = "*, *::before, *::after {animation: none !important}";
    document.head.append(style);
  });
})();
"""
"""Runs in each page before its own scripts, for `settled`."""


def address(app_url, name, **query):
    """The address of a page on the faster checkpoint and the probe set, unless the query says otherwise."""
    return f"{app_url}/{name}?{urlencode({'checkpoint': FAST, 'source': 'probe'} | query, doseq=True)}"


def settled(page):
    """Wait until all that the page has asked for is computed and shown, and check that nothing broke."""
    page.wait_for_function("() => window.settled()", polling=POLL)
    nothing_broke(page)


def nothing_broke(page):
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.get_by_text("Page not found").count() == 0


def to(page, name):
    """Follow a link of the menu."""
    page.locator("[data-testid=stSidebar]").get_by_role("link", name=name, exact=True).click()
    page.get_by_role("heading", name=name).first.wait_for()


def click_cell(page, key, x, y):
    """Click a cell of a chart, again where the chart was being redrawn and took no notice."""
    from playwright.sync_api import TimeoutError

    settled(page)
    for _ in range(10):
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
        try:  # a second click would take back the first, so it has time
            page.wait_for_function("window.taken", polling=POLL, timeout=10_000)
            return
        except TimeoutError:
            settled(page)
    raise AssertionError(f"the chart {key} took no click")


def wait_for_query(page, **wanted):
    for name, value in wanted.items():
        page.wait_for_url(re.compile(rf"[?&]{name}={re.escape(quote_plus(str(value)))}(&|$)"))


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
