"""Intermediate results that many lowerings need: each emits one node and knows the type of its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, Number, Operand, known_shape, moved, rank
from graphnorm.frontends.torch.tensors import numpy_dtype
from graphnorm.ir import Array, Value


def filled(
    call: Call, shape: Sequence[int], value: Number, dtype: str, dynamic: frozenset[int] = frozenset()
) -> Value:
    """A constant of equal entries, which takes no memory."""
    return call.constant(np.broadcast_to(np.array(value, numpy_dtype(dtype)), tuple(shape)), dynamic)


def reshaped(call: Call, x: Value, shape: Sequence[int]) -> Value:
    if known_shape(x) == tuple(shape):
        return x
    # Which axes vary after a reshape is not tracked inside one lowering: any might.
    dynamic = frozenset(range(len(shape))) if x.dynamic else frozenset[int]()
    return call.step("Reshape", x, list(shape), shape=shape, dynamic=dynamic)


def flat(call: Call, x: Value) -> Value:
    """All entries in one axis."""
    return reshaped(call, x, [int(np.prod(known_shape(x), dtype=np.int64))])


def turned(call: Call, x: Value, perm: Sequence[int]) -> Value:
    if list(perm) == list(range(rank(x))):
        return x
    shape = [known_shape(x)[axis] for axis in perm]
    return call.step("Transpose", x, shape=shape, dynamic=moved(x.dynamic, perm), perm=list(perm))


def unsqueezed(call: Call, x: Value, axes: Sequence[int]) -> Value:
    """New axes of size 1, at these places of the result."""
    if not axes:
        return x
    total = rank(x) + len(axes)
    places = sorted(axis % total for axis in axes)
    old = [axis for axis in range(total) if axis not in places]
    shape = [1] * total
    for axis, size in zip(old, known_shape(x), strict=True):
        shape[axis] = size
    dynamic = frozenset(old[axis] for axis in x.dynamic)
    return call.step("Unsqueeze", x, places, shape=shape, dynamic=dynamic)


def squeezed(call: Call, x: Value, axes: Sequence[int]) -> Value:
    """Without these axes of size 1."""
    if not axes:
        return x
    places = sorted(axis % rank(x) for axis in axes)
    kept = [axis for axis in range(rank(x)) if axis not in places]
    shape = [known_shape(x)[axis] for axis in kept]
    return call.step("Squeeze", x, places, shape=shape, dynamic=moved(x.dynamic, kept))


def expanded(call: Call, x: Value, shape: Sequence[int], dynamic: frozenset[int] = frozenset()) -> Value:
    if known_shape(x) == tuple(shape):
        return x
    lead = len(shape) - rank(x)
    dynamic |= frozenset(axis + lead for axis in x.dynamic)
    return call.step("Expand", x, list(shape), shape=shape, dynamic=dynamic)


def unary(call: Call, op: str, x: Value, dtype: str | None = None, **attributes: Any) -> Value:
    return call.step(op, x, like=x, dtype=dtype, **attributes)


def combined(call: Call, op: str, *operands: Value | Number, dtype: str | None = None) -> Value:
    """An elementwise operator on operands that broadcast; numbers take the first tensor's type."""
    values = [operand for operand in operands if isinstance(operand, Value)]
    shape, dynamic = broadcast(values)
    kind = values[0].dtype
    typed = [operand if isinstance(operand, Value) else call.number(operand, kind) for operand in operands]
    return call.step(op, *typed, shape=shape, dtype=dtype or kind, dynamic=dynamic)


def compared(call: Call, op: str, x: Value, y: Value | Number) -> Value:
    return combined(call, op, x, y, dtype="bool")


def chosen(call: Call, condition: Value, x: Value | Number, y: Value | Number) -> Value:
    """``x`` where the condition holds, ``y`` elsewhere; one of them is a tensor."""
    kind = x.dtype if isinstance(x, Value) else y.dtype if isinstance(y, Value) else ""
    first, second = call.typed(x, kind), call.typed(y, kind)
    shape, dynamic = broadcast([condition, first, second])
    return call.step("Where", condition, first, second, shape=shape, dtype=kind, dynamic=dynamic)


def broadcast(values: Sequence[Value]) -> tuple[tuple[int, ...], frozenset[int]]:
    """The common shape of tensors that broadcast, and its axes that vary."""
    shape = np.broadcast_shapes(*(known_shape(value) for value in values))
    dynamic = frozenset(axis + len(shape) - rank(value) for value in values for axis in value.dynamic)
    return shape, dynamic


def scaled(call: Call, value: Value, factor: Number) -> Value:
    """``factor * value``."""
    return value if factor == 1 else call.step("Mul", value, call.number(factor, value.dtype), like=value)


def reduced(call: Call, op: str, x: Value, axes: Sequence[int], keepdims: bool = True) -> Value:
    """A reduction along these axes."""
    shape = [1 if axis in axes else size for axis, size in enumerate(known_shape(x))]
    if keepdims:
        return call.step(
            op, x, list(axes), shape=shape, dtype=x.dtype, dynamic=x.dynamic - set(axes), keepdims=1
        )
    kept = [axis for axis in range(rank(x)) if axis not in axes]
    return call.step(
        op, x, list(axes), shape=[shape[axis] for axis in kept], dtype=x.dtype,
        dynamic=moved(x.dynamic, kept), keepdims=0,
    )  # fmt: skip


def taken(call: Call, x: Value, index: Value | Array | int, axis: int) -> Value:
    """The entries at ``index`` along an axis, whose place the index's axes take."""
    if isinstance(index, int):
        index = call.number(index, "int64")
    where: Operand = index
    shape = list(index.shape or ())
    dynamic = frozenset(axis + i for i in index.dynamic) if isinstance(index, Value) else frozenset[int]()
    dynamic |= frozenset(i + (len(shape) - 1 if i > axis else 0) for i in x.dynamic - {axis})
    full = [*known_shape(x)[:axis], *shape, *known_shape(x)[axis + 1 :]]
    return call.step("Gather", x, where, shape=full, dtype=x.dtype, dynamic=dynamic, axis=axis)


def sliced(call: Call, x: Value, axis: int, start: int, stop: int) -> Value:
    """The entries ``start <= i < stop`` along an axis."""
    shape = list(known_shape(x))
    if (start, stop) == (0, shape[axis]):
        return x
    shape[axis] = stop - start
    return call.step("Slice", x, [start], [stop], [axis], [1], shape=shape, dynamic=x.dynamic - {axis})


def joined(call: Call, values: Sequence[Value], axis: int) -> Value:
    """Concatenated along an axis."""
    if len(values) == 1:
        return values[0]
    shape = list(known_shape(values[0]))
    shape[axis] = sum(known_shape(value)[axis] for value in values)
    dynamic = frozenset[int]().union(*(value.dynamic for value in values))
    return call.step("Concat", *values, shape=shape, dynamic=dynamic, axis=axis)


def multiplied(call: Call, x: Value, y: Value) -> Value:
    """The matrix product of tensors with at least two axes."""
    batch, varies = broadcast([_batch(x), _batch(y)])
    last = len(batch)
    dynamic = varies | {last for axis in x.dynamic if axis == rank(x) - 2}
    dynamic |= {last + 1 for axis in y.dynamic if axis == rank(y) - 1}
    return call.step("MatMul", x, y, shape=(*batch, known_shape(x)[-2], known_shape(y)[-1]), dynamic=dynamic)


def _batch(x: Value) -> Value:
    return Value(x.name, known_shape(x)[:-2], x.dtype, frozenset(a for a in x.dynamic if a < rank(x) - 2))
