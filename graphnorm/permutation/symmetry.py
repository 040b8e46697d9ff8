"""The permutations of hidden channels under which a network stays the same function.

Every axis of every tensor is a sum of products of factors (`axes`); operators tie them (`rules`).  Inputs,
outputs, constants that vary, axes of variable size and whatever an operator without a rule touches are
frozen.  Each factor that is left may be permuted, in all tensors at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm import ir
from graphnorm.ir import Node
from graphnorm.permutation.axes import Axes, Axis
from graphnorm.permutation.rules import RULES
from graphnorm.util.defects import DEFECTS, defect

Integers = npt.NDArray[np.int64]
Permutation = dict[int, Integers]
"""Factor -> which old index stands at each new one."""


@dataclass(frozen=True)
class Symmetry:
    """What may be permuted.

    Attributes:
        sizes: factor that may be permuted -> its size.
        axes: weight -> its axes in terms of factors.
        lengths: size of every factor that occurs.
        defects: a sentence about each operator that is frozen because something failed in its rule.
    """

    sizes: Mapping[int, int]
    axes: Mapping[str, tuple[Axis, ...]]
    lengths: Mapping[int, int]
    defects: tuple[str, ...] = ()

    def order(self, axis: Axis, permutation: Mapping[int, Integers]) -> Integers | None:
        """Old index at each new index of an axis; None if nothing moves."""
        if not any(factor in permutation for segment in axis for factor in segment):
            return None
        parts: list[Integers] = []
        start = 0
        for segment in axis:
            index = np.zeros(1, dtype=np.int64)
            for factor in segment:
                own = permutation.get(factor, np.arange(self.lengths[factor]))
                index = (index[:, None] * self.lengths[factor] + own[None]).ravel()
            parts.append(index + start)
            start += len(index)
        return np.concatenate(parts)

    def apply(
        self, permutation: Mapping[int, Integers], arrays: Mapping[str, ir.Array]
    ) -> dict[str, ir.Array]:
        """Permute arrays that have the shapes of the weights of these names (or sizes 1)."""
        found: dict[str, ir.Array] = {}
        for name, array in arrays.items():
            for position, axis in enumerate(self.axes.get(name, ())):
                order = self.order(axis, permutation)
                if order is not None and array.shape[position] > 1:
                    array = np.take(array, order, axis=position)
            found[name] = array
        return found


def inverse(permutation: Mapping[int, Integers]) -> Permutation:
    """The permutation that undoes one."""
    return {factor: np.argsort(order) for factor, order in permutation.items()}


def symmetry(network: ir.Graph) -> Symmetry:
    """Walk a network once."""
    walk = Walk(network)
    for node in network.nodes:
        walk.visit(node)
    walk.table.freeze([axis for name in network.outputs for axis in walk.found.get(name, ())])
    return walk.result()


class Walk:
    """The state of one walk, and the vocabulary of rules."""

    def __init__(self, network: ir.Graph) -> None:
        self.network = network
        self.table = Axes()
        self.found: dict[str, tuple[Axis, ...]] = {}
        self._asked: set[str] = set()
        self.defects: list[str] = []
        for name in network.inputs:
            self.found[name] = self.fixed(network.values[name].shape or ())
        for name, array in network.weights.items():
            self.found[name] = tuple(self.table.new(size) for size in array.shape)
        for name, array in network.constants.items():
            self.found[name] = tuple(
                self.table.new(size, frozen=_varies(array, axis)) for axis, size in enumerate(array.shape)
            )

    def visit(self, node: Node) -> None:
        """Give a node's results axes; freeze what no rule covers."""
        apply = RULES.get(node.op)
        names = [name for name in (*node.inputs, *node.outputs) if name]
        known = all(self.network.values[name].shape is not None for name in names)
        known = known and all(name in self.found for name in node.inputs if name)
        empty = known and any(0 in self.shape(name) for name in names)
        self._asked.clear()
        results = None
        if apply is not None and known and not empty:
            try:
                results = apply(self, node)
            except DEFECTS as error:
                self.defects.append(defect("rule for permutations", node.op, node.label, error))
        if results is not None:  # a rule that never looks at an operand has said nothing about it
            for name in {*node.inputs} - self._asked - {""}:
                self.table.freeze(self.found[name])
        if results is None or not all(map(self._fits, node.outputs, results)):
            for name in node.inputs:
                if name:
                    self.table.freeze(self.found.get(name, ()))
            results = [self.fixed(self.network.values[n].shape or ()) if n else () for n in node.outputs]
        for name, axes in zip(node.outputs, results, strict=False):
            if name:
                self.found[name] = axes
                dynamic = self.network.values[name].dynamic
                self.table.freeze([axes[axis] for axis in dynamic if axis < len(axes)])

    def result(self) -> Symmetry:
        """Factors that are left free, and the weights' axes in terms of them."""
        while True:  # resolving may freeze
            before = self.table.frozen_count
            for axes in self.found.values():
                for axis in axes:
                    self.table.resolve(axis)
            if self.table.frozen_count == before:
                break
        held = {
            name: tuple(self.table.resolve(axis) for axis in self.found[name])
            for name in self.network.weights
        }
        used = {factor for axes in held.values() for axis in axes for s in axis for factor in s}
        lengths = {factor: self.table.size(factor) for factor in used}
        free = {f: n for f, n in sorted(lengths.items()) if n > 1 and not self.table.is_frozen(f)}
        return Symmetry(free, held, lengths, tuple(self.defects))

    # What rules may ask and state.

    def axes(self, name: str) -> tuple[Axis, ...]:
        self._asked.add(name)
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
            full = [axis for axis in full if self._length(axis) == size]
            for other in full[1:]:
                self.unite(full[0], other)
            found.append(full[0] if full else self.table.new(size))
        return tuple(found)

    def _fits(self, name: str, axes: tuple[Axis, ...]) -> bool:
        return not name or tuple(map(self._length, axes)) == self.shape(name)

    def _length(self, axis: Axis) -> int:
        return sum(self.table.length(segment) for segment in axis)

    def cut(self, axis: Axis, low: int, high: int) -> Axis:
        """The part of an axis from `low` to `high`; what lies outside goes its own way."""
        size = self._length(axis)
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
