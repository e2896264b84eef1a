"""The device that a model computes on."""

from __future__ import annotations

import torch

from shrp.errors import ShrpError, first_line


def device_named(name: str | torch.device) -> torch.device:
    """A device by PyTorch's name for it, `cpu`, `cuda`, `cuda:1` or `mps`, once a number has been there and back.

    Raises:
        ShrpError: there is none here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # whatever PyTorch, built without it, raises
        raise ShrpError(
            f"there is no device '{name}' to compute on here ({first_line(error).rstrip('.')}); "
            "leave it out for the CPU."
        ) from error
    return device
