"""Bounds that stand for infinity, distinguished from those that do not.

``nan_to_num``, ``clamp(x, -finfo.max, finfo.max)`` and, in ONNX, every bound that a Clip leaves out turn
infinities into the largest numbers of a format, and those follow no rescaling.  Where the operand is shown to
be finite (see `finite`), such a bound is never reached without overflow: it is removed from the Clip.
Elsewhere it is kept, or written out.  So behind the front ends an absent bound is none, and any number is
one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphnorm.frontends.torch.finite import Finite, bounds_of, huge
from graphnorm.ir import Array, Graph, Node, Value, float_format, float_type

_BOUNDS = (("min", 1, -1.0), ("max", 2, 1.0))  # attribute, operand, sign


def settle_bounds(graph: Graph, absent_is_largest: bool = False) -> Graph:
    """The graph with a bound in each Clip where there is one, and nowhere else.

    Args:
        graph: a network as a front end reads it.
        absent_is_largest: whether a Clip without a bound cuts at the largest number, as ONNX has it.
    """
    clips = [
        node
        for node in graph.nodes
        if node.op == "Clip" and graph.values[node.inputs[0]].is_float
        and (_huge(graph, node) or (absent_is_largest and _open(graph, node)))
    ]  # fmt: skip
    if not clips:
        return graph
    finite = Finite(graph)
    settled: dict[str, Node] = {}
    constants, values = dict(graph.constants), dict(graph.values)
    for node in clips:
        if finite.holds(node.inputs[0]):
            settled[node.name] = _without(node, _huge(graph, node))
        elif absent_is_largest and _open(graph, node):
            settled[node.name] = _closed(node, constants, values)
    nodes = tuple(settled.get(node.name, node) for node in graph.nodes)
    return replace(graph, nodes=nodes, constants=constants, values=values)


def _huge(graph: Graph, node: Node) -> list[int]:
    """Which bounds may stand for infinity."""
    limit = huge(graph.values[node.inputs[0]].dtype)
    bounds = bounds_of(graph, node)
    return [i for i, bound in enumerate(bounds) if bound is not None and limit < abs(bound) < np.inf]


def _open(graph: Graph, node: Node) -> bool:
    """Whether a bound is absent, and none is given that fixes the scale in any case."""
    bounds = bounds_of(graph, node)
    loose = all(bound is None or bound == 0 or np.isinf(bound) for bound in bounds)
    return loose and any(_is_absent(node, attribute, index) for attribute, index, _ in _BOUNDS)


def _is_absent(node: Node, attribute: str, index: int) -> bool:
    return attribute not in node.attributes and not "".join(node.inputs[index : index + 1])


def _without(node: Node, which: list[int]) -> Node:
    """The Clip without bounds that only infinities, or overflow, would meet."""
    inputs, attributes = list(node.inputs), dict(node.attributes)
    for attribute, index, _ in (_BOUNDS[i] for i in which):
        attributes.pop(attribute, None)
        inputs[index : index + 1] = [""] * (index < len(inputs))
    return replace(node, inputs=tuple(inputs), attributes=attributes)


def _closed(node: Node, constants: dict[str, Array], values: dict[str, Value]) -> Node:
    """The Clip with the bounds that ONNX means where there are none."""
    inputs = [*node.inputs, "", ""][:3]
    dtype = values[node.inputs[0]].dtype
    for attribute, index, sign in _BOUNDS:
        if _is_absent(node, attribute, index):
            name = f"{node.outputs[0]}.{attribute} of {dtype}"
            constants[name] = np.array(sign * float_format(dtype).largest, float_type(dtype))
            values[name] = Value(name, (), dtype)
            inputs[index] = name
    return replace(node, inputs=tuple(inputs))
