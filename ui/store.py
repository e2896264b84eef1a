"""A shared memory for results that a page makes step by step, with progress, outside a cached function; and a disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.results_store import ResultsStore, cache_folder


class ResultStore:
    """Keeps the latest used results, for all sessions; what is in it must not be changed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The result kept under `key`, or None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a result; the one unused for longest goes when there are too many."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result kept under `key`, or else what `make` makes, which is to be quick, kept from now on."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
            return self._kept[key]

    def drop(self, key: Hashable) -> None:
        """Keep no result under `key` any more."""
        with self._lock:
            self._kept.pop(key, None)


@st.cache_resource(show_spinner=False)
def results(kind: str, size: int = 256) -> ResultStore:
    """The store of one kind of results, the same in every session."""
    return ResultStore(size)


def disk() -> ResultsStore:
    """Results that outlive this process, in the folder that SHRP_CACHE names or the usual one."""
    return _disk(cache_folder())


@st.cache_resource(show_spinner=False)
def _disk(folder: Path | None) -> ResultsStore:
    return ResultsStore(folder)
