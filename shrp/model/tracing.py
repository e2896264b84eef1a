"""Whether a forward pass is being traced: then it must not branch on values, nor work in place."""

from __future__ import annotations

import torch


def traced() -> bool:
    """Whether torch compiles, exports or traces what runs now."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
