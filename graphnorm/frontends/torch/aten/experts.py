"""Matrix products of a mixture of experts -> ONNX: all experts' products, and a selection from them."""

from __future__ import annotations

from graphnorm.frontends.routing.rewrite import BY_OFFSETS, ROUTE
from graphnorm.frontends.torch.call import Call, Unlowerable, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("transformers.grouped_mm_fallback.default")
def grouped(call: Call, rows: Value, weight: Value, offsets: Value) -> None:
    """``[s, k], [e, k, n], [e] -> [s, n]``: rows before ``offsets[0]`` by expert 0, and so on."""
    if (rank(rows), rank(weight), rank(offsets)) != (2, 3, 1):
        raise Unlowerable
    if not (rows.dtype == weight.dtype == call.result.dtype):
        raise Unlowerable
    shape = (known_shape(weight)[0], known_shape(rows)[0], known_shape(weight)[2])
    dynamic = frozenset({1} if 0 in rows.dynamic else ()) | (weight.dynamic & {0, 2})
    dense = call.step("MatMul", rows, weight, shape=shape, dynamic=dynamic)
    call.out(ROUTE, dense, offsets, key=BY_OFFSETS)


@TABLE.lowers("_grouped_mm")
def grouped_mm(
    call: Call,
    rows: Value,
    weight: Value,
    offsets: Value | None = None,
    bias: Value | None = None,
    out_dtype: object = None,
) -> None:
    """The groups are of rows; groups of columns or of summands stay unknown."""
    if offsets is None or bias is not None:
        raise Unlowerable
    grouped(call, rows, weight, offsets)
