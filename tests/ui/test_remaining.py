"""The time left is told by the pace since the start, once there is one."""

import pytest

from ui import store
from ui.store import Remaining


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    return now


def test_it_is_told_by_the_pace_since_the_first_call(clock):
    left = Remaining()
    assert left.said(0.5) == ""  # what was done before costs nothing
    clock[0] += 2
    assert left.said(0.6) == ""  # too early to tell
    clock[0] += 8
    assert left.said(0.6) == ", about 40 s left"  # a tenth in 10 seconds
    clock[0] += 20
    assert left.said(0.98) == ""  # nearly done
    assert Remaining().said(0.9) == ""


def test_what_goes_on_for_long_is_told_in_minutes_and_what_stands_still_not_at_all(clock):
    left = Remaining()
    left.said(0.0)
    clock[0] += 30
    assert left.said(0.01) == ""
    assert left.said(0.1) == ", about 4 min 30 s left"
