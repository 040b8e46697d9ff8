"""ATen -> ONNX: comparisons, logic, choices."""

from __future__ import annotations

from graphnorm.frontends.torch.call import Call, Number, axes_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import combined, compared, reduced, unary
from graphnorm.ir import Value

TABLE = Lowerings()
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
LOGIC = {"and": "And", "or": "Or", "xor": "Xor"}


def _comparison(op: str, negate: bool = False) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number) -> None:
        dtype = call.promotion()
        result = call.step(op, call.typed(x, dtype), call.typed(y, dtype), like=call.result, dtype="bool")
        if negate:
            result = unary(call, "Not", result)
        call.yields(call.typed(result, call.result.dtype))  # written in place, it takes the operand's type

    return lower


def _logic(op: str) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number) -> None:
        made = call.step(op, call.typed(x, "bool"), call.typed(y, "bool"), like=call.result, dtype="bool")
        call.yields(call.typed(made, call.result.dtype))

    return lower


def _bitwise(op: str) -> Lowering:
    def lower(call: Call, x: Value | Number, y: Value | Number) -> None:
        dtype = call.result.dtype
        call.out(op if dtype == "bool" else f"Bitwise{op}", call.typed(x, dtype), call.typed(y, dtype))

    return lower


for _name, _op in COMPARISONS.items():
    for _kind in ("Tensor", "Scalar"):
        TABLE.add(f"{_name}.{_kind}", _comparison(_op))
for _kind in ("Tensor", "Scalar"):
    TABLE.add(f"ne.{_kind}", _comparison("Equal", negate=True))
for _name, _op in LOGIC.items():
    TABLE.add(f"logical_{_name}", _logic(_op))
    TABLE.add(f"__{_name}__.Tensor", _bitwise(_op))
    for _kind in ("Tensor", "Scalar", "Scalar_Tensor"):
        TABLE.add(f"bitwise_{_name}.{_kind}", _bitwise(_op))


@TABLE.lowers("logical_not")
def logical_not(call: Call, x: Value) -> None:
    call.yields(call.typed(unary(call, "Not", call.typed(x, "bool")), call.result.dtype))


@TABLE.lowers("bitwise_not")
def bitwise_not(call: Call, x: Value) -> None:
    call.out("Not" if x.dtype == "bool" else "BitwiseNot", x)


@TABLE.lowers("isnan")
def isnan(call: Call, x: Value) -> None:
    call.out("IsNaN", x)


@TABLE.lowers("isinf")
def isinf(call: Call, x: Value) -> None:
    call.out("IsInf", x)


@TABLE.lowers("isposinf")
def isposinf(call: Call, x: Value) -> None:
    call.out("IsInf", x, detect_negative=0)


@TABLE.lowers("isneginf")
def isneginf(call: Call, x: Value) -> None:
    call.out("IsInf", x, detect_positive=0)


@TABLE.lowers("isfinite")
def isfinite(call: Call, x: Value) -> None:
    infinite, missing = (unary(call, op, x, "bool") for op in ("IsInf", "IsNaN"))
    call.out("Not", combined(call, "Or", infinite, missing))


def _all_or_any(op: str) -> Lowering:
    def lower(call: Call, x: Value, axes: object = None, keepdims: bool = False) -> None:
        along = axes if isinstance(axes, (int, list, tuple)) else None
        truth = call.typed(x, "bool")
        if rank(x):
            truth = reduced(call, op, truth, axes_of(along, rank(x)), keepdims)
        call.yields(call.typed(truth, call.result.dtype))

    return lower


for _name, _op in (("all", "ReduceMin"), ("any", "ReduceMax")):
    for _kind in ("default", "dim", "dims"):
        TABLE.add(f"{_name}.{_kind}", _all_or_any(_op))
    TABLE.add(f"_is_{_name}_true", _all_or_any(_op))


@TABLE.lowers("isin.Tensor_Tensor", "isin.Tensor_Scalar", "isin.Scalar_Tensor")
def isin(
    call: Call, x: Value | Number, among: Value | Number, assume_unique: bool = False, invert: bool = False
) -> None:
    """Whether any of the candidates, laid out along a new last axis, is equal."""
    dtype = call.promotion()
    column = call.step("Unsqueeze", call.typed(x, dtype), [len(call.shape)], shape=(*call.shape, 1),
                       dtype=dtype, dynamic=call.result.dynamic)  # fmt: skip
    candidates = call.typed(among, dtype)
    size = 1
    for length in known_shape(candidates):
        size *= length
    candidates = call.step("Reshape", candidates, [size], shape=[size])
    equal = compared(call, "Equal", column, candidates)
    found = reduced(call, "ReduceMax", equal, [len(call.shape)], keepdims=False)
    call.yields(unary(call, "Not", found) if invert else found)


@TABLE.lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(call: Call, condition: Value, x: Value | Number, y: Value | Number) -> None:
    dtype = call.result.dtype
    call.out("Where", call.typed(condition, "bool"), call.typed(x, dtype), call.typed(y, dtype))


@TABLE.lowers("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(call: Call, x: Value, mask: Value, value: Value | Number) -> None:
    call.out("Where", call.typed(mask, "bool"), call.typed(value, x.dtype), x)
