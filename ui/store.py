"""A shared memory for results that a page makes step by step, with progress, outside a cached function; and a disk."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
import streamlit as st

from shrp.files import cache_folder
from ui.text import about

if TYPE_CHECKING:
    from shrp.results_store import ResultsStore

Made = TypeVar("Made")
Progress = Callable[[float, int], None]
"""Called with what is done and how much there is in all."""
MOST_BYTES = 512 * 2**20
"""Of the arrays and tables that one kind of results may keep, besides the one used last."""
HOLD_MODELS = ("live evaluators", "prefixes", "attribution inputs", "running fits")
"""The kinds of results that hold a checkpoint's model, or what enters its layers."""
_stores: dict[str, ResultStore] = {}


class ResultStore:
    """Keeps the latest used results, for all sessions; what is in it must not be changed. At most `size`, and `most_bytes`."""

    def __init__(self, size: int, most_bytes: int = MOST_BYTES) -> None:
        self.size, self.most_bytes = size, most_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # with bytes
        self._lock = threading.Lock()
        self._making: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()

    @contextmanager
    def making(self, key: Hashable, waiting: Callable[[], None]) -> Iterator[None]:
        """Only one thread at a time makes the result of a key.

        Args:
            waiting: called now and then while another one does; it may raise, which ends the waiting.
        """
        with self._lock:  # who makes it, or waits, holds the lock; when nobody does, it goes
            mine = self._making.setdefault(key, threading.Lock())
        while not mine.acquire(timeout=0.5):
            waiting()
        try:
            yield
        finally:
            mine.release()

    def get(self, key: Hashable) -> Any:
        """The result kept under `key`, or None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a result; the one unused for longest goes when there are too many."""
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = value, bytes_of(value)
            while len(self._kept) > self.size or (
                len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self.most_bytes
            ):
                self._kept.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Keep no result under `key` any more."""
        with self._lock:
            self._kept.pop(key, None)

    def drop_all_of(self, fingerprint: str) -> None:
        """Drop all results whose key holds a checkpoint's fingerprint, or one that begins with it (of fewer tokens read)."""
        with self._lock:
            for key in [key for key in self._kept if _has(key, fingerprint)]:
                del self._kept[key]


def _has(key: Hashable, part: str) -> bool:
    if isinstance(key, tuple):
        return any(_has(one, part) for one in key)
    return isinstance(key, str) and key.startswith(part)


def bytes_of(value: Any) -> int:
    """Bytes of the arrays, tables and texts in a result, as far as they lie in containers and dataclasses."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, pd.DataFrame):
        return int(value.memory_usage().sum())
    if is_dataclass(value) and not isinstance(value, type):
        return sum(bytes_of(getattr(value, field.name)) for field in fields(value))
    parts = value.values() if isinstance(value, Mapping) else value
    return sum(map(bytes_of, parts)) if isinstance(value, (Mapping, list, tuple)) else 0


@st.cache_resource(show_spinner=False)
def results(kind: str, size: int = 256) -> ResultStore:
    """The store of one kind of results, the same in every session."""
    _stores[kind] = made = ResultStore(size)
    return made


def forget(fingerprint: str) -> None:
    """Drop what holds the model of a checkpoint that its session has removed; scores are kept."""
    for kind in HOLD_MODELS:
        if (store := _stores.get(kind)) is not None:
            store.drop_all_of(fingerprint)


def kept(
    kind: str, size: int, key: Hashable, work: Callable[[], Made], waiting: Callable[[], None] = lambda: None
) -> Made:
    """A result from memory, or made now; as `once`, but without a progress bar. `waiting` as for `ResultStore.making`."""
    store = results(kind, size)
    if (found := store.get(key)) is None:
        with store.making(key, waiting):
            if (found := store.get(key)) is None:
                found = work()
                store.put(key, found)
    return found


def once(kind: str, size: int, key: Hashable, label: str, work: Callable[[Progress], Made]) -> Made:
    """A result from memory, or made now under a progress bar; the same in every session, so never change it.

    The first session makes it, others wait; when a person leaves meanwhile, the next one makes it again. (A function that
    Streamlit caches could not move a progress bar outside it.) `key`: all that the result depends on; `work` makes the
    result, never None.
    """
    if (found := results(kind, size).get(key)) is not None:
        return found
    bar, left = st.progress(0.0, text=f"{label} …"), Remaining()

    def show(done: float, n: int) -> None:
        share = min(done / max(n, 1), 1.0)
        bar.progress(share, f"{label}: {done:,.0f} of {n:,}{left.said(share)}")

    try:
        waiting = partial(bar.progress, 0.0, f"{label}, which was begun before …")
        return kept(kind, size, key, lambda: work(show), waiting)
    finally:
        bar.empty()


@st.cache_resource(show_spinner=False)
def _disk(folder: Path | None) -> ResultsStore:
    from shrp.results_store import ResultsStore

    return ResultsStore(folder)


def disk() -> ResultsStore:
    """Results that outlive this process, in the folder that SHRP_CACHE names or the usual one."""
    return _disk(cache_folder())


_SETTLED, _LEAST = 3.0, 0.01
"""Seconds, and share of the work, after which the pace is known; less time left than that is not worth telling."""


class Remaining:
    """Tells the time left by the pace since the first call: work done before, or kept, does not count."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None

    def said(self, share: float) -> str:
        """A clause such as `, about 20 s left`, by the share of the work that is done (0 to 1); empty where not known yet."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, share
        spent, gained = now - self._start[0], share - self._start[1]
        if spent < _SETTLED or gained < _LEAST:
            return ""
        rest = spent * (1 - share) / gained
        if rest < _SETTLED:
            return ""
        return f", {about(rest)} left"
