"""Gather and scatter by index tensors.

With known indices labels move as values do.  With indices known only at run time any entry along the
indexed axes may be read or written, so these need one scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales import labels as lb
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, Labels
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.scale_array import ScaleArray

Index = npt.NDArray[np.int64]
_RUN_TIME = "indexed with positions known only at run time"


def _known(ctx: Context, name: str) -> Index | None:
    data = ctx.constant(name)
    return None if data is None or ctx.value(name).dynamic else data.astype(np.int64)


def gather_elements(ctx: Context, node: Node) -> None:
    data, index = node.inputs
    scale, sizes = ctx.scale(data, Role.WEIGHT), ctx.shape(index)
    axis = int(node.attributes["axis"]) % len(sizes)
    positions = _known(ctx, index)
    kept = [slice(None) if i == axis else slice(0, n) for i, n in enumerate(sizes)]
    if positions is None or scale.labels.shape[axis] == 1:
        labels = ctx.uniform(scale.labels, [axis], _RUN_TIME)
        ctx.set(node.outputs[0], ScaleArray(labels, scale.shape).region(kept).labels)
        return
    moved = np.take_along_axis(scale.region(kept).entries(), positions % scale.shape[axis], axis)
    ctx.set(node.outputs[0], lb.squeeze_constant_axes(moved))


def gather_nd(ctx: Context, node: Node) -> None:
    data, index = node.inputs
    scale = ctx.scale(data, Role.WEIGHT)
    labels, shape = scale.labels, scale.shape
    batch = int(node.attributes["batch_dims"])
    sizes, depth = ctx.shape(index), ctx.shape(index)[-1]
    positions, indexed = _known(ctx, index), range(batch, batch + depth)
    if positions is not None and any(labels.shape[axis] > 1 for axis in indexed):
        whole = scale.along(range(batch + depth))
        lead = np.indices(sizes[:-1])[:batch]  # the sample that each row of indices belongs to
        picked = tuple(positions[..., i] % shape[batch + i] for i in range(depth))
        ctx.set(node.outputs[0], lb.squeeze_constant_axes(whole[(*lead, *picked)]))
        return
    labels = ctx.uniform(labels, indexed, _RUN_TIME)
    middle = (1,) * (len(sizes) - 1 - batch)
    ctx.set(node.outputs[0], labels.reshape((*labels.shape[:batch], *middle, *labels.shape[batch + depth :])))


def scatter_elements(ctx: Context, node: Node) -> None:
    data, index, updates = node.inputs
    rank = ctx.rank(data)
    axis = int(node.attributes["axis"]) % rank
    positions, shape, sizes = _known(ctx, index), ctx.shape(data), ctx.shape(updates)
    if positions is not None and not ctx.value(data).dynamic:  # else entries survive at other sizes
        grid = list(np.indices(sizes))
        grid[axis] = positions % shape[axis]
        target = np.ravel_multi_index(tuple(grid), shape)
        _scatter(ctx, node, target)
        return
    old = _writable(ctx, data, [axis])
    new = _writable(ctx, updates, [axis])
    _write(ctx, node, updates, old, new, [i for i in range(rank) if i != axis and sizes[i] != shape[i]])


def scatter_nd(ctx: Context, node: Node) -> None:
    data, index, updates = node.inputs
    sizes = ctx.shape(index)
    depth, positions, shape = sizes[-1], _known(ctx, index), ctx.shape(data)
    empty = 0 in (*shape, *sizes)
    if positions is not None and not ctx.value(data).dynamic and not empty:
        coordinates = tuple(positions[..., i] % shape[i] for i in range(depth))
        rows = np.ravel_multi_index(coordinates, shape[:depth])
        rest = int(np.prod(shape[depth:], dtype=np.int64))
        target = rows[..., None] * rest + np.arange(rest)
        _scatter(ctx, node, target)
        return
    middle = len(sizes) - 1
    old = _writable(ctx, data, range(depth))
    new = _writable(ctx, updates, range(middle))
    row = new.reshape((1,) * depth + new.shape[middle:])
    _write(ctx, node, updates, old, row)


def tensor_scatter(ctx: Context, node: Node) -> None:
    """A cache that is written along one axis."""
    axis = int(node.attributes["axis"]) % ctx.rank(node.inputs[0])
    old, new = (_writable(ctx, name, [axis]) for name in node.inputs[:2])
    _write(ctx, node, node.inputs[1], old, new)


def _writable(ctx: Context, name: str, axes: Sequence[int]) -> Labels:
    return ctx.uniform(ctx.labels(name), axes, _RUN_TIME)


def _write(
    ctx: Context, node: Node, updates: str, old: Labels, new: Labels, partial: Sequence[int] = ()
) -> None:
    """Write entries at unknown places: the written entries share the scale of the others.

    `partial` are axes of which only the first entries are written.
    """
    name = node.inputs[0]
    if node.text("reduction") == "mul":  # multiplied an unknown number of times
        ctx.pin_value(updates, "multiplied at positions known only at run time")
        ctx.set(node.outputs[0], old)
        return
    sizes = ctx.shape(updates)
    region = tuple(slice(0, sizes[i]) if i in partial else slice(None) for i in range(old.ndim))
    whole = ScaleArray(old, ctx.shape(name)).along(partial)
    ctx.tie(whole[region], new, "written into")
    if (whole == FREE).any():  # zeros take the scale of what is written among them
        spread = [max(n, 1 if i in partial else new.shape[i]) for i, n in enumerate(whole.shape)]
        whole = np.broadcast_to(whole, spread).copy()
        whole[region] = lb.overlay(whole[region], np.broadcast_to(new, whole[region].shape))
    ctx.set(node.outputs[0], whole)


def _scatter(ctx: Context, node: Node, target: Index) -> None:
    """Write at known flat positions: a written entry carries the scale of what was written."""
    data, updates = node.inputs[0], node.inputs[-1]
    shape = ctx.shape(data)
    old, new = (ctx.scale(name).entries().reshape(-1) for name in (data, updates))
    flat, reduction = target.reshape(-1), node.text("reduction")
    places, first = np.unique(flat, return_index=True)
    result = old.copy()
    if reduction == "mul":
        ctx.pin_value(updates, "multiplied into entries")
    else:
        common = np.full(old.shape, FREE, dtype=np.int64)
        common[places] = new[first]
        if len(places) < len(flat):  # several updates of one entry
            for value, place in zip(new, flat, strict=True):
                common[place] = value if common[place] == FREE else common[place]
            ctx.tie(new, common[flat], "written to the same entry")
        if reduction not in ("", "none"):  # the old Scatter has no such attribute
            ctx.tie(old[places], common[places], "added to")
            common[places] = lb.overlay(common[places], old[places])
        result[places] = common[places]
    ctx.set(node.outputs[0], lb.squeeze_constant_axes(result.reshape(shape)))


def compress(ctx: Context, node: Node) -> None:
    """Entries chosen by a mask, along an axis or of the flattened tensor."""
    scale = ctx.scale(node.inputs[0])
    labels = scale.labels
    if "axis" not in node.attributes:
        ctx.set(node.outputs[0], ctx.uniform(labels, range(labels.ndim), _RUN_TIME).reshape(-1))
        return
    axis = int(node.attributes["axis"]) % labels.ndim
    mask = ctx.constant(node.inputs[1])
    if mask is None or ctx.value(node.inputs[1]).dynamic:
        ctx.set(node.outputs[0], ctx.uniform(labels, [axis], _RUN_TIME))
    else:
        ctx.set(node.outputs[0], scale.take(np.flatnonzero(mask), axis))


def reverse_sequence(ctx: Context, node: Node) -> None:
    axis = int(node.attributes["time_axis"])
    ctx.set(node.outputs[0], ctx.uniform(ctx.labels(node.inputs[0]), [axis], _RUN_TIME))


RULES: Registry = Rules("scales")
RULES.add(Rule("x -> picked x", gather_elements, "gathered"), "GatherElements")
RULES.add(Rule("x -> picked x", gather_nd, "gathered"), "GatherND")
RULES.add(Rule("x, y -> x, y where written", scatter_elements, "scattered"), "ScatterElements", "Scatter")
RULES.add(Rule("x, y -> x, y where written", scatter_nd, "scattered"), "ScatterND")
RULES.add(Rule("x, x -> x", tensor_scatter, "written into a cache"), "TensorScatter")
RULES.add(Rule("x -> picked x", compress, "chosen by a mask"), "Compress")
RULES.add(Rule("x (equal along time) -> x", reverse_sequence, "reversed"), "ReverseSequence")
