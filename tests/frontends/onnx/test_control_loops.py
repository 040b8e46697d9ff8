"""Loops: rescalings inside and across the bodies of `Loop` and `Scan`, in ONNX models."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.control_models import (
    BATCH,
    BOOL,
    COUNTS,
    HIDDEN,
    INPUTS,
    INT64,
    OUTPUTS,
    STEPS,
    X,
    analysed,
    body,
    distance,
    loop,
    model,
    node,
    number,
    recurrent,
    rows,
    value,
    weight,
)  # fmt: skip


def test_units_of_a_recurrent_layer_are_free() -> None:
    proto = loop(recurrent())
    assert analysed(proto).dimension == HIDDEN
    assert distance(proto, *COUNTS) < 1e-9


def test_a_state_of_variable_size_starts_at_zero() -> None:
    proto = loop(recurrent())
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    zeros = [
        node("Shape", "x", "batch", end=1),
        number("units", np.array([HIDDEN])),
        node("Concat", "batch units", "size", axis=0),
        node("ConstantOfShape", "size", "zeros", value=numpy_helper.from_array(np.zeros(1))),
    ]
    nodes = [*zeros, *proto.graph.node[1:]]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert analysed(proto).dimension == HIDDEN
    assert distance(proto, *COUNTS) < 1e-9
    zeros[-1].attribute[0].t.CopyFrom(numpy_helper.from_array(np.ones(1)))
    proto.graph.node[3].CopyFrom(zeros[-1])
    assert analysed(proto).dimension == 0  # a state that starts at one may not be rescaled


def test_a_state_that_saturates_in_a_later_iteration_is_pinned() -> None:
    assert analysed(loop(recurrent("Tanh"))).dimension == 0


def test_a_loop_that_may_run_zero_times_yields_its_initial_value() -> None:
    """The output layer sees the initial state itself: x, whose scale is fixed."""
    proto = loop(recurrent(), initial="x")
    del proto.graph.node[0]
    for tensor in (proto.graph.initializer[1], proto.graph.node[0].attribute[0].g.initializer[0]):
        tensor.CopyFrom(weight(tensor.name, INPUTS, INPUTS if tensor.name == "r" else OUTPUTS))
    proto.graph.initializer[0].CopyFrom(weight("w", INPUTS, INPUTS))
    assert analysed(proto).dimension == 0


def test_a_learned_initial_state_moves_with_the_units() -> None:
    proto = loop(recurrent(), initial="h0")
    proto.graph.initializer.append(weight("h0", BATCH, HIDDEN))
    assert analysed(proto).dimension == HIDDEN
    counts = [*COUNTS, {"x": rows(BATCH, INPUTS), "count": np.int64(0)}]
    assert distance(proto, *counts) < 1e-9


def test_stacked_results_keep_their_units() -> None:
    proto = loop(recurrent())
    proto.graph.node[-1].input[0] = "all"
    graph = analysed(proto)
    assert graph.network.values["all"].dynamic == {0}  # as many as there are iterations
    assert graph.dimension == HIDDEN
    assert distance(proto, *COUNTS) < 1e-9
    proto.graph.input.pop()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(STEPS), "count"))
    graph = analysed(proto)
    assert graph.network.values["all"].shape == (STEPS, BATCH, HIDDEN)
    assert graph.network.values["all"].dynamic == frozenset()
    assert graph.dimension == HIDDEN
    assert distance(proto, {"x": rows(BATCH, INPUTS)}) < 1e-9


def test_a_final_state_that_nobody_reads_still_ties_the_iterations() -> None:
    """`r` maps the units to themselves whether or not the last state has a name."""
    proto = loop(recurrent())
    proto.graph.node[-1].input[0] = "all"
    proto.graph.node[1].output[0] = ""
    assert analysed(proto).dimension == HIDDEN


def test_a_loop_that_may_stop_early_has_a_result_of_variable_size() -> None:
    inside = recurrent()
    inside.node[-1].CopyFrom(node("Less", "i limit", "again"))
    proto = loop(inside)
    proto.graph.input.pop()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(STEPS), "count"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3), "limit"))
    graph = analysed(proto)
    assert graph.network.values["all"].dynamic == {0}
    assert graph.dimension == HIDDEN
    assert distance(proto, {"x": rows(BATCH, INPUTS)}) < 1e-9


def test_a_condition_on_the_state_pins_it() -> None:
    inside = recurrent()
    inside.node[-1].CopyFrom(node("Less", "total limit", "again"))
    inside.node.insert(0, node("ReduceSum", "state", "total", keepdims=0))
    proto = loop(inside)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3.0), "limit"))
    assert analysed(proto).dimension == 0


def test_a_condition_of_a_loop_made_of_weights_is_fixed() -> None:
    inside = recurrent()
    inside.node[-1].CopyFrom(node("Less", "total limit", "again"))
    inside.node.insert(0, node("ReduceSum", "gates", "total", keepdims=0))
    proto = loop(inside)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1.0), "limit"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0.25, 0.5]), "gates"))
    graph = analysed(proto)
    assert graph.dimension == HIDDEN
    assert "gates" in graph.network.weights
    assert "gates" not in {demand.weight for demand in graph.movable()}
    assert distance(proto, *COUNTS) < 1e-9


def test_a_trip_count_made_of_weights_is_fixed() -> None:
    proto = loop(recurrent(), count="times")
    proto.graph.input.pop()
    nodes = [node("ReduceSum", "length", "total", keepdims=0), node("Cast", "total", "times", to=INT64)]
    for found in reversed(nodes):
        proto.graph.node.insert(0, found)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1.0, 2.0]), "length"))
    graph = analysed(proto)
    assert graph.dimension == HIDDEN
    assert "length" in graph.network.weights
    assert "length" not in {demand.weight for demand in graph.movable()}


def test_a_state_that_grows_is_pinned() -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Relu", "a", "b"),
        node("Concat", "state b", "next", axis=0),
        node("Identity", "go", "again"),
    ]
    inside = body(nodes, "again next", [value("i", [], INT64), value("go", [], BOOL), value("state")])
    proto = loop(inside)
    del proto.graph.node[1].output[1]
    graph = analysed(proto)
    assert graph.network.values["state"].shape is None
    assert graph.dimension == 0


def test_a_branch_inside_a_loop() -> None:
    plain = body([node("Relu", "c", "plain")], "plain")
    scaled = body(
        [node("MatMul", "c m", "d"), node("Relu", "d", "e")], "e", weights=[weight("m", HIDDEN, HIDDEN)]
    )
    inside = recurrent()
    inside.node[3].CopyFrom(node("If", "first", "next", then_branch=plain, else_branch=scaled))
    inside.node.insert(3, node("Equal", "i zero", "first"))
    inside.node.insert(3, number("zero", np.int64(0)))
    proto = loop(inside)
    assert analysed(proto).dimension == HIDDEN
    assert distance(proto, *COUNTS) < 1e-9


# Scans


def scan(inside: onnx.GraphProto, operands: str, results: str, **axes: Any) -> onnx.ModelProto:
    nodes = [
        number("zeros", np.zeros((BATCH, HIDDEN))),
        node("Scan", operands, results, body=inside, **axes),
        node("MatMul", "all out", "y"),
    ]
    return model(
        nodes,
        [value("s", [BATCH, STEPS, INPUTS])],
        [weight("w", INPUTS, HIDDEN), weight("out", HIDDEN, OUTPUTS)],
    )


def scanned(activation: str = "Relu") -> onnx.GraphProto:
    inside = recurrent(activation)
    del inside.node[-1], inside.output[0], inside.input[:2]
    inside.input.append(value("x"))
    return inside


@pytest.mark.parametrize("out_axis", [1, -2])
def test_units_of_a_scanned_layer_are_free(out_axis: int) -> None:
    axes: dict[str, Any] = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [out_axis]}
    proto = scan(scanned(), "zeros s", "last all", **axes)
    graph = analysed(proto)
    assert graph.network.values["all"].shape == (BATCH, STEPS, HIDDEN)
    assert graph.dimension == HIDDEN
    assert distance(proto, {"s": rows(BATCH, STEPS, INPUTS)}) < 1e-9
    tanh = scan(scanned("Tanh"), "zeros s", "last all", **axes)
    assert analysed(tanh).dimension == 0


def test_weights_that_a_scan_iterates_over_move_alike() -> None:
    """state -> Relu(state W_t): the state has one scale in all iterations."""
    inside = body(
        [node("MatMul", "state r", "c"), node("Relu", "c", "next")],
        "next",
        [value("state"), value("r")],
    )
    nodes = [
        node("MatMul", "x w", "h"),
        node("Relu", "h", "g"),
        node("Scan", "g layers", "last", body=inside, num_scan_inputs=1),
        node("MatMul", "last out", "y"),
    ]
    weights = [
        weight("w", INPUTS, HIDDEN),
        weight("layers", STEPS, HIDDEN, HIDDEN),
        weight("out", HIDDEN, OUTPUTS),
    ]
    proto = model(nodes, [X], weights)
    graph = analysed(proto)
    assert graph.dimension == HIDDEN
    assert "layers" in {demand.weight for demand in graph.movable()}
    assert distance(proto, {"x": rows(BATCH, INPUTS)}) < 1e-9
