"""From a rescaling graph to boxes and links.

A unit with weights starts a box, and so does one that joins tensors of several boxes.  What reads one box
only is folded into it: BatchNorm, activations, pools, data movement.  The quotient of the network by boxes
has no cycle: a fold adds no operand from elsewhere, and a unit is a run of the topological order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from graphnorm.pictures.flow import INPUT, JOIN, LAYER, OUTPUT, Box, Flow, Link, Part
from graphnorm.pictures.strands import StrandReader
from graphnorm.pictures.units import SILENT, Unit, Units
from graphnorm.pictures.wording import norm_text, operator_text, tidy
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.util.typing import Integers

_MOST_ENDS = 4  # more inputs or outputs than these share a box


def condense(graph: RescalingGraph, degenerate: Integers) -> Flow:
    """All boxes and links of a network, nothing collapsed; `degenerate` are variables without a minimiser."""
    return _Condenser(graph, StrandReader(graph, degenerate)).run()


@dataclass(slots=True)
class _Draft:
    """A box that grows."""

    title: str
    kind: str
    path: tuple[str, ...] = ()
    parent: tuple[str, ...] = ()
    parts: list[Part] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    weights: dict[str, None] = field(default_factory=dict)

    def finish(self) -> Box:
        parts = tidy(self.parts)
        return Box(self.title, self.kind, self.path, parts, tuple(self.nodes), tuple(self.weights))


class _Condenser:
    """The state of one walk."""

    def __init__(self, graph: RescalingGraph, reader: StrandReader) -> None:
        self.graph = graph
        self.network = graph.network
        self.reader = reader
        self._units = Units(graph)
        self._pinning = {pin.node for pin in graph.scales.constraints.rows if pin.labels.shape[1] == 1}
        self._drafts: list[_Draft] = []
        self._home: dict[str, int] = {}  # value -> draft that computes it
        self._reads: dict[tuple[int, int], dict[str, None]] = {}  # (source, target) -> values
        self._outputs = [self._units.origin(name) for name in graph.network.outputs]
        self._uses: dict[str, set[str]] = {}
        for node in graph.network.nodes:
            for name in self._units.data(node) if node.op != "Identity" else ():
                self._uses.setdefault(name, set()).add(node.name)

    def run(self) -> Flow:
        for title, members in _ends(self.network.inputs, "inputs"):
            self._drafts.append(_Draft(title, INPUT, parts=[Part("network input", -1, pins=True)]))
            self._home.update(dict.fromkeys(members, len(self._drafts) - 1))
        for unit in self._units:
            self._place(unit)
        data = [name for name in dict.fromkeys(self._outputs) if name in self._home]
        for title, members in _ends(data, "outputs"):
            self._drafts.append(_Draft(title, OUTPUT, parts=[Part("network output", -1, pins=True)]))
            for name in members:
                self._link(name, len(self._drafts) - 1)
        return self._finish()

    def _finish(self) -> Flow:
        used = sorted({end for pair in self._reads for end in pair})  # an input that is not read is omitted
        number = {old: new for new, old in enumerate(used)}
        links = [
            Link(number[source], number[target], self.reader.read(list(values)), tuple(values))
            for (source, target), values in sorted(self._reads.items())
        ]
        return Flow(tuple(self._drafts[old].finish() for old in used), tuple(links))

    def _place(self, unit: Unit) -> None:
        nodes = [self.network.nodes[i] for i in unit.nodes]
        inside = {name for node in nodes for name in node.outputs if name}
        reads = [name for node in nodes for name in self._units.data(node) if name not in inside]
        sources = {self._home[name] for name in reads}
        home = min(sources, default=0)
        if len(sources) != 1 or not self._folds(unit, self._drafts[home], reads):
            home = self._open(unit, reads)
        for name in reads:
            self._link(name, home)
        self._extend(self._drafts[home], unit, reads)
        self._home.update(dict.fromkeys(inside, home))

    def _folds(self, unit: Unit, source: _Draft, reads: Sequence[str]) -> bool:
        """Whether a unit that reads one box only becomes part of it."""
        if not unit.layer:
            within = unit.parent[: len(source.parent)] == source.parent
            return not unit.alone and (within or not unit.pools)
        own = {self.network.nodes[i].name for i in unit.nodes}
        only = all(self._uses[name] <= own and name not in self._outputs for name in reads)
        near = unit.parent == source.parent[: len(unit.parent)]  # not across modules: each keeps its name
        return unit.diagonal and only and near and source.kind != INPUT

    def _open(self, unit: Unit, reads: Sequence[str]) -> int:
        nodes = [self.network.nodes[i] for i in unit.nodes]
        named = next((node for node in nodes if self._units.multiplicative(node)), nodes[0])
        kind = LAYER if unit.layer or not reads else JOIN
        self._drafts.append(_Draft(".".join(unit.path) or named.label, kind, unit.path, unit.parent))
        return len(self._drafts) - 1

    def _extend(self, draft: _Draft, unit: Unit, reads: Sequence[str]) -> None:
        seam = self.reader.read(reads) if draft.nodes and unit.layer else ()
        seam = seam if any(strand.group is not None for strand in seam) else ()
        norm = norm_text([self.network.nodes[i] for i in unit.nodes]) if unit.layer else ""
        for i in unit.nodes:
            node = self.network.nodes[i]
            draft.nodes.append(i)
            weights = self._units.weights(node)
            draft.weights.update(dict.fromkeys(weights))
            multiplied = self._units.multiplicative(node)
            pins = i in self._pinning
            follows = bool(weights) and not multiplied and draft.kind == LAYER  # a bias is part of its layer
            if norm:
                continue
            if pins or multiplied or not (node.op in SILENT or follows):
                text = operator_text(self.graph, node, multiplied)
                draft.parts.append(Part(text, i, pins, seam if multiplied else (), bool(multiplied)))
                seam = () if multiplied else seam
        if norm:
            pins = any(i in self._pinning for i in unit.nodes)
            draft.parts.append(Part(norm, unit.nodes[-1], pins, seam, layer=True))

    def _link(self, value: str, target: int) -> None:
        if self._home[value] != target:
            self._reads.setdefault((self._home[value], target), {})[value] = None


def _ends(names: Sequence[str], together: str) -> Iterator[tuple[str, list[str]]]:
    """Titles and values of the boxes for network inputs or outputs."""
    if len(names) > _MOST_ENDS:
        yield f"{len(names)} {together}", list(names)
    else:
        yield from ((name, [name]) for name in names)
