"""Contractions: matrix product.

With a weight W: y[o] = sum_i W[o, i] x[i] allows any scale u of y, if W[o, i] scales by u[o] - s[i].
Without: y[n, m] = sum_k a[n, k] b[k, m] needs a[n, k] + b[k, m] to be the same for all k.
Axes are named by letters, as in Einsum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.backward import fit
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels, pinned
from graphnorm.scales.registry import Registry, Rule


def arrange(labels: Labels, letters: str, target: str) -> Labels:
    """Permute axes named `letters` into the order `target`; letters that are missing get size 1."""
    order = [letters.index(letter) for letter in target if letter in letters]
    moved = labels.transpose(order + [i for i in range(labels.ndim) if i not in order])
    sizes = {letter: labels.shape[letters.index(letter)] for letter in target if letter in letters}
    return moved.reshape([sizes.get(letter, 1) for letter in target])


def contract(ctx: Context, first: str, a: str, second: str, b: str, out: str) -> Labels:
    """Labels of ``out[...] = sum first[a] * second[b]`` for operands of any kind."""
    if ctx.is_weight(first) and not ctx.is_weight(second):
        return _with_weight(ctx, second, b, first, a, out)
    if ctx.is_weight(second) and not ctx.is_weight(first):
        return _with_weight(ctx, first, a, second, b, out)
    return _activations(ctx, ctx.labels(first), a, ctx.labels(second), b, out)


def _with_weight(ctx: Context, data: str, x: str, weight: str, w: str, out: str) -> Labels:
    shape = ctx.shape(weight)
    named = "".join(letter for letter, size in zip(w, shape, strict=True) if size > 1)
    sizes = dict(zip(w, shape, strict=True))
    summed = [i for i, letter in enumerate(x) if letter not in out and letter not in named]
    labels = ctx.uniform(ctx.labels(data), summed)
    if (labels <= PINNED).all():  # pinned, zeros or not
        labels = pinned(labels.ndim)
    new = ctx.fresh([sizes[letter] if letter in named else 1 for letter in out], "output channels")
    outer = [i for i, letter in enumerate(x) if letter not in named and labels.shape[i] > 1]
    if (labels == FREE).any() and outer:  # rows that are all zero constrain nothing
        labels = ctx.uniform(labels, outer)
        outer = []
    labels = np.where(labels == FREE, PINNED, labels)
    incoming = labels
    if outer:  # the scale also varies where the weight doesn't: x[b, n, k] = i[b, k] + g[b, n]
        incoming = labels[tuple(slice(0, 1) if i in outer else slice(None) for i in range(labels.ndim))]
        kept = [i for i, letter in enumerate(x) if i in outer or letter in out]
        along = ctx.fresh([n if i in kept else 1 for i, n in enumerate(labels.shape)], "outer scale")
        ctx.equation([(1.0, labels), (-1.0, incoming), (-1.0, along)])
        both = arrange(along, x, out)
        result = ctx.fresh(np.broadcast_shapes(new.shape, both.shape), "output channels")
        ctx.equation([(1.0, result), (-1.0, new), (-1.0, both)])
    else:
        result = new
    terms = [(1.0, arrange(new, out, w)), (-1.0, arrange(incoming, x, w))]
    ctx.demand(weight, fit(ctx, terms, shape), Role.WEIGHT)
    return result


def _activations(ctx: Context, first: Labels, a: str, second: Labels, b: str, out: str) -> Labels:
    return sum_of_products(ctx, [(first, a), (second, b)], out)


def sum_of_products(ctx: Context, factors: Sequence[tuple[Labels, str]], out: str) -> Labels:
    """All terms of the sum need one scale: the factors' scales add up to the result's at every index."""
    letters = "".join(dict.fromkeys(out + "".join(text for _, text in factors)))
    terms = [arrange(np.where(labels == FREE, PINNED, labels), text, letters) for labels, text in factors]
    shape = np.broadcast_shapes(*(labels.shape for labels in terms))
    result = ctx.fresh(shape[: len(out)], "product of activations")
    ctx.equation([*((1.0, labels) for labels in terms), (-1.0, arrange(result, out, letters))])
    return result


def matmul(ctx: Context, node: Node) -> None:
    first, second = node.inputs
    ranks = (ctx.rank(first), ctx.rank(second))
    batch = "abcdefghij"[: max(*ranks, 2) - 2]
    a = batch[len(batch) - max(ranks[0] - 2, 0) :] + ("nk" if ranks[0] > 1 else "k")
    b = batch[len(batch) - max(ranks[1] - 2, 0) :] + ("km" if ranks[1] > 1 else "k")
    out = batch + ("n" if ranks[0] > 1 else "") + ("m" if ranks[1] > 1 else "")
    ctx.set(node.outputs[0], contract(ctx, first, a, second, b, out))


def gemm(ctx: Context, node: Node) -> None:
    a = "kn" if node.attributes["transA"] else "nk"
    b = "mk" if node.attributes["transB"] else "km"
    labels = contract(ctx, node.inputs[0], a, node.inputs[1], b, "nm")
    ctx.set(node.outputs[0], add_bias(ctx, labels, ctx.operand(node, 2)))


def add_bias(ctx: Context, labels: Labels, bias: str) -> Labels:
    """Add an operand that broadcasts against a result with `labels`."""
    if not bias:
        return labels
    if ctx.is_weight(bias):
        ctx.demand(bias, fit(ctx, [(1.0, labels)], ctx.shape(bias)), Role.BIAS)
    else:
        ctx.tie(labels, ctx.labels(bias))
    return labels


_REASON = "summed over"

RULES: Registry = Rules("scales")
RULES.add(Rule("n k, k m -> n m", matmul, _REASON), "MatMul")
RULES.add(Rule("n k, k m, n m -> n m", gemm, _REASON), "Gemm")
