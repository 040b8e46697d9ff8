"""A graph that is rewritten node by node, with dense values in the place of routed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphnorm.frontends.routing.keys import Key
from graphnorm.ir import Graph, Node, Value
from graphnorm.util.typing import Shape

ROUTE = "graphnorm::Route"


class Rewriting:
    """What has been emitted so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.values = dict(graph.values)
        self.constants = dict(graph.constants)
        self._taken = {*graph.values, *(node.name for node in graph.nodes)}

    def emit(
        self,
        node: Node,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any],
        shapes: Sequence[Shape],
    ) -> list[str]:
        """A node for all experts in the place of one for the chosen ones; returns its results."""
        names = []
        for output, shape in zip(node.outputs, shapes, strict=True):
            result = self.values[output]
            sizes = zip(shape[1:], result.shape or (), strict=False)
            same = {axis for axis, (new, old) in enumerate(sizes) if new == old}  # others are broadcast
            dynamic = frozenset(axis + 1 for axis in same & result.dynamic)
            value = Value(self._unique(f"{output}.dense"), shape, result.dtype, dynamic)
            self.values[value.name] = value
            names.append(value.name)
        name = self._unique(f"{node.name}.dense")
        self.nodes.append(Node(name, op, tuple(inputs), tuple(names), attributes, node.scope, node.source))
        return names

    def literal(self, node: Node, entries: Sequence[int]) -> str:
        """A new vector of integers; returns its name."""
        name = self._unique(f"{node.name}.dense.const")
        self.constants[name] = np.array(entries, dtype=np.int64)
        self.values[name] = Value(name, (len(entries),), "int64")
        return name

    def route(self, node: Node, old: str, new: str, key: Key) -> Node:
        """The choice that yields a result of ``node`` from the dense one; not emitted."""
        name = self._unique(f"{old}.route")
        return Node(name, ROUTE, (new, key.name), (old,), {"key": key.kind}, node.scope, node.source)

    def result(self) -> Graph:
        """The graph, without new nodes that are never read."""
        read, nodes = set(self.graph.outputs), list[Node]()
        for node in reversed(self.nodes):
            if not read.isdisjoint(node.outputs) or not self.graph.values.keys().isdisjoint(node.outputs):
                nodes.append(node)
                read.update(node.inputs)
        defined = {*self.graph.inputs, *self.graph.weights, *self.constants}
        defined.update(name for node in nodes for name in node.outputs)
        values = {name: value for name, value in self.values.items() if name in defined}
        return replace(self.graph, nodes=tuple(reversed(nodes)), values=values, constants=self.constants)

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self._taken:
            found, count = f"{name}_{count}", count + 1
        self._taken.add(found)
        return found
