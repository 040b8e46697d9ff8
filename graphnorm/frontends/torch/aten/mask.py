"""ATen -> ONNX: entries that a mask selects."""

from __future__ import annotations

import math
from typing import Any

from graphnorm.frontends.torch.call import Call, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import broadcast, chosen, combined, expanded, flat, reshaped, taken
from graphnorm.ir import Value

TABLE = Lowerings()
COPIES = (
    "aten.alias.default", "aten.clone.default", "aten._to_copy.default", "aten.to.device", "aten.to.dtype",
)  # fmt: skip


@TABLE.lowers("masked_select")
def masked_select(call: Call, x: Value, mask: Value) -> None:
    shape, dynamic = broadcast([x, mask])
    entries, chosen_ones = (flat(call, expanded(call, value, shape, dynamic)) for value in (x, mask))
    call.out("Compress", entries, call.typed(chosen_ones, "bool"), axis=0)


@TABLE.lowers("masked_scatter")
def masked_scatter(call: Call, x: Value, mask: Value, source: Value) -> None:
    """The k-th entry that the mask selects becomes the k-th of the source.

    Where the mask is one column, repeated for every feature, whole rows are replaced.
    """
    shape, dynamic = broadcast([x, mask])
    x = expanded(call, x, shape, dynamic)
    width = shape[-1] if shape and _repeats_last(call, mask, shape[-1]) else 1
    if width > 1:
        column = call.step(
            "Slice", mask, [0], [1], [rank(mask) - 1], [1], shape=(*known_shape(mask)[:-1], 1),
            dynamic=mask.dynamic - {rank(mask) - 1},
        )  # fmt: skip
        mask = expanded(call, column, (*shape[:-1], 1), dynamic - {len(shape) - 1})
    else:
        mask = expanded(call, mask, shape, dynamic)
    rows = reshaped(call, source, [math.prod(known_shape(source)) // width, width])
    replaced = reshaped(call, nth(call, rows, flat(call, mask)), shape)
    call.yields(chosen(call, mask, replaced, x))


def nth(call: Call, rows: Value, mask: Value) -> Value:
    """For each entry of a mask ``[n]``: the row whose number is the count of entries let through before."""
    number = call.step("CumSum", call.typed(mask, "int64"), call.number(0, "int64"), like=mask, dtype="int64")
    place = combined(call, "Max", combined(call, "Sub", number, 1), 0)
    return taken(call, rows, combined(call, "Min", place, max(known_shape(rows)[0] - 1, 0)), 0)


def _repeats_last(call: Call, mask: Value, size: int) -> bool:
    """Whether the mask was expanded along its last axis."""
    if rank(mask) == 0 or known_shape(mask)[-1] != size or size < 2:
        return False
    node: Any = call.node.args[1]
    while str(node.target) in COPIES:
        node = node.args[0]
    if not str(node.target).startswith(("aten.expand.", "aten.expand_as.", "aten.broadcast_to.")):
        return False
    before = node.args[0].meta["val"].shape
    return len(before) > 0 and before[-1] == 1


@TABLE.lowers("nonzero", "argwhere")
def nonzero(call: Call, x: Value) -> None:
    """The places of what is not zero, one a row."""
    places = call.step("NonZero", x, like=Value("", None, "int64"))
    call.out("Transpose", places, perm=[1, 0])
