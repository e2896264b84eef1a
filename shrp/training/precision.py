"""In which number format a training computes."""

from __future__ import annotations

import functools
import time

import torch

from shrp.training.accelerator import one_accelerator


def resolve_precision(wanted: str) -> str:
    """`fp32` or `bf16`; `auto` takes bf16 where the device that trains supports it (a GPU), or where a short timing
    on this machine shows at least 1.3 times (a CPU).
    """
    return _measured() if wanted == "auto" else wanted


@functools.cache  # once a process, so that a model and its controls can't come to compute in different formats
def _measured() -> str:
    device = one_accelerator().device.type
    if device == "cuda":
        # Older ones emulate it, which is slower than float32.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device != "cpu":
        return "fp32"
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(512, 768, dtype=dtype), torch.ones(768, 3072, dtype=dtype)
        a @ b
        started = time.perf_counter()
        for _ in range(5):
            a @ b
        times[dtype] = time.perf_counter() - started
    return "bf16" if times[torch.float32] > 1.3 * times[torch.bfloat16] else "fp32"
