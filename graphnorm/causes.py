"""The shortest chain of equations from a pinned label to the constant 0."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order

from graphnorm.graph import Cause, RescalingGraph
from graphnorm.scales.labels import PINNED
from graphnorm.scales.rules import default_registry

Integers = npt.NDArray[np.int64]


class CauseFinder:
    """Breadth-first searches over the bipartite graph of labels and equations.

    Equations between pinned labels only come first: one with a free label fixes nothing by itself.
    """

    def __init__(self, graph: RescalingGraph) -> None:
        self.graph = graph
        self._rows = graph.scales.constraints.rows
        self._starts = np.cumsum([0, *(len(batch.labels) for batch in self._rows)])
        self._pinned = np.diff(graph.solution.basis.indptr) == 0

    def chain(self, labels: Integers, node: int) -> tuple[Cause, ...]:
        """Causes from the nearest pinned label of a layer's side to the constant 0.

        Args:
            labels: of the side; at least one is pinned.
            node: the operator that uses the weight.
        """
        pinned = labels[self._pinned[labels] & (labels != PINNED)]
        if not len(pinned):
            return self._literal(node)
        for order, before in (self._strict, self._loose):
            reached = order[np.isin(order, pinned)]
            if len(reached):
                return self._walk(int(reached[0]), before)
        return ()

    @cached_property
    def _strict(self) -> tuple[Integers, Integers]:
        return self._search(only_pinned=True)

    @cached_property
    def _loose(self) -> tuple[Integers, Integers]:
        return self._search(only_pinned=False)

    def _search(self, only_pinned: bool) -> tuple[Integers, Integers]:
        """Visiting order from label 0, and predecessors; equation e is vertex count + e."""
        count = self.graph.scales.constraints.count
        ends: list[Integers] = [np.empty((0, 2), dtype=np.int64)]
        for batch, start in zip(self._rows, self._starts, strict=False):
            equation = count + start + np.arange(len(batch.labels))
            table = batch.labels
            if table.shape[1] == 1:  # a pin is an equation with label 0
                table = np.concatenate([table, np.zeros_like(table)], axis=1)
            if only_pinned:
                keep = self._pinned[table].all(axis=1)
                table, equation = table[keep], equation[keep]
            pairs = np.stack([table.ravel(), np.repeat(equation, table.shape[1])], axis=1)
            ends.append(pairs)
        edges = np.concatenate(ends)
        size = count + int(self._starts[-1])
        matrix = sp.csr_array(
            (np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(size, size)
        )
        order, before = breadth_first_order(matrix, PINNED, directed=False)
        return np.asarray(order, dtype=np.int64), np.asarray(before, dtype=np.int64)

    def _walk(self, vertex: int, before: Integers) -> tuple[Cause, ...]:
        count = self.graph.scales.constraints.count
        found: list[Cause] = []
        while vertex != PINNED:
            vertex = int(before[vertex])
            if vertex >= count:
                batch = self._rows[int(np.searchsorted(self._starts, vertex - count, side="right")) - 1]
                cause = self._cause(batch.node, batch.reason)
                if not found or found[-1] != cause:
                    found.append(cause)
        return tuple(found)

    def _literal(self, node: int) -> tuple[Cause, ...]:
        """The operand carries the constant 0 itself: name the operator that fixed it, or the input."""
        graph, labels = self.graph.network, self.graph.scales.labels
        if node >= len(graph.nodes):
            return (self._cause(node, "network output"),)
        producers = graph.producers()
        index = {item.name: i for i, item in enumerate(graph.nodes)}
        fixed = [n for n in graph.nodes[node].inputs if n in labels and (labels[n] == PINNED).any()]
        if not fixed:
            return (self._cause(node, "keeps the weight as it is"),)
        name = fixed[0]
        while name in producers:
            maker = producers[name]
            data = [operand for operand in maker.inputs if operand in labels]
            if not data or any((labels[operand] != PINNED).any() for operand in data):
                rule = default_registry().get(maker.op)
                return (self._cause(index[maker.name], rule.reason if rule else "unknown operator"),)
            name = data[0]
        return (Cause(name, "network input", "keeps its scale", 1),)

    def _cause(self, node: int, reason: str) -> Cause:
        nodes = self.graph.network.nodes
        if node >= len(nodes):
            return Cause("output", "network output", reason, 1)
        return Cause(nodes[node].label, nodes[node].op, reason, 1, nodes[node].source)
