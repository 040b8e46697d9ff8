"""ATen -> ONNX: elementwise operators, comparisons, casts."""

from __future__ import annotations

from graphnorm.frontends.aten_call import Call, Lowering, Lowerings, Number, Unlowerable, known_shape, rank
from graphnorm.frontends.torch_tensors import ONNX_TYPES
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
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
LOGIC = {
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
    "__and__.Tensor": "And", "__or__.Tensor": "Or", "__xor__.Tensor": "Xor",
    "bitwise_and.Tensor": "And", "bitwise_or.Tensor": "Or", "bitwise_xor.Tensor": "Xor",
}  # fmt: skip
COPIES = ("alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "lift")


def _numeric(call: Call) -> str:
    if call.result.dtype == "bool" or call.result.dtype.startswith("complex"):
        raise Unlowerable
    return call.result.dtype


def _unary(op: str) -> Lowering:
    def lower(call: Call, x: Value, *_: object) -> None:
        call.out(op, call.typed(x, _numeric(call)))

    return lower


def _binary(op: str) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number) -> None:
        if op == "Mul" and call.result.dtype == "bool":
            call.out("And", call.typed(x, "bool"), call.typed(y, "bool"))
            return
        dtype = _numeric(call)
        call.out(op, call.typed(x, dtype), call.typed(y, dtype))

    return lower


def _comparison(op: str, negate: bool = False) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number) -> None:
        dtype = call.promotion()
        operands = call.typed(x, dtype), call.typed(y, dtype)
        if negate:
            call.out("Not", call.step(op, *operands, like=call.result))
        else:
            call.out(op, *operands)

    return lower


def _logic(op: str) -> Lowering:
    def lower(call: Call, x: Value, y: Value) -> None:
        if call.result.dtype == "bool":
            call.out(op, call.typed(x, "bool"), call.typed(y, "bool"))
        else:
            call.out(f"Bitwise{op}", call.typed(x, call.result.dtype), call.typed(y, call.result.dtype))

    return lower


def _scaled_sum(op: str) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number, alpha: Number = 1) -> None:
        dtype = _numeric(call)
        call.out(op, call.typed(x, dtype), scaled(call, call.typed(y, dtype), alpha))

    return lower


def scaled(call: Call, value: Value, factor: Number) -> Value:
    """``factor * value``."""
    return value if factor == 1 else call.step("Mul", value, call.number(factor, value.dtype), like=value)


for _name, _op in UNARY.items():
    TABLE.add(_name, _unary(_op))
for _name, _op in BINARY.items():
    TABLE.add(_name, _binary(_op))
for _name, _op in COMPARISONS.items():
    for _kind in ("Tensor", "Scalar"):
        TABLE.add(f"{_name}.{_kind}", _comparison(_op))
for _kind in ("Tensor", "Scalar"):
    TABLE.add(f"ne.{_kind}", _comparison("Equal", negate=True))
    TABLE.add(f"add.{_kind}", _scaled_sum("Add"))
    TABLE.add(f"sub.{_kind}", _scaled_sum("Sub"))
for _name, _op in LOGIC.items():
    TABLE.add(_name, _logic(_op))


@TABLE.lowers("rsub.Tensor", "rsub.Scalar")
def reverse_sub(call: Call, x: Value, y: Value | Number, alpha: Number = 1) -> None:
    dtype = _numeric(call)
    call.out("Sub", call.typed(y, dtype), scaled(call, call.typed(x, dtype), alpha))


@TABLE.lowers("div.Tensor_mode", "div.Scalar_mode")
def divide_rounded(call: Call, x: Value, y: Value | Number, mode: str | None) -> None:
    dtype = _numeric(call)
    if mode == "trunc" or not call.result.is_float:
        raise Unlowerable
    operands = call.typed(x, dtype), call.typed(y, dtype)
    if mode is None:
        call.out("Div", *operands)
    else:
        call.out("Floor", call.step("Div", *operands, like=call.result))


@TABLE.lowers("floor_divide", "floor_divide.Scalar")
def floor_divide(call: Call, x: Value, y: Value | Number) -> None:
    divide_rounded(call, x, y, "floor")


@TABLE.lowers("square")
def square(call: Call, x: Value) -> None:
    call.out("Pow", x, call.number(2, x.dtype))


@TABLE.lowers("rsqrt")
def rsqrt(call: Call, x: Value) -> None:
    root = call.step("Sqrt", call.typed(x, _numeric(call)), like=call.result)
    call.out("Reciprocal", root)


