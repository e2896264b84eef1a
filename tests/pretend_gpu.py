"""A GPU for machines without one: tensors that are not on the CPU, and meet none that is.

Their numbers are computed on the CPU. What it shows is where code would mix devices, or take a tensor of a GPU for an
array; not what a GPU computes, nor how fast. Where there is a GPU, that one is used.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# `meta` is the one device besides the CPU that PyTorch needs no driver for.
GPU = torch.device("cuda:0" if torch.cuda.is_available() else "meta")
_MOVES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
_STACKING = (torch.ops.aten.cat, torch.ops.aten.stack)
_INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)


class _There(torch.Tensor):
    """A tensor on the pretended device; `here` has its numbers."""

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "_There":
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=GPU,
        )
        self.here = here
        return self

    def tolist(self):  # refused to subclasses
        return self.cpu().tolist()

    def __getitem__(self, key):
        return super().__getitem__(_listed(key))

    def __setitem__(self, key, value):
        super().__setitem__(_listed(key), value)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on the pretended device outside of `pretended_gpu`")


class _Pretended(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._fused_sdp_choice.default:
            return SDPBackend.MATH.value  # what the CPU would take instead, no GPU has
        if func is torch.ops.aten.lift_fresh.default:
            return args[0]  # just made, as by code that asks for the default device
        _check(func, args, kwargs)
        found = func(*tree_map(_here, args), **tree_map(_here, _on_cpu(kwargs)))
        if func._schema.is_mutable:
            return kwargs["out"] if "out" in kwargs else args[0]
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == GPU.type
        else:
            there = any(isinstance(one, _There) for one in tree_leaves((args, kwargs)))
        return tree_map(_wrapped, found) if there else found


def _check(func, args, kwargs) -> None:
    """Raise where a GPU would, or where it would quietly be otherwise than meant."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    if any(one.device == GPU and not isinstance(one, _There) for one in tensors):
        raise AssertionError(
            f"{func} got a tensor that was made on the pretended device unseen, without numbers."
        )
    if not any(isinstance(one, _There) for one in tensors) or func in _MOVES:
        return
    if func.overloadpacket in _INDEXING and isinstance(args[0], _There):
        tensors = [args[0], *args[2:3]]  # places may be on the CPU
    scalars = func.overloadpacket not in _STACKING  # of the CPU, which a GPU takes among its own but there
    if any(not isinstance(one, _There) and (one.dim() or not scalars) for one in tensors) or (
        func._schema.is_mutable and isinstance(args[0], torch.Tensor) and not isinstance(args[0], _There)
    ):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some on the CPU.")


def _listed(key):
    """A key with lists of places as tensors: PyTorch would make them on the device, out of sight of the mode."""
    if isinstance(key, tuple):
        return tuple(_listed(part) for part in key)
    return torch.tensor(key, dtype=None if key else torch.long) if isinstance(key, list) else key


def _made_here(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(data, *, device=None, **options):
        return make(data, **options) if device is None else make(data, **options).to(device)

    return made


def _here(value):
    return value.here if isinstance(value, _There) else value


def _wrapped(value):
    return _There(value) if isinstance(value, torch.Tensor) else value


def _on_cpu(kwargs):
    return kwargs if kwargs.get("device") is None else kwargs | {"device": torch.device("cpu")}


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within it tensors and models can be moved to `GPU`."""
    if torch.cuda.is_available():
        yield
        return
    with ExitStack() as stack:
        # In inference mode PyTorch wants to set what tensors of a Python class lack.
        stack.enter_context(mock.patch("torch.inference_mode", torch.no_grad))
        for make in (torch.tensor, torch.as_tensor):  # which the mode does not see
            stack.enter_context(mock.patch(f"torch.{make.__name__}", _made_here(make)))
        stack.enter_context(_Pretended())
        yield
