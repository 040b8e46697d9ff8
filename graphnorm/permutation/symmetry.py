"""The permutations of hidden channels under which a network stays the same function.

Every axis of every tensor is a sum of products of factors (`axes`); operators tie them (`rules`).  Inputs,
outputs, constants that vary, axes of variable size and whatever an operator without a rule touches are
frozen.  Each remaining factor may be permuted, in all tensors at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphnorm import ir
from graphnorm.ir import Node
from graphnorm.permutation.axes import Axis
from graphnorm.permutation.context import Context
from graphnorm.permutation.rules import RULES
from graphnorm.util.defects import DEFECTS, defect
from graphnorm.util.typing import Integers

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
    """The inverse permutation."""
    return {factor: np.argsort(order) for factor, order in permutation.items()}


def symmetry(network: ir.Graph) -> Symmetry:
    """Walk a network once."""
    walk = Walk(network)
    for node in network.nodes:
        walk.visit(node)
    walk.table.freeze([axis for name in network.outputs for axis in walk.found.get(name, ())])
    return walk.result()


class Walk(Context):
    """One walk over a network."""

    def visit(self, node: Node) -> None:
        """Give a node's results axes; freeze what no rule covers."""
        apply = RULES.get(node.op)
        names = [name for name in (*node.inputs, *node.outputs) if name]
        known = all(self.network.values[name].shape is not None for name in names)
        known = known and all(name in self.found for name in node.inputs if name)
        empty = known and any(0 in self.shape(name) for name in names)
        self.touched.clear()
        results = None
        if apply is not None and known and not empty:
            try:
                results = apply(self, node)
            except DEFECTS as error:
                self.defects.append(defect("rule for permutations", node.op, node.label, error))
        if results is not None:  # an operand that the rule never read is not covered by it
            for name in {*node.inputs} - self.touched - {""}:
                self.table.freeze(self.found[name])
        if results is None or not all(map(self.fits, node.outputs, results)):
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
        """Factors that remain free, and the weights' axes in terms of them."""
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
