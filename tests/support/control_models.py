"""Small ONNX models with control flow, in float64, and their random rescalings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.frontends.onnx.load import to_model, to_proto
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.ir import Array
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.weights.coefficients import rescale

DOUBLE, INT64, BOOL = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL
BATCH, INPUTS, HIDDEN, OUTPUTS, STEPS = 2, 3, 5, 4, 6
GENERATOR = np.random.default_rng(0)

Shape = Sequence[int | str] | None
Feeds = Mapping[str, Any]


def value(name: str, shape: Shape = None, kind: int = DOUBLE) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int, kind: type[Any] = np.float64) -> onnx.TensorProto:
    return numpy_helper.from_array(GENERATOR.standard_normal(shape).astype(kind), name)


def number(name: str, array: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array)))


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Operands as words; ``-`` is an absent one."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def body(
    nodes: Sequence[onnx.NodeProto],
    outputs: str,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.GraphProto:
    results = [helper.make_empty_tensor_value_info(name) for name in outputs.split()]
    return helper.make_graph(nodes, "body", inputs, results, weights)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    results = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph(nodes, "net", inputs, results, weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


def analysed(proto: onnx.ModelProto) -> RescalingGraph:
    return build(read_onnx(proto))


def distance(proto: onnx.ModelProto, *feeds: Feeds, graph: RescalingGraph | None = None) -> float:
    """Largest relative change of the output under a random element of the rescaling group, in float64."""
    graph = graph or analysed(proto)
    assert graph.dimension
    source = to_model(proto, "net")
    z = np.random.default_rng(3).normal(size=graph.solution.count)
    other = rescale_onnx(source, rescale(graph, z).weights)
    sessions = [InferenceSession(to_proto(found).SerializeToString()) for found in (source, other)]
    largest = 0.0
    for feed in feeds:
        arrays = {name: np.asarray(array) for name, array in feed.items()}
        before, after = (np.asarray(session.run(None, arrays)[0]) for session in sessions)
        assert np.linalg.norm(before) > 0
        largest = max(largest, float(np.linalg.norm(after - before) / np.linalg.norm(before)))
    return largest


def rows(*shape: int) -> Array:
    return np.asarray(GENERATOR.standard_normal(shape))


X = value("x", [BATCH, INPUTS])
FLAG = value("flag", [], BOOL)
BOTH = ({"x": rows(BATCH, INPUTS), "flag": True}, {"x": rows(BATCH, INPUTS), "flag": False})


def dense(activation: str = "Relu", weights: str = "v", result: str = "h") -> onnx.GraphProto:
    """A layer as a branch, with a weight of its own."""
    nodes = [node("MatMul", f"x {weights}", "p"), node(activation, "p", result)]
    return body(nodes, result, weights=[weight(weights, INPUTS, HIDDEN)])


def either(then: onnx.GraphProto, other: onnx.GraphProto, flag: str = "flag") -> list[onnx.NodeProto]:
    choice = node("If", flag, "h", name="either", then_branch=then, else_branch=other)
    return [choice, node("MatMul", "h out", "y")]


def branches(then: onnx.GraphProto | None = None, other: onnx.GraphProto | None = None) -> onnx.ModelProto:
    """A hidden layer that one of two branches computes."""
    nodes = either(then or dense(), other or dense())
    return model(nodes, [X, FLAG], [weight("out", HIDDEN, OUTPUTS)])


def recurrent(activation: str = "Relu", weights: str = "r") -> onnx.GraphProto:
    """state -> activation(x W + state R), and the state as an element of the result."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("MatMul", f"state {weights}", "b"),
        node("Add", "a b", "c"),
        node(activation, "c", "next"),
        node("Identity", "next", "element"),
        node("Identity", "go", "again"),
    ]
    inputs = [value("i", [], INT64), value("go", [], BOOL), value("state")]
    return body(nodes, "again next element", inputs, [weight(weights, HIDDEN, HIDDEN)])


def loop(inside: onnx.GraphProto, initial: str = "zeros", count: str = "count") -> onnx.ModelProto:
    nodes = [
        number("zeros", np.zeros((BATCH, HIDDEN))),
        node("Loop", f"{count} - {initial}", "last all", name="loop", body=inside),
        node("MatMul", "last out", "y"),
    ]
    weights = [weight("w", INPUTS, HIDDEN), weight("out", HIDDEN, OUTPUTS)]
    return model(nodes, [X, value("count", [], INT64)], weights)


COUNTS = [{"x": rows(BATCH, INPUTS), "count": np.int64(count)} for count in (1, 2, 5)]
