"""Nodes in topological order: converters append casts at the end of the file, and runtimes sort them."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import onnx_ir

from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.names import captured_values, subgraphs_of, with_bodies
from graphnorm.frontends.onnx.slots import tensor_slots


def in_order(model: onnx_ir.Model, source: str) -> onnx_ir.Model:
    """The model itself if its nodes are sorted, else a sorted copy that shares its tensors.

    Raises:
        ModelFileError: as in `sort_nodes`.
    """
    _check_outputs(model, source)
    if not any(next(_too_early(graph), None) for graph in _tops(model)):
        return model
    copy = onnx_ir.from_proto(onnx_ir.to_proto(model))  # a clone would refuse the order
    for old, new in zip(list(tensor_slots(model)), list(tensor_slots(copy)), strict=True):
        new.store(old.tensor)
    copy.graph.meta.update(model.graph.meta)
    sort_nodes(copy, source)
    return copy


def sort_nodes(model: onnx_ir.Model, source: str) -> None:
    """Sort the nodes of a model, its bodies and functions in place, if they aren't sorted.

    Raises:
        ModelFileError: there is a cycle, a node reads what nothing defines, or an output is not defined.
    """
    _check_outputs(model, source)
    for graph in _tops(model):
        if next(_too_early(graph), None) is None:
            continue
        try:
            graph.sort()
        except ValueError as error:
            raise ModelFileError(f"{source}: the graph has a cycle: {_cycle(graph)}") from error
        for node, value in _too_early(graph):
            label = node.name or node.op_type
            raise ModelFileError(f"{source}: node {label!r} reads {value.name!r}, which nothing defines")


def _tops(model: onnx_ir.Model) -> list[onnx_ir.Graph]:
    return [model.graph, *(function.graph for function in model.functions.values())]


def _too_early(graph: onnx_ir.Graph) -> Iterator[tuple[onnx_ir.Node, onnx_ir.Value]]:
    """Nodes, in bodies too, that read a value before it is defined, if it is defined at all."""
    defined: set[onnx_ir.Value | None] = {None}

    def walk(part: onnx_ir.Graph) -> Iterator[tuple[onnx_ir.Node, onnx_ir.Value]]:
        defined.update(part.inputs)
        defined.update(part.initializers.values())
        for node in part:
            yield from ((node, value) for value in node.inputs if value is not None and value not in defined)
            for body in subgraphs_of(node):
                yield from walk(body)
            defined.update(node.outputs)

    return walk(graph)


def _check_outputs(model: onnx_ir.Model, source: str) -> None:
    for graph in _tops(model):
        for part, value in _undefined(graph, frozenset()):
            where = f" of the body {part.name!r}" if part is not graph else ""
            raise ModelFileError(f"{source}: output {value.name!r}{where} is never defined")


def _undefined(
    graph: onnx_ir.Graph, outer: frozenset[onnx_ir.Value]
) -> Iterator[tuple[onnx_ir.Graph, onnx_ir.Value]]:
    """Outputs, of bodies too, that are no result, no initializer and no input."""
    made = {value for node in graph for value in node.outputs}
    known = outer.union(made, graph.inputs, graph.initializers.values())
    yield from ((graph, value) for value in graph.outputs if value not in known)
    for node in graph:
        for body in subgraphs_of(node):
            yield from _undefined(body, known)


def _cycle(graph: onnx_ir.Graph) -> str:
    """The nodes of the first cycle."""
    for part in with_bodies(graph):
        nodes = list(part)
        maker = {out: index for index, node in enumerate(nodes) for out in node.outputs}
        reads = [[*node.inputs, *captured_values(node)] for node in nodes]
        needs = {i: [maker[value] for value in values if value in maker] for i, values in enumerate(reads)}
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            return " -> ".join(repr(nodes[i].name or nodes[i].op_type) for i in error.args[1])
    return repr(graph.name)
