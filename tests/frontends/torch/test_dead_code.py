"""What nobody reads pins nothing, is in no pass's way, and changes no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.ir import Array
from graphnorm.passes.onnx import FoldBatchNormPass

X = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    found = {
        "w1": rng.normal(size=(4, 3, 3)), "w2": rng.normal(size=(5, 4, 1)), "one": np.ones(1),
        "s": np.array([1, 2, 0.5, 1.5]), "t": np.array([0.1, -0.2, 0.3, 0]), "m": np.array([0.5, -1, 0, 2]),
        "v": np.array([1, 0.5, 2, 1]),
    }  # fmt: skip
    return {name: array.astype(np.float32) for name, array in found.items()}


def node(op: str, reads: str, yields: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, reads.split(), yields.split(), **attributes)


def network(middle: Sequence[onnx.NodeProto], opset: int = 17, outputs: str = "y") -> onnx.ModelProto:
    """Conv w1 -> c, `middle` from c to d, Relu, Conv w2 -> y."""
    nodes = [node("Conv", "x w1", "c"), *middle, node("Relu", "d", "r"), node("Conv", "r w2", "y")]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights().items()]
    initializers.append(numpy_helper.from_array(np.array(True), "yes"))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs.split()], initializers,
    )  # fmt: skip
    for value in graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto | onnx_ir.Model) -> Array:
    proto = onnx_ir.to_proto(model) if isinstance(model, onnx_ir.Model) else model
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": X})[0])


def same(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max() <= 1e-5 * np.abs(a).max())


def branch(name: str) -> onnx.GraphProto:
    body = [node("Sigmoid", "c", f"{name}_1"), node("Relu", "c", f"{name}_2")]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in body_outputs(name)]
    return helper.make_graph(body, name, [], outputs)


def body_outputs(name: str) -> list[str]:
    return [f"{name}_1", f"{name}_2"]


PASS = node("Identity", "c", "d")
DEAD: dict[str, list[onnx.NodeProto]] = {
    "softmax of a sum": [PASS, node("Add", "c one", "u"), node("Softmax", "u", "v1", axis=1)],
    "indices of a maximum": [
        node("MaxPool", "c", "d index", kernel_shape=[1]), node("Cast", "index", "places", to=1)
    ],
    "mask of a dropout": [node("Dropout", "c", "d mask"), node("Not", "mask", "no")],
    "head that shares a kernel": [PASS, node("Tanh", "c", "u"), node("Conv", "u w2", "head")],
    "branches": [PASS, helper.make_node("If", ["yes"], ["p", "q"], then_branch=branch("a"),
                                        else_branch=branch("b"))],
    "one result of two branches": [
        helper.make_node("If", ["random"], ["p", "d"], then_branch=branch("a"), else_branch=branch("b")),
    ],
    "cast to integers": [PASS, node("Cast", "c", "u", to=7), node("ReduceSum", "u", "n")],
}  # fmt: skip


@pytest.mark.parametrize("name", DEAD)
def test_dead_code_pins_nothing(name: str) -> None:
    middle = DEAD[name]
    if "two branches" in name:  # a condition that is known only at run time
        middle = [node("ReduceMax", "x", "top", keepdims=0), node("Greater", "top one0", "random"), *middle]
    model = network(middle)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "one0"))
    result = graphnorm.canonicalize(model)
    assert result.graph.dimension == 4
    assert same(run(model), run(result.model))
    assert result.report.objective["after"] < 0.99 * result.report.objective["before"]
    assert [n.op_type for n in result.model.graph.node] == [
        n.op_type for n in model.graph.node
    ]  # nothing removed
    assert graphnorm.check(model, result.model).verdict == "proved"


def test_what_an_output_reads_pins() -> None:
    model = network([PASS, node("Add", "c one", "u"), node("Softmax", "u", "z", axis=1)], outputs="y z")
    assert graphnorm.trace(model).dimension == 0
    state = graphnorm.canonicalize(model)
    assert same(run(model), run(state.model))


def test_a_state_that_only_its_loop_reads_still_ties() -> None:
    """The final value of a carried state is not read, its value in the next iteration is."""
    body = helper.make_graph(
        [node("Identity", "go", "go_on"), node("Add", "h one", "next"), node("Identity", "h", "element")],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 4, 6])],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, 4, 6]),
         helper.make_tensor_value_info("element", TensorProto.FLOAT, [2, 4, 6])],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["three", "", "c"], ["last", "all"], body=body)
    model = network([loop, node("ReduceSum", "all zero", "d", keepdims=0)])
    for name, array in (("three", np.array(3)), ("zero", np.array([0]))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    result = graphnorm.canonicalize(model)
    assert same(run(model), run(result.model))


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_statistics_that_nobody_reads_make_an_old_norm_train_all_the_same(opset: int) -> None:
    """Before opset 14 the number of results says it; onnxruntime then takes the statistics of the batch."""
    trained = network([node("BatchNormalization", "c s t m v", "d o1 o2 o3 o4")], opset)
    plain = network([node("BatchNormalization", "c s t m v", "d")], opset)
    assert not same(run(trained), run(plain))
    assert graphnorm.trace(plain).dimension == 8
    result = graphnorm.canonicalize(trained)
    assert result.graph.dimension == 4
    assert same(run(trained), run(result.model))
    assert graphnorm.check(trained, plain).verdict == "differs"


FOLDABLE = [node("BatchNormalization", "c s t m v", "d")]


@pytest.mark.parametrize("name", ["softmax of a sum", "head that shares a kernel", "branches"])
def test_a_fold_removes_dead_code_first(name: str) -> None:
    proto = network([*FOLDABLE, *DEAD[name][1:]])
    model, folding = onnx_ir.from_proto(proto), FoldBatchNormPass()
    result = folding(model)
    assert result.modified
    assert not folding.skipped
    assert [n.op_type for n in result.model.graph] == ["Conv", "Relu", "Conv"]
    assert same(run(proto), run(result.model))
    assert not folding(result.model).modified


def test_a_fold_keeps_nodes_of_which_one_result_is_read() -> None:
    proto = network([*FOLDABLE, node("Split", "c halves", "u1 u2", axis=1), node("Tanh", "u2", "dead")],
                    outputs="y u1")  # fmt: skip
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "halves"))
    result = FoldBatchNormPass()(onnx_ir.from_proto(proto))
    assert [n.op_type for n in result.model.graph] == ["Conv", "BatchNormalization", "Split", "Relu", "Conv"]
    assert same(run(proto), run(result.model))
