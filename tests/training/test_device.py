"""The number format that `auto` comes to, by what a machine has and by what it measures."""

from types import SimpleNamespace

import pytest
import torch

from shrp.training import device as precision
from shrp.training.device import resolve_precision


class Clock:
    """Stands for `time.perf_counter`: each time something is measured, the next of the given seconds has passed."""

    def __init__(self, *seconds):
        self.now, self.calls, self.seconds = 100.0, 0, seconds

    def __call__(self):
        self.calls += 1
        if self.calls % 2 == 0:
            self.now += self.seconds[self.calls // 2 - 1]
        return self.now


MEASURED = precision._measured  # of which other tests have a stand-in


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    monkeypatch.setattr(precision, "_measured", MEASURED)
    MEASURED.cache_clear()
    yield
    MEASURED.cache_clear()  # what a test made it measure is not this machine's


@pytest.fixture
def machine(monkeypatch):
    """`machine(cuda, bf16, fp32_seconds, bf16_seconds)`: its clock. `cuda` may be another device's name."""

    def build(cuda=False, bf16=False, *seconds):
        clock = Clock(*seconds)
        device = torch.device(cuda if isinstance(cuda, str) else "cuda" if cuda else "cpu")
        monkeypatch.setattr(precision, "training_device", lambda: device)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=clock))
        return clock

    return build


@pytest.mark.parametrize(
    (
        "device",
        "bf16",
        "seconds",
        "expected",
    ),  # seconds of the timed products in fp32 and bf16; none is timed elsewhere
    [
        (True, True, (), "bf16"),  # a GPU: what it supports
        (True, False, (), "fp32"),
        ("mps", True, (), "fp32"),
        (False, True, (2.0, 1.0), "bf16"),
        (False, True, (1.31, 1.0), "bf16"),
        (False, True, (1.29, 1.0), "fp32"),
        (False, True, (1.0, 2.0), "fp32"),
    ],
)
def test_auto_is_what_a_device_supports_or_what_a_short_timing_shows(
    machine, monkeypatch, device, bf16, seconds, expected
):
    clock = machine(device, bf16, *seconds)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that does not train does not decide
    assert resolve_precision("auto") == expected
    assert clock.calls == 2 * len(seconds)


def test_a_process_measures_once(machine):
    machine(False, False, 2.0, 1.0)
    assert resolve_precision("auto") == "bf16"
    clock = machine(False, False, 1.0, 2.0)
    assert [resolve_precision(wanted) for wanted in ("auto", "fp32", "bf16")] == ["bf16", "fp32", "bf16"]
    assert clock.calls == 0
