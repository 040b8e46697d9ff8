"""Whether two networks compute the same, however their clips are written.

Every value gets a number that stands for the computation that leads to it (value numbering): equal numbers,
equal computations.  Relu, Clip, and Max and Min with one number are all written as max(x, lo) and
min(x, hi), where a bound that is a weight counts as the number that it holds everywhere.
"""

from __future__ import annotations

from collections.abc import Container, Hashable
from typing import Any

import numpy as np

from graphnorm import ir

_Table = dict[tuple[Hashable, ...], int]


def first_departure(original: ir.Graph, rewritten: ir.Graph) -> str:
    """Name the first node of `rewritten` that computes what `original` does not; empty if they agree.

    Weights that `rewritten` has in addition are bounds.  Bodies of control flow are not compared.
    """
    for name, weight in original.weights.items():
        other = rewritten.weights.get(name)
        if other is None or _content(other) != _content(weight):
            return f"weight {name!r} is another one"
    table: _Table = {}
    before = _Numbering(original, original.weights, table).found
    known = len(table)
    after = _Numbering(rewritten, original.weights, table).found
    if [after[name] for name in rewritten.outputs] == [before[name] for name in original.outputs]:
        return ""
    for node in rewritten.nodes:
        if node.op != "Identity" and any(after[name] >= known for name in node.outputs if name):
            return f"{node.op} {node.label}" + (f" ({node.source})" if node.source else "")
    return "which values are the outputs"


class _Numbering:
    """Value numbering of one network.

    Attributes:
        found: value name -> number of its computation.
    """

    def __init__(self, graph: ir.Graph, shared: Container[str], table: _Table) -> None:
        """Number a network; weights that are not `shared` are numbered by content."""
        self._graph = graph
        self._table = table
        self._held: dict[int, float] = {}  # computations that yield one number everywhere
        self.found = {"": self._number("absent")}
        for index, name in enumerate(graph.inputs):
            value = graph.values[name]
            self.found[name] = self._number("input", index, value.shape, value.dtype)
        for name, array in graph.weights.items():
            self._hold(name, array, ("weight", name if name in shared else _content(array)))
        for name, array in graph.constants.items():
            self._hold(name, array, ("constant", _content(array)))
        for node in graph.nodes:
            self._visit(node)

    def _number(self, *key: Hashable) -> int:
        return self._table.setdefault(key, len(self._table))

    def _hold(self, name: str, array: ir.Array, key: tuple[Hashable, ...]) -> None:
        self.found[name] = self._number(*key)
        if array.dtype.name in ir.FLOAT_TYPES and array.size and bool((array == array.flat[0]).all()):
            self._held[self.found[name]] = float(array.flat[0])

    def _visit(self, node: ir.Node) -> None:
        cut = self._cut(node)
        if cut is not None:
            name, limits = cut
            current = self.found[name]
            for kind, limit in limits:
                current = self._number(kind, current, limit)
            self.found[node.outputs[0]] = current
            return
        operands = tuple(self.found[name] for name in node.inputs)
        attributes = tuple(sorted((key, _content(value)) for key, value in node.attributes.items()))
        for position, name in enumerate(node.outputs):
            if name:
                value = self._graph.values[name]
                described = (value.shape, value.dtype, value.dynamic)
                self.found[name] = self._number(node.op, operands, attributes, position, *described)

    def _cut(self, node: ir.Node) -> tuple[str, list[tuple[str, float]]] | None:
        """The operand that a node clips and its limits, in order; None if it does something else."""
        if node.op == "Identity":
            return node.inputs[0], []
        if node.op == "Relu":
            return node.inputs[0], [("Max", 0.0)]
        if node.op == "Clip":
            low, high = self._bound(node, "min", 1, -np.inf), self._bound(node, "max", 2, np.inf)
            if low is None or high is None:
                return None
            limits = [("Max", low)] if low != -np.inf else []
            return node.inputs[0], limits + ([("Min", high)] if high != np.inf else [])
        if node.op in {"Max", "Min"} and len(node.inputs) == 2:
            for data, other in (node.inputs, node.inputs[::-1]):
                limit = self._held.get(self.found[other])
                if limit is not None and self._shape(data) == self._shape(node.outputs[0]):
                    return data, [(node.op, limit)]
        return None

    def _bound(self, node: ir.Node, attribute: str, index: int, absent: float) -> float | None:
        """A limit of a Clip, None if it is not known."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self._held.get(self.found[name]) if name else float(node.attributes.get(attribute, absent))

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return self._graph.values[name].shape


def _content(value: Any) -> Hashable:
    array = np.asarray(value)
    if array.dtype == object:
        return repr(value)
    return array.dtype.name, array.shape, array.tobytes()
