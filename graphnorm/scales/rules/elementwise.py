"""Elementwise operators: homogeneous of some degree, sums, products and saturating functions.

Let s be the log-scale of the operand.  f(e^s x) = e^(k s) f(x) for homogeneous f of degree k; sums, maxima
and choices need equal scales; products add them; a saturating function needs s = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from graphnorm.ir import FLOAT_TYPES, Node, float_format
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import Trait
from graphnorm.scales.backward import fit
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels, align, overlay, pinned, squeeze_constant_axes
from graphnorm.scales.registry import Apply, Registry, Rule


def degree(k: Fraction) -> Apply:
    """Homogeneous of degree k in operand 0: the scale is multiplied by k."""

    def apply(ctx: Context, node: Node) -> None:
        ctx.set(node.outputs[0], scaled(ctx, ctx.labels(node.inputs[0]), k))

    return apply


def scaled(ctx: Context, labels: Labels, k: Fraction) -> Labels:
    """Labels of k times a log-scale."""
    if k == 1:
        return labels
    if k == 0 or (labels == PINNED).all():
        return pinned(labels.ndim)
    out = ctx.fresh(labels.shape, f"degree {k}")
    ctx.equation([(float(k), labels), (-1.0, out)])
    return np.where(labels == FREE, FREE, out)


def fixed(ctx: Context, node: Node) -> None:
    """Pinned in, unchanged out."""
    ctx.pin_node(node)


def cast(ctx: Context, node: Node) -> None:
    """Between float types the scale passes; to truth values it is lost; to integers the value must stay."""
    for name in node.inputs[1:]:
        ctx.asked(name)  # CastLike reads its type only
    if ctx.value(node.outputs[0]).is_float:
        ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))
    elif ctx.value(node.outputs[0]).dtype == "bool":  # whether an entry is 0
        sign(ctx, node)
    else:
        ctx.pin_node(node)


def tied(ctx: Context, names: Sequence[str]) -> Labels:
    """Labels common to all operands of a sum, maximum or choice; weights follow as biases."""
    parts = [ctx.labels(name) for name in names if not ctx.is_weight(name)]
    rank = max(ctx.rank(name) for name in names)
    if not parts:  # a choice between weights
        parts = [ctx.fresh((1,) * rank, "chosen weights")]
    common = align(parts[0], rank)
    for part in parts[1:]:
        other = align(part, rank)
        ctx.tie(common, other)
        common = overlay(common, other)
    for name in names:
        if ctx.is_weight(name):
            common = _cover(common, ctx, name, rank)
            ctx.demand(name, fit(ctx, [(1.0, common)], ctx.shape(name)), Role.BIAS)
    return common


def _cover(common: Labels, ctx: Context, name: str, rank: int) -> Labels:
    """A sum with a known zero takes the weight's scale: give those entries labels of their own."""
    if not (common == FREE).any():
        return common
    shape = np.broadcast_shapes(common.shape, (1,) * (rank - ctx.rank(name)) + ctx.shape(name))
    return np.where(common == FREE, ctx.fresh(shape, f"entries of {name}"), common)


def sum_like(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], tied(ctx, [name for name in node.inputs if name]))


def compare(ctx: Context, node: Node) -> None:
    """An order a < b doesn't change when both are scaled alike; 0 may stand on either side."""
    tied(ctx, [name for name in node.inputs if name])
    ctx.set_pinned(node)


def sign(ctx: Context, node: Node) -> None:
    ctx.asked(node.inputs[0])
    ctx.set_pinned(node)


def choose_second(ctx: Context, node: Node) -> None:
    """SwiGLU: the gate saturates, the other factor passes its scale."""
    ctx.pin_value(node.inputs[0], "gate")
    ctx.set(node.outputs[0], ctx.labels(node.inputs[1]))


