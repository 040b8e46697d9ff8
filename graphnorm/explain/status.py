"""The status of each layer's output and input channels.

A layer's weight scales by exp(x_out - x_in).  Each side is free, tied to the same side of other layers
(they share variables), pinned (a chain of equations fixes it at 0), partly pinned, or degenerate (free,
but the objective has no minimiser there).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from graphnorm.api.reports import degenerate_groups
from graphnorm.explain.chains import ChainFinder
from graphnorm.explain.minimum import MissingMinimum
from graphnorm.explain.routes import Link
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.demands import Demand, Role
from graphnorm.util.typing import Integers

SIDES = (1, -1)  # the sign of a side's terms in a demand: output, input


class Status(StrEnum):
    """What may happen to the channels of one side of a layer."""

    FREE = "free"
    """They can be rescaled, and no other layer's same side with them."""
    TIED = "tied"
    """They can be rescaled together with the same side of other layers."""
    PARTLY = "partly"
    """Some can, others are pinned."""
    PINNED = "pinned"
    """None can."""
    DEGENERATE = "degenerate"
    """They can, but the objective has no minimum along some of them."""
    NONE = "none"
    """The layer has no such side."""

    __repr__ = str.__repr__


@dataclass(frozen=True, slots=True)
class Side:
    """The output or input channels of a layer.

    Attributes:
        status: what may happen to them.
        channels: number of distinct scales, pinned ones counted one by one.
        free: how many of them can move.
        scales: how many independent scales move them.
        tied: other layers that have some of these variables on the same side.
        pinned_by: the operator that pins the side, or a part of it.
        degenerate: why the objective has no minimum -> number of channels.
    """

    status: Status
    channels: int
    free: int
    scales: int = 0
    tied: tuple[str, ...] = ()
    pinned_by: Link | None = None
    degenerate: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight, the operator that uses it, and the status of both its sides.

    ``role`` is that of its demand: ``weight`` (multiplicative), ``bias`` or ``fixed``.
    """

    name: str
    node: str
    op: str
    source: str
    role: Role
    output: Side
    input: Side

    @property
    def status(self) -> Status:
        """That of the output side; of the input side where the output is pinned."""
        if self.output.status not in {Status.PINNED, Status.NONE} or self.input.status in {
            Status.PINNED,
            Status.NONE,
        }:
            return self.output.status
        return Status.PARTLY

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {**asdict(self), "status": self.status}


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
            "statuses": dict(Counter(layer.status for layer in self.layers)),
            "pins": [asdict(pin) for pin in graph.pins],
            "merges": [asdict(merge) for merge in graph.merges],
            "degenerate": [{"group": name, "channels": n} for name, n in self.degenerate.items()],
            "unknown_operators": {op: list(where) for op, where in graph.scales.unknown.items()},
            "remarks": list(graph.remarks),
        }


class Describer:
    """Finds the status of weights; what all of them share is computed once."""

    def __init__(self, graph: RescalingGraph) -> None:
        self.graph = graph
        self.finder = ChainFinder(graph)
        self.missing = MissingMinimum(graph)
        self.demands = demands_by_weight(graph)
        self.owners: list[dict[int, list[str]]] = [{}, {}]  # per side: variable -> layers
        for name in self.layer_names():
            for owner, sign in zip(self.owners, SIDES, strict=True):
                for variable in self.variables(side_labels(self.demands[name], sign)).tolist():
                    owner.setdefault(variable, []).append(name)

    def layer_names(self) -> list[str]:
        """The multiplicative weights, in network order.

        A weight that must keep its value counts where its operator has no multiplicative weight (an
        operator without a rule); running variances and the like don't.
        """
        layers = {demand.node for demand in self.graph.demands if demand.role == Role.WEIGHT}
        return [
            name
            for name, found in self.demands.items()
            if any(d.role == Role.WEIGHT or (d.role == Role.FIXED and d.node not in layers) for d in found)
        ]

    def layer(self, name: str) -> Layer:
        """The status of one weight."""
        demand = self.demands[name][0]
        link = self.finder.link(demand.node)
        sides = [self._side(name, number) for number in range(len(SIDES))]
        return Layer(name, link.node, link.op, link.source, demand.role, sides[0], sides[1])

    def variables(self, labels: Integers) -> Integers:
        """The independent variables that move some of these labels."""
        return np.unique(self.graph.solution.basis[labels].indices).astype(np.int64)

    def movable(self, labels: Integers) -> Integers:
        """Those labels that some rescaling moves."""
        return np.asarray(labels[np.diff(self.graph.solution.basis.indptr)[labels] > 0])

    def pin_chain(self, name: str, number: int) -> tuple[Link, ...]:
        """From the layer to what pins its side (number 0 is the output), or a part of it."""
        demands = self.demands[name]
        labels = side_labels(demands, SIDES[number])
        fixed = next((d for d in demands if not d.terms), None)
        if fixed is not None:
            return self.finder.keeps(fixed.node, fixed.reason)
        stuck = np.setdiff1d(labels, self.movable(labels))
        node = next((d.node for d in demands if np.isin(side_labels([d], SIDES[number]), stuck).any()), 0)
        return self.finder.pin(stuck, node)

    def _side(self, name: str, number: int) -> Side:
        labels = side_labels(self.demands[name], SIDES[number])
        if not len(labels):
            return Side(Status.NONE, 0, 0)
        free = len(self.movable(labels))
        pinned_by = self.pin_chain(name, number)[-1] if free < len(labels) else None
        if not free:
            return Side(Status.PINNED, len(labels), 0, pinned_by=pinned_by)
        variables = self.variables(labels)
        tied = tuple(
            dict.fromkeys(o for v in variables.tolist() for o in self.owners[number].get(v, ()) if o != name)
        )
        degenerate = self.missing.reasons(labels)
        if free < len(labels):
            status = Status.PARTLY
        elif np.isin(variables, self.missing.variables).all():
            status = Status.DEGENERATE
        else:
            status = Status.TIED if tied else Status.FREE
        return Side(status, len(labels), free, len(variables), tied, pinned_by, degenerate)


def summarise(graph: RescalingGraph, describer: Describer | None = None) -> Summary:
    """The status of every layer, in network order."""
    describer = describer or Describer(graph)
    layers = tuple(describer.layer(name) for name in describer.layer_names())
    return Summary(graph, layers, degenerate_groups(graph, describer.missing.variables))


def demands_by_weight(graph: RescalingGraph) -> dict[str, list[Demand]]:
    """Weight name -> its demands, in network order, those that make it a layer first."""
    found: dict[str, list[Demand]] = {}
    for demand in sorted(graph.demands, key=lambda d: (d.role != Role.WEIGHT, d.node)):
        found.setdefault(demand.weight, []).append(demand)
    return dict(sorted(found.items(), key=lambda item: item[1][0].node))


def side_labels(demands: Sequence[Demand], sign: int) -> Integers:
    """Distinct labels of the terms whose coefficient has this sign."""
    found = [labels.ravel() for demand in demands for c, labels in demand.terms if c * sign > 0]
    if not found and sign > 0 and any(not demand.terms for demand in demands):
        return np.zeros(1, dtype=np.int64)  # the weight may not change at all
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
