"""The history of a training: a row an epoch, which a checkpoint carries as JSON lines."""

from __future__ import annotations

import json
from typing import Any


def history_text(history: list[dict[str, Any]]) -> str:
    """The history as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in history)


def joined(*histories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Histories of runs that went on from each other, their epochs numbered through."""
    rows = [row for history in histories for row in history]
    return [row | {"epoch": index} for index, row in enumerate(rows)]
