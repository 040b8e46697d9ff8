"""ATen -> ONNX: quantisation, of torch's own operators and of ``quantized_decomposed``.

An integer q stands for the number ``(q - zero_point) * scale``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, Unlowerable, axis_of
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import reshaped
from graphnorm.frontends.torch.tensors import numpy_dtype
from graphnorm.ir import Value

TABLE = Lowerings()
DECOMPOSED = "quantized_decomposed"
Parameter = Value | float | int


def _storage(low: int, high: int) -> str:
    """The smallest integer type that holds the range."""
    for name in ("uint8", "int8", "uint16", "int16"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return name
    raise Unlowerable


def _parameters(call: Call, scale: Parameter, zero: Parameter, kind: str, dtype: str) -> list[Value]:
    """Scale and zero point; one number stands for a tensor of rank 0."""
    step = call.typed(scale, dtype)
    point = call.typed(zero, "int32") if isinstance(zero, Value) and zero.is_float else zero
    found = [step, call.typed(point, kind)]
    return [reshaped(call, value, []) if value.shape == (1,) else value for value in found]


def _quantized(
    call: Call, x: Value, scale: Parameter, zero: Parameter, low: int, high: int, axis: int | None, kind: str
) -> Value:
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis_of(axis, x)}
    if not x.is_float or x.dtype == "float64":
        raise Unlowerable
    step, point = _parameters(call, scale, zero, kind, x.dtype)
    made = call.step("QuantizeLinear", x, step, point, like=x, dtype=kind, **attributes)
    limits = np.iinfo(kind)
    if (low, high) != (limits.min, limits.max):
        made = call.step("Clip", made, call.number(low, kind), call.number(high, kind), like=made)
    return made


def _fake(
    call: Call, x: Value, scale: Parameter, zero: Parameter, low: int, high: int, axis: int | None
) -> None:
    """There and back."""
    kind = _storage(low, high)
    made = _quantized(call, x, scale, zero, low, high, axis, kind)
    step, point = _parameters(call, scale, zero, kind, x.dtype)
    attributes = {} if axis is None else {"axis": axis_of(axis, x)}
    call.out("DequantizeLinear", made, step, point, **attributes)


@TABLE.lowers(
    "fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine.tensor_qparams",
    "fake_quantize_per_tensor_affine_cachemask",
)  # fmt: skip
def fake_quantize(call: Call, x: Value, scale: Parameter, zero: Parameter, low: int, high: int) -> None:
    _fake(call, x, scale, zero, low, high, None)


@TABLE.lowers("fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask")
def fake_quantize_channels(
    call: Call, x: Value, scale: Value, zero: Value, axis: int, low: int, high: int
) -> None:
    _fake(call, x, scale, zero, low, high, axis)


@TABLE.lowers("_fake_quantize_learnable_per_tensor_affine")
def fake_quantize_learnable(
    call: Call, x: Value, scale: Value, zero: Value, low: int, high: int, factor: float = 1.0
) -> None:
    _fake(call, x, scale, zero, low, high, None)


@TABLE.lowers("_fake_quantize_learnable_per_channel_affine")
def fake_quantize_learnable_channels(
    call: Call, x: Value, scale: Value, zero: Value, axis: int, low: int, high: int, factor: float = 1.0
) -> None:
    _fake(call, x, scale, zero, low, high, axis)


@TABLE.lowers(*(f"{DECOMPOSED}.quantize_per_tensor.{kind}" for kind in ("default", "tensor", "tensor2")))
def quantize(
    call: Call, x: Value, scale: Parameter, zero: Parameter, low: int, high: int, dtype: Any
) -> None:
    kind = call.result.dtype
    call.yields(_quantized(call, x, scale, zero, low, high, None, kind))


@TABLE.lowers(f"{DECOMPOSED}.quantize_per_channel.default")
def quantize_channels(
    call: Call, x: Value, scale: Value, zero: Value, axis: int, low: int, high: int, dtype: Any
) -> None:
    kind = call.result.dtype
    call.yields(_quantized(call, x, scale, zero, low, high, axis, kind))


@TABLE.lowers(*(f"{DECOMPOSED}.dequantize_per_tensor.{kind}" for kind in ("default", "tensor", "tensor2")))
def dequantize(call: Call, x: Value, scale: Parameter, zero: Parameter, *_: Any) -> None:
    call.out("DequantizeLinear", x, *_parameters(call, scale, zero, x.dtype, call.result.dtype))


@TABLE.lowers(f"{DECOMPOSED}.dequantize_per_channel.default")
def dequantize_channels(call: Call, x: Value, scale: Value, zero: Value | None, axis: int, *_: Any) -> None:
    if zero is None:
        zero = call.constant(np.zeros(scale.shape or (), numpy_dtype(x.dtype)))
    axis = axis_of(axis, x)
    call.out("DequantizeLinear", x, *_parameters(call, scale, zero, x.dtype, call.result.dtype), axis=axis)
