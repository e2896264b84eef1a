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


@pytest.mark.parametrize(("bf16", "format"), [(True, "bf16"), (False, "fp32")])
def test_on_a_gpu_it_is_what_the_gpu_supports_and_nothing_is_timed(machine, bf16, format):
    clock = machine(True, bf16)
    assert resolve_precision("auto") == format
    assert clock.calls == 0


@pytest.mark.parametrize(
    ("fp32_seconds", "bf16_seconds", "format"),
    [(2.0, 1.0, "bf16"), (1.31, 1.0, "bf16"), (1.29, 1.0, "fp32"), (1.0, 1.0, "fp32"), (1.0, 2.0, "fp32")],
)
def test_without_a_gpu_it_is_bf16_where_that_is_at_least_1_3_times_as_fast(
    machine, fp32_seconds, bf16_seconds, format
):
    clock = machine(False, True, fp32_seconds, bf16_seconds)
    assert resolve_precision("auto") == format
    assert clock.calls == 4


def test_on_the_cpu_of_a_machine_with_a_gpu_the_gpu_does_not_decide(machine, monkeypatch):
    machine(False, True, 1.0, 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_precision("auto") == "fp32"


def test_on_any_other_device_nothing_is_known_of_bf16(machine):
    clock = machine("mps", True)
    assert resolve_precision("auto") == "fp32"
    assert clock.calls == 0


def test_a_process_measures_once(machine):
    machine(False, False, 2.0, 1.0)
    assert resolve_precision("auto") == "bf16"
    clock = machine(False, False, 1.0, 2.0)
    assert resolve_precision("auto") == "bf16"
    assert clock.calls == 0


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken_untimed(machine, wanted, cuda):
    clock = machine(cuda, wanted == "fp32", 1.0, 1.0)  # `auto` would come to the other
    assert resolve_precision(wanted) == wanted
    assert clock.calls == 0
