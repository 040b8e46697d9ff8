"""Operators grouped by layer, however many operators a layer was lowered to.

A unit is a run of consecutive operators of one module that holds no other module (a Linear that became
MatMul and Add, a norm that became six operators), or a single operator.  Weight expressions belong to none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from graphnorm.ir import Node
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import CONTRACTIONS
from graphnorm.scales.demands import Role

SILENT = having(Trait.MOVES, without=Trait.ALONG_AXIS) | having(Trait.COPIES) | {"Constant", "Shape"}
NORMS = having(Trait.NORMALISES, without=Trait.UNARY)
LINEAR = SILENT | having(Trait.MOVES) | having(Trait.POINTWISE | Trait.LINEAR)
LINEAR |= having(Trait.POINTWISE | Trait.MULTILINEAR)
POOLS = having(Trait.REDUCES) | having(Trait.ALONG_AXIS, without=Trait.MOVES | Trait.NORMALISES)
OPAQUE = having(Trait.RECURRENT, without=Trait.CONTRACTS | Trait.ATTENDS) | having(Trait.REGIONS)
OPAQUE |= {"graphnorm::State"}


@dataclass(frozen=True, slots=True)
class Unit:
    """Node indices, and properties of the group.

    Attributes:
        path: the module's path, by components.
        parent: the path of the module around it; of the module itself for code between its submodules.
        layer: it has multiplicative weights.
        diagonal: these only scale channels (BatchNorm, LayerScale): it folds into the layer before.
        alone: it gets a box even if it has no weights (a product of activations).
        pools: it pools, reduces or resizes: it belongs to a box of its own module only.
    """

    nodes: tuple[int, ...]
    path: tuple[str, ...]
    parent: tuple[str, ...]
    layer: bool
    diagonal: bool
    alone: bool
    pools: bool


class Units:
    """Splits a network into units."""

    def __init__(self, graph: RescalingGraph) -> None:
        self.graph = graph
        self.nodes = graph.network.nodes
        self._producers = graph.network.producers()
        self._multiplies = {d.weight for d in graph.demands if d.role == Role.WEIGHT}

    def __iter__(self) -> Iterator[Unit]:
        data = [i for i, node in enumerate(self.nodes) if self._belongs(node)]
        paths = {i: module_path(self.nodes[i]) for i in data}
        inner = {path[:n] for path in paths.values() for n in range(1, len(path))}

        def key(index: int) -> object:
            path = paths[index]
            return path if path and path not in inner else index

        for _, run in groupby(data, key):
            members = tuple(run)
            path = paths[members[0]]
            around = path in inner and not any(self.nodes[i].op in NORMS for i in members)
            yield self._unit(members, path, path if around else path[:-1])

    def data(self, node: Node) -> list[str]:
        """Operands that depend on the network's inputs, by their first name."""
        found = (self.origin(name) for name in node.inputs if name in self.graph.scales.labels)
        return list(dict.fromkeys(found))

    def origin(self, name: str) -> str:
        """The value behind Identity operators: a skip branch starts there, not in a module that copied it."""
        while (maker := self._producers.get(name)) is not None and maker.op == "Identity":
            name = maker.inputs[0]
        return name

    def _belongs(self, node: Node) -> bool:
        return node.op in OPAQUE or (node.op != "Identity" and bool(self.data(node)))

    def weights(self, node: Node) -> list[str]:
        """Parameters that a node reads, directly or through an expression."""
        return list(dict.fromkeys(leaf for name in node.inputs for leaf in self._leaves.get(name, ())))

    def multiplicative(self, node: Node) -> list[str]:
        """Parameters that multiply the data: kernels, matrices, gains."""
        found = self.weights(node)
        if node.op in CONTRACTIONS or node.op in OPAQUE or node.op in self.graph.scales.unknown:
            return found
        if node.op in NORMS:
            return found[:1]
        if node.op in {"Mul", "Div"} and not any(name in self._curved for name in node.inputs):
            return [name for name in found if name in self._multiplies]
        return []

    @cached_property
    def _leaves(self) -> dict[str, tuple[str, ...]]:
        """Weight expression -> the parameters that it is made of."""
        leaves: dict[str, tuple[str, ...]] = {name: (name,) for name in self.graph.network.weights}
        for node in self.nodes:
            if not self.data(node):
                found = tuple(dict.fromkeys(leaf for name in node.inputs for leaf in leaves.get(name, ())))
                leaves.update(dict.fromkeys(node.outputs, found))
        return leaves

    @cached_property
    def _curved(self) -> set[str]:
        """Weight expressions that are no linear function of their parameters (tables of sines)."""
        found: set[str] = set()
        for node in self.nodes:
            if not self.data(node) and (node.op not in LINEAR or found.intersection(node.inputs)):
                found.update(node.outputs)
        return found

    def _unit(self, members: tuple[int, ...], path: tuple[str, ...], parent: tuple[str, ...]) -> Unit:
        nodes = [self.nodes[i] for i in members]
        layers = [node for node in nodes if self.multiplicative(node) or node.op in OPAQUE]
        diagonal = bool(layers) and all(n.op in {"BatchNormalization", "Mul", "Div"} for n in layers)
        products = any(n.op in CONTRACTIONS | {"Attention"} and len(self.data(n)) > 1 for n in nodes)
        pools = any(node.op in POOLS for node in nodes)
        return Unit(
            members, path, parent, bool(layers), diagonal and len(nodes) == len(layers), products, pools
        )


def module_path(node: Node) -> tuple[str, ...]:
    """Components of the path of the module that a node belongs to; none if it isn't known.

    torch names modules (``layer1.0.conv1``); exported ONNX names operators by module
    (``/layer1/layer1.0/conv1/Conv``).  Other ONNX names say nothing about modules.
    """
    if "/" in node.label:
        modules = [part for part in node.label.split("/") if part]
        if modules[-1].startswith(node.op):
            modules.pop()
        kept = [
            one for one, after in zip(modules, [*modules[1:], ""], strict=False) if not _repeats(one, after)
        ]
        return tuple(component for part in kept for component in part.split("."))
    if not node.scope or (node.scope == node.name and "." in node.scope):
        return ()
    return tuple(node.scope.split("."))


def _repeats(name: str, after: str) -> bool:
    return after.startswith(f"{name}.")
