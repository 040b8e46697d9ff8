"""Weights of a normal form: computed in float64 from the model's own, with bounds on rounding.

A computed entry is a sum of products; `magnitude` is the same sum with absolute values.  Computed in a float
type of precision eps is off by a small multiple of eps * magnitude, however much cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphnorm import ir

Move = Callable[[ir.Array], ir.Array]
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Leaf:
    """A weight expression, evaluated.

    Attributes:
        value: the entries; of the model's own type where nothing was computed.
        magnitude: the entries' sums of absolute values; None where nothing was computed (|value|).
        eps: precision of the coarsest float type that it was computed from.
        sources: weights of the model that it depends on.
    """

    value: ir.Array
    magnitude: ir.Array | None
    eps: float
    sources: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return ir.shape_of(self.value)

    @property
    def direct(self) -> bool:
        """Whether the entries are the model's own, moved at most."""
        return self.magnitude is None

    def size(self) -> ir.Array:
        """The size that rounding is measured against, entry by entry, in float64."""
        return np.abs(self.value.astype(np.float64)) if self.magnitude is None else self.magnitude

    def moved(self, move: Move) -> Leaf:
        """The same entries at other places."""
        magnitude = None if self.magnitude is None else move(self.magnitude)
        return replace(self, value=move(self.value), magnitude=magnitude)

    def exact(self) -> ir.Array:
        return self.value.astype(np.float64)


def leaf_of(array: ir.Array, source: str) -> Leaf:
    """A weight of the model as it is."""
    eps = ir.float_format(array.dtype).eps if array.dtype.name in ir.FLOAT_TYPES else 0.0
    return Leaf(array, None, eps, (source,))


def number(value: float, eps: float) -> Leaf:
    """A number that stands in the model's program."""
    return Leaf(np.asarray(value, dtype=np.float64), np.abs(np.asarray(value, dtype=np.float64)), eps, ())


def combine(first: Leaf, second: Leaf, value: ir.Array, magnitude: ir.Array) -> Leaf:
    sources = tuple(dict.fromkeys((*first.sources, *second.sources)))
    return Leaf(value, magnitude, max(first.eps, second.eps), sources)


def add(first: Leaf, second: Leaf) -> Leaf:
    """Sum, broadcast."""
    return combine(first, second, first.exact() + second.exact(), first.size() + second.size())


def multiply(first: Leaf, second: Leaf) -> Leaf:
    """Product, broadcast."""
    return combine(first, second, _product(first.exact(), second.exact()), first.size() * second.size())


def _product(first: ir.Array, second: ir.Array) -> ir.Array:
    """Entry by entry, NaN where it underflows: the model may multiply in another order and lose nothing."""
    result = np.asarray(first * second)
    lost = (np.abs(result) < TINY) & (first != 0) & (second != 0)
    return np.where(lost, np.nan, result)


def contract(first: Leaf, second: Leaf) -> Leaf:
    """Matrix product."""
    return combine(first, second, first.exact() @ second.exact(), first.size() @ second.size())


def scaled(leaf: Leaf, factor: float) -> Leaf:
    """`leaf` times a number; -1 rounds nothing."""
    if factor in (1.0, -1.0):
        return leaf.moved(lambda array: array) if factor == 1.0 else _negated(leaf)
    return replace(
        leaf, value=_product(leaf.exact(), np.asarray(factor)), magnitude=leaf.size() * abs(factor)
    )


def _negated(leaf: Leaf) -> Leaf:
    return replace(leaf, value=-leaf.value)


def power(leaf: Leaf, exponent: float) -> Leaf:
    """Entry by entry; relative rounding errors are multiplied by |exponent|."""
    value = leaf.exact()
    with np.errstate(all="ignore"):
        result = value**exponent
        relative = np.where(value != 0, leaf.size() / np.abs(value), 1.0)
        magnitude = np.abs(result) * relative * max(1.0, abs(exponent))
    return replace(leaf, value=result, magnitude=magnitude)


def summed(leaf: Leaf, axes: Sequence[int], mean: bool) -> Leaf:
    """Sum or mean over axes, which keep size 1."""
    share = 1.0 / np.prod([leaf.shape[axis] for axis in axes]) if mean else 1.0
    over = tuple(axes)
    value = leaf.exact().sum(axis=over, keepdims=True) * share
    return replace(leaf, value=value, magnitude=leaf.size().sum(axis=over, keepdims=True) * share)
