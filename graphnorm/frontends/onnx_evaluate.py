"""Partial evaluation of an ONNX graph at concrete input sizes.

Walks the nodes once.  Each output gets a type (shape inference of that one node, with all that is
known about its inputs) and, where every input is known and small, its value (the ONNX reference
implementation).  What depends on the value of a weight is *tainted*: its value is used for shapes,
but it is no constant, because weights get rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir
from onnx import checker, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from graphnorm.frontends.onnx_steps import READ_ERRORS, Step, constant_array, is_constant, make_steps
from graphnorm.ir import Array

FOLD_LIMIT = 1_000_000  # entries of a folded constant
SMALL_LIMIT = 4_096  # entries of a value that depends on weights, or that shape inference may read

# What the reference implementation and shape inference raise on operands they do not take.
_EVALUATION_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    shape_inference.InferenceError,
)


@dataclass
class Evaluation:
    """What is known about each value at one choice of input sizes."""

    types: dict[str, onnx.TypeProto]
    known: dict[str, Array]
    tainted: set[str]
    failures: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return static_shape(self.types[name]) if name in self.types else None

    def is_constant(self, name: str) -> bool:
        return name in self.known and name not in self.tainted

    def copy(self) -> Evaluation:
        return Evaluation(dict(self.types), dict(self.known), set(self.tainted))


def static_shape(type_proto: onnx.TypeProto) -> tuple[int, ...] | None:
    """The shape when every dimension is known."""
    if not type_proto.HasField("tensor_type") or not type_proto.tensor_type.HasField("shape"):
        return None
    dims = type_proto.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def tensor_type(array: Array) -> onnx.TypeProto:
    """The ONNX type of an array."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def evaluate(steps: Iterable[Step], state: Evaluation) -> Evaluation:
    """Walk `steps`, adding what becomes known to `state` (which is returned)."""
    for step in steps:
        _infer(step, state)
        for name, value in zip(step.results, step.node.outputs, strict=True):
            if name and name not in state.types:
                state.types[name] = _declared(value, with_shape=step.schema is None)
            size = state.shape(name)
            if size is not None and min(size, default=1) < 1:
                (state.failures if min(size) < 0 else state.empty).append(f"{name!r} has size {size}")
        if step.may_fold:
            _fold(step, state)
        if step.node.op_type == "Reshape" and step.is_standard:
            _check_reshape(step, state)
    return state


def _check_reshape(step: Step, state: Evaluation) -> None:
    """Shape inference takes a fixed target shape at its word."""
    before, after = state.shape(step.operands[0]), state.shape(step.results[0])
    if before is not None and after is not None and math.prod(before) != math.prod(after):
        state.failures.append(f"Reshape {step.results[0]!r} of {before} to {after}")
        state.types[step.results[0]].tensor_type.ClearField("shape")


def _infer(step: Step, state: Evaluation) -> None:
    """Types of the step's outputs."""
    if step.node.op_type == "If" and step.is_standard:
        _infer_if(step, state)
        return
    if step.schema is None:
        return
    reads = [name for name in (*step.operands, *step.captured) if name]
    if any(name not in state.types for name in reads):
        return
    data = {
        name: numpy_helper.from_array(state.known[name], name)
        for name in reads
        if name in state.known and state.known[name].size <= SMALL_LIMIT
    }
    try:
        types = shape_inference.infer_node_outputs(
            step.schema,
            step.proto,
            {name: state.types[name] for name in reads},
            data,
            opset_imports=[helper.make_opsetid(*item) for item in step.opsets.items()],
        )
    except checker.ValidationError as error:
        if "deprecated" not in str(error):  # runtimes still run deprecated operators
            raise step.invalid(error) from error
        state.failures.append(f"{step.node.op_type} {step.results[0]!r}: {error}")
        types = {}
    except _EVALUATION_ERRORS as error:
        state.failures.append(f"{step.node.op_type} {step.results[0]!r}: {error}")
        return
    if step.node.op_type == "GroupNormalization" and reads[0] in state.types:  # has no inference of its own
        types = {step.results[0]: state.types[reads[0]]}
    for name, found in types.items():
        if found.WhichOneof("value") is not None:
            state.types[name] = found


