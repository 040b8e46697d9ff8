"""A float64 reference for ONNX models: every float tensor widened, run by ONNX's reference implementation.

onnxruntime has no float64 kernels for convolutions; the reference implementation computes in the type of its
operands.  Weights stay as the model holds them and are widened when a node reads them; a value is freed when
its last reader has run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.frontends.onnx.load import to_proto
from graphnorm.verification.onnx.functions import FUNCTIONS
from graphnorm.verification.onnx.kernels import KERNELS
from graphnorm.verification.onnx.slim import taken_out
from graphnorm.verification.run_errors import reason, run_error

_NARROW = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TYPE_ATTRIBUTES = {"to", "dtype", "stash_type", "softmax_precision"}
_LARGE = 1024  # bytes of a tensor that is not copied into the evaluator's model

# What the reference implementation raises for operators, types or attributes that it doesn't cover.
_UNSUPPORTED = (
    ArithmeticError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
)


class Float64Runner:
    """Runs an ONNX model in float64 on the CPU.

    Raises:
        RunError: the reference implementation does not know an operator.
    """

    device = "cpu"
    runtime = "ONNX's reference implementation in float64"
    tiny = 2.0  # as for torch; it is the reference, so nothing is judged by it

    def __init__(self, model: onnx_ir.Model, network: ir.Graph) -> None:
        self._names, self._results = network.inputs, network.outputs
        slim = model.clone()
        self._held = taken_out(slim, _LARGE)
        proto = to_proto(slim)
        _widen_graph(proto.graph)
        for function in proto.functions:
            _widen_nodes(function.node)
        try:
            self._evaluator = ReferenceEvaluator(proto, new_ops=[*KERNELS, *FUNCTIONS])
        except _UNSUPPORTED as error:
            raise RunError(
                f"ONNX's reference implementation cannot run the model: {reason(error)}"
            ) from error
        self._reads = [
            [*dict.fromkeys((*node.input, *_captured(node.onnx_node)))] for node in self._evaluator.rt_nodes_
        ]
        last = {name: index for index, names in enumerate(self._reads) for name in names}
        self._outputs = network.outputs
        kept = {*self._outputs, ""}
        self._dying: list[list[str]] = [[] for _ in self._reads]
        for name, index in last.items():
            if name not in kept:
                self._dying[index].append(name)

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """All outputs, float ones as float64.

        Raises:
            RunError: the reference implementation does not cover an operator.
        """
        return self._run(inputs, 0.0, np.random.default_rng(0))

    def shaken(self, inputs: Sequence[ir.Array], unit: float, seed: int) -> list[ir.Array]:
        """Outputs where every float operand of every operator is moved at random by up to `unit`, relative.

        Raises:
            RunError: the reference implementation does not cover an operator.
        """
        return self._run(inputs, unit, np.random.default_rng(seed))

    def _run(self, inputs: Sequence[ir.Array], unit: float, generator: np.random.Generator) -> list[ir.Array]:
        values: dict[str, Any] = {"": None, **self._evaluator.rt_inits_}
        values.update((name, _wide(array)) for name, array in zip(self._names, inputs, strict=True))
        try:
            with np.errstate(all="ignore"):
                for node, names, dying in zip(
                    self._evaluator.rt_nodes_, self._reads, self._dying, strict=True
                ):
                    read = {name: self._value(name, values) for name in names}
                    if unit:
                        read = {name: _moved(value, unit, generator) for name, value in read.items()}
                    operands = [read[name] for name in node.input]
                    context = {"context": read} if node.need_context() else {}
                    values.update(zip(node.output, node.run(*operands, **context), strict=False))
                    for name in dying:
                        values.pop(name, None)
                    del read, operands, context
                return [np.asarray(self._value(name, values)) for name in self._results]
        except _UNSUPPORTED as error:
            named = dict(zip(self._names, inputs, strict=True))
            raise run_error("the run of ONNX's reference implementation", named, reason(error)) from error

    def _value(self, name: str, values: dict[str, Any]) -> Any:
        return _wide(self._held[name].numpy()) if name in self._held and name not in values else values[name]


def _wide(array: ir.Array) -> ir.Array:
    return array.astype(np.float64) if array.dtype.name in ir.FLOAT_TYPES else array


def _moved(value: Any, unit: float, generator: np.random.Generator) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim == 0:
        return value
    return value * (1 + unit * generator.uniform(-1, 1, value.shape))


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies of a node read, their own included."""
    for attribute in node.attribute:
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _read_in(body)


def _read_in(body: onnx.GraphProto) -> Iterator[str]:
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {name for node in body.node for name in node.output}
    for node in body.node:
        yield from (name for name in (*node.input, *_captured(node)) if name not in own)
    yield from (value.name for value in body.output if value.name not in own)


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
