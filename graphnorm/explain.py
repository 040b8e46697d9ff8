"""Why a layer's channels can or can't be rescaled.

A layer's weight scales by exp(x_out - x_in).  Each side is free, tied to the same side of other layers
(they share variables), pinned (a chain of equations fixes it at 0), partly pinned, or degenerate (free,
but the objective has no minimiser there).  The shortest chain of causes is a breadth-first search over
the bipartite graph of labels and equations, from the pinned label 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphnorm.causes import CauseFinder
from graphnorm.errors import InputError
from graphnorm.graph import Cause, RescalingGraph
from graphnorm.objective import build_problem
from graphnorm.report import degenerate_groups
from graphnorm.scales.demands import Demand
from graphnorm.solver.cyclic import solve

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Side:
    """The output or input channels of a layer.

    Attributes:
        status: ``free``, ``tied``, ``partly``, ``pinned``, ``degenerate``, or ``none`` (no such side).
        channels: number of distinct scales, pinned ones counted one by one.
        free: how many of them can move.
        tied: other layers that have some of these variables on the same side.
    """

    status: str
    channels: int
    free: int
    tied: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.status == "partly":
            return f"{self.free} of {self.channels} free"
        return "–" if self.status == "none" else f"{self.status} ({self.channels})"


@dataclass(frozen=True, slots=True)
class Layer:
    """A multiplicative weight, the operator that uses it, and the status of both its sides."""

    name: str
    node: str
    op: str
    source: str
    output: Side
    input: Side

    @property
    def status(self) -> str:
        """That of the output side; of the input side where the output is pinned."""
        if self.output.status not in {"pinned", "none"} or self.input.status in {"pinned", "none"}:
            return self.output.status
        return "partly"

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {**asdict(self), "status": self.status}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A layer with the chains of causes that pin its sides (empty for a side that is free)."""

    layer: Layer
    output: tuple[Cause, ...]
    input: tuple[Cause, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        chains = {"output": self.output, "input": self.input}
        return {
            "layer": self.layer.name,
            "status": self.layer.status,
            "chains": {name: [asdict(cause) for cause in chain] for name, chain in chains.items()},
            "tied": {"output": list(self.layer.output.tied), "input": list(self.layer.input.tied)},
        }


@dataclass(frozen=True)
class Summary:
    """The rescaling graph of a network, layer by layer."""

    graph: RescalingGraph
    layers: tuple[Layer, ...]
    degenerate: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of ``graphnorm inspect``."""
        graph = self.graph
        return {
            "model": graph.network.name,
            "dimension": graph.dimension,
            "groups": [{"name": g.name, "channels": len(g.variables)} for g in graph.groups],
            "layers": [layer.to_dict() for layer in self.layers],
            "pins": [asdict(pin) for pin in graph.pins],
            "merges": [asdict(merge) for merge in graph.merges],
            "degenerate": [{"group": name, "channels": n} for name, n in self.degenerate.items()],
            "unknown_operators": {op: list(where) for op, where in graph.scales.unknown.items()},
        }


def summarise(graph: RescalingGraph) -> Summary:
    """The status of every layer, in network order."""
    degenerate = solve(build_problem(graph), max_cycles=0).degenerate
    demands = _weight_demands(graph)
    labels = {name: (_side_labels(found, 1), _side_labels(found, -1)) for name, found in demands.items()}
    owners: list[dict[int, list[str]]] = [{}, {}]  # per side: variable -> layers
    for name, sides in labels.items():
        for owner, side in zip(owners, sides, strict=True):
            for variable in _variables(graph, side).tolist():
                owner.setdefault(variable, []).append(name)
    layers = []
    for name, sides in labels.items():
        node = demands[name][0].node
        done = [_side(graph, name, s, owner, degenerate) for s, owner in zip(sides, owners, strict=True)]
        operator = graph.network.nodes[node] if node < len(graph.network.nodes) else None
        op, source = ("output", "") if operator is None else (operator.op, operator.source)
        layers.append(Layer(name, graph.node_label(node), op, source, done[0], done[1]))
    return Summary(graph, tuple(layers), degenerate_groups(graph, degenerate))


def explain(graph: RescalingGraph, layer: str, summary: Summary | None = None) -> list[Explanation]:
    """Explain the layers that a name means: a weight, a node, or the start of their paths.

    Raises:
        InputError: no layer has this name.
    """
    summary = summary or summarise(graph)
    demands = _weight_demands(graph)
    finder = CauseFinder(graph)
    explained = []
    for found in _matching(summary.layers, layer):
        chains = []
        for sign, side in ((1, found.output), (-1, found.input)):
            labels = _side_labels(demands[found.name], sign)
            fixed = side.status in {"pinned", "partly"}
            chains.append(finder.chain(labels, demands[found.name][0].node) if fixed else ())
        explained.append(Explanation(found, chains[0], chains[1]))
    return explained


def why(graph: RescalingGraph, layer: str) -> tuple[Cause, ...]:
    """The shortest chain of causes that pins a layer's output channels (its input's, if they are free).

    Empty for a layer that is free on both sides.

    Raises:
        InputError: no layer has this name.
    """
    first = explain(graph, layer)[0]
    return first.output or first.input


def _matching(layers: Sequence[Layer], text: str) -> list[Layer]:
    exact = [layer for layer in layers if text in (layer.name, layer.node)]
    found = exact or [
        layer
        for layer in layers
        if layer.name.startswith((f"{text}.", f"{text}/")) or layer.node.startswith((f"{text}.", f"{text}/"))
    ]
    if not found:
        names = dict.fromkeys(name for layer in layers for name in (layer.node, layer.name))
        close = difflib.get_close_matches(text, names, n=4, cutoff=0.4) or list(names)[:4]
        hint = f"close names: {', '.join(close)}" if close else "the network has no layer with weights"
        raise InputError(f"--why {text}: no layer of this name; {hint}")
    return found


def _weight_demands(graph: RescalingGraph) -> dict[str, list[Demand]]:
    """Weight name -> its demands, in network order.

    A weight that must keep its value counts as a layer where its operator has no multiplicative weight
    (an operator without a rule); running variances and the like don't.
    """
    layers = {demand.node for demand in graph.demands if demand.role == "weight"}
    found: dict[str, list[Demand]] = {}
    for demand in sorted(graph.demands, key=lambda d: d.node):
        if demand.role == "weight" or (demand.role == "fixed" and demand.node not in layers):
            found.setdefault(demand.weight, []).append(demand)
    return found


def _side_labels(demands: Sequence[Demand], sign: int) -> Integers:
    """Distinct labels of the terms whose coefficient has this sign."""
    found = [labels.ravel() for demand in demands for c, labels in demand.terms if c * sign > 0]
    if not found and sign > 0 and any(not demand.terms for demand in demands):
        return np.zeros(1, dtype=np.int64)  # the weight may not change at all
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _variables(graph: RescalingGraph, labels: Integers) -> Integers:
    return np.unique(graph.solution.basis[labels].indices).astype(np.int64)


def _side(
    graph: RescalingGraph,
    name: str,
    labels: Integers,
    owner: Mapping[int, Sequence[str]],
    degenerate: Integers,
) -> Side:
    movable = np.diff(graph.solution.basis.indptr)[labels] > 0
    free = int(movable.sum())
    if not len(labels):
        return Side("none", 0, 0)
    variables = _variables(graph, labels)
    others = dict.fromkeys(o for v in variables.tolist() for o in owner[v] if o != name)
    tied = tuple(others)
    if not free:
        return Side("pinned", len(labels), 0)
    if free < len(labels):
        return Side("partly", len(labels), free, tied)
    if np.isin(variables, degenerate).all():
        return Side("degenerate", len(labels), free, tied)
    return Side("tied" if tied else "free", len(labels), free, tied)
