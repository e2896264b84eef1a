"""How wide the columns of a table of texts are to be, and how high its rows, so that all can be read there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_CHARACTER, _LINE = 6.2, 21  # pixels of an average character, and of a line
# One line; above 64 pixels Streamlit wraps texts, here up to eight lines.
_HEIGHTS = (35, 67, 88, 109, 130, 151, 172)


def row_height(characters: int, width: int, most: int = _HEIGHTS[-1]) -> int:
    """Pixels of a table's rows whose longest text has so many characters, in a column of this width.

    All rows of a table are as high as each other, so one very long text shall not blow up all: it is cut at `most`, and
    whole in its cell once that is opened.
    """
    lines = math.ceil(characters * _CHARACTER / (width - 16))
    needed = 1 if lines <= 1 else max(67, _LINE * lines + 4)
    return min(next((height for height in _HEIGHTS if height >= needed), _HEIGHTS[-1]), most)


def class_width(names: Iterable[str]) -> int:
    """Pixels of a column of class names, which break into lines at spaces alone; underscores are shown as such."""
    words = (word for name in names for word in re.split(r"[_\s]", name))
    return max(70, min(130, 30 + 7 * max(map(len, words), default=0)))
