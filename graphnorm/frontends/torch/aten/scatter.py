"""ATen -> ONNX: writing entries into a tensor, by their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphnorm.frontends.torch.aten.index import MASKS, places_of, tuples
from graphnorm.frontends.torch.aten.mask import nth
from graphnorm.frontends.torch.call import Call, Number, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import (
    broadcast,
    chosen,
    combined,
    expanded,
    filled,
    flat,
    reshaped,
    scaled,
    sliced,
    squeezed,
    turned,
    unary,
    unsqueezed,
)
from graphnorm.ir import Value

TABLE = Lowerings()
REDUCTIONS = {
    "sum": "add", "add": "add", "mean": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min",
}  # fmt: skip
NEUTRAL = {"add": 0.0, "mul": 1.0, "max": -np.inf, "min": np.inf}
Write = Callable[[Value, Value | Number, str], Value]
"""Puts a source into a tensor, with an ONNX reduction."""


def scattered(
    call: Call, x: Value, axis: int, index: Value, source: Value | Number, reduction: str = "none"
) -> Value:
    """``x`` with entries along an axis replaced by, or reduced with, those of a source."""
    lone = not rank(x)
    x, index = (unsqueezed(call, value, [0]) if not rank(value) else value for value in (x, index))
    axis = axis_of(axis, x)
    if isinstance(source, Value):
        source = unsqueezed(call, source, [0]) if not rank(source) else source
        for other, size in enumerate(known_shape(index)):
            source = sliced(call, source, other, 0, size)
    else:
        source = filled(call, known_shape(index), source, x.dtype, index.dynamic)
    if x.dynamic:
        index = _as_unknown(call, index)
    made = call.step(
        "ScatterElements", x, index, call.typed(source, x.dtype), like=x, axis=axis, reduction=reduction
    )
    return squeezed(call, made, [0]) if lone else made


def _as_unknown(call: Call, index: Value) -> Value:
    """An index that covers what it does at the example's size only: at others, more entries are left."""
    return unary(call, "Identity", index)


def written(
    call: Call,
    x: Value,
    axes: Sequence[int],
    indices: Sequence[Value],
    source: Value | Number,
    reduction: str = "none",
) -> Value:
    """``x`` with places in some axes replaced by, or reduced with, a source ``[*index, *other axes]``."""
    rest = [axis for axis in range(rank(x)) if axis not in axes]
    shape, varies = broadcast(indices)
    sizes = [*shape, *(known_shape(x)[axis] for axis in rest)]
    varies |= {len(shape) + place for place, axis in enumerate(rest) if axis in x.dynamic}
    if isinstance(source, Value):
        source = expanded(call, call.typed(source, x.dtype), sizes, varies)
    else:
        source = filled(call, sizes, source, x.dtype, varies)
    places = tuples(call, indices, [known_shape(x)[axis] for axis in axes])
    if x.dynamic & set(axes):
        places = _as_unknown(call, places)
    perm = [*axes, *rest]
    made = turned(call, x, perm)
    made = call.step("ScatterND", made, places, source, like=made, reduction=reduction)
    return turned(call, made, [perm.index(axis) for axis in range(rank(x))])


def _rows(
    call: Call, x: Value, axis: int, index: Value, source: Value | Number, reduction: str = "none"
) -> Value:
    """``x`` with whole slices of an axis replaced by, or reduced with, those of a source."""
    lone = not rank(x)
    x, index = (unsqueezed(call, value, [0]) if not rank(value) else value for value in (x, index))
    axis = axis_of(axis, x)
    if isinstance(source, Value) and rank(source) == rank(x):
        source = turned(call, source, [axis, *(i for i in range(rank(x)) if i != axis)])
    made = written(call, x, [axis], [index], source, reduction)
    return squeezed(call, made, [0]) if lone else made


@TABLE.lowers("scatter.src", "scatter.value")
def scatter(call: Call, x: Value, axis: int, index: Value, source: Value | Number) -> None:
    call.yields(scattered(call, x, axis, index, source))


@TABLE.lowers("scatter_add")
def scatter_add(call: Call, x: Value, axis: int, index: Value, source: Value) -> None:
    call.yields(scattered(call, x, axis, index, source, "add"))


@TABLE.lowers("scatter.reduce", "scatter.value_reduce", "scatter_reduce.two")
def scatter_reduce(
    call: Call,
    x: Value,
    axis: int,
    index: Value,
    source: Value | Number,
    reduce: str,
    include_self: bool = True,
) -> None:
    def write(into: Value, what: Value | Number, kind: str) -> Value:
        return scattered(call, into, axis, index, what, kind)

    _reduced_into(call, x, source, reduce, include_self, write)


