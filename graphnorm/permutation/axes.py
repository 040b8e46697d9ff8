"""Axes as sums of products of factors, and factors that must be permuted alike.

A flattened feature map (C, H, W) is one axis, the product of three factors; a concatenation is a sum of
segments.  A factor has one permutation, wherever it occurs. Two axes that must be permuted alike are cut at
common positions and their factors united; axes that cannot be cut alike are frozen.  Frozen factors keep
their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Segment = tuple[int, ...]
Axis = tuple[Segment, ...]
"""A sum of segments, each a product of factors, the most significant first."""


class Axes:
    """All factors: a union-find forest whose leaves may be cut further, into products or sums."""

    def __init__(self) -> None:
        self._size: list[int] = []
        self._parent: list[int] = []
        self._product: dict[int, Segment] = {}
        self._sum: dict[int, tuple[int, ...]] = {}
        self._frozen: set[int] = set()
        self._uncut: dict[int, int] = {}

    @property
    def frozen_count(self) -> int:
        """How many factors are frozen."""
        return len(self._frozen)

    def new(self, size: int, frozen: bool = False) -> Axis:
        """A new factor as an axis."""
        return ((self._factor(size, frozen),),)

    def _factor(self, size: int, frozen: bool = False) -> int:
        self._size.append(size)
        self._parent.append(len(self._parent))
        number = len(self._parent) - 1
        if frozen:
            self._frozen.add(number)
        return number

    def find(self, factor: int) -> int:
        """The factor that stands for all that were united with this one."""
        while self._parent[factor] != factor:
            self._parent[factor] = self._parent[self._parent[factor]]
            factor = self._parent[factor]
        return factor

    def size(self, factor: int) -> int:
        return self._size[factor]

    def is_frozen(self, factor: int) -> bool:
        return self.find(factor) in self._frozen

    def freeze(self, axes: Iterable[Axis]) -> None:
        """Keep the order of everything along these axes."""
        for axis in axes:
            for segment in axis:
                for factor in segment:
                    self._freeze(factor)

    def _freeze(self, factor: int) -> None:
        root = self.find(factor)
        self._frozen.add(root)
        for part in (*self._product.get(root, ()), *self._sum.get(root, ())):
            self._freeze(part)

    def resolve(self, axis: Axis) -> Axis:
        """The axis in the finest factors; sums behind another factor are frozen on the way."""
        found: list[Segment] = []
        for segment in axis:
            found += self._expanded(segment)
        return tuple(found)

    def _expanded(self, segment: Segment) -> list[Segment]:
        for position, factor in enumerate(segment):
            root = self.find(factor)
            rest = segment[position + 1 :]
            if root in self._product:
                return self._expanded((*segment[:position], *self._product[root], *rest))
            if root in self._sum:
                if all(self._size[self.find(one)] == 1 for one in segment[:position]):
                    return [one for part in self._sum[root] for one in self._expanded((part, *rest))]
                self.freeze([(segment,)])
                return [tuple(self._whole(one) for one in segment)]
        return [tuple(self.find(factor) for factor in segment)]

    def _whole(self, factor: int) -> int:
        """A factor that is not cut, in place of a frozen one."""
        root = self.find(factor)
        if root not in self._uncut:
            self._uncut[root] = self._factor(self._size[root], frozen=True)
        return self._uncut[root]

    def length(self, segment: Segment) -> int:
        return math.prod(self._size[factor] for factor in segment)

    def unite(self, first: Axis, second: Axis) -> None:
        """State that two axes are permuted alike."""
        one, two = list(first), list(second)
        while one and two:
            one[:1], two[:1] = self._expanded(one[0]), self._expanded(two[0])
            a, b = one[0], two[0]
            gap = self.length(a) - self.length(b)
            if gap == 0:
                if not self._unite_products(list(a), list(b)):
                    self.freeze([(a,), (b,)])
                del one[0], two[0]
            elif not self._cut_sum(a if gap > 0 else b, min(self.length(a), self.length(b))):
                self.freeze([tuple(one), tuple(two)])
                return

    def _cut_sum(self, segment: Segment, at: int) -> bool:
        """Cut a segment in two, the first of length `at`."""
        head, rest = segment[0], self.length(segment[1:])
        if at % rest or head in self._product or head in self._sum:
            return False
        first = at // rest
        frozen = head in self._frozen
        self._sum[head] = (self._factor(first, frozen), self._factor(self._size[head] - first, frozen))
        return True

    def _unite_products(self, one: list[int], two: list[int]) -> bool:
        """Unite two products of one length, the least significant factors first."""
        while one or two:
            one, two = self._opened(one), self._opened(two)
            if not one or not two:
                return not one and not two
            a, b = one[-1], two[-1]
            p, q = self._size[a], self._size[b]
            if a in self._sum or b in self._sum:
                return a == b and self._unite_products(one[:-1], two[:-1])
            if p == q:
                self._union(a, b)
                del one[-1], two[-1]
            elif p % q == 0:
                one[-1:] = self._cut_product(a, (p // q, q))
            elif q % p == 0:
                two[-1:] = self._cut_product(b, (q // p, p))
            else:
                return False
        return True

    def _opened(self, factors: list[int]) -> list[int]:
        """Without factors of size 1, the last one uncut."""
        found = [self.find(factor) for factor in factors if self._size[self.find(factor)] > 1]
        while found and found[-1] in self._product:
            found[-1:] = [self.find(factor) for factor in self._product[found[-1]]]
        return found

    def _cut_product(self, factor: int, sizes: Sequence[int]) -> Segment:
        frozen = factor in self._frozen
        self._product[factor] = tuple(self._factor(size, frozen) for size in sizes)
        return self._product[factor]

    def _union(self, a: int, b: int) -> None:
        if a == b:
            return
        keep, gone = min(a, b), max(a, b)
        self._parent[gone] = keep
        if keep in self._frozen or gone in self._frozen:
            self._freeze(keep)
            self._frozen.add(gone)

    def split(self, segments: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Cut one axis into several, as a reshape does; frozen if the sizes do not divide."""
        resolved = self.resolve(segments)
        if len(resolved) > 1:
            equal = {self.length(segment) for segment in resolved}
            if len(equal) == 1 and sizes[0] == len(resolved) and self._tied(resolved):
                front = self.new(sizes[0], frozen=True)
                return [front, *self.split((resolved[0],), sizes[1:])]
            self.freeze([resolved])
            return [self.new(size, frozen=True) for size in sizes]
        left = list(resolved[0])
        found: list[Axis] = []
        for size in reversed(sizes):
            part: list[int] = []
            need = size
            while need > 1:
                left = self._opened(left)
                factor = left.pop()
                have = self._size[factor] if factor not in self._sum else 0
                if have and need % have == 0:
                    part.insert(0, factor)
                    need //= have
                elif have and have % need == 0:
                    outer, inner = self._cut_product(factor, (have // need, need))
                    part.insert(0, inner)
                    left.append(outer)
                    need = 1
                else:
                    self.freeze([resolved])
                    return [self.new(n, frozen=True) for n in sizes]
            found.insert(0, (tuple(part),) if part else self.new(1))
        return found

    def _tied(self, segments: Axis) -> bool:
        for segment in segments[1:]:
            self.unite((segments[0],), (segment,))
        return True

    def merge(self, axes: Sequence[Axis]) -> Axis:
        """Several axes as one, as a reshape does; sums only in front."""
        resolved = [self.resolve(axis) for axis in axes]
        behind = tuple(factor for axis in resolved[1:] for segment in axis[:1] for factor in segment)
        front_is_one = self.length(resolved[0][0]) == 1 and len(resolved[0]) == 1
        if front_is_one and len(resolved) > 1:
            return self.merge(axes[1:])
        if any(len(axis) > 1 for axis in resolved[1:]):
            self.freeze(resolved)
            total = math.prod(sum(self.length(s) for s in axis) for axis in resolved)
            return self.new(total, frozen=True)
        return tuple((*segment, *behind) for segment in resolved[0])
