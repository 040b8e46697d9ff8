"""Pools and reductions: an operator that mixes entries needs one scale along the mixed axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.ops.table import TABLE, having
from graphnorm.ops.traits import Trait
from graphnorm.scales.context import Context
from graphnorm.scales.labels import FREE, PINNED, Labels, axis_of, pinned
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.elementwise import scaled


def pool(ctx: Context, node: Node) -> None:
    """All axes after batch and channel are mixed (an adaptive pool says how many by `kernel_rank`)."""
    labels = ctx.labels(node.inputs[0])
    spatial = int(node.attributes.get("kernel_rank", labels.ndim - 2))
    for name in node.inputs[1:]:
        ctx.pin_value(name, "windows")
    labels = ctx.uniform(labels, range(labels.ndim - spatial, labels.ndim))
    for name in node.outputs:
        if name:
            ctx.set(name, labels if ctx.value(name).is_float else pinned(labels.ndim))


# Homogeneous reductions and their degrees.
DEGREES = {
    name: degree
    for name in sorted(having(Trait.REDUCES, without=Trait.CHANNELS_FIRST))
    if (degree := TABLE[name].degree) is not None
}


def reduce(ctx: Context, node: Node) -> None:
    labels = ctx.labels(node.inputs[0])
    axes = axes_of(ctx, node, labels.ndim)
    if axes is None:
        ctx.pin_node(node, "axes known only at run time")
        return
    labels = scaled(ctx, ctx.uniform(labels, axes), DEGREES[node.op])
    ctx.set(node.outputs[0], _without(labels, node, axes))


def segment_reduce(ctx: Context, node: Node) -> None:
    """Pieces of an axis reduced; an initial value of each must be the reduction's identity."""
    kind, initial = node.text("reduce"), node.attributes.get("initial")
    begins = initial is not None and not (kind == "sum" and initial == 0)
    if kind not in ("sum", "mean", "max", "min") or begins:
        ctx.pin_node(node, "products of pieces, or pieces with an initial value")
        return
    labels = ctx.labels(node.inputs[0])
    ctx.set(node.outputs[0], ctx.uniform(labels, [int(node.attributes["axis"]) % labels.ndim]))


def _without(labels: Labels, node: Node, axes: Sequence[int]) -> Labels:
    """Labels of the result, reduced axes gone unless `keepdims`."""
    if int(node.attributes["keepdims"]):
        return labels
    return labels.reshape([n for axis, n in enumerate(labels.shape) if axis not in axes])


def axes_of(ctx: Context, node: Node, rank: int) -> list[int] | None:
    """The axes that a reduction reduces; None if they aren't known."""
    if ctx.is_dynamic_argument(node, 1):
        return None
    axes = ctx.static(node, "axes", 1)
    if axes is None or axes.size == 0:
        return [] if int(node.attributes["noop_with_empty_axes"]) else list(range(rank))
    return [int(axis) % rank for axis in axes.ravel()] if rank else []


def reduce_product(ctx: Context, node: Node) -> None:
    """A product of entries: their scales add, along an axis of known size."""
    labels = ctx.labels(node.inputs[0])
    axes = axes_of(ctx, node, labels.ndim)
    shape = ctx.shape(node.inputs[0])
    if axes is None or any(axis in ctx.value(node.inputs[0]).dynamic for axis in axes):
        ctx.pin_node(node, "product over an axis known only at run time")
        return
    for axis in axes:
        parts = [labels.take([i], axis=axis) for i in range(labels.shape[axis])]
        weight = 1 if len(parts) > 1 else shape[axis]
        free = np.any([part == FREE for part in parts], axis=0)  # a zero factor: the product is zero
        out = ctx.fresh(parts[0].shape, "product of entries")
        bound = [np.where(free, PINNED, part) for part in parts]
        ctx.equation([*((float(weight), part) for part in bound), (-1.0, np.where(free, PINNED, out))])
        labels = np.where(free, FREE, out)
    ctx.set(node.outputs[0], _without(labels, node, axes))


