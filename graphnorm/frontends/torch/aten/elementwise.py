"""ATen -> ONNX: arithmetic, entry by entry."""

from __future__ import annotations

from typing import Any

from graphnorm.frontends.torch.call import Call, Number, Unlowerable
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import combined, scaled, unary
from graphnorm.ir import Value

TABLE = Lowerings()

# One float tensor in, one out, no parameter (types are promoted: cos of an integer is a float).
UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "hardswish": "HardSwish", "log": "Log", "mish": "Mish", "neg": "Neg",
    "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round", "sgn": "Sign", "sigmoid": "Sigmoid",
    "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
# Operators on two promoted operands.
BINARY = {
    "mul.Tensor": "Mul", "mul.Scalar": "Mul", "div.Tensor": "Div", "div.Scalar": "Div",
    "maximum": "Max", "minimum": "Min", "max.other": "Max", "min.other": "Min",
    "pow.Tensor_Scalar": "Pow", "pow.Tensor_Tensor": "Pow", "pow.Scalar": "Pow",
}  # fmt: skip


def numeric(call: Call) -> str:
    """The result's type, if it is a real number."""
    if call.result.dtype == "bool" or call.result.dtype.startswith("complex"):
        raise Unlowerable
    return call.result.dtype


def _unary(op: str) -> Lowering:
    def lower(call: Call, x: Value, *_: object) -> None:
        call.out(op, call.typed(x, numeric(call)))

    return lower


def _binary(op: str) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number) -> None:
        if op == "Mul" and call.result.dtype == "bool":
            call.out("And", call.typed(x, "bool"), call.typed(y, "bool"))
            return
        dtype = numeric(call)
        call.out(op, call.typed(x, dtype), call.typed(y, dtype))

    return lower


def _scaled_sum(op: str) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number, alpha: Number = 1) -> None:
        if op == "Add" and call.result.dtype == "bool":
            call.out("Or", call.typed(x, "bool"), call.typed(y, "bool"))
            return
        dtype = numeric(call)
        call.out(op, call.typed(x, dtype), scaled(call, call.typed(y, dtype), alpha))

    return lower


for _name, _op in UNARY.items():
    TABLE.add(_name, _unary(_op))
for _name, _op in BINARY.items():
    TABLE.add(_name, _binary(_op))
for _kind in ("Tensor", "Scalar"):
    TABLE.add(f"add.{_kind}", _scaled_sum("Add"))
    TABLE.add(f"sub.{_kind}", _scaled_sum("Sub"))


@TABLE.lowers("rsub.Tensor", "rsub.Scalar")
def reverse_sub(call: Call, x: Value, y: Value | Number, alpha: Number = 1) -> None:
    dtype = numeric(call)
    call.out("Sub", call.typed(y, dtype), scaled(call, call.typed(x, dtype), alpha))


@TABLE.lowers("square")
def square(call: Call, x: Value) -> None:
    call.out("Pow", x, call.number(2, x.dtype))


@TABLE.lowers("rsqrt")
def rsqrt(call: Call, x: Value) -> None:
    call.out("Reciprocal", unary(call, "Sqrt", call.typed(x, numeric(call))))


@TABLE.lowers("addcmul")
def addcmul(call: Call, x: Value, a: Value, b: Value, value: Number = 1) -> None:
    dtype = numeric(call)
    product = combined(call, "Mul", scaled(call, call.typed(a, dtype), value), call.typed(b, dtype))
    call.out("Add", call.typed(x, dtype), product)


@TABLE.lowers("addcdiv")
def addcdiv(call: Call, x: Value, a: Value, b: Value, value: Number = 1) -> None:
    dtype = numeric(call)
    quotient = combined(call, "Div", scaled(call, call.typed(a, dtype), value), call.typed(b, dtype))
    call.out("Add", call.typed(x, dtype), quotient)


@TABLE.lowers("lerp.Scalar", "lerp.Tensor")
def lerp(call: Call, x: Value, y: Value, weight: Value | Number) -> None:
    """``x + weight (y - x)``."""
    part = combined(call, "Mul", combined(call, "Sub", y, x), call.typed(weight, x.dtype))
    call.out("Add", x, part)


# Rounding, and division with it.


def truncated(call: Call, x: Value) -> Value:
    """The integer part, towards zero."""
    return combined(call, "Mul", unary(call, "Sign", x), unary(call, "Floor", unary(call, "Abs", x)))


@TABLE.lowers("trunc", "fix")
def trunc(call: Call, x: Value) -> None:
    if x.dtype.startswith(("int", "uint")):
        call.out("Identity", x)
    else:
        call.yields(truncated(call, x))


@TABLE.lowers("frac")
def frac(call: Call, x: Value) -> None:
    call.out("Sub", x, truncated(call, x))


@TABLE.lowers("round.decimals")
def round_decimals(call: Call, x: Value, decimals: int = 0) -> None:
    factor = 10.0**decimals
    call.out("Div", unary(call, "Round", scaled(call, x, factor)), call.number(factor, x.dtype))


@TABLE.lowers("div.Tensor_mode", "div.Scalar_mode")
def divide_rounded(call: Call, x: Value | Number, y: Value | Number, rounding_mode: str | None) -> None:
    dtype = numeric(call)
    a, b = call.typed(x, dtype), call.typed(y, dtype)
    if rounding_mode is None:
        call.out("Div", a, b)
    elif call.result.is_float:
        quotient = combined(call, "Div", a, b)
        if rounding_mode == "floor":
            call.out("Floor", quotient)
        else:
            call.yields(truncated(call, quotient))
    elif rounding_mode == "trunc":
        call.out("Div", a, b)  # ONNX divides integers so
    else:
        call.out("Div", combined(call, "Sub", a, combined(call, "Mod", a, b)), b)


@TABLE.lowers("floor_divide", "floor_divide.Scalar")
def floor_divide(call: Call, x: Value, y: Value | Number) -> None:
    divide_rounded(call, x, y, "floor")


@TABLE.lowers("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(call: Call, x: Value | Number, y: Value | Number) -> None:
    """With the divisor's sign: ``x - floor(x / y) y``."""
    dtype = numeric(call)
    a, b = call.typed(x, dtype), call.typed(y, dtype)
    if call.result.is_float:
        call.out("Sub", a, combined(call, "Mul", unary(call, "Floor", combined(call, "Div", a, b)), b))
    else:
        call.out("Mod", a, b)


@TABLE.lowers("fmod.Tensor", "fmod.Scalar")
def fmod(call: Call, x: Value, y: Value | Number) -> None:
    dtype = numeric(call)
    options: dict[str, Any] = {"fmod": 1}
    call.out("Mod", call.typed(x, dtype), call.typed(y, dtype), **options)
