"""How long what a progress bar shows will still take."""

from __future__ import annotations

import time

from ui.text import duration

_SETTLED = 3.0
"""Seconds after which the pace can be told, and below which the rest is not worth telling."""
_LEAST = 0.02
"""The part of the work that must be done by then."""


class Remaining:
    """Tells the time left by the pace since it was first asked: what was done before, or kept, says nothing of it."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None

    def said(self, share: float) -> str:
        """A clause such as `, about 20 s left`, to follow what is done; empty where that can't be told yet.

        Args:
            share: of the work that is done, from 0 to 1.
        """
        now = time.monotonic()
        if self._start is None:
            self._start = now, share
        spent, gained = now - self._start[0], share - self._start[1]
        if spent < _SETTLED or gained < _LEAST:
            return ""
        rest = spent * (1 - share) / gained
        if rest < _SETTLED:
            return ""
        step = 5 if rest < 60 else 30  # what changes all the time can't be read
        return f", about {duration(step * max(1, round(rest / step)))} left"
