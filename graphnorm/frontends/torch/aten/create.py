"""ATen -> ONNX: tensors made from numbers.

Small ones are evaluated by the front end; these lowerings serve the large ones, which become
broadcast views without memory of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, Number
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.tensors import ONNX_TYPES, numpy_dtype
from graphnorm.ir import Value

TABLE = Lowerings()


def _full(call: Call, value: Number) -> None:
    dtype = numpy_dtype(call.result.dtype)
    call.out_constant(np.broadcast_to(np.array(value, dtype=dtype), call.shape))


def _filled(value: Number) -> Lowering:
    def lower(call: Call, *_: Any) -> None:
        _full(call, value)

    return lower


for _word, _number in (("zeros", 0), ("ones", 1)):
    TABLE.add(_word, _filled(_number))
    TABLE.add(f"{_word}_like", _filled(_number), ignores=(0,))
    TABLE.add(f"new_{_word}", _filled(_number), ignores=(0,))
TABLE.add("zero", _filled(0), ignores=(0,))


@TABLE.lowers("full")
def full(call: Call, size: list[int], value: Number, *_: Any) -> None:
    _full(call, value)


@TABLE.lowers("full_like", "fill.Scalar", ignores=(0,))
def full_like(call: Call, x: Value, value: Number, *_: Any) -> None:
    _full(call, value)


@TABLE.lowers("new_full", ignores=(0,))
def new_full(call: Call, x: Value, size: list[int], value: Number, *_: Any) -> None:
    _full(call, value)


# Uninitialised memory: never evaluated.
UNWRITTEN = frozenset({
    "empty.memory_format", "empty_like.default", "new_empty.default", "empty_strided.default",
    "new_empty_strided.default", "empty_permuted.default",
})  # fmt: skip


def _unwritten(call: Call, *_: Any) -> None:
    call.out("aten::empty", shape=list(call.shape), dtype=ONNX_TYPES[call.result.dtype])


for _name in UNWRITTEN:
    TABLE.add(_name, _unwritten, ignores=(0,))
