"""Tensors as matrices in the order of their memory.

A part's tensor (contiguous, channels_last, any dense order) becomes a view (rows, columns): the axes of one
side lead in memory, those of the other side and the kernel follow.  Then every multiplication runs over
contiguous memory, and a mass is a row or column sum.  Where memory has another order, the axes stay apart
and the arithmetic broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from graphnorm.training.parts import Block, Part, Side
from graphnorm.util.typing import Integers


@dataclass(frozen=True)
class Layout:
    """How a part of a tensor is seen as a matrix.

    Attributes:
        block: what of the tensor is meant.
        order: its axes, those of the rows first.
        sizes: the view's row sizes and column sizes: one each where memory allows.
        rows: form number of each row.
        columns: form number of each column.
    """

    block: Block
    order: tuple[int, ...]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    rows: Integers
    columns: Integers

    def view(self, tensor: Tensor) -> Tensor:
        """The (*rows, *columns) view of a tensor of this layout's shape and memory order."""
        return tensor.detach()[self.block].permute(self.order).view(*self.sizes[0], *self.sizes[1])

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape in which factors of the rows broadcast against the view."""
        return (*self.sizes[0], *(1,) * len(self.sizes[1]))

    @property
    def column_shape(self) -> tuple[int, ...]:
        return self.sizes[1]


def layout_of(part: Part, tensor: Tensor) -> Layout:
    """The layout of a part in a tensor (the weight itself, or something of its shape)."""
    strides = tensor.stride()
    memory = sorted(range(tensor.dim()), key=lambda axis: (-strides[axis], axis))
    region = tensor.detach()[part.block]
    one, two = [*part.sides, Side((), np.zeros((1,) * tensor.dim(), dtype=np.int64))][:2]
    choices = [_arranged(one, two, memory), _arranged(two, one, memory)]
    for (leading, trailing), sides in zip(choices, ((one, two), (two, one)), strict=True):
        sizes = [math.prod(region.size(axis) for axis in axes) for axes in (leading, trailing)]
        try:
            region.permute((*leading, *trailing)).view(sizes)
        except RuntimeError:  # these axes do not follow each other in memory
            continue
        return _layout(part, region, leading, trailing, sides, ((sizes[0],), (sizes[1],)))
    leading, trailing = choices[0]
    apart = tuple(tuple(region.size(axis) for axis in axes) for axes in (leading, trailing))
    return _layout(part, region, leading, trailing, (one, two), (apart[0], apart[1]))


def _arranged(first: Side, second: Side, memory: Sequence[int]) -> tuple[list[int], list[int]]:
    """Axes of rows and of columns, if the rows are to carry `first`."""
    if first.axes:
        leading = [axis for axis in memory if axis in first.axes]
    else:  # nothing depends on the rows: all axes before those of the columns
        start = min((memory.index(axis) for axis in second.axes), default=len(memory))
        leading = list(memory[:start])
    return leading, [axis for axis in memory if axis not in leading]


def _layout(
    part: Part,
    region: Tensor,
    leading: list[int],
    trailing: list[int],
    sides: tuple[Side, Side],
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Layout:
    order = (*leading, *trailing)
    rows, columns = (
        _spread(side, region, axes, order) for side, axes in zip(sides, (leading, trailing), strict=True)
    )
    return Layout(part.block, order, sizes, rows, columns)


def _spread(side: Side, region: Tensor, axes: Sequence[int], order: Sequence[int]) -> Integers:
    size = [region.size(axis) if axis in axes else 1 for axis in range(region.dim())]
    return np.broadcast_to(side.forms, size).transpose(order).ravel()
