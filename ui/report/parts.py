"""The parts of a report as HTML: sections with words, tables and charts.

Everything here takes plain text and escapes it; only `markup` arguments are HTML already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
from plotly.io.json import to_json_plotly

from ui.text import escape_html
from ui.theme import unclickable

_SHORT = 16  # characters: an interval, a number with its unit, a class
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


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
            cells = (_cell(value, name in texts) for name, value in zip(frame.columns, values))
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
        copy = unclickable(fig).update_layout(template="plotly_white", autosize=True)
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


def _cell(value: object, running: bool) -> str:
    """A table's cell: running text gets room, and what is short stays on one line."""
    text = "" if pd.isna(value) else str(value)
    kind = ' class="text"' if running else ' class="short"' if len(text) <= _SHORT else ""
    return f"<td{kind}>{escape_html(text)}</td>"
