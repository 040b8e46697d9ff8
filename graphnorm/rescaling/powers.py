"""p-th powers of weights, summed to channel-by-channel masses a chunk at a time.

A chunk's powers fit the processor's cache, so that a weight is read once and its powers never lie in memory.
With p = inf a power is the absolute value and a sum a maximum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm import ir
from graphnorm.solver.masses import Array, Gather
from graphnorm.util.typing import Floats

_CHUNK = 1 << 17  # entries: half a megabyte in float32


@dataclass(frozen=True, slots=True)
class WeightPowers:
    """The masses of a weight region.

    Attributes:
        region: the weight's entries.
        rows, columns: axes of the region; axis 0 is no column.  Powers are summed over the other axes.
        p: exponent.
        factor: multiplies every mass.
        merge: columns that are summed, after the axes are flattened.
    """

    region: ir.Array
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    p: float
    factor: float
    merge: Gather | None

    def chunks(self, dtype: npt.DTypeLike, whole: bool) -> Iterator[tuple[slice, Array]]:
        """(rows, their masses) in `dtype`; chunks of the same rows are to be added (maximised).

        `whole`: all at once where nothing is summed, since no chunk would take less memory than the masses.
        """
        shape = self.region.shape
        if not shape:
            yield (
                slice(0, 1),
                _powers(self.region.reshape(1, 1), self.p, dtype) * np.asarray(self.factor, dtype),
            )
            return
        inner = math.prod(shape[1:])
        step = shape[0] if whole and self._plain else max(1, _CHUNK // max(inner, 1))
        stride = math.prod(shape[a] for a in self.rows if a != 0)
        for start in range(0, shape[0], step):
            part = self.region[start : start + step]
            at = slice(start * stride, (start + len(part)) * stride) if 0 in self.rows else slice(0, stride)
            yield at, self._masses(part, dtype)

    @property
    def _plain(self) -> bool:
        """Whether each entry of the region is a mass."""
        kept = {*self.rows, *self.columns}
        return self.merge is None and all(a in kept or n == 1 for a, n in enumerate(self.region.shape))

    def _masses(self, part: ir.Array, dtype: npt.DTypeLike) -> Array:
        sums = np.isfinite(self.p)
        gone = [a for a in range(part.ndim) if a not in self.rows and a not in self.columns]
        m, n, k = (math.prod(part.shape[a] for a in axes) for axes in (self.rows, self.columns, gone))
        powered = _powers(part, self.p, dtype)
        if list(range(part.ndim)) == [*gone, *self.rows, *self.columns]:
            mass = _over_first(powered.reshape(k, m * n), sums).reshape(m, n)
        else:
            ordered = powered.transpose([*self.rows, *self.columns, *gone])
            mass = _over_last(ordered.reshape(m * n, k), sums).reshape(m, n)
        if self.factor != 1.0:
            mass = mass * np.asarray(self.factor, dtype)
        return mass if self.merge is None else _merge_columns(mass, self.merge, sums)


def power_sum(region: ir.Array, kept: Sequence[int], p: float) -> Floats:
    """Sum of |w|^p (largest |w| for p = inf) over the axes that are not `kept`, in float64."""
    if not region.ndim:
        return np.asarray(_powers(region, p, np.float64), dtype=np.float64)
    gone = tuple(axis for axis in range(region.ndim) if axis not in kept)
    if not region.size:
        return np.zeros([size for axis, size in enumerate(region.shape) if axis in kept])
    found: Array | None = None
    step = max(1, _CHUNK // max(region[:1].size, 1))
    parts = []
    for start in range(0, len(region), step):
        powered = _powers(region[start : start + step], p, np.float64)
        part = powered if not gone else powered.sum(gone) if np.isfinite(p) else powered.max(gone)
        if 0 in gone:
            found = part if found is None else found + part if np.isfinite(p) else np.maximum(found, part)
        else:
            parts.append(part)
    return np.asarray(np.concatenate(parts) if found is None else found, dtype=np.float64)


def _powers(values: ir.Array, p: float, dtype: npt.DTypeLike) -> Array:
    wide = values.astype(dtype, copy=False)
    with np.errstate(over="ignore", under="ignore"):  # `Dense.fitting` decides
        if p == 2.0:
            return np.asarray(np.multiply(wide, wide))
        magnitude = np.asarray(np.abs(wide))  # of a scalar too
        if p == 1.0 or not np.isfinite(p):
            return magnitude
        if p == 4.0:
            squared = np.multiply(magnitude, magnitude, out=magnitude)
            return np.asarray(np.multiply(squared, squared, out=squared))
        return np.asarray(magnitude**p)


def _over_first(powered: Array, sums: bool) -> Array:
    if len(powered) == 1:
        return np.asarray(powered[0])
    ones = np.ones(len(powered), dtype=powered.dtype)
    return np.asarray(ones @ powered if sums else powered.max(axis=0))


def _over_last(powered: Array, sums: bool) -> Array:
    if powered.shape[1] == 1:
        return powered[:, 0]
    ones = np.ones(powered.shape[1], dtype=powered.dtype)
    return powered @ ones if sums else powered.max(axis=1)


def _merge_columns(mass: Array, merge: Gather, sums: bool) -> Array:
    if merge.count == 1:
        return _over_last(mass, sums)[:, None]
    run, rest = divmod(len(merge.inverse), merge.count)
    if not rest and (merge.inverse == np.repeat(np.arange(merge.count), run)).all():  # flattened maps
        return _over_last(mass.reshape(-1, run), sums).reshape(len(mass), merge.count)
    if sums:
        return np.ascontiguousarray((merge.matrix(mass.dtype) @ mass.T).T)
    found = np.zeros((len(mass), merge.count), dtype=mass.dtype)
    np.maximum.at(found.T, merge.inverse, mass.T)
    return found
