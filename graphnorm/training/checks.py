"""Everything that a step multiplies is checked before the first multiplication: a step is all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graphnorm.errors import InputError
from graphnorm.frontends.torch.tensors import has_own_entries
from graphnorm.training.compiled import Moving

Mark = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]
_PLAIN = (Tensor, nn.Parameter)  # a failing getattr on these dominates the cost


def mark_of(tensor: Tensor) -> Mark:
    """A tensor's address and layout: while these stay the same, a compiled step is valid."""
    local = _local(tensor)
    if local.layout != torch.strided:
        return 0, (), (), local.dtype
    return local.data_ptr(), local.shape, local.stride(), local.dtype


def check_moving(moving: Sequence[Moving], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check weights, gradients, optimizer state, buffers and copies.

    Args:
        moving: what a step multiplies.
        shapes: those that the weights had when the network was traced.

    Raises:
        InputError: one has another shape, lies on another device, is a constant of autograd, holds one entry
            at several places or shares its memory with another.
    """
    device = next((tensor.device for _, tensor, _ in moving), None)
    seen: dict[int, str] = {}
    for name, tensor, _ in moving:
        what = f"{name!r}, its gradient or its state"
        if tuple(tensor.shape) != tuple(shapes[name]):
            raise InputError(
                f"{what} has shape {tuple(tensor.shape)}, the weight had {tuple(shapes[name])} when the "
                "network was traced; make a new ENorm"
            )
        if tensor.device != device:
            raise InputError(f"{what} is on {tensor.device}, others on {device}: ENorm works on one device")
        local = _local(tensor)
        if local.is_inference():
            raise InputError(f"{what} was made in torch.inference_mode(): it cannot be changed in place")
        if local.layout == torch.strided and not has_own_entries(local):
            raise InputError(f"{what} is an expanded tensor: its entries share memory; use x.contiguous()")
        if (address := mark_of(tensor)[0]) and seen.setdefault(address, name) != name:
            raise InputError(
                f"{name!r} and {seen[address]!r} share memory, which they did not when the network was "
                "traced; make a new ENorm"
            )


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a distributed tensor."""
    found: Tensor = tensor if type(tensor) in _PLAIN else getattr(tensor, "_local_tensor", tensor)
    return found
