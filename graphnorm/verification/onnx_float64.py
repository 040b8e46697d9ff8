"""A float64 anchor for ONNX models: every float tensor widened, run by ONNX's reference implementation.

onnxruntime has no float64 kernels for convolutions; the reference implementation computes in the type of
its operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from graphnorm import ir
from graphnorm.frontends.onnx_load import to_proto
from graphnorm.verification.run_errors import reason, run_error

_NARROW = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TYPE_ATTRIBUTES = {"to", "dtype", "stash_type", "softmax_precision"}

# What the reference implementation raises for operators, types or attributes that it doesn't cover.
UNSUPPORTED = (
    ArithmeticError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
)


class BatchNormalization(OpRun):
    """Inference mode.  The library's own, before opset 14, updates the running statistics with the batch."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self, x, scale, bias, mean, var, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1
    ):
        if training_mode or not spatial:
            raise NotImplementedError("BatchNormalization in training mode")
        shape = (1, -1) + (1,) * (x.ndim - 2)
        gain = scale / np.sqrt(var + epsilon)
        return (x * gain.reshape(shape) + (bias - mean * gain).reshape(shape),)


class Float64Runner:
    """Runs an ONNX model in float64 on the CPU."""

    device = "cpu"
    runtime = "ONNX's reference implementation in float64"
    tiny = 2.0

    def __init__(self, model: onnx_ir.Model, network: ir.Graph) -> None:
        self._names = network.inputs
        proto = to_proto(model)
        _widen_graph(proto.graph)
        for function in proto.functions:
            _widen_nodes(function.node)
        self._evaluator = ReferenceEvaluator(proto, new_ops=[BatchNormalization])

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """All outputs, float ones as float64."""
        feed = {
            name: array.astype(np.float64) if array.dtype.name in ir.FLOAT_TYPES else array
            for name, array in zip(self._names, inputs, strict=True)
        }
        try:
            with np.errstate(all="ignore"):
                return [np.asarray(array) for array in self._evaluator.run(None, feed)]
        except UNSUPPORTED as error:
            raise run_error("the run of ONNX's reference implementation", feed, reason(error)) from error


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        tensor.CopyFrom(_widened(tensor))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_widened(attribute.t))
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _widen_graph(attribute.g)
            elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in _NARROW:
                attribute.i = TensorProto.DOUBLE
        if node.op_type == "Constant" and any(
            a.name in {"value_float", "value_floats"} for a in node.attribute
        ):
            _widen_literal(node)


def _widen_literal(node: onnx.NodeProto) -> None:
    attribute = node.attribute[0]
    values = list(attribute.floats) if attribute.name == "value_floats" else attribute.f
    tensor = numpy_helper.from_array(np.asarray(values, dtype=np.float64))
    attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _widened(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in _NARROW:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
