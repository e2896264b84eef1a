"""The number format that `auto` comes to, by what a machine has and by what it measures."""

from types import SimpleNamespace

import pytest
import torch

from shrp.training import device as precision
from shrp.training.device import resolve_precision

MEASURED = precision._measured  # of which other tests have a stand-in


@pytest.fixture
def machine(monkeypatch):
    """`machine(device, bf16, *seconds)`: the training device, whether it supports bf16, and how long each timing takes;
    returns the timings that nobody has asked for yet.
    """
    monkeypatch.setattr(precision, "_measured", MEASURED)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that does not train does not decide

    def build(device, bf16=False, *seconds):
        times = [[2 * time, time] for time in seconds]
        supports = lambda including_emulation=True: bf16 or including_emulation  # noqa: E731
        monkeypatch.setattr(precision, "training_device", lambda: torch.device(device))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supports)
        monkeypatch.setattr(precision, "timeit", SimpleNamespace(repeat=lambda *_, **__: times.pop(0)))
        return times

    MEASURED.cache_clear()
    yield build
    MEASURED.cache_clear()  # what a test made it measure is not this machine's


@pytest.mark.parametrize(
    ("device", "bf16", "seconds", "expected"),  # seconds of the products in fp32 and bf16; only a CPU is timed
    [
        ("cuda", True, (), "bf16"),
        ("cuda", False, (), "fp32"),
        ("mps", True, (), "fp32"),
        ("cpu", True, (1.31, 1.0), "bf16"),
        ("cpu", True, (1.29, 1.0), "fp32"),
    ],
)
def test_auto_is_what_a_device_supports_or_what_a_short_timing_shows(machine, device, bf16, seconds, expected):
    left = machine(device, bf16, *seconds)
    assert resolve_precision("auto") == expected
    assert not left


def test_a_process_measures_once(machine):
    machine("cpu", False, 2.0, 1.0)
    assert resolve_precision("auto") == "bf16"
    machine("cpu")
    assert [resolve_precision(wanted) for wanted in ("auto", "fp32", "bf16")] == ["bf16", "fp32", "bf16"]
