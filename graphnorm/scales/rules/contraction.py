"""Contractions: convolution and matrix product.

With a weight W: y[o] = sum_i W[o, i] x[i] allows any scale u of y, if W[o, i] scales by u[o] - s[i].
Without: y[n, m] = sum_k a[n, k] b[k, m] needs a[n, k] + b[k, m] to be the same for all k.
Axes are named by letters, as in Einsum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphnorm.ir import Node
from graphnorm.scales.demands import fit
from graphnorm.scales.labels import FREE, PINNED, Labels
from graphnorm.scales.registry import Rule

if TYPE_CHECKING:
    from graphnorm.scales.propagate import Propagation


def arrange(labels: Labels, letters: str, target: str) -> Labels:
    """Permute axes named `letters` into the order `target`; letters that are missing get size 1."""
    order = [letters.index(letter) for letter in target if letter in letters]
    moved = labels.transpose(order + [i for i in range(labels.ndim) if i not in order])
    sizes = {letter: labels.shape[letters.index(letter)] for letter in target if letter in letters}
    return moved.reshape([sizes.get(letter, 1) for letter in target])


def contract(ctx: Propagation, first: str, a: str, second: str, b: str, out: str) -> Labels:
    """Labels of ``out[...] = sum first[a] * second[b]`` for operands of any kind."""
    if ctx.is_weight(first) and ctx.is_data(second):
        return _with_weight(ctx, second, b, first, a, out)
    if ctx.is_weight(second) and ctx.is_data(first):
        return _with_weight(ctx, first, a, second, b, out)
    return _activations(ctx, ctx.labels(first), a, ctx.labels(second), b, out)


def _with_weight(ctx: Propagation, data: str, x: str, weight: str, w: str, out: str) -> Labels:
    shape = ctx.shape(weight)
    named = "".join(letter for letter, size in zip(w, shape, strict=True) if size > 1)
    sizes = dict(zip(w, shape, strict=True))
    summed = [i for i, letter in enumerate(x) if letter not in out and letter not in named]
    labels = ctx.uniform(ctx.labels(data), summed)
    new = ctx.fresh([sizes[letter] if letter in named else 1 for letter in out], "output channels")
    outer = [i for i, letter in enumerate(x) if letter not in named and labels.shape[i] > 1]
    if (labels == FREE).any() and outer:  # rows that are all zero constrain nothing
        labels = ctx.uniform(labels, outer)
        outer = []
    labels = np.where(labels == FREE, PINNED, labels)
    incoming = labels
    if outer:  # the scale also varies where the weight doesn't: x[n, k] = i[k] + g[n]
        incoming = labels[tuple(slice(0, 1) if i in outer else slice(None) for i in range(labels.ndim))]
        along = ctx.fresh([n if i in outer else 1 for i, n in enumerate(labels.shape)], "outer scale")
        ctx.equation([(1.0, labels), (-1.0, incoming), (-1.0, along)])
        both = arrange(along, x, out)
        result = ctx.fresh(np.broadcast_shapes(new.shape, both.shape), "output channels")
        ctx.equation([(1.0, result), (-1.0, new), (-1.0, both)])
    else:
        result = new
    terms = [(1.0, arrange(new, out, w)), (-1.0, arrange(incoming, x, w))]
    ctx.demand(weight, fit(ctx, terms, shape), "weight")
    return result


def _activations(ctx: Propagation, first: Labels, a: str, second: Labels, b: str, out: str) -> Labels:
    return sum_of_products(ctx, [(first, a), (second, b)], out)


def sum_of_products(ctx: Propagation, factors: Sequence[tuple[Labels, str]], out: str) -> Labels:
    """All terms of the sum need one scale: the factors' scales add up to the result's at every index."""
    letters = "".join(dict.fromkeys(out + "".join(text for _, text in factors)))
    terms = [arrange(np.where(labels == FREE, PINNED, labels), text, letters) for labels, text in factors]
    shape = np.broadcast_shapes(*(labels.shape for labels in terms))
    result = ctx.fresh(shape[: len(out)], "product of activations")
    ctx.equation([*((1.0, labels) for labels in terms), (-1.0, arrange(result, out, letters))])
    return result


def matmul(ctx: Propagation, node: Node) -> None:
    first, second = node.inputs
    ranks = (ctx.rank(first), ctx.rank(second))
    batch = "abcdefghij"[: max(*ranks, 2) - 2]
    a = batch[len(batch) - max(ranks[0] - 2, 0) :] + ("nk" if ranks[0] > 1 else "k")
    b = batch[len(batch) - max(ranks[1] - 2, 0) :] + ("km" if ranks[1] > 1 else "k")
    out = batch + ("n" if ranks[0] > 1 else "") + ("m" if ranks[1] > 1 else "")
    ctx.set(node.outputs[0], contract(ctx, first, a, second, b, out))


def gemm(ctx: Propagation, node: Node) -> None:
    a = "kn" if node.attributes.get("transA", 0) else "nk"
    b = "mk" if node.attributes.get("transB", 0) else "km"
    labels = contract(ctx, node.inputs[0], a, node.inputs[1], b, "nm")
    ctx.set(node.outputs[0], add_bias(ctx, labels, ctx.operand(node, 2)))


def add_bias(ctx: Propagation, labels: Labels, bias: str) -> Labels:
    """Add an operand that broadcasts against a result with `labels`."""
    if not bias:
        return labels
    if ctx.is_weight(bias):
        ctx.demand(bias, fit(ctx, [(1.0, labels)], ctx.shape(bias)), "bias")
    else:
        ctx.tie(labels, ctx.labels(bias))
    return labels


def conv(ctx: Propagation, node: Node) -> None:
    """W: (out_channels, in_channels / groups, *kernel)."""
    weight, groups = node.inputs[1], int(node.attributes.get("group", 1))
    _convolve(ctx, node, ctx.shape(weight)[0], groups, transposed=False)


def conv_transpose(ctx: Propagation, node: Node) -> None:
    """W: (in_channels, out_channels / groups, *kernel)."""
    weight, groups = node.inputs[1], int(node.attributes.get("group", 1))
    _convolve(ctx, node, ctx.shape(weight)[1] * groups, groups, transposed=True)


def _convolve(ctx: Propagation, node: Node, channels: int, groups: int, transposed: bool) -> None:
    data, weight = node.inputs[:2]
    rank = ctx.rank(data)
    if not ctx.is_data(data) or rank != ctx.rank(weight):
        ctx.pin_node(node, "convolution of a weight")
        return
    labels = ctx.uniform(ctx.labels(data), [axis for axis in range(rank) if axis != 1], "convolved")
    labels = np.where(labels == FREE, PINNED, labels)
    if not ctx.is_weight(weight):
        _fixed_kernel(ctx, node, labels, channels, groups)
        return
    incoming = np.broadcast_to(labels.reshape(-1), (ctx.shape(data)[1],))
    outgoing = ctx.fresh((channels,), "output channels")
    per_out, per_in = channels // groups, len(incoming) // groups
    kernel = (1,) * (rank - 2)
    if groups == 1:
        near, far = (incoming, outgoing) if transposed else (outgoing, incoming)
        first, second = near.reshape(-1, 1, *kernel), far.reshape(1, -1, *kernel)
    else:  # axis 0 runs over all groups, axis 1 within one
        near, far = (incoming, outgoing) if transposed else (outgoing, incoming)
        per_near, per_far = (per_in, per_out) if transposed else (per_out, per_in)
        first = near.reshape(-1, 1, *kernel)
        second = np.repeat(far.reshape(groups, per_far), per_near, axis=0).reshape(-1, per_far, *kernel)
    signs = (-1.0, 1.0) if transposed else (1.0, -1.0)
    ctx.demand(weight, [(signs[0], first), (signs[1], second)], "weight")
    bias = ctx.operand(node, 2)
    if ctx.is_weight(bias):
        ctx.demand(bias, [(1.0, outgoing)], "bias")
    elif bias:
        ctx.tie(outgoing, ctx.labels(bias).reshape(-1))
    ctx.set(node.outputs[0], outgoing.reshape(1, -1, *kernel))


def _fixed_kernel(ctx: Propagation, node: Node, labels: Labels, channels: int, groups: int) -> None:
    """A kernel that may not change: one scale per group of channels passes through."""
    if not ctx.is_constant(node.inputs[1]) or (len(node.inputs) > 2 and node.inputs[2]):
        ctx.pin_node(node, "kernel computed from the input")
        return
    if labels.shape[1] > 1:
        grouped = ctx.uniform(labels.reshape(groups, -1), [1], "convolved with a fixed kernel")
        labels = np.repeat(grouped.reshape(-1), channels // groups).reshape(1, -1, *labels.shape[2:])
    ctx.set(node.outputs[0], labels)


_FAMILY = "contractions"
_REASON = "summed over"

RULES = (
    Rule(("MatMul",), "n k, k m -> n m", matmul, _FAMILY, _REASON),
    Rule(("Gemm",), "n k, k m, n m -> n m", gemm, _FAMILY, _REASON),
    Rule(("Conv",), "n c .., o c .., o -> n o ..", conv, _FAMILY, _REASON),
    Rule(("ConvTranspose",), "n c .., c o .., o -> n o ..", conv_transpose, _FAMILY, _REASON),
)
