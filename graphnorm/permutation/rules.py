"""Which axes an operator ties, frees or freezes: op(permuted operands) = permuted results.

An operator without a rule freezes everything that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphnorm.ir import BEFORE, Node
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import Trait
from graphnorm.permutation.axes import Axis
from graphnorm.permutation.context import Context
from graphnorm.scales.labels import reshape_blocks

Rule = Callable[[Context, Node], Sequence[tuple[Axis, ...]] | None]
RULES: Rules[Rule] = Rules("permutations")
"""Operator -> axes of its results; None freezes all that the node touches."""
rule = RULES.rule

_STILL = frozenset({"half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"})
"""Coordinates of a Resize in which an axis that keeps its size keeps its entries."""


def pointwise(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    """Entry by entry: operands that broadcast are permuted alike."""
    names = [name for name in node.inputs if name]
    out = ctx.shape(node.outputs[0])
    if any(
        size not in (1, of)
        for name in names
        for size, of in zip(ctx.shape(name)[::-1], out[::-1], strict=False)
    ):
        return None
    operands = [ctx.axes(name) for name in names]
    return [ctx.broadcast(operands, ctx.shape(name)) if name else () for name in node.outputs]


RULES.for_trait(Trait.POINTWISE, pointwise)
RULES.add(pointwise, "Dropout")  # which entries are dropped is random for each input


@rule("Cast", "CastLike", "Softmax", "LogSoftmax", "LpNormalization")
def first(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    """Operand 0 entry by entry (of the other only the type counts), or alike along an axis in any order."""
    for name in node.inputs[1:]:
        ctx.axes(name)
    return [ctx.axes(node.inputs[0])]


@rule("MatMul")
def matmul(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    first, second = (ctx.axes(name) for name in node.inputs)
    rows, columns = first[-2:-1], second[-1:] if len(second) > 1 else ()  # none of a vector
    ctx.unite(first[-1], second[-2] if len(second) > 1 else second[-1])
    lead = ctx.rank(node.outputs[0]) - len(rows) - len(columns)
    batch = ctx.broadcast([first[:-2], second[:-2]], ctx.shape(node.outputs[0])[:lead])
    return [(*batch, *rows, *columns)]


@rule("Gemm")
def gemm(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    first, second = (ctx.axes(name) for name in node.inputs[:2])
    first = first[::-1] if node.attributes["transA"] else first
    second = second[::-1] if node.attributes["transB"] else second
    ctx.unite(first[1], second[0])
    out: tuple[Axis, ...] = (first[0], second[1])
    if len(node.inputs) > 2 and node.inputs[2]:
        out = ctx.broadcast([out, ctx.axes(node.inputs[2])], ctx.shape(node.outputs[0]))
    return [out]


@rule("Conv", "ConvTranspose")
def convolution(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    """Channels; of grouped ones, those within a group, alike in all groups; depthwise ones freely."""
    x, weight = ctx.axes(node.inputs[0]), ctx.axes(node.inputs[1])
    group = int(node.attributes["group"])
    out_shape = ctx.shape(node.outputs[0])
    axes = (0, 1) if node.op == "Conv" else (1, 0)
    out, into = weight[axes[0]], weight[axes[1]]
    sizes = ctx.shape(node.inputs[1])
    if group == 1:
        ctx.unite(x[1], into)
        result = out
    elif sizes[0] == group and sizes[1] == 1:
        ctx.unite(x[1], weight[0])
        result = weight[0]
    else:
        lead = weight[0]
        groups, first = ctx.table.split(lead, (group, sizes[0] // group))
        ctx.table.freeze([groups])
        inner = first if node.op == "ConvTranspose" else into
        outer = weight[1] if node.op == "ConvTranspose" else first
        ctx.unite(x[1], ctx.table.merge([groups, inner]))
        result = ctx.table.merge([groups, outer])
    if len(node.inputs) > 2 and node.inputs[2]:
        ctx.unite(ctx.axes(node.inputs[2])[0], result)
    ctx.table.freeze([*x[2:], *weight[2:]])
    return [(x[0], result, *ctx.fixed(out_shape[2:]))]


@rule("BatchNormalization", "InstanceNormalization")
def channel_norm(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    x = ctx.axes(node.inputs[0])
    if len([name for name in node.outputs if name]) > 1:
        return None
    for name in node.inputs[1:]:
        if name:
            ctx.unite(ctx.axes(name)[0], x[1])
    return [x]


@rule("LayerNormalization", "RMSNormalization")
def layer_norm(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    if len([name for name in node.outputs if name]) > 1:
        return None
    operands = [ctx.axes(name) for name in node.inputs if name]
    return [ctx.broadcast(operands, ctx.shape(node.outputs[0]))]


@rule("GroupNormalization")
def group_norm(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    x = ctx.axes(node.inputs[0])
    channels = ctx.shape(node.inputs[0])[1]
    groups = int(node.attributes.get("num_groups", channels))
    if any(name and ctx.shape(name) != (channels,) for name in node.inputs[1:]):
        return None
    ctx.table.split(x[1], (groups, channels // groups))
    for name in node.inputs[1:]:
        if name:
            ctx.unite(ctx.axes(name)[0], x[1])
    return [x]


def pool(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    if len([name for name in node.outputs if name]) > 1:
        return None
    x = ctx.axes(node.inputs[0])
    if "Global" not in node.op:  # everything is one window
        ctx.table.freeze(x[2:])
    return [(*x[:2], *ctx.fixed(ctx.shape(node.outputs[0])[2:]))]


RULES.for_trait(Trait.REDUCES | Trait.CHANNELS_FIRST, pool)


def reduction(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    """A sum is the same in any order."""
    x = ctx.axes(node.inputs[0])
    given = ctx.static(node, "axes", 1)
    if given is None and len(node.inputs) > 1 and node.inputs[1]:
        return None
    for name in node.inputs[1:]:
        ctx.axes(name)
    named = given is not None and given.size > 0
    if not named and node.attributes["noop_with_empty_axes"]:
        return [x]  # entry by entry
    over = {int(a) % len(x) for a in given.ravel()} if given is not None and named else set(range(len(x)))
    keep = bool(node.attributes["keepdims"])
    return [tuple(ctx.table.new(1) if i in over else a for i, a in enumerate(x) if keep or i not in over)]


RULES.for_trait(Trait.REDUCES, reduction)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    x, old, new = ctx.axes(node.inputs[0]), ctx.shape(node.inputs[0]), ctx.shape(node.outputs[0])
    found: list[Axis] = []
    for before, after in reshape_blocks(old, new):
        whole = [x[axis] for axis in before]
        sizes = [new[axis] for axis in after]
        if not sizes:
            continue
        merged = ctx.table.merge(whole) if whole else ctx.table.new(1)
        found += [merged] if len(sizes) == 1 else ctx.table.split(merged, sizes)
    return [tuple(found)]


@rule("Transpose")
def transpose(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    x = ctx.axes(node.inputs[0])
    perm = node.attributes.get("perm") or tuple(reversed(range(len(x))))
    return [tuple(x[int(axis)] for axis in perm)]


@rule("Concat")
def concat(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    parts = [ctx.axes(name) for name in node.inputs if name]
    axis = int(node.attributes["axis"]) % len(parts[0])
    for part in parts[1:]:
        for i, (one, two) in enumerate(zip(parts[0], part, strict=True)):
            if i != axis:
                ctx.unite(one, two)
    joined: Axis = tuple(segment for part in parts for segment in part[axis])
    return [(*parts[0][:axis], joined, *parts[0][axis + 1 :])]


@rule("Slice")
def slice_(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    x, shape = ctx.axes(node.inputs[0]), ctx.shape(node.inputs[0])
    parts = [ctx.static(node, name, i + 1) for i, name in enumerate(("starts", "ends", "axes", "steps"))]
    starts, ends, axes, steps = parts
    if starts is None or ends is None or any(ctx.is_unknown(node, i) for i in (3, 4)):
        return None
    found = list(x)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i]) % len(x)
        step = 1 if steps is None else int(steps[i])
        low, high, _ = slice(start, end, step).indices(shape[axis])
        size = ctx.shape(node.outputs[0])[axis]
        found[axis] = ctx.cut(x[axis], low, high) if step == 1 else ctx.frozen(x[axis], size)
    return [tuple(found)]


@rule("Split")
def split(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    if not all(node.outputs):
        return None
    x = ctx.axes(node.inputs[0])
    axis = int(node.attributes["axis"]) % len(x)
    found: list[tuple[Axis, ...]] = []
    start = 0
    for name in node.outputs:
        size = ctx.shape(name)[axis]
        found.append((*x[:axis], ctx.cut(x[axis], start, start + size), *x[axis + 1 :]))
        start += size
    return found


@rule("Gather")
def gather(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    """Picked rows keep their order; the other axes pass."""
    x = ctx.axes(node.inputs[0])
    axis = int(node.attributes["axis"]) % len(x)
    ctx.table.freeze([x[axis], *ctx.axes(node.inputs[1])])
    return [(*x[:axis], *ctx.fixed(ctx.shape(node.inputs[1])), *x[axis + 1 :])]


@rule("GatherElements")
def gather_elements(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    """Picked along one axis, whose positions keep their order; along the others both go together."""
    x, index = (list(ctx.axes(name)) for name in node.inputs)
    shapes = [ctx.shape(name) for name in node.inputs]
    axis = int(node.attributes["axis"]) % len(x)
    for i, (one, other) in enumerate(zip(x, index, strict=True)):
        if i == axis:
            ctx.table.freeze([one])
        elif shapes[0][i] == shapes[1][i]:
            ctx.unite(one, other)
        else:  # entries beyond the index are not read
            ctx.table.freeze([one, other])
    return [tuple(index)]


@rule("CumSum", "CumProd", "TopK", "ArgMax", "ArgMin", "Hardmax", "aten::cummax", "aten::cummin")
def along_axis(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    """The order along one axis counts; whatever else an entry belongs to does not."""
    x, rank = ctx.axes(node.inputs[0]), ctx.rank(node.inputs[0])
    for name in node.inputs[1:]:
        ctx.axes(name)
    given = ctx.static(node, "axis", 1)
    if given is None or given.size != 1 or BEFORE in node.attributes:
        return None
    axis = int(given.ravel()[0]) % rank
    ctx.table.freeze([x[axis]])
    found: list[tuple[Axis, ...]] = []
    for name in node.outputs:
        shape = ctx.shape(name) if name else ()
        kept = ctx.fixed(shape[axis : axis + 1]) if len(shape) == rank else ()
        found.append((*x[:axis], *kept, *x[axis + 1 :]) if name else ())
    return found


@rule("Expand")
def expand(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    return [ctx.broadcast([ctx.axes(node.inputs[0])], ctx.shape(node.outputs[0]))]


@rule("Pad")
def pad(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    """Padded axes are fixed; but zero channels are a segment of their own."""
    x, new = ctx.axes(node.inputs[0]), ctx.shape(node.outputs[0])
    pads, fill = ctx.static(node, "pads", 1), ctx.static(node, "value", 2)
    if pads is None or pads.size != 2 * len(x) or ctx.is_unknown(node, 2) or any(node.inputs[3:]):
        return None
    zero = node.text("mode") == "constant" and (fill is None or not np.any(fill))
    found: list[Axis] = []
    for i, axis in enumerate(x):
        before, after = int(pads[i]), int(pads[i + len(x)])
        if before == after == 0:
            found.append(axis)
        elif zero and i == 1 and min(before, after) >= 0:
            found.append(ctx.padded(axis, before, after))
        else:
            found.append(ctx.frozen(axis, new[i]))
    return [tuple(found)]


@rule("Resize", "Upsample")
def resize(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    """Samples and channels stay, unless they may be resampled into as many."""
    x = ctx.axes(node.inputs[0])
    index = 1 if len(node.inputs) < 3 else 2
    scales = ctx.static(node, "scales", index)
    axes = [int(axis) % len(x) for axis in node.attributes.get("axes", range(len(x)))]
    if scales is None or not scales.size:
        kept = [axis for axis in axes if axis < 2 and len(node.inputs) > 3]
        still = [a for a in kept if ctx.shape(node.inputs[0])[a] == ctx.shape(node.outputs[0])[a]]
        safe = len(still) == len(kept) and node.text("coordinate_transformation_mode") in _STILL
        safe = safe and node.text("keep_aspect_ratio_policy") == "stretch"
    else:
        safe = all(axis > 1 or scale == 1 for axis, scale in zip(axes, scales.ravel(), strict=False))
        safe = safe and node.text("coordinate_transformation_mode") != "tf_crop_and_resize"
    ctx.table.freeze(x[2:] if safe else x)
    if not safe:
        return [ctx.fixed(ctx.shape(node.outputs[0]))]
    return [(*x[:2], *ctx.fixed(ctx.shape(node.outputs[0])[2:]))]


@rule("Attention")
def attention(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    """Heads, and the sizes of keys and of values, alike in all heads."""
    q, k, v = (ctx.axes(name) for name in node.inputs[:3])
    if any(node.inputs[4:]) or len(q) != 4 or any(node.outputs[1:]):
        return None
    ctx.unite(q[3], k[3])
    for axis in (0, 1):
        ctx.unite(k[axis], v[axis])
        if ctx.shape(node.inputs[0])[axis] == ctx.shape(node.inputs[1])[axis]:
            ctx.unite(q[axis], k[axis])
        else:
            ctx.table.freeze([q[axis], k[axis]])
    ctx.unite(k[2], v[2])
    if node.attributes["is_causal"] or (len(node.inputs) > 3 and node.inputs[3]):
        ctx.table.freeze([q[0], q[1], q[2], k[2]])
        ctx.table.freeze(ctx.axes(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else [])
    return [(q[0], q[1], q[2], v[3])]


@rule("Einsum")
def einsum(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
    """One letter, one order; not where an axis of size 1 is broadcast."""
    equation = node.text("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow or "." in equation:
        return None
    letters: dict[str, Axis] = {}
    sizes: dict[str, int] = {}
    for word, name in zip(left.split(","), node.inputs, strict=True):
        if len(set(word)) != len(word):
            return None
        for letter, axis, size in zip(word, ctx.axes(name), ctx.shape(name), strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
            if letter in letters:
                ctx.unite(letters[letter], axis)
            letters[letter] = axis
    return [tuple(letters[letter] for letter in right)]


def only_shape(ctx: Context, node: Node) -> list[tuple[Axis, ...]]:
    """Entries are not looked at."""
    for name in node.inputs:
        ctx.axes(name)
    return [ctx.fixed(ctx.shape(node.outputs[0]))]


RULES.for_trait(Trait.READS_SHAPE, only_shape)
RULES.explain({
    Trait.MOVES: "entries leave their axes, or change places along them",
    Trait.WRITES: "written into at places along its axes",
    Trait.ALONG_AXIS: "the order along the axis counts",
    Trait.NORMALISES: "normalised over neighbours, or over axes that are not looked at",
    Trait.RESAMPLES: "sampled at places along its axes",
    Trait.CONTRACTS: "mixes neighbours, or samples at computed places, as well as channels",
    Trait.RECURRENT: "gates are packed along the axes of its weights",
    Trait.CONTRACTS | Trait.RESAMPLES: "samples at computed places as well",
    Trait.CONTRACTS | Trait.RECURRENT: "its state is an operand and a result",
    Trait.ATTENDS: "pairs or heads are packed along its axes",
    Trait.ATTENDS | Trait.RECURRENT: "heads are packed along its axes",
    Trait.QUANTISED: "steps and zero points may belong to single channels",
    Trait.GENERATES: "values are made by position",
    Trait.RANDOM: "numbers are drawn by position",
    Trait.GENERATES | Trait.RANDOM: "numbers are drawn by position",
    Trait.REGIONS: "its bodies are not looked into",
    Trait.GLUE: "a body's states would have to keep their order from one iteration to the next",
    Trait.SEQUENCE: "elements are not followed",
    Trait.TEXT: "text",
    Trait.COMPLEX: "complex numbers",
    Trait.ALGEBRA: "rows and columns of a matrix are not alike",
    Trait.LOSS: "classes are numbered by position",
    Trait.DISCRETE: "results are positions or counts",
    "aten::fractional_max_pool": "windows at random places",
    "aten::segment_reduce": "pieces of an axis are reduced",
    "aten::as_strided": "memory layout",
})  # fmt: skip