@TABLE.lowers("index_reduce")
def index_reduce(
    call: Call, x: Value, axis: int, index: Value, source: Value, reduce: str, include_self: bool = True
) -> None:
    def write(into: Value, what: Value | Number, kind: str) -> Value:
        return _rows(call, into, axis, index, what, kind)

    _reduced_into(call, x, source, reduce, include_self, write)


def _reduced_into(
    call: Call, x: Value, source: Value | Number, reduce: str, include_self: bool, write: Write
) -> None:
    kind = REDUCTIONS[reduce]
    if reduce == "mean" and not x.is_float:
        raise Unlowerable  # rounds down
    if not include_self:
        neutral = NEUTRAL[kind] if x.is_float or kind in ("add", "mul") else _extreme(x.dtype, kind)
        x = write(x, neutral, "none")
    total = write(x, source, kind)
    if reduce == "mean":
        count = write(filled(call, known_shape(x), int(include_self), x.dtype, x.dynamic), 1, "add")
        total = combined(call, "Div", total, combined(call, "Max", count, 1))
    call.yields(total)


def _extreme(dtype: str, kind: str) -> int:
    limits = np.iinfo(dtype)
    return int(limits.min if kind == "max" else limits.max)


@TABLE.lowers("index_add")
def index_add(call: Call, x: Value, axis: int, index: Value, source: Value, alpha: Number = 1) -> None:
    call.yields(_rows(call, x, axis, index, scaled(call, source, alpha), "add"))


@TABLE.lowers("index_copy", "index_fill.int_Scalar", "index_fill.int_Tensor")
def index_copy(call: Call, x: Value, axis: int, index: Value, source: Value | Number) -> None:
    call.yields(_rows(call, x, axis, index, source))


@TABLE.lowers("put")
def put(call: Call, x: Value, index: Value, source: Value, accumulate: bool = False) -> None:
    reduction = "add" if accumulate else "none"
    made = scattered(call, flat(call, x), 0, flat(call, index), flat(call, source), reduction)
    call.yields(reshaped(call, made, call.shape))


@TABLE.lowers("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(
    call: Call, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False, *_: object
) -> None:
    given = [(axis, index) for axis, index in enumerate(places_of(call, indices)) if index is not None]
    values = call.typed(values, x.dtype)
    if len(given) == 1 and given[0][1].dtype in MASKS:
        _put_masked(call, x, *given[0], values, accumulate)
        return
    if any(index.dtype in MASKS for _, index in given):
        raise Unlowerable
    axes, tensors = [axis for axis, _ in given], [index for _, index in given]
    shape, varies = broadcast(tensors)
    rest = [axis for axis in range(rank(x)) if axis not in axes]
    place = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0  # of the index's axes in the values
    sizes = [known_shape(x)[axis] for axis in rest]
    dynamic = {place + axis for axis in varies}
    dynamic |= {i + (len(shape) if i >= place else 0) for i, axis in enumerate(rest) if axis in x.dynamic}
    values = expanded(call, values, [*sizes[:place], *shape, *sizes[place:]], frozenset(dynamic))
    order = [*range(place, place + len(shape)), *range(place), *range(place + len(shape), rank(values))]
    call.yields(written(call, x, axes, tensors, turned(call, values, order), "add" if accumulate else "none"))


def _put_masked(call: Call, x: Value, axis: int, mask: Value, values: Value, accumulate: bool) -> None:
    """Where the mask holds: one value for all, or the rows of the values one after the other."""
    after = rank(x) - axis - rank(mask)
    mask = call.typed(mask, "bool")
    rows = after + 1 if axis == 0 and rank(values) == after + 1 and known_shape(values)[0] != 1 else 0
    if rows:
        found = nth(call, values, flat(call, mask))
        values = reshaped(call, found, [*known_shape(mask), *known_shape(values)[1:]])
    elif rank(values) > after and any(size != 1 for size in known_shape(values)[: rank(values) - after]):
        raise Unlowerable
    elif rank(values) > after:
        values = squeezed(call, values, range(rank(values) - after))
    mask = unsqueezed(call, mask, [axis + rank(mask) + i for i in range(after)])
    if accumulate:
        call.yields(combined(call, "Add", x, chosen(call, mask, values, 0)))
    else:
        call.yields(chosen(call, mask, values, x))