def along_axis(ctx: Context, node: Node) -> None:
    """Cumulative sums, sorting and selection along one axis; integer results are pinned."""
    labels = ctx.labels(node.inputs[0])
    axis = ctx.static(node, "axis", 1 if node.op == "CumSum" else None)
    default = _DEFAULT_AXIS.get(node.op)
    if axis is None and default is None:
        labels = ctx.uniform(labels, range(labels.ndim))
    else:
        labels = ctx.uniform(labels, [axis_of(default if axis is None else axis, labels.ndim)])
    for name in node.outputs:
        if name:
            ctx.set(name, labels if ctx.value(name).is_float else pinned(ctx.rank(name)))


_DEFAULT_AXIS = {"TopK": -1, "ArgMax": 0, "ArgMin": 0}


def cumulative_product(ctx: Context, node: Node) -> None:
    """y[i] = x[0] .. x[i]: log-scales add up along the axis."""
    labels, name = ctx.labels(node.inputs[0]), node.inputs[0]
    given = ctx.static(node, "axis", 1)
    if given is None or axis_of(given, labels.ndim) in ctx.value(name).dynamic:
        ctx.pin_node(node, "product along an axis known only at run time")
        return
    axis = axis_of(given, labels.ndim)
    full = [ctx.shape(name)[axis] if i == axis else n for i, n in enumerate(labels.shape)]
    if not full[axis]:  # no entries
        ctx.set(node.outputs[0], labels)
        return
    bound = np.broadcast_to(np.where(labels == FREE, PINNED, labels), full)
    if node.attributes["reverse"]:
        bound = np.flip(bound, axis)
    out = ctx.fresh(full, "cumulative product")
    one = np.zeros_like(out.take([0], axis=axis))
    before = np.concatenate([one, out.take(range(full[axis] - 1), axis=axis)], axis=axis)
    if node.attributes["exclusive"]:
        bound = np.concatenate([one, bound.take(range(full[axis] - 1), axis=axis)], axis=axis)
    ctx.equation([(1.0, out), (-1.0, before), (-1.0, bound)])
    ctx.set(node.outputs[0], np.flip(out, axis) if node.attributes["reverse"] else out)


def hardmax(ctx: Context, node: Node) -> None:
    """The place of the largest entry; before opset 13 among all axes from `axis` on, by default 1."""
    labels = ctx.labels(node.inputs[0])
    axis = int(node.attributes["axis"]) % labels.ndim
    ctx.uniform(labels, range(axis, labels.ndim))
    ctx.set_pinned(node)


RULES: Registry = Rules("scales")
RULES.for_trait(
    Trait.REDUCES | Trait.HOMOGENEOUS | Trait.CHANNELS_FIRST, Rule("n c .. -> n c ..", pool, "pooled")
)
RULES.for_trait(Trait.REDUCES | Trait.HOMOGENEOUS, Rule("x (equal along the axes) -> x", reduce, "reduced"))
RULES.add(Rule("x (equal along the axes) -> 2 x", reduce, "reduced"), "ReduceSumSquare")
RULES.add(Rule("x1, .., xn -> x1 + .. + xn", reduce_product, "multiplied along an axis"), "ReduceProd")
RULES.add(
    Rule("x (equal along the axis) -> x", along_axis, "ordered or summed along an axis"),
    "CumSum",
    "TopK",
    "ArgMax",
    "ArgMin",
    "aten::cummax",
    "aten::cummin",
)
RULES.add(Rule("x1, x2, .. -> x1, x1 + x2, ..", cumulative_product, "multiplied along an axis"), "CumProd")
RULES.add(
    Rule("x (equal along the axis) -> x", segment_reduce, "reduced in pieces along an axis"),
    "aten::segment_reduce",
)
RULES.add(Rule("x (equal along the axis) -> 0", hardmax, "compared along an axis"), "Hardmax")
