"""Weights and constants of an ONNX graph or body: its initializers and `Constant` nodes."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir
from onnx import helper

from graphnorm.errors import InputError, ModelFileError
from graphnorm.frontends.onnx.names import Names, is_constant
from graphnorm.frontends.onnx.steps import READ_ERRORS, constant_array
from graphnorm.ir import FLOAT_TYPES, Array


@dataclass(slots=True)
class Tensors:
    """The arrays that a graph starts with."""

    weights: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    overridable: set[str] = field(default_factory=set)
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Array]:
        return self.weights | self.constants

    def add(self, name: str, array: Array, *, is_weight: bool) -> None:
        (self.weights if is_weight else self.constants)[name] = array
        self.types[name] = tensor_type(array)

    def include(self, other: Tensors) -> None:
        """Take over the arrays of a body."""
        self.weights |= other.weights
        self.constants |= other.constants
        self.overridable |= other.overridable
        self.types |= other.types


def tensor_type(array: Array) -> onnx.TypeProto:
    """The ONNX type of an array."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


# Names that exporters give to numbers of the program; a learned scalar keeps its own.
_EXPORTER_NAME = re.compile(r"val_\d+\w*|onnx::\w+|/?.*[Cc]onst.*|scalar_tensor.*|_to_copy.*|lifted_.*")


def collect_tensors(
    graph: onnx_ir.Graph, names: Names, own_names: Set[str], source: str, overridable: Set[str] = frozenset()
) -> Tensors:
    """Sort a graph's tensors into weights (float tensors) and constants.

    Constants are: integers, literals (rank 0, or a single entry in a `Constant` node or in an initializer
    that the exporter named: ONNX doesn't tell a learned scalar from a literal), masks (weights
    with infinite entries), and results of an inlined function (not in `own_names`), which one change would
    alter at every call.  `overridable` initializers are inputs too: callers may replace their values, which
    then must mean what they mean in the original.

    Raises:
        InputError: a weight has NaN entries.
        ModelFileError: a tensor cannot be read.
    """
    found = Tensors()
    for value in graph.initializers.values():
        name, raw = names(value), value.name or ""
        if value.const_value is None:
            raise ModelFileError(f"{source}: initializer {name!r} has no data")
        array = _array(value.const_value, name, source)
        is_literal = array.ndim == 0 or (array.size == 1 and _EXPORTER_NAME.fullmatch(raw) is not None)
        is_own = name in own_names and not is_literal
        if is_own and raw in overridable and array.dtype.name in FLOAT_TYPES:
            found.overridable.add(name)
            is_own = False
        found.add(name, array, is_weight=is_own and _is_weight(name, array, source))
    for node in graph:
        if not is_constant(node):
            continue
        name = names(node.outputs[0])
        try:
            constant = constant_array(node)
        except READ_ERRORS as error:
            raise ModelFileError(f"{source}: tensor {name!r} cannot be read: {error}") from error
        if constant is None:
            raise ModelFileError(f"{source}: Constant node {node.name or name!r} holds no dense value")
        is_own = name in own_names and constant.ndim > 0 and constant.size > 1
        found.add(name, constant, is_weight=is_own and _is_weight(name, constant, source))
    return found


def _array(tensor: onnx_ir.TensorProtocol, name: str, source: str) -> Array:
    try:
        array: Array = tensor.numpy()
    except READ_ERRORS as error:
        raise ModelFileError(f"{source}: tensor {name!r} cannot be read: {error}") from error
    return array.astype(object) if array.dtype.kind == "S" else array  # ONNX's type of strings


def _is_weight(name: str, array: Array, source: str) -> bool:
    if array.dtype.name not in FLOAT_TYPES:
        return False
    if np.isfinite(array).all():
        return True
    bad = int(np.isnan(array).sum())
    if bad:
        raise InputError(f"{source}: weight {name!r} has {bad} NaN of {array.size} entries; repair the model")
    return False
