"""Layers: convolutions, Gemm, pools, normalisations, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.alignment import leaves
from graphnorm.alignment.arithmetic import add, matmul, multiply, power, reduce, scale
from graphnorm.alignment.builder import Builder
from graphnorm.alignment.lowering import lowers
from graphnorm.alignment.terms import Data, Known, Term
from graphnorm.alignment.views import whole
from graphnorm.ir import BEFORE
from graphnorm.util.typing import Shape

Operands = Sequence[Term | None]
Results = Sequence[ir.Value]


def _operand(operands: Operands, index: int) -> Term | None:
    return operands[index] if index < len(operands) else None


def window(node: ir.Node, sizes: Shape, kernel: Shape, result: Shape) -> dict[str, Any]:
    """Strides, dilations and pads of a window, written out."""
    rank = len(kernel)
    strides = tuple(int(s) for s in node.attributes.get("strides", (1,) * rank))
    dilations = tuple(int(d) for d in node.attributes.get("dilations", (1,) * rank))
    pads = tuple(int(p) for p in node.attributes.get("pads", (0,) * (2 * rank)))
    auto = node.text("auto_pad")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        total = [
            max((result[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - sizes[i], 0)
            for i in range(rank)
        ]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
    return {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}


def _unpadded(b: Builder, x: Data, pads: Sequence[int]) -> tuple[Data, tuple[int, ...]]:
    """Zero padding in a node of its own, merged into a window."""
    name = b.stored(x).base
    maker = next((node for node in reversed(b.nodes) if name in node.outputs), None)
    rank = len(x.shape)
    if maker is None or maker.op != "Pad" or maker.attributes.get("mode") != "constant":
        return x, tuple(pads)
    given = maker.attributes["pads"]
    outer = (given[0], given[1], given[rank], given[rank + 1])
    if maker.attributes["value"] != 0.0 or any(outer) or min(given) < 0:
        return x, tuple(pads)
    inner = (*given[2:rank], *given[rank + 2 :])
    value = b.values[maker.inputs[0]]
    source = Data(value.name, whole(value.shape or ()), x.dtype, value.dynamic, x.factor)
    return source, tuple(p + q for p, q in zip(pads, inner, strict=True))


@lowers("Conv")
def convolution(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    x, weight, bias = operands[0], operands[1], _operand(operands, 2)
    shape = results[0].shape
    if not isinstance(x, Data) or weight is None or shape is None:
        return None
    kernel = b.leaf(weight)
    if kernel is None:
        return None
    attributes = window(node, x.shape[2:], kernel.shape[2:], shape[2:])
    x, attributes["pads"] = _unpadded(b, x, attributes["pads"])
    attributes["group"] = int(node.attributes["group"])
    made = b.node(
        "Conv", [x.times(1 / x.factor), leaves.scaled(kernel, x.factor)], shape, x.dtype, attributes,
        results[0].dynamic,
    )  # fmt: skip
    return [made if bias is None else add(b, made, _channels(b, bias, len(shape)))]


def _channels(b: Builder, term: Term, rank: int) -> Term:
    """A vector along axis 1."""
    return b.reshape(term, (term.shape[0], *(1,) * (rank - 2)))


@lowers("ConvTranspose")
def transposed(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    x, weight, bias = operands[0], operands[1], _operand(operands, 2)
    shape = results[0].shape
    if not isinstance(x, Data) or weight is None or shape is None or "output_shape" in node.attributes:
        return None
    kernel = b.leaf(weight)
    if kernel is None or node.text("auto_pad") not in {"NOTSET", "VALID"}:
        return None
    attributes = window(node, x.shape[2:], kernel.shape[2:], shape[2:])
    rank = len(kernel.shape) - 2
    attributes["group"] = int(node.attributes["group"])
    attributes["output_padding"] = tuple(int(p) for p in node.attributes.get("output_padding", (0,) * rank))
    made = b.node(
        "ConvTranspose", [x.times(1 / x.factor), leaves.scaled(kernel, x.factor)], shape, x.dtype,
        attributes, results[0].dynamic,
    )  # fmt: skip
    return [made if bias is None else add(b, made, _channels(b, bias, len(shape)))]


@lowers("Gemm")
def gemm(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """Alpha op(A) op(B) + beta C."""
    first, second, bias = operands[0], operands[1], _operand(operands, 2)
    if first is None or second is None or not node.attributes["alpha"]:
        return None
    pair = [
        b.transpose(term, (1, 0)) if int(node.attributes[flag]) else term
        for term, flag in ((first, "transA"), (second, "transB"))
    ]
    result = scale(matmul(b, *pair), float(node.attributes["alpha"]))
    if bias is None:
        return [result]
    return [add(b, result, scale(bias, float(node.attributes["beta"])))]


@lowers("BatchNormalization")
def batch_norm(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """In evaluation mode x a + (beta - mean a), a = gamma / sqrt(var + eps)."""
    x = operands[0]
    training = int(node.attributes["training_mode"]) or BEFORE in node.attributes
    if training or len(results) != 1 or not isinstance(x, Data):
        return None
    found = [b.leaf(term) for term in operands[1:5] if term is not None]
    if len(found) != 4 or any(leaf is None for leaf in found):
        return None
    gain, shift, mean, variance = (leaf for leaf in found if leaf is not None)
    epsilon = leaves.number(b.rounded(node.attributes["epsilon"]), 0.0)
    factor = leaves.multiply(gain, leaves.power(leaves.add(variance, epsilon), -0.5))
    offset = leaves.add(shift, leaves.scaled(leaves.multiply(mean, factor), -1.0))
    rank = len(x.shape)
    return [add(b, multiply(b, x, _channels(b, factor, rank)), _channels(b, offset, rank))]


@lowers("MaxPool", "AveragePool")
def pool(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """A window over everything is a reduction; opsets differ in windows beyond the operand only."""
    x = operands[0]
    shape = results[0].shape
    if not isinstance(x, Data) or shape is None or len(node.outputs) > 1 or x.factor <= 0:
        return None
    kernel = tuple(int(k) for k in node.attributes["kernel_shape"])
    attributes = window(node, x.shape[2:], kernel, shape[2:])
    padded = any(attributes["pads"])
    if node.op == "AveragePool" and padded and int(node.attributes["count_include_pad"]):
        attributes["count_include_pad"] = 1
    varies = any(axis > 1 for axis in x.dynamic)
    beyond = int(node.attributes["ceil_mode"]) and (varies or _overhangs(attributes, x.shape[2:], shape[2:]))
    if beyond and BEFORE in node.attributes:
        return None
    whole_window = kernel == x.shape[2:] and math.prod(shape[2:]) == 1 and not varies
    if whole_window and not padded and len(x.shape) > 2:
        op = "ReduceMax" if node.op == "MaxPool" else "ReduceMean"
        return [reduce(b, op, x, range(2, len(x.shape)))]
    if beyond:
        attributes["ceil_mode"] = 1
    made = b.node(node.op, [x.times(1 / x.factor)], shape, x.dtype, attributes, results[0].dynamic)
    return [made.times(x.factor)]


def _overhangs(attributes: dict[str, Any], sizes: Shape, result: Shape) -> bool:
    """Whether the last window reaches beyond the padded operand."""
    for i, (size, count) in enumerate(zip(sizes, result, strict=True)):
        stride, dilation = attributes["strides"][i], attributes["dilations"][i]
        reach = (count - 1) * stride + (attributes["kernel_shape"][i] - 1) * dilation + 1
        if reach > size + attributes["pads"][i] + attributes["pads"][len(sizes) + i]:
            return True
    return False


@lowers("LayerNormalization", "RMSNormalization")
def layer_norm(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps), gain, bias; the root mean square has no mean."""
    x = operands[0]
    if not isinstance(x, Data) or len(results) != 1:
        return None
    axes = range(int(node.attributes["axis"]) % len(x.shape), len(x.shape))
    plain = _normalised(b, x, axes, float(node.attributes["epsilon"]), node.op[0] == "L")
    return [_affine(b, plain, _operand(operands, 1), _operand(operands, 2))]


