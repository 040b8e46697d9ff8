"""Weight expressions: how a demand on an operator's result becomes demands on its operands.

Registered in `backward.HANDLERS`.  `path` lists the movements already taken by the consumer on the way
to this value; while it is empty the terms describe the whole value.
"""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Array, Node
from graphnorm.ops.traits import Trait
from graphnorm.scales import labels as lb
from graphnorm.scales.backward import HANDLERS, demand, fit, handler
from graphnorm.scales.constraints import Term
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role, Step
from graphnorm.scales.forward import is_plain
from graphnorm.scales.rules.movement import MOVES, permutation
from graphnorm.scales.scale_array import ScaleArray

Terms = tuple[Term, ...]
Path = tuple[Step, ...]


@handler("Cast", "CastLike", "Dropout", "Trilu")
def homogeneous(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    if name != node.outputs[0] or not ctx.value(name).is_float:
        return False
    demand(ctx, node.inputs[0], terms, role, path)
    return True


HANDLERS.for_trait(Trait.POINTWISE | Trait.UNARY | Trait.HOMOGENEOUS, homogeneous)


@handler("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
def invertible(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    source = node.inputs[0]
    if path:
        demand(ctx, source, terms, role, (_step(ctx, node, 0), *path))
        return True
    old, new = ctx.shape(source), ctx.shape(name)
    if node.op == "Transpose":
        perm = permutation(node, len(old))
        back = tuple(perm.index(axis) for axis in range(len(perm)))
        pulled = [(c, lb.align(labels, len(new)).transpose(back)) for c, labels in terms]
    else:
        pulled = [(c, ScaleArray.of(labels, new).reshape(old).squeeze().labels) for c, labels in terms]
    demand(ctx, source, pulled, role)
    return True


@handler("Slice", "Split", "Gather")
def region(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    if node.op == "Gather" and not ctx.is_weight(node.inputs[0]):
        return False
    source = ctx.shape(node.inputs[0])
    if MOVES[node.op](ctx, node, ScaleArray(lb.pinned(len(source)), source)) is None:
        return False
    aligned = tuple((c, lb.align(labels, ctx.rank(name))) for c, labels in terms) if not path else terms
    demand(ctx, node.inputs[0], aligned, role, (_step(ctx, node, node.outputs.index(name)), *path))
    return True


@handler("Expand")
def expand(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    if path:
        return False
    demand(ctx, node.inputs[0], fit(ctx, terms, ctx.shape(node.inputs[0])), role)
    return True


@handler("Tile")
def tile(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    source, result = ctx.shape(node.inputs[0]), ctx.shape(name)
    if path or any(n not in (1, m) for n, m in zip(source, result, strict=True)):
        return False
    demand(ctx, node.inputs[0], fit(ctx, terms, source), role)
    return True


@handler("Add", "Sub", "Sum")
def total(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    shape = ctx.shape(name)
    if path and any(ctx.shape(operand) != shape for operand in node.inputs):
        return False
    for operand in node.inputs:
        part = terms if path else fit(ctx, terms, ctx.shape(operand))
        demand(ctx, operand, part, Role.BIAS if is_offset(ctx, node, operand) else role, path)
    return True


def is_offset(ctx: Context, node: Node, operand: str) -> bool:
    """Whether a plain weight is broadcast onto what other weights compute: the bias of a layer of weights."""
    full = lb.size(ctx.shape(node.outputs[0]))
    if lb.size(ctx.shape(operand)) == full or not is_plain(ctx, operand):
        return False
    return any(
        lb.size(ctx.shape(other)) == full and not is_plain(ctx, other)
        for other in node.inputs
        if ctx.depends_on_weights(other)
    )


@handler("Concat")
def concat(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    if path:
        return False
    axis = int(node.attributes["axis"]) % ctx.rank(name)
    start = 0
    for operand in node.inputs:
        stop = start + ctx.shape(operand)[axis]
        cut = [slice(None)] * ctx.rank(name)
        cut[axis] = slice(start, stop)
        part = [(c, ScaleArray.of(labels, ctx.shape(name)).region(cut).labels) for c, labels in terms]
        demand(ctx, operand, part, role)
        start = stop
    return True


@handler("MatMul")
def product(ctx: Context, node: Node, name: str, terms: Terms, role: Role, path: Path) -> bool:
    """A low-rank product B A (LoRA): B[o, r] scales by out[o] - k[r], A[r, i] by k[r] + in[i]."""
    left, right = node.inputs
    if path or ctx.rank(left) != 2 or ctx.rank(right) != 2:
        return False
    aligned = [(c, lb.align(labels, 2)) for c, labels in terms]
    if any(lb.varying_axes(labels) == {0, 1} for _, labels in aligned):
        return False
    inner = ctx.fresh((1, ctx.shape(left)[1]), f"rank of {name}")
    role = Role.WEIGHT  # both, whatever becomes of the product
    rows = [(c, labels) for c, labels in aligned if labels.shape[1] == 1]
    columns = [(c, labels) for c, labels in aligned if labels.shape[1] > 1]
    demand(ctx, left, [*rows, (-1.0, inner)], role)
    demand(ctx, right, [*columns, (1.0, inner.reshape(-1, 1))], role)
    return True


def _step(ctx: Context, node: Node, output: int) -> Step:
    source, rank = node.inputs[0], ctx.rank(node.inputs[0])
    cut: tuple[int, ...] = ()
    if node.op == "Gather":
        index = ctx.constant(node.inputs[1])
        assert index is not None  # `region` tried it
        axis = int(node.attributes["axis"]) % rank
        cut = tuple(range(axis, axis + index.ndim))

        def apply(array: Array) -> Array:
            return np.asarray(np.take(array, index.astype(np.int64), axis=axis))
    else:
        if ctx.rank(node.outputs[output]) == rank:
            sizes = zip(ctx.shape(source), ctx.shape(node.outputs[output]), strict=True)
            cut = tuple(axis for axis, (whole, part) in enumerate(sizes) if whole != part)

        def apply(array: Array) -> Array:
            moved = MOVES[node.op](ctx, node, ScaleArray.whole(array))
            assert moved is not None  # `region` tried it
            return moved[output].entries()

    return Step(f"{node.op}:{node.name}:{output}", apply, cut)
