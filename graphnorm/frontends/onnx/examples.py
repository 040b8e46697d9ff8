"""Example inputs of an ONNX model, in the types that it declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphnorm.errors import InputError
from graphnorm.ir import FLOAT_TYPES, Array, Graph

_ANY = ("unknown", "sequence", "map", "optional", "sparse_tensor", "object")  # object: strings


def typed(network: Graph, example: Sequence[Array]) -> tuple[Graph, list[Array]]:
    """The arrays in the types that the network declares, and the network with a remark on each conversion.

    A float type becomes another one, an integer type another one, where the values fit.

    Raises:
        InputError: a type that cannot be converted, or values that don't fit.
    """
    found: list[Array] = []
    remarks: list[str] = []
    for name, array in zip(network.inputs, example, strict=True):
        wanted = network.values[name].dtype
        if array.dtype.name == wanted or wanted in _ANY:
            found.append(array)
            continue
        found.append(_converted(name, array, wanted))
        remarks.append(f"example input {name!r} was {array.dtype.name} and is taken as {wanted}")
    return replace(network, remarks=(*network.remarks, *remarks)), found


def _converted(name: str, array: Array, wanted: str) -> Array:
    told = f"example input {name!r} is {array.dtype.name}, the model takes {wanted}"
    if array.dtype.name in FLOAT_TYPES and wanted in FLOAT_TYPES:
        with np.errstate(over="ignore"):
            new: Array = array.astype(np.dtype(wanted))
        if (np.isfinite(array) != np.isfinite(new)).any():
            raise InputError(f"{told}, which cannot hold its values")
        return new
    if array.dtype.kind in "iu" and np.dtype(wanted).kind in "iu":
        limits = np.iinfo(wanted)
        if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise InputError(f"{told}, which cannot hold its values")
        return array.astype(wanted)
    raise InputError(f"{told}; convert it, for instance with array.astype({wanted!r})")
