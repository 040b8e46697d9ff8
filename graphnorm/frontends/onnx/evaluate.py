"""Partial evaluation of an ONNX graph at concrete input sizes.

Walks the nodes once.  Each output gets a type (shape inference of that one node, with everything known about
its inputs) and, where every input is known and small, its value (the ONNX reference implementation).  What
depends on the value of a weight is *tainted*: its value is used for shapes, but it is not a constant, because
weights get rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
import onnx_ir
from onnx import checker, helper, numpy_helper, shape_inference

from graphnorm.frontends.onnx.attributes import attribute_fault
from graphnorm.frontends.onnx.bodies import Branches, Repetition
from graphnorm.frontends.onnx.compute import EVALUATION_ERRORS, SMALL_LIMIT, fold
from graphnorm.frontends.onnx.evaluation import Evaluation
from graphnorm.frontends.onnx.operands import operand_fault
from graphnorm.frontends.onnx.regions import infer_branches, infer_repetition
from graphnorm.frontends.onnx.rewriting import rewrite
from graphnorm.frontends.onnx.steps import Step


def evaluate(steps: Iterable[Step], state: Evaluation) -> Evaluation:
    """Walk `steps`, adding what becomes known to `state` (which is returned)."""
    for step in steps:
        _infer(step, state)
        rewriting = rewrite(step, state)
        if rewriting is not None:
            evaluate(rewriting.steps, state)
        for name, value in zip(step.results, step.node.outputs, strict=True):
            if name and name not in state.types:
                state.types[name] = _declared(value, with_shape=step.schema is None)
            size = state.shape(name)
            if size is not None and min(size, default=1) < 1:
                (state.failures if min(size) < 0 else state.empty).append(f"{name!r} has size {size}")
            if size is not None and min(size, default=0) < 0:
                state.broken[step.results[0]] = step, f"{name!r} would be of size {size}"
        if step.may_fold:
            fold(step, state)
        if step.node.op_type == "Reshape" and step.is_standard:
            _check_reshape(step, state)
    return state


def _check_reshape(step: Step, state: Evaluation) -> None:
    """Shape inference trusts a fixed target shape."""
    before, after = state.shape(step.operands[0]), state.shape(step.results[0])
    if before is not None and after is not None and math.prod(before) != math.prod(after):
        state.failures.append(f"Reshape {step.results[0]!r} of {before} to {after}")
        state.types[step.results[0]].tensor_type.ClearField("shape")


def _infer(step: Step, state: Evaluation) -> None:
    """Types of the step's outputs."""
    if isinstance(step, Branches):
        infer_branches(step, state, evaluate)
        return
    if isinstance(step, Repetition):
        infer_repetition(step, state, evaluate)
        return
    if step.schema is None or step.is_renamed_inside:
        return
    reads = [name for name in (*step.operands, *step.captured) if name]
    if any(name not in state.types for name in reads):
        return
    fault = attribute_fault(step, state.shape) or operand_fault(step, state.shape)
    if fault:
        state.failures.append(f"{step.node.op_type} {step.results[0]!r}: {fault}")
        state.broken[step.results[0]] = step, fault
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
    except EVALUATION_ERRORS as error:
        state.failures.append(f"{step.node.op_type} {step.results[0]!r}: {error}")
        if isinstance(error, shape_inference.InferenceError):
            state.broken[step.results[0]] = step, str(error).splitlines()[0]
        return
    if step.node.op_type == "GroupNormalization" and reads[0] in state.types:  # has no inference of its own
        types = {step.results[0]: state.types[reads[0]]}
    for name, found in types.items():
        if found.WhichOneof("value") is not None:
            state.types[name] = found


def _declared(value: onnx_ir.Value, *, with_shape: bool) -> onnx.TypeProto:
    """What the file declares about a value that inference does not cover.

    Its shape counts only for operators that ONNX doesn't know: elsewhere inference has refused it.
    """
    declared = onnx.TypeProto()
    if value.type is not None:
        onnx_ir.serde.serialize_type_into(declared, value.type)
        if with_shape and value.shape is not None:
            onnx_ir.serde.serialize_shape_into(declared, value.shape)
    return declared
