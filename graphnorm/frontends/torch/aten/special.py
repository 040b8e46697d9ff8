"""ATen -> ONNX: further functions of one or two numbers, in terms of ONNX's."""

from __future__ import annotations

import math

from graphnorm.frontends.torch.aten.elementwise import numeric
from graphnorm.frontends.torch.call import Call, Number, Unlowerable
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import chosen, combined, compared, scaled, unary
from graphnorm.ir import Value, float_format

TABLE = Lowerings()


def _logarithm(base: float) -> Lowering:
    def lower(call: Call, x: Value) -> None:
        dtype = numeric(call)
        call.out("Div", unary(call, "Log", call.typed(x, dtype)), call.number(math.log(base), dtype))

    return lower


TABLE.add("log2", _logarithm(2))
TABLE.add("log10", _logarithm(10))


@TABLE.lowers("log1p")
def log1p(call: Call, x: Value) -> None:
    call.out("Log", combined(call, "Add", call.typed(x, numeric(call)), 1))


@TABLE.lowers("expm1")
def expm1(call: Call, x: Value) -> None:
    dtype = numeric(call)
    call.out("Sub", unary(call, "Exp", call.typed(x, dtype)), call.number(1, dtype))


@TABLE.lowers("exp2")
def exp2(call: Call, x: Value) -> None:
    dtype = numeric(call)
    call.out("Pow", call.number(2, dtype), call.typed(x, dtype))


@TABLE.lowers("erfc")
def erfc(call: Call, x: Value) -> None:
    dtype = numeric(call)
    call.out("Sub", call.number(1, dtype), unary(call, "Erf", call.typed(x, dtype)))


@TABLE.lowers("hypot")
def hypot(call: Call, x: Value, y: Value) -> None:
    dtype = numeric(call)
    squares = [combined(call, "Pow", call.typed(side, dtype), 2) for side in (x, y)]
    call.out("Sqrt", combined(call, "Add", *squares))


@TABLE.lowers("atan2")
def atan2(call: Call, y: Value, x: Value) -> None:
    dtype = numeric(call)
    call.out("aten::atan2", call.typed(y, dtype), call.typed(x, dtype))


@TABLE.lowers("copysign.Tensor", "copysign.Scalar")
def copysign(call: Call, x: Value, y: Value | Number) -> None:
    """The size of ``x`` with the sign of ``y``; the sign of -0 is not told apart."""
    dtype = numeric(call)
    size = unary(call, "Abs", call.typed(x, dtype))
    if not isinstance(y, Value):
        call.out("Neg" if math.copysign(1, y) < 0 else "Identity", size)
        return
    call.out("Where", compared(call, "Less", call.typed(y, dtype), 0), unary(call, "Neg", size), size)


@TABLE.lowers("signbit")
def signbit(call: Call, x: Value) -> None:
    call.out("Less", x, call.number(0, x.dtype))


@TABLE.lowers("angle")
def angle(call: Call, x: Value) -> None:
    """Of a real number: 0 or pi."""
    dtype = numeric(call)
    x = call.typed(x, dtype)
    found = chosen(call, compared(call, "Less", x, 0), call.number(math.pi, dtype), 0)
    call.out("Where", unary(call, "IsNaN", x, "bool"), x, found)


@TABLE.lowers("ldexp.Tensor")
def ldexp(call: Call, x: Value, exponent: Value) -> None:
    dtype = numeric(call)
    power = call.step("Pow", call.number(2, dtype), call.typed(exponent, dtype), like=exponent, dtype=dtype)
    call.out("Mul", call.typed(x, dtype), power)


def _ignoring_nan(op: str) -> Lowering:
    def lower(call: Call, x: Value, y: Value) -> None:
        dtype = numeric(call)
        x, y = call.typed(x, dtype), call.typed(y, dtype)
        if not call.result.is_float:
            call.out(op, x, y)
            return
        both = combined(call, op, x, y)
        some = chosen(call, unary(call, "IsNaN", y, "bool"), x, both)
        call.out("Where", unary(call, "IsNaN", x, "bool"), y, some)

    return lower


TABLE.add("fmax", _ignoring_nan("Max"))
TABLE.add("fmin", _ignoring_nan("Min"))


@TABLE.lowers("nan_to_num")
def nan_to_num(
    call: Call, x: Value, nan: float | None = None, high: float | None = None, low: float | None = None
) -> None:
    """Infinities become the largest numbers, which is to cut there, unless other values are given."""
    if not x.is_float:
        call.out("Identity", x)
        return
    largest = float_format(x.dtype).largest
    limits: list[Value | None] = []
    for bound, positive in ((low, 0), (high, 1)):
        limits.append(None if bound is not None else call.number(largest * (2 * positive - 1), x.dtype))
        if bound is not None:
            signs = {"detect_positive": positive, "detect_negative": 1 - positive}
            x = chosen(call, unary(call, "IsInf", x, "bool", **signs), float(bound), x)
    if low is None or high is None:
        x = call.step("Clip", x, *limits, like=x)
    call.out("Where", unary(call, "IsNaN", x, "bool"), call.number(nan or 0.0, x.dtype), x)


@TABLE.lowers("logit")
def logit(call: Call, x: Value, eps: float | None = None) -> None:
    """``log(x / (1 - x))``, of x cut to [eps, 1 - eps]."""
    dtype = numeric(call)
    x = call.typed(x, dtype)
    if eps is not None:
        x = call.step("Clip", x, call.number(eps, dtype), call.number(1 - eps, dtype), like=x)
    rest = call.step("Sub", call.number(1, dtype), x, like=x)
    call.out("Log", combined(call, "Div", x, rest))


@TABLE.lowers("sinc")
def sinc(call: Call, x: Value) -> None:
    dtype = numeric(call)
    x = call.typed(x, dtype)
    angle = scaled(call, x, math.pi)
    ratio = combined(call, "Div", unary(call, "Sin", angle), angle)
    call.out("Where", compared(call, "Equal", x, 0), call.number(1, dtype), ratio)


@TABLE.lowers("logaddexp")
def logaddexp(call: Call, x: Value, y: Value) -> None:
    """``max + log(1 + exp(-|x - y|))``."""
    dtype = numeric(call)
    x, y = call.typed(x, dtype), call.typed(y, dtype)
    apart = unary(call, "Neg", unary(call, "Abs", combined(call, "Sub", x, y)))
    call.out("Add", combined(call, "Max", x, y), unary(call, "Softplus", apart))


@TABLE.lowers("xlogy.Tensor", "xlogy.Scalar_Self", "xlogy.Scalar_Other")
def xlogy(call: Call, x: Value | Number, y: Value | Number) -> None:
    """``x log(y)``, 0 where x is 0."""
    dtype = numeric(call)
    a, b = call.typed(x, dtype), call.typed(y, dtype)
    product = combined(call, "Mul", a, unary(call, "Log", b))
    call.out("Where", compared(call, "Equal", a, 0), call.number(0, dtype), product)


@TABLE.lowers("float_power.Tensor_Tensor", "float_power.Tensor_Scalar", "float_power.Scalar")
def float_power(call: Call, x: Value | Number, y: Value | Number) -> None:
    if call.result.dtype != "float64":
        raise Unlowerable
    call.out("Pow", call.typed(x, "float64"), call.typed(y, "float64"))
