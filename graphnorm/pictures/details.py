"""What a picture shows about each box and link on hover: layers, ties, and what pins the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphnorm.explain import Describer, Layer, Side
from graphnorm.explain import Link as Cause
from graphnorm.explain.status import Status
from graphnorm.pictures.flow import Box, Flow, Link, Strand
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.labels import FREE

_MOST_TIED = 6  # names in a tooltip


@dataclass(frozen=True, slots=True)
class LayerNote:
    """One weight: the status of its sides, and the causes of what is pinned, as text."""

    name: str
    output: str
    input: str
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoxNote:
    """One box: its operators with their places in the source, its layers, its other parameters."""

    title: str
    operators: tuple[str, ...]
    layers: tuple[LayerNote, ...]
    parameters: tuple[str, ...]
    same: tuple[str, ...]

    def text(self) -> str:
        """For a tooltip."""
        lines = [self.title, *self.operators]
        for layer in self.layers:
            lines += [f"{layer.name}: output {layer.output}; input {layer.input}", *layer.causes]
        if self.same:
            lines.append(f"also {', '.join(self.same)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


@dataclass(frozen=True)
class View:
    """Boxes and links, and what they say; nothing where `boxes` and `links` are empty."""

    flow: Flow
    boxes: tuple[BoxNote, ...] = ()
    links: tuple[tuple[str, ...], ...] = ()


class Notes:
    """Answers about one rescaling graph."""

    def __init__(self, describer: Describer) -> None:
        self.graph: RescalingGraph = describer.graph
        self._finder = describer.finder
        self._layers: dict[str, Layer] = {name: describer.layer(name) for name in describer.layer_names()}

    def view(self, flow: Flow) -> View:
        """A flow with its notes."""
        boxes = tuple(self.box(box) for box in flow.boxes)
        return View(flow, boxes, tuple(self.link(link) for link in flow.links))

    def box(self, box: Box) -> BoxNote:
        """Everything about a box, and the names of the boxes that it stands for."""
        network = self.graph.network
        operators = [
            f"{network.nodes[i].op} {network.nodes[i].label}{_place(network.nodes[i].source)}"
            for i in box.nodes
        ]
        layers = [_layer(self._layers[name]) for name in box.weights if name in self._layers]
        rest = [name for name in box.weights if name not in self._layers]
        parameters = [f"{name} {'×'.join(map(str, network.weights[name].shape))}".strip() for name in rest]
        same = [one.title for one in box.same]
        return BoxNote(box.title, tuple(operators), tuple(layers), tuple(parameters), tuple(same))

    def link(self, link: Link) -> tuple[str, ...]:
        """One line per strand; what pins them follows."""
        lines = [self.strand(strand) for strand in link.strands]
        return tuple(lines + (self._why(link) if any(s.group is None for s in link.strands) else []))

    def strand(self, strand: Strand) -> str:
        """What a strand is."""
        if strand.group is None:
            return f"{strand.scales:,} channels pinned"
        dead = f", {strand.degenerate:,} of them degenerate" if strand.degenerate else ""
        return (
            f"{strand.scales:,} scales of group {strand.group}, {self.graph.groups[strand.group].name}{dead}"
        )

    def _why(self, link: Link) -> list[str]:
        nodes = self.graph.network.nodes
        for name in link.values:
            labels = self.graph.scales.labels[name]
            labels = np.unique(labels[labels != FREE])
            fixed = labels[np.diff(self.graph.solution.basis.indptr)[labels] == 0]
            if len(fixed):
                reader = next((i for i, node in enumerate(nodes) if name in node.inputs), len(nodes))
                return [_cause(self._finder.pin(fixed, reader)[-1])]
        return []


def _layer(layer: Layer) -> LayerNote:
    pins = [side.pinned_by for side in (layer.output, layer.input) if side.pinned_by is not None]
    causes = dict.fromkeys(_cause(pin) for pin in pins)
    return LayerNote(layer.name, _side(layer.output), _side(layer.input), tuple(causes))


def _side(side: Side) -> str:
    if side.status is Status.NONE:
        return "none"
    share = (
        f"{side.free} of {side.channels} free"
        if side.status is Status.PARTLY
        else f"{side.status} ({side.channels})"
    )
    dead = "".join(f", {n} without a minimum: {reason}" for reason, n in side.degenerate.items())
    if not side.tied:
        return share + dead
    more = f" and {len(side.tied) - _MOST_TIED} more" if len(side.tied) > _MOST_TIED else ""
    return f"{share} with {', '.join(side.tied[:_MOST_TIED])}{more}{dead}"


def _cause(cause: Cause) -> str:
    return f"pinned by {cause}{_place(cause.source)}"


def _place(source: str) -> str:
    return f" [{source}]" if source else ""
