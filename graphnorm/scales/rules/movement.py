"""Data movement: run the same operation on the label array.

Reshape, transpose, slice, split, concat, gather, expand, pad, tile, pixel shuffle: channel shuffles,
attention heads, windows and fused projections need no special case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import Trait
from graphnorm.scales import labels as lb
from graphnorm.scales.context import Context, Move
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels
from graphnorm.scales.registry import Registry, Rule


def reshape(ctx: Context, node: Node, labels: Labels) -> list[Labels]:
    return [lb.reshape(labels, ctx.shape(node.inputs[0]), ctx.shape(node.outputs[0]))]


def transpose(ctx: Context, node: Node, labels: Labels) -> list[Labels]:
    return [labels.transpose(permutation(node, labels.ndim))]


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    """The `perm` attribute; ONNX's default reverses the axes."""
    perm = node.attributes.get("perm")
    return tuple(int(axis) for axis in perm) if perm is not None else tuple(reversed(range(rank)))


def gather(ctx: Context, node: Node, labels: Labels) -> list[Labels] | None:
    index = ctx.constant(node.inputs[1])
    if index is None or ctx.value(node.inputs[1]).dynamic:
        return None
    return [lb.take(labels, index.astype(np.int64), int(node.attributes["axis"]) % labels.ndim)]


def slice_(ctx: Context, node: Node, labels: Labels) -> list[Labels] | None:
    starts, ends = ctx.static(node, "starts", 1), ctx.static(node, "ends", 2)
    if starts is None or ends is None or any(ctx.is_dynamic_argument(node, i) for i in (3, 4)):
        return None
    axes, steps = ctx.static(node, "axes", 3), ctx.static(node, "steps", 4)
    region = [slice(None)] * labels.ndim
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i]) % labels.ndim
        step = 1 if steps is None else int(steps[i])
        size = ctx.shape(node.inputs[0])[axis]
        stop = None if step < 0 and end < -size else int(end)
        region[axis] = slice(int(start), stop, step)
    return [lb.slices(labels, region)]


def split(ctx: Context, node: Node, labels: Labels) -> list[Labels] | None:
    if ctx.is_dynamic_argument(node, 1):  # the pieces' shapes are the example's
        return None
    axis = int(node.attributes["axis"]) % labels.ndim
    parts: list[Labels] = []
    start = 0
    for name in node.outputs:
        stop = start + (ctx.shape(name)[axis] if name else 0)
        region = [slice(None)] * labels.ndim
        region[axis] = slice(start, stop)
        parts.append(lb.slices(labels, region))
        start = stop
    return parts


def expand(ctx: Context, node: Node, labels: Labels) -> list[Labels]:
    return [lb.align(labels, ctx.rank(node.outputs[0]))]


def tile(ctx: Context, node: Node, labels: Labels) -> list[Labels] | None:
    repeats = ctx.static(node, "repeats", 1)
    if repeats is None:
        return None
    counts = [int(r) if size > 1 else 1 for r, size in zip(repeats, labels.shape, strict=True)]
    return [np.tile(labels, counts)]


def depth_to_space(ctx: Context, node: Node, labels: Labels) -> list[Labels]:
    n, c, h, w = ctx.shape(node.inputs[0])
    b = int(node.attributes["blocksize"])
    if node.text("mode") == "CRD":
        shape, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    else:
        shape, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    moved = lb.reshape(labels, (n, c, h, w), shape).transpose(perm)
    return [lb.reshape(moved, tuple(shape[axis] for axis in perm), ctx.shape(node.outputs[0]))]


def space_to_depth(ctx: Context, node: Node, labels: Labels) -> list[Labels]:
    n, c, h, w = ctx.shape(node.inputs[0])
    b = int(node.attributes["blocksize"])
    shape, perm = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4)
    moved = lb.reshape(labels, (n, c, h, w), shape).transpose(perm)
    return [lb.reshape(moved, tuple(shape[axis] for axis in perm), ctx.shape(node.outputs[0]))]


