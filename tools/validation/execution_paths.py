"""The path-norm rule of an operator against its derivatives.

Between an entry of data and an entry of the result a linear operator has one path, whose weight is the
derivative; a maximum of non-negative entries has one of weight 1 to each of them.  So the p-th power of the
path-norm is the sum of |derivatives|^p, and of |b|^p of what the operator makes of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphnorm.alignment.normal import normalise
from graphnorm.errors import NoPathNormError
from graphnorm.fingerprint.paths import path_norm
from graphnorm.ir import Array
from graphnorm.rescaling.graph import build
from tools.validation.case import Case
from tools.validation.evaluate import evaluator
from tools.validation.network import minimal

Arrays = Sequence[Array | None]
LINEAR = frozenset({
    "Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Sub", "Sum", "Mean", "AveragePool", "MaxPool",
    "Identity", "Neg", "Relu", "ReduceSum", "ReduceMean", "ReduceMax", "GlobalAveragePool", "GlobalMaxPool",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat", "Pad", "Expand",
    "Max", "Dropout", "Abs", "Mul", "Div",
})  # fmt: skip
EXPONENTS = (1.0, 2.0, 4.0)
_CLOSE = 1e-9


def pathed(case: Case, operands: Arrays) -> str | None:
    """What is wrong with the path-norm around the operator; None if there is none, or no other way to it."""
    data = [k for k, operand in enumerate(case.operands) if operand.kind == "data"]
    if case.results > 1 or "zeros" in case.kinds or ("weight" in case.kinds and case.op == "Max"):
        return None
    if len(case.operands) - len(data) > 1 and case.op in {"Sum", "Mean"}:  # parallel biases
        return None
    fits = len(data) == 1 or case.op in {"Add", "Sub", "Sum", "Mean", "Max", "Concat"}
    if case.op not in LINEAR or not data or not fits or not _is_linear(case, data):
        return None
    results = evaluator(case)(list(operands))
    graph = build(normalise(minimal(case, list(operands), results)).graph)
    expected = _derivatives(case, list(operands), data)
    for p in EXPONENTS:
        try:
            found = path_norm(graph, p)
        except NoPathNormError:
            return None
        total = float(sum((np.abs(part) ** p).sum() for part in expected) ** (1 / p))
        if abs(found - total) > _CLOSE * total:
            return f"the l{p:g} path-norm is {found!r}, not {total!r}"
    return ""


def _is_linear(case: Case, data: Sequence[int]) -> bool:
    if case.op == "Div":
        return data == [0]
    if case.op == "Max":
        return len(data) == len(case.operands)
    if case.op == "Pad":
        return (
            len(case.operands) < 3 or case.operands[2].kind == "absent" or _is_finite(case.operands[2].value)
        )
    return case.op != "Split" or case.results == 1


def _is_finite(value: Array | None) -> bool:
    return value is None or bool(np.isfinite(value).all())


def _derivatives(case: Case, operands: list[Array | None], data: Sequence[int]) -> list[Array]:
    """What the operator makes of each entry of 1 among zeros, and of zeros alone."""
    run = evaluator(replace(case, results=1))
    nothing = [np.zeros_like(x) if k in data and x is not None else x for k, x in enumerate(operands)]
    bias = np.asarray(run(nothing)[0])
    found = [bias]
    for k in data:
        array = nothing[k]
        assert array is not None
        for entry in range(array.size):
            one = array.copy()
            one.reshape(-1)[entry] = 1.0
            found.append(np.asarray(run([*nothing[:k], one, *nothing[k + 1 :]])[0]) - bias)
    return found
