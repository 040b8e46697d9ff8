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
from graphnorm.scales.context import Context, Move
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels, overlay
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.scale_array import ScaleArray
from graphnorm.scales.scale_array import concat as concatenated


def reshape(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray]:
    return [scale.reshape(ctx.shape(node.outputs[0]))]


def transpose(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray]:
    return [scale.transpose(permutation(node, len(scale.shape)))]


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    """The `perm` attribute; ONNX's default reverses the axes."""
    perm = node.attributes.get("perm")
    return tuple(int(axis) for axis in perm) if perm is not None else tuple(reversed(range(rank)))


def gather(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray] | None:
    index = ctx.constant(node.inputs[1])
    if index is None or ctx.value(node.inputs[1]).dynamic:
        return None
    return [scale.take(index.astype(np.int64), int(node.attributes["axis"]) % len(scale.shape))]


def slice_(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray] | None:
    starts, ends = ctx.static(node, "starts", 1), ctx.static(node, "ends", 2)
    if starts is None or ends is None or any(ctx.is_dynamic_argument(node, i) for i in (3, 4)):
        return None
    axes, steps = ctx.static(node, "axes", 3), ctx.static(node, "steps", 4)
    region = [slice(None)] * len(scale.shape)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i]) % len(scale.shape)
        step = 1 if steps is None else int(steps[i])
        stop = None if step < 0 and end < -scale.shape[axis] else int(end)
        region[axis] = slice(int(start), stop, step)
    return [scale.region(region)]


def split(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray] | None:
    if ctx.is_dynamic_argument(node, 1):  # the pieces' shapes are the example's
        return None
    axis = int(node.attributes["axis"]) % len(scale.shape)
    parts: list[ScaleArray] = []
    start = 0
    for name in node.outputs:
        stop = start + (ctx.shape(name)[axis] if name else 0)
        region = [slice(None)] * len(scale.shape)
        region[axis] = slice(start, stop)
        parts.append(scale.region(region))
        start = stop
    return parts


def expand(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray]:
    return [scale.expand(ctx.shape(node.outputs[0]))]


def tile(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray] | None:
    repeats = ctx.static(node, "repeats", 1)
    return None if repeats is None else [scale.tile([int(n) for n in repeats])]


def depth_to_space(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray]:
    n, c, h, w = scale.shape
    b = int(node.attributes["blocksize"])
    if node.text("mode") == "CRD":
        shape, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    else:
        shape, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    return [scale.reshape(shape).transpose(perm).reshape(ctx.shape(node.outputs[0]))]


def space_to_depth(ctx: Context, node: Node, scale: ScaleArray) -> list[ScaleArray]:
    n, c, h, w = scale.shape
    b = int(node.attributes["blocksize"])
    shape, perm = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4)
    return [scale.reshape(shape).transpose(perm).reshape(ctx.shape(node.outputs[0]))]


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
    """Move the scale of operand 0."""
    source = node.inputs[0]
    if node.op == "Gather" and ctx.is_weight(source):
        embedding(ctx, node)
        return
    scale = ctx.scale(source)
    moved = MOVES[node.op](ctx, node, scale)
    if moved is None:
        _move_unknown(ctx, node, scale)
        return
    if MOVES[node.op] is reshape:  # a batch may have been merged with heads and split again
        moved = [part.squeeze() for part in moved]
    for name, part in zip(node.outputs, moved, strict=False):
        ctx.set(name, part)


def _move_unknown(ctx: Context, node: Node, scale: ScaleArray) -> None:
    """One scale along the axes that are moved by amounts known only at run time, or one for all."""
    labels, rank = scale.labels, len(scale.shape)
    axis = int(node.attributes["axis"]) % rank if node.op in ("Gather", "Split") else 0
    cut = ctx.static(node, "axes", 3)
    if node.op == "Gather":  # rows picked
        labels = ctx.uniform(labels, [axis], "gathered with indices known only at run time")
        rows = np.broadcast_to(np.int64(0), ctx.shape(node.inputs[1]))
        ctx.set(node.outputs[0], ScaleArray(labels, scale.shape).take(rows, axis))
        return
    if node.op == "Split":
        labels = ctx.uniform(labels, [axis], "split at places known only at run time")
    elif node.op == "Slice" and cut is not None:
        axes = [int(number) % rank for number in cut]
        labels = ctx.uniform(labels, axes, "sliced by amounts known only at run time")
    else:
        labels = ctx.uniform(labels, range(rank), "moved by amounts known only at run time").reshape(())
    for name in node.outputs:
        ctx.set(name, labels)


def embedding(ctx: Context, node: Node) -> None:
    """Rows of a weight picked at run time: any row may be read, so only the other axes are free."""
    shape = ctx.shape(node.inputs[0])
    axis = int(node.attributes["axis"]) % len(shape)
    out = ctx.fresh((*shape[:axis], 1, *shape[axis + 1 :]), "embedding features")
    ctx.demand(node.inputs[0], [(1.0, out)], Role.WEIGHT)
    rows = np.broadcast_to(np.int64(0), ctx.shape(node.inputs[1]))
    ctx.set(node.outputs[0], ScaleArray(out, shape).take(rows, axis))


def only_shape(ctx: Context, node: Node) -> None:
    """Only the operand's shape reaches the result."""
    ctx.asked(node.inputs[0])
    ctx.set_pinned(node)


def concat(ctx: Context, node: Node) -> None:
    """Concatenate labels; a block of zeros constrains nothing."""
    operands = [name for name in node.inputs if name]
    axis = int(node.attributes["axis"]) % ctx.rank(node.outputs[0])
    if axis in ctx.value(node.outputs[0]).dynamic:
        ctx.set(node.outputs[0], _tied_along(ctx, [ctx.labels(name) for name in operands], axis))
    else:
        ctx.set(node.outputs[0], concatenated([ctx.scale(name) for name in operands], axis))


def _tied_along(ctx: Context, parts: Sequence[Labels], axis: int) -> Labels:
    parts = [ctx.uniform(part, [axis], "axis of variable size") for part in parts]
    whole = parts[0]
    for part in parts[1:]:
        ctx.tie(whole, part, "concatenated along an axis of variable size")
        whole = overlay(whole, part)
    return whole


def pad(ctx: Context, node: Node) -> None:
    """Zeros fit any scale; other padding constants are pinned; reflection mixes entries."""
    scale = ctx.scale(node.inputs[0])
    rank = len(scale.shape)
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
        ctx.set(node.outputs[0], ctx.uniform(scale.labels, padded))
    else:
        scalable = fill is not None and (fill == 0 or np.isinf(fill))
        ctx.set(node.outputs[0], scale.pad(before, after, FREE if scalable else PINNED))


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
