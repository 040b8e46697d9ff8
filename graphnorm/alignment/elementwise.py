"""Elementwise operators: sums, products, activations written out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphnorm import ir
from graphnorm.alignment.arithmetic import (
    add,
    matmul,
    multiply,
    power,
    reciprocal,
    reduce,
    scale,
    unary,
)
from graphnorm.alignment.builder import Builder
from graphnorm.alignment.leaves import Leaf, summed
from graphnorm.alignment.lowering import LOWERINGS, lowers, plain_attributes
from graphnorm.alignment.terms import Data, Known, Term
from graphnorm.ir import BEFORE
from graphnorm.ops.traits import Trait

Operands = Sequence[Term | None]
Results = Sequence[ir.Value]
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")


def _floats(operands: Operands) -> list[Term] | None:
    """The operands, if all are floats (integers do not divide like reals)."""
    found: list[Term] = []
    for term in operands:
        if term is None or (isinstance(term, Data) and term.dtype not in ir.FLOAT_TYPES):
            return None
        if isinstance(term, Known) and not term.is_float:
            return None
        found.append(term)
    return found


@lowers("Add", "Sum", "Sub", "Mean")
def sums(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    found = _floats(operands)
    if found is None:
        return None
    total = found[0]
    for term in found[1:]:
        total = add(b, total, scale(term, -1.0) if node.op == "Sub" else term)
    return [scale(total, 1 / len(found)) if node.op == "Mean" else total]


@lowers("Greater", "GreaterOrEqual")
def comparison(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """A > b is b < a."""
    value, op = results[0], node.op.replace("Greater", "Less")
    return [b.node(op, operands[::-1], value.shape, value.dtype, None, value.dynamic)]


@lowers("Mul", "Div")
def products(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    found = _floats(operands)
    if found is None:
        return None
    first, second = found
    if node.op == "Div":
        if isinstance(second, Known) and second.scalar not in (None, 0.0):
            second = Known(1.0 / second.array.astype(np.float64), second.dynamic, second.source)
        else:
            if isinstance(second, Known) and (b.leaf(second) is None or not second.array.all()):
                return None
            second = reciprocal(b, second)
    return [multiply(b, first, second)]


@lowers("Neg")
def negative(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    found = _floats(operands)
    return None if found is None else [scale(found[0], -1.0)]


@lowers("Sqrt", "Reciprocal")
def roots(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    found = _floats(operands)
    if found is None or not _has_powers(b, found[0]):
        return None
    return [power(b, found[0], 0.5 if node.op == "Sqrt" else -1.0)]


def _has_powers(b: Builder, term: Term) -> bool:
    return isinstance(term, Data) or b.leaf(term) is not None


@lowers("Pow")
def powers(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    base, exponent = operands
    if _floats([base]) is None or not isinstance(exponent, Known) or exponent.array.size != 1:
        return None
    if base is None or not _has_powers(b, base):
        return None
    return [power(b, base, float(exponent.array.reshape(-1)[0]))]


@lowers("Relu", "Clip", "Max", "Min")
def clips(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """max(x, lo), min(x, hi) as Clip with numbers; from 0 to infinity as Relu."""
    if node.op in {"Max", "Min"} and len(operands) != 2:
        return None
    ordered = sorted(operands, key=lambda term: not isinstance(term, Data)) if node.op != "Clip" else operands
    first = ordered[0]
    if not isinstance(first, Data) or first.dtype not in ir.FLOAT_TYPES:
        return None
    low, high = -math.inf, math.inf
    if node.op == "Relu":
        low = 0.0
    elif node.op == "Clip":
        bounds = [_bound(node, operands, 1, "min", low), _bound(node, operands, 2, "max", high)]
        if bounds[0] is None or bounds[1] is None:
            return None
        low, high = bounds[0], bounds[1]
    else:
        other = ordered[1]
        if not isinstance(other, Known) or other.scalar is None or first.shape != results[0].shape:
            return None
        low, high = (other.scalar, high) if node.op == "Max" else (low, other.scalar)
    if low == -math.inf and high == math.inf:
        return [first]
    if (low, high) == (0.0, math.inf):
        if first.factor > 0:
            return [unary(b, "Relu", first.times(1 / first.factor)).times(first.factor)]
        return [unary(b, "Relu", first)]
    return [unary(b, "Clip", first, {"min": low, "max": high})]


def _bound(node: ir.Node, operands: Operands, index: int, name: str, absent: float) -> float | None:
    term = operands[index] if index < len(operands) else None
    if term is None:
        return float(node.attributes.get(name, absent))
    return term.scalar if isinstance(term, Known) else None


@lowers("Gelu")
def gelu(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """X (1 + erf(x / sqrt 2)) / 2; with tanh x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    x = operands[0]
    if not isinstance(x, Data):
        return None
    if node.text("approximate") == "tanh":
        cube = multiply(b, multiply(b, x, x), x)
        inner = scale(add(b, x, scale(cube, 0.044715)), math.sqrt(2 / math.pi))
        assert isinstance(inner, Data)
        gate = unary(b, "Tanh", inner)
    else:
        gate = unary(b, "Erf", x.times(math.sqrt(0.5)))
    return [scale(multiply(b, x, add(b, gate, b.number(1.0))), 0.5)]


