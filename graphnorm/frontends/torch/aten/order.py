"""ATen -> ONNX: order along an axis: extrema with their places, sorting, running sums."""

from __future__ import annotations

import math

import numpy as np

from graphnorm.frontends.torch.call import Call, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import (
    chosen,
    combined,
    compared,
    flat,
    reduced,
    squeezed,
    taken,
    unary,
    unsqueezed,
)
from graphnorm.ir import Value

TABLE = Lowerings()


def _alone(call: Call, x: Value) -> None:
    """A tensor without axes is its own extremum, in order, at place 0."""
    for index, value in enumerate((x, call.constant(np.array(0)))):
        if call.wants(index):
            call.yields(value, index)


def _extremum(op: str) -> Lowering:
    def lower(call: Call, x: Value, axis: int, keepdims: bool = False) -> None:
        if not rank(x):
            _alone(call, x)
            return
        axis = axis_of(axis, x)
        call.yields(reduced(call, f"Reduce{op}", x, [axis], keepdims))
        call.out_at(1, f"Arg{op}", x, axis=axis, keepdims=int(keepdims))

    return lower


def _place(op: str) -> Lowering:
    def lower(call: Call, x: Value, axis: int | None = None, keepdims: bool = False) -> None:
        if axis is None and not keepdims:
            x, axis = flat(call, x), 0
        if axis is None:
            raise Unlowerable
        x = unsqueezed(call, x, [0]) if not rank(x) else x
        call.out(op, x, axis=axis_of(axis, x), keepdims=int(keepdims))

    return lower


for _op in ("Max", "Min"):
    TABLE.add(f"{_op.lower()}.dim", _extremum(_op))
    TABLE.add(f"arg{_op.lower()}", _place(f"Arg{_op}"))


@TABLE.lowers("aminmax")
def aminmax(call: Call, x: Value, axis: int | None = None, keepdims: bool = False) -> None:
    axes = list(range(rank(x))) if axis is None or not rank(x) else [axis_of(axis, x)]
    call.out_at(0, "ReduceMin", x, axes, keepdims=int(keepdims))
    call.out_at(1, "ReduceMax", x, axes, keepdims=int(keepdims))


def _sorted(call: Call, x: Value, axis: int, descending: bool, count: int | None = None) -> list[Value]:
    """The entries along an axis in order, all or the first ``count``, and their places."""
    if not rank(x) or x.dtype == "bool":
        raise Unlowerable
    shape = list(known_shape(x))
    shape[axis] = shape[axis] if count is None else count
    return call.steps(
        "TopK", x, [shape[axis]], shapes=[shape, shape], dtypes=[x.dtype, "int64"], dynamic=x.dynamic,
        axis=axis, largest=int(descending), sorted=1,
    )  # fmt: skip


@TABLE.lowers("sort")
def sort(call: Call, x: Value, axis: int = -1, descending: bool = False) -> None:
    if not rank(x):
        _alone(call, x)
        return
    for index, value in enumerate(_sorted(call, x, axis_of(axis, x), descending)):
        call.yields(value, index)


@TABLE.lowers("sort.stable")
def sort_stable(
    call: Call, x: Value, stable: bool | None = None, axis: int = -1, descending: bool = False
) -> None:
    sort(call, x, axis, descending)


@TABLE.lowers("argsort")
def argsort(call: Call, x: Value, axis: int = -1, descending: bool = False) -> None:
    call.yields(_sorted(call, x, axis_of(axis, x), descending)[1])


@TABLE.lowers("argsort.stable")
def argsort_stable(call: Call, x: Value, stable: bool, axis: int = -1, descending: bool = False) -> None:
    argsort(call, x, axis, descending)