def where(ctx: Context, node: Node) -> None:
    """With a known condition each entry carries the scale of the branch that it comes from."""
    condition, first, second = node.inputs
    chosen = ctx.constant(condition)
    rank = ctx.rank(node.outputs[0])
    if chosen is not None and not ctx.value(condition).dynamic:
        a, b = (align(ctx.labels(name), rank) for name in (first, second))
        mask = chosen.reshape((1,) * (rank - chosen.ndim) + chosen.shape).astype(bool)
        ctx.set(node.outputs[0], squeeze_constant_axes(np.where(mask, a, b)))
        return
    if not ctx.is_constant(condition):
        ctx.pin_value(condition)
    ctx.set(node.outputs[0], align(tied(ctx, node.inputs[1:]), rank))


def multiply(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], _product(ctx, node, 1.0))


def divide(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], _product(ctx, node, -1.0))


def _product(ctx: Context, node: Node, second_sign: float) -> Labels:
    (first, second), rank = node.inputs, ctx.rank(node.outputs[0])
    signs = {first: 1.0, second: second_sign}
    if first == second:
        return scaled(ctx, align(ctx.labels(first), rank), Fraction(1 + int(second_sign)))
    weight = next((name for name in (first, second) if ctx.is_weight(name)), "")
    if weight:
        other = second if weight == first else first
        return _times_weight(ctx, weight, signs[weight], align(ctx.labels(other), rank), signs[other])
    a, b = (align(ctx.labels(name), rank) for name in (first, second))
    if (b <= PINNED).all():  # pinned or free: entries that are not known to be zero keep the scale
        return np.where(b == FREE, FREE, a) if (b == FREE).any() else a
    if (a <= PINNED).all() and second_sign > 0:
        return np.where(a == FREE, FREE, b) if (a == FREE).any() else b
    out = ctx.fresh(np.broadcast_shapes(a.shape, b.shape), "product")
    ctx.equation([(1.0, a), (second_sign, b), (-1.0, out)])
    return np.where((a == FREE) | (b == FREE), FREE, out)


def _times_weight(ctx: Context, weight: str, sign_w: float, x: Labels, sign_x: float) -> Labels:
    """With out = sign_x x + sign_w w free, the weight takes the difference."""
    shape = (1,) * (x.ndim - ctx.rank(weight)) + ctx.shape(weight)
    if (x == FREE).all() and sign_w > 0:  # zero times anything
        ctx.asked(weight)
        return x
    x = np.where(x == FREE, PINNED, x)
    if all(n == 1 or m > 1 for n, m in zip(x.shape, shape, strict=True)):
        out = ctx.fresh(shape, "gain output")
        ctx.demand(weight, fit(ctx, [(sign_w, out), (-sign_w * sign_x, x)], ctx.shape(weight)), Role.WEIGHT)
        return out
    own = ctx.fresh(shape, f"gain {weight}")
    out = ctx.fresh(np.broadcast_shapes(shape, x.shape), "gain output")
    ctx.equation([(1.0, out), (-sign_x, x), (-sign_w, own)])
    ctx.demand(weight, fit(ctx, [(1.0, own)], ctx.shape(weight)), Role.WEIGHT)
    return out


def exponent(ctx: Context, name: str) -> Fraction | None:
    """A known exponent, the same everywhere, if it is a simple fraction."""
    found = exponents(ctx, name)
    return next(iter(found)) if found is not None and len(found) == 1 else None


def exponents(ctx: Context, name: str) -> dict[Fraction, npt.NDArray[np.bool_]] | None:
    """Known exponents, all of them simple fractions, and where each of them stands."""
    data = None if ctx.value(name).dynamic else ctx.held(name)
    if data is None or data.size == 0:
        return None
    small = data[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in data.strides)]
    numbers = np.unique(small)
    fractions = [_fraction(float(number), data.dtype) for number in numbers[: _EXPONENTS + 1]]
    if len(numbers) > _EXPONENTS or None in fractions:
        return None
    found: dict[Fraction, npt.NDArray[np.bool_]] = {}
    for k, number in zip(fractions, numbers, strict=True):
        if k is not None:  # neighbours may be roundings of one fraction
            found[k] = found.get(k, np.zeros(small.shape, dtype=bool)) | (small == number)
    return found


