"""Training in several processes (data-parallel), which a launcher such as torchrun starts, on one machine or several.

All processes hold the same weights and go through the same batches in the same order. Each computes its own rows of a
batch (`share`); what a loss sums or averages, it sums over all of them (`total`, `mean`), so that every process knows the
loss of the whole batch; and `sum_gradients` adds up the gradients of the parts. Only the main process writes.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

_PATIENCE = timedelta(days=1)
"""How long the others wait for the main process: it alone scores, and stores the teacher's outputs."""


def launched() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start() -> None:
    """Join the processes that the launcher started, if there are several."""
    if launched() > 1 and not dist.is_initialized():
        dist.init_process_group(timeout=_PATIENCE)
        atexit.register(dist.destroy_process_group)


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; 0 is the main process."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of a batch's rows; all of them on every process if there are too few to share.

    Either way `total` and `mean` give the mean over the batch, and `sum_gradients` its gradient.
    """
    return rows if len(rows) < count() else rows[rank() :: count()]


class _Total(torch.autograd.Function):
    """A sum over all processes, of which each has the gradient of its own part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.detach().clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def total(part: Tensor) -> Tensor:
    """The sum of a tensor over all processes, the same on each, with the gradient of this process's part."""
    return part if count() == 1 else _Total.apply(part)


def mean(rows: Tensor) -> Tensor:
    """The mean of float32 rows, `(n, ...)`, over those of all processes, with a gradient as `total`."""
    if count() == 1:
        return rows.mean(0)
    sums = total(torch.cat([rows.sum(0).flatten(), rows.new_full((1,), len(rows))]))
    return (sums[:-1] / sums[-1]).view(rows.shape[1:])


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sum over all processes."""
    if count() == 1:
        return
    learnt = [one for one in parameters if one.grad is not None]
    whole = torch.cat([one.grad.flatten() for one in learnt])
    dist.all_reduce(whole)
    for one, gradient in zip(learnt, whole.split([one.numel() for one in learnt]), strict=True):
        one.grad = gradient.view_as(one)


def from_main(make: Callable[[], Any]) -> Any:
    """What a function returns in the main process; it is not called in the others, which wait for it."""
    found = [make() if rank() == 0 else None]
    if count() > 1:
        dist.broadcast_object_list(found)
    return found[0]


def gather(value: Any) -> list[Any]:
    """A value of each process, in their order."""
    found = [value] * count()
    if count() > 1:
        dist.all_gather_object(found, value)
    return found


def same_weights(model: nn.Module) -> None:
    """Give a model the main process's weights."""
    if count() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, 0)


def differ_in_dropout() -> None:
    """Seed the random generators of the other processes, each differently; the main process's stay."""
    if rank():
        torch.manual_seed(torch.initial_seed() + 1_000_003 * rank())
