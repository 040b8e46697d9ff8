"""Weight expressions with products and norms: weight_norm, DoRA, masks, gains, weight standardisation.

Backward rules as in `expressions`: of a product of two weights the smaller one takes labels of its own,
and the larger one the rest of the demanded scale.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from graphnorm.ir import Node
from graphnorm.scales import labels as lb
from graphnorm.scales.backward import Handler, demand, fit, handler
from graphnorm.scales.constraints import Term
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role, Step
from graphnorm.scales.rules.elementwise import exponent
from graphnorm.scales.rules.reduction import DEGREES, axes_of

Terms = tuple[Term, ...]
Path = tuple[Step, ...]


@handler("Mul", "Div")
def product(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    first, second = node.inputs
    shape, sign = ctx.shape(name), 1.0 if node.op == "Mul" else -1.0
    if first == second:
        if node.op == "Div":
            return False
        demand(ctx, first, _times(terms, 0.5), role, path)
        return True
    constants = [ctx.is_constant(operand) for operand in node.inputs]
    if any(constants):
        weight, c = (second, sign) if constants[0] else (first, 1.0)
        if path and ctx.shape(weight) != shape:
            return False
        scaled = _times(terms, c)
        demand(ctx, weight, scaled if path else fit(ctx, scaled, ctx.shape(weight)), role, path)
        return True
    small, large = sorted(node.inputs, key=lambda operand: lb.size(ctx.shape(operand)))
    if path or ctx.shape(large) != shape or lb.size(ctx.shape(small)) > lb.ENTRY_LIMIT:
        return False
    signs = {first: 1.0, second: sign}
    role = Role.WEIGHT if role == Role.WEIGHT else Role.FACTOR
    own = ctx.entries(small, role)
    rest = (*terms, (-signs[small], lb.align(own, len(shape))))
    demand(ctx, large, _times(rest, signs[large]), role)
    return True


@handler("Pow")
def power(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    k = exponent(ctx, node.inputs[1])
    if not k or ctx.is_constant(node.inputs[0]) or ctx.shape(node.inputs[0]) != ctx.shape(name):
        return False
    demand(ctx, node.inputs[0], _times(terms, float(1 / k)), role, path)
    return True


def _homogeneous(degree: Fraction) -> Handler:
    def apply(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
        demand(ctx, node.inputs[0], _times(terms, float(1 / degree)), role, path)
        return True

    return apply


handler("Sqrt")(_homogeneous(Fraction(1, 2)))
handler("Reciprocal")(_homogeneous(Fraction(-1)))


@handler(*DEGREES)
def reduced(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    """All entries that are reduced into one share its scale."""
    source = node.inputs[0]
    rank = ctx.rank(source)
    axes = axes_of(ctx, node, rank)
    if path or axes is None:
        return False
    if not int(node.attributes["keepdims"]):
        aligned = [(c, lb.align(labels, ctx.rank(name))) for c, labels in terms]
        terms = tuple((c, np.expand_dims(labels, tuple(axes))) for c, labels in aligned)
    demand(ctx, source, _times(terms, float(1 / DEGREES[node.op])), role)
    return True


@handler("BatchNormalization")
def standardised(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    """Weight standardisation: normalised rows keep their values, a gain takes the scale."""
    data, gain, bias = (*node.inputs, "", "")[:3]
    if path or name != node.outputs[0] or not node.attributes["training_mode"]:
        return False
    rank = ctx.rank(name)
    channels = (1, ctx.shape(name)[1], *(1,) * (rank - 2))
    rows = tuple((c, labels.reshape(-1)) for c, labels in fit(ctx, terms, channels))
    if gain:
        demand(ctx, gain, fit(ctx, rows, ctx.shape(gain)), role)
    else:
        ctx.equation(rows, "standardised weight")
    if bias:
        demand(ctx, bias, fit(ctx, rows, ctx.shape(bias)), Role.BIAS)
    demand(ctx, data, [], Role.FIXED)
    return True


def _times(terms: Terms, factor: float) -> Terms:
    return tuple((c * factor, labels) for c, labels in terms)
