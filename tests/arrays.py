"""Results as arrays, to compare them part by part."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from shrp.data.tasks import Task


def arrays(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """All arrays, tensors and numbers of a result, in order, by where they are."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        value = value.items()
    elif isinstance(value, list | tuple):
        value = enumerate(value)
    elif isinstance(value, torch.Tensor | np.ndarray | np.generic | float | int):
        yield name, value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        return
    else:
        assert value is None or isinstance(value, str | Task), f"{name}: {value}"
        return
    for key, part in value:
        yield from arrays(part, f"{name}/{key}")
