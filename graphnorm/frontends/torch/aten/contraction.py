"""ATen -> ONNX: products of matrices."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

from graphnorm.frontends.torch.call import Call, Number, Unlowerable, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import (
    combined,
    expanded,
    multiplied,
    reduced,
    reshaped,
    scaled,
    turned,
    unsqueezed,
)
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("linear")
def linear(call: Call, x: Value, weight: Value, bias: Value | None = None) -> None:
    if rank(weight) == 2:
        weight = turned(call, weight, [1, 0])
    if bias is None:
        call.out("MatMul", x, weight)
    else:
        call.out("Add", call.step("MatMul", x, weight, like=call.result), bias)


@TABLE.lowers("matmul", "mm", "bmm", "mv", "dot", "vdot", "linalg_matmul", "mm.dtype", "bmm.dtype")
def matmul(call: Call, x: Value, y: Value, *_: object) -> None:
    dtype = call.result.dtype
    call.out("MatMul", call.typed(x, dtype), call.typed(y, dtype))


@TABLE.lowers("addmm", "baddbmm", "addmv")
def addmm(call: Call, bias: Value, x: Value, y: Value, beta: Number = 1, alpha: Number = 1) -> None:
    product = scaled(call, call.step("MatMul", x, y, like=call.result), alpha)
    call.out("Add", product, scaled(call, bias, beta))


@TABLE.lowers("addbmm")
def addbmm(call: Call, bias: Value, x: Value, y: Value, beta: Number = 1, alpha: Number = 1) -> None:
    """The products of a batch of matrices, summed."""
    product = reduced(call, "ReduceSum", multiplied(call, x, y), [0], keepdims=False)
    call.out("Add", scaled(call, product, alpha), scaled(call, bias, beta))


@TABLE.lowers("outer", "ger")
def outer(call: Call, x: Value, y: Value) -> None:
    dtype = call.result.dtype
    call.out("Mul", unsqueezed(call, call.typed(x, dtype), [1]), call.typed(y, dtype))


@TABLE.lowers("addr")
def addr(call: Call, bias: Value, x: Value, y: Value, beta: Number = 1, alpha: Number = 1) -> None:
    product = combined(call, "Mul", unsqueezed(call, x, [1]), y)
    call.out("Add", scaled(call, product, alpha), scaled(call, bias, beta))


@TABLE.lowers("inner")
def inner(call: Call, x: Value, y: Value) -> None:
    """Contracts the last axes: ``[*x, k], [*y, k] -> [*x, *y]``."""
    if not rank(x) or not rank(y):
        call.out("Mul", x, y)
        return
    *lead, size = known_shape(y)
    if len(lead) > 1:
        y = reshaped(call, y, [math.prod(lead), size])
    shape = (*known_shape(x)[:-1], *[math.prod(lead)] * bool(lead))
    made = call.step(
        "MatMul", x, turned(call, y, range(rank(y))[::-1]), shape=shape,
        dynamic=frozenset(range(len(shape))) if call.result.dynamic else frozenset(),
    )  # fmt: skip
    call.yields(reshaped(call, made, call.shape))


@TABLE.lowers("einsum")
def einsum(call: Call, equation: str, operands: Sequence[Value], *_: object) -> None:
    equation = explicit(equation, [rank(operand) for operand in operands])
    terms = equation.partition("->")[0].split(",")
    if "." not in equation:
        operands = _equal_sizes(call, terms, operands)
    call.out("Einsum", *operands, equation=equation)


def _equal_sizes(call: Call, terms: Sequence[str], operands: Sequence[Value]) -> list[Value]:
    """Operands whose axes of one letter have one size: torch lets axes of size 1 broadcast."""
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, size in zip(term, known_shape(operand), strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    return [
        expanded(call, operand, [sizes[letter] for letter in term])
        for term, operand in zip(terms, operands, strict=True)
    ]


def explicit(equation: str, ranks: Sequence[int]) -> str:
    """The equation with its output, and letters for an ellipsis that stands for as many axes everywhere."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = "".join(sorted(set(left) - set(",.")))
    if not arrow:
        right = ("..." if "..." in left else "") + "".join(c for c in letters if left.count(c) == 1)
    hidden = {r - len(term) + 3 for term, r in zip(terms, ranks, strict=True) if "..." in term}
    if len(hidden) == 1:
        spare = [c for c in string.ascii_letters if c not in letters]
        found = "".join(spare[: hidden.pop()])
        return f"{left}->{right}".replace("...", found)
    return f"{left}->{right}"


@TABLE.lowers("_trilinear")
def trilinear(
    call: Call,
    x: Value,
    weight: Value,
    y: Value,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll: int = 1,
) -> None:
    """Sums the product of three tensors; `bilinear` is ``sum_ij x[n, i] W[o, i, j] y[n, j]``."""
    if (list(expand1), list(expand2), list(expand3), list(sumdim)) != ([1, 3], [0], [1, 2], [2, 3]):
        raise Unlowerable
    outputs, size, other = known_shape(weight)
    columns = reshaped(call, turned(call, weight, [1, 0, 2]), [size, outputs * other])
    rows = multiplied(call, x, columns)
    count = known_shape(x)[0]
    product = combined(call, "Mul", reshaped(call, rows, [count, outputs, other]), unsqueezed(call, y, [1]))
    call.yields(reduced(call, "ReduceSum", product, [2], keepdims=False))


@TABLE.lowers("_weight_norm")
def weight_norm(call: Call, v: Value, g: Value, axis: int = 0) -> None:
    """``v * (g / |v|)``, one norm per slice of ``axis`` (-1: one in all)."""
    axes = [i for i in range(rank(v)) if axis == -1 or i != axis % rank(v)]
    norm = reduced(call, "ReduceL2", v, axes)
    call.out("Mul", v, combined(call, "Div", g, norm))


@TABLE.lowers("_weight_norm_interface")
def weight_norm_interface(call: Call, v: Value, g: Value, axis: int = 0) -> None:
    if call.used[1]:
        raise Unlowerable
    weight_norm(call, v, g, axis)
