"""ONNX models without their large tensors, which are fed from the original model's memory."""

from __future__ import annotations

from collections.abc import Container, Mapping

import onnx
import onnx_ir
from onnx import helper

from graphnorm.frontends.onnx.load import to_proto

Tensors = dict[str, onnx_ir.TensorProtocol]
_LEAST = 1 << 20  # bytes of a tensor that is fed rather than stored in the session
_FED = frozenset({onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE, onnx_ir.DataType.FLOAT16})


def taken_out(model: onnx_ir.Model, least: int, kinds: Container[onnx_ir.DataType] | None = None) -> Tensors:
    """Remove the main graph's tensors of more than `least` bytes, by name; `model` is changed.

    Args:
        model: a clone; the tensors themselves are shared.
        least: bytes.
        kinds: types to take; all but strings if None.
    """

    def wanted(tensor: onnx_ir.TensorProtocol) -> bool:
        taken = tensor.dtype != onnx_ir.DataType.STRING if kinds is None else tensor.dtype in kinds
        return taken and tensor.nbytes > least

    found: Tensors = {}
    graph = model.graph
    inputs = {value.name for value in graph.inputs}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and name not in inputs and wanted(tensor):
            found[name] = tensor
            del graph.initializers[name]
    for node in list(graph):
        if node.op_type != "Constant" or node.domain or "value" not in node.attributes:
            continue
        held, output = node.attributes["value"].as_tensor(), node.outputs[0].name
        if output and wanted(held):
            found[output] = held
            graph.remove(node)
    return found


def with_weights_as_inputs(
    model: onnx_ir.Model,
) -> tuple[onnx.ModelProto, Mapping[str, onnx_ir.TensorProtocol]]:
    """A model whose large float tensors are inputs: a session on the CPU reads them without a copy."""
    slim = model.clone()
    outputs = {value.name for value in slim.graph.outputs}
    held = taken_out(slim, _LEAST, _FED)
    proto = to_proto(slim)
    kept = [info for info in proto.graph.value_info if info.name not in held]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for name, tensor in held.items():
        if name not in outputs:
            info = helper.make_tensor_value_info(name, int(tensor.dtype), list(tensor.shape.numpy()))
            proto.graph.input.append(info)
    return proto, held
