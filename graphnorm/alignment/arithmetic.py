"""Sums, products and contractions of terms, written in one way.

Numbers are carried in front of tensors as factors through homogeneous operators, so that q k^T / 8, (q / 8)
k^T and (q / sqrt 8) (k / sqrt 8)^T become the same nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.alignment import leaves
from graphnorm.alignment.builder import Builder
from graphnorm.alignment.leaves import Leaf
from graphnorm.alignment.terms import Data, Known, Term
from graphnorm.alignment.views import whole
from graphnorm.util.typing import Shape


def scale(term: Term, factor: float) -> Term:
    """`factor` times a term."""
    if isinstance(term, Data):
        return term.times(factor)
    if isinstance(term, Leaf):
        return leaves.scaled(term, factor)
    array = np.asarray(term.array * np.asarray(factor, dtype=term.array.dtype))
    return Known(array, term.dynamic, term.source)


def _broadcast(b: Builder, first: Term, second: Term) -> Shape:
    return tuple(int(n) for n in np.broadcast_shapes(first.shape, second.shape))


def _dynamic(b: Builder, shape: Shape, *terms: Term) -> frozenset[int]:
    """Axes of a broadcast result whose size may differ."""
    found: set[int] = set()
    for term in terms:
        if isinstance(term, Leaf):
            continue
        found |= {axis + len(shape) - len(term.shape) for axis in term.dynamic}
    return frozenset(found)


def _aligned(b: Builder, data: Data, leaf: Leaf) -> tuple[Data, Leaf, Shape | None]:
    """Work on a matrix product's rows themselves, where the leaf varies along the last axis only."""
    base = b.values[data.base].shape or ()
    last = leaf.shape[-1:] or (1,)
    flat = leaf.value.size == last[0] and bool(base) and base[-1:] == data.shape[-1:]
    if flat and not data.view.moves and base != data.shape and last[0] in (1, base[-1]):
        bare = Data(data.base, whole(base), data.dtype, b.values[data.base].dynamic, data.factor)
        return bare, leaf.moved(lambda array: array.reshape(last)), data.shape
    return data, leaf, None


def _ordered(b: Builder, first: Term, second: Term) -> tuple[Term, Term]:
    return (second, first) if isinstance(second, Data) and not isinstance(first, Data) else (first, second)


def add(b: Builder, first: Term, second: Term) -> Term:
    """Sum."""
    first, second = _ordered(b, first, second)
    one, two = b.leaf(first), b.leaf(second)
    if one is not None and two is not None:
        return leaves.add(one, two)
    if two is not None and not two.value.any() and _broadcast(b, first, second) == first.shape:
        return first
    if isinstance(first, Data) and two is not None and isinstance(second, Leaf | Known):
        if isinstance(second, Known) and second.scalar is not None:
            return _binary(b, "Add", first, second)
        return _with_leaf(b, "Add", first, two)
    if isinstance(first, Data) and isinstance(second, Data) and first.factor == second.factor:
        factor = first.factor
        plain = _binary(b, "Add", first.times(1 / factor), second.times(1 / factor))
        return plain.times(factor)
    return _binary(b, "Add", first, second)


def multiply(b: Builder, first: Term, second: Term) -> Term:
    """Product, entry by entry."""
    first, second = _ordered(b, first, second)
    one, two = b.leaf(first), b.leaf(second)
    if one is not None and two is not None:
        return leaves.multiply(one, two)
    if isinstance(first, Data):
        shape, factor = _broadcast(b, first, second), _number(b, second)
        if factor and np.isfinite(factor) and int(np.prod(shape)) == int(np.prod(first.shape)):
            return scale(b.reshape(first, shape), factor)
        if two is not None:
            plain = _with_leaf(b, "Mul", first.times(1 / first.factor), two)
            return plain.times(first.factor)
        if isinstance(second, Data):
            factor = first.factor * second.factor
            pair = first.times(1 / first.factor), second.times(1 / second.factor)
            return _binary(b, "Mul", *pair).times(factor)
    return _binary(b, "Mul", first, second)


def _number(b: Builder, term: Term) -> float | None:
    """A factor that can be carried: a number of the program, and on request a weight of one entry."""
    if isinstance(term, Leaf):
        return float(term.value.reshape(-1)[0]) if b.numbers and term.value.size == 1 else None
    return term.scalar if isinstance(term, Known) else None


def _with_leaf(b: Builder, op: str, first: Data, second: Leaf) -> Data:
    data, leaf, shape = _aligned(b, first, second)
    result = _binary(b, op, data, leaf)
    if shape is None:
        return result
    full = tuple(int(n) for n in np.broadcast_shapes(shape, second.shape))
    return Data(result.base, result.view.reshaped(full), result.dtype, _dynamic(b, full, first, second))


