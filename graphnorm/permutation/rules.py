"""Which axes an operator ties, frees or freezes: op(permuted operands) = permuted results.

An operator without a rule freezes all that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphnorm.ir import Node
from graphnorm.permutation.axes import Axis
from graphnorm.scales.labels import reshape_blocks

if TYPE_CHECKING:
    from graphnorm.permutation.symmetry import Walk

Rule = Callable[["Walk", Node], "Sequence[tuple[Axis, ...]] | None"]
RULES: dict[str, Rule] = {}
"""Operator -> axes of its results; None freezes all that the node touches."""

_UNARY = """
Relu LeakyRelu Abs Neg Identity Dropout Sqrt Reciprocal Sigmoid Tanh Gelu Swish Mish Elu Selu Celu
Softplus Softsign HardSigmoid HardSwish Erf Exp Log Sin Cos Floor Ceil Round Cast Sign IsNaN Not Softmax
LogSoftmax LpNormalization Clip Shrink ThresholdedRelu
""".split()  # noqa: SIM905
_BROADCAST = """
Add Sub Mul Div Sum Mean Max Min Pow Where PRelu Mod Equal Less LessOrEqual Greater GreaterOrEqual
And Or Xor SwiGLU
""".split()  # noqa: SIM905


_STILL = frozenset({"half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"})
"""Coordinates of a Resize in which an axis that keeps its size keeps its entries."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


