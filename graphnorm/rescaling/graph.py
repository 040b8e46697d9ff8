"""The rescaling graph: every neuron-level positive rescaling of a network's weights.

Nodes are independent log-scale variables, node 0 is the merged pinned node (network inputs, outputs and
whatever may not move); an edge is a weight entry that scales by exp(x_to - x_from).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphnorm import ir
from graphnorm.scales.constraints import Constraints, Rows
from graphnorm.scales.demands import Demand
from graphnorm.scales.elimination import Solution, eliminate, rank_free
from graphnorm.scales.labels import Labels
from graphnorm.scales.reconcile import reconcile
from graphnorm.scales.registry import Registry
from graphnorm.scales.roles import settled
from graphnorm.scales.rules.table import default_registry
from graphnorm.scales.walk import Scales, propagate
from graphnorm.util.typing import Floats

if TYPE_CHECKING:
    import networkx as nx

_NAMED = 6  # tensors that a remark names


@dataclass(frozen=True, slots=True)
class Cause:
    """A node that pins or ties scales, why, and how many equations it states."""

    node: str
    op: str
    reason: str
    count: int
    source: str = ""

    def __str__(self) -> str:
        return f"{self.op} {self.node}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Group:
    """A channel group: variables of one tensor's channels after everything tied to it is merged."""

    index: int
    name: str
    variables: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RescalingGraph:
    """What may be rescaled in a network, and what may not, with causes.

    Attributes:
        network: the intermediate representation that was analysed.
        scales: constraints and labels of every data tensor.
        demands: the log-scale of each (region of a) weight.
        solution: labels in terms of independent variables.
        dimension: number of independent rescalings of weights that preserve the function.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = graphnorm.trace(model, torch.randn(3, 4))
    >>> graph.dimension, [group.variables.size for group in graph.groups]
    (8, [8])
    """

    network: ir.Graph
    scales: Scales
    demands: tuple[Demand, ...]
    solution: Solution
    dimension: int

    def __repr__(self) -> str:
        return f"RescalingGraph(network={self.network.name!r}, dimension={self.dimension})"

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Channel groups, in the order in which the network meets them."""
        constraints = self.scales.constraints
        if not self.solution.count:
            return ()
        family = constraints.family_of(self.solution.variables)
        found: list[Group] = []
        for index, key in enumerate(np.unique(family).tolist()):
            _, node, what = constraints.families[key]
            variables = np.flatnonzero(family == key)
            found.append(Group(index, f"{self.node_label(node)} ({what})", variables))
        return tuple(found)

    @cached_property
    def pins(self) -> tuple[Cause, ...]:
        """Nodes that pin scales, with their reasons."""
        return (*self._causes(lambda batch: batch.labels.shape[1] == 1), *self._given())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know: how the network was read, which operators a defect pins."""
        return (*self.network.remarks, *self.scales.constraints.defects, *self._of_given())

    @cached_property
    def merges(self) -> tuple[Cause, ...]:
        """Nodes that tie scales to each other, with their reasons."""
        return self._causes(lambda batch: batch.labels.shape[1] > 1)

    def node_label(self, index: int) -> str:
        """The layer's name of node `index`; the last index stands for the network's outputs."""
        nodes = self.network.nodes
        return nodes[index].label if 0 <= index < len(nodes) else "output"

    def log_scales(self, z: Floats) -> Floats:
        """Log-scale of each label, from the independent variables."""
        return np.asarray(self.solution.basis @ z, dtype=np.float64)

    def demand_scale(self, demand: Demand, x: Floats) -> Floats:
        """Log-scale of a demanded region, broadcastable to it; `x` are label log-scales."""
        total: Floats = np.zeros((), dtype=np.float64)
        for c, labels in demand.terms:
            total = total + c * x[labels]
        return total

    def movable(self) -> Iterator[Demand]:
        """Demands on weights that some rescaling changes."""
        free = np.diff(self.solution.basis.indptr) > 0
        for demand in self.demands:
            if any(free[labels].any() for _, labels in demand.terms):
                yield demand

    def summary(self) -> str:
        """A summary of a few lines."""
        moved = {demand.weight for demand in self.movable()}
        lines = [
            f"{self.network.name}: {self.dimension} independent rescalings "
            f"in {len(self.groups)} channel groups",
            f"{len(moved)} of {len(self.network.weights)} weight tensors can be rescaled",
        ]
        lines += [
            f"unknown operator {op}: pinned ({len(where)} nodes)" for op, where in self.scales.unknown.items()
        ]
        return "\n".join((*lines, *self.remarks))

    def to_networkx(self, level: str = "group") -> nx.MultiDiGraph:
        """The graph at the level of channel groups (default) or of single neurons.

        Node 0 is the pinned node.  Edge attributes: ``weight`` (tensor name), ``role``, ``layer``, and at
        neuron level ``index`` (flat index in the demanded region).
        """
        from graphnorm.rescaling.multigraph import build_networkx

        return build_networkx(self, level)

    def _causes(self, wanted: object) -> tuple[Cause, ...]:
        counts: dict[tuple[int, str], int] = {}
        for batch in self.scales.constraints.rows:
            if wanted(batch):  # type: ignore[operator]
                key = (batch.node, batch.reason)
                counts[key] = counts.get(key, 0) + len(batch.labels)
        return tuple(self._cause(node, reason, n) for (node, reason), n in counts.items())

    def _given(self) -> Iterator[Cause]:
        """Constants that would be weights but for being graph inputs, at the first node that reads each."""
        left = set(self.network.overridable)
        for node in self.network.nodes if left else ():
            for name in left.intersection(node.inputs):
                left.discard(name)
                reason = f"{name!r} is an initializer that is a graph input, too"
                yield Cause(node.label, node.op, reason, self.network.constants[name].size, node.source)

    def _of_given(self) -> Iterator[str]:
        names = [repr(name) for name in self.network.constants if name in self.network.overridable]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            are = "is an initializer and a graph input" if len(names) == 1 else "are initializers and inputs"
            yield (
                f"{', '.join(names[:_NAMED])}{more} {are}: callers may replace them, so they keep their "
                "values; inputs_as_weights=True (--initializers-as-weights) takes them as weights, and off "
                "the inputs"
            )

    def _cause(self, node: int, reason: str, count: int) -> Cause:
        nodes = self.network.nodes
        if node >= len(nodes):
            return Cause("output", "network output", reason, count)
        return Cause(nodes[node].label, nodes[node].op, reason, count, nodes[node].source)


def build(network: ir.Graph, registry: Registry | None = None) -> RescalingGraph:
    """Analyse a network: propagate scales, reconcile demands, eliminate constraints."""
    scales = propagate(network, registry or default_registry())
    constraints = scales.constraints
    demands = reconcile(network, scales.demands, constraints)
    solution = eliminate(constraints.count, constraints.rows)
    still = rank_free(constraints.count, [*constraints.rows, *_unchanged(demands, constraints)])
    demands = settled(demands, scales.labels.values(), solution.basis)
    return RescalingGraph(network, scales, demands, solution, solution.count - still)


def _unchanged(demands: Sequence[Demand], constraints: Constraints) -> list[Rows]:
    """Equations that say that no weight changes: what they eliminate is the dimension."""
    probe = Constraints()
    probe.count = constraints.count
    for demand in demands:
        rank = max([1, *(labels.ndim for _, labels in demand.terms)])
        terms = [(c, _padded(labels, rank)) for c, labels in demand.terms]
        probe.equation(terms, demand.node, "")
    return probe.rows


def _padded(labels: Labels, rank: int) -> Labels:
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)
