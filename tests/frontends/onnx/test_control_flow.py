"""Branches: rescalings inside and across the bodies of `If`, in ONNX models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphnorm
from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.load import to_model
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.ir import Node
from graphnorm.rescaling.graph import build
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Rule
from graphnorm.scales.rules.table import default_registry
from tests.support.control_models import (
    BATCH,
    BOTH,
    COUNTS,
    FLAG,
    HIDDEN,
    INPUTS,
    OUTPUTS,
    X,
    analysed,
    body,
    branches,
    dense,
    distance,
    either,
    loop,
    model,
    node,
    number,
    recurrent,
    rows,
    value,
    weight,
)

# If


def test_branches_share_the_scale_of_their_result() -> None:
    graph = analysed(branches())
    assert set(graph.network.weights) == {"v", "v_2", "out"}  # both branches call theirs "v"
    assert graph.dimension == HIDDEN
    assert distance(branches(), *BOTH) < 1e-9


def test_hidden_units_inside_a_branch_are_free() -> None:
    nodes = [node("MatMul", "x a", "p"), node("Relu", "p", "q"), node("MatMul", "q b", "r")]
    deep = body(nodes, "r", weights=[weight("a", INPUTS, 7), weight("b", 7, HIDDEN)])
    proto = branches(deep)
    assert analysed(proto).dimension == 7 + HIDDEN
    assert distance(proto, *BOTH) < 1e-9


def test_a_branch_that_saturates_pins_the_other() -> None:
    assert analysed(branches(dense(), dense("Tanh"))).dimension == 0


def test_branches_of_unlike_shapes_are_pinned() -> None:
    wide = body([*dense().node, node("Unsqueeze", "h zero", "u")], "u", weights=dense().initializer)
    nodes = [number("zero", np.array([0])), *either(dense(), wide)]
    graph = analysed(model(nodes, [X, FLAG], [weight("out", HIDDEN, OUTPUTS)]))
    assert graph.dimension == 0
    assert any("shape not known" in pin.reason for pin in graph.pins)


def test_the_branch_that_is_never_taken_keeps_its_weights() -> None:
    nodes = [number("flag", np.array(True)), *either(dense(weights="a"), dense("Tanh", "b"))]
    proto = model(nodes, [X], [weight("out", HIDDEN, OUTPUTS)])
    graph = analysed(proto)
    assert set(graph.network.weights) == {"a", "out"}
    assert graph.dimension == HIDDEN
    assert distance(proto, {"x": rows(BATCH, INPUTS)}) < 1e-9
    emitted = rescale_onnx(to_model(proto, "net"), {"a": np.ones((INPUTS, HIDDEN))})
    assert np.array_equal(read_onnx(emitted).weights["a"], np.ones((INPUTS, HIDDEN)))


def by_length(limit: int) -> onnx.ModelProto:
    """The branch depends on the length of the input."""
    nodes = [
        node("Shape", "x", "size", start=0, end=1),
        number("limit", np.array([limit])),
        node("Greater", "size limit", "flags"),
        node("Squeeze", "flags", "flag"),
        *either(dense(weights="a"), dense("Tanh", "b")),
    ]
    return model(nodes, [value("x", ["length", INPUTS])], [weight("out", HIDDEN, OUTPUTS)])


@pytest.mark.parametrize("limit", [20, 1000])
def test_a_condition_that_follows_from_variable_sizes_takes_either_branch(limit: int) -> None:
    """None of the sizes that are tried exceeds 1000; another input may."""
    assert set(analysed(by_length(limit)).network.weights) == {"a", "b", "out"}
    assert analysed(by_length(limit)).dimension == 0  # one branch saturates


def test_a_condition_on_a_fixed_size_is_known() -> None:
    proto = by_length(2)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    graph = analysed(proto)
    assert set(graph.network.weights) == {"a", "out"}
    assert graph.dimension == HIDDEN


def test_a_condition_behind_a_result_of_variable_rank_is_not_known() -> None:
    """The rank of `r` is 2 at all sizes that are tried, and 3 for a long input."""
    squeezed = body([node("Identity", "x", "i")], "i")
    kept = body([node("Unsqueeze", "x zero", "u")], "u")
    nodes = [
        *by_length(1000).graph.node[:4],
        number("zero", np.array([0])),
        node("If", "flag", "r", then_branch=kept, else_branch=squeezed),
        node("Shape", "r", "sizes"),
        node("Size", "sizes", "rank"),
        number("two", np.array(2)),
        node("Equal", "rank two", "plain"),
        *either(dense(weights="a"), dense("Tanh", "b"), "plain"),
    ]
    proto = model(nodes, [value("x", ["length", INPUTS])], [weight("out", HIDDEN, OUTPUTS)])
    assert set(analysed(proto).network.weights) == {"a", "b", "out"}


def test_a_condition_made_of_weights_is_fixed() -> None:
    nodes = [node("Greater", "gate limit", "flag"), *either(dense(weights="a"), dense(weights="b"))]
    weights = [weight("out", HIDDEN, OUTPUTS), weight("gates", 2)]
    nodes = [
        node("ReduceSum", "gates", "gate", keepdims=0),
        number("limit", np.float64(1)),
        *nodes,
    ]
    proto = model(nodes, [X], weights)
    graph = analysed(proto)
    assert set(graph.network.weights) == {"a", "b", "gates", "out"}
    assert graph.dimension == HIDDEN
    assert {demand.weight for demand in graph.movable()} == {"a", "b", "out"}


def test_a_name_that_a_branch_defines_again_is_left_alone() -> None:
    """Runtimes differ in whether `w` in the branch is the branch's or the main graph's."""
    nodes = [node("MatMul", "x w", "p0"), node("Relu", "p0", "g"), *either(dense(weights="w"), dense())]
    nodes[-1] = node("MatMul", "h out", "z")
    nodes += [node("MatMul", "g last", "k"), node("Add", "z k", "y")]
    weights = [weight("w", INPUTS, HIDDEN), weight("out", HIDDEN, OUTPUTS), weight("last", HIDDEN, OUTPUTS)]
    graph = analysed(model(nodes, [X, FLAG], weights))
    assert "If" in {found.op for found in graph.network.nodes}
    assert graph.dimension == 0
    assert "w" in next(found.inputs for found in graph.network.nodes if found.op == "If")


def test_a_captured_weight_moves_with_its_other_uses() -> None:
    shared = [node("MatMul", "g w", "p"), node("Relu", "p", "h")]
    nodes = [
        node("MatMul", "x first", "f"),
        node("Relu", "f", "g"),
        node(
            "If", "flag", "h", then_branch=body(shared, "h"), else_branch=body([node("Abs", "g", "h")], "h")
        ),
        node("MatMul", "h w", "k"),
        node("Relu", "k", "l"),
        node("MatMul", "l out", "y"),
    ]
    for branch in nodes[2].attribute:  # the results of a branch have names of their own
        branch.g.node[-1].output[0] = branch.g.output[0].name = f"{branch.name}_h"
    weights = [weight("first", INPUTS, HIDDEN), weight("w", HIDDEN, HIDDEN), weight("out", HIDDEN, OUTPUTS)]
    proto = model(nodes, [X, FLAG], weights)
    assert analysed(proto).dimension == HIDDEN  # w maps the units of g to those of h, and g and h are tied
    assert distance(proto, *BOTH) < 1e-9


# Functions


def function(nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_function("local", "Half", ["u"], ["v"], nodes, opsets)


def test_bodies_of_a_model_with_functions_keep_their_weights() -> None:
    """Weights in branches are found again; what is inside a function is shared by its calls."""
    inner = body([number("gain", np.full(HIDDEN, 0.5)), node("Mul", "u gain", "t")], "t")
    keep = body([node("Identity", "u", "k")], "k")
    split = [node("If", "yes", "v", then_branch=inner, else_branch=keep)]
    half = function([number("one", np.float64(1)), node("Greater", "one one", "yes"), *split])
    then = dense()
    then.node[-1].output[0] = "before"
    then.node.append(node("Half", "before", "h", domain="local"))
    proto = model(either(then, dense()), [X, FLAG], [weight("out", HIDDEN, OUTPUTS)], functions=[half])
    graph = analysed(proto)
    assert set(graph.network.weights) == {"v", "v_2", "out"}
    assert graph.dimension == HIDDEN
    assert distance(proto, *BOTH) < 1e-9


def test_a_value_of_a_function_may_be_called_like_a_weight_of_a_branch() -> None:
    twice = function([number("v_2", np.float64(2)), node("Mul", "u v_2", "v")])
    nodes = either(dense(), dense())
    nodes[0] = node("If", "flag", "g", then_branch=dense(), else_branch=dense())
    nodes.insert(1, node("Half", "g", "h", domain="local"))
    proto = model(nodes, [X, FLAG], [weight("out", HIDDEN, OUTPUTS)], functions=[twice])
    graph = analysed(proto)
    assert set(graph.network.weights) == {"v", "v_2", "out"}
    assert graph.dimension == HIDDEN
    assert distance(proto, *BOTH) < 1e-9


# The whole way


def single(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float32, which onnxruntime runs."""
    text = onnx.printer.to_text(proto).replace("double", "float")
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize("build_model", [branches, lambda: loop(recurrent())], ids=["If", "Loop"])
def test_a_rescaled_model_runs_and_is_proved(build_model: Any) -> None:
    proto = single(build_model())
    for tensor in [*proto.graph.initializer][:1]:
        tensor.CopyFrom(numpy_helper.from_array(100 * numpy_helper.to_array(tensor), tensor.name))
    inputs: dict[str, Any] = {"x": rows(BATCH, INPUTS).astype(np.float32)}
    last = proto.graph.input[-1].name
    inputs[last] = np.array(True) if last == "flag" else np.array(3)
    result = graphnorm.canonicalize(proto, inputs)
    assert result.report.dimension == HIDDEN
    assert result.report.verification.verdict == "proved"
    assert result.report.objective["after"] < 0.9 * result.report.objective["before"]
    assert graphnorm.check(proto, result.model, inputs).verdict == "proved"