MOVES: Rules[Move] = Rules("movement of labels")
"""Operator -> the same movement of an array of labels; None where it is not known."""
MOVES.add(reshape, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
MOVES.add(transpose, "Transpose")
MOVES.add(gather, "Gather")
MOVES.add(slice_, "Slice")
MOVES.add(split, "Split")
MOVES.add(expand, "Expand")
MOVES.add(tile, "Tile")
MOVES.add(depth_to_space, "DepthToSpace")
MOVES.add(space_to_depth, "SpaceToDepth")


def apply_move(ctx: Context, node: Node) -> None:
    """Move the labels of operand 0; where an argument isn't known, they must all be equal."""
    source = node.inputs[0]
    if node.op == "Gather" and ctx.is_weight(source):
        embedding(ctx, node)
        return
    labels = ctx.labels(source)
    moved = MOVES[node.op](ctx, node, labels)
    if moved is None and node.op == "Gather":  # rows picked at run time: one scale along that axis
        axis = int(node.attributes["axis"]) % labels.ndim
        labels = ctx.uniform(labels, [axis], "gathered with indices known only at run time")
        moved = [lb.take(labels, np.zeros((1,) * ctx.rank(node.inputs[1]), dtype=np.int64), axis)]
    if moved is None and node.op == "Split":
        axis = int(node.attributes["axis"]) % labels.ndim
        moved = [ctx.uniform(labels, [axis], "split at places known only at run time")] * len(node.outputs)
    if moved is None and node.op == "Slice" and (axes := ctx.static(node, "axes", 3)) is not None:
        cut = [int(axis) % labels.ndim for axis in axes]
        moved = [ctx.uniform(labels, cut, "sliced by amounts known only at run time")]
    if moved is None:
        labels = ctx.uniform(labels, range(labels.ndim), "moved by amounts known only at run time")
        moved = [labels.reshape(-1)[:1]] * len(node.outputs)
    if MOVES[node.op] is reshape:  # a batch may have been merged with heads and split again
        moved = [lb.squeeze_constant_axes(part) for part in moved]
    for name, part in zip(node.outputs, moved, strict=False):
        ctx.set(name, part)


def embedding(ctx: Context, node: Node) -> None:
    """Rows of a weight picked at run time: any row may be read, so only the other axes are free."""
    shape = ctx.shape(node.inputs[0])
    axis = int(node.attributes["axis"]) % len(shape)
    out = ctx.fresh((*shape[:axis], 1, *shape[axis + 1 :]), "embedding features")
    ctx.demand(node.inputs[0], [(1.0, out)], Role.WEIGHT)
    rank = ctx.rank(node.inputs[1])
    ctx.set(node.outputs[0], lb.take(out, np.zeros((1,) * rank, dtype=np.int64), axis))


def only_shape(ctx: Context, node: Node) -> None:
    """Only the operand's shape reaches the result."""
    ctx.asked(node.inputs[0])
    ctx.set_pinned(node)


def concat(ctx: Context, node: Node) -> None:
    """Concatenate labels; a block of zeros constrains nothing."""
    operands = [name for name in node.inputs if name]
    axis = int(node.attributes["axis"]) % ctx.rank(node.outputs[0])
    parts = [ctx.labels(name) for name in operands]
    if axis in ctx.value(node.outputs[0]).dynamic:
        whole = _tied_along(ctx, parts, axis)
    else:
        whole = lb.concat(parts, [ctx.shape(name)[axis] for name in operands], axis)
    ctx.set(node.outputs[0], whole)


def _tied_along(ctx: Context, parts: Sequence[Labels], axis: int) -> Labels:
    parts = [ctx.uniform(part, [axis], "axis of variable size") for part in parts]
    whole = parts[0]
    for part in parts[1:]:
        ctx.tie(whole, part, "concatenated along an axis of variable size")
        whole = lb.overlay(whole, part)
    return whole


def pad(ctx: Context, node: Node) -> None:
    """Zeros fit any scale; other padding constants are pinned; reflection mixes entries."""
    source = node.inputs[0]
    labels = ctx.labels(source)
    rank = labels.ndim
    pads = ctx.static(node, "pads", 1)
    if pads is None or ctx.is_dynamic_argument(node, 3):
        ctx.pin_node(node, "padding known only at run time")
        return
    pads, axes_given = pads.ravel(), ctx.static(node, "axes", 3)
    axes = [int(a) % rank for a in axes_given.ravel()] if axes_given is not None else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[i]), int(pads[i + len(axes)])
    padded = [axis for axis in range(rank) if before[axis] or after[axis]]
    mode = node.text("mode")
    fill = _pad_value(ctx, node) if mode == "constant" else np.float64("nan")
    if mode != "constant":
        labels = ctx.uniform(labels, padded)
    elif fill is None or (fill != 0 and not np.isinf(fill)):
        if any(ctx.shape(source)[axis] == 1 for axis in padded):  # size 1 would read as "doesn't vary"
            ctx.pin_node(node, "padding with a non-zero constant")
            return
        full = list(labels.shape)
        for axis in padded:
            full[axis] = ctx.shape(source)[axis]
        labels = lb.pad(np.broadcast_to(labels, full), before, after, PINNED)
    else:
        labels = lb.pad(labels, before, after, FREE)
    ctx.set(node.outputs[0], labels)


def _pad_value(ctx: Context, node: Node) -> float | None:
    if "value" in node.attributes:
        return float(node.attributes["value"])
    if not ctx.operand(node, 2):
        return 0.0
    data = ctx.constant(node.inputs[2])
    return None if data is None else float(np.asarray(data).ravel()[0])


RULES: Registry = Rules("scales")
RULES.add(Rule("x -> moved x", apply_move, "indices known only at run time"), *MOVES)
RULES.add(Rule("x1, .., xn -> x1 | .. | xn", concat, "concatenated"), "Concat")
RULES.for_trait(Trait.READS_SHAPE, Rule("x -> 0", only_shape, "only the shape is read"))
RULES.add(Rule("x -> x | free (zeros)", pad, "padding mixes entries"), "Pad")
