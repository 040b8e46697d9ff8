"""ATen -> ONNX: products of matrices, convolutions, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphnorm.frontends.aten_call import (
    Call,
    Lowerings,
    Number,
    Unlowerable,
    known_shape,
    moved,
    rank,
    spread,
)
from graphnorm.frontends.aten_elementwise import scaled
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("linear")
def linear(call: Call, x: Value, weight: Value, bias: Value | None = None) -> None:
    if rank(weight) == 2:
        rows, columns = known_shape(weight)
        turned = moved(weight.dynamic, [1, 0])
        weight = call.step("Transpose", weight, shape=(columns, rows), dynamic=turned, perm=[1, 0])
    if bias is None:
        call.out("MatMul", x, weight)
    else:
        call.out("Add", call.step("MatMul", x, weight, like=call.result), bias)


@TABLE.lowers("matmul", "mm", "bmm", "mv", "dot", "vdot")
def matmul(call: Call, x: Value, y: Value) -> None:
    call.out("MatMul", x, y)


@TABLE.lowers("addmm", "baddbmm", "addmv")
def addmm(call: Call, bias: Value, x: Value, y: Value, beta: Number = 1, alpha: Number = 1) -> None:
    product = scaled(call, call.step("MatMul", x, y, like=call.result), alpha)
    call.out("Add", product, scaled(call, bias, beta))


@TABLE.lowers("outer", "ger")
def outer(call: Call, x: Value, y: Value) -> None:
    column = call.step("Unsqueeze", x, [1], shape=(*known_shape(x), 1), dynamic=x.dynamic)
    call.out("Mul", column, y)


@TABLE.lowers("einsum")
def einsum(call: Call, equation: str, operands: Sequence[Value], *_: object) -> None:
    call.out("Einsum", *operands, equation=equation.replace(" ", ""))


@TABLE.lowers("embedding")
def embedding(call: Call, weight: Value, indices: Value, *_: object) -> None:
    call.out("Gather", weight, indices, axis=0)


@TABLE.lowers("_weight_norm")
def weight_norm(call: Call, v: Value, g: Value, axis: int = 0) -> None:
    """``v * (g / |v|)``, one norm per slice of ``axis`` (-1: one in all)."""
    axes = [i for i in range(rank(v)) if axis == -1 or i != axis % rank(v)]
    shape = [1 if i in axes else size for i, size in enumerate(known_shape(v))]
    norm = call.step("ReduceL2", v, axes, shape=shape, keepdims=1)
    ratio = call.step("Div", g, norm, shape=shape)
    call.out("Mul", v, ratio)


def _same_pads(weight: Value, dilation: Sequence[int]) -> list[int]:
    # torch pads the end by one more where the total is odd.
    totals = [d * (size - 1) for d, size in zip(dilation, known_shape(weight)[2:], strict=True)]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _convolve(call: Call, op: str, x: Value, weight: Value, bias: Value | None, **attributes: Any) -> None:
    if rank(x) == rank(weight):
        call.out(op, x, weight, bias, **attributes)
        return
    # torch accepts an image without batch axis
    batched = call.step(
        "Unsqueeze", x, [0], shape=(1, *known_shape(x)), dynamic=frozenset(axis + 1 for axis in x.dynamic)
    )
    dynamic = frozenset(axis + 1 for axis in call.result.dynamic)
    image = call.step(op, batched, weight, bias, shape=(1, *call.shape), dynamic=dynamic, **attributes)
    call.out("Squeeze", image, [0])


@TABLE.lowers(*(f"conv{n}d" for n in "123"), *(f"conv{n}d.padding" for n in "123"))
def conv(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> None:
    n = rank(weight) - 2
    dilations = spread(dilation, n)
    if padding == "same":
        pads = _same_pads(weight, dilations)
    else:
        pads = [0] * 2 * n if isinstance(padding, str) else spread(padding, n) * 2
    strides = spread(stride, n)
    _convolve(
        call, "Conv", x, weight, bias, strides=strides, pads=pads, dilations=dilations, group=groups,
        kernel_shape=list(known_shape(weight)[2:]),
    )  # fmt: skip


@TABLE.lowers("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def conv_transpose(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> None:
    n = rank(weight) - 2
    _convolve(
        call, "ConvTranspose", x, weight, bias, strides=spread(stride, n), pads=spread(padding, n) * 2,
        output_padding=spread(output_padding, n), dilations=spread(dilation, n), group=groups,
        kernel_shape=list(known_shape(weight)[2:]),
    )  # fmt: skip


@TABLE.lowers("convolution", "_convolution")
def convolution(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: object,
) -> None:
    if transposed:
        conv_transpose(call, x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        conv(call, x, weight, bias, stride, padding, dilation, groups)


@TABLE.lowers("scaled_dot_product_attention")
def attention(
    call: Call,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """ONNX's Attention takes ``[batch, heads, tokens, features]``; other ranks are reshaped to it."""
    leading = known_shape(q)[:-2]
    if any(known_shape(operand)[:-2][:-1] != leading[:-1] or rank(operand) != rank(q) for operand in (k, v)):
        raise Unlowerable  # broadcast over the batch
    if leading and (known_shape(k)[:-2] != known_shape(v)[:-2] or leading[-1] % known_shape(k)[-3]):
        raise Unlowerable
    attributes: dict[str, Any] = {
        "is_causal": int(is_causal),
        "scale": float(1 / math.sqrt(known_shape(q)[-1]) if scale is None else scale),
    }
    if dropout:
        attributes["dropout_p"] = float(dropout)  # beyond ONNX: a training-mode graph
    if rank(q) == 4:
        call.out("Attention", q, k, v, mask, **attributes)
        return
    if mask is not None and rank(mask) > 2:
        mask = _four_axes(call, mask)
    shape = _four(call.shape)
    result = call.step(
        "Attention", *(_four_axes(call, operand) for operand in (q, k, v)), mask,
        shape=shape, dynamic=frozenset(range(4)) if call.result.dynamic else frozenset(), **attributes,
    )  # fmt: skip
    call.out("Reshape", result, call.shape)


def _four(shape: Sequence[int]) -> tuple[int, ...]:
    """``[..., heads, tokens, features]`` with the leading axes merged; a lone batch axis counts as such."""
    *leading, tokens, features = shape
    if len(leading) < 2:
        return (*leading, *[1] * (2 - len(leading)), tokens, features)
    return (math.prod(leading[:-1]), leading[-1], tokens, features)


def _four_axes(call: Call, operand: Value) -> Value:
    shape = _four(known_shape(operand))
    dynamic = frozenset(range(4)) if operand.dynamic else frozenset()
    return call.step("Reshape", operand, shape, shape=shape, dynamic=dynamic)
