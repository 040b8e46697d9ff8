"""ATen -> ONNX: what writing through a view does to the tensor behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.frontends.torch.aten.index import memory_places
from graphnorm.frontends.torch.aten.scatter import scattered, written
from graphnorm.frontends.torch.call import Call, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import chosen, flat, reshaped, turned, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()
LAST = 2**62  # torch's "up to the end"


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
    axis = axis_of(axis, x)
    size = known_shape(x)[axis]
    first, last, _ = slice(start, end).indices(size)
    source = call.typed(source, x.dtype)
    everything = (first, last, step) == (0, size, 1)
    if axis in x.dynamic:  # not only what the example has
        everything = not start and step == 1 and (end is None or end >= LAST)
    if everything:
        call.overwrites(x)
        call.out("Identity", source)
        return
    if last <= first and axis not in x.dynamic:
        call.overwrites(source)
        call.out("Identity", x)
    elif step != 1 or axis in x.dynamic:
        places = call.constant(np.arange(first, last, step))
        rows = turned(call, source, [axis, *(i for i in range(rank(x)) if i != axis)])
        call.yields(written(call, x, [axis], [places], rows))
    else:
        _between(call, x, source, axis, first, last)


def _between(call: Call, x: Value, source: Value, axis: int, first: int, last: int) -> None:
    size = known_shape(x)[axis]
    kept = [0] * bool(first) + [2] * bool(size - last)
    pieces = dict(enumerate(call.split(x, [first, last - first, size - last], axis, x.dynamic)))
    pieces[1] = source
    call.out("Concat", *(pieces[i] for i in sorted([*kept, 1])), axis=axis)


@TABLE.lowers("select_scatter")
def select_scatter(call: Call, x: Value, source: Value, axis: int, index: int) -> None:
    axis = axis_of(axis, x)
    index %= known_shape(x)[axis] or 1
    slice_scatter(call, x, unsqueezed(call, source, [axis]), axis, index, index + 1)


@TABLE.lowers("diagonal_scatter")
def diagonal_scatter(
    call: Call, x: Value, source: Value, offset: int = 0, first: int = 0, second: int = 1
) -> None:
    first, second = axis_of(first, x), axis_of(second, x)
    if {first, second} & x.dynamic:
        raise Unlowerable
    count = known_shape(source)[-1]
    places = [call.constant(np.arange(count) + max(sign * offset, 0)) for sign in (-1, 1)]
    diagonal = turned(call, source, [rank(source) - 1, *range(rank(source) - 1)])
    call.yields(written(call, x, [first, second], places, diagonal))


@TABLE.lowers("as_strided_scatter")
def as_strided_scatter(
    call: Call,
    x: Value,
    source: Value,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> None:
    where = call.constant(memory_places(call, x, size, stride, offset).ravel())
    made = scattered(call, flat(call, x), 0, where, flat(call, call.typed(source, x.dtype)))
    call.yields(reshaped(call, made, call.shape))


@TABLE.lowers("diag_embed")
def diag_embed(call: Call, x: Value, offset: int = 0, first: int = -2, second: int = -1) -> None:
    """The last axis on a diagonal of two new axes, zero elsewhere."""
    total = rank(x) + 1
    first, second = axis_of(first, total), axis_of(second, total)
    size = known_shape(x)[-1]
    if rank(x) - 1 in x.dynamic:
        raise Unlowerable
    side = size + abs(offset)
    lead = rank(x) - 1
    if offset:
        ends = [0] * lead + [max(offset, 0)], [0] * lead + [max(-offset, 0)]
        shape = (*known_shape(x)[:-1], side)
        x = call.step("Pad", x, ends[0] + ends[1], call.number(0, x.dtype), shape=shape, dynamic=x.dynamic,
                      mode="constant")  # fmt: skip
    eye = call.constant(np.eye(side, k=offset, dtype=bool))
    matrix = chosen(call, eye, unsqueezed(call, x, [lead]), 0)  # one entry per column
    order = [axis for axis in range(total) if axis not in (first, second)]
    perm = [0] * total
    for old, new in enumerate([*order, first, second]):
        perm[new] = old
    call.yields(turned(call, matrix, perm))
