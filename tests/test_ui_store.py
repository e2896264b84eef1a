"""Results that sessions share."""

import gc
import threading
import time

import pytest

from ui import store
from ui.store import ResultStore


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


def test_who_waits_may_leave_and_other_keys_are_free():
    kept = ResultStore(4)

    def leave():
        raise InterruptedError

    with kept.making("one", lambda: None):
        with kept.making("other", leave):
            pass
        with pytest.raises(InterruptedError), kept.making("one", leave):
            pass
    with kept.making("one", leave):
        pass


def test_an_error_leaves_nothing_and_the_next_one_makes_it():
    calls = []

    def work(progress):
        calls.append(1)
        progress(1, 2)
        if len(calls) == 1:
            raise InterruptedError
        return "made"

    with pytest.raises(InterruptedError):
        store.once("test", 3, "key", "Doing", work)
    assert store.once("test", 3, "key", "Doing", work) == "made"
    assert store.once("test", 3, "key", "Doing", work) == "made"
    assert len(calls) == 2
