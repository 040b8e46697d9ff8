"""Weight expressions walked forwards: where a demand cannot be carried back, entry by entry.

Each entry of the weights below gets a label, and the operators' own rules say what becomes of them, as
if the weights were activations.  Complete for every operator that has a rule, at one label per entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphnorm.ir import Node
from graphnorm.scales.labels import ENTRY_LIMIT, Labels, size
from graphnorm.scales.rules.movement import MOVES

if TYPE_CHECKING:
    from graphnorm.scales.propagate import Propagation

# Their parameters keep the form of a demand when operand 0 is a weight expression.
_TAKES_WEIGHTS = frozenset({
    "Conv", "ConvTranspose", "BatchNormalization", "LayerNormalization", "RMSNormalization",
    "GroupNormalization", "InstanceNormalization", "RNN", "LSTM", "GRU", "PRelu",
})  # fmt: skip
# One operand may stay a weight: the rule then demands a scale of it as a whole.
_KEEPS_WEIGHTS = frozenset({"MatMul", "Gemm", "Einsum", "Mul", "Div", "Add", "Sub", "Sum", "Max", "Min"})
_PLAIN = frozenset({
    "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity", "Neg", "Slice", "Split",
    "Gather",
})  # fmt: skip
_CUTS = ("Slice", "Split", "Gather")


class Expressions:
    """The weights and weight expressions of one walk that were opened."""

    def __init__(self, ctx: Propagation) -> None:
        self._ctx = ctx
        self._labels: dict[str, Labels] = {}
        self._position = {node.name: index for index, node in enumerate(ctx.graph.nodes)}
        self._consumers = ctx.graph.consumers()

    def leaves(self, name: str) -> list[str]:
        """The weights that a weight expression is made of."""
        below = self._closure(name, lambda node: node.inputs)
        return [found for found in below if found in self._ctx.graph.weights]

    def labels(self, name: str, role: str) -> Labels | None:
        """Labels of a weight expression; None if that would take too many of them."""
        ctx = self._ctx
        if name in self._labels:
            return self._labels[name]
        needed = self._closure(name, self._to_open)
        leaves = [x for x in needed if x in ctx.graph.weights]
        if any(size(ctx.shape(x)) > ENTRY_LIMIT or not ctx.value(x).is_float for x in leaves):
            return None
        for leaf in leaves:
            if leaf not in self._labels:
                self._labels[leaf] = ctx.entries(leaf, role)
        nodes = {self._position[ctx.producers[x].name] for x in needed if x not in ctx.graph.weights}
        for index in sorted(nodes):
            node = ctx.graph.nodes[index]
            if any(out not in self._labels for out in node.outputs if out):
                self._open(index, node)
        return self._labels[name]

    def is_read_in_part(self, name: str) -> bool:
        """Whether some entries of a value are read by nobody at the example's size."""
        ctx = self._ctx
        shape = ctx.shape(name)
        index = np.arange(size(shape)).reshape(shape)
        read: set[int] = set()
        for consumer in self._consumers[name]:
            moved = MOVES[consumer.op](ctx, consumer, index) if consumer.op in _CUTS else [index]
            if moved is None:
                return False  # amounts known only at run time: the rule ties what it cuts
            for part in moved:
                read.update(np.unique(part).tolist())
        return len(read) < index.size

    def _closure(self, name: str, below: Callable[[Node], Sequence[str]]) -> list[str]:
        """The expression and the weights and expressions that `below` leads to."""
        ctx = self._ctx
        found, pending = {name: None}, [name]
        while pending:
            current = pending.pop()
            if current not in ctx.graph.weights:
                next_ = [x for x in below(ctx.producers[current]) if ctx.depends_on_weights(x)]
                pending += [x for x in next_ if x not in found]
                found.update(dict.fromkeys(next_))
        return list(found)

    def _open(self, index: int, node: Node) -> None:
        opened = {x: self._labels[x] for x in self._to_open(node) if x in self._labels}
        if node.op in _CUTS and self.is_read_in_part(node.inputs[0]):
            # The module reads on for a longer input: what was cut moves alike, see `reconcile`.
            first = node.inputs[0]
            opened[first] = self._ctx.uniform(opened[first], self._cut_axes(node), "weight read in part")
        self._labels.update(self._ctx.apply_to_weights(index, node, opened))

    def _to_open(self, node: Node) -> Sequence[str]:
        """The operands that become data: as few as possible, since each entry of a weight costs a label."""
        if node.op in _TAKES_WEIGHTS:
            return node.inputs[:1]
        if node.op not in _KEEPS_WEIGHTS or len(set(node.inputs)) < len(node.inputs):
            return node.inputs
        ctx = self._ctx
        weights = [x for x in node.inputs if ctx.depends_on_weights(x)]
        computed = [x for x in weights if not self._is_plain(x)]
        if computed or len(weights) < len(node.inputs):
            return computed
        return [min(weights, key=lambda x: size(ctx.shape(x)))]

    def _is_plain(self, name: str) -> bool:
        """Whether a value is a weight that was only moved."""
        ctx = self._ctx
        while name not in ctx.graph.weights:
            node = ctx.producers[name]
            if node.op not in _PLAIN or not ctx.depends_on_weights(node.inputs[0]):
                return False
            name = node.inputs[0]
        return True

    def _cut_axes(self, node: Node) -> list[int]:
        before = self._ctx.shape(node.inputs[0])
        if node.op == "Gather":
            return [int(node.attributes.get("axis", 0)) % len(before)]
        after = self._ctx.shape(next(out for out in node.outputs if out))
        return [axis for axis, (whole, part) in enumerate(zip(before, after, strict=True)) if whole != part]
