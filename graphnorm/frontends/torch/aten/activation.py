"""ATen -> ONNX: activations with parameters, and softmax."""

from __future__ import annotations

import math

from graphnorm.frontends.torch.call import Call, Number, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import chosen, compared, reduced, reshaped, scaled, unary
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("gelu")
def gelu(call: Call, x: Value, approximate: str = "none") -> None:
    call.out("Gelu", x, approximate=approximate)


@TABLE.lowers("silu")
def silu(call: Call, x: Value) -> None:
    call.out("Swish", x, alpha=1.0)


@TABLE.lowers("leaky_relu")
def leaky_relu(call: Call, x: Value, slope: float = 0.01) -> None:
    call.out("LeakyRelu", x, alpha=float(slope))


@TABLE.lowers("hardsigmoid")
def hardsigmoid(call: Call, x: Value) -> None:
    call.out("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@TABLE.lowers("elu")
def elu(call: Call, x: Value, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> None:
    if input_scale != 1:
        low = unary(call, "Elu", scaled(call, x, input_scale), alpha=float(alpha))
        call.yields(scaled(call, chosen(call, compared(call, "Greater", x, 0), x, low), scale))
    elif scale == 1:
        call.out("Elu", x, alpha=float(alpha))
    else:
        call.out("Selu", x, alpha=float(alpha), gamma=float(scale))


@TABLE.lowers("selu")
def selu(call: Call, x: Value) -> None:
    call.out("Selu", x, alpha=1.6732632423543772, gamma=1.0507009873554805)


@TABLE.lowers("celu")
def celu(call: Call, x: Value, alpha: Number = 1) -> None:
    call.out("Celu", x, alpha=float(alpha))


@TABLE.lowers("softplus")
def softplus(call: Call, x: Value, beta: Number = 1, threshold: Number = 20) -> None:
    """``log(1 + exp(beta x)) / beta``, and x where that is as good as equal."""
    slope = scaled(call, x, beta)
    soft = scaled(call, unary(call, "Softplus", slope), 1 / beta)
    if threshold < 20:
        soft = chosen(call, compared(call, "Greater", slope, threshold), x, soft)
    call.yields(soft)


@TABLE.lowers("prelu")
def prelu(call: Call, x: Value, slope: Value) -> None:
    # torch's slope belongs to axis 1, ONNX's broadcasts from the right.
    if rank(slope) == 1 and rank(x) > 2 and known_shape(slope) != (1,):
        slope = reshaped(call, slope, [known_shape(slope)[0], *[1] * (rank(x) - 2)])
    call.out("PRelu", x, slope)


@TABLE.lowers("_prelu_kernel")
def prelu_kernel(call: Call, x: Value, slope: Value) -> None:
    call.out("PRelu", x, slope)


@TABLE.lowers("log_sigmoid", "log_sigmoid_forward")
def log_sigmoid(call: Call, x: Value) -> None:
    call.out("Log", call.step("Sigmoid", x, like=x))


@TABLE.lowers("softshrink")
def softshrink(call: Call, x: Value, lambd: Number = 0.5) -> None:
    call.out("Shrink", x, lambd=float(lambd), bias=float(lambd))


@TABLE.lowers("hardshrink")
def hardshrink(call: Call, x: Value, lambd: Number = 0.5) -> None:
    call.out("Shrink", x, lambd=float(lambd), bias=0.0)


@TABLE.lowers("threshold")
def threshold(call: Call, x: Value, threshold: Number, value: Number) -> None:
    if value == threshold == 0:
        call.out("Relu", x)
    elif value == 0 and threshold > 0:
        call.out("ThresholdedRelu", x, alpha=float(threshold))
    else:
        call.out("Where", compared(call, "Greater", x, threshold), x, call.number(value, x.dtype))


@TABLE.lowers("clamp", "hardtanh")
def clamp(call: Call, x: Value, low: Number | None = None, high: Number | None = None) -> None:
    dtype = call.result.dtype
    bounds = [None if bound is None else call.number(bound, dtype) for bound in (low, high)]
    call.out("Clip", call.typed(x, dtype), *bounds)


@TABLE.lowers("clamp_min")
def clamp_min(call: Call, x: Value, low: Number) -> None:
    clamp(call, x, low)


@TABLE.lowers("clamp_max")
def clamp_max(call: Call, x: Value, high: Number) -> None:
    clamp(call, x, None, high)


@TABLE.lowers("relu6")
def relu6(call: Call, x: Value) -> None:
    clamp(call, x, 0, 6)


@TABLE.lowers("_safe_softmax")
def safe_softmax(call: Call, x: Value, axis: int, *_: object) -> None:
    """0 in rows that are -inf throughout."""
    x = call.typed(x, call.result.dtype)
    axis = axis_of(axis, x)
    empty = compared(call, "Equal", reduced(call, "ReduceMax", x, [axis]), -math.inf)
    call.out("Where", empty, call.number(0, x.dtype), unary(call, "Softmax", x, axis=axis))


@TABLE.lowers("clamp.Tensor")
def clamp_tensor(call: Call, x: Value, low: Value | None = None, high: Value | None = None) -> None:
    dtype = call.result.dtype
    x = call.typed(x, dtype)
    if low is not None and high is not None:
        x = call.step("Max", x, call.typed(low, dtype), like=call.result)
        call.out("Min", x, call.typed(high, dtype))
    elif low is not None:
        call.out("Max", x, call.typed(low, dtype))
    elif high is not None:
        call.out("Min", x, call.typed(high, dtype))


@TABLE.lowers("clamp_min.Tensor")
def clamp_min_tensor(call: Call, x: Value, low: Value) -> None:
    clamp_tensor(call, x, low)


@TABLE.lowers("clamp_max.Tensor")
def clamp_max_tensor(call: Call, x: Value, high: Value) -> None:
    clamp_tensor(call, x, None, high)


@TABLE.lowers("softmax.int", "_softmax", "special_softmax")
def softmax(call: Call, x: Value, axis: int, *_: object) -> None:
    call.out("Softmax", call.typed(x, call.result.dtype), axis=axis_of(axis, x))


@TABLE.lowers("log_softmax.int", "_log_softmax", "special_log_softmax")
def log_softmax(call: Call, x: Value, axis: int, *_: object) -> None:
    call.out("LogSoftmax", call.typed(x, call.result.dtype), axis=axis_of(axis, x))


@TABLE.lowers("glu")
def glu(call: Call, x: Value, axis: int = -1) -> None:
    axis = axis_of(axis, x)
    half = known_shape(x)[axis] // 2
    kept = call.result.dynamic
    value = call.split(x, [half, half], axis, kept)
    gate = call.step("Sigmoid", value[1], like=value[1])
    call.out("Mul", value[0], gate)