def _infer_if(step: Step, state: Evaluation) -> None:
    """The branch that is taken, or both where the condition is not known and they agree."""
    branches = step.branches()
    condition = state.known.get("".join(step.operands[:1]))
    if condition is not None and condition.size == 1:
        branches = [branches[0] if condition.item() else branches[1]]
    ends = [_evaluate_body(branch, step, state) for branch in branches]
    for end in ends:
        state.failures += end.failures
        state.empty += end.empty
    for index, name in enumerate(step.results):
        found = {end.types[out].SerializeToString() for end, out in _outputs(ends, branches, index)}
        if len(found) == 1 and name:
            state.types[name] = onnx.TypeProto.FromString(found.pop())


def _outputs(
    ends: list[Evaluation], branches: list[onnx_ir.Graph], index: int
) -> list[tuple[Evaluation, str]]:
    pairs = [(end, branch.outputs[index].name or "") for end, branch in zip(ends, branches, strict=True)]
    return pairs if all(name in end.types for end, name in pairs) else []


def _evaluate_body(graph: onnx_ir.Graph, step: Step, outer: Evaluation) -> Evaluation:
    state = outer.copy()
    found: dict[str, Array | None] = {}
    try:
        for name, value in graph.initializers.items():
            found[name] = None if value.const_value is None else value.const_value.numpy()
        for node in filter(is_constant, graph):
            found[node.outputs[0].name or ""] = constant_array(node)
    except READ_ERRORS as error:
        raise step.invalid(f"a tensor in it cannot be read: {error}") from error
    arrays = {name: array for name, array in found.items() if array is not None}
    state.known |= arrays
    state.types |= {name: tensor_type(array) for name, array in arrays.items()}
    return evaluate(make_steps(graph, step.opsets, step.source), state)


def _fold(step: Step, state: Evaluation) -> None:
    """Compute the outputs of a step whose operands are all known."""
    reads = [name for name in step.operands if name]
    results = [name for name in step.results if name]
    op = step.node.op_type
    if op in ("Shape", "Size"):
        size = state.shape(reads[0])
        if size is None or reads[0] not in state.types:
            return
        # Zero-stride stand-in: only its shape is read.
        arrays = {reads[0]: np.broadcast_to(np.zeros((), np.float32), size)}
        tainted = False
    else:
        if not reads or any(name not in state.known for name in reads):
            return
        arrays = {name: state.known[name] for name in reads}
        tainted = any(name in state.tainted for name in reads)
    limit = SMALL_LIMIT if tainted else FOLD_LIMIT
    sizes = [state.shape(name) for name in results]
    if any(array.size > limit for array in arrays.values()) and op not in ("Shape", "Size"):
        return
    if any(size is not None and math.prod(size) > limit for size in sizes):
        return
    found = _run(step, arrays)
    if found is None or not all(_fits(state, name, found[name]) for name in results):
        return
    for name in results:
        state.known[name] = found[name]
        state.types[name] = tensor_type(found[name])
        if tainted:
            state.tainted.add(name)


def _run(step: Step, arrays: Mapping[str, Array]) -> dict[str, Array] | None:
    """One node in the reference implementation; None where that has no answer."""
    results = [name for name in step.results if name]
    graph = helper.make_graph(
        [step.proto],
        "node",
        [helper.make_value_info(name, tensor_type(array)) for name, array in arrays.items()],
        [helper.make_empty_tensor_value_info(name) for name in results],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*item) for item in step.opsets.items()]
    )
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(model).run(None, dict(arrays))
    except _EVALUATION_ERRORS:
        return None
    if not all(isinstance(value, np.ndarray | np.generic) for value in found):
        return None
    return {name: np.asarray(value) for name, value in zip(results, found, strict=True)}


def _fits(state: Evaluation, name: str, array: Array) -> bool:
    """The computed array agrees with the inferred type (the reference has its slips)."""
    declared = state.types[name].tensor_type
    size = state.shape(name)
    if declared.elem_type and helper.np_dtype_to_tensor_dtype(array.dtype) != declared.elem_type:
        return False
    return size is None or size == array.shape


def _declared(value: onnx_ir.Value, *, with_shape: bool) -> onnx.TypeProto:
    """What the file says of a value that inference has no answer for.

    Its shape counts only for operators that ONNX doesn't know: elsewhere inference has refused it.
    """
    declared = onnx.TypeProto()
    if value.type is not None:
        onnx_ir.serde.serialize_type_into(declared, value.type)
        if with_shape and value.shape is not None:
            onnx_ir.serde.serialize_shape_into(declared, value.shape)
    return declared
