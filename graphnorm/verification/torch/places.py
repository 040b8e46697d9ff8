"""Where a torch model is measured: copies of it on a device; the caller's model is not touched."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from graphnorm.errors import InputError
from graphnorm.frontends.torch.caches import caching_configs
from graphnorm.frontends.torch.state import LOCK
from graphnorm.verification.torch.sharing import shared, widen_while_read

# What moving or widening a model raises: no memory, no such type or data there, or nothing to move.
PLACEMENT_ERRORS = (RuntimeError, TypeError, AssertionError, ValueError)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to measure.

    Attributes:
        device: where inputs go.
        moves: whether the model's tensors go there, too; they stay where they are otherwise.
        remark: why it is not the requested device; empty if it is.
    """

    device: str
    moves: bool
    remark: str = ""


def pick_device(device: str) -> str:
    """A device as torch knows it; ``auto`` stays.

    Raises:
        InputError: the device doesn't exist.
    """
    if device == "auto":
        return device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: this torch has no CUDA device; use --device cpu or auto")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"device {device!r}: torch cannot use it ({first}); use --device auto") from error
    return device


def places(model: Any, device: str) -> list[Place]:
    """Devices to try, in order.  A model that lies on several devices is never moved."""
    homes = _devices(model)
    home = next((name for name in homes if name != "meta"), "cpu")
    asked = pick_device(device)
    if len(homes) > 1 or getattr(model, "hf_device_map", None):
        told = asked not in ("auto", *homes)
        lies = f"the model lies on {', '.join(homes) or home}: measured there"
        return [Place(home, False, lies if len(homes) > 1 or told else "")]
    if asked in ("auto", home):
        return [Place(home, False)]
    return [Place(asked, True), Place(home, False, f"the model cannot be run on {asked}: measured on {home}")]


def _devices(model: Any) -> list[str]:
    if isinstance(model, ExportedProgram):
        tensors = [
            t for t in (*model.state_dict.values(), *model.constants.values()) if isinstance(t, Tensor)
        ]
    else:
        tensors = [*model.parameters(), *model.buffers()]
    return list(dict.fromkeys(str(tensor.device) for tensor in tensors))


def placed(model: Any, place: Place, double: bool, share: bool = False) -> nn.Module:
    """A copy of a model at a place, its float tensors in float64 if `double`.

    Args:
        model: left as it is.
        place: where.
        double: in float64.
        share: parameters stay the caller's own, in float64 only while they are read.
    """
    with LOCK:  # no other thread is exporting the same module
        if isinstance(model, ExportedProgram):
            if place.moves:  # its graph holds devices as literals
                model = move_to_device_pass(copy.deepcopy(model), place.device)
            module = model.module()
        else:
            module = model
        if share:
            return _sharing(module, double)
        copied: nn.Module = copy.deepcopy(module, _converted(module, place, double))
    for config in caching_configs(copied):
        config.use_cache = False
    if place.moves:
        copied = copied.to(place.device)
    return copied.double() if double else copied


def _sharing(module: nn.Module, double: bool) -> nn.Module:
    copied: nn.Module = copy.deepcopy(module, shared(module))
    for config in caching_configs(copied):
        config.use_cache = False
    if double:
        widen_while_read(copied)
    return copied


def _converted(module: nn.Module, place: Place, double: bool) -> dict[int, Any]:
    """For `deepcopy`: parameters that change device or type are made once, not copied before."""
    if not (place.moves or double):
        return {}
    found: dict[int, Any] = {}
    for parameter in module.parameters():
        if type(parameter) is not nn.Parameter or parameter.is_meta:
            continue
        tensor = parameter.detach()
        if place.moves:
            tensor = tensor.to(place.device)
        if double and tensor.is_floating_point():
            tensor = tensor.double()
        if tensor.data_ptr() != parameter.data_ptr():
            found[id(parameter)] = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
    return found