@rule(*_UNARY)
def unary(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    """Entry by entry, or alike along an axis whatever its order (softmax)."""
    if any(name and np.prod(walk.shape(name)) > 1 for name in node.inputs[1:]):
        return None
    return [walk.axes(node.inputs[0])] * len(node.outputs)


@rule(*_BROADCAST)
def broadcast(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    return [walk.broadcast([walk.axes(name) for name in node.inputs if name], walk.shape(node.outputs[0]))]


@rule("MatMul")
def matmul(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    first, second = (walk.axes(name) for name in node.inputs)
    if min(len(first), len(second)) < 2:
        return None
    walk.unite(first[-1], second[-2])
    batch = walk.broadcast([first[:-2], second[:-2]], walk.shape(node.outputs[0])[:-2])
    return [(*batch, first[-2], second[-1])]


@rule("Gemm")
def gemm(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    first, second = (walk.axes(name) for name in node.inputs[:2])
    first = first[::-1] if node.attributes.get("transA", 0) else first
    second = second[::-1] if node.attributes.get("transB", 0) else second
    walk.unite(first[1], second[0])
    out: tuple[Axis, ...] = (first[0], second[1])
    if len(node.inputs) > 2 and node.inputs[2]:
        out = walk.broadcast([out, walk.axes(node.inputs[2])], walk.shape(node.outputs[0]))
    return [out]


@rule("Conv", "ConvTranspose")
def convolution(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    """Channels; of grouped ones, those within a group, alike in all groups; depthwise ones freely."""
    x, weight = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
    group = int(node.attributes.get("group", 1))
    out_shape = walk.shape(node.outputs[0])
    axes = (0, 1) if node.op == "Conv" else (1, 0)
    out, into = weight[axes[0]], weight[axes[1]]
    sizes = walk.shape(node.inputs[1])
    if group == 1:
        walk.unite(x[1], into)
        result = out
    elif sizes[0] == group and sizes[1] == 1:
        walk.unite(x[1], weight[0])
        result = weight[0]
    else:
        lead = weight[0]
        groups, first = walk.table.split(lead, (group, sizes[0] // group))
        walk.table.freeze([groups])
        inner = first if node.op == "ConvTranspose" else into
        outer = weight[1] if node.op == "ConvTranspose" else first
        walk.unite(x[1], walk.table.merge([groups, inner]))
        result = walk.table.merge([groups, outer])
    if len(node.inputs) > 2 and node.inputs[2]:
        walk.unite(walk.axes(node.inputs[2])[0], result)
    walk.table.freeze([*x[2:], *weight[2:]])
    return [(x[0], result, *walk.fixed(out_shape[2:]))]


@rule("BatchNormalization", "InstanceNormalization")
def channel_norm(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    x = walk.axes(node.inputs[0])
    if len([name for name in node.outputs if name]) > 1:
        return None
    for name in node.inputs[1:]:
        if name:
            walk.unite(walk.axes(name)[0], x[1])
    return [x]


@rule("LayerNormalization", "RMSNormalization")
def layer_norm(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    if len([name for name in node.outputs if name]) > 1:
        return None
    operands = [walk.axes(name) for name in node.inputs if name]
    return [walk.broadcast(operands, walk.shape(node.outputs[0]))]


@rule("GroupNormalization")
def group_norm(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    x = walk.axes(node.inputs[0])
    channels = walk.shape(node.inputs[0])[1]
    groups = int(node.attributes.get("num_groups", channels))
    if any(name and walk.shape(name) != (channels,) for name in node.inputs[1:]):
        return None
    walk.table.split(x[1], (groups, channels // groups))
    for name in node.inputs[1:]:
        if name:
            walk.unite(walk.axes(name)[0], x[1])
    return [x]


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool",
      "aten::adaptive_avg_pool", "aten::adaptive_max_pool")  # fmt: skip
def pool(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    if len([name for name in node.outputs if name]) > 1:
        return None
    x = walk.axes(node.inputs[0])
    walk.table.freeze(x[2:])
    return [(*x[:2], *walk.fixed(walk.shape(node.outputs[0])[2:]))]


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare",
      "ReduceProd", "ReduceLogSumExp")  # fmt: skip
def reduction(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    """A sum is the same in any order."""
    x = walk.axes(node.inputs[0])
    given = walk.static(node, "axes", 1)
    if given is None and len(node.inputs) > 1 and node.inputs[1]:
        return None
    if given is None and node.attributes.get("noop_with_empty_axes", 0):
        return None
    if given is not None and not given.size:
        return None
    over = {int(a) % len(x) for a in given.ravel()} if given is not None else set(range(len(x)))
    keep = bool(node.attributes.get("keepdims", 1))
    return [tuple(walk.table.new(1) if i in over else a for i, a in enumerate(x) if keep or i not in over)]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    x, old, new = walk.axes(node.inputs[0]), walk.shape(node.inputs[0]), walk.shape(node.outputs[0])
    found: list[Axis] = []
    for before, after in reshape_blocks(old, new):
        whole = [x[axis] for axis in before]
        sizes = [new[axis] for axis in after]
        if not sizes:
            continue
        merged = walk.table.merge(whole) if whole else walk.table.new(1)
        found += [merged] if len(sizes) == 1 else walk.table.split(merged, sizes)
    return [tuple(found)]


@rule("Transpose")
def transpose(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    x = walk.axes(node.inputs[0])
    perm = node.attributes.get("perm") or tuple(reversed(range(len(x))))
    return [tuple(x[int(axis)] for axis in perm)]


@rule("Concat")
def concat(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    parts = [walk.axes(name) for name in node.inputs if name]
    axis = int(node.attributes.get("axis", 0)) % len(parts[0])
    for part in parts[1:]:
        for i, (one, two) in enumerate(zip(parts[0], part, strict=True)):
            if i != axis:
                walk.unite(one, two)
    joined: Axis = tuple(segment for part in parts for segment in part[axis])
    return [(*parts[0][:axis], joined, *parts[0][axis + 1 :])]


@rule("Slice")
def slice_(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    x, shape = walk.axes(node.inputs[0]), walk.shape(node.inputs[0])
    parts = [walk.static(node, name, i + 1) for i, name in enumerate(("starts", "ends", "axes", "steps"))]
    starts, ends, axes, steps = parts
    if starts is None or ends is None or any(walk.is_unknown(node, i) for i in (3, 4)):
        return None
    found = list(x)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i]) % len(x)
        step = 1 if steps is None else int(steps[i])
        low, high, _ = slice(start, end, step).indices(shape[axis])
        size = walk.shape(node.outputs[0])[axis]
        found[axis] = walk.cut(x[axis], low, high) if step == 1 else walk.frozen(x[axis], size)
    return [tuple(found)]


@rule("Split")
def split(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    if not all(node.outputs):
        return None
    x = walk.axes(node.inputs[0])
    axis = int(node.attributes.get("axis", 0)) % len(x)
    found: list[tuple[Axis, ...]] = []
    start = 0
    for name in node.outputs:
        size = walk.shape(name)[axis]
        found.append((*x[:axis], walk.cut(x[axis], start, start + size), *x[axis + 1 :]))
        start += size
    return found


@rule("Gather")
def gather(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    """Picked rows keep their order; the other axes pass."""
    x = walk.axes(node.inputs[0])
    axis = int(node.attributes.get("axis", 0)) % len(x)
    walk.table.freeze([x[axis], *walk.axes(node.inputs[1])])
    return [(*x[:axis], *walk.fixed(walk.shape(node.inputs[1])), *x[axis + 1 :])]


@rule("Expand")
def expand(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    return [walk.broadcast([walk.axes(node.inputs[0])], walk.shape(node.outputs[0]))]


@rule("Pad")
def pad(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    """Padded axes are fixed; but zero channels are a segment of their own."""
    x, new = walk.axes(node.inputs[0]), walk.shape(node.outputs[0])
    pads, fill = walk.static(node, "pads", 1), walk.static(node, "value", 2)
    if pads is None or pads.size != 2 * len(x) or walk.is_unknown(node, 2) or any(node.inputs[3:]):
        return None
    zero = node.text("mode", "constant") == "constant" and (fill is None or not np.any(fill))
    found: list[Axis] = []
    for i, axis in enumerate(x):
        before, after = int(pads[i]), int(pads[i + len(x)])
        if before == after == 0:
            found.append(axis)
        elif zero and i == 1 and min(before, after) >= 0:
            found.append(walk.padded(axis, before, after))
        else:
            found.append(walk.frozen(axis, new[i]))
    return [tuple(found)]


@rule("Resize", "Upsample")
def resize(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    """Samples and channels stay, unless they may be resampled into as many."""
    x = walk.axes(node.inputs[0])
    index = 1 if len(node.inputs) < 3 else 2
    scales = walk.static(node, "scales", index)
    axes = [int(axis) % len(x) for axis in node.attributes.get("axes", range(len(x)))]
    if scales is None or not scales.size:
        kept = [axis for axis in axes if axis < 2 and len(node.inputs) > 3]
        still = [a for a in kept if walk.shape(node.inputs[0])[a] == walk.shape(node.outputs[0])[a]]
        safe = len(still) == len(kept) and node.text("coordinate_transformation_mode", "half_pixel") in _STILL
        safe = safe and node.text("keep_aspect_ratio_policy", "stretch") == "stretch"
    else:
        safe = all(axis > 1 or scale == 1 for axis, scale in zip(axes, scales.ravel(), strict=False))
        safe = safe and node.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
    walk.table.freeze(x[2:] if safe else x)
    if not safe:
        return [walk.fixed(walk.shape(node.outputs[0]))]
    return [(*x[:2], *walk.fixed(walk.shape(node.outputs[0])[2:]))]


@rule("Attention")
def attention(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
    """Heads, and the sizes of keys and of values, alike in all heads."""
    q, k, v = (walk.axes(name) for name in node.inputs[:3])
    if any(node.inputs[4:]) or len(q) != 4 or any(node.outputs[1:]):
        return None
    walk.unite(q[3], k[3])
    for axis in (0, 1):
        walk.unite(k[axis], v[axis])
        if walk.shape(node.inputs[0])[axis] == walk.shape(node.inputs[1])[axis]:
            walk.unite(q[axis], k[axis])
        else:
            walk.table.freeze([q[axis], k[axis]])
    walk.unite(k[2], v[2])
    if node.attributes.get("is_causal", 0) or (len(node.inputs) > 3 and node.inputs[3]):
        walk.table.freeze([q[0], q[1], q[2], k[2]])
        walk.table.freeze(walk.axes(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else [])
    return [(q[0], q[1], q[2], v[3])]


@rule("Einsum")
def einsum(walk: Walk, node: Node) -> list[tuple[Axis, ...]] | None:
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
        for letter, axis, size in zip(word, walk.axes(name), walk.shape(name), strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
            if letter in letters:
                walk.unite(letters[letter], axis)
            letters[letter] = axis
    return [tuple(letters[letter] for letter in right)]


@rule("Shape", "Size")
def only_shape(walk: Walk, node: Node) -> list[tuple[Axis, ...]]:
    return [walk.fixed(walk.shape(node.outputs[0]))]
