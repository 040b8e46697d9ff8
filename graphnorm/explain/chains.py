"""Chains of operators through the network: from a layer to what pins it, or to a layer that it is tied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphnorm.explain.derivations import Equations
from graphnorm.explain.routes import SHARED, Link, Routes
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.constraints import Rows
from graphnorm.scales.demands import Role
from graphnorm.util.typing import Integers

Chain = tuple[Link, ...]


class ChainFinder:
    """Chains of one rescaling graph; what the searches share is set up once."""

    def __init__(self, graph: RescalingGraph) -> None:
        self._graph = graph
        self._equations = Equations(graph)
        self._routes = Routes(graph)
        self._users = self._by_shared_weight()

    def link(self, node: int) -> Link:
        """The operator at the start of a chain."""
        return self._routes.link(node)

    def keeps(self, node: int, reason: str) -> Chain:
        """The operator that needs a weight as it is."""
        return (self._routes.link(node, reason or "keeps the weight as it is"),)

    def pin(self, labels: Integers, node: int) -> Chain:
        """From a layer to the nearest operator that pins one of these labels.

        Args:
            labels: pinned labels of a side of the layer.
            node: the operator that uses the weight.
        """
        label = self._equations.nearest(labels)
        links = [self._routes.link(node)]
        if label is None:  # no equation: the operand kept its scale before it came here
            behind = self._routes.to_origin(node)
            return (*links, *behind) if behind else self.keeps(node, self._routes.own_reason(node))
        while label is not None:
            fixing = self._equations.fixing(label)
            by_node = {self._equations.batch(equation).node: equation for equation in reversed(fixing)}
            node = self._extend(links, node, sorted(by_node), label)
            equation = by_node[node]
            links[-1] = _with_reason(links[-1], self._equations.batch(equation).reason)
            label = self._equations.before(label, equation)
        return (*links[:-1], *self._behind(equation, links[-1]))

    def tie(self, label: int, node: int, partners: Sequence[tuple[Integers, int]]) -> tuple[int, Chain]:
        """From a layer to the nearest of its partners: which one (-1: none), and the operators between.

        Args:
            label: of the layer's side; it can move.
            node: the operator that uses the weight.
            partners: labels and operator of each partner.
        """
        found = self._equations.tie_path(label, [labels for labels, _ in partners])
        if found is None:
            return -1, ()
        number, path = found
        links = [self._routes.link(node)]
        for equation, after in path:
            batch = self._equations.batch(equation)
            node = self._extend(links, node, [batch.node], label)
            links[-1] = _with_reason(links[-1], batch.reason)
            label = after
        self._extend(links, node, [partners[number][1]], label)
        return number, tuple(links)

    def _extend(self, links: list[Link], start: int, ends: Sequence[int], label: int) -> int:
        """Go on to the nearest of `ends` along tensors that carry `label`; returns which it is."""
        shared = {user for node in (start, *ends) for user in self._users.get(node, ())}
        way = self._routes.to_nearest(start, ends, label, sorted(shared))
        links += [self._routes.link(node, "", direction) for node, direction in way]
        return way[-1][0] if way else start

    def _behind(self, equation: int, last: Link) -> list[Link]:
        """The last operator and, if it pins only through its other operand, what pinned that."""
        batch = self._equations.batch(equation)
        weight = self._shared_weight(batch)
        if weight:
            return [last, *self._other_use(weight, batch.node)]
        nodes = self._graph.network.nodes
        if batch.node >= len(nodes):
            return [last]
        ties = batch.labels.shape[1] > 1  # a tie to label 0 can also look like a pin
        if not ties and self._routes.pins_by_itself(nodes[batch.node], batch.reason):
            return [last]
        behind = self._routes.to_origin(batch.node)
        if not behind and self._routes.adds_constant(nodes[batch.node]):
            return [_with_reason(last, "the other operand is a constant")]
        return [last, *behind]

    def _by_shared_weight(self) -> dict[int, set[int]]:
        """Node that states that uses of a weight agree -> all nodes that use the weight."""
        users: dict[str, set[int]] = {}
        for demand in self._graph.scales.demands:
            users.setdefault(demand.weight, set()).add(demand.node)
        found: dict[int, set[int]] = {}
        for batch in self._equations.batches:
            weight = self._shared_weight(batch)
            if weight:
                found.setdefault(batch.node, set()).update(users[weight])
        return found

    def _shared_weight(self, batch: Rows) -> str:
        """The weight whose uses an equation reconciles, if it is of that kind."""
        weight, used, _ = batch.reason.partition(" is used more than once")
        return weight if used else ""

    def _other_use(self, weight: str, node: int) -> list[Link]:
        """The operator that needs the weight as it is."""
        for demand in self._graph.scales.demands:
            if demand.weight == weight and demand.role == Role.FIXED and demand.node != node:
                return [self._routes.link(demand.node, demand.reason or "keeps the weight as it is", SHARED)]
        return []


def _with_reason(link: Link, reason: str) -> Link:
    """The link with one more reason; a network output needs none."""
    said = [link.reason] if link.reason else []
    return replace(link, reason="; ".join(dict.fromkeys((*said, reason)))) if link.node else link
