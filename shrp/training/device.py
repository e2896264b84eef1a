"""The device that trains, and the number format that it computes in."""

from __future__ import annotations

import functools
import timeit

import torch
from accelerate import Accelerator

from shrp.errors import TrainingError
from shrp.training import processes


def training_device() -> torch.device:
    """The device that this process trains on: a GPU where there is one.

    Raises:
        TrainingError: several processes were launched, and they have not joined (`shrp.training.processes.start`).
    """
    if processes.launched() > processes.count():
        raise TrainingError(
            f"{processes.launched()} processes were launched, and this runs in one: start it without a launcher "
            "(torchrun, accelerate launch). Only train, convert and finetune run in several."
        )
    # Not Accelerator's own mixed precision: that patches the model's forward for good, so that what is trained
    # here could not be copied or pruned, and it can be chosen only once a process.
    return Accelerator(mixed_precision="no").device


def resolve_precision(wanted: str) -> str:
    """`fp32` or `bf16`, the number format to train in.

    `auto` takes bf16 where the device supports it (a GPU), or a short timing shows at least a 1.3-fold speed-up (a CPU).
    """
    return _measured() if wanted == "auto" else wanted


@functools.cache  # once a process, so that a model and its controls can't come to compute in different formats
def _measured() -> str:
    device = training_device().type
    if device == "cuda":
        # Older ones emulate it, which is slower than float32.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device != "cpu":
        return "fp32"
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        # No larger: without bfloat16 in the processor, a product takes a hundred times as long.
        a, b = torch.ones(128, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
        times[dtype] = min(timeit.repeat(lambda a=a, b=b: a @ b, number=1, repeat=5))
    return "bf16" if times[torch.float32] > 1.3 * times[torch.bfloat16] else "fp32"