@TABLE.lowers("log1p")
def log1p(call: Call, x: Value) -> None:
    dtype = _numeric(call)
    call.out("Log", call.step("Add", call.typed(x, dtype), call.number(1, dtype), like=call.result))


@TABLE.lowers("expm1")
def expm1(call: Call, x: Value) -> None:
    dtype = _numeric(call)
    call.out("Sub", call.step("Exp", call.typed(x, dtype), like=call.result), call.number(1, dtype))


@TABLE.lowers("logical_not", "bitwise_not")
def logical_not(call: Call, x: Value) -> None:
    if call.result.dtype == "bool":
        call.out("Not", call.typed(x, "bool"))
    else:
        call.out("BitwiseNot", x)


@TABLE.lowers("isnan")
def isnan(call: Call, x: Value) -> None:
    call.out("IsNaN", x)


@TABLE.lowers("isinf")
def isinf(call: Call, x: Value) -> None:
    call.out("IsInf", x)


@TABLE.lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(call: Call, condition: Value, x: Value | Number, y: Value | Number) -> None:
    dtype = call.result.dtype
    call.out("Where", call.typed(condition, "bool"), call.typed(x, dtype), call.typed(y, dtype))


@TABLE.lowers("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(call: Call, x: Value, mask: Value, value: Value | Number) -> None:
    call.out("Where", call.typed(mask, "bool"), call.typed(value, x.dtype), x)


@TABLE.lowers("addcmul")
def addcmul(call: Call, x: Value, a: Value, b: Value, value: Number = 1) -> None:
    product = call.step("Mul", scaled(call, a, value), b, like=call.result)
    call.out("Add", x, product)


@TABLE.lowers("addcdiv")
def addcdiv(call: Call, x: Value, a: Value, b: Value, value: Number = 1) -> None:
    quotient = call.step("Div", scaled(call, a, value), b, like=call.result)
    call.out("Add", x, quotient)


@TABLE.lowers("lerp.Scalar", "lerp.Tensor")
def lerp(call: Call, x: Value, y: Value, weight: Value | Number) -> None:
    """``x + weight (y - x)``."""
    difference = call.step("Sub", y, x, like=call.result)
    call.out("Add", x, call.step("Mul", difference, call.typed(weight, x.dtype), like=call.result))


@TABLE.lowers("_to_copy", "to.dtype", "to.dtype_layout", "to.device")
@TABLE.lowers("type_as", "to.other", ignores=(1,))
def cast(call: Call, x: Value, *_: object) -> None:
    dtype = call.result.dtype
    if x.dtype == dtype:
        call.out("Identity", x)
    else:
        call.out("Cast", x, to=ONNX_TYPES[dtype])


@TABLE.lowers(*COPIES)
def copy_of(call: Call, x: Value, *_: object) -> None:
    call.out("Identity", x)


@TABLE.lowers("copy", ignores=(0,))
def copy_into(call: Call, x: Value, source: Value, *_: object) -> None:
    source = call.typed(source, x.dtype)
    if source.shape == x.shape:
        call.out("Identity", source)
    else:
        call.out("Expand", source, known_shape(x))


@TABLE.lowers("fill.Tensor", ignores=(0,))
def fill_with(call: Call, x: Value, value: Value) -> None:
    copy_into(call, x, value)


@TABLE.lowers("dropout")
def dropout(call: Call, x: Value, p: float, train: bool) -> None:
    if not train or p == 0:
        call.out("Identity", x)
    else:
        call.out("Dropout", x, call.number(p, "float32"), call.number(True, "bool"))


@TABLE.lowers("native_dropout")
def native_dropout(call: Call, x: Value, p: float, train: bool | None) -> None:
    dropout(call, x, p, train is not False)


@TABLE.lowers("prelu")
def prelu(call: Call, x: Value, slope: Value) -> None:
    # torch's slope belongs to axis 1, ONNX's broadcasts from the right.
    if rank(slope) == 1 and rank(x) > 2 and known_shape(slope) != (1,):
        shape = [known_shape(slope)[0], *[1] * (rank(x) - 2)]
        slope = call.step("Reshape", slope, shape, shape=shape)
    call.out("PRelu", x, slope)


@TABLE.lowers("_prelu_kernel")
def prelu_kernel(call: Call, x: Value, slope: Value) -> None:
    call.out("PRelu", x, slope)
