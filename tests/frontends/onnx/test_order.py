"""Nodes out of topological order, in the main graph, in bodies and in functions, are sorted."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.api.verdicts import CERTAIN
from graphnorm.frontends.onnx.load import load_model, to_model
from graphnorm.frontends.onnx.order import in_order

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "a": GENERATOR.normal(size=(4, 6)).astype(np.float32) * 3,
    "b": GENERATOR.normal(size=(6, 4)).astype(np.float32),
}


def layers(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", [source, "a"], [f"{result}_h"], name="first"),
        helper.make_node("Relu", [f"{result}_h"], [f"{result}_r"]),
        helper.make_node("MatMul", [f"{result}_r", "b"], [result], name="last"),
    ]


def built(nodes: list[onnx.NodeProto], functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


def plain(order: tuple[int, ...]) -> onnx.ModelProto:
    nodes = layers("x", "y")
    return built([nodes[i] for i in order])


def in_branches(order: tuple[int, ...]) -> onnx.ModelProto:
    """The branches' nodes out of order, and the condition after the node that reads it."""
    bodies = {}
    for name in ("then_branch", "else_branch"):
        nodes = layers("x", name)
        outputs = [helper.make_tensor_value_info(name, FLOAT, None)]
        bodies[name] = helper.make_graph([nodes[i] for i in order], name, [], outputs)
    condition = helper.make_node("Greater", ["total", "zero"], ["condition"])
    total = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)
    zero = helper.make_node("Constant", [], ["zero"], value_float=0.0)
    nodes = [zero, total, condition, helper.make_node("If", ["condition"], ["y"], **bodies)]
    return built(nodes if order == (0, 1, 2) else nodes[::-1])


def in_loop(order: tuple[int, ...]) -> onnx.ModelProto:
    """A body out of order that also reads an outer value computed later in the file."""
    inner = layers("state", "next")
    add = helper.make_node("Add", ["next", "outer"], ["following"])
    kept = helper.make_node("Identity", ["go"], ["on"])
    body = helper.make_graph(
        [add, *[inner[i] for i in order], kept] if order != (0, 1, 2) else [*inner, add, kept],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [2, 4]),
        ],
        [
            helper.make_tensor_value_info("on", BOOL, []),
            helper.make_tensor_value_info("following", FLOAT, [2, 4]),
        ],
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["outer"]),
        helper.make_node("Constant", [], ["trips"], value_int=3),
        helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body),
    ]
    return built(nodes if order == (0, 1, 2) else nodes[::-1])


def in_function(order: tuple[int, ...]) -> onnx.ModelProto:
    nodes = layers("s", "t")
    function = helper.make_function(
        "own", "net", ["s", "a", "b"], ["t"], [nodes[i] for i in order], [helper.make_opsetid("", 17)]
    )
    calls = [
        helper.make_node("net", ["x", "a", "b"], ["z"], domain="own"),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    return built(calls if order == (0, 1, 2) else calls[::-1], (function,))


MAKERS: list[Callable[[tuple[int, ...]], onnx.ModelProto]] = [plain, in_branches, in_loop, in_function]
ORDERS = [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)]


@pytest.mark.parametrize("order", ORDERS)
def test_order_is_no_difference(order: tuple[int, ...]) -> None:
    sorted_model, other = plain((0, 1, 2)), plain(order)
    assert graphnorm.trace(other).dimension == graphnorm.trace(sorted_model).dimension == 6
    assert graphnorm.check(sorted_model, other).verdict in CERTAIN


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_order_in_bodies_and_functions(make: Callable[[tuple[int, ...]], onnx.ModelProto]) -> None:
    sorted_model, other = make((0, 1, 2)), make((2, 0, 1))
    before = other.SerializeToString()
    assert graphnorm.check(sorted_model, other).verdict in CERTAIN
    found = graphnorm.canonicalize(other)
    assert found.graph.dimension == graphnorm.trace(sorted_model).dimension
    assert graphnorm.check(sorted_model, found.model).equivalent
    assert other.SerializeToString() == before


def test_a_difference_out_of_order_is_seen() -> None:
    other = plain((2, 1, 0))
    changed = WEIGHTS["b"] * np.array([1, 1, 1.01, 1], np.float32)
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(changed, "b"))
    assert graphnorm.check(plain((0, 1, 2)), other).verdict == "differs"


def test_a_model_in_memory_stays_as_it_is() -> None:
    given = onnx_ir.from_proto(plain((1, 2, 0)))
    names = [node.name for node in given.graph]
    found = graphnorm.canonicalize(given)
    assert [node.name for node in given.graph] == names
    assert next(node.name for node in found.model.graph) == "first"
    assert found.report.objective["after"] < found.report.objective["before"]


def test_sorted_models_are_not_copied() -> None:
    given = onnx_ir.from_proto(plain((0, 1, 2)))
    assert in_order(given, "net") is given


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    onnx.save_model(
        copy.deepcopy(plain((2, 1, 0))), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0
    )
    given = onnx_ir.load(tmp_path / "m.onnx")
    assert in_order(given, "net") is not given
    assert graphnorm.trace(given).dimension == 6


def test_a_file_is_sorted_when_it_is_read(tmp_path: Path) -> None:
    onnx.save(plain((2, 1, 0)), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu", "MatMul"]


def test_a_cycle_has_no_order() -> None:
    proto = plain((0, 1, 2))
    proto.graph.node[0].input[0] = "y"
    with pytest.raises(graphnorm.ModelFileError, match=r"the graph has a cycle: 'first' -> .*'first'"):
        graphnorm.trace(to_model(proto, "net"))


def test_a_cycle_inside_a_body() -> None:
    proto = in_branches((0, 1, 2))
    proto.graph.node[3].attribute[0].g.node[1].input[0] = "else_branch"
    with pytest.raises(graphnorm.ModelFileError, match=r"net: the graph has a cycle: 'Relu' -> .*'Relu'"):
        to_model(proto, "net")


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_nothing_defines(make: Callable[[tuple[int, ...]], onnx.ModelProto]) -> None:
    """Wherever it is read: a copy of such a model could not be made later."""
    proto = make((0, 1, 2))
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    nodes += [node for outer in nodes for attribute in outer.attribute for node in attribute.g.node]
    last = next(node for node in reversed(nodes) if node.name == "last")
    last.input[1] = "ghost"
    with pytest.raises(
        graphnorm.ModelFileError, match="net: node 'last' reads 'ghost', which nothing defines"
    ):
        to_model(proto, "net")


@pytest.mark.parametrize("make", MAKERS[:3], ids=lambda make: make.__name__)
def test_an_output_that_nothing_defines(make: Callable[[tuple[int, ...]], onnx.ModelProto]) -> None:
    """Of the model, or of a body; onnx_ir itself refuses such a function."""
    proto = make((0, 1, 2))
    bodies = [
        attribute.g for node in proto.graph.node for attribute in node.attribute if attribute.HasField("g")
    ]
    (bodies or [proto.graph])[-1].output[-1].name = "ghost"
    with pytest.raises(graphnorm.ModelFileError, match=r"net: output 'ghost'.* is never defined"):
        to_model(proto, "net")


def test_an_output_of_a_body_is_no_value_outside() -> None:
    """Runtimes refuse such models, too: they want an Identity there."""
    proto = in_branches((0, 1, 2))
    for attribute in proto.graph.node[-1].attribute:
        attribute.g.output[0].name = "x"
    with pytest.raises(graphnorm.ModelFileError, match=r"output 'x' of the body .* is never defined"):
        to_model(proto, "net")