def _fraction(number: float, dtype: np.dtype[Any]) -> Fraction | None:
    if not np.isfinite(number):
        return None
    k = Fraction(number).limit_denominator(1000)
    rounding = float_format(dtype).eps if dtype.name in FLOAT_TYPES else 0.0
    return k if abs(float(k) - number) <= rounding * abs(float(k)) else None


def power(ctx: Context, node: Node) -> None:
    """Each entry's scale is multiplied by its exponent."""
    found, rank = exponents(ctx, node.inputs[1]), ctx.rank(node.outputs[0])
    if found is None or not ctx.is_data(node.inputs[0]):
        ctx.pin_node(node, "exponent not a known simple fraction")
        return
    labels = align(ctx.labels(node.inputs[0]), rank)
    if len(found) == 1:
        ctx.set(node.outputs[0], scaled(ctx, labels, next(iter(found))))
        return
    masks = {k: mask.reshape((1,) * (rank - mask.ndim) + mask.shape) for k, mask in found.items()}
    shape = np.broadcast_shapes(labels.shape, next(iter(masks.values())).shape)
    out = np.zeros(shape, dtype=np.int64)
    for k, mask in masks.items():
        where = np.broadcast_to(mask, shape)
        entries = np.broadcast_to(labels, shape)[where]
        if not k:  # x^0 is 1: a channel that is not read keeps its weights
            ctx.equation([(1.0, entries)])
        out[where] = scaled(ctx, entries, k)
    ctx.set(node.outputs[0], squeeze_constant_axes(out))


def clip(ctx: Context, node: Node) -> None:
    """Homogeneous while its bounds are 0 or infinite; any other bound, however large, pins its operand."""
    bounds = [ctx.static(node, name, index) for name, index in (("min", 1), ("max", 2))]
    unknown = any(ctx.is_dynamic_argument(node, index) for index in (1, 2))
    loose = all(b is None or bool(((b == 0) | np.isinf(b.astype(np.float64))).all()) for b in bounds)
    if unknown or not loose:
        ctx.pin_node(node, "clipped at a non-zero bound")
    else:
        ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


def prelu(ctx: Context, node: Node) -> None:
    """The slope has no scale of its own."""
    ctx.pin_value(node.inputs[1], "slope of a piecewise linear unit")
    ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


_EXPONENTS = 64  # different ones in a tensor


RULES: Registry = Rules("scales")
_PASSES = Rule("x -> x", degree(Fraction(1)), "passes the scale")
_COMPARED = Rule("x, x -> 0", compare, "compared with each other")
_SIGN = Rule("x -> 0", sign, "only the sign is used")
RULES.for_trait(Trait.POINTWISE | Trait.UNARY | Trait.HOMOGENEOUS, _PASSES)
RULES.add(_PASSES, "Dropout", "Trilu")
RULES.add(Rule("x -> x / 2", degree(Fraction(1, 2)), "square root"), "Sqrt")
RULES.add(Rule("x -> -x", degree(Fraction(-1)), "reciprocal"), "Reciprocal")
RULES.add(Rule("x, constant k -> k x", power, "power"), "Pow")
RULES.add(Rule("x -> x between floats", cast, "cast to another kind of number"), "Cast", "CastLike")
RULES.add(Rule("x -> x if bounds are 0 or infinite", clip, "clipped at a non-zero bound"), "Clip")
RULES.add(Rule("x, 0 -> x", prelu, "slope"), "PRelu")
RULES.add(Rule("x, x -> x", sum_like, "added or compared"), "Add", "Sub", "Sum", "Mean", "Max", "Min", "Mod")
RULES.add(Rule("0, x, x -> x", where, "chosen between branches"), "Where")
RULES.for_trait(Trait.POINTWISE | Trait.COMPARES, _COMPARED)
RULES.add(_COMPARED, "aten::atan2")
RULES.for_trait(Trait.POINTWISE | Trait.COMPARES | Trait.UNARY, _SIGN)
RULES.add(_SIGN, "Sign")
RULES.add(Rule("x, y -> x + y", multiply, "multiplied"), "Mul")
RULES.add(Rule("x, y -> x - y", divide, "divided"), "Div")
RULES.add(Rule("0, x -> x", choose_second, "gate"), "SwiGLU")