def test_a_wrong_weight_in_a_branch_is_found() -> None:
    proto = single(branches())
    wrong = onnx.ModelProto()
    wrong.CopyFrom(proto)
    tensor = wrong.graph.node[0].attribute[1].g.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    inputs = {"x": rows(BATCH, INPUTS).astype(np.float32), "flag": np.array(True)}
    assert graphnorm.check(proto, wrong, inputs).verdict != "proved"


# Wrong rules


def forgets_a_branch(ctx: Context, node: Node) -> None:
    for name in node.inputs:
        ctx.asked(name)
    ctx.set(node.outputs[0], ctx.labels(node.inputs[1]))


def forgets_the_end(ctx: Context, node: Node) -> None:
    ctx.asked(node.inputs[1])
    ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


@pytest.mark.parametrize(
    ("operator", "apply", "proto", "feeds"),
    [
        ("graphnorm::Choice", forgets_a_branch, branches(), BOTH),
        ("graphnorm::Carried", forgets_the_end, loop(recurrent()), COUNTS),
    ],
)
def test_a_wrong_rule_is_caught(operator: str, apply: Any, proto: onnx.ModelProto, feeds: Any) -> None:
    registry = default_registry().replaced(Rule("planted", apply, "planted"), operator)
    graph = build(read_onnx(proto), registry)
    assert distance(proto, *feeds, graph=graph) > 1e-3


# Bad bodies


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (node("If", "flag", "y"), "it needs the graph 'then_branch'"),
        (
            node("If", "flag", "y z", then_branch=dense(), else_branch=dense()),
            "its then_branch takes 0 and yields 1 values, the node needs 0 and 2",
        ),
        (node("Loop", "- flag x", "y", body=dense()), "its body takes 0 and yields 1 values"),
        (
            node("Loop", "- flag x x", "y", body=recurrent()),
            "its body takes 3 and yields 3 values",
        ),
        (
            node("If", "flag", "y", then_branch=body([], "x"), else_branch=dense()),
            r"output 'x' of the body .* is never defined",
        ),
        (node("Scan", "x", "y", body=dense(), num_scan_inputs=1), "its body takes 0"),
    ],
)
def test_bodies_that_do_not_fit_their_node(bad: onnx.NodeProto, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read_onnx(model([bad], [X, FLAG], [weight("w", INPUTS, HIDDEN)]))