@lowers("Swish")
def swish(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """X sigmoid(alpha x)."""
    x, alpha = operands[0], float(node.attributes["alpha"])
    if not isinstance(x, Data) or alpha == 0.0:
        return None
    return [multiply(b, x, unary(b, "Sigmoid", x.times(alpha)))]


@lowers("HardSwish")
def hard_swish(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """X clip(x + 3, 0, 6) / 6."""
    x = operands[0]
    return [multiply(b, x, _hard_sigmoid(b, x, 1 / 6, 0.5))] if isinstance(x, Data) else None


@lowers("HardSigmoid")
def hard_sigmoid(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    x = operands[0]
    alpha, beta = (float(node.attributes[name]) for name in ("alpha", "beta"))
    return [_hard_sigmoid(b, x, alpha, beta)] if isinstance(x, Data) and alpha > 0 else None


def _hard_sigmoid(b: Builder, x: Data, alpha: float, beta: float) -> Data:
    """clip(alpha x + beta, 0, 1), written alpha clip(x + beta / alpha, 0, 1 / alpha)."""
    shifted = add(b, x, b.number(beta / alpha))
    assert isinstance(shifted, Data)
    return unary(b, "Clip", shifted, {"min": 0.0, "max": b.rounded(1 / alpha)}).times(alpha)


@lowers("LeakyRelu", "Abs")
def function(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """A function of single entries, taken before its operand is moved."""
    x = operands[0]
    if not isinstance(x, Data) or len(results) != 1:
        return None
    attributes = plain_attributes(b, node)
    if node.op in {"LeakyRelu", "Elu", "Celu", "ThresholdedRelu"}:
        attributes.setdefault("alpha", b.rounded(0.01) if node.op == "LeakyRelu" else 1.0)
    if node.op in {"LeakyRelu", "Abs"} and x.factor > 0:
        return [unary(b, node.op, x.times(1 / x.factor), attributes).times(x.factor)]
    return [unary(b, node.op, x, attributes)]


LOWERINGS.for_trait(Trait.POINTWISE | Trait.UNARY | Trait.SATURATES, function)


@lowers("Softmax", "LogSoftmax")
def softmax(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """Along the last axis of a matrix, if along the last one (before opset 13, all from `axis` on)."""
    x = operands[0]
    if not isinstance(x, Data):
        return None
    flattened = BEFORE in node.attributes
    axis = int(node.attributes["axis"]) % len(x.shape)
    if flattened and axis != len(x.shape) - 1:
        return None
    if axis != len(x.shape) - 1:
        value = results[0]
        return [b.node(node.op, [x], x.shape, x.dtype, {"axis": axis}, value.dynamic)]
    flat = b.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    assert isinstance(flat, Data)
    found = b.node(node.op, [flat], flat.shape, x.dtype, {"axis": 1}, flat.dynamic)
    return [b.reshape(found, x.shape)]


@lowers(*_REDUCTIONS, "GlobalAveragePool", "GlobalMaxPool", "aten::adaptive_avg_pool")
def reductions(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """Over named axes, which keep size 1; the result is reshaped."""
    x = operands[0]
    shape = results[0].shape
    if not isinstance(x, Data | Leaf) or shape is None or b.dtype(x) not in ir.FLOAT_TYPES:
        return None
    rank = len(x.shape)
    op = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}.get(node.op, node.op)
    if node.op.startswith("Global"):
        axes = list(range(2, rank))
    elif node.op in _REDUCTIONS:
        term = operands[1] if len(operands) > 1 else None
        given = node.attributes.get("axes", term.array if isinstance(term, Known) else None)
        if isinstance(term, Data) or (given is None and node.attributes["noop_with_empty_axes"]):
            return None
        if given is not None and not np.asarray(given).size:  # all axes, or none
            return None
        axes = list(range(rank)) if given is None else [int(a) % rank for a in np.asarray(given).ravel()]
    else:
        op, axes = "ReduceMean", [axis for axis in range(rank) if shape[axis] != x.shape[axis]]
        if any(shape[axis] != 1 for axis in axes):
            return None
    if isinstance(x, Data):
        return [b.reshape(reduce(b, op, x, axes), shape)]
    if op not in {"ReduceMean", "ReduceSum"}:
        return None
    return [b.reshape(summed(x, axes, op == "ReduceMean"), shape)]


@lowers("MatMul")
def product(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    found = _floats(operands)
    if found is None or min(len(term.shape) for term in found) < 2:
        return None
    return [matmul(b, *found)]
