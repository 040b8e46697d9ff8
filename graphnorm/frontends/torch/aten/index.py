"""ATen -> ONNX: selecting entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import (
    broadcast,
    combined,
    expanded,
    flat,
    joined,
    reshaped,
    sliced,
    taken,
    turned,
    unsqueezed,
)
from graphnorm.ir import Array, Value

TABLE = Lowerings()
MASKS = ("bool", "uint8")


@TABLE.lowers("select.int", "select_copy.int")
def select(call: Call, x: Value, axis: int, index: int) -> None:
    call.out("Gather", x, call.number(index, "int64"), axis=axis_of(axis, x))


@TABLE.lowers("slice.Tensor", "slice_copy.Tensor")
def slice_axis(
    call: Call, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> None:
    axis = axis_of(axis, x)
    size = known_shape(x)[axis]
    first, last, _ = slice(start, end).indices(size)
    if (first, last, step) == (0, size, 1):
        call.out("Identity", x)
    else:
        call.out("Slice", x, [first], [last], [axis], [step])


@TABLE.lowers("narrow", "narrow_copy")
def narrow(call: Call, x: Value, axis: int, start: int, length: int) -> None:
    start %= known_shape(x)[axis] or 1
    slice_axis(call, x, axis, start, start + length)


@TABLE.lowers("index_select")
def index_select(call: Call, x: Value, axis: int, index: Value) -> None:
    if not rank(x):
        call.out("Gather", reshaped(call, x, [1]), reshaped(call, index, []), axis=0)
    elif index.shape == ():
        call.out("Gather", x, reshaped(call, index, [1]), axis=axis_of(axis, x))
    else:
        call.out("Gather", x, index, axis=axis_of(axis, x))


@TABLE.lowers("take")
def take(call: Call, x: Value, index: Value) -> None:
    call.out("Gather", flat(call, x), index, axis=0)


@TABLE.lowers("gather")
def gather(call: Call, x: Value, axis: int, index: Value, *_: object) -> None:
    if not rank(index) and not rank(x):
        call.out("Gather", reshaped(call, x, [1]), index, axis=0)
        return
    lifted = [unsqueezed(call, value, [0]) if not rank(value) else value for value in (x, index)]
    axis = axis_of(axis, lifted[0])
    if rank(index):
        call.out("GatherElements", *lifted, axis=axis)
    else:
        found = call.step("GatherElements", *lifted, shape=(1,), axis=axis)
        call.out("Squeeze", found, [0])


@TABLE.lowers("index.Tensor", "_unsafe_index.Tensor")
def index_by(call: Call, x: Value, indices: Sequence[Value | None]) -> None:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and given[0][1].dtype in MASKS:
        _masked(call, x, *given[0])
    elif any(index.dtype in MASKS for _, index in given):
        raise Unlowerable
    elif len(given) == 1:
        call.out("Gather", x, given[0][1], axis=given[0][0])
    else:
        _gathered(call, x, [axis for axis, _ in given], [index for _, index in given])


def places_of(call: Call, indices: Sequence[Value | None]) -> list[Value | None]:
    """Indices with each mask that is known as the places where it holds, one index for each of its axes."""
    found: list[Value | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype in MASKS and rank(index) and not index.dynamic
        known = call.data(index) if index is not None and is_mask else None
        found += [index] if known is None else [call.constant(places) for places in np.nonzero(known)]
    return found


def _masked(call: Call, x: Value, axis: int, mask: Value) -> None:
    """As many entries as the mask selects."""
    sizes = known_shape(x)
    after = axis + rank(mask)
    merged = reshaped(call, x, [*sizes[:axis], math.prod(sizes[axis:after]), *sizes[after:]])
    call.out("Compress", merged, call.typed(flat(call, mask), "bool"), axis=axis)


def _gathered(call: Call, x: Value, axes: list[int], indices: list[Value]) -> None:
    """Several index tensors: tuples of them are places in the axes that they index."""
    shape, _ = broadcast(indices)
    rest = [axis for axis in range(rank(x)) if axis not in axes]
    places = tuples(call, indices, [known_shape(x)[axis] for axis in axes])
    size = [*shape, *(known_shape(x)[axis] for axis in rest)]
    dynamic = frozenset(range(len(size))) if x.dynamic or places.dynamic else frozenset[int]()
    found = call.step("GatherND", turned(call, x, [*axes, *rest]), places, shape=size, dynamic=dynamic,
                      dtype=x.dtype, batch_dims=0)  # fmt: skip
    if axes == list(range(axes[0], axes[-1] + 1)):  # adjacent: the new axes take their place
        before = [len(shape) + i for i in range(axes[0])]
        after = range(len(shape) + axes[0], len(size))
        found = turned(call, found, [*before, *range(len(shape)), *after])
    call.yields(found)


def tuples(call: Call, indices: Sequence[Value], sizes: Sequence[int]) -> Value:
    """Index tensors that broadcast as one tensor ``[*shape, len(indices)]``; a constant if they are known."""
    known = [call.data(index) for index in indices]
    arrays = [array for array in known if array is not None]
    if len(arrays) == len(indices):
        wrapped = [
            np.where(array < 0, array + size, array) for array, size in zip(arrays, sizes, strict=True)
        ]
        return call.constant(np.stack(np.broadcast_arrays(*wrapped), axis=-1).astype(np.int64))
    shape, dynamic = broadcast(indices)
    columns = [expanded(call, call.typed(index, "int64"), shape, dynamic) for index in indices]
    return joined(call, [unsqueezed(call, column, [len(shape)]) for column in columns], len(shape))


@TABLE.lowers("diagonal", "diagonal_copy", "linalg_diagonal")
def diagonal(call: Call, x: Value, offset: int = 0, first: int = 0, second: int = 1) -> None:
    """The diagonal of two axes, as a last axis."""
    first, second = axis_of(first, x), axis_of(second, x)
    rest = [axis for axis in range(rank(x)) if axis not in (first, second)]
    if {first, second} & x.dynamic:
        raise Unlowerable
    rows, columns = known_shape(x)[first], known_shape(x)[second]
    places = np.arange(call.shape[-1])
    index = (places + max(-offset, 0)) * columns + places + max(offset, 0)
    merged = turned(call, x, [*rest, first, second])
    sizes = [known_shape(x)[axis] for axis in rest]
    call.out("Gather", reshaped(call, merged, [*sizes, rows * columns]), index, axis=len(rest))


@TABLE.lowers("trace")
def trace(call: Call, x: Value) -> None:
    rows, columns = known_shape(x)
    index = np.arange(min(rows, columns)) * (columns + 1)
    entries = taken(call, call.typed(flat(call, x), call.result.dtype), call.constant(index), 0)
    call.out("ReduceSum", entries, [0], keepdims=0)


@TABLE.lowers("as_strided", "as_strided_copy")
def as_strided(
    call: Call, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> None:
    call.out("Gather", flat(call, x), memory_places(call, x, size, stride, offset), axis=0)


def memory_places(
    call: Call, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None
) -> Array:
    """The entries that a strided view shows, if the first operand lies in memory in order."""
    source: Any = call.node.args[0]
    layout = source.meta["val"]
    if x.dynamic or call.result.dynamic or not layout.is_contiguous() or layout.storage_offset():
        raise Unlowerable
    index = np.full(tuple(size), offset or 0, dtype=np.int64)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        index += (np.arange(length) * step).reshape([-1] + [1] * (len(size) - axis - 1))
    if index.size and index.max() >= math.prod(known_shape(x)):
        raise Unlowerable
    return index


@TABLE.lowers("diff")
def diff(
    call: Call,
    x: Value,
    times: int = 1,
    axis: int = -1,
    before: Value | None = None,
    after: Value | None = None,
) -> None:
    """Each entry less the one before it."""
    axis = axis_of(axis, x)
    x = joined(call, [part for part in (before, x, after) if part is not None], axis)
    most = known_shape(x)[axis]  # then nothing is left
    if times > most and axis in x.dynamic:
        raise Unlowerable
    for _ in range(min(times, most)):
        size = known_shape(x)[axis]
        later, earlier = sliced(call, x, axis, 1, size), sliced(call, x, axis, 0, size - 1)
        if x.dtype == "bool":
            x = combined(call, "Xor", later, earlier)
        else:
            x = combined(call, "Sub", later, earlier)
    call.yields(x)
