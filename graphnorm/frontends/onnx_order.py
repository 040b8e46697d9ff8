"""Nodes in topological order: converters append casts at the end of the file, and runtimes sort them."""

from __future__ import annotations

import onnx_ir

from graphnorm.frontends.onnx_names import subgraphs_of
from graphnorm.frontends.onnx_slots import tensor_slots


def in_order(model: onnx_ir.Model) -> onnx_ir.Model:
    """The model itself if its nodes are sorted, else a sorted copy that shares its tensors."""
    if all(map(_is_sorted, _tops(model))):
        return model
    copy = onnx_ir.from_proto(onnx_ir.to_proto(model))  # a clone would refuse the order
    for old, new in zip(list(tensor_slots(model)), list(tensor_slots(copy)), strict=True):
        new.store(old.tensor)
    copy.graph.meta.update(model.graph.meta)
    sort_nodes(copy)
    return copy


def sort_nodes(model: onnx_ir.Model) -> None:
    """Sort a model's nodes in place; a graph with a cycle, which has no order, stays as it is."""
    for graph in _tops(model):
        if not _is_sorted(graph):
            try:
                graph.sort()
            except ValueError:  # a cycle: the reading names it
                continue


def _tops(model: onnx_ir.Model) -> list[onnx_ir.Graph]:
    return [model.graph, *(function.graph for function in model.functions.values())]


def _is_sorted(graph: onnx_ir.Graph) -> bool:
    """Whether each node, in bodies too, reads only what is computed before it."""
    done: set[onnx_ir.Node | None] = {None}

    def walk(part: onnx_ir.Graph) -> bool:
        for node in part:
            if any(value is not None and value.producer() not in done for value in node.inputs):
                return False
            if not all(walk(body) for body in subgraphs_of(node)):
                return False
            done.add(node)
        return True

    return walk(graph)
