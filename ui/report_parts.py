"""The parts of a report as HTML: sections, tables and charts of one file that needs no network and no app.

Everything here takes plain text and escapes it; only `markup` arguments are HTML already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from ui.text import escape_html

_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}

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
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--page:#fff;--box:#fff;--link:#000;
--warn:#fff;--edge:#777}nav,.modebar{display:none}section{break-before:auto}
figure,tr,.warn{break-inside:avoid}h2,h3{break-after:avoid}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:1.5rem 1.25rem 4rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
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
#facts td,td.text{overflow-wrap:anywhere}td.text{min-width:18rem}
.warn{background:var(--warn);border-left:4px solid var(--edge);padding:.5rem .8rem;margin:.6rem 0}
pre{background:var(--box);border:1px solid var(--line);padding:.7rem .9rem;overflow-x:auto;white-space:pre-wrap;
font-size:.85rem}
summary{cursor:pointer;color:var(--soft);font-size:.9rem}
"""

# Charts are drawn one after another, so that the words are there at once; their letters and lines follow the page's
# scheme, and paper is always light.
_SCRIPT = """
(function () {
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var waiting = Array.from(document.querySelectorAll(".chart")), drawn = [];
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
  function repaint(isDark) {
    drawn.forEach(function (place) { Plotly.relayout(place, colours(place.layout, isDark)); });
  }
  setTimeout(next, 0);
  dark.addEventListener("change", function (event) { repaint(event.matches); });
  window.addEventListener("beforeprint", function () {
    while (waiting.length) { draw(false); }
    if (dark.matches) { repaint(false); }
  });
  window.addEventListener("afterprint", function () { if (dark.matches) { repaint(true); } });
})();
"""


@dataclass
class Section:
    """One section of a report, in the order in which its parts were added."""

    id: str
    title: str
    markup: list[str] = field(default_factory=list)
    """HTML, as it goes into the file."""

    def heading(self, text: str) -> None:
        """A heading within the section."""
        self.markup.append(f"<h3>{escape_html(text)}</h3>")

    def words(self, text: str, *, soft: bool = False) -> None:
        """A paragraph."""
        start = '<p class="soft">' if soft else "<p>"
        self.markup.append(f"{start}{escape_html(text)}</p>")

    def warning(self, text: str) -> None:
        """A paragraph that stands out."""
        self.markup.append(f'<p class="warn"><strong>Warning.</strong> {escape_html(text)}</p>')

    def bullets(self, lines: Iterable[str]) -> None:
        """A list of sentences."""
        self.markup.append("<ul>" + "".join(f"<li>{escape_html(line)}</li>" for line in lines) + "</ul>")

    def code(self, text: str) -> None:
        """Commands, as they are typed."""
        self.markup.append(f"<pre><code>{escape_html(text)}</code></pre>")

    def facts(self, pairs: Iterable[tuple[str, str]], caption: str) -> None:
        """Names and values as a table with row headings."""
        rows = "".join(
            f'<tr><th scope="row">{escape_html(name)}</th><td>{escape_html(value)}</td></tr>'
            for name, value in pairs
        )
        self.markup.append(
            f'<div class="wide"><table><caption>{escape_html(caption)}</caption>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def table(
        self, frame: pd.DataFrame, caption: str, *, texts: Sequence[str] = (), folded: bool = False
    ) -> None:
        """A table of texts.

        Args:
            frame: shown as it is; missing values stay empty.
            texts: columns of running text, which get room.
            folded: shown on a click only.
        """
        names = "".join(f'<th scope="col">{escape_html(name)}</th>' for name in frame.columns)
        rows = []
        for values in frame.itertuples(index=False):
            cells = (
                ('<td class="text">' if name in texts else "<td>")
                + ("" if pd.isna(value) else escape_html(value))
                + "</td>"
                for name, value in zip(frame.columns, values)
            )
            rows.append(f"<tr>{''.join(cells)}</tr>")
        table = (
            f'<div class="wide"><table><caption>{escape_html(caption)}</caption>'
            f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )
        if folded:
            table = f"<details><summary>{escape_html(caption)}</summary>{table}</details>"
        self.markup.append(table)

    def figure(self, fig: go.Figure, alt: str, measured: str) -> None:
        """A chart.

        Args:
            fig: one of the app's; it is copied.
            alt: what it shows, in words.
            measured: the data and n, or what else its numbers are of.
        """
        copy = go.Figure(fig).update_layout(template="plotly_white", autosize=True)
        copy.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
        height = int(copy.layout.height or 400)
        # Plotly's JSON has every `<` and `/` escaped, so that no text in it ends the element.
        figure = to_json_plotly(copy.to_plotly_json() | {"config": _CONFIG})
        self.markup.append(
            f'<figure><div class="chart" role="img" aria-label="{escape_html(alt)}" style="height:{height}px"></div>'
            f'<script type="application/json">{figure}</script>'
            f"<figcaption>{escape_html(alt)} <em>{escape_html(measured)}</em></figcaption></figure>"
        )

    def to_html(self) -> str:
        """The section's element."""
        return (
            f'<section id="{self.id}" aria-labelledby="{self.id}-title"><h2 id="{self.id}-title">'
            f"{escape_html(self.title)}</h2>{''.join(self.markup)}</section>"
        )


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
