"""How much a page shows on its first load: words, height, controls."""

from typing import NamedTuple

ROLES = ("slider", "combobox", "tab", "radio", "switch")
CONTROLS = "button, a[href], input, select, textarea, summary, " + ", ".join(
    f"[role={role}]" for role in ROLES
)
_MEASURE = """
(controls) => {
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
  return {
    words: words(main.innerText), height: Math.round(block.getBoundingClientRect().height), controls: own.length,
    wide: document.documentElement.scrollWidth - window.innerWidth,
  };
}
"""


class Measures(NamedTuple):
    """Of a page in one window."""

    words: int
    """In all of the main part, charts' words included."""
    height: int
    """Of the main part, in pixels."""
    controls: int
    """On the first screen, outside the sidebar."""
    wide: int
    """Pixels by which the page is wider than its window."""


def measure(page) -> Measures:
    """Measure an open page; call once it has settled.

    Args:
        page: Playwright's.
    """
    return Measures(**page.evaluate(_MEASURE, CONTROLS))
