"""Chains of reshapes and transposes as one: reshape to `fine`, permute, reshape to `shape`.

Two reshapes of one tensor have a common refinement if each of their strides divides the next larger one of
either; a transpose of a reshaped transpose is then again one permutation of finer axes.  Axes of size 1 and
neighbours that move together are merged, so that equal movements have equal descriptions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphnorm.util.typing import Shape


@dataclass(frozen=True, slots=True)
class View:
    """A movement of a tensor's entries.

    Attributes:
        fine: sizes of the tensor's axes, cut or merged (no entry moves).
        perm: order of the fine axes.
        shape: sizes of the result's axes.
    """

    fine: Shape
    perm: tuple[int, ...]
    shape: Shape

    @property
    def moves(self) -> bool:
        """Whether entries change their order."""
        return self.perm != tuple(range(len(self.perm)))

    def reshaped(self, shape: Shape) -> View:
        return View(self.fine, self.perm, shape)

    def transposed(self, perm: Sequence[int]) -> View | None:
        """The view with its result's axes permuted; None if it is no single permutation."""
        order = tuple(perm)
        pieces = self._pieces()
        if pieces is None:
            return None
        fine, moved, ends = pieces
        new = [moved[i] for axis in order for i in range(ends[axis], ends[axis + 1])]
        return _merged(fine, new, tuple(self.shape[axis] for axis in order))

    def cut(self, axis: int, start: int, stop: int) -> Cut | None:
        """The slice of the result's axis as one of the tensor; None if it is no single one."""
        pieces = self._pieces()
        if pieces is None or start == stop:
            return None
        fine, moved, ends = pieces
        inside = [moved[i] for i in range(ends[axis], ends[axis + 1]) if fine[moved[i]] > 1]
        inner = math.prod(fine[piece] for piece in inside[1:])
        if not inside or start % inner or stop % inner:
            return None
        target, low, high = inside[0], start // inner, stop // inner
        size, stride = fine[target], math.prod(fine[target + 1 :])
        common = math.gcd(size, low, high)
        fine[target] = high - low
        view = _merged(fine, moved, (*self.shape[:axis], stop - start, *self.shape[axis + 1 :]))
        return Cut(size // common, stride * common, low // common, high // common, view)

    def _pieces(self) -> tuple[list[int], list[int], list[int]] | None:
        """Fine axes cut at the result's strides: sizes, order, and where each result axis begins in it."""
        pieces = _refinement([self.fine[axis] for axis in self.perm], self.shape)
        if pieces is None:
            return None
        cut_fine, cut_shape = pieces
        sizes: list[list[int]] = [[] for _ in self.fine]
        for axis, part in zip(self.perm, cut_fine, strict=True):
            sizes[axis] = part
        first = list(itertools.accumulate([0, *(len(part) for part in sizes)]))
        moved = [first[axis] + i for axis in self.perm for i in range(len(sizes[axis]))]
        ends = list(itertools.accumulate([0, *(len(part) for part in cut_shape)]))
        return [size for part in sizes for size in part], moved, ends


@dataclass(frozen=True, slots=True)
class Cut:
    """A slice of a viewed tensor, as a slice of the tensor and a view of that.

    Attributes:
        size: of the sliced axis, if the tensor is reshaped to (any, size, stride).
        stride: of that axis.
        start: in units of that axis.
        stop: in units of that axis.
        view: of the part that was cut out.
    """

    size: int
    stride: int
    start: int
    stop: int
    view: View


def whole(shape: Shape) -> View:
    """The tensor as it is."""
    return View((math.prod(shape),), (0,), shape)


def axis_of(shape: Shape, size: int, stride: int) -> int | None:
    """The axis of a tensor that can be reshaped to (any, `size`, any) so that the middle has this stride."""
    low = 1
    for axis in reversed(range(len(shape))):
        high = low * shape[axis]
        if stride % low == 0 and high % (stride * size) == 0 and shape[axis] > 1:
            return axis
        low = high
    return None


def _refinement(
    first: Sequence[int], second: Sequence[int]
) -> tuple[list[list[int]], list[list[int]]] | None:
    """Both factorisations of one size, cut at the strides of both; None if these are incompatible."""
    if math.prod(first) == 0:
        return None
    strides = sorted({*_strides(first), *_strides(second)})
    if any(large % small for small, large in itertools.pairwise(strides)):
        return None
    return _cut(first, strides), _cut(second, strides)


def _strides(sizes: Sequence[int]) -> list[int]:
    return list(itertools.accumulate([1, *reversed(sizes)], lambda a, b: a * b))


def _cut(sizes: Sequence[int], strides: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    low = 1
    for size in reversed(sizes):
        inside = [stride for stride in strides if low <= stride <= low * size]
        found.append([large // small for small, large in itertools.pairwise(inside)][::-1])
        low *= size
    return found[::-1]


def _merged(fine: Sequence[int], perm: Sequence[int], shape: Shape) -> View:
    """Without axes of size 1, neighbours that stay neighbours merged."""
    order = [axis for axis in perm if fine[axis] > 1]
    runs: list[list[int]] = []
    kept = [axis for axis, size in enumerate(fine) if size > 1]
    place = {axis: i for i, axis in enumerate(kept)}
    for axis in order:
        if runs and place[axis] == place[runs[-1][-1]] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ranked = sorted(runs)
    sizes = tuple(math.prod(fine[axis] for axis in run) for run in ranked)
    return View(sizes or (1,), tuple(ranked.index(run) for run in runs) or (0,), shape)
