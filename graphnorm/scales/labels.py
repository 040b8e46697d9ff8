"""Label arrays: which scale variable each entry of a tensor carries.

The log-scale of a tensor's entry is the variable named by its label.  A label array has the tensor's
rank and is broadcastable to its shape: size 1 means that the scale does not vary along an axis, or that the
axis has one entry.  Broadcasting reads both alike; data movement does not, see `scale_array`.

Label `PINNED` (0) is the constant 0: the entry keeps its value.  Label `FREE` (-1) marks an entry
that is known to be 0 or infinite: any scale is right for it, so it constrains nothing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from graphnorm.util.typing import Shape

Labels = npt.NDArray[np.int64]

PINNED = 0
FREE = -1
ENTRY_LIMIT = 1 << 22  # a weight of more entries does not get a label for each


def pinned(rank: int) -> Labels:
    """The label array of a tensor that keeps its value."""
    return np.zeros((1,) * rank, dtype=np.int64)


def axis_of(number: object, rank: int) -> int:
    """An axis counted from either end, given as a number or an array of one, as an index."""
    return int(np.ravel(np.asarray(number))[0]) % rank


def varying_axes(labels: Labels) -> frozenset[int]:
    """The axes along which the scale may vary."""
    return frozenset(axis for axis, size in enumerate(labels.shape) if size > 1)


def align(labels: Labels, rank: int) -> Labels:
    """Prepend size-1 axes up to `rank`, as NumPy broadcasting does."""
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def overlay(first: Labels, second: Labels) -> Labels:
    """The labels of a sum of two tied tensors: the first's, where it isn't `FREE`."""
    return np.where(first == FREE, second, first) if (first == FREE).any() else first


def reshape_blocks(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Split a reshape into independent blocks of axes: consecutive axes with equal products.

    >>> reshape_blocks((2, 3, 4), (6, 2, 2))
    [(range(0, 2), range(0, 1)), (range(2, 3), range(1, 3))]
    """
    blocks: list[tuple[range, range]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j, left, right = i, j, 1, 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        blocks.append((range(start_i, i), range(start_j, j)))
    return blocks


def squeeze_constant_axes(labels: Labels) -> Labels:
    """Shrink to size 1 each axis along which all labels are in fact the same."""
    for axis, size in enumerate(labels.shape):
        if size > 1:
            first = labels.take([0], axis=axis)
            if np.array_equal(np.broadcast_to(first, labels.shape), labels):
                labels = first
    return labels


def size(shape: Shape) -> int:
    """Number of entries."""
    return math.prod(shape)
