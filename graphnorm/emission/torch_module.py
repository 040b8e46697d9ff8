"""Write new weights into a torch model, and models into files.

Only values change: class, state_dict keys, types, devices, strides, aliasing and requires_grad stay.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from graphnorm.errors import InputError
from graphnorm.frontends.torch.inplace import restore_names
from graphnorm.frontends.torch.state import LOCK
from graphnorm.frontends.torch.tensors import dtype_name, has_own_entries, to_tensor
from graphnorm.ir import Array
from graphnorm.util.atomic import replacing

Model = TypeVar("Model", nn.Module, ExportedProgram)


def rescale_torch(model: Model, new_weights: Mapping[str, Array], inplace: bool = False) -> Model:
    """A model with these weights; everything else is that of ``model``.

    Args:
        model: a module, an ``fx.GraphModule`` or an exported program.
        new_weights: arrays by the name of the parameter or buffer, of its shape and type.  A tensor that
            has several names changes under all of them.
        inplace: change ``model`` itself (all of it, or nothing if an array does not fit).

    Raises:
        InputError: a name, shape or type that the model does not have, or a value that is not finite.
    """
    with LOCK:  # no other thread is exporting the same module
        _check(model, new_weights)
        if not inplace:
            model = _copy(model)
        tensors = named_tensors(model)
        with torch.no_grad():
            for name, array in new_weights.items():
                tensors[name].copy_(to_tensor(array))
    return model


def named_tensors(model: nn.Module | ExportedProgram) -> dict[str, Tensor]:
    """Parameters and buffers (persistent or not) by every name they have."""
    if isinstance(model, ExportedProgram):
        found = {name: model.constants[name] for name in model.graph_signature.non_persistent_buffers}
        found.update(
            (name, tensor) for name, tensor in model.state_dict.items() if isinstance(tensor, Tensor)
        )
        return found
    return {
        **dict(model.named_buffers(remove_duplicate=False)),
        **dict(model.named_parameters(remove_duplicate=False)),
    }


def _check(model: nn.Module | ExportedProgram, new_weights: Mapping[str, Array]) -> None:
    tensors = named_tensors(model)
    for name, array in new_weights.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise InputError(f"{type(model).__name__} has no parameter or buffer named {name!r}")
        if tuple(tensor.shape) != array.shape:
            raise InputError(f"weight {name!r} has shape {tuple(tensor.shape)}, its new value {array.shape}")
        if dtype_name(tensor.dtype) != array.dtype.name:
            raise InputError(
                f"weight {name!r} is {dtype_name(tensor.dtype)}, its new value {array.dtype.name}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"the new value of weight {name!r} is not finite")
        if tensor.is_meta or not has_own_entries(tensor):
            raise InputError(f"weight {name!r} cannot be written to: it is a meta or expanded tensor")


def _copy(model: Model) -> Model:
    try:
        copied = copy.deepcopy(model)
    except RuntimeError as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied ({str(error).splitlines()[0]}): use inplace=True"
        ) from error
    if isinstance(model, ExportedProgram) and isinstance(copied, ExportedProgram):
        restore_names(model.graph, copied.graph)
        copied.graph_module.recompile()
    return copied


def save_torch(model: nn.Module | ExportedProgram, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write an exported program to ``.pt2``, or a model's tensors to ``.safetensors``, atomically.

    Raises:
        InputError: the suffix does not fit the model, or the file exists and ``force`` is not given.
    """
    path = Path(path)
    if path.suffix == ".pt2" and not isinstance(model, ExportedProgram):
        raise InputError(f"{path}: a module has no graph to write; export it, or write a .safetensors file")
    if path.suffix not in (".pt2", ".safetensors"):
        raise InputError(f"{path}: unknown suffix {path.suffix!r}, expected .pt2 or .safetensors")
    if path.exists() and not force:
        raise InputError(f"{path} exists already; pass --force (force=True) to replace it")
    with replacing(path) as temporary:
        _write(model, temporary)


def _write(model: nn.Module | ExportedProgram, path: Path) -> None:
    if not isinstance(model, ExportedProgram):
        safetensors.torch.save_model(model, str(path))
    elif path.suffix == ".pt2":
        with open(path, "wb") as file:
            torch.export.save(model, file)
    else:  # tied tensors are written under each name: no module is there to tie them again
        tensors = {name: t.detach().clone().contiguous() for name, t in model.state_dict.items()}
        safetensors.torch.save_file(tensors, path)
