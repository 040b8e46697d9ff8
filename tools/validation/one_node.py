"""A case as an ONNX model of one node, and what onnxruntime makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as states

from graphnorm import ir
from graphnorm.ir import Array
from tools.validation.case import Case
from tools.validation.evaluate import OLD, OPSET

IR_VERSION = 10  # which every onnxruntime in use reads
REFUSALS = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.NotImplemented,
    states.RuntimeException,
)


def narrow(arrays: Sequence[Array | None]) -> list[Array | None]:
    """Floats as float32."""
    return [
        None if x is None else np.asarray(x, np.float32) if x.dtype.name in ir.FLOAT_TYPES else np.asarray(x)
        for x in arrays
    ]


def one_node(case: Case, operands: Sequence[Array | None], known: bool = False) -> onnx.ModelProto:
    """The model; all operands but constants are inputs, or constants too if all are `known`."""
    domain, _, op = case.op.rpartition("::")
    names = ["" if array is None else f"u{k}" for k, array in enumerate(operands)]
    while names and not names[-1]:
        names.pop()
    results = [f"y{j}" for j in range(case.results)]
    fixed, given, nodes = [], [], []
    for name, operand, array in zip(names, case.operands, operands, strict=False):
        if array is None:
            continue
        if known:
            nodes += _constant(name, array)
        elif operand.kind == "constant":
            fixed.append(numpy_helper.from_array(array, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            given.append(helper.make_tensor_value_info(name, kind, array.shape))
    nodes.append(helper.make_node(op, names, results, domain=domain, **case.attributes))
    graph = helper.make_graph(
        nodes, "one", given, [onnx.ValueInfoProto(name=name) for name in results], fixed
    )
    opsets = [helper.make_opsetid("", OLD.get(op, OPSET))]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _constant(name: str, array: Array) -> list[onnx.NodeProto]:
    """Nodes that make a constant; floats are made of integers, as a table of floats would be a weight."""
    if array.dtype != np.float32 or not np.isfinite(array).all():
        return [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))]
    whole = numpy_helper.from_array(np.asarray(np.rint(array * 8), np.int64))
    eighth = numpy_helper.from_array(np.asarray(0.125, np.float32))
    return [
        helper.make_node("Constant", [], [f"{name}.i"], value=whole),
        helper.make_node("Cast", [f"{name}.i"], [f"{name}.f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Constant", [], [f"{name}.e"], value=eighth),
        helper.make_node("Mul", [f"{name}.f", f"{name}.e"], [name]),
    ]


def feeds(model: onnx.ModelProto, operands: Sequence[Array | None]) -> dict[str, Array]:
    """Input name -> operand."""
    found: dict[str, Array] = {}
    for value in model.graph.input:
        array = operands[int(value.name[1:])]
        assert array is not None
        found[value.name] = np.asarray(array)
    return found


def by_onnxruntime(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array] | None:
    """The model's outputs without graph optimisations; None where onnxruntime does not run it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return [np.asarray(found) for found in session.run(None, inputs)]
    except REFUSALS:
        return None
