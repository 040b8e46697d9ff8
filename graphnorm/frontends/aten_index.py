"""ATen -> ONNX: selecting entries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.frontends.aten_call import (
    Call,
    Lowerings,
    Number,
    Unlowerable,
    axis_of,
    known_shape,
    moved,
    rank,
)
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("select.int")
def select(call: Call, x: Value, axis: int, index: int) -> None:
    call.out("Gather", x, call.number(index, "int64"), axis=axis_of(axis, rank(x)))


@TABLE.lowers("slice.Tensor")
def slice_axis(
    call: Call, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> None:
    axis = axis_of(axis, rank(x))
    size = known_shape(x)[axis]
    first, last, _ = slice(start, end).indices(size)
    if (first, last, step) == (0, size, 1):
        call.out("Identity", x)
    else:
        call.out("Slice", x, [first], [last], [axis], [step])


@TABLE.lowers("narrow")
def narrow(call: Call, x: Value, axis: int, start: int, length: int) -> None:
    start %= known_shape(x)[axis]
    slice_axis(call, x, axis, start, start + length)


@TABLE.lowers("index_select")
def index_select(call: Call, x: Value, axis: int, index: Value) -> None:
    call.out("Gather", x, index, axis=axis_of(axis, rank(x)))


@TABLE.lowers("index.Tensor")
def index_by(call: Call, x: Value, indices: Sequence[Value | None]) -> None:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].dtype in ("bool", "uint8"):
        axes = [axis for axis, _ in given]
        call.out("aten::index", x, *(index for _, index in given), axes=axes)
    else:
        call.out("Gather", x, given[0][1], axis=given[0][0])


@TABLE.lowers("gather")
def gather(call: Call, x: Value, axis: int, index: Value, *_: object) -> None:
    if not rank(x) or not rank(index):
        raise Unlowerable
    call.out("GatherElements", x, index, axis=axis_of(axis, rank(x)))


@TABLE.lowers("scatter.src", "scatter.value")
def scatter(call: Call, x: Value, axis: int, index: Value, source: Value | Number) -> None:
    if not isinstance(source, Value):
        shape = list(known_shape(index))
        source = call.step("Expand", call.number(source, x.dtype), shape, shape=shape, dynamic=index.dynamic)
    if source.shape != index.shape or not rank(x):
        raise Unlowerable
    call.out("ScatterElements", x, index, source, axis=axis_of(axis, rank(x)))


@TABLE.lowers("slice_scatter")
def slice_scatter(
    call: Call,
    x: Value,
    source: Value,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    """The slice replaced: what is before it, the source, what is after it."""
    axis = axis_of(axis, rank(x))
    size = known_shape(x)[axis]
    first, last, _ = slice(start, end).indices(size)
    source = call.typed(source, x.dtype)
    if (first, last, step) == (0, size, 1):
        call.overwrites(x)
        call.out("Identity", source)
        return
    if step != 1 or axis in x.dynamic or last <= first:
        raise Unlowerable
    kept = [0] * bool(first) + [2] * bool(size - last)
    pieces = dict(enumerate(call.split(x, [first, last - first, size - last], axis, x.dynamic)))
    pieces[1] = source
    call.out("Concat", *(pieces[i] for i in sorted([*kept, 1])), axis=axis)


@TABLE.lowers("select_scatter")
def select_scatter(call: Call, x: Value, source: Value, axis: int, index: int) -> None:
    axis = axis_of(axis, rank(x))
    index %= known_shape(x)[axis] or 1
    shape = [1 if i == axis else size for i, size in enumerate(known_shape(x))]
    source = call.step("Unsqueeze", source, [axis], shape=shape, dynamic=x.dynamic)
    slice_scatter(call, x, source, axis, index, index + 1)


@TABLE.lowers("unfold")
def unfold(call: Call, x: Value, axis: int, size: int, step: int) -> None:
    """Windows along an axis: their entries become a last axis."""
    axis = axis_of(axis, rank(x))
    if axis in x.dynamic or not rank(x):
        raise Unlowerable
    windows = call.shape[axis]
    where = np.arange(windows)[:, None] * step + np.arange(size)
    perm = [i for i in range(rank(x) + 1) if i != axis + 1] + [axis + 1]
    shape = [*call.shape[: axis + 1], size, *call.shape[axis + 1 : -1]]
    dynamic = frozenset(i + (i > axis) for i in x.dynamic)
    call.out("Transpose", call.step("Gather", x, where, shape=shape, dynamic=dynamic, axis=axis), perm=perm)


@TABLE.lowers("im2col")
def im2col(
    call: Call,
    x: Value,
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> None:
    """Patches of an image: ``(batch, channels * kh * kw, positions)``."""
    if rank(x) != 4 or x.dynamic - {0}:
        raise Unlowerable
    shape = list(known_shape(x))
    if any(padding):
        pads = [0, 0, *padding] * 2
        shape = shape[:2] + [size + 2 * pad for size, pad in zip(shape[2:], padding, strict=True)]
        x = call.step(
            "Pad", x, pads, call.number(0, x.dtype), shape=shape, dynamic=x.dynamic, mode="constant"
        )
    for axis, k, d, s in zip((2, 4), kernel, dilation, stride, strict=True):
        positions = (shape[axis] - d * (k - 1) - 1) // s + 1
        where = np.arange(k)[:, None] * d + np.arange(positions) * s
        shape[axis : axis + 1] = [k, positions]
        x = call.step("Gather", x, where, shape=shape, dynamic=x.dynamic, axis=axis)
    perm = [0, 1, 2, 4, 3, 5]
    turned = call.step(
        "Transpose", x, shape=[shape[i] for i in perm], dynamic=moved(x.dynamic, perm), perm=perm
    )
    call.out("Reshape", turned, call.shape)
