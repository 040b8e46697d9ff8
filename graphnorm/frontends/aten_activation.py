"""ATen -> ONNX: activations with parameters, and softmax."""

from __future__ import annotations

from graphnorm.frontends.aten_call import Call, Lowerings, Number, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.aten_elementwise import scaled
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


@TABLE.lowers("rrelu")
def rrelu(call: Call, x: Value, lower: float, upper: float, training: bool = False, *_: object) -> None:
    if training:
        raise Unlowerable  # a random slope
    leaky_relu(call, x, (lower + upper) / 2)


@TABLE.lowers("hardsigmoid")
def hardsigmoid(call: Call, x: Value) -> None:
    call.out("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@TABLE.lowers("elu")
def elu(call: Call, x: Value, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> None:
    if input_scale != 1:
        raise Unlowerable
    if scale == 1:
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
    if beta == 1:
        call.out("Softplus", x)
    else:
        soft = call.step("Softplus", scaled(call, x, beta), like=x)
        call.out("Div", soft, call.number(beta, x.dtype))


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
    if value != 0:
        raise Unlowerable
    if threshold == 0:
        call.out("Relu", x)
    else:
        call.out("ThresholdedRelu", x, alpha=float(threshold))


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


@TABLE.lowers("softmax.int", "_softmax")
def softmax(call: Call, x: Value, axis: int, *_: object) -> None:
    call.out("Softmax", call.typed(x, call.result.dtype), axis=axis_of(axis, rank(x)))


@TABLE.lowers("log_softmax.int", "_log_softmax")
def log_softmax(call: Call, x: Value, axis: int, *_: object) -> None:
    call.out("LogSoftmax", call.typed(x, call.result.dtype), axis=axis_of(axis, rank(x)))


@TABLE.lowers("glu")
def glu(call: Call, x: Value, axis: int = -1) -> None:
    axis = axis_of(axis, rank(x))
    half = known_shape(x)[axis] // 2
    kept = call.result.dynamic
    value = call.split(x, [half, half], axis, kept)
    gate = call.step("Sigmoid", value[1], like=value[1])
    call.out("Mul", value[0], gate)
