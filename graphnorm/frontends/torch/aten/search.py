"""ATen -> ONNX: places in sorted lists, different entries."""

from __future__ import annotations

from graphnorm.frontends.torch.call import Call, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import compared, reduced, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


def _before(call: Call, boundaries: Value, x: Value | float, right: bool) -> None:
    """How many entries of a sorted list are smaller: ``[.., n]`` and ``x: [.., m]`` -> ``[.., m]``."""
    dtype = call.promotion()
    rows, points = call.typed(boundaries, dtype), call.typed(x, dtype)
    last = rank(points)
    if rank(rows) > 1:
        rows = unsqueezed(call, rows, [rank(rows) - 1])
    smaller = compared(call, "LessOrEqual" if right else "Less", rows, unsqueezed(call, points, [last]))
    call.yields(reduced(call, "ReduceSum", call.typed(smaller, call.result.dtype), [last], keepdims=False))


@TABLE.lowers("bucketize.Tensor", "bucketize.Scalar")
def bucketize(
    call: Call, x: Value | float, boundaries: Value, out_int32: bool = False, right: bool = False
) -> None:
    _before(call, boundaries, x, right)


@TABLE.lowers("searchsorted.Tensor", "searchsorted.Scalar")
def searchsorted(
    call: Call,
    boundaries: Value,
    x: Value | float,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> None:
    if sorter is not None:
        raise Unlowerable
    _before(call, boundaries, x, right or side == "right")


@TABLE.lowers("_unique2", "_unique")
def unique(
    call: Call, x: Value, ordered: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> None:
    """Results of sizes that are known only at run time."""
    values, _, inverse, counts = call.steps("Unique", x, shapes=[None] * 4, dtypes=[x.dtype, *["int64"] * 3])
    call.yields(values)
    if call.wants(1):
        call.out_at(1, "Reshape", inverse, list(known_shape(x)))
    call.yields(counts, 2)


@TABLE.lowers("unique_dim")
def unique_along(
    call: Call, x: Value, axis: int, ordered: bool = True, return_inverse: bool = False, counts: bool = False
) -> None:
    values, _, inverse, number = call.steps(
        "Unique", x, shapes=[None] * 4, dtypes=[x.dtype, *["int64"] * 3], axis=axis_of(axis, x)
    )
    for index, value in enumerate((values, inverse, number)):
        call.yields(value, index)
