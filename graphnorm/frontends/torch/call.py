"""What a lowering sees of one ATen call.

A lowering is a function ``(call, *arguments)``.  The arguments come in the order of the operator's
schema, defaults filled in; tensors come as `Value`, sizes as integers.  It emits ONNX nodes with
`Call.step` (intermediate results) and `Call.out` (the result), or declares with `Call.yields` that an
intermediate result is the result; it raises `Unlowerable` for what ONNX cannot say, and the call then
becomes an ``aten::`` node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from graphnorm.frontends.torch.tensors import ONNX_TYPES, dtype_name, numpy_dtype, to_numpy
from graphnorm.ir import Array, Node, Value, shape_of

Number = int | float | bool
Operand = Value | Array | Sequence[int] | None


class Unlowerable(Exception):  # noqa: N818 - a signal, not an error
    """This call has no equivalent in the ONNX vocabulary."""


@dataclass
class Call:
    """One ATen call being lowered; nothing reaches the graph before the lowering has returned."""

    node: fx.Node
    name: str
    outputs: list[Value | None]  # None: not a tensor
    used: list[bool]  # per output
    unique: Callable[[str], str]
    scope: str = ""
    source: str = ""
    known: Mapping[str, Tensor] = field(default_factory=dict)  # operands whose data is known
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)

    @property
    def result(self) -> Value:
        """The first output, whose shape may be unknown."""
        first = self.outputs[0]
        if first is None:
            raise Unlowerable
        return first

    @property
    def shape(self) -> tuple[int, ...]:
        """The first output's shape."""
        return known_shape(self.result)

    def promotion(self) -> str:
        """The type in which torch computes on the first two arguments."""
        arguments: list[Any] = [
            arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in self.node.args[:2]
        ]
        return dtype_name(torch.result_type(*arguments))

    def constant(self, array: Array, dynamic: frozenset[int] = frozenset()) -> Value:
        """A new constant."""
        array = np.asarray(array)
        value = Value(self.unique(f"{self.name}.const"), shape_of(array), array.dtype.name, dynamic)
        self.values[value.name] = value
        self.constants[value.name] = array
        return value

    def number(self, number: Number, dtype: str) -> Value:
        """A rank-0 constant."""
        return self.constant(np.array(number, dtype=numpy_dtype(dtype)))

    def data(self, value: Value) -> Array | None:
        """What a value holds, if that is known and depends on no size that may change."""
        if value.dynamic:
            return None
        tensor = self.known.get(value.name)
        found = self.constants.get(value.name) if tensor is None else to_numpy(tensor)
        if found is not None:
            self.read.add(value.name)
        return found

    def typed(self, operand: Value | Number, dtype: str) -> Value:
        """The operand in that type: a number becomes a constant, another type is cast."""
        if not isinstance(operand, Value):
            return self.number(operand, dtype)
        if operand.dtype == dtype:
            return operand
        if operand.dtype.startswith("complex"):
            raise Unlowerable
        return self.step("Cast", operand, like=operand, dtype=dtype, to=ONNX_TYPES[dtype])

    def step(
        self,
        op: str,
        *operands: Operand,
        shape: Sequence[int] | None = None,
        like: Value | None = None,
        dtype: str | None = None,
        dynamic: frozenset[int] = frozenset(),
        **attributes: Any,
    ) -> Value:
        """Emit a node for an intermediate value of that shape, or of the type of ``like``."""
        name = self.unique(f"{self.name}.{op.rpartition(':')[2].lower()}")
        if like is not None:
            value = Value(name, like.shape, dtype or like.dtype, like.dynamic)
        else:
            if shape is None:
                raise Unlowerable
            value = Value(name, tuple(shape), dtype or self._dtype_of(operands), dynamic)
        self.values[name] = value
        self._emit(name, op, operands, (name,), attributes)
        return value

    def split(self, x: Value, sizes: Sequence[int], axis: int, dynamic: frozenset[int]) -> list[Value]:
        """Cut an intermediate value into pieces of these sizes along an axis."""
        shapes = [
            [size if i == axis else length for i, length in enumerate(known_shape(x))] for size in sizes
        ]
        return self.steps("Split", x, list(sizes), shapes=shapes, dynamic=dynamic, axis=axis)

    def steps(
        self,
        op: str,
        *operands: Operand,
        shapes: Sequence[Sequence[int] | None],
        dynamic: frozenset[int] = frozenset(),
        dtypes: Sequence[str] = (),
        **attributes: Any,
    ) -> list[Value]:
        """Emit a node with several intermediate results, of the first operand's type if none is given.

        A shape of None is known only at run time.
        """
        types = dtypes or [self._dtype_of(operands)] * len(shapes)
        prefix = f"{self.name}.{op.rpartition(':')[2].lower()}"
        results = [
            Value(self.unique(prefix), None if shape is None else tuple(shape), dtype, dynamic)
            for shape, dtype in zip(shapes, types, strict=True)
        ]
        self.values.update((value.name, value) for value in results)
        names = tuple(value.name for value in results)
        self._emit(names[0], op, operands, names, attributes)
        return results

    def out(self, op: str, *operands: Operand, count: int = 1, **attributes: Any) -> None:
        """Emit the node that yields the call's first ``count`` outputs; no other may be used."""
        if any(self.used[count:]):
            raise Unlowerable
        outputs = []
        for value in self.outputs[:count]:
            if value is None:
                raise Unlowerable
            self.values[value.name] = value
            outputs.append(value.name)
        self._emit(self.name, op, operands, tuple(outputs), attributes)

    def out_at(self, index: int, op: str, *operands: Operand, **attributes: Any) -> None:
        """Emit the node that yields output ``index`` alone, if it is used."""
        value = self.outputs[index]
        if value is None:
            raise Unlowerable
        if self.used[index]:
            self.values[value.name] = value
            self._emit(value.name, op, operands, (value.name,), attributes)

    def out_all(self, op: str, operands: Sequence[Value], attributes: dict[str, Any]) -> None:
        """Emit one node that yields every output of the call."""
        self.values.update((value.name, value) for value in self.outputs if value is not None)
        names = tuple("" if value is None else value.name for value in self.outputs)
        self._emit(self.name, op, operands, names, attributes)

    def wants(self, index: int) -> bool:
        """Whether there is such an output, and somebody reads it."""
        return index < len(self.used) and self.used[index]

    def yields(self, value: Value, index: int = 0) -> None:
        """Declare that an intermediate value is output ``index``, if that is used."""
        if not self.wants(index):
            return
        result = self.outputs[index]
        if result is None or result.dtype != value.dtype:
            raise Unlowerable
        if None not in (result.shape, value.shape) and result.shape != value.shape:
            raise Unlowerable  # torch computes something else
        self.values[result.name] = result
        for place, node in enumerate(self.nodes):
            if value.name in node.outputs and value.name in self.values:
                self._rename(place, value.name, result.name)
                return
        self._emit(result.name, "Identity", (value,), (result.name,), {})

    def _rename(self, place: int, old: str, new: str) -> None:
        del self.values[old]
        self.read.discard(old)
        node = self.nodes[place]
        name = new if node.name == old else node.name
        outputs = tuple(new if output == old else output for output in node.outputs)
        self.nodes[place] = replace(node, name=name, outputs=outputs)
        for later in range(place + 1, len(self.nodes)):
            node = self.nodes[later]
            inputs = tuple(new if operand == old else operand for operand in node.inputs)
            self.nodes[later] = replace(node, inputs=inputs)

    def out_constant(self, array: Array) -> None:
        """The call's result is a known constant: no node is needed."""
        self.values[self.result.name] = self.result
        self.constants[self.result.name] = array

    def overwrites(self, x: Value) -> None:
        """Declare that no entry of this operand reaches the result."""
        self.read.add(x.name)

    def clear(self) -> None:
        """Forget what was emitted; remarks stay."""
        for emitted in (self.nodes, self.values, self.constants, self.read):
            emitted.clear()

    def _dtype_of(self, operands: Sequence[Operand]) -> str:
        for operand in operands:
            if isinstance(operand, Value):
                return operand.dtype
        raise Unlowerable

    def _emit(
        self,
        name: str,
        op: str,
        operands: Sequence[Operand],
        outputs: tuple[str, ...],
        attributes: dict[str, Any],
    ) -> None:
        inputs = [self._name_of(operand) for operand in operands]
        while inputs and not inputs[-1]:
            inputs.pop()
        self.read.update(inputs)
        self.nodes.append(Node(name, op, tuple(inputs), outputs, attributes, self.scope, self.source))

    def _name_of(self, operand: Operand) -> str:
        if operand is None:
            return ""
        if isinstance(operand, Value):
            return operand.name
        if isinstance(operand, np.ndarray):
            return self.constant(operand).name
        return self.constant(np.array(operand, dtype=np.int64)).name


