"""Other spellings of a network, known to be the same function of reals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphnorm.ir import Graph, Node

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "Sum", "Mean", "Equal", "And", "Or", "Xor"})
_MIRRORED = {
    "Less": "Greater",
    "Greater": "Less",
    "LessOrEqual": "GreaterOrEqual",
    "GreaterOrEqual": "LessOrEqual",
}


def spellings(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """What a spelling does, and the network in it."""
    yield "the same with Identity after each operator", _with_identities(graph)
    (node,) = (one for one in graph.nodes if one.name == "op")
    held = [name for name in node.inputs if name in graph.weights or name in graph.constants]
    if len(node.inputs) != 2 or len(held) > 1:  # two numbers are told apart by their place alone
        return
    op = _MIRRORED.get(node.op, node.op if node.op in COMMUTATIVE else "")
    if op:
        turned = replace(node, op=op, inputs=node.inputs[::-1])
        nodes = tuple(turned if one is node else one for one in graph.nodes)
        yield f"the same with {op} of the operands in the other order", replace(graph, nodes=nodes)


def _with_identities(graph: Graph) -> Graph:
    nodes: list[Node] = []
    names: dict[str, str] = {}
    values = dict(graph.values)
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(names.get(name, name) for name in node.inputs)))
        for name in filter(None, node.outputs):
            names[name] = f"{name}.same"
            values[names[name]] = replace(values[name], name=names[name])
            nodes.append(Node(names[name], "Identity", (name,), (names[name],)))
    outputs = tuple(names.get(name, name) for name in graph.outputs)
    return replace(graph, nodes=tuple(nodes), values=values, outputs=outputs)