@TABLE.lowers("topk")
def topk(call: Call, x: Value, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> None:
    if not rank(x) and k == 1:
        _alone(call, x)
        return
    if not rank(x):
        raise Unlowerable
    call.out("TopK", x, [k], count=2, axis=axis_of(axis, x), largest=int(largest), sorted=int(ordered))


@TABLE.lowers("kthvalue")
def kthvalue(call: Call, x: Value, k: int, axis: int = -1, keepdims: bool = False) -> None:
    if not rank(x):
        _alone(call, x)
        return
    axis = axis_of(axis, x)
    for index, value in enumerate(_sorted(call, x, axis, False, k)):
        if call.wants(index):
            call.yields(taken(call, value, np.array([k - 1]) if keepdims else k - 1, axis), index)


@TABLE.lowers("median.dim")
def median(call: Call, x: Value, axis: int = -1, keepdims: bool = False) -> None:
    """The lower of the two in the middle."""
    axis = axis_of(axis, x)
    kthvalue(call, x, (known_shape(x)[axis] + 1) // 2 if rank(x) else 1, axis, keepdims)


@TABLE.lowers("median")
def median_of_all(call: Call, x: Value) -> None:
    median(call, flat(call, x), 0)


@TABLE.lowers("nanmedian.dim")
def nanmedian(call: Call, x: Value, axis: int = -1, keepdims: bool = False) -> None:
    """NaN is sorted to the end, and not counted."""
    axis = axis_of(axis, x)
    missing = unary(call, "IsNaN", x, "bool")
    values, places = _sorted(call, chosen(call, missing, np.inf, x), axis, False)
    count = reduced(call, "ReduceSum", call.typed(unary(call, "Not", missing), "int64"), [axis])
    middle = combined(call, "Div", combined(call, "Max", combined(call, "Sub", count, 1), 0), 2)
    for index, value in enumerate((values, places)):
        if call.wants(index):
            found = call.step(
                "GatherElements", value, middle, shape=known_shape(middle), dynamic=middle.dynamic, axis=axis
            )
            if index == 0:
                found = chosen(call, compared(call, "Equal", count, 0), np.nan, found)
            call.yields(found if keepdims else squeezed(call, found, [axis]), index)


@TABLE.lowers("nanmedian")
def nanmedian_of_all(call: Call, x: Value) -> None:
    nanmedian(call, flat(call, x), 0)


@TABLE.lowers("mode")
def mode(call: Call, x: Value, axis: int = -1, keepdims: bool = False) -> None:
    """The smallest of the most frequent entries, and its last place."""
    if not rank(x):
        _alone(call, x)
        return
    axis = axis_of(axis, x)
    equal = compared(call, "Equal", unsqueezed(call, x, [axis]), unsqueezed(call, x, [axis + 1]))
    count = reduced(call, "ReduceSum", call.typed(equal, "int64"), [axis], keepdims=False)
    frequent = compared(call, "Equal", count, reduced(call, "ReduceMax", count, [axis]))
    found = reduced(call, "ReduceMin", chosen(call, frequent, x, _largest(x)), [axis])
    if call.used[1]:
        here = call.typed(compared(call, "Equal", x, found), "int64")
        call.out_at(1, "ArgMax", here, axis=axis, keepdims=int(keepdims), select_last_index=1)
    call.yields(found if keepdims else squeezed(call, found, [axis]))


def _largest(x: Value) -> float | int:
    return math.inf if x.is_float else int(np.iinfo(x.dtype).max)


def _running(op: str) -> Lowering:
    def lower(call: Call, x: Value, axis: int, *_: object) -> None:
        x = call.typed(x, call.result.dtype)
        if rank(x):
            call.out(op, x, call.number(axis_of(axis, x), "int64"))
        else:
            call.out("Identity", x)

    return lower


TABLE.add("cumsum", _running("CumSum"))
TABLE.add("cumprod", _running("CumProd"))


def _running_extremum(op: str) -> Lowering:
    def lower(call: Call, x: Value, axis: int) -> None:
        if rank(x):
            call.out(op, x, count=2, axis=axis_of(axis, x))
        else:
            call.out_at(0, "Identity", x)
            call.yields(call.number(0, "int64"), 1)

    return lower


TABLE.add("cummax", _running_extremum("aten::cummax"))
TABLE.add("cummin", _running_extremum("aten::cummin"))


@TABLE.lowers("logcumsumexp")
def logcumsumexp(call: Call, x: Value, axis: int) -> None:
    """``m + log(cumsum(exp(x - m)))`` with the largest entry m."""
    if rank(x) == 0:
        raise Unlowerable
    axis = axis_of(axis, x)
    largest = reduced(call, "ReduceMax", x, [axis])
    powers = unary(call, "Exp", combined(call, "Sub", x, largest))
    total = call.step("CumSum", powers, call.number(axis, "int64"), like=powers)
    call.out("Add", unary(call, "Log", total), largest)
