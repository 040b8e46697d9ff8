"""Interpolation, sampling, unfolding back and spectra: linear maps that mix entries along some axes."""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE
from graphnorm.scales.registry import Registry, Rule


def resize(ctx: Context, node: Node) -> None:
    """Interpolation is linear; axes whose size stays are untouched."""
    cropped = node.text("coordinate_transformation_mode").endswith("tf_crop_and_resize")
    if cropped and float(node.attributes["extrapolation_value"]) != 0.0:
        ctx.pin_node(node, "extrapolated with a non-zero value")
        return
    labels = ctx.labels(node.inputs[0])
    before, after = ctx.shape(node.inputs[0]), ctx.shape(node.outputs[0])
    # An axis of equal size may still be resampled (a scale of 1.1 on 5 entries): trust only the leading two.
    resampled = _resampled(ctx, node, labels.ndim)
    moved = [
        axis
        for axis in range(labels.ndim)
        if axis >= 2 or before[axis] != after[axis] or cropped or axis in resampled
    ]
    ctx.set(node.outputs[0], ctx.uniform(labels, moved))


def _resampled(ctx: Context, node: Node, rank: int) -> list[int]:
    """Axes with a scale that isn't known to be 1."""
    index = 1 if len(node.inputs) < 3 else 2  # Upsample, and Resize of opset 10, have no regions
    scales, name = ctx.static(node, "scales", index), ctx.operand(node, index)
    if scales is None and name in ctx.graph.weights:  # read here, so it is pinned
        ctx.pin_value(name)
        scales = ctx.graph.weights[name]
    if scales is None:
        return list(range(rank)) if name else []
    axes = node.attributes.get("axes", range(rank))
    return [int(axis) % rank for axis, scale in zip(axes, scales.ravel(), strict=False) if scale != 1]


def grid_sample(ctx: Context, node: Node) -> None:
    ctx.pin_value(node.inputs[1], "sampling positions")
    labels = ctx.labels(node.inputs[0], Role.WEIGHT)  # a table, if it is one
    ctx.set(node.outputs[0], ctx.uniform(labels, range(2, labels.ndim)))


def regions(ctx: Context, node: Node) -> None:
    """Pooled regions: the sample is chosen at run time, channels stay."""
    for name in node.inputs[1:]:
        ctx.pin_value(name, "regions of interest")
    labels = ctx.labels(node.inputs[0])
    ctx.set(node.outputs[0], ctx.uniform(labels, [axis for axis in range(labels.ndim) if axis != 1]))


def unpool(ctx: Context, node: Node) -> None:
    """Entries return to the positions where they were the largest; all others are zero.

    Places count through all channels and samples: they stay in their channel if a MaxPool made them from
    channels as large as the result's, else they may lead anywhere.
    """
    labels = ctx.labels(node.inputs[0])
    first = 2 if _is_unpooled(ctx, node) else 0
    ctx.set(node.outputs[0], ctx.uniform(labels, range(first, labels.ndim)))


def _is_unpooled(ctx: Context, node: Node) -> bool:
    places, result = node.inputs[1], ctx.value(node.outputs[0])
    pool = ctx.producers.get(places)
    if pool is None or pool.op != "MaxPool" or places != pool.outputs[1]:
        return False
    source = ctx.value(pool.inputs[0])
    varies = any(axis > 1 for axis in (*source.dynamic, *result.dynamic))  # sizes agree in the example only
    return not varies and source.shape is not None and source.shape[2:] == ctx.shape(node.outputs[0])[2:]


def fold(ctx: Context, node: Node) -> None:
    """Columns (batch, channels * block, positions) are summed into an image."""
    scale = ctx.scale(node.inputs[0])
    batch, rows, positions = scale.shape
    shape = ctx.shape(node.outputs[0])
    if not shape[1] or rows % shape[1]:
        ctx.pin_node(node, "columns that are not whole blocks")
        return
    split = scale.reshape((batch, shape[1], rows // shape[1], positions))
    summed = ctx.uniform(split.labels, [2, 3])
    ctx.set(node.outputs[0], summed.reshape(*summed.shape[:2], *(1,) * (len(shape) - 2)))


def spectrum(ctx: Context, node: Node) -> None:
    """DFT and STFT are linear; everything but the leading axes is mixed."""
    labels = ctx.labels(node.inputs[0])
    for name in node.inputs[1:]:
        if ctx.is_data(name) or ctx.is_weight(name):
            ctx.pin_value(name, "window")
    rank = labels.ndim
    if node.op == "STFT":  # (batch, length, 1 or 2) -> (batch, frames, bins, 2)
        batch = ctx.uniform(labels, range(1, rank))
        ctx.set(node.outputs[0], batch.reshape(-1, *(1,) * (ctx.rank(node.outputs[0]) - 1)))
        return
    axis = ctx.static(node, "axis", 2)
    if axis is not None:
        mixed = [int(np.ravel(axis)[0]) % rank, rank - 1]
    elif ctx.operand(node, 2):
        mixed = list(range(rank))
    else:  # the default is 1 before opset 20, -2 since
        mixed = [1, rank - 2, rank - 1]
    ctx.set(node.outputs[0], ctx.uniform(labels, mixed))


def center_crop_pad(ctx: Context, node: Node) -> None:
    """Cut or pad with zeros around the middle."""
    scale = ctx.scale(node.inputs[0])
    before, after = scale.shape, ctx.shape(node.outputs[0])
    if ctx.is_dynamic_argument(node, 1):
        axes = [axis for axis, dynamic in enumerate(before) if before[axis] != after[axis]]
        ctx.set(node.outputs[0], ctx.uniform(scale.labels, axes, "cropped to a size known only at run time"))
        return
    starts = [(n - m) // 2 if n > m else -((m - n) // 2) for n, m in zip(before, after, strict=True)]
    ends = [n - m - start for n, m, start in zip(before, after, starts, strict=True)]
    ctx.set(node.outputs[0], scale.pad([-n for n in starts], [-n for n in ends], FREE))


RULES: Registry = Rules("scales")
RULES.add(Rule("x (equal along resized axes) -> x", resize, "interpolated"), "Resize", "Upsample")
RULES.add(Rule("n c .., 0 -> n c ..", grid_sample, "interpolated"), "GridSample")
RULES.add(Rule("c .., 0 -> c ..", regions, "pooled regions"), "MaxRoiPool", "RoiAlign")
RULES.add(Rule("n c .. -> n c ..", unpool, "unpooled"), "MaxUnpool")
RULES.add(Rule("n c (block) .. -> n c ..", fold, "summed into an image"), "Col2Im")
RULES.add(Rule("x (equal along mixed axes) -> x", spectrum, "spectrum"), "DFT", "STFT")
RULES.add(Rule("x -> x | free (zeros)", center_crop_pad, "cropped"), "CenterCropPad")
