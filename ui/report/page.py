"""The file of a report: one page that needs no network and no app, to read on a screen and on paper."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.offline import get_plotlyjs

from ui.report.parts import Section
from ui.text import escape_html

# Nothing may be fetched, whatever the texts in it say; Plotly draws its images from data and blobs.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)

_CSS = """
:root{color-scheme:light;--ink:#1b2430;--soft:#5a6472;--line:#d5d9e0;--page:#fff;--box:#f5f6f8;--link:#1f5fa8;
--warn:#fff4dd;--edge:#c07a00}
@media (prefers-color-scheme:dark){:root{color-scheme:dark;--ink:#e8eaee;--soft:#a9b1bd;--line:#3a424e;
--page:#12161c;--box:#1b2129;--link:#7fb0dc;--warn:#3a2d10;--edge:#f0a860}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:1.5rem 1.25rem 4rem;background:var(--page);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{margin:0 0 .2rem;font-size:1.9rem;overflow-wrap:anywhere}
h2{margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line);font-size:1.35rem}
h3{margin:1.4rem 0 .4rem;font-size:1.05rem}
a{color:var(--link)}nav a{margin-right:1rem;white-space:nowrap}
.soft,figcaption{color:var(--soft);font-size:.9rem}
figure{margin:1rem 0 1.4rem}figcaption{margin-top:.3rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.4rem 0 1rem}
caption{caption-side:top;text-align:left;color:var(--soft);padding-bottom:.3rem}
th,td{padding:.28rem .7rem .28rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
#facts td,td.text{overflow-wrap:anywhere}td.text{min-width:18rem}td.short{white-space:nowrap}
.warn{background:var(--warn);border-left:4px solid var(--edge);padding:.5rem .8rem;margin:.6rem 0}
pre{background:var(--box);border:1px solid var(--line);padding:.7rem .9rem;overflow-x:auto;white-space:pre-wrap;
font-size:.85rem}
summary{cursor:pointer;color:var(--soft);font-size:.9rem}
@page{margin:14mm 13mm 16mm;@bottom-right{content:counter(page) " / " counter(pages);
font:8pt system-ui,sans-serif;color:#444}}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--page:#fff;--box:#fff;--link:#000;
--warn:#fff;--edge:#777}html{font-size:13px}body{max-width:none;padding:0}nav,.modebar,summary{display:none}
.wide{overflow:visible}figure,tr,li,pre,.warn,.wide:not(:has(tbody tr:nth-child(10))){break-inside:avoid}
h2,h3,caption,p:has(+pre){break-after:avoid}p{orphans:3;widows:3}}
"""

# Charts are drawn one after another, so that the words are there at once; their letters and lines follow the page's
# scheme. Paper is always light, nothing can be unfolded on it, and charts are as wide there as A4 and Letter have room
# for: as wide as on the screen, they would make the browser shrink the whole page.
_SCRIPT = """
(function () {
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var waiting = Array.from(document.querySelectorAll(".chart")), drawn = [], folded = [], paper = 680;
  function colours(layout, isDark) {
    var ink = isDark ? "#e8eaee" : "#1b2430", line = isDark ? "#3a424e" : "#dfe3e8";
    var change = {"font.color": ink, "hoverlabel.bgcolor": isDark ? "#1b2129" : "#ffffff",
      "hoverlabel.font.color": ink, "hoverlabel.bordercolor": line};
    Object.keys(layout).forEach(function (name) {
      if (/^[xy]axis\\d*$/.test(name)) {
        ["gridcolor", "zerolinecolor", "linecolor"].forEach(function (part) { change[name + "." + part] = line; });
      }
    });
    return change;
  }
  function set(layout, change) {
    Object.keys(change).forEach(function (path) {
      var parts = path.split("."), last = parts.pop(), at = layout;
      parts.forEach(function (part) { at = at[part] = at[part] || {}; });
      at[last] = change[path];
    });
  }
  function draw(isDark) {
    var place = waiting.shift(), fig = JSON.parse(place.nextElementSibling.textContent);
    set(fig.layout, colours(fig.layout, isDark));
    Plotly.newPlot(place, fig.data, fig.layout, fig.config);
    drawn.push(place);
  }
  function next() {
    if (waiting.length) { draw(dark.matches); setTimeout(next, 0); }
    else { document.documentElement.dataset.charts = "drawn"; }
  }
  function repaint(isDark, size) {
    drawn.forEach(function (place) {
      Plotly.relayout(place, Object.assign(colours(place.layout, isDark), size || {}));
    });
  }
  setTimeout(next, 0);
  dark.addEventListener("change", function (event) { repaint(event.matches); });
  window.addEventListener("beforeprint", function () {
    while (waiting.length) { draw(false); }
    document.querySelectorAll("details:not([open])").forEach(function (part) {
      part.open = true;
      folded.push(part);
    });
    repaint(false, {width: paper, autosize: false});
  });
  window.addEventListener("afterprint", function () {
    folded.splice(0).forEach(function (part) { part.open = false; });
    repaint(dark.matches, {width: null, autosize: true});
  });
})();
"""


def body(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Everything of the page but plotly.js, which `page` adds: small enough to keep in a session."""
    links = "".join(f'<a href="#{part.id}">{escape_html(part.title)}</a>' for part in sections)
    return (
        f'<header><h1>{escape_html(title)}</h1><p class="soft">{escape_html(subtitle)}</p></header>'
        f'<nav aria-label="Sections">{links}</nav>'
        '<noscript><p class="warn">The charts need JavaScript, which this viewer has switched off; the words '
        "and the tables do not.</p></noscript>"
        f"<main>{''.join(part.to_html() for part in sections)}</main>"
    )


def page(title: str, content: str) -> bytes:
    """A whole HTML file from `body`, with plotly.js inlined once; UTF-8."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape_html(title)}</title><style>{_CSS}</style>"
        f"<script>{get_plotlyjs()}</script></head>"
        f"<body>{content}<script>{_SCRIPT}</script></body></html>"
    ).encode()


def file_size(number: int) -> str:
    """A file's size: `4.9 MB`."""
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.0f} kB"
