"""ATen -> ONNX: reductions along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphnorm.frontends.aten_call import (
    Call,
    Lowering,
    Lowerings,
    Number,
    Unlowerable,
    axes_of,
    axis_of,
    rank,
)
from graphnorm.ir import Value

TABLE = Lowerings()
Axes = int | Sequence[int] | None

# (ONNX operator, ATen overloads with axes, overloads over everything)
REDUCTIONS = (
    ("ReduceMean", ("mean.dim",), ("mean",)),
    ("ReduceSum", ("sum.dim_IntList",), ("sum",)),
    ("ReduceMax", ("amax", "max.dim"), ("max",)),
    ("ReduceMin", ("amin", "min.dim"), ("min",)),
    ("ReduceProd", ("prod.dim_int",), ("prod",)),
    ("ReduceLogSumExp", ("logsumexp",), ()),
)


def reduce(call: Call, op: str, x: Value, axes: Axes, keepdims: bool) -> None:
    """Emit a reduction in the result's type."""
    x = call.typed(x, call.result.dtype)
    if rank(x) == 0:
        call.out("Identity", x)
    else:
        call.out(op, x, axes_of(axes, rank(x)), keepdims=int(keepdims))


def _along(op: str) -> Lowering:
    def lower(call: Call, x: Value, axes: Axes = None, keepdims: bool = False, *_: object) -> None:
        reduce(call, op, x, axes, keepdims)

    return lower


def _over_all(op: str) -> Lowering:
    def lower(call: Call, x: Value, *_: object) -> None:
        reduce(call, op, x, None, False)

    return lower


for _op, _with_axes, _total in REDUCTIONS:
    for _name in _with_axes:
        TABLE.add(_name, _along(_op))
    for _name in _total:
        TABLE.add(_name, _over_all(_op))


@TABLE.lowers("linalg_vector_norm")
def vector_norm(
    call: Call, x: Value, order: Number = 2, axes: Axes = None, keepdims: bool = False, *_: object
) -> None:
    x = call.typed(x, call.result.dtype)
    if order in (1, 2):
        reduce(call, f"ReduceL{int(order)}", x, axes, keepdims)
    elif math.isinf(order):
        op = "ReduceMax" if order > 0 else "ReduceMin"
        reduce(call, op, call.step("Abs", x, like=x), axes, keepdims)
    else:
        raise Unlowerable


@TABLE.lowers("norm.ScalarOpt_dim", "norm.Scalar")
def norm(call: Call, x: Value, order: Number | None = 2, axes: Axes = None, keepdims: bool = False) -> None:
    vector_norm(call, x, 2 if order is None else order, axes, keepdims)


@TABLE.lowers("argmax", "argmin")
def argmax(call: Call, x: Value, axis: int | None = None, keepdims: bool = False) -> None:
    op = "ArgMax" if "argmax" in str(call.node.target) else "ArgMin"
    if rank(x) == 0:
        raise Unlowerable
    if axis is None and not keepdims:
        size = math.prod(x.shape or ())
        varies = frozenset({0}) if x.dynamic else frozenset[int]()
        x, axis = call.step("Reshape", x, [size], shape=[size], dynamic=varies), 0
    if axis is None:
        raise Unlowerable
    call.out(op, x, axis=axis_of(axis, rank(x)), keepdims=int(keepdims))


@TABLE.lowers("cumsum")
def cumsum(call: Call, x: Value, axis: int, *_: object) -> None:
    if rank(x) == 0:
        raise Unlowerable
    call.out("CumSum", call.typed(x, call.result.dtype), call.number(axis_of(axis, rank(x)), "int64"))


@TABLE.lowers("topk")
def topk(call: Call, x: Value, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> None:
    if rank(x) == 0:
        raise Unlowerable
    call.out("TopK", x, [k], count=2, axis=axis_of(axis, rank(x)), largest=int(largest), sorted=int(ordered))


def _spread_of(op: str) -> tuple[Lowering, Lowering, Lowering]:
    def out(call: Call, x: Value, axes: Axes, correction: Number | None, keepdims: bool) -> None:
        correction = 1 if correction is None else correction
        call.out(op, x, axes=axes_of(axes, rank(x)), keepdims=int(keepdims), correction=correction)

    def total(call: Call, x: Value, unbiased: bool = True) -> None:
        out(call, x, None, int(unbiased), False)

    def along(call: Call, x: Value, axes: Axes, unbiased: bool = True, keepdims: bool = False) -> None:
        out(call, x, axes, int(unbiased), keepdims)

    def corrected(
        call: Call, x: Value, axes: Axes = None, correction: Number | None = None, keepdims: bool = False
    ) -> None:
        out(call, x, axes, correction, keepdims)

    return total, along, corrected


for _name in ("var", "std"):
    for _kind, _lowering in zip(("default", "dim", "correction"), _spread_of(f"aten::{_name}"), strict=True):
        TABLE.add(f"{_name}.{_kind}", _lowering)
