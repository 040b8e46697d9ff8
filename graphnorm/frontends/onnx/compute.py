"""Computing a node whose operands are known, by ONNX's reference implementation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import helper, shape_inference
from onnx.reference import ReferenceEvaluator

from graphnorm.frontends.onnx.evaluation import Evaluation
from graphnorm.frontends.onnx.steps import Step
from graphnorm.frontends.onnx.tensors import tensor_type
from graphnorm.ir import Array

FOLD_LIMIT = 1_000_000  # entries of a folded constant
SMALL_LIMIT = 4_096  # entries of a value that depends on weights, or that shape inference may read

_MOST_ENTRIES = 2**60  # of a stand-in: NumPy counts bytes in 64 bits
# Operators whose result may be much larger than their operands.
_MAY_GROW = frozenset(
    {
        "AffineGrid",
        "BlackmanWindow",
        "CenterCropPad",
        "Col2Im",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "DFT",
    }
    | {"Einsum", "Expand", "EyeLike", "GridSample", "HammingWindow", "HannWindow", "MatMul", "MaxUnpool"}
    | {"MelWeightMatrix", "OneHot", "Pad", "Range", "Resize", "RoiAlign", "STFT", "Tile", "Upsample"}
)

# Operators that the reference implementation computes wrongly: signs, neighbours, axes, windows.
_MISCOMPUTED = frozenset({"GlobalMaxPool", "LRN", "LpNormalization", "LpPool"})

# What the reference implementation and shape inference raise on operands they do not take.
EVALUATION_ERRORS = (
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


def fold(step: Step, state: Evaluation) -> None:
    """Compute the outputs of a step whose operands are all known."""
    reads = [name for name in step.operands if name]
    results = [name for name in step.results if name]
    op = step.node.op_type
    if op in ("Shape", "Size"):
        size = state.shape(reads[0]) if reads else None
        if size is None or min(size, default=0) < 0 or math.prod(max(n, 1) for n in size) > _MOST_ENTRIES:
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
    if op in _MAY_GROW and None in sizes:  # the result could be of any size
        return
    found = run_step(step, arrays)
    if found is None or not all(_fits(state, name, found[name]) for name in results):
        return
    for name in results:
        state.known[name] = found[name]
        state.types[name] = tensor_type(found[name])
        if tainted:
            state.tainted.add(name)


def run_step(step: Step, arrays: Mapping[str, Array]) -> dict[str, Array] | None:
    """One node in the reference implementation; None where that fails."""
    results = [name for name in step.results if name]
    op = step.node.op_type
    if op in _MISCOMPUTED or (op == "MaxPool" and len(step.results) > 1):  # its places are wrong, too
        return None
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
    except EVALUATION_ERRORS:
        return None
    if not all(isinstance(value, np.ndarray | np.generic) for value in found):
        return None
    return {name: np.asarray(value) for name, value in zip(results, found, strict=True)}


def _fits(state: Evaluation, name: str, array: Array) -> bool:
    """The computed array agrees with the inferred type (the reference implementation has bugs)."""
    declared = state.types[name].tensor_type
    size = state.shape(name)
    if declared.elem_type and helper.np_dtype_to_tensor_dtype(array.dtype) != declared.elem_type:
        return False
    return size is None or size == array.shape
