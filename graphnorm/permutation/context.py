"""What rules for permutations may ask and state; `symmetry` walks a network with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm import ir
from graphnorm.ir import Node
from graphnorm.permutation.axes import Axes, Axis


class Context:
    """The axes of every value so far, and the vocabulary of rules."""

    def __init__(self, network: ir.Graph) -> None:
        self.network = network
        self.table = Axes()
        self.found: dict[str, tuple[Axis, ...]] = {}
        self.touched: set[str] = set()  # operands that the current rule has read
        self.defects: list[str] = []
        for name in network.inputs:
            self.found[name] = self.fixed(network.values[name].shape or ())
        for name, array in network.weights.items():
            self.found[name] = tuple(self.table.new(size) for size in array.shape)
        for name, array in network.constants.items():
            self.found[name] = tuple(
                self.table.new(size, frozen=_varies(array, axis)) for axis, size in enumerate(array.shape)
            )

    def axes(self, name: str) -> tuple[Axis, ...]:
        self.touched.add(name)
        return self.found[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.network.values[name].shape or ()

    def rank(self, name: str) -> int:
        return len(self.shape(name))

    def static(self, node: Node, attribute: str, index: int) -> ir.Array | None:
        """An argument that is an attribute or a constant operand."""
        if attribute in node.attributes:
            return np.asarray(node.attributes[attribute])
        name = node.inputs[index] if index < len(node.inputs) else ""
        held = self.network.constants.get(name)
        return held if held is not None and not self.network.values[name].dynamic else None

    def is_unknown(self, node: Node, index: int) -> bool:
        """Whether operand `index` is there and its value is not known."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return bool(name) and self.static(node, "", index) is None

    def unite(self, first: Axis, second: Axis) -> None:
        self.table.unite(first, second)

    def fixed(self, shape: Sequence[int]) -> tuple[Axis, ...]:
        """Axes that keep their order."""
        return tuple(self.table.new(size, frozen=True) for size in shape)

    def frozen(self, axis: Axis, size: int) -> Axis:
        """An axis that is mixed: fixed from here on."""
        self.table.freeze([axis])
        return self.table.new(size, frozen=True)

    def broadcast(self, operands: Sequence[tuple[Axis, ...]], shape: Sequence[int]) -> tuple[Axis, ...]:
        """Axes of a result over operands that are aligned at the last axis."""
        found: list[Axis] = []
        for position, size in enumerate(shape):
            back = len(shape) - position
            full = [axes[-back] for axes in operands if back <= len(axes)]
            full = [axis for axis in full if self.length(axis) == size]
            for other in full[1:]:
                self.unite(full[0], other)
            found.append(full[0] if full else self.table.new(size))
        return tuple(found)

    def fits(self, name: str, axes: tuple[Axis, ...]) -> bool:
        """Whether axes have the lengths of a value's shape."""
        return not name or tuple(map(self.length, axes)) == self.shape(name)

    def length(self, axis: Axis) -> int:
        """Number of entries along an axis."""
        return sum(self.table.length(segment) for segment in axis)

    def cut(self, axis: Axis, low: int, high: int) -> Axis:
        """The part of an axis from `low` to `high`; entries outside are independent."""
        size = self.length(axis)
        if (low, high) == (0, size):
            return axis
        sizes = [n for n in (low, high - low, size - high) if n > 0]
        parts: Axis = tuple(self.table.new(n)[0] for n in sizes)
        self.unite(axis, parts)
        first = 1 if low > 0 else 0
        return (parts[first],)

    def padded(self, axis: Axis, before: int, after: int) -> Axis:
        front = self.table.new(before) if before > 0 else ()
        back = self.table.new(after) if after > 0 else ()
        return (*front, *axis, *back)


def _varies(array: ir.Array, axis: int) -> bool:
    if array.shape[axis] == 1 or array.strides[axis] == 0:
        return False
    first = array.take([0], axis=axis)
    return not bool((array == first).all() if array.dtype.kind != "f" else np.array_equal(
        np.broadcast_to(first, array.shape), array, equal_nan=True))  # fmt: skip
