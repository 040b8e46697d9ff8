"""A label array together with the shape of its tensor, and how data movement acts on it.

Data movement acts on labels as on values, so each method here is the NumPy operation itself, minus the
axes along which the scale does not vary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from graphnorm.scales.labels import (
    FREE,
    Labels,
    align,
    pinned,
    reshape_blocks,
    squeeze_constant_axes,
)
from graphnorm.util.typing import Integers, Shape


@dataclass(frozen=True, slots=True, eq=False)
class ScaleArray:
    """The scale of a tensor of a known shape.

    Attributes:
        labels: of the tensor's rank, and on each axis of the tensor's size, or 1 where the scale does not
            vary.
        shape: of the tensor.  So an axis of size 1 differs from one along which nothing varies.

    Raises:
        ValueError: if the labels are not of that form.
    """

    labels: Labels
    shape: Shape

    def __post_init__(self) -> None:
        sizes = self.labels.shape
        if sizes != self.shape and (
            len(sizes) != len(self.shape)
            or any(n not in (1, m) for n, m in zip(sizes, self.shape, strict=True))
        ):
            raise ValueError(f"scales of shape {sizes} for a tensor of shape {self.shape}")

    @classmethod
    def of(cls, labels: Labels, shape: Shape) -> ScaleArray:
        """From labels that broadcast to `shape`, of fewer axes perhaps."""
        return cls(align(labels, len(shape)) if labels.ndim < len(shape) else labels, shape)

    @classmethod
    def whole(cls, array: Labels) -> ScaleArray:
        """From an array of one number per entry."""
        return cls(array, array.shape)

    def along(self, axes: Collection[int]) -> Labels:
        """The labels, written out along `axes`."""
        sizes = zip(self.labels.shape, self.shape, strict=True)
        return np.broadcast_to(self.labels, [m if axis in axes else n for axis, (n, m) in enumerate(sizes)])

    def entries(self) -> Labels:
        """A label for each entry (a view)."""
        return np.broadcast_to(self.labels, self.shape)

    def squeeze(self) -> ScaleArray:
        """The same without axes along which all labels are in fact equal."""
        return ScaleArray(squeeze_constant_axes(self.labels), self.shape)

    def reshape(self, shape: Shape) -> ScaleArray:
        """Axes that are merged with a labelled one are written out; other blocks of axes stay size 1."""
        if 0 in self.shape:
            return ScaleArray(pinned(len(shape)), shape)
        full: list[int] = []
        small: list[int] = []
        for before, after in reshape_blocks(self.shape, shape):
            varies = any(self.labels.shape[axis] > 1 for axis in before)
            full += [self.shape[axis] if varies else 1 for axis in before]
            small += [shape[axis] if varies else 1 for axis in after]
        return ScaleArray(np.broadcast_to(self.labels, full).reshape(small), shape)

    def transpose(self, order: Sequence[int]) -> ScaleArray:
        return ScaleArray(self.labels.transpose(order), tuple(self.shape[axis] for axis in order))

    def expand(self, shape: Shape) -> ScaleArray:
        """Broadcast to `shape`."""
        return ScaleArray.of(self.labels, shape)

    def tile(self, repeats: Sequence[int]) -> ScaleArray:
        counts = [r if n > 1 else 1 for r, n in zip(repeats, self.labels.shape, strict=True)]
        shape = tuple(n * r for n, r in zip(self.shape, repeats, strict=True))
        return ScaleArray(np.tile(self.labels, counts), shape)

    def take(self, index: Integers, axis: int) -> ScaleArray:
        """Index `axis` with an integer array of any rank (ONNX Gather)."""
        shape = (*self.shape[:axis], *index.shape, *self.shape[axis + 1 :])
        if self.labels.shape[axis] > 1:
            return ScaleArray(np.take(self.labels, index, axis=axis), shape)
        sizes = self.labels.shape
        small = (*sizes[:axis], *(1,) * index.ndim, *sizes[axis + 1 :])
        return ScaleArray(self.labels.reshape(small), shape)

    def region(self, parts: Sequence[slice]) -> ScaleArray:
        """Basic slicing, one slice per axis."""
        shape = tuple(len(range(n)[part]) for n, part in zip(self.shape, parts, strict=True))
        sizes = zip(self.labels.shape, parts, strict=True)
        return ScaleArray(self.labels[tuple(part if n > 1 else slice(None) for n, part in sizes)], shape)

    def pad(self, before: Sequence[int], after: Sequence[int], fill: int) -> ScaleArray:
        """Pad with the label `fill`; negative widths crop.

        Where `FREE` entries join an axis of several entries along which nothing varies, they take its scale.
        """
        widths = list(zip(before, after, strict=True))
        joined = [
            fill == FREE and m > 1 and n == 1 for n, m in zip(self.labels.shape, self.shape, strict=True)
        ]
        moved = [(0, 0) if same else width for same, width in zip(joined, widths, strict=True)]
        labels = self.along([axis for axis, width in enumerate(moved) if any(width)])
        crop = [slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(labels.shape, moved, strict=True)]
        grow = [(max(b, 0), max(a, 0)) for b, a in moved]
        shape = tuple(n + b + a for n, (b, a) in zip(self.shape, widths, strict=True))
        return ScaleArray(np.pad(labels[tuple(crop)], grow, constant_values=fill), shape)


def concat(parts: Sequence[ScaleArray], axis: int) -> ScaleArray:
    """Concatenate along `axis`."""
    arrays = [part.along([axis]) for part in parts]
    others = np.broadcast_shapes(*((*a.shape[:axis], 1, *a.shape[axis + 1 :]) for a in arrays))
    spread = [np.broadcast_to(a, (*others[:axis], a.shape[axis], *others[axis + 1 :])) for a in arrays]
    shape = (*parts[0].shape[:axis], sum(part.shape[axis] for part in parts), *parts[0].shape[axis + 1 :])
    return ScaleArray(np.concatenate(spread, axis=axis), shape).squeeze()
