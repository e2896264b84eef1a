"""Tables with a person's own in them: names of columns beside ours, and texts of all kinds in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # slow to import
    import pandas as pd


def distinct(names: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Names that a person gave to columns, for a table that has reserved ones too: `input` becomes `input (text)`.

    Without this the one would take the other's place. Equal names among the person's own are told apart as well.
    """
    taken, found = set(reserved), []
    for name in names:
        free, number = name, 1
        while free in taken:
            free, number = f"{name} (text)" if number == 1 else f"{name} (text {number})", number + 1
        taken.add(free)
        found.append(free)
    return found


def csv_options(frame: pd.DataFrame) -> dict[str, Any]:
    """What `DataFrame.to_csv` needs to be told of a table: everything is quoted where a text has a carriage return,
    which ends a row to whoever reads it, and which Python's writer leaves bare.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"])
    bare = any("\r" in value for name in texts for value in texts[name] if isinstance(value, str))
    return {"quoting": csv.QUOTE_ALL} if bare else {}
