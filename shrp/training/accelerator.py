"""The device that training runs on."""

from __future__ import annotations

from accelerate import Accelerator

from shrp.errors import TrainingError


def one_accelerator() -> Accelerator:
    """Accelerate's view of the one device that trains: a GPU where there is one.

    Raises:
        TrainingError: several processes were launched.
    """
    # One device is all that models of this size ask for; a second process would route, swap and resume on its own.
    # Not Accelerator's own mixed precision: that patches the model's forward for good, so that what is trained
    # here could not be copied or pruned, and it can be chosen only once a process.
    accelerator = Accelerator(mixed_precision="no")
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"{accelerator.num_processes} processes were launched, and training runs in one: "
            "start it without a launcher (torchrun, accelerate launch), or with one process."
        )
    return accelerator
