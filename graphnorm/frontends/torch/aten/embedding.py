"""ATen -> ONNX: rows of tables."""

from __future__ import annotations

import numpy as np

from graphnorm.frontends.torch.call import Call, Unlowerable, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import (
    chosen,
    combined,
    compared,
    joined,
    multiplied,
    reduced,
    sliced,
    taken,
    unsqueezed,
)
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("embedding")
def embedding(call: Call, weight: Value, indices: Value, *_: object) -> None:
    call.out("Gather", weight, indices, axis=0)


@TABLE.lowers("one_hot")
def one_hot(call: Call, x: Value, classes: int = -1) -> None:
    candidates = np.arange(call.shape[-1])
    equal = compared(call, "Equal", unsqueezed(call, x, [rank(x)]), call.constant(candidates))
    call.yields(call.typed(equal, call.result.dtype))


@TABLE.lowers("embedding_bag.padding_idx", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    call: Call,
    weight: Value,
    indices: Value,
    offsets: Value,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> None:
    """The sum, mean or maximum over bags of rows; bag b begins at ``offsets[b]``."""
    if any(call.used[1:]) or rank(indices) != 1:
        raise Unlowerable
    rows = taken(call, weight, indices, 0)
    inside = _membership(call, indices, offsets, include_last_offset)
    if padding_idx is not None and padding_idx >= 0:
        counted = call.step("Not", compared(call, "Equal", indices, padding_idx), like=indices, dtype="bool")
        inside = combined(call, "And", inside, counted)
    shares = call.typed(inside, weight.dtype)
    count = reduced(call, "ReduceSum", shares, [1])
    if mode == 2:
        member = unsqueezed(call, inside, [2])
        largest = reduced(call, "ReduceMax", chosen(call, member, rows, -np.inf), [1], keepdims=False)
        call.yields(chosen(call, compared(call, "Equal", count, 0), 0, largest))
        return
    if per_sample_weights is not None:
        rows = combined(call, "Mul", rows, unsqueezed(call, per_sample_weights, [1]))
    total = multiplied(call, shares, rows)
    call.yields(combined(call, "Div", total, combined(call, "Max", count, 1)) if mode == 1 else total)


def _membership(call: Call, indices: Value, offsets: Value, include_last_offset: bool) -> Value:
    """``[bags, entries]``: whether an entry lies in a bag."""
    total, bags = known_shape(indices)[0], known_shape(offsets)[0]
    starts, ends = offsets, offsets
    if include_last_offset:
        bags -= 1
        starts, ends = sliced(call, offsets, 0, 0, bags), sliced(call, offsets, 0, 1, bags + 1)
    else:
        last = call.constant(np.array([total], dtype=np.dtype(offsets.dtype)))
        ends = joined(call, [sliced(call, offsets, 0, 1, bags), last], 0)
    position = call.constant(np.arange(total, dtype=np.dtype(offsets.dtype)))
    begun = compared(call, "GreaterOrEqual", position, unsqueezed(call, starts, [1]))
    open_ = compared(call, "Less", position, unsqueezed(call, ends, [1]))
    return combined(call, "And", begun, open_)
