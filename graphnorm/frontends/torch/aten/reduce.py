"""ATen -> ONNX: reductions along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphnorm.frontends.torch.call import Call, Number, Unlowerable, axes_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import chosen, combined, compared, reduced, scaled, squeezed, unary
from graphnorm.ir import Value

TABLE = Lowerings()
Axes = int | Sequence[int] | None

# (ONNX operator, ATen overloads with axes, overloads over everything)
REDUCTIONS = (
    ("ReduceMean", ("mean.dim",), ("mean",)),
    ("ReduceSum", ("sum.dim_IntList",), ("sum",)),
    ("ReduceMax", ("amax",), ("max",)),
    ("ReduceMin", ("amin",), ("min",)),
    ("ReduceProd", ("prod.dim_int",), ("prod",)),
    ("ReduceLogSumExp", ("logsumexp",), ()),
)


def reduce(call: Call, op: str, x: Value, axes: Axes, keepdims: bool) -> None:
    """Emit a reduction in the result's type."""
    x = call.typed(x, call.result.dtype)
    if rank(x) == 0:
        call.out("Abs" if op in ("ReduceL1", "ReduceL2") else "Identity", x)
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


@TABLE.lowers("nansum")
def nansum(call: Call, x: Value, axes: Axes = None, keepdims: bool = False, *_: object) -> None:
    if x.is_float:
        x = chosen(call, unary(call, "IsNaN", x, "bool"), 0, x)
    reduce(call, "ReduceSum", x, axes, keepdims)


@TABLE.lowers("count_nonzero", "count_nonzero.dim_IntList")
def count_nonzero(call: Call, x: Value, axes: Axes = None) -> None:
    counted = call.typed(call.typed(x, "bool"), "int64")
    reduce(call, "ReduceSum", counted, axes, False)


# Norms.


@TABLE.lowers("linalg_vector_norm")
def vector_norm(
    call: Call, x: Value, order: Number = 2, axes: Axes = None, keepdims: bool = False, *_: object
) -> None:
    x = call.typed(x, call.result.dtype)
    if order in (1, 2):
        reduce(call, f"ReduceL{int(order)}", x, axes, keepdims)
    else:
        call.yields(norm_of(call, x, float(order), axes_of(axes, rank(x)), keepdims))


def norm_of(call: Call, x: Value, order: float, axes: Sequence[int], keepdims: bool) -> Value:
    """``(sum |x|^p)^(1/p)`` along axes."""
    if order in (1, 2):
        return reduced(call, f"ReduceL{int(order)}", x, axes, keepdims)
    size = unary(call, "Abs", x)
    if math.isinf(order):
        return reduced(call, "ReduceMax" if order > 0 else "ReduceMin", size, axes, keepdims)
    if order == 0:
        used = unary(call, "Not", compared(call, "Equal", x, 0))
        return reduced(call, "ReduceSum", call.typed(used, x.dtype), axes, keepdims)
    total = reduced(call, "ReduceSum", combined(call, "Pow", size, order), axes, keepdims)
    return combined(call, "Pow", total, 1 / order)


@TABLE.lowers(
    "norm.ScalarOpt_dim", "norm.Scalar", "norm.ScalarOpt_dim_dtype", "native_norm.ScalarOpt_dim_dtype"
)
def norm(
    call: Call, x: Value, order: Number | None = 2, axes: Axes = None, keepdims: bool = False, *_: object
) -> None:
    vector_norm(call, x, 2 if order is None else order, axes, keepdims)


@TABLE.lowers("norm.ScalarOpt_dtype", "native_norm")
def norm_of_all(call: Call, x: Value, order: Number | None = 2, *_: object) -> None:
    vector_norm(call, x, 2 if order is None else order)


# Variance: the mean of the squares of what differs from the mean.


def _spread(
    call: Call, x: Value, axes: Axes, correction: Number | None, keepdims: bool
) -> tuple[Value, Value]:
    """The variance and the mean along axes."""
    along = axes_of(axes, rank(x))
    count = math.prod(known_shape(x)[axis] for axis in along)
    divisor = count - (1 if correction is None else float(correction))
    if divisor <= 0 or not rank(x) or not x.is_float:
        raise Unlowerable
    mean = reduced(call, "ReduceMean", x, along)
    square = combined(call, "Pow", combined(call, "Sub", x, mean), 2)
    variance = scaled(call, reduced(call, "ReduceMean", square, along, keepdims), count / divisor)
    return variance, mean if keepdims else squeezed(call, mean, along)


def _spreads(name: str) -> tuple[Lowering, Lowering, Lowering]:
    def out(call: Call, x: Value, axes: Axes, correction: Number | None, keepdims: bool) -> None:
        variance, mean = _spread(call, x, axes, correction, keepdims)
        call.yields(unary(call, "Sqrt", variance) if name.startswith("std") else variance)
        if name.endswith("mean"):
            call.yields(mean, 1)

    def total(call: Call, x: Value, unbiased: bool = True) -> None:
        out(call, x, None, int(unbiased), False)

    def along(call: Call, x: Value, axes: Axes, unbiased: bool = True, keepdims: bool = False) -> None:
        out(call, x, axes, int(unbiased), keepdims)

    def corrected(
        call: Call, x: Value, axes: Axes = None, correction: Number | None = None, keepdims: bool = False
    ) -> None:
        out(call, x, axes, correction, keepdims)

    return total, along, corrected


# torch decomposes std_mean itself; not decomposed, it fails with variable sizes.
for _name in ("var", "std", "var_mean"):
    for _kind, _lowering in zip(("default", "dim", "correction"), _spreads(_name), strict=True):
        TABLE.add(f"{_name}.{_kind}", _lowering)