def _binary(b: Builder, op: str, first: Term, second: Term) -> Data:
    shape = _broadcast(b, first, second)
    dtype = b.dtype(first) if isinstance(first, Data) else b.dtype(second)
    return b.node(op, [first, second], shape, dtype, None, _dynamic(b, shape, first, second))


def reciprocal(b: Builder, term: Term) -> Term:
    """1 / x."""
    return power(b, term, -1.0)


def power(b: Builder, term: Term, exponent: float) -> Term:
    """X to a number; squares are products, halves roots, and -1 the reciprocal."""
    leaf = b.leaf(term)
    if leaf is not None:
        return leaves.power(leaf, exponent)
    assert isinstance(term, Data)
    if exponent == 1.0:
        return term
    if exponent == 2.0:
        return multiply(b, term, term)
    if exponent == -0.5:
        return power(b, power(b, term, 0.5), -1.0)
    op = {0.5: "Sqrt", -1.0: "Reciprocal"}.get(exponent)
    if op is None:
        return b.node("Pow", [term, b.number(exponent)], term.shape, term.dtype, None, term.dynamic)
    if exponent == 0.5 and term.factor <= 0:
        return unary(b, op, term)
    bare = unary(b, op, term.times(1 / term.factor))
    return bare.times(term.factor**exponent)


def unary(b: Builder, op: str, term: Data, attributes: dict[str, object] | None = None) -> Data:
    """A function of single entries: it is applied before the term's view."""
    base = b.values[term.base]
    bare = Data(term.base, whole(base.shape or ()), term.dtype, base.dynamic, term.factor)
    result = b.node(op, [bare], base.shape, term.dtype, attributes, base.dynamic)
    return Data(result.base, term.view, term.dtype, term.dynamic)


def reduce(b: Builder, op: str, term: Data, axes: Sequence[int]) -> Data:
    """ReduceMean, ReduceSum, ReduceMax...: over axes, which keep size 1."""
    over = tuple(sorted(axis for axis in axes if term.shape[axis] > 1 or axis in term.dynamic))
    if not over:
        return term
    shape = tuple(1 if axis in over else size for axis, size in enumerate(term.shape))
    dynamic = term.dynamic - set(over)
    linear = op in {"ReduceMean", "ReduceSum"} or term.factor > 0
    bare = term.times(1 / term.factor) if linear else term
    result = b.node(op, [bare], shape, term.dtype, {"axes": over, "keepdims": 1}, dynamic)
    return result.times(term.factor) if linear else result


def matmul(b: Builder, first: Term, second: Term) -> Term:
    """Matrix product, of operands of rank 2 or more.

    Rows of a product with a matrix of weights are flattened, equal batches too.
    """
    one, two = b.leaf(first), b.leaf(second)
    if one is not None and two is not None:
        return leaves.contract(one, two)
    if isinstance(first, Data) and two is not None and len(two.shape) == 2 and len(first.shape) >= 2:
        rows = int(np.prod(first.shape[:-1]))
        flat = b.reshape(first, (rows, first.shape[-1]))
        result = _product(b, flat, two, (rows, two.shape[1]))
        return b.reshape(result, (*first.shape[:-1], two.shape[1]))
    batch = tuple(int(n) for n in np.broadcast_shapes(first.shape[:-2], second.shape[:-2]))
    full = (*batch, first.shape[-2], second.shape[-1])
    if first.shape[:-2] == second.shape[:-2] and isinstance(first, Data) and isinstance(second, Data):
        count = int(np.prod(batch))
        left, right = (b.reshape(term, (count, *term.shape[-2:])) for term in (first, second))
        return b.reshape(_product(b, left, right, (count, *full[-2:])), full)
    return _product(b, first, second, full)


def _product(b: Builder, first: Term, second: Term, shape: Shape) -> Data:
    factor = 1.0
    bare: list[Term] = []
    for term in (first, second):
        factor *= term.factor if isinstance(term, Data) else 1.0
        bare.append(term.times(1 / term.factor) if isinstance(term, Data) else term)
    kinds = [b.dtype(term) for term in bare if isinstance(term, Data)]
    axes: set[int] = set()
    for term, last in zip(bare, (-1, -2), strict=True):
        if isinstance(term, Data):
            gone = len(term.shape) + last
            lead = len(shape) - len(term.shape)
            axes |= {axis + lead for axis in term.dynamic if axis != gone}
    result = b.node("MatMul", bare, shape, kinds[0], None, frozenset(axes))
    return result.times(factor)
