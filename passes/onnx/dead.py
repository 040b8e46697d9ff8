"""Dead code in an ``onnx_ir.Model``: unused values do not block passes.

onnx_ir's own RemoveUnusedNodesPass also drops ``training_mode`` in some of its versions, which is another
function; optional outputs stay here.
"""

from __future__ import annotations

import onnx_ir

from graphnorm.frontends.onnx.names import is_constant, subgraphs_of, with_bodies
from graphnorm.passes.onnx.constants import Constants


def remove_dead_nodes(model: onnx_ir.Model) -> bool:
    """Remove nodes whose outputs are not read, and constants that only they read; whether there were any."""
    removed = False
    graphs = [*model.graph.subgraphs(), model.graph]
    while any(map(_sweep, graphs)):  # what a body no longer reads may be dead outside
        removed = True
    return removed


def _sweep(graph: onnx_ir.Graph) -> bool:
    dead = False
    for node in reversed(graph):
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            continue
        inner = [item for body in subgraphs_of(node) for part in with_bodies(body) for item in part]
        read = [value for item in (node, *inner) for value in item.inputs]
        for item in inner:  # else they go on reading what is outside
            for index in range(len(item.inputs)):
                item.replace_input_with(index, None)
        graph.remove(node, safe=True)
        for value in read:
            if value is not None and (value.is_initializer() or _is_constant(value)):
                Constants.drop_if_unused(value)
        dead = True
    return dead


def _is_constant(value: onnx_ir.Value) -> bool:
    node = value.producer()
    return node is not None and is_constant(node)
