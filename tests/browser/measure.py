"""How much a page shows on its first load: words, height, controls.

`python -m tests.browser.measure http://127.0.0.1:8501/routing?text=hello --shots shots` prints a line for each address,
width and scheme, and keeps the screenshots.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import NamedTuple

CONTROLS = ", ".join(
    (
        "button",
        "a[href]",
        "input",
        "select",
        "textarea",
        "summary",
        *(f"[role={role}]" for role in ("slider", "combobox", "tab", "radio", "switch")),
    )
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


def main() -> None:
    from playwright.sync_api import sync_playwright

    from tests.browser.steps import settled

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--widths", type=int, nargs="+", default=[1440])
    parser.add_argument("--schemes", nargs="+", default=["light"])
    parser.add_argument("--shots", type=Path, help="a folder for screenshots")
    args = parser.parse_args()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in args.widths:
            for scheme in args.schemes:
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for address in args.addresses:
                    page = context.new_page()
                    page.set_default_timeout(120_000)
                    page.goto(address)
                    settled(page)
                    page.wait_for_timeout(1500)  # charts are drawn a little later
                    print(f"{width} {scheme} {address}: {measure(page)}", flush=True)
                    if args.shots:
                        args.shots.mkdir(parents=True, exist_ok=True)
                        name = re.sub(r"\W+", "-", address.split("//")[-1]).strip("-")[:60]
                        page.screenshot(path=args.shots / f"{name}-{width}-{scheme}.png")
                        height = measure(page).height + 200
                        page.set_viewport_size({"width": width, "height": min(height, 6000)})
                        page.wait_for_timeout(500)
                        page.screenshot(path=args.shots / f"{name}-{width}-{scheme}-all.png")
                    page.close()
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
