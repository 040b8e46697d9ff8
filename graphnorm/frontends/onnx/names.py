"""One name per value of a model: bodies of control flow join the main graph, and names in them may repeat."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

_KEY = "graphnorm.name"  # in `Value.meta`, which clones keep and no file stores


class Names:
    """The name of each value in the flat graph; the main graph keeps its own.

    Equal models get equal names, so that emission finds the tensor that the front end read.
    """

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self._names: dict[onnx_ir.Value, str] = {}
        self._graphs = list(with_bodies(graph))
        defined = [(part, value) for part in self._graphs for value in definitions(part)]
        marks = [(value, value.meta[_KEY]) for _, value in defined if _KEY in value.meta]
        self._names.update((value, str(name)) for value, name in marks)
        marked = set(self._names.values())
        self._taken = set(marked)
        for part, value in defined:
            if value not in self._names and value.name:
                keeps = part is graph and value.name not in marked
                self._names[value] = value.name if keeps else self.unused(value.name)
                self._taken.add(self._names[value])

    def __call__(self, value: onnx_ir.Value | None) -> str:
        """The value's name, "" for an absent one."""
        return "" if value is None else self._names.get(value, value.name or "")

    def unused(self, name: str) -> str:
        """The name, with a number if the model has it already."""
        found, number = name, 2
        while found in self._taken:
            found, number = f"{name}_{number}", number + 1
        return found

    def define(self, value: onnx_ir.Value) -> bool:
        """Whether the value is defined in some graph of the model."""
        return value in self._names

    def tensors(self) -> dict[str, onnx_ir.Value]:
        """Initializers and results of `Constant` nodes, by name."""
        found: dict[str, onnx_ir.Value] = {}
        for graph in self._graphs:
            found |= {self(value): value for value in graph.initializers.values()}
            found |= {self(node.outputs[0]): node.outputs[0] for node in graph if is_constant(node)}
        return found

    def mark(self) -> set[str]:
        """Make the names of tensors survive changes of the model around them; returns them."""
        tensors = self.tensors()
        for name, value in tensors.items():
            value.meta[_KEY] = name
        return set(tensors)


def is_constant(node: onnx_ir.Node) -> bool:
    """Whether the node is ONNX's `Constant`, which is a value, not a step."""
    return node.op_type == "Constant" and not node.domain


def subgraphs_of(node: onnx_ir.Node) -> list[onnx_ir.Graph]:
    """The bodies of a control-flow node."""
    found: list[onnx_ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == onnx_ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def with_bodies(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Graph]:
    """A graph and all graphs in it, at any depth."""
    yield graph
    for node in graph:
        for body in subgraphs_of(node):
            yield from with_bodies(body)


def definitions(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    """The values that a graph itself defines."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def captured_values(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """Values from the graphs around `node` that graphs in it read, at any depth."""
    inside = [part for graph in subgraphs_of(node) for part in with_bodies(graph)]
    own = {value for part in inside for value in definitions(part)}
    reads = [value for part in inside for inner in part for value in inner.inputs if value is not None]
    return list(dict.fromkeys(value for value in reads if value.name and value not in own))
