"""Results that sessions share."""

import gc
import threading
import time
from dataclasses import dataclass
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from ui import store
from ui.store import Remaining, ResultStore


def test_one_thread_makes_what_all_want():
    kept, made, seen = ResultStore(4), [], []

    def want():
        with kept.making("key", lambda: None):
            if kept.get("key") is None:
                time.sleep(0.05)
                made.append(1)
                kept.put("key", "result")
        seen.append(kept.get("key"))

    threads = [threading.Thread(target=want) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert seen == ["result"] * 5
    del threads, thread
    gc.collect()
    assert not len(kept._making)  # no lock is left behind


def test_large_results_leave_room_for_fewer():
    @dataclass
    class Measured:
        by_layer: dict[int, np.ndarray]
        name: str

    def of(layers):
        return Measured({layer: np.zeros(100) for layer in range(layers)}, "name")

    kept = ResultStore(3, most_bytes=3000)
    for key in "abcd":
        kept.put(key, of(1))
    assert [kept.get(key) is not None for key in "abcd"] == [False, True, True, True]
    kept.put("e", (of(2), pd.DataFrame({"x": np.zeros(80)})))  # 1,600 bytes and some 800
    assert [kept.get(key) is not None for key in "bcde"] == [False, False, False, True]
    kept.put("huge", of(9))  # alone, but there
    assert [kept.get(key) is not None for key in ("e", "huge")] == [False, True]
    kept.drop("huge")
    kept.put("a", of(3))
    kept.put("a", of(1))  # in its place
    kept.put("b", of(2))
    assert kept.get("a") is not None


def test_who_waits_may_leave_and_other_keys_are_free():
    kept, leave = ResultStore(4), Mock(side_effect=InterruptedError)
    with kept.making("one", lambda: None):
        with kept.making("other", leave):
            pass
        with pytest.raises(InterruptedError), kept.making("one", leave):
            pass
    with kept.making("one", leave):
        pass


def test_an_error_leaves_nothing_and_the_next_one_makes_it():
    work = Mock(side_effect=[InterruptedError, "made"])
    with pytest.raises(InterruptedError):
        store.once("test", 3, "key", "Doing", work)
    assert [store.once("test", 3, "key", "Doing", work) for _ in range(2)] == ["made"] * 2
    assert work.call_count == 2


def test_all_results_of_a_fingerprint_are_let_go_of():
    store = ResultStore(8)
    gone, left = {("a", "data"), ("b", ("a", 1)), "a", ("a-at-64", 1)}, {("b", "data"), ("ba",), 3}
    for key in gone | left:
        store.put(key, np.zeros(2))
    store.drop_all_of("a")
    assert {key for key in gone | left if store.get(key) is not None} == left


def test_the_time_left_is_told_by_the_pace_since_the_first_call(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    left = Remaining()
    for later, share, said in (
        (0, 0.5, ""),  # what was done before costs nothing
        (2, 0.6, ""),  # too early to tell
        (8, 0.6, ", about 40 s left"),  # a tenth in 10 seconds
        (20, 0.98, ""),  # nearly done
    ):
        now[0] += later
        assert left.said(share) == said
    left = Remaining()
    left.said(0.0)
    now[0] += 30
    assert left.said(0.005) == ""  # stands still
    assert left.said(0.1) == ", about 4 min 30 s left"
