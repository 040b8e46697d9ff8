"""Torch tensors as the arrays and types of the intermediate representation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from graphnorm.errors import InputError
from graphnorm.ir import FLOAT_TYPES, Array, Value

# NumPy has no such types: they travel as integers of the same width and are viewed back.
EXTENSION_TYPES: dict[torch.dtype, tuple[torch.dtype, Any]] = {
    torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
}

# onnx.TensorProto.DataType, by NumPy name (this front end does not import onnx).
ONNX_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9,
    "float16": 10, "float64": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15,
    "bfloat16": 16, "float8_e4m3fn": 17, "float8_e5m2": 19,
}  # fmt: skip


def dtype_name(dtype: torch.dtype) -> str:
    """The NumPy (or ml_dtypes) name of a torch type: ``torch.float32`` -> ``float32``."""
    return str(dtype).removeprefix("torch.")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of that name, ``bfloat16`` included."""
    return np.dtype(getattr(ml_dtypes, name, name))


def to_numpy(tensor: Tensor) -> Array:
    """The tensor's data; no copy is made where it lies in host memory."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype in EXTENSION_TYPES:
        carrier, dtype = EXTENSION_TYPES[tensor.dtype]
        return np.asarray(tensor.view(carrier).numpy()).view(dtype)
    return np.asarray(tensor.numpy())


def to_tensor(array: Array) -> Tensor:
    """The inverse of `to_numpy`; read-only arrays are copied."""
    array = np.asarray(array)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    for dtype, (carrier, extension) in EXTENSION_TYPES.items():
        if array.dtype == extension:
            return torch.from_numpy(array.view(dtype_name(carrier))).view(dtype)
    return torch.from_numpy(array)


def hint(size: Any) -> int | None:
    """The size that a (symbolic) number had for the example inputs, None if it is data-dependent."""
    if isinstance(size, torch.SymInt):
        found = size.node.hint
        return None if found is None else int(found)
    return int(size)


def value_of(name: str, tensor: Tensor) -> Value:
    """The type of a (fake) tensor."""
    sizes = [hint(size) for size in tensor.shape]
    known = [size for size in sizes if size is not None]
    dynamic = frozenset(axis for axis, size in enumerate(tensor.shape) if not isinstance(size, int))
    shape = tuple(known) if len(known) == len(sizes) else None
    return Value(name, shape, dtype_name(tensor.dtype), dynamic)


def check_readable(name: str, tensor: Tensor) -> None:
    """Refuse a tensor without data, or whose data is no plain array.

    Raises:
        InputError: the tensor is fake, on the meta device, sparse or quantized.
    """
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        raise InputError(
            f"weight {name!r} has no data (fake or meta tensor): load the weights before reading the model"
        )
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        raise InputError(
            f"weight {name!r} is not a dense array ({tensor.layout}, {tensor.dtype}): densify it first"
        )


def has_own_entries(tensor: Tensor) -> bool:
    """Whether no two entries share memory (an expanded tensor repeats its own)."""
    return all(stride or size <= 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _memory(tensor: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _identity(tensor: Tensor) -> object:
    if not tensor.numel():
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


_CHECKED_AT_ONCE = 1 << 14  # entries of a parameter


@dataclass(frozen=True, slots=True)
class StateTensors:
    """A model's tensors by name: those that may be rescaled, and those that may not."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    pinned: dict[str, Tensor] = field(default_factory=dict)  # float, but not free to change
    integers: dict[str, Tensor] = field(default_factory=dict)
    first_name: dict[str, str] = field(default_factory=dict)  # of the tensor registered under a name


def classify(
    state: Mapping[str, Tensor],
    immutable: Iterable[str] = (),
    others: Mapping[str, Tensor] | None = None,
    parameters: Iterable[str] = (),
) -> StateTensors:
    """Sort the tensors of a model; a tensor under two names is kept under the first.

    Float tensors are pinned where one weight cannot be changed alone: their memory overlaps that of
    another or of a tensor in ``others``, the program writes to them (``immutable``), or they hold
    infinities (masks).  Large ``parameters`` are not read here, which would cost as much as the export of
    a model: `Graph.check_finite` does, once their values are needed.

    Raises:
        InputError: a float tensor holds NaN or has no data.
    """
    found = StateTensors()
    owners: dict[object, str] = {}
    frozen = set(immutable)
    trusted = {name for name in parameters if state[name].numel() > _CHECKED_AT_ONCE}
    for name, tensor in state.items():
        check_readable(name, tensor)
        first = owners.setdefault(_identity(tensor), name)
        found.first_name[name] = first
        if first != name:
            if name in frozen and first in found.weights:
                found.pinned[first] = found.weights.pop(first)
        elif dtype_name(tensor.dtype) not in FLOAT_TYPES:
            found.integers[name] = tensor
        elif (
            name in frozen or not has_own_entries(tensor) or not (name in trusted or _is_finite(name, tensor))
        ):
            found.pinned[name] = tensor
        else:
            found.weights[name] = tensor
    for name in _overlapping({**(others or {}), **found.weights, **found.pinned, **found.integers}):
        if name in found.weights:
            found.pinned[name] = found.weights.pop(name)
    return found


def _is_finite(name: str, tensor: Tensor) -> bool:
    with torch.no_grad():
        wide = tensor.dtype if tensor.dtype.itemsize >= 4 else torch.float32
        if torch.isfinite(tensor.sum(dtype=wide)):
            return True  # one pass over the data in the usual case
        if torch.isnan(tensor).any():
            raise InputError(f"weight {name!r} holds NaN: no rescaling of it is the same function")
        return bool(torch.isfinite(tensor).all())


def _overlapping(tensors: Mapping[str, Tensor]) -> set[str]:
    spans = sorted(
        (str(tensor.device), *_memory(tensor), name) for name, tensor in tensors.items() if tensor.numel()
    )
    found: set[str] = set()
    if not spans:
        return found
    widest = spans[0]
    for span in spans[1:]:
        if span[0] == widest[0] and span[1] < widest[2]:
            found |= {span[3], widest[3]}
        if span[0] != widest[0] or span[2] > widest[2]:
            widest = span
    return found
