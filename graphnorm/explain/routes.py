"""The path of a scale through the network: the operators between two nodes whose tensors carry one label."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphnorm.ir import Node
from graphnorm.ops.table import has
from graphnorm.ops.traits import Trait
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.labels import FREE, PINNED
from graphnorm.scales.registry import Rule
from graphnorm.scales.rules.table import default_registry

_JOINING = (  # operators whose operands have one scale
    Trait.POINTWISE | Trait.HOMOGENEOUS, Trait.COMPARES, Trait.MOVES | Trait.ALONG_AXIS,
)  # fmt: skip
WITH, AGAINST, SHARED = "→", "←", "·"  # data flow; · joins nodes that share a weight


@dataclass(frozen=True, slots=True)
class Link:
    """One operator of a chain.

    Attributes:
        node: the layer's path, or the node's name.
        op: the operator.
        reason: what it does to the scale; empty where the scale passes through.
        source: ``folder/file.py:line`` of the user's code, where known.
        name: the node's name in the intermediate representation.
        direction: ``→`` reached with the flow of data, ``←`` against it, ``·`` through a shared weight;
            empty for the first.
    """

    node: str
    op: str
    reason: str
    source: str = ""
    direction: str = ""
    name: str = ""

    def __str__(self) -> str:
        said = f"{self.op} {self.node}".strip()
        return f"{said}: {self.reason}" if self.reason else said


class Routes:
    """Searches over the operators of one network."""

    def __init__(self, graph: RescalingGraph) -> None:
        self._labels = graph.scales.labels
        self._network = graph.network
        self._producers = self._network.producers()
        self._consumers = self._network.consumers()
        self._index = {node.name: index for index, node in enumerate(self._network.nodes)}
        self._registry = default_registry()

    def link(self, index: int, reason: str = "", direction: str = "") -> Link:
        """The link of node `index`; the last index stands for the network's outputs."""
        nodes = self._network.nodes
        if index >= len(nodes):
            return Link("", "network output", "", "", direction)
        node = nodes[index]
        return Link(node.label, node.op, reason, node.source, direction, node.name)

    def to_nearest(
        self, start: int, ends: Sequence[int], label: int, shared: Sequence[int] = ()
    ) -> list[tuple[int, str]]:
        """Shortest path from a node to one of `ends` over tensors that carry `label`: (node, direction).

        Without the start.  From one of the nodes in `shared`, which use the same weight, the path may
        continue from any other. Where there is none (labels inside an operator) the path is one step.
        """
        if start in ends:
            return []
        before: dict[int, tuple[int, str]] = {start: (start, "")}
        pending = deque([start])
        while pending:
            current = pending.popleft()
            meeting = [(other, SHARED) for other in shared] if current in shared else []
            for other, direction in (*self._neighbours(current, label), *meeting):
                if other not in before:
                    before[other] = (current, direction)
                    if other in ends:
                        return self._way(before, other)
                    pending.append(other)
        return [(ends[0], SHARED)]

    @staticmethod
    def _way(before: Mapping[int, tuple[int, str]], end: int) -> list[tuple[int, str]]:
        way = []
        while before[end][1]:
            way.append((end, before[end][1]))
            end = before[end][0]
        return way[::-1]

    def _neighbours(self, index: int, label: int) -> Iterator[tuple[int, str]]:
        nodes = self._network.nodes
        inputs = nodes[index].inputs if index < len(nodes) else self._network.outputs
        outputs = nodes[index].outputs if index < len(nodes) else ()
        for name in dict.fromkeys(outputs):
            if self._carries(name, label):
                for node in self._consumers.get(name, ()):
                    yield self._index[node.name], WITH
                if name in self._network.outputs:
                    yield len(nodes), WITH
        for name in dict.fromkeys(inputs):
            if name in self._producers and self._carries(name, label):
                yield self._index[self._producers[name].name], AGAINST

    def _carries(self, name: str, label: int) -> bool:
        return name in self._labels and bool((self._labels[name] == label).any())

    def to_origin(self, index: int) -> list[Link]:
        """Why an operand of a node keeps its scale from the start: back to the operator that fixed it.

        Empty if no tensor that the node computes with is so.
        """
        nodes = self._network.nodes
        names = nodes[index].inputs if index < len(nodes) else self._network.outputs
        name = next(self._kept(names), "")
        links: list[Link] = []
        while name:
            if name not in self._producers:
                links.append(Link(name, "network input", "", "", AGAINST))
                break
            maker = self._producers[name]
            name = "" if self._ends(maker) else next(self._kept(maker.inputs), "")
            rule = self._registry.get(maker.op)
            reason = "" if name else rule.reason if rule else "unknown operator"
            links.append(self.link(self._index[maker.name], reason, AGAINST))
        return links

    def _kept(self, names: tuple[str, ...]) -> Iterator[str]:
        """The float tensors among `names` that carry label 0 itself."""
        for name in names:
            if name and self._network.values[name].is_float and self._carries(name, PINNED):
                yield name

    def _ends(self, node: Node) -> bool:
        rule = self._registry.get(node.op)
        if rule is None or _ends(node, rule):
            return True
        operands = [name for name in node.inputs if name and self._network.values[name].is_float]
        moving = any(name in self._labels and not self._carries(name, PINNED) for name in operands)
        return moving and rule.signature.endswith("-> 0")

    def pins_by_itself(self, node: Node, reason: str) -> bool:
        """Whether an equation of this reason pins an operand, rather than tie it to a pinned one."""
        rule = self._registry.get(node.op)
        return rule is None or rule.fixes or reason != rule.reason

    def adds_constant(self, node: Node) -> bool:
        """Whether the node adds to, or compares with, or joins to a constant float tensor."""
        network = self._network
        constant = any(name in network.constants and network.values[name].is_float for name in node.inputs)
        return constant and node.op in self._registry and any(has(node.op, traits) for traits in _JOINING)

    def own_reason(self, index: int) -> str:
        """Why an operator's operand has no scale though no equation says so; empty if that is not known."""
        nodes = self._network.nodes
        if index >= len(nodes):
            return ""
        if any(self._carries(name, FREE) for name in nodes[index].inputs):
            return "reads entries that are always 0"
        rule = self._registry.get(nodes[index].op)
        return rule.reason if rule is not None and _ends(nodes[index], rule) else ""


def _ends(node: Node, rule: Rule) -> bool:
    """Whether results are pinned whatever the operands are."""
    return rule.fixes or has(node.op, Trait.NORMALISES)
