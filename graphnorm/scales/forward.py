"""Weight expressions walked forwards: where a demand cannot be carried back, entry by entry.

Each entry of the weights below gets a label, and the operators' own rules propagate them as if the weights
were activations.  Complete for every operator that has a rule, at one label per entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Node
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import ENTRY_LIMIT, Labels, pinned, size
from graphnorm.scales.roles import strongest
from graphnorm.scales.rules.movement import MOVES
from graphnorm.scales.scale_array import ScaleArray

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
_PASSES = ("Identity", "Cast", "Neg")
_ENTRYWISE = frozenset({"Mul", "Div"})
_ADDS = frozenset({
    "Add", "Sub", "Sum", "Mean", "Max", "Min", "Mod", "Where", "Concat", "ScatterElements", "ScatterND",
    "TensorScatter", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
})  # fmt: skip


class Expressions:
    """The weights and weight expressions of one walk that were opened."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._labels: dict[str, Labels] = {}
        self._role: dict[str, Role] = {}  # demanded by the last consumer
        self._demand: dict[str, int] = {}  # of each opened weight
        self._position = {node.name: index for index, node in enumerate(ctx.graph.nodes)}
        self._consumers = ctx.graph.consumers()

    def leaves(self, name: str) -> list[str]:
        """The weights that a weight expression is made of."""
        below = self._closure(name, lambda node: node.inputs)
        return [found for found in below if found in self._ctx.graph.weights]

    def labels(self, name: str, role: Role) -> Labels | None:
        """Labels of a weight expression; None if a shape is unknown, or labels are too many."""
        ctx = self._ctx
        if name in self._labels and role == self._role.setdefault(name, role):
            return self._labels[name]
        self._role[name] = role
        needed = self._closure(name, self._to_open)
        if any(ctx.value(x).shape is None for x in needed):
            return None
        leaves = [x for x in needed if x in ctx.graph.weights]
        if any(size(ctx.shape(x)) > ENTRY_LIMIT or not ctx.value(x).is_float for x in leaves):
            return None
        nodes = {self._position[ctx.producers[x].name] for x in needed if x not in ctx.graph.weights}
        roles = self._roles(name, role, [ctx.graph.nodes[index] for index in sorted(nodes, reverse=True)])
        for leaf in leaves:
            if not size(ctx.shape(leaf)):  # nothing to scale
                self._labels[leaf] = pinned(ctx.rank(leaf))
                continue
            if leaf not in self._labels:
                self._demand[leaf] = len(ctx.demands)
                self._labels[leaf] = self._settled(leaf, ctx.entries(leaf, roles[leaf]))
            known = ctx.demands[self._demand[leaf]]
            ctx.demands[self._demand[leaf]] = replace(known, role=strongest([known.role, roles[leaf]]))
        for index in sorted(nodes):
            node = ctx.graph.nodes[index]
            if any(out not in self._labels for out in node.outputs if out):
                self._open(index, node)
        return self._labels[name]

    def _roles(self, name: str, role: Role, nodes: Iterable[Node]) -> dict[str, Role]:
        """The role of each value below `name`: a factor of another weight on the way has one of its own.

        `nodes` in reverse order.
        """
        found = {name: role}
        for node in nodes:
            above = strongest([found[out] for out in node.outputs if out in found])
            weights = {x for x in node.inputs if self._ctx.depends_on_weights(x)}
            if len(weights) > 1 and node.op not in _ADDS:
                above = strongest([above, Role.FACTOR if node.op in _ENTRYWISE else Role.WEIGHT])
            for x in weights:
                found[x] = strongest([above, found.get(x, above)])
        return found

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
        found = self._ctx.apply_to_weights(index, node, opened)
        self._labels.update({name: self._settled(name, labels) for name, labels in found.items()})

    def _to_open(self, node: Node) -> Sequence[str]:
        """The operands that become data: as few as possible, since each entry of a weight costs a label."""
        if node.op in _TAKES_WEIGHTS:
            return node.inputs[:1]
        if node.op not in _KEEPS_WEIGHTS or len(set(node.inputs)) < len(node.inputs):
            return node.inputs
        ctx = self._ctx
        weights = [x for x in node.inputs if ctx.depends_on_weights(x)]
        computed = [x for x in weights if not is_plain(ctx, x)]
        if computed or len(weights) < len(node.inputs):
            return computed
        return [min(weights, key=lambda x: size(ctx.shape(x)))]

    def _settled(self, name: str, labels: Labels) -> Labels:
        """Labels that don't vary along axes of which the module reads a part at the example's size.

        It reads on for a longer input, so all entries along them must move alike; see `reconcile`.
        """
        ctx = self._ctx
        shape = ctx.shape(name)
        read = np.zeros(size(shape), dtype=bool)
        self._mark_read(name, ScaleArray.whole(np.arange(size(shape)).reshape(shape)), read)
        if read.all():
            return labels
        mask = read.reshape(shape)
        axes = [axis for axis in range(len(shape)) if (mask != mask.take([0], axis=axis)).any()]
        return ctx.uniform(labels, [axis for axis in axes if labels.shape[axis] > 1], "weight read in part")

    def _mark_read(self, name: str, index: ScaleArray, read: npt.NDArray[np.bool_]) -> None:
        """Mark the entries `index` of a value that are read, through all movements."""
        ctx = self._ctx
        consumers = self._consumers.get(name, [])
        if not consumers or name in ctx.graph.outputs:
            read[index.labels.ravel()] = True
        for node in consumers:
            moves = node.op in MOVES and node.inputs[0] == name
            parts = [index] if node.op in _PASSES else ctx.moved(node, index) if moves else None
            if parts is None:  # computed with, or cut at run time, where the rule ties along the cut
                read[index.labels.ravel()] = True
                continue
            for out, part in zip(node.outputs, parts, strict=False):
                if out and self._consumers.get(out):
                    self._mark_read(out, part, read)


def is_plain(ctx: Context, name: str) -> bool:
    """Whether a value is a weight that was only moved."""
    while name not in ctx.graph.weights:
        node = ctx.producers.get(name)
        if node is None or node.op not in _PLAIN or not ctx.depends_on_weights(node.inputs[0]):
            return False
        name = node.inputs[0]
    return True