@lowers("InstanceNormalization", "GroupNormalization")
def group_norm(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """Each group of channels over its channels and places."""
    x = operands[0]
    if not isinstance(x, Data) or len(results) != 1:
        return None
    n, c, *rest = x.shape
    groups = int(node.attributes.get("num_groups", c))
    split = b.reshape(x, (n, groups, c // groups * math.prod(rest)))
    assert isinstance(split, Data)
    plain = _normalised(b, split, [2], float(node.attributes["epsilon"]), True)
    gain, bias = (
        None if term is None else _channels(b, term, len(x.shape))
        for term in (_operand(operands, 1), _operand(operands, 2))
    )
    if any(term is not None and term.shape[0] != c for term in (gain, bias)):
        return None
    return [_affine(b, b.reshape(plain, x.shape), gain, bias)]


def _normalised(b: Builder, x: Data, axes: Sequence[int], epsilon: float, centred: bool) -> Term:
    over = list(axes)
    middle: Term = x
    if centred:
        middle = add(b, x, scale(reduce(b, "ReduceMean", x, over), -1.0))
    square = multiply(b, middle, middle)
    assert isinstance(square, Data)
    small = b.number(epsilon)
    variance = reduce(b, "ReduceMean", square, over)
    return multiply(b, middle, power(b, add(b, variance, small) if epsilon else variance, -0.5))


def _affine(b: Builder, x: Term, gain: Term | None, bias: Term | None) -> Term:
    scaled = x if gain is None else multiply(b, x, gain)
    return scaled if bias is None else add(b, scaled, bias)


@lowers("Attention")
def attention(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """softmax(q k^T scale + mask) v for each head."""
    q, k, v = operands[:3]
    plain = not any(operands[4:]) and len(results) == 1 and not node.attributes["softcap"]
    plain = plain and node.attributes.get("scale") != 0.0  # uniform attention, not the default scale
    if not plain or any(not isinstance(term, Data) or len(term.shape) != 4 for term in (q, k, v)):
        return None
    assert isinstance(q, Data)
    assert isinstance(k, Data)
    assert isinstance(v, Data)
    keys, values = (_repeated(b, term, q.shape[1]) for term in (k, v))
    factor = float(node.attributes.get("scale", 0.0)) or 1 / math.sqrt(q.shape[3])
    scores = scale(matmul(b, q, b.transpose(keys, (0, 1, 3, 2))), factor)
    mask = _operand(operands, 3)
    if int(node.attributes["is_causal"]):
        if mask is not None:
            return None
        allowed = np.tril(np.ones((q.shape[2], k.shape[2]), dtype=bool))
        mask = Known(np.where(allowed, 0, -np.inf).astype(np.float32))
    if isinstance(mask, Known) and mask.array.dtype == np.bool_:
        mask = Known(np.where(mask.array, 0, -np.inf).astype(np.float32), mask.dynamic)
    if isinstance(mask, Data) and mask.dtype == "bool":
        return None
    if mask is not None:
        if mask.shape[-1:] != scores.shape[-1:]:  # ONNX fills a shorter one with -inf
            return None
        scores = add(b, scores, mask)
    assert isinstance(scores, Data)
    length = scores.shape[-1]
    flat = b.reshape(scores, (math.prod(scores.shape[:-1]), length))
    assert isinstance(flat, Data)
    shares = b.node("Softmax", [flat], flat.shape, q.dtype, {"axis": 1}, flat.dynamic)
    return [matmul(b, b.reshape(shares, scores.shape), values)]


def _repeated(b: Builder, term: Data, heads: int) -> Data:
    """Each head of keys or values serves several of the queries."""
    n, own, length, size = term.shape
    if own == heads:
        return term
    full = (n, own, heads // own, length, size)
    split = b.reshape(term, (n, own, 1, length, size))
    spread = b.node("Expand", [split], full, term.dtype, {"shape": full})
    found = b.reshape(spread, (n, heads, length, size))
    assert isinstance(found, Data)
    return found
