"""The minimal network around an operator, and what graphnorm says of it.

Every entry of each operand that moves has a scale of its own (or every channel, see `Operand.along`), and so
has every entry of each result:

    u_k = x_k * g_k,    y = op(u_1, .., u_n),    z = y * h

with network inputs x and weights g, h.  The rescalings of g and h that keep z are then exactly those that the
operator lets through: op(e^s u) = e^t op(u), where g moves by s and h by -t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphnorm.ir import Array, Graph, Node, Value
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.scales.registry import Registry
from graphnorm.util.typing import Floats
from tools.validation.case import Case


@dataclass(frozen=True)
class Claim:
    """The rescalings that the rules allow: columns of log-scales of operands (s) and of results (t)."""

    graph: RescalingGraph
    operands: Floats  # (entries of all gains of operands that move, rescalings)
    results: Floats  # (entries of all floating-point results, rescalings)


def minimal(case: Case, operands: list[Array | None], results: list[Array]) -> Graph:
    """The minimal network; arrays are those of one draw."""
    inputs: list[str] = []
    nodes: list[Node] = []
    weights: dict[str, Array] = {}
    constants: dict[str, Array] = {}
    arrays: dict[str, Array] = {}
    names: list[str] = []

    def multiply(first: str, second: str, out: str) -> None:
        arrays[out] = arrays[first] * arrays[second]
        nodes.append(Node(out, "Mul", (first, second), (out,)))

    for k, (operand, array) in enumerate(zip(case.operands, operands, strict=True)):
        names.append("" if array is None else f"u{k}")
        if array is None:
            continue
        if operand.kind in {"data", "zeros"}:
            inputs.append(f"x{k}")
            arrays[f"x{k}"], arrays[f"g{k}"] = array, np.ones(operand.gain_shape)
            weights[f"g{k}"] = arrays[f"g{k}"]
            multiply(f"x{k}", f"g{k}", f"u{k}" if operand.kind == "data" else f"v{k}")
            if operand.kind == "zeros":
                assert operand.value is not None
                constants[f"m{k}"] = arrays[f"m{k}"] = operand.value
                multiply(f"v{k}", f"m{k}", f"u{k}")
        else:
            arrays[f"u{k}"] = array
            if operand.kind == "input":
                inputs.append(f"u{k}")
            else:
                (weights if operand.kind == "weight" else constants)[f"u{k}"] = array
    ys = tuple(f"y{j}" for j in range(case.results))
    nodes.append(Node("op", case.op, tuple(names), ys, case.attributes))
    outputs = []
    is_expression = not inputs
    for y, array in zip(ys, results, strict=True):
        arrays[y] = array
        if array.dtype.kind != "f":
            outputs.append(y)
            continue
        weights[f"h{y}"] = arrays[f"h{y}"] = np.ones_like(array)
        if is_expression:  # the consumer of a weight expression
            inputs.append(f"e{y}")
            arrays[f"e{y}"] = np.ones_like(array)
            multiply(f"e{y}", y, f"f{y}")
        multiply(f"f{y}" if is_expression else y, f"h{y}", f"z{y}")
        outputs.append(f"z{y}")
    values = {name: Value(name, array.shape, array.dtype.name) for name, array in arrays.items()}
    graph = Graph(case.op, tuple(inputs), tuple(outputs), tuple(nodes), values, weights, constants)
    graph.verify()
    return graph


def claim(case: Case, operands: list[Array | None], results: list[Array], registry: Registry) -> Claim:
    """What the rules of `registry` allow in the minimal network."""
    graph = build(minimal(case, operands, results), registry)
    scales = log_scales(graph)
    nothing = np.zeros((0, graph.solution.count))
    moved = [
        scales[f"u{k}" if operand.kind == "weight" else f"g{k}"]
        for k, operand in enumerate(case.operands)
        if operand.moves
    ]
    taken = [-scales[f"hy{j}"] for j, array in enumerate(results) if array.dtype.kind == "f"]
    return Claim(graph, np.concatenate([nothing, *moved]), np.concatenate([nothing, *taken]))


def log_scales(graph: RescalingGraph) -> dict[str, Floats]:
    """For each weight: the log-scale of its entries under each independent rescaling."""
    count = graph.solution.count
    scales = {name: np.zeros((array.size, count)) for name, array in graph.network.weights.items()}
    for column in range(count):
        x = graph.log_scales(np.eye(count)[column])
        for demand in graph.demands:
            shape = graph.network.weights[demand.weight].shape
            index = demand.region(np.arange(int(np.prod(shape))).reshape(shape))
            scale = np.broadcast_to(graph.demand_scale(demand, x), index.shape)
            scales[demand.weight][index.ravel(), column] = scale.ravel()
    return scales
