"""Mixture of experts: the choice of an expert moved behind the experts' computation.

``Route(dense, key)[t] = dense[e(t), t]``: row t of the result comes from expert e(t), known only at run
time.  An operator that works on each row alone commutes with this choice, f(Route(a), Route(b)) =
Route(f(a, b)), and ``weight[ids]`` is a choice among the rows of a weight.  So a routed network is
rewritten as a choice among the results of a dense one, where each expert has scales of its own.

A value of shape ``[rows.., n]`` becomes a dense one of shape ``[experts, rows.., n]``, rows of size 1 where
it is the same for all.  Operators that are not provably row-wise stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphnorm.frontends.routing.graph import ROUTE, Rewriting
from graphnorm.frontends.routing.keys import BY_INDEX, BY_OFFSETS, Key, route_key
from graphnorm.frontends.routing.rows import HANDLERS, JOINT, View
from graphnorm.ir import Graph, Node, Value
from graphnorm.util.typing import Shape

__all__ = ["BY_INDEX", "BY_OFFSETS", "ROUTE", "sink_routes"]

Rows = tuple[tuple[int, bool], ...]  # size of each axis of the rows, and whether it may differ at run time
_MOST_EXPERTS = 4096  # a longer table that is read by rows is an embedding


@dataclass(frozen=True, slots=True)
class Routed:
    """A value that is a choice from ``dense``; ``maker`` yields it for consumers that need it as it is.

    ``computed``: a result of the experts, not just a weight of theirs.
    """

    dense: str
    key: Key
    rows: Rows
    maker: Node
    computed: bool


def sink_routes(graph: Graph) -> Graph:
    """Move every choice of an expert behind as many row-wise operators as possible."""
    return _Sinking(graph).run()


class _Sinking:
    """One walk over a graph, in order; routed values are emitted only where they are read."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.rewritten = Rewriting(graph)
        self.values = self.rewritten.values
        self.routed: dict[str, Routed] = {}
        self.emitted: set[str] = set()
        self.weights = set(graph.weights)  # and what is computed from weights alone

    def run(self) -> Graph:
        for node in self.graph.nodes:
            self._note_weights(node)
            if not (self._chooses(node) or self._sinks_grouped(node) or self._sinks(node)):
                self._keep(node)
        for name in self.graph.outputs:
            self._emit_routed(name)
        if not any(item.computed for item in self.routed.values()):
            return self.graph
        return self.rewritten.result()

    def _note_weights(self, node: Node) -> None:
        operands = {name for name in node.inputs if name}
        if operands & self.weights and operands <= self.weights | self.graph.constants.keys():
            self.weights.update(name for name in node.outputs if name)

    def _keep(self, node: Node) -> None:
        for name in node.inputs:
            self._emit_routed(name)
        self.rewritten.nodes.append(node)

    def _emit_routed(self, name: str) -> None:
        item = self.routed.get(name)
        if item is not None and item.maker.name not in self.emitted:
            self.emitted.add(item.maker.name)
            self._keep(item.maker)

    # Start of a choice.

    def _chooses(self, node: Node) -> bool:
        """Note the result of a choice among experts' results, or among the rows of a weight."""
        if node.op == ROUTE:
            dense, key, count = node.inputs[0], route_key(self.graph, self.producers, node), 1
        elif node.op == "Gather" and self._reads_weight(node):
            dense, key = node.inputs[0], Key(node.inputs[1], BY_INDEX)
            count = len(self._shape(key.name))
        else:
            return False
        rows = _rows(self.values[node.outputs[0]], count)
        source = self.values[dense]
        if rows is None or source.shape is None or 0 in source.dynamic:
            return False
        if node.op == "Gather":
            shape = (source.shape[0], *(1 for _ in rows), *source.shape[1:])
            axes = self.rewritten.literal(node, range(1, 1 + count))
            [dense] = self.rewritten.emit(node, "Unsqueeze", (dense, axes), {}, [shape])
        self.routed[node.outputs[0]] = Routed(dense, key, rows, node, node.op == ROUTE)
        return True

    def _reads_weight(self, node: Node) -> bool:
        """``weight[ids]``, along the first axis, with ids known only at run time."""
        weight, ids = (self.values[name] for name in node.inputs)
        if weight.name not in self.weights or not weight.is_float or not weight.shape or weight.dynamic:
            return False
        if ids.name in self.graph.constants or ids.name in self.weights or not ids.shape:
            return False
        first = int(node.attributes["axis"]) in (0, -len(weight.shape))
        return first and weight.shape[0] <= _MOST_EXPERTS

    # Propagation of a choice.

    def _sinks_grouped(self, node: Node) -> bool:
        """``Route(Route(a) @ w) = Route(a @ w)``: a product whose rows the same key chooses twice."""
        item = self.routed.get(node.inputs[0]) if node.op == "MatMul" else None
        readers = self.consumers.get("".join(node.outputs[:1]), [])
        if item is None or len(readers) != 1 or node.outputs[0] in self.graph.outputs:
            return False
        if readers[0].op != ROUTE or route_key(self.graph, self.producers, readers[0]) != item.key:
            return False
        dense, weight = self.values[item.dense].shape, self.values[node.inputs[1]].shape
        if node.inputs[1] in self.routed or dense is None or weight is None:
            return False
        sizes = [size for size, _ in item.rows]
        if len(dense) != 3 or len(weight) != 3 or dense[:2] != (weight[0], *sizes):
            return False
        self.rewritten.nodes.append(replace(node, inputs=(item.dense, node.inputs[1])))
        return True

    def _sinks(self, node: Node) -> bool:
        """Emit the operator for all experts, where it works on each row alone."""
        items = [self.routed[name] for name in node.inputs if name in self.routed]
        handler = HANDLERS.get(node.op)
        if handler is None or not items or not self._is_row_wise(node, items):
            return False
        if node.op in JOINT and not any(item.computed for item in items):
            return False
        view = self._view(node, items)
        dense = None if view is None else handler(view)
        if dense is None:
            return False
        names = [self.routed[name].dense if name in self.routed else name for name in node.inputs]
        for place, entries in dense.arguments.items():
            names[place : place + 1] = [self.rewritten.literal(node, entries)]
        results = self.rewritten.emit(node, node.op, names, dense.attributes, dense.shapes)
        computed = node.op == "MatMul" or any(item.computed for item in items)
        for old, new in zip(node.outputs, results, strict=True):
            key, rows = items[0].key, items[0].rows
            maker = self.rewritten.route(node, old, new, key) if computed else node
            self.routed[old] = Routed(new, key, rows, maker, computed)
        return True

    def _is_row_wise(self, node: Node, items: Sequence[Routed]) -> bool:
        """One key and the same rows, in all routed operands and in all results."""
        first = items[0]
        same = all(item.key == first.key and item.rows == first.rows for item in items)
        return same and all(
            name and _rows(self.values[name], len(first.rows)) == first.rows for name in node.outputs
        )

    def _view(self, node: Node, items: Sequence[Routed]) -> View | None:
        shown = [self.routed[name].dense if name in self.routed else name for name in node.inputs]
        shapes = [self.values[name].shape if name else None for name in shown]
        if any(name and shape is None for name, shape in zip(shown, shapes, strict=True)):
            return None
        leads = [self._shape(item.dense)[: 1 + len(item.rows)] for item in items]
        if len(set(leads)) > 1 and node.op not in (*JOINT, "MatMul"):
            return None
        data = [
            None if name and self.values[name].dynamic else self.graph.constants.get(name)
            for name in node.inputs
        ]
        routed = [name in self.routed for name in node.inputs]
        return View(node, leads[0], shapes, routed, data, [self._shape(name) for name in node.outputs])

    def _shape(self, name: str) -> Shape:
        return self.values[name].shape or ()


def _rows(value: Value, count: int) -> Rows | None:
    """The leading axes of a value; None if it has too few, or one that is a single row by chance."""
    if value.shape is None or len(value.shape) < count:
        return None
    rows = tuple((size, axis in value.dynamic) for axis, size in enumerate(value.shape[:count]))
    return None if (1, True) in rows else rows