def known_shape(value: Value) -> tuple[int, ...]:
    """The value's shape; a call on data-dependent shapes is not lowered."""
    if value.shape is None:
        raise Unlowerable
    return value.shape


def rank(value: Value) -> int:
    """The number of axes."""
    return len(known_shape(value))


def axis_of(axis: int, of: Value | int) -> int:
    """The non-negative axis of a tensor (whose shape may be unknown), or among so many axes."""
    if axis >= 0:
        return axis
    ndim = rank(of) if isinstance(of, Value) else of
    return axis % max(ndim, 1)


def axes_of(axes: int | Sequence[int] | None, ndim: int) -> list[int]:
    """The non-negative axes; None and the empty list mean all."""
    if isinstance(axes, int):
        axes = [axes]
    return sorted(axis % max(ndim, 1) for axis in axes) if axes else list(range(ndim))


def spread(sizes: int | Sequence[int], ndim: int) -> list[int]:
    """One size per axis: torch accepts one for all."""
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return sizes * ndim if len(sizes) == 1 else sizes


def moved(dynamic: frozenset[int], axes: Sequence[int]) -> frozenset[int]:
    """The axes that vary after ``out[i] = in[axes[i]]``."""
    return frozenset(new for new, old in enumerate(axes) if old in dynamic)
